"""The leg stage: sums over runs of legs, closed strike by strike and expiry by expiry, slot by slot.

Legs of a row stand in canonical order (expiry, then strike), so each group is a run of consecutive slots. A loop over
slots carries one accumulator per lane; where a slot is the last of its group, the group's sums are closed into the
row's total and start again. Nothing is scattered, so the order of every addition is fixed and the results carry the
same bits for any bucket width, chunk size or number of devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gpumargin_kernels._buckets import repeat
from gpumargin_kernels.records import Contracts, Legs, Level, Tally

# Slots per loop step, so that loads of several rows overlap. Plain sums gain from 8 (4 is 10 % slower, 16 no faster);
# with groups to close, 8 only doubles the time to compile (both measured on AVX-512).
PLAIN_UNROLL = 8
GROUPED_UNROLL = 4


class _Lane(NamedTuple):
    """Tallies that are summed the same way, side by side."""

    level: Level
    is_absolute: bool
    tallies: tuple[Tally, ...]
    columns: Array  # [M, K] of all tallies
    terms: Array  # [M, T] of all tallies


class _Start(NamedTuple):
    """Numbers that only the run knows, so that no compiler can fold them.

    Every product is multiplied by `one` before it is added. A fused multiply-add of (product, one, sum) rounds exactly
    as product then sum, so it does not matter whether the compiler fuses: without it XLA fuses in one bucket and not
    in another, and the last bits differ (measured). A literal `zero` would let it fold the first addition.
    """

    zero: Array  # []
    one: Array  # []


class _Slots(NamedTuple):
    """Consecutive slots of every row of a chunk."""

    contract: Array  # [R, L]
    quantity: Array  # [R, L]
    closes: dict[str, Array]  # level -> [R, L] bool, True on the last leg of a group


def _lanes(tallies: tuple[Tally, ...]) -> tuple[_Lane, ...]:
    keys = list(dict.fromkeys((t.level, t.is_absolute) for t in tallies))
    members = [tuple(t for t in tallies if (t.level, t.is_absolute) == key) for key in keys]
    return tuple(
        _Lane(
            *key,
            tallies=group,
            columns=jnp.concatenate([t.columns for t in group], axis=1),
            terms=jnp.concatenate([t.terms for t in group], axis=1),
        )
        for key, group in zip(keys, members, strict=True)
    )


def _split(block: Array, widths: list[int]) -> list[Array]:
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    return [block[:, end - width : end] for end, width in zip(ends, widths, strict=True)]


def _closed(lane: _Lane, sums: Array, terms: Array, one: Array) -> Array:
    """What the closing groups of a lane add to the row's total, `[R, J]`."""
    parts = zip(
        lane.tallies,
        _split(sums, [t.columns.shape[1] for t in lane.tallies]),
        _split(terms, [t.terms.shape[1] for t in lane.tallies]),
        strict=True,
    )
    return jnp.concatenate([t.close(s, x, one) for t, s, x in parts if t.close is not None], axis=1)


def _total_widths(lane: _Lane) -> list[int]:
    if lane.level == "unit":
        return [t.columns.shape[1] for t in lane.tallies]
    shapes = [jax.eval_shape(t.close, t.columns, t.terms, t.columns[0, 0]) for t in lane.tallies if t.close is not None]
    return [shape.shape[1] for shape in shapes]


def _add_slot(lane: _Lane, carry: tuple[Array, Array], slot: _Slots, start: _Start) -> tuple[Array, Array]:
    """Group sums and row total of a lane after one more slot; `slot` fields are `[R]`."""
    group, total = carry
    quantity = jnp.abs(slot.quantity) if lane.is_absolute else slot.quantity
    product = quantity[:, None] * lane.columns[slot.contract] * start.one
    if lane.level == "unit":
        return group, total + product
    group = group + product
    closes = slot.closes[lane.level][:, None]
    closed = _closed(lane, group, lane.terms[slot.contract], start.one) * start.one
    return jnp.where(closes, start.zero, group), total + jnp.where(closes, closed, 0)


def _closing(groups: Array, contract: Array) -> Array:
    """True where a slot is the last of its group, `[R, L]`."""
    group = groups[contract]
    is_last = jnp.ones((group.shape[0], 1), bool)
    return jnp.concatenate([group[:, 1:] != group[:, :-1], is_last], axis=1)


def leg_sums(tallies: tuple[Tally, ...], contracts: Contracts, legs: Legs, zero: Array) -> tuple[Array, ...]:
    """Sums of every tally over the legs of each row.

    Args:
      tallies: what to add up.
      contracts: `[M]`; only the groups are read.
      legs: `[R, L]` in canonical order; L is a power of two.
      zero: `[]`, 0 at run time. A literal would let XLA fold the first addition and fuse other products, which
        changes the last bits of rows that fit one loop step (measured).

    Returns:
      One `[R, J]` per tally; rows of padding give what closing empty groups gives, 0.
    """
    lanes = _lanes(tallies)
    rows, width = legs.contract.shape
    unroll = PLAIN_UNROLL if all(lane.level == "unit" for lane in lanes) else GROUPED_UNROLL
    step = min(unroll, max(width // 2, 1))  # two trips at least: XLA inlines a loop of one into what follows
    start = _Start(zero, zero + 1)
    closes = {
        "expiry": _closing(contracts.expiry_group, legs.contract),
        "strike": _closing(contracts.strike_group, legs.contract),
    }
    everything = _Slots(legs.contract, legs.quantity, closes)

    def add_step(index: Array, carries: tuple[tuple[Array, Array], ...]) -> tuple[tuple[Array, Array], ...]:
        here = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, index * step, step, axis=1), everything)
        for j in range(step):
            slot = jax.tree.map(lambda x, j=j: x[:, j], here)
            carries = tuple(_add_slot(lane, carry, slot, start) for lane, carry in zip(lanes, carries, strict=True))
        return carries

    empty = tuple(
        (
            jnp.broadcast_to(zero, (rows, 0 if lane.level == "unit" else lane.columns.shape[1])),
            jnp.broadcast_to(zero, (rows, sum(_total_widths(lane)))),
        )
        for lane in lanes
    )
    totals = [total for _, total in repeat(width // step, add_step, empty)]
    by_tally = {
        id(tally): block
        for lane, total in zip(lanes, totals, strict=True)
        for tally, block in zip(lane.tallies, _split(total, _total_widths(lane)), strict=True)
    }
    return tuple(by_tally[id(tally)] for tally in tallies)
