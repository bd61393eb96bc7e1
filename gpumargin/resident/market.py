"""The small tables of a resident book: upserted by key, checked like a run's, filled, and made contracts of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.catalogue import MarginModel
from gpumargin.checks import require_valid, resolve_as_of
from gpumargin.device import DeviceChoice
from gpumargin.filling import fill_market
from gpumargin.model_checks import require_usable
from gpumargin.pack.columns import encoded, key_codes, plain
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.joins import MarketRows, are_complete, market_rows
from gpumargin.prepare import market_contracts
from gpumargin.resident.schema import MARKET
from gpumargin.schema import MARKET_TABLES, TABLES
from gpumargin.tables import CUT_TABLES, Book, Source
from gpumargin.tables.canonical import with_one_dictionary
from gpumargin.tables.defaults import fill_derived

T = TypeVar("T")
RESIDENT = "(resident)"
_STAND_IN = "-"  # the account that holds one of everything in use where a market is checked


class Kept:
    """What was made of some objects, as long as it is asked for of the same ones, or of bytes that are equal."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[tuple[object, ...] | None, Any]] = {}

    def get(self, name: str, of: tuple[object, ...], make: Callable[[], T]) -> T:
        """What `make` makes of these objects; it is called where the last ones under this name were others."""
        before, found = self._found.get(name, (None, None))
        if before is None or len(before) != len(of) or not all(map(_is_same, before, of)):
            found = make()
            self._found[name] = (of, found)
        return cast("T", found)


def _is_same(one: object, other: object) -> bool:
    return one is other or (isinstance(one, bytes) and one == other)


@dataclass(frozen=True)
class Tables:
    """Tables of a book that are small beside positions, and where their rows came from.

    Attributes:
      tables: by name.
      sources: of their rows.
      keyed: for each table the first one that had its keys, row for row.
      kept: what is made of tables that as a rule stay as they are from block to block, or of their keys.
    """

    tables: Mapping[str, pa.Table]
    sources: Mapping[str, tuple[Source, ...]]
    keyed: Mapping[str, pa.Table]
    kept: Kept = field(default_factory=Kept, repr=False)

    @staticmethod
    def of(book: Book) -> Tables:
        """The market of a book, and its funds."""
        names = [table.name for table in MARKET_TABLES if table.name in book.tables] + ["funds"] * (
            "funds" in book.tables
        )
        tables = {name: book.tables[name] for name in names}
        return Tables(tables, {name: (Source(RESIDENT, table.num_rows),) for name, table in tables.items()}, tables)

    def with_rows(self, block: Book, names: Collection[str]) -> Tables:
        """With the rows of a block, each in place of the row of its key, as a whole."""
        given = [name for name in names if name in block.tables]
        if not given:
            return self
        tables, sources = dict(self.tables), dict(self.sources)
        for name in given:
            left = _without(self.tables[name], block.tables[name], TABLES[name].key)
            joined = pa.concat_tables([left, block.tables[name]], promote_options="default")
            tables[name] = with_one_dictionary(joined.combine_chunks())
            sources[name] = (Source(RESIDENT, left.num_rows), *block.sources[name])
        tables = fill_derived(tables)
        others = [name for name in given if not _has_keys(tables[name], self.tables[name], TABLES[name].key)]
        return Tables(tables, sources, {**self.keyed, **{name: tables[name] for name in others}}, self.kept)

    def as_book(self, **more: pa.Table) -> Book:
        """These tables and more as a book."""
        return Book({**self.tables, **more}, self.sources)


def _has_keys(table: pa.Table, other: pa.Table, key: Collection[str]) -> bool:
    """Whether the rows of two tables have the same keys, one after the other, written in the same way."""
    return table.num_rows == other.num_rows and all(table[name].equals(other[name]) for name in key)


def _without(table: pa.Table, new: pa.Table, key: Collection[str]) -> pa.Table:
    """Rows of a table whose keys do not stand in another."""
    named = _with_quotes(new, table)
    if _has_keys(named, table, key):
        return table.slice(0, 0)
    have, replaced = key_codes([table, named], key)
    return table.filter(pa.array(~np.isin(have, replaced)))


def _with_quotes(new: pa.Table, table: pa.Table) -> pa.Table:
    """New forwards with the quote that the resident rows of their underlying have, where they name none."""
    if "quote" not in table.column_names or ("quote" in new.column_names and not new["quote"].null_count):
        return new
    quotes = dict(zip(plain(table, "underlying").to_pylist(), plain(table, "quote").to_pylist(), strict=True))
    given = plain(new, "quote").to_pylist()
    found = [
        word if word is not None else quotes.get(name)
        for name, word in zip(plain(new, "underlying").to_pylist(), given, strict=True)
    ]
    columns = {name: new[name] for name in new.column_names if name != "quote"}
    return pa.table({**columns, "quote": pa.array(found, plain(table, "quote").type)})


class _Market(Book):
    """A market with rows of accounts that stand in for all: what is asked for again block after block is kept."""

    _of: Tables

    def __init__(self, of: Tables, more: Mapping[str, pa.Table]) -> None:
        super().__init__({**of.tables, **more}, of.sources)
        object.__setattr__(self, "_of", of)

    def whole_frame(self, table: str) -> pl.DataFrame:
        """As of `Book`."""
        return self._of.kept.get(f"frame of {table}", (self.tables[table],), lambda: Book.whole_frame(self, table))

    @cached_property
    def market_rows(self) -> MarketRows:
        """As of `Book`."""
        of = (self.tables["instruments"], *(self._of.keyed[name] for name in ("marks", "forwards")))
        return self._of.kept.get("rows of instruments", of, lambda: market_rows(self.tables))


def stand_in(tables: Tables, used: pa.Array, ordered: pa.Array) -> Book:
    """The market with one account that holds one of every instrument in use: what a check of the market needs.

    Args:
      tables: the market.
      used: ids of instruments with positions.
      ordered: ids of instruments with orders.
    """
    instruments, asset = tables.tables["instruments"], tables.keyed["prices"]["asset"].slice(0, 1)
    of = (instruments, tables.keyed["prices"], used, ordered)
    return _Market(tables, tables.kept.get("account", of, lambda: _account(instruments, asset, used, ordered)))


def _account(instruments: pa.Table, asset: pa.ChunkedArray, used: pa.Array, ordered: pa.Array) -> dict[str, pa.Table]:
    """Tables of the account: positions, a balance in one asset, and orders if there are any."""
    ids = plain(instruments, "instrument_id")

    def rows(names: pa.Array) -> pa.Array:
        return _words(ids.take(pc.index_in(names.cast(ids.type), value_set=ids)))

    def repeated(word: str, count: int) -> pa.Array:
        return _words(pa.array([word] * count, pa.string()))

    def owned(count: int) -> dict[str, pa.Array]:
        return {"account_id": repeated(_STAND_IN, count), "pool": repeated("cross", count)}

    held, wanted = rows(used), rows(ordered)
    quantity = {"quantity": np.ones(len(held)), "unsettled": np.zeros(len(held))}
    found = {"positions": pa.table({**owned(len(held)), "instrument_id": held, **quantity})}
    found["balances"] = pa.table({**owned(1), "asset": asset, "amount": [0.0], "is_collateral": [True]})
    if len(wanted):
        each = _words(pa.array([str(i) for i in range(len(wanted))], pa.string()))
        terms = {"side": repeated("buy", len(wanted)), **dict.fromkeys(("quantity", "price"), np.zeros(len(wanted)))}
        found["orders"] = pa.table({**owned(len(wanted)), "order_id": each, "instrument_id": wanted, **terms})
    return found


def _words(values: pa.Array) -> pa.Array:
    return values if pa.types.is_integer(values.type) else values.dictionary_encode()


def require_market(
    book: Book, models: list[MarginModel], as_of: datetime | None, before: Mapping[str, pa.Table]
) -> datetime:
    """Checks a market as a run does, and gives its instant.

    Args:
      book: from `stand_in`.
      models: all that margin accounts.
      as_of: instant of valuation; None = the newest timestamp.
      before: tables of the market before, checked then: what is one of them has passed.

    Raises:
      InputError: see `require_valid` and `require_usable`.
    """
    instant = resolve_as_of(book, as_of)
    require_valid(
        book,
        as_of=as_of,
        vol_limit=max(model.file.vol_limit for model in models),
        tenor_limit_years=max(model.file.tenor_limit_years for model in models),
        passed=[name for name, table in book.tables.items() if name in CUT_TABLES or table is before.get(name)],
    )
    for model in models:
        require_usable(model, book)
    return instant


def filled_contracts(
    book: Book, before: Sequence[tuple[MarginModel, ContractSet]], instant: datetime, device: DeviceChoice | None
) -> list[ContractSet]:
    """The contracts that each model margins, with what forwards and vols are filled on a device; None = with none.

    Args:
      book: from `stand_in`.
      before: the models, and the contracts of each at the market before.
      instant: of valuation.
      device: see above.
    """
    vol_limit = max(model.file.vol_limit for model, _ in before)
    filled = None
    if device is not None and not are_complete(book.tables, book.market_rows):
        filled = fill_market(book, instant, device=device, vol_limit=vol_limit).filled
    return [market_contracts(book, model.file, instant, filled, known.order) for model, known in before]


def new_rows(block: Book) -> list[str]:
    """Tables of the market that a block has."""
    return [name for name in MARKET if name in block.tables]


def column_words(table: pa.Table, name: str) -> list[object]:
    """Distinct words of a column."""
    return list(encoded(table[name])[1].to_pylist())
