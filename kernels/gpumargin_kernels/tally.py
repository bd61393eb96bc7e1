"""The leg stage: sums over runs of legs, closed strike by strike and expiry by expiry, slot by slot.

Legs of a row stand in canonical order (expiry, then strike), so each group is a run of consecutive slots. A loop over
slots carries one accumulator per lane; where a slot is the last of its group, the group's sums are closed into the
row's total and start again. Nothing is scattered, so the order of every addition is fixed and the results carry the
same bits for any bucket width, chunk size or number of devices.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gpumargin_kernels._buckets import barrier, in_chunks, in_row_order, repeat
from gpumargin_kernels.records import Contracts, Legs, Level, Tally

# Slots per loop step, so that loads of several rows overlap. Plain sums gain from 8 (4 is 10 % slower, 16 no faster);
# with groups to close, 8 only doubles the time to compile (both measured on AVX-512).
PLAIN_UNROLL = 8
GROUPED_UNROLL = 4


LegSummer = Callable[[Legs], tuple[Array, ...]]
# Makes results `[R, ...]` of what rows may look up, the sums by tally `[R, J]`, the units `[R]` and a run-time one.
Finish = Callable[[Any, tuple[Array, ...], Array, Array], Any]
Sums = dict[str, Array]  # by what of a leg multiplies the columns, [R, K] each


class Lane(NamedTuple):
    """Tallies that are summed the same way, side by side."""

    level: Level
    tallies: tuple[Tally, ...]
    columns: Sums  # [M, K] of all tallies
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
    inputs: dict[str, Array]  # [R, L] each
    closes: dict[str, Array]  # level -> [R, L] bool, True on the last leg of a group


# What of a leg multiplies the columns of a word; any other word is an input of the leg itself.
QUANTITIES: dict[str, Callable[[Array], Array]] = {
    "net": lambda quantity: quantity,
    "gross": jnp.abs,
    "long": lambda quantity: jnp.maximum(quantity, 0),
    "short": lambda quantity: jnp.maximum(-quantity, 0),
    "count": jnp.ones_like,
}


def lanes_of(tallies: tuple[Tally, ...]) -> tuple[Lane, ...]:
    """Tallies by level; the loop carries one set of sums for each."""
    levels = list(dict.fromkeys(t.level for t in tallies))
    return tuple(lane_of(level, tuple(t for t in tallies if t.level == level)) for level in levels)


def lane_of(level: Level, tallies: tuple[Tally, ...]) -> Lane:
    """Tallies of one level side by side."""
    words = sorted({word for t in tallies for word in t.columns})
    columns = {word: jnp.concatenate([t.columns[word] for t in tallies if word in t.columns], axis=1) for word in words}
    return Lane(level, tallies, columns, jnp.concatenate([t.terms for t in tallies], axis=1))


def _split(block: Array, widths: list[int]) -> list[Array]:
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    return [block[:, end - width : end] for end, width in zip(ends, widths, strict=True)]


def _by_tally(lane: Lane, sums: Sums) -> list[Sums]:
    """Each tally's own part of a lane's sums."""
    parts: list[Sums] = [{} for _ in lane.tallies]
    for word, block in sums.items():
        owners = [i for i, t in enumerate(lane.tallies) if word in t.columns]
        widths = [lane.tallies[i].columns[word].shape[1] for i in owners]
        for i, part in zip(owners, _split(block, widths), strict=True):
            parts[i][word] = part
    return parts


def group_totals(lane: Lane, sums: Sums, terms: Array, one: Array) -> Array:
    """What closing groups add to a row's total, `[R, J]`; of sums by word `[R, K]`, terms `[R, T]`, `one` `[]`."""
    own_terms = _split(terms, [t.terms.shape[1] for t in lane.tallies])
    parts = zip(lane.tallies, _by_tally(lane, sums), own_terms, strict=True)
    return jnp.concatenate([t.close(s, x, one) for t, s, x in parts if t.close is not None], axis=1)


def total_widths(lane: Lane) -> list[int]:
    """Columns that each tally of a lane with groups adds to a row's total."""
    one = lane.terms.dtype.type(1) if lane.terms.shape[1] else next(iter(lane.columns.values())).dtype.type(1)
    shapes = [jax.eval_shape(t.close, t.columns, t.terms, one) for t in lane.tallies if t.close is not None]
    return [shape.shape[1] for shape in shapes]


def _weighted(lane: Lane, slot: _Slots, word: str, one: Array) -> Array:
    """One slot's contribution to the sums of one word, `[R, K]`."""
    own = QUANTITIES[word](slot.quantity) if word in QUANTITIES else slot.inputs[word]
    return own[:, None] * lane.columns[word][slot.contract] * one


def _add_slot(lane: Lane, carry: tuple[Sums, Array], slot: _Slots, start: _Start) -> tuple[Sums, Array]:
    """Group sums and row total of a lane after one more slot; `slot` fields are `[R]`."""
    group, total = carry
    group = {word: sums + _weighted(lane, slot, word, start.one) for word, sums in group.items()}
    if lane.level == "unit":
        return group, total
    closes = slot.closes[lane.level][:, None]
    closed = group_totals(lane, group, lane.terms[slot.contract], start.one) * start.one
    emptied = {word: jnp.where(closes, start.zero, sums) for word, sums in group.items()}
    return emptied, total + jnp.where(closes, closed, 0)


def closing(groups: Array, contract: Array) -> Array:
    """True where a slot is the last of its group, `[R, L]`."""
    group = groups[contract]
    is_last = jnp.ones((group.shape[0], 1), bool)
    return jnp.concatenate([group[:, 1:] != group[:, :-1], is_last], axis=1)


def _empty(lane: Lane, rows: int, zero: Array) -> tuple[Sums, Array]:
    """Sums and total of a lane before its first slot."""
    totals = 0 if lane.level == "unit" else sum(total_widths(lane))
    sums = {word: jnp.broadcast_to(zero, (rows, block.shape[1])) for word, block in lane.columns.items()}
    return sums, jnp.broadcast_to(zero, (rows, totals))


def in_tally_order(
    tallies: tuple[Tally, ...], lanes: tuple[Lane, ...], found: Sequence[Sums | Array]
) -> tuple[Array, ...]:
    """What each tally asked for, `[R, J]` each.

    Args:
      tallies: in the order wanted.
      lanes: of these tallies.
      found: of each lane the sums by word at unit level, else the total of its rows.
    """
    by_tally = {
        id(tally): block
        for lane, results in zip(lanes, found, strict=True)
        for tally, block in zip(lane.tallies, _results(lane, results), strict=True)
    }
    return tuple(by_tally[id(tally)] for tally in tallies)


def _results(lane: Lane, found: Sums | Array) -> list[Array]:
    if isinstance(found, dict):
        return [jnp.concatenate([part[word] for word in sorted(part)], axis=1) for part in _by_tally(lane, found)]
    return _split(found, total_widths(lane))


class RowPlan(NamedTuple):
    """What is done with the legs of every row.

    Attributes:
      tallies: what to add up.
      contracts: `[M]`; only the groups are read.
      finish: makes a row's results of its sums.
      shared: arrays that `finish` looks up in by the unit of a row, or takes as they are.
      units: how many units there are.
    """

    tallies: tuple[Tally, ...]
    contracts: Contracts
    finish: Finish
    shared: Any
    units: int


# Runs a plan over buckets of legs `[R_b, L_b]`, `chunk` rows at a time, and lays the results end to end, `[R, ...]`.
RowStage = Callable[[RowPlan, tuple[Legs, ...], Array, int | None], Any]


def row_stage(plan: RowPlan, buckets: tuple[Legs, ...], zero: Array, chunk: int | None) -> Any:
    """Sums over the legs of every row, and what comes of them; `zero` as in `leg_summer`."""
    summer = leg_summer(plan.tallies, plan.contracts, zero)

    def rows(legs: Legs) -> Any:
        # The barrier keeps every bucket's sums out of the arithmetic that follows, so that all buckets contract alike.
        return plan.finish(plan.shared, barrier(summer(legs)), legs.unit, zero + 1)

    return in_row_order([in_chunks(rows, bucket, chunk) for bucket in buckets], None)


def leg_sums(tallies: tuple[Tally, ...], contracts: Contracts, legs: Legs, zero: Array) -> tuple[Array, ...]:
    """Sums of every tally over the legs of each row: `leg_summer` for a single use."""
    return leg_summer(tallies, contracts, zero)(legs)


def leg_summer(tallies: tuple[Tally, ...], contracts: Contracts, zero: Array) -> LegSummer:
    """What sums every tally over the legs of rows.

    The tables that legs are looked up in are laid out here, once, and not for every chunk of rows.

    Args:
      tallies: what to add up.
      contracts: `[M]`; only the groups are read.
      zero: `[]`, 0 at run time. A literal would let XLA fold the first addition and fuse other products, which
        changes the last bits of rows that fit one loop step (measured).

    Returns:
      A function of legs `[R, L]` in canonical order, L 2, 4 or a multiple of 8. It gives one `[R, J]` per tally; rows
      of padding give what closing empty groups gives, 0. At unit level J counts the columns in the alphabetical order
      of their words (see `Tally`).
    """
    return partial(_sums, tallies, lanes_of(tallies), contracts, zero)


def _sums(
    tallies: tuple[Tally, ...], lanes: tuple[Lane, ...], contracts: Contracts, zero: Array, legs: Legs
) -> tuple[Array, ...]:
    rows, width = legs.contract.shape
    unroll = PLAIN_UNROLL if all(lane.level == "unit" for lane in lanes) else GROUPED_UNROLL
    step = min(unroll, max(width // 2, 1))  # two trips at least: XLA inlines a loop of one into what follows
    start = _Start(zero, zero + 1)
    closes = {
        "expiry": closing(contracts.expiry_group, legs.contract),
        "strike": closing(contracts.strike_group, legs.contract),
        "position": jnp.ones(legs.contract.shape, bool),
    }
    everything = _Slots(legs.contract, legs.quantity, legs.inputs, closes)

    def add_step(index: Array, carries: tuple[tuple[Sums, Array], ...]) -> tuple[tuple[Sums, Array], ...]:
        here = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, index * step, step, axis=1), everything)
        for j in range(step):
            slot = jax.tree.map(lambda x, j=j: x[:, j], here)
            carries = tuple(_add_slot(lane, carry, slot, start) for lane, carry in zip(lanes, carries, strict=True))
        return carries

    carries = repeat(width // step, add_step, tuple(_empty(lane, rows, zero) for lane in lanes))
    pairs = zip(lanes, carries, strict=True)
    return in_tally_order(tallies, lanes, [sums if lane.level == "unit" else total for lane, (sums, total) in pairs])
