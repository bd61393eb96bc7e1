"""A resident book as tables again."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from gpumargin.pack.columns import Ints
from gpumargin.resident.fills import Holdings
from gpumargin.resident.lane import ATTRIBUTES, Lane
from gpumargin.resident.market import Tables
from gpumargin.schema import ID
from gpumargin.tables import Book
from gpumargin.tables.canonical import with_one_dictionary

_CHUNK = 1 << 17  # accounts read together


def whole_book(tables: Tables, lanes: Sequence[Lane], columns: Collection[str], *, has_accounts: bool) -> Book:
    """The book that a fresh run would read.

    Args:
      tables: its small tables.
      lanes: what is resident.
      columns: those of `accounts` that it has beside names.
      has_accounts: whether it has that table; without, only accounts that hold nothing are named there.
    """
    found: dict[str, list[pa.Table]] = {"positions": [], "balances": [], "accounts": []}
    for lane in lanes:
        for first in range(0, len(lane.ids), _CHUNK):
            numbers = np.arange(first, min(first + _CHUNK, len(lane.ids)))
            _, held = lane.holdings(numbers)
            found["positions"].append(_named(lane, numbers[held.owner], lane.positions(held)))
            found["balances"].append(_named(lane, numbers[held.balance_owner], lane.balances(held)))
            found["accounts"].append(_accounts(lane, numbers, held, columns, has_accounts=has_accounts))
        for name, about in lane.about.items():
            found.setdefault(name, []).append(about.table)
    instrument = tables.tables["instruments"]["instrument_id"].type
    joined = {name: _joined(parts, instrument) for name, parts in found.items()}
    return tables.as_book(
        **{name: table for name, table in joined.items() if table.num_rows or name in ("positions", "balances")}
    )


def _named(lane: Lane, accounts: Ints, table: pa.Table) -> pa.Table:
    rows = pa.array(accounts.astype(np.int32))
    ids = lane.ids.account_ids
    account = ids.take(rows) if pa.types.is_integer(ids.type) else ids.take(rows).dictionary_encode()
    named = {"account_id": account, "pool": lane.ids.pools.take(rows)}
    columns = {name: table[name] for name in table.column_names}
    if "entry_price" in columns:
        entry = np.asarray(columns["entry_price"].combine_chunks())
        columns["entry_price"] = pa.chunked_array([pa.array(entry, mask=np.isnan(entry))])
    return pa.table({**named, **columns})


def _accounts(lane: Lane, numbers: Ints, held: Holdings, columns: Collection[str], *, has_accounts: bool) -> pa.Table:
    holds = np.zeros(len(numbers), bool)
    holds[held.owner] = True
    holds[held.balance_owner] = True
    own = numbers if has_accounts else numbers[~holds]
    none = pa.array([None] * len(own), pa.string()).dictionary_encode()
    given = {name: each.column(own) for name, each in lane.attributes.items() if name in columns}
    return (
        _named(lane, own, pa.table({name: given.get(name, none) for name in ATTRIBUTES if name in columns}))
        if columns
        else _named(lane, own, pa.table({}))
    )


def _joined(parts: list[pa.Table], instrument: pa.DataType) -> pa.Table:
    joined = pa.concat_tables([_unified(part) for part in parts], promote_options="default")
    found = with_one_dictionary(joined)
    if "instrument_id" in found.column_names and pa.types.is_integer(instrument):
        at = found.column_names.index("instrument_id")
        found = found.set_column(at, "instrument_id", found["instrument_id"].cast(pa.string()).cast(instrument))
    return found


def _unified(part: pa.Table) -> pa.Table:
    """Dictionaries in the one type that a book holds them in."""
    columns = {}
    for name in part.column_names:
        column = part[name]
        is_words = pa.types.is_dictionary(column.type) and column.type != ID
        columns[name] = column.cast(pa.string()).dictionary_encode() if is_words else column
    return pa.table(columns)
