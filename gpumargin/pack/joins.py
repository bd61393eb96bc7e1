"""Where the mark and the forward of each instrument stand, and whether they say all that pricing needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import Bools, Floats, Ints, flat, floats, is_one_of, key_codes, plain, positions_in
from gpumargin.schema import FORWARDS, MARKS


class MarketRows(NamedTuple):
    """For each instrument the first row of `marks` and of `forwards` with its key, `[instruments]`; -1 = none."""

    marks: Ints
    forwards: Ints


def market_rows(tables: Mapping[str, pa.Table]) -> MarketRows:
    """The rows of the instruments of a book, whose tables are in canonical types."""
    instruments = tables["instruments"]
    return MarketRows(
        first_rows(tables["marks"], instruments, MARKS.key), first_rows(tables["forwards"], instruments, FORWARDS.key)
    )


def first_rows(source: pa.Table, table: pa.Table, key: Collection[str]) -> Ints:
    """First row of `source` with the key of each row of a table; -1 = none, or a part of the key is null."""
    have, wanted = key_codes([source, table], key)
    row = positions_in(pa.array(wanted), pa.array(have)).astype(np.int64)
    for name in key:
        column = plain(table, name)
        if column.null_count:
            row[np.asarray(pc.is_null(column))] = -1
    return row


def are_complete(tables: Mapping[str, pa.Table], rows: MarketRows) -> bool:
    """Whether every option, live or not, has a vol in `marks` and a forward in `forwards`: nothing is to be filled.

    Much cheaper than a plan (`fill`): for markets that come again and again.
    """
    is_option = is_one_of(tables["instruments"], "kind", ("option",))
    wanted = ((rows.marks, tables["marks"], "mark_iv"), (rows.forwards, tables["forwards"], "forward"))
    return all(bool(has_values(table, name)[at[is_option]].all()) for at, table, name in wanted)


def has_values(table: pa.Table, name: str) -> Bools:
    """Rows that have a value in a column, and at the end one that stands for no row, -1, `[rows + 1]`."""
    if name not in table.column_names:
        return np.zeros(table.num_rows + 1, bool)
    return np.append(np.asarray(flat(table[name]).is_valid()), False)


def floats_at(table: pa.Table, row: Ints, name: str, default: float = np.nan) -> Floats:
    """Numbers of a column at some rows, `[rows]`; row -1, nulls and a column that is absent give `default`."""
    return np.asarray(np.append(floats(table, name, default), default)[row])
