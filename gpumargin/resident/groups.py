"""Groups of arrays of a resident book: rows packed as in a run, laid out with spare ones, and grown where full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from gpumargin.pack.buckets import Rows, balances_of, cash_legs_of, legs_of, rows_of_width, unit_slots_of
from gpumargin.pack.columns import Ints
from gpumargin.pack.legs import LegBook
from gpumargin.resident.layout import EMPTY, LEVELS, SHARING, Layout, Where, pieces
from gpumargin_kernels import records
from gpumargin_kernels.resident import NO_ACCOUNT

_NONE = np.zeros(0, np.int64)


class Homes(NamedTuple):
    """Where every row of a packed book is to lie; cash legs and balances at `EMPTY` where there are none."""

    legs: Where  # [R]
    cash_legs: Where  # [R]
    unit_slots: Where  # [A]
    balances: Where  # [A]


class Written(NamedTuple):
    """New rows of one group in one shard."""

    shard: int
    group: int
    row: Ints  # [n]
    record: Any  # of [n, ...] arrays


def _starts(book: LegBook, level: str) -> Ints:
    found = {
        "legs": book.leg_start,
        "cash_legs": book.cash_start,
        "unit_slots": book.unit_start,
        "balances": book.balance_start,
    }
    return found[level]


def _record(level: str, book: LegBook, rows: Rows, homes: Homes, pad: int) -> Any:
    """Rows of one level as the kernels take them."""
    if level == "legs":
        return legs_of(book, rows, pad)
    if level == "cash_legs":
        return cash_legs_of(book, rows, pad)
    if level == "unit_slots":
        place = homes.legs.row
        return unit_slots_of(rows, place[rows.source] if len(place) else rows.source)
    return balances_of(book, rows, homes.unit_slots.row[rows.runs])


def row_group(cash: np.ndarray, unit: np.ndarray) -> dict[str, Any]:
    """What is kept of unit rows, `[R]` each; the unit once more, by row, so that who seeks it asks no bucket."""
    return {"cash": cash.astype(np.int32), "unit": unit.astype(np.int32)}


def account_group(balances: np.ndarray, settings: dict[str, np.ndarray], status: np.ndarray) -> dict[str, Any]:
    """What is kept of accounts, `[A]` each."""
    return {"balances": balances.astype(np.int32), "settings": settings, "status": status.astype(np.int8)}


def written(layout: Layout, book: LegBook, homes: Homes, status: Ints, pad: int) -> Iterator[Written]:
    """Every row of a packed book by where it is to lie; `status` [A] goes with the accounts."""
    for level, where in homes._asdict().items():
        own, starts = layout.levels[level], _starts(book, level)
        for piece in own.pieces(where):
            index = piece.rows[where.row[piece.rows] != EMPTY] if level in SHARING else piece.rows
            local = where.row[index] - int(own.ends[piece.bucket] - own.rows[piece.bucket])
            rows = rows_of_width(starts, index, int(own.widths[piece.bucket]), len(index))
            yield Written(piece.shard, layout.group(level, piece.bucket), local, _record(level, book, rows, homes, pad))
    for shard, _, index in pieces(homes.legs.shard, np.zeros_like(homes.legs.shard), 1):
        row = row_group(homes.cash_legs.row[index], book.unit[index])
        yield Written(shard, layout.group("rows"), homes.legs.row[index], row)
    for shard, _, index in pieces(homes.unit_slots.shard, np.zeros_like(homes.unit_slots.shard), 1):
        settings = {name: values[index] for name, values in book.settings.items()}
        group = account_group(homes.balances.row[index], settings, status[index])
        yield Written(shard, layout.group("accounts"), homes.unit_slots.row[index], group)


def blank_record(layout: Layout, book: LegBook, group: int, rows: int, pad: int) -> Any:
    """Rows of a group that hold nothing; `book` says of what form they are."""
    nowhere = Where(_NONE, _NONE)
    for level in LEVELS:
        for bucket, width in enumerate(layout.levels[level].widths):
            if layout.group(level, bucket) == group:
                none = rows_of_width(_starts(book, level), _NONE, int(width), rows)
                return _record(level, book, none, Homes(nowhere, nowhere, nowhere, nowhere), pad)
    if group == layout.group("rows"):
        return row_group(np.full(rows, EMPTY), np.zeros(rows))
    settings = {name: np.zeros(rows, values.dtype) for name, values in book.settings.items()}
    return account_group(np.full(rows, EMPTY), settings, np.full(rows, NO_ACCOUNT))


def group_rows(layout: Layout) -> list[int]:
    """Rows of every group in one shard."""
    rows = [int(n) for level in LEVELS for n in layout.levels[level].rows]
    return [*rows, layout.unit_rows, layout.accounts]


def filled_groups(layout: Layout, book: LegBook, pad: int, news: list[Written], shards: range) -> tuple[Any, ...]:
    """Groups `[devices, rows, ...]` of one part's shards with these rows and blank ones."""

    def spread(blank: np.ndarray) -> np.ndarray:
        return np.repeat(blank[None], len(shards), axis=0)

    groups = [
        jax.tree.map(spread, blank_record(layout, book, group, rows, pad))
        for group, rows in enumerate(group_rows(layout))
    ]
    for new in news:
        for leaf, values in zip(jax.tree.leaves(groups[new.group]), jax.tree.leaves(new.record), strict=True):
            leaf[new.shard - shards.start, new.row] = values
    return tuple(groups)


def _moved(values: np.ndarray, rows: Ints, blank: np.ndarray) -> np.ndarray:
    """Arrays `[devices, old rows, ...]` at their new rows among blank ones."""
    found = np.repeat(blank[None], len(values), axis=0)
    found[:, rows] = values
    return found


def grown_groups(before: Layout, after: Layout, groups: tuple[Any, ...], book: LegBook, pad: int) -> tuple[Any, ...]:
    """The groups of a part, numpy, in a layout in which one level has grown: rows moved, numbers of rows changed."""
    moved = {name: before.levels[name].moved(after.levels[name]) for name in LEVELS}
    found: list[Any] = [blank_record(after, book, group, rows, pad) for group, rows in enumerate(group_rows(after))]
    for level in LEVELS:
        for bucket, rows in enumerate(before.levels[level].rows):
            old, new = groups[before.group(level, bucket)], after.group(level, bucket)
            found[new] = jax.tree.map(lambda x, blank, n=rows: _moved(x, np.arange(n), blank), old, found[new])
        for bucket in range(len(before.levels[level].rows), len(after.levels[level].rows)):
            new = after.group(level, bucket)
            found[new] = jax.tree.map(lambda blank: np.repeat(blank[None], len(groups[0].unit), axis=0), found[new])
    for name, level in (("rows", "legs"), ("accounts", "unit_slots")):
        old, new = groups[before.group(name)], after.group(name)
        found[new] = jax.tree.map(lambda x, blank, at=moved[level]: _moved(x, at, blank), old, found[new])
    return _renamed(after, found, moved)


def _renamed(layout: Layout, groups: list[Any], moved: dict[str, Ints]) -> tuple[Any, ...]:
    """Groups whose references to rows of other levels say where these are now."""

    def by(level: str, values: np.ndarray) -> np.ndarray:
        at = np.minimum(values, len(moved[level]) - 1)  # blank rows may refer to no old one
        return np.asarray(moved[level][at], np.int32)

    for bucket in range(len(layout.levels["unit_slots"].rows)):
        at = layout.group("unit_slots", bucket)
        slots: records.UnitSlots = groups[at]
        groups[at] = slots._replace(row=by("legs", slots.row))
    for bucket in range(len(layout.levels["balances"].rows)):
        at = layout.group("balances", bucket)
        groups[at] = groups[at]._replace(account=by("unit_slots", groups[at].account))
    rows, accounts = layout.group("rows"), layout.group("accounts")
    groups[rows] = {**groups[rows], "cash": by("cash_legs", groups[rows]["cash"])}
    groups[accounts] = {**groups[accounts], "balances": by("balances", groups[accounts]["balances"])}
    return tuple(groups)


def as_book(layout: Layout, groups: tuple[Any, ...]) -> records.Book:
    """The groups of a part as the margin program takes them."""

    def buckets(level: str, place: Any) -> records.Buckets[Any]:
        first = layout.group(level)
        return records.Buckets(tuple(groups[first : first + len(layout.levels[level].rows)]), place)

    accounts = groups[layout.group("accounts")]
    return records.Book(
        legs=buckets("legs", None),
        cash_legs=buckets("cash_legs", groups[layout.group("rows")]["cash"]),
        unit_slots=buckets("unit_slots", None),
        balances=buckets("balances", accounts["balances"]),
        settings=accounts["settings"],
    )
