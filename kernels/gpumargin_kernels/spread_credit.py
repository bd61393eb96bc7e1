"""Credit for positions of different risk units that offset each other: SPAN's inter-commodity spreads."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import repeat
from gpumargin_kernels._safe import safe_divide
from gpumargin_kernels.leaf import Leaf


class SpreadTable(NamedTuple):
    """Spreads in order of priority, P of them with up to J legs."""

    unit: Leaf  # [P, J] int32 index of the leg's risk unit, -1 = the book has none
    is_leg: Leaf  # [P, J] bool, False = padding of spreads with fewer legs
    ratio: Leaf  # [P, J] delta of the leg in one spread, > 0
    side: Leaf  # [P, J] 1 or -1: legs of different sign offset each other
    rate: Leaf  # [P] share of the legs' price risk that is given back, 0..1


class _State(NamedTuple):
    """What is left, and what was given so far, `[A, L]` each."""

    delta: Array
    credit: Array


def _spreads(delta: Array, table: SpreadTable, spread: Array, masks: list[Array], one: Array) -> Array:
    """Signed number of spreads that an account's deltas can form, `[A]`: positive with the sides as listed."""
    most, least = jnp.full(delta.shape[:1], jnp.inf, delta.dtype), jnp.full(delta.shape[:1], -jnp.inf, delta.dtype)
    for leg, mask in enumerate(masks):
        held = jnp.sum(jnp.where(mask, delta, 0), axis=1)  # one slot at most: exact in any order
        # A run-time one in the divisor keeps it a division: by a loop's constant it would become a product.
        number = held * table.side[spread, leg] / (table.ratio[spread, leg] * one)
        is_leg = table.is_leg[spread, leg]
        most = jnp.where(is_leg, jnp.minimum(most, number), most)
        least = jnp.where(is_leg, jnp.maximum(least, number), least)
    return jnp.maximum(most, 0) + jnp.minimum(least, 0)


def spread_credit(delta: Array, weighted_risk: Array, units: Array, table: SpreadTable, zero: Array) -> Array:
    """Credit of each unit of each account for spreads against other units.

    Spreads are formed in their order from what the ones before left over: n = min over the legs of |delta| / ratio if
    the deltas have the sides that the spread asks for, all of them or all reversed. Each leg receives
    n * ratio * weighted risk * rate and gives n * ratio of its delta up.

    Args:
      delta: `[A, L]` net delta of each held unit, in units of the underlying; 0 in padded slots.
      weighted_risk: `[A, L]` price risk per unit of delta, money, >= 0 (see `weighted_price_risk`).
      units: `[A, L]` int32 unit of each slot; -2 in padded slots.
      table: spreads in order of priority.
      zero: `[]` run-time zero.

    Returns:
      `[A, L]` money, >= 0; 0 in padded slots and for accounts that form no spread.

    Source: CME, Components of SPAN (inter-commodity spread credit); CBOT, SPAN Margin System (1991).
    """
    one = zero + 1
    count, legs = table.ratio.shape

    def form(spread: Array, state: _State) -> _State:
        masks = [table.is_leg[spread, leg] & (units == table.unit[spread, leg]) for leg in range(legs)]
        number = _spreads(state.delta, table, spread, masks, one)[:, None]
        left, credit = state
        for leg, mask in enumerate(masks):
            used = number * table.ratio[spread, leg]
            left = left - jnp.where(mask, used * table.side[spread, leg] * one, 0)
            credit = credit + jnp.where(mask, jnp.abs(used) * weighted_risk * table.rate[spread] * one, 0)
        return _State(left, credit)

    return repeat(count, form, _State(delta, jnp.broadcast_to(zero, delta.shape))).credit


def weighted_price_risk(price_risk: Array, delta: Array, cap: Array) -> Array:
    """Price risk per unit of delta, at most `cap`: a delta near 0 would make it any size.

    Args:
      price_risk: money, any shape; below 0 counts as 0.
      delta: net delta, same shape.
      cap: money per unit of delta, same shape.

    Returns:
      Same shape, 0 where delta is 0.
    """
    return jnp.minimum(safe_divide(jnp.maximum(price_risk, 0), jnp.abs(delta), 0), cap)
