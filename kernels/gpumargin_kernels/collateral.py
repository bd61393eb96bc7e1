"""Haircut collateral: what balances are worth, and how much of that supports margin."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import repeat
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.model import Weights
from gpumargin_kernels.records import Assets, Balances


class CollateralValue(NamedTuple):
    """Sums over the balances of each account, accounting unit."""

    full: Leaf  # [A] at full market value, borrowed balances negative
    weighted: dict[str, Leaf]  # [A] by margin type, after haircuts


def collateral_value(balances: Balances, assets: Assets, weights: dict[str, Weights], zero: Array) -> CollateralValue:
    """Balances of each account at full value and after flat haircuts.

    A positive balance counts value * asset weight, and nothing if it is not collateral; a borrowed one counts
    value * liability weight, always.

    Args:
      balances: `[A, L]`.
      assets: `[C]` price ratios.
      weights: per margin type, `[C]` each.
      zero: `[]` run-time zero that starts the sums (see `leg_sums`).

    Returns:
      `CollateralValue`.

    Source: the common form of Aave v3, Mango v4 and Drift v2 collateral weights; haircut = 1 - weight.
    """
    nothing = jnp.broadcast_to(zero, balances.amount.shape[:1])

    def add_slot(slot: Array, sums: CollateralValue) -> CollateralValue:
        asset, amount = balances.asset[:, slot], balances.amount[:, slot]
        value = amount * assets.ratio[asset]
        counts = balances.is_collateral[:, slot]

        def weight(of: Weights) -> Array:
            return jnp.where(amount < 0, of.liability[asset], jnp.where(counts, of.asset[asset], 0))

        return CollateralValue(
            full=sums.full + value,
            weighted={name: sums.weighted[name] + value * weight(of) for name, of in weights.items()},
        )

    start = CollateralValue(nothing, dict.fromkeys(weights, nothing))
    return repeat(balances.amount.shape[1], add_slot, start)
