"""What the options of one expiry pay together at expiry, at worst: the loss that netting calls and puts leaves.

The payoff is piecewise linear in the price with kinks at the strikes, so that its least value up to the highest strike
is found at 0 or at a strike. Above, it goes on with the net number of calls, which is for the model file to charge.

At a strike, calls below it and puts above it pay. Legs stand in ascending order of strike, so a first loop, from the
last slot to the first, adds up the puts at and above each slot, and a second one the calls on the way, where the payoff
at each strike is at hand. Both go slot by slot, as `leg_sums` does, and for the same reason.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from gpumargin_kernels._buckets import barrier, in_chunks, repeat
from gpumargin_kernels.contract_values import leg_masks
from gpumargin_kernels.records import Contracts, Legs, Tally
from gpumargin_kernels.tally import closing

LOWEST_PAYOFF = "lowest_payoff"  # the leg input that this module makes


class _Columns(NamedTuple):
    """What one contract adds, `[M, 2]` each: units of the underlying, and those times the strike."""

    calls: Array
    puts: Array
    strike: Array  # [M]


def _columns(contracts: Contracts) -> _Columns:
    strike = jnp.multiply(contracts.strike, contracts.quote_ratio)
    size = jnp.asarray(contracts.size)
    if contracts.is_digital is not None:
        size = jnp.where(contracts.is_digital, jnp.nan, size)
    masks = leg_masks(contracts)
    both = jnp.stack([size, size * strike], axis=1)
    calls, puts = (jnp.where(masks[kind][:, None], both, 0) for kind in ("call", "put"))
    return _Columns(calls, puts, strike)


def _puts_above(columns: _Columns, legs: Legs, closes: Array, zero: Array) -> Array:
    """Size of the puts of each leg's expiry from the leg's slot on, and size times strike, `[R, L, 2]`."""
    rows, width = legs.contract.shape
    one = zero + 1

    def add_slot(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        slot = width - 1 - index
        sums, above = carry
        begun = jnp.where(closes[:, slot, None], zero, sums)
        more = begun + legs.quantity[:, slot, None] * columns.puts[legs.contract[:, slot]] * one
        return more, lax.dynamic_update_index_in_dim(above, more, slot, axis=1)

    start = jnp.broadcast_to(zero, (rows, 2)), jnp.broadcast_to(zero, (rows, width, 2))
    return repeat(width, add_slot, start)[1]


def lowest_payoffs(contracts: Contracts, legs: Legs, zero: Array) -> Array:
    """Least that the options of each expiry pay together at expiry, over prices from 0 to the highest strike held.

    Args:
      contracts: `[M]`; sizes, strikes and groups are read. Only differences between vanilla calls and puts and their
        strikes count: a digital option makes its expiry NaN.
      legs: `[R, L]` in canonical order.
      zero: `[]`, 0 at run time, see `leg_sums`.

    Returns:
      `[R, L]`, accounting unit, at most 0: the expiry's at the last leg of each, 0 elsewhere, so that the sum over the
      legs of an expiry is its own. It carries the same bits for any width of the bucket.
    """
    columns = _columns(contracts)
    rows, width = legs.contract.shape
    closes = closing(contracts.expiry_group, legs.contract)
    opens = jnp.concatenate([jnp.ones((rows, 1), bool), closes[:, :-1]], axis=1)
    above, one = barrier(_puts_above(columns, legs, closes, zero)), zero + 1

    def add_slot(slot: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        below, lowest, found = carry
        contract, is_first, puts = legs.contract[:, slot], opens[:, slot], above[:, slot]
        begun = jnp.where(is_first[:, None], zero, below)
        calls = begun + legs.quantity[:, slot, None] * columns.calls[contract] * one
        here = (calls[:, 0] - puts[:, 0]) * columns.strike[contract] * one + (puts[:, 1] - calls[:, 1])
        at_zero = jnp.minimum(puts[:, 1], 0)  # at the first slot all puts of the expiry stand above
        least = jnp.minimum(jnp.where(is_first, at_zero, lowest), here)
        result = jnp.where(closes[:, slot], least, 0)
        return calls, least, lax.dynamic_update_index_in_dim(found, result, slot, axis=1)

    nothing = jnp.broadcast_to(zero, (rows,))
    start = jnp.broadcast_to(zero, (rows, 2)), nothing, jnp.broadcast_to(zero, (rows, width))
    return repeat(width, add_slot, start)[2]


def with_payoffs(
    legs: Legs, contracts: Contracts, tallies: tuple[Tally, ...], zero: Array, *, chunk: int | None
) -> Legs:
    """Legs with the lowest payoff of their expiry as one more input, if any tally adds it up; else as they are."""
    if not any(LOWEST_PAYOFF in tally.columns for tally in tallies):
        return legs
    found = in_chunks(lambda rows: lowest_payoffs(contracts, rows, zero), legs, chunk)
    return legs._replace(inputs={**legs.inputs, LOWEST_PAYOFF: barrier(found)})
