"""Delta of a contract averaged over where its price may stand after a look-ahead."""

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._safe import safe_divide
from gpumargin_kernels.black import black_greeks
from gpumargin_kernels.model import DeltaPoints, ScenarioRules
from gpumargin_kernels.records import Contracts


def moved_forward(contracts: Contracts, rules: ScenarioRules, index: Array, spot: Array) -> Array:
    """Forward of every contract where spot stands at a level.

    Args:
      contracts: `[M]`.
      rules: `is_parallel` moves every forward by what the index gains, else its variable part moves in proportion.
      index: `[M]` index price of the contract's unit, accounting unit.
      spot: `[M, S]` levels, 1 = unmoved.

    Returns:
      `[M, S]` quote currency. A forward whose variable part is 0 is settled and never moves.
    """
    if not rules.is_parallel:
        moved: Array = contracts.forward_fixed[:, None] + contracts.forward_variable[:, None] * spot
        return moved
    per_quote = jnp.where(contracts.is_inverse, 1, contracts.settlement_ratio)
    own = jnp.where(contracts.forward_variable == 0, 0, safe_divide(index, per_quote, 0))
    forward: Array = contracts.forward_fixed + contracts.forward_variable
    return forward[:, None] + own[:, None] * (spot - 1)


def composite_delta(contracts: Contracts, vol: Array, points: DeltaPoints, rules: ScenarioRules, index: Array) -> Array:
    """Weighted delta of one long contract over price points after a look-ahead, vol unmoved.

    Args:
      contracts: `[M]`.
      vol: `[M]` unshocked.
      points: levels, weights and look-ahead; weights are taken as they are, also where they do not add up to 1.
      rules: how forwards move.
      index: `[M]` index price of the contract's unit.

    Returns:
      `[M]` units of the underlying; 1 per unit for linear contracts, 0 for expired ones and padding. An option that
      expires before the look-ahead has the delta of its intrinsic value.

    Source: CME, Components of SPAN (composite delta).
    """
    years = jnp.maximum(contracts.years - points.years_ahead, 0)
    forwards = moved_forward(contracts, rules, index, jnp.asarray(points.spot)[contracts.unit])
    total = jnp.zeros_like(vol)
    for point in range(points.weight.shape[0]):
        greeks = black_greeks(forwards[:, point], contracts.strike, vol, years, contracts.is_call)
        total = total + greeks.delta * points.weight[point]
    is_amount = contracts.is_inverse & ~contracts.is_option
    size = jnp.where(is_amount, safe_divide(contracts.size, contracts.mark, 0), contracts.size)
    has_expired = ~contracts.is_perpetual & ~contracts.is_base & (contracts.years == 0)
    linear = jnp.where(has_expired, 0, size)
    return jnp.where(contracts.is_option, total * size, linear)
