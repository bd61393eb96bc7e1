"""A resident book changed slot by slot: legs and balances found by search, written in place, and moved up or down.

Rows of a level lie in buckets laid end to end, `[R_b, L_b]` each; a place is a row among all of them and a slot. The
slots in use of a row ascend, by contract or by asset, and padding stands behind them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import repeat
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.records import Book

NOWHERE = 1 << 30  # row of what is not there, or not to be written: beyond every bucket
SHARED_ROW = 0  # of cash legs and balances: stands for all that have none
_LAST = 2**31 - 1
_Buckets = Sequence[Array]


class LegPlaces(NamedTuple):
    """Where legs are and what they hold, `[E]` each; 0 and NaN where there is none."""

    row: Leaf  # int32 unit row, `NOWHERE` = the account has none in the unit
    slot: Leaf  # int32 where the leg is, or would be
    is_there: Leaf  # int32 0 or 1
    cash_row: Leaf  # int32, `SHARED_ROW` = the unit row has no cash legs
    cash_slot: Leaf  # int32
    has_cash: Leaf  # int32 0 or 1, the leg is among the cash legs
    quantity: Leaf
    entry: Leaf
    unsettled: Leaf


class BalancePlaces(NamedTuple):
    """Where balances are and what they hold, `[E]` each; 0 where there is none."""

    row: Leaf  # int32
    slot: Leaf  # int32
    is_there: Leaf  # int32 0 or 1
    is_collateral: Leaf  # int32 0 or 1
    amount: Leaf


LEG_COLUMNS, BALANCE_COLUMNS = (6, 3), (4, 1)  # whole numbers and fractions of both


def _read(values: Array, index: Array | tuple[Array, ...]) -> Array:
    """What stands at indices that are known to be inside; looking again would be a tenth of a search (measured)."""
    return values.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _at(buckets: _Buckets, row: Array, slot: Array | None = None) -> Array:
    """What stands at places, `[E]`; places outside give what lies nearest."""
    found, first = jnp.zeros(row.shape, buckets[0].dtype), 0
    for values in buckets:
        local = row - first
        inside = jnp.clip(local, 0, values.shape[0] - 1)
        own = _read(values, inside) if slot is None else _read(values, (inside, jnp.clip(slot, 0, values.shape[1] - 1)))
        found = jnp.where(local >= 0, own, found)
        first += values.shape[0]
    return found


def _width(buckets: _Buckets, row: Array) -> Array:
    """Slots of each row."""
    found, first = jnp.zeros(row.shape, jnp.int32), 0
    for values in buckets:
        found = jnp.where(row >= first, jnp.int32(values.shape[1]), found)
        first += values.shape[0]
    return found


def _halved(value_at: Callable[[Array], Array], key: Array, width: int) -> Array:
    """First of `width` slots of each row whose value is not below the key, `width` where there is none."""

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        is_below = (low < high) & (value_at(middle) < key)
        return jnp.where(is_below, middle + 1, low), jnp.where(is_below, high, jnp.minimum(high, middle))

    # A loop that is written out is fused whole, its steps computed over and over: twice as slow (measured).
    start = (jnp.zeros(key.shape, jnp.int32), jnp.full(key.shape, width, jnp.int32))
    return repeat(width.bit_length(), halve, start)[0]


def _searched(
    buckets: Sequence[tuple[Leaf, ...]],
    row: Array,
    key: Array,
    read: Callable[..., Array] = lambda _, value: value,
) -> tuple[Array, Array]:
    """First slot of each row that is not below the key, and whether the key stands there.

    `read(slot, *values)` makes values that ascend of those that stand in the columns of a row.
    """
    found, is_there, first = jnp.zeros(row.shape, jnp.int32), jnp.zeros(row.shape, bool), 0
    for columns in buckets:
        rows, width = columns[0].shape
        flats, begin = [jnp.asarray(c).reshape(-1) for c in columns], jnp.clip(row - first, 0, rows - 1) * width

        def value_at(slot: Array, flats: list[Array] = flats, begin: Array = begin, width: int = width) -> Array:
            inside = jnp.minimum(slot, width - 1)
            return read(inside, *(_read(flat, begin + inside) for flat in flats))

        slot = _halved(value_at, key, width)
        is_own = row >= first
        found = jnp.where(is_own, slot, found)
        is_there = jnp.where(is_own, (slot < width) & (value_at(slot) == key), is_there)
        first += rows
    return found, is_there


def _unit_row(book: Book, account: Array, unit: Array) -> Array:
    """Unit row of each account and unit, `NOWHERE` if it has none."""
    units = [jnp.asarray(b.unit) for b in book.legs.buckets]

    def unit_of(_: Array, row: Array, is_held: Array) -> Array:
        return jnp.where(is_held, _at(units, row), _LAST)

    slot, is_there = _searched([(b.row, b.is_held) for b in book.unit_slots.buckets], account, unit, unit_of)
    return jnp.where(is_there, _at([jnp.asarray(b.row) for b in book.unit_slots.buckets], account, slot), NOWHERE)


def places_of(asked: Array, book: Book) -> tuple[Array, Array]:
    """Where legs and balances are.

    Args:
      asked: `[5, E]` int32: account row, unit and contract of legs, account row and asset of balances, each of its own
        account; padding may ask for anything.
      book: one part, its rows numbered as they lie.

    Returns:
      Whole numbers of `LegPlaces`, then of `BalancePlaces`, `[10, E]`, and their fractions `[4, E]`: few arrays come
      down faster than many.
    """
    account, unit, contract, holder, asset = asked
    legs, balances = _leg_places(account, unit, contract, book), _balance_places(holder, asset, book)
    whole, own = LEG_COLUMNS[0], BALANCE_COLUMNS[0]
    return jnp.stack([*legs[:whole], *balances[:own]]), jnp.stack([*legs[whole:], *balances[own:]])


def _leg_places(account: Array, unit: Array, contract: Array, book: Book) -> LegPlaces:
    """Of each account, unit and contract `[E]`."""
    row = _unit_row(book, account, unit)
    has_row = row != NOWHERE
    slot, is_there = _searched([(b.contract,) for b in book.legs.buckets], row, contract)
    cash_row = jnp.where(has_row, jnp.asarray(book.cash_legs.place)[jnp.where(has_row, row, 0)], SHARED_ROW)
    cash_slot, has_cash = _searched([(b.contract,) for b in book.cash_legs.buckets], cash_row, contract)
    is_there, has_cash = is_there & has_row, has_cash & has_row
    quantity = _at([jnp.asarray(b.quantity) for b in book.legs.buckets], row, slot)
    entry = _at([jnp.asarray(b.entry) for b in book.cash_legs.buckets], cash_row, cash_slot)
    unsettled = _at([jnp.asarray(b.unsettled) for b in book.cash_legs.buckets], cash_row, cash_slot)
    return LegPlaces(
        row=row,
        slot=slot,
        is_there=is_there.astype(jnp.int32),
        cash_row=cash_row,
        cash_slot=cash_slot,
        has_cash=has_cash.astype(jnp.int32),
        quantity=jnp.where(is_there, quantity, 0),
        entry=jnp.where(has_cash, entry, jnp.nan),
        unsettled=jnp.where(has_cash, unsettled, 0),
    )


def row_sizes(pad: Array, rows: Array, book: Book) -> tuple[Array]:
    """How full rows are.

    Args:
      pad: `[]` contract of padded slots, above all others.
      rows: `[2, E]` int32, unit rows and rows of cash legs.
      book: as in `places_of`.

    Returns:
      `[4, E]` int32: slots in use and slots of the unit rows, then of the rows of cash legs.
    """
    found = []
    levels = ([b.contract for b in book.legs.buckets], [b.contract for b in book.cash_legs.buckets])
    for row, contracts in zip(rows, levels, strict=True):
        length, _ = _searched([(own,) for own in contracts], row, jnp.broadcast_to(pad, row.shape))
        found += [length, _width(contracts, row)]
    return (jnp.stack(found),)


def _balance_places(account: Array, asset: Array, book: Book) -> BalancePlaces:
    """Of each account and asset `[E]`."""
    row = jnp.asarray(book.balances.place)[account]

    def ascending(slot: Array, own: Array) -> Array:
        return jnp.where((slot > 0) & (own == 0), _LAST, own)  # padding is asset 0, which can only stand first

    slot, is_there = _searched([(b.asset,) for b in book.balances.buckets], row, asset, ascending)
    is_there &= row != SHARED_ROW
    is_collateral = _at([jnp.asarray(b.is_collateral) for b in book.balances.buckets], row, slot)
    amount = _at([jnp.asarray(b.amount) for b in book.balances.buckets], row, slot)
    return BalancePlaces(
        row=row,
        slot=slot,
        is_there=is_there.astype(jnp.int32),
        is_collateral=is_collateral.astype(jnp.int32),
        amount=jnp.where(is_there, amount, 0),
    )


def _local(row: Array, first: int, rows: int) -> Array:
    """Rows within a bucket, beyond its last for those of others."""
    local = row - first
    return jnp.where((local >= 0) & (local < rows), local, rows)


def with_values(levels: tuple[tuple[Array, ...], ...], at: Array, values: Array) -> tuple[tuple[Array, ...], ...]:
    """Columns of buckets with other values at some places.

    Args:
      levels: N columns, the buckets `[R_b, L_b]` of each.
      at: `[N, 2, E]` int32, row and slot, no place twice in a column; row `NOWHERE` = nothing.
      values: `[N, E]`.

    Returns:
      The columns.
    """
    return tuple(_written(*each) for each in zip(levels, at, values, strict=True))


def _written(buckets: tuple[Array, ...], at: Array, values: Array) -> tuple[Array, ...]:
    found, first = [], 0
    for own in buckets:
        row = _local(at[0], first, own.shape[0])
        found.append(own.at[row, at[1]].set(values.astype(own.dtype), mode="drop"))
        first += own.shape[0]
    return tuple(found)


class Levels(NamedTuple):
    """Columns of legs and cash legs, in buckets `[R_b, L_b]` each; the first column of both is the contract."""

    legs: tuple[tuple[Array, ...], ...]  # contract, quantity
    cash: tuple[tuple[Array, ...], ...]  # contract, quantity, entry, unsettled


def shifted(pad: Array, levels: Levels, shifts: Array, values: Array) -> Levels:
    """Rows with one leg more or less, at its place in their order; what stands behind moves.

    Args:
      pad: as in `row_sizes`.
      levels: of one part.
      shifts: `[4, E]` int32: unit row, its cash row, contract, and 1 = put in, 0 = taken out, where it must stand. No
        row twice; `NOWHERE` = none. A row that gets a leg must have a slot to spare.
      values: `[2, E]` quantity and entry of what is put in.

    Returns:
      The columns.
    """
    row, cash_row, contract, is_in = shifts
    quantity, entry = values
    due = jnp.zeros_like(entry)
    legs = _moved(levels.legs, row, is_in == 1, (contract, quantity), (pad, 0))
    cash = _moved(levels.cash, cash_row, is_in == 1, (contract, quantity, entry, due), (pad, 0, jnp.nan, 0))
    return Levels(legs, cash)


def _moved(
    columns: tuple[tuple[Array, ...], ...],
    row: Array,
    is_in: Array,
    values: tuple[Array, ...],
    blank: tuple[Array | float, ...],
) -> tuple[tuple[Array, ...], ...]:
    by_bucket, first = [], 0
    for own in zip(*columns, strict=True):
        at = _local(row, first, own[0].shape[0])
        by_bucket.append(_moved_bucket(own, at, is_in[:, None], values, blank))
        first += own[0].shape[0]
    return tuple(zip(*by_bucket, strict=True))


def _moved_bucket(
    columns: tuple[Array, ...],
    at: Array,
    is_in: Array,
    values: tuple[Array, ...],
    blank: tuple[Array | float, ...],
) -> tuple[Array, ...]:
    """Rows `at` of one bucket, `[E]`, with a slot more where `is_in` [E, 1], else with one less."""
    rows, width = columns[0].shape
    before = [column[jnp.minimum(at, rows - 1)] for column in columns]
    slots = jnp.arange(width, dtype=jnp.int32)[None]
    place = jnp.sum(before[0] < values[0][:, None], axis=1, dtype=jnp.int32)[:, None]
    found = []
    for column, old, new, nothing in zip(columns, before, values, blank, strict=True):
        behind = jnp.full((at.shape[0], 1), nothing, column.dtype)
        less, more = jnp.concatenate([old[:, 1:], behind], axis=1), jnp.concatenate([behind, old[:, :-1]], axis=1)
        moved = jnp.where(slots < place, old, jnp.where(is_in, more, less))
        moved = jnp.where(is_in & (slots == place), new[:, None].astype(column.dtype), moved)
        found.append(column.at[at].set(moved, mode="drop"))
    return tuple(found)
