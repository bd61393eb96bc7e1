"""Collateral haircuts from the price risk and the cost of selling a holding."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from gpumargin_kernels._buckets import repeat
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.normal import normal_cdf, normal_density, normal_inverse_cdf

_HALVINGS = 128  # of an interval of some hundred standard deviations: down to the last bit
_REACH = 40.0  # standard deviations beyond which a normal distribution has nothing left


class Holding(NamedTuple):
    """A holding of one asset and the market it is sold in; any common shape."""

    quantity: Leaf
    daily_volume: Leaf
    daily_vol: Leaf  # decimal per square root of a day
    base_days: Leaf  # before the sale begins
    participation: Leaf  # share of the volume that the sale may be
    spread: Leaf  # relative, bid to ask
    impact: Leaf  # cost of trading one day's volume, in daily vols


class Stress(NamedTuple):
    """How bad it gets; any common shape."""

    confidence: Leaf
    exposure_confidence: Leaf  # quantile at which the exposure's loss stands
    correlation: Leaf  # of the collateral's fall with that loss
    jump_probability: Leaf  # over the horizon
    jump_size: Leaf  # fraction of the price lost in the jump, below 1


class Haircut(NamedTuple):
    """The haircut and its parts, fractions of the value."""

    liquidation_days: Leaf
    effective_days: Leaf
    vol: Leaf  # over the effective days
    diffusion: Leaf
    liquidation_cost: Leaf
    base: Leaf  # diffusion and cost
    wrong_way: Leaf
    jump_quantile: Leaf  # log return
    jump: Leaf
    final: Leaf


def _mixture_quantile(tail: Array, vol: Array, probability: Array, jump: Array) -> Array:
    """The x where (1 - p) cdf(x / vol) + p cdf((x - jump) / vol) equals `tail`, by halving, then one Newton step.

    The step adds no digits but carries the derivative, which halving does not have.
    """

    def mass(x: Array) -> Array:
        return (1 - probability) * normal_cdf(x / vol) + probability * normal_cdf((x - jump) / vol) - tail

    def halve(_: Array, interval: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = interval
        middle = (low + high) / 2
        is_above = mass(middle) > 0
        return jnp.where(is_above, low, middle), jnp.where(is_above, middle, high)

    low, high = repeat(_HALVINGS, halve, (jump - _REACH * vol, _REACH * vol))
    x = lax.stop_gradient((low + high) / 2)
    slope = (1 - probability) * normal_density(x / vol) + probability * normal_density((x - jump) / vol)
    return x - jnp.where(slope > 0, mass(x) * vol / jnp.where(slope > 0, slope, 1), 0)


def collateral_haircut(holding: Holding, stress: Stress) -> Haircut:
    """Haircut of a holding: the worst of diffusion, wrong-way and jump risk, and the cost of selling on top.

    The price moves freely for `base_days`, then the holding is sold at a constant pace: t0 + d / 3 days of full
    exposure. Wrong-way risk conditions on the exposure standing at its own quantile, jointly normal.

    Args:
      holding: quantity, daily volume and daily vol above 0.
      stress: confidences strictly between 0 and 1.

    Returns:
      `Haircut`.

    Source: our own definition, from days to sell, square-root impact and a jump mixture.
    """
    days = holding.quantity / (holding.participation * holding.daily_volume)
    effective = holding.base_days + days / 3
    vol = holding.daily_vol * jnp.sqrt(effective)
    z = normal_inverse_cdf(stress.confidence)
    rho = stress.correlation
    given = rho * normal_inverse_cdf(stress.exposure_confidence) + jnp.sqrt(1 - rho * rho) * z
    share = holding.quantity / holding.daily_volume
    cost = holding.spread / 2 + holding.impact * holding.daily_vol * jnp.sqrt(share)
    quantile = _mixture_quantile(1 - stress.confidence, vol, stress.jump_probability, jnp.log1p(-stress.jump_size))
    diffusion, wrong_way, jump = -jnp.expm1(-z * vol), -jnp.expm1(-given * vol), -jnp.expm1(quantile)
    worst = jnp.maximum(jnp.maximum(diffusion, wrong_way), jump)
    return Haircut(
        liquidation_days=days,
        effective_days=effective,
        vol=vol,
        diffusion=diffusion,
        liquidation_cost=cost,
        base=1 - (1 - diffusion) * (1 - cost),
        wrong_way=wrong_way,
        jump_quantile=quantile,
        jump=jump,
        final=1 - (1 - worst) * (1 - cost),
    )
