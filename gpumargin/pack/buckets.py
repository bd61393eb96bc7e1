"""Parts of the book in padded buckets: whole accounts, every part of the same shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gpumargin.pack.columns import Ints
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.legs import LegBook
from gpumargin_kernels import records

MIN_WIDTH = 2  # slots of the narrowest bucket; widths double from there
ROW_STEP = 64  # rows of a bucket are a multiple of it, so that chunks of rows come out even
GRID = 15  # bucket sizes have at most so many steps of a power of two: books of similar size share a compiled program
GROWTH = 1.125  # so do lists of contracts, whose sizes step by this ratio


class Shape(NamedTuple):
    """Rows of each bucket width that every shard of a part can hold."""

    legs: tuple[tuple[int, int], ...]  # (width, rows)
    cash_legs: tuple[tuple[int, int], ...]
    unit_slots: tuple[tuple[int, int], ...]
    balances: tuple[tuple[int, int], ...]
    unit_rows: int
    accounts: int


@dataclass(frozen=True)
class Shard:
    """Consecutive accounts that one device computes; empty if it got none."""

    first_account: int
    accounts: int
    first_row: int
    unit_rows: int


@dataclass(frozen=True)
class Plan:
    """How a book is cut: parts in order, one shard per device in each."""

    shape: Shape
    parts: tuple[tuple[Shard, ...], ...]


def bucket_widths(lengths: Ints) -> Ints:
    """Width of the bucket that each run falls into: the next power of two, at least `MIN_WIDTH`."""
    return np.asarray(np.maximum(MIN_WIDTH, 1 << np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64)), np.int64)


def rounded(rows: int) -> int:
    """The next size of the geometric grid that holds `rows`: 8 to 15 times a power of two, so that chunks divide it."""
    step = ROW_STEP
    while GRID * step < rows:
        step *= 2
    return step * max(1, -(-rows // step))


def even_rows(rows: int, chunk: int | None, devices: int) -> int:
    """Rows that shard evenly over devices and chunks, from the geometric grid: at least two chunks on each device."""
    if chunk is None:
        return -(-rows // devices) * devices
    step, chunks = chunk * devices, 2
    while step * chunks < rows:
        chunks = max(chunks + 1, int(chunks * GROWTH))
    return step * chunks


def shape_of(widths: Ints, held: Ints, size: Callable[[int], int]) -> tuple[tuple[int, int], ...]:
    """Widths of buckets, and the rows of each that hold the fullest range.

    Rows that find room in the padding of the next wider bucket lie there: fewer slots, and a program with less in it.

    Args:
      widths: `[W]` ascending.
      held: `[ranges, W]` runs of each width.
      size: rows of a bucket that holds so many.
    """
    shape: list[tuple[int, Ints]] = []  # the widest first, with the rows of each range
    for width, rows in zip(widths[::-1].tolist(), held.T[::-1], strict=True):
        if shape and size(max(shape[-1][1] + rows)) == size(max(shape[-1][1])):
            shape[-1] = (shape[-1][0], shape[-1][1] + rows)
        else:
            shape.append((width, rows))
    return tuple((width, size(max(rows))) for width, rows in reversed(shape))


def _bucket_shape(starts: Ints, ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Widths of buckets, ascending, and rows of each."""
    widths = bucket_widths(np.diff(starts))
    classes = np.unique(widths) if len(widths) else np.array([MIN_WIDTH])
    held = [[np.count_nonzero(widths[a:b] == width) for width in classes] for a, b in ranges]
    return shape_of(classes, np.array(held, np.int64), lambda rows: rounded(int(rows)))


def make_plan(book: LegBook, accounts_per_shard: int, devices: int, *, first: int = 0) -> Plan:
    """Cuts the accounts from `first` on into parts of `devices` shards of at most `accounts_per_shard`, evenly.

    Returns:
      `Plan`; parts share one shape, so that one compiled program serves them all.
    """
    parts = max(1, -(-(len(book) - first) // (accounts_per_shard * devices)))
    cuts = np.linspace(first, len(book), parts * devices + 1).round().astype(np.int64)
    accounts = [(int(a), int(b)) for a, b in pairwise(cuts)]
    rows = [(int(book.unit_start[a]), int(book.unit_start[b])) for a, b in accounts]
    shape = Shape(
        legs=_bucket_shape(book.leg_start, rows),
        cash_legs=_bucket_shape(book.cash_start, rows),
        unit_slots=_bucket_shape(book.unit_start, accounts),
        balances=_bucket_shape(book.balance_start, accounts),
        unit_rows=rounded(max(b - a for a, b in rows)),
        accounts=rounded(max(b - a for a, b in accounts)),
    )
    shards = [Shard(a, b - a, c, d - c) for (a, b), (c, d) in zip(accounts, rows, strict=True)]
    return Plan(shape, tuple(tuple(shards[i : i + devices]) for i in range(0, len(shards), devices)))


class Rows(NamedTuple):
    """Rows of one width: which runs they are, and the source index of each slot."""

    runs: Ints  # [rows in use]
    source: Ints  # [rows, width] index into the level below, 0 where padded
    is_used: np.ndarray  # [rows, width] bool


def rows_of_width(starts: Ints, runs: Ints, width: int, rows: int) -> Rows:
    """The runs, each at most `width` long, as the first of `rows` rows.

    Args:
      starts: where each run of a level begins, and the end of the last.
      runs: which of them.
      width: slots of a row.
      rows: at least as many as there are runs.
    """
    begin, slots = starts[runs], np.arange(width)
    is_used = np.zeros((rows, width), bool)
    is_used[: len(runs)] = slots < (starts[runs + 1] - begin)[:, None]
    source = np.zeros((rows, width), np.int64)
    source[: len(runs)] = begin[:, None] + slots
    return Rows(runs, np.where(is_used, source, 0), is_used)


def by_length(lengths: Ints) -> Ints:
    """Order of runs of legs in their bucket, the shortest first.

    A loop that ends a row with its last leg then ends most rows as the one before, which processors foresee.
    """
    return np.argsort(np.minimum(lengths, np.iinfo(np.int16).max).astype(np.int16), kind="stable")


def _buckets(
    starts: Ints, first: int, count: int, shape: tuple[tuple[int, int], ...], *, is_by_length: bool = False
) -> Iterator[Rows]:
    """Runs in the narrowest buckets that have room for them."""
    lengths = np.diff(starts[first : first + count + 1])
    own = np.searchsorted([width for width, _ in shape], bucket_widths(lengths))
    left = np.zeros(0, np.int64)
    for bucket, (width, rows) in enumerate(shape):
        runs = np.concatenate([left, np.flatnonzero(own == bucket)])
        here, left = runs[:rows], runs[rows:]
        if is_by_length:
            here = here[by_length(lengths[here])]
        yield rows_of_width(starts, first + here, width, rows)


def _place(buckets: list[Rows], rows: int, first: int = 0) -> np.ndarray:
    """Where each run's row, counted from the first, stands in the buckets laid end to end; padded runs at row 0."""
    place = np.zeros(rows, np.int32)
    offset = 0
    for bucket in buckets:
        place[bucket.runs - first] = offset + np.arange(len(bucket.runs))
        offset += len(bucket.is_used)
    return place


def _picked(values: np.ndarray, bucket: Rows, padding: float) -> np.ndarray:
    if len(values) == 0:
        return np.full(bucket.source.shape, padding, values.dtype)
    return np.where(bucket.is_used, values[bucket.source], np.asarray(padding, values.dtype))


def _rows_of(values: np.ndarray, bucket: Rows) -> np.ndarray:
    column = np.zeros(len(bucket.is_used), values.dtype)
    column[: len(bucket.runs)] = values[bucket.runs]
    return column


def legs_of(book: LegBook, rows: Rows, pad: int) -> records.Legs:
    """Unit rows with their legs; padded slots have quantity 0 on contract `pad`."""
    return records.Legs(
        _rows_of(book.unit, rows),
        _picked(book.contract, rows, pad),
        _picked(book.quantity, rows, 0),
        {name: _picked(values, rows, 0) for name, values in book.inputs.items()},
    )


def cash_legs_of(book: LegBook, rows: Rows, pad: int) -> records.CashLegs:
    """Unit rows with the legs whose P&L is not yet in the balance."""
    return records.CashLegs(
        _picked(book.cash_contract, rows, pad),
        _picked(book.cash_quantity, rows, 0),
        _picked(book.entry, rows, np.nan),
        _picked(book.unsettled, rows, 0),
    )


def unit_slots_of(rows: Rows, row: np.ndarray) -> records.UnitSlots:
    """Accounts with their unit rows, `row` [rows, width] being where each of these stands."""
    return records.UnitSlots(np.where(rows.is_used, row, 0).astype(np.int32), rows.is_used)


def balances_of(book: LegBook, rows: Rows, account: np.ndarray) -> records.Balances:
    """Accounts with their balances, `account` [rows in use] being where each of these stands."""
    place = np.zeros(len(rows.is_used), np.int32)
    place[: len(rows.runs)] = account
    return records.Balances(
        _picked(book.asset, rows, 0),
        _picked(book.amount, rows, 0),
        _picked(book.is_collateral, rows, False),
        place,
        None if book.category is None else _rows_of(book.category, rows),
        None if book.settlement is None else _picked(book.settlement, rows, -1),
        None
        if book.balance_inputs is None
        else {name: _picked(values, rows, 0) for name, values in book.balance_inputs.items()},
    )


def _of_accounts(values: np.ndarray, shard: Shard, shape: Shape) -> np.ndarray:
    """A number of each account of a shard, 0 in padding."""
    column = np.zeros(shape.accounts, values.dtype)
    column[: shard.accounts] = values[shard.first_account : shard.first_account + shard.accounts]
    return column


def pack_shard(book: LegBook, contracts: ContractSet, shape: Shape, shard: Shard) -> records.Book:
    """One shard as padded numpy buckets.

    Args:
      book: the whole book in canonical order.
      contracts: for the index of the padding contract.
      shape: rows of each bucket.
      shard: which accounts.

    Returns:
      `records.Book`; padded slots have quantity 0 on the padding contract, padded rows are cut off by their count.
    """
    pad = contracts.padding
    legs = list(_buckets(book.leg_start, shard.first_row, shard.unit_rows, shape.legs, is_by_length=True))
    cash = list(_buckets(book.cash_start, shard.first_row, shard.unit_rows, shape.cash_legs))
    slots = list(_buckets(book.unit_start, shard.first_account, shard.accounts, shape.unit_slots))
    balances = list(_buckets(book.balance_start, shard.first_account, shard.accounts, shape.balances))
    return records.Book(
        legs=records.Buckets(
            tuple(legs_of(book, b, pad) for b in legs), _place(legs, shape.unit_rows, shard.first_row)
        ),
        cash_legs=records.Buckets(
            tuple(cash_legs_of(book, b, pad) for b in cash), _place(cash, shape.unit_rows, shard.first_row)
        ),
        unit_slots=records.Buckets(
            tuple(unit_slots_of(b, b.source - shard.first_row) for b in slots),
            _place(slots, shape.accounts, shard.first_account),
        ),
        balances=records.Buckets(
            tuple(balances_of(book, b, b.runs - shard.first_account) for b in balances),
            _place(balances, shape.accounts, shard.first_account),
        ),
        settings={name: _of_accounts(values, shard, shape) for name, values in book.settings.items()},
    )
