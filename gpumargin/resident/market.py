"""The small tables of a resident book: upserted by key, checked like a run's, filled, and made contracts of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.catalogue import MarginModel
from gpumargin.checks import require_valid, resolve_as_of
from gpumargin.device import DeviceChoice
from gpumargin.filling import Filling, fill_market
from gpumargin.model_checks import require_usable
from gpumargin.pack.columns import encoded, key_codes, plain
from gpumargin.pack.contracts import ContractSet
from gpumargin.prepare import market_contracts
from gpumargin.resident.schema import MARKET
from gpumargin.schema import MARKET_TABLES, TABLES
from gpumargin.tables import CUT_TABLES, Book, Source
from gpumargin.tables.canonical import with_one_dictionary
from gpumargin.tables.defaults import fill_derived

Frames = dict[str, tuple[pa.Table, pl.DataFrame]]
RESIDENT = "(resident)"
_STAND_IN = "-"  # the account that holds one of everything in use where a market is checked


class _Market(Book):
    """A market whose checks ask for the same frames many times: each is made once, if its table stays for all blocks.

    Args:
      tables: as of `Book`.
      sources: as of `Book`.
      frames: whole frames by table, and the table that each was made of; gets those that are made.
    """

    _frames: Frames

    def __init__(
        self, tables: Mapping[str, pa.Table], sources: Mapping[str, tuple[Source, ...]], frames: Frames
    ) -> None:
        super().__init__(tables, sources)
        object.__setattr__(self, "_frames", frames)

    def whole_frame(self, table: str) -> pl.DataFrame:
        """As of `Book`."""
        of, found = self._frames.get(table, (None, None))
        if found is None or of is not self.tables[table]:
            found = super().whole_frame(table)
            self._frames[table] = (self.tables[table], found)
        return found


@dataclass(frozen=True)
class Tables:
    """Tables of a book that are small beside positions, and where their rows came from."""

    tables: Mapping[str, pa.Table]
    sources: Mapping[str, tuple[Source, ...]]
    frames: Frames = field(default_factory=dict, repr=False)

    @staticmethod
    def of(book: Book) -> Tables:
        """The market of a book, and its funds."""
        names = [table.name for table in MARKET_TABLES if table.name in book.tables] + ["funds"] * (
            "funds" in book.tables
        )
        return Tables(
            {name: book.tables[name] for name in names},
            {name: (Source(RESIDENT, book.tables[name].num_rows),) for name in names},
        )

    def with_rows(self, block: Book, names: Collection[str]) -> Tables:
        """With the rows of a block, each in place of the row of its key, as a whole."""
        given = [name for name in names if name in block.tables]
        if not given:
            return self
        tables, sources = dict(self.tables), dict(self.sources)
        for name in given:
            kept = _without(self.tables[name], block.tables[name], TABLES[name].key)
            joined = pa.concat_tables([kept, block.tables[name]], promote_options="default")
            tables[name] = with_one_dictionary(joined.combine_chunks())
            sources[name] = (Source(RESIDENT, kept.num_rows), *block.sources[name])
        return Tables(fill_derived(tables), sources, self.frames)

    def as_book(self, **more: pa.Table) -> Book:
        """These tables and more as a book."""
        return Book({**self.tables, **more}, self.sources)


def _without(table: pa.Table, new: pa.Table, key: Collection[str]) -> pa.Table:
    have, replaced = key_codes([table, _with_quotes(new, table)], key)
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


def stand_in(tables: Tables, used: pa.Array, ordered: pa.Array) -> Book:
    """The market with one account that holds one of every instrument in use: what a check of the market needs.

    Args:
      tables: the market.
      used: ids of instruments with positions.
      ordered: ids of instruments with orders.
    """
    instruments = plain(tables.tables["instruments"], "instrument_id")

    def rows(ids: pa.Array) -> pa.Array:
        known = pc.index_in(ids.cast(instruments.type), value_set=instruments)
        return _words(instruments.take(known))

    def repeated(word: str, count: int) -> pa.Array:
        return _words(pa.array([word] * count, pa.string()))

    held, wanted = rows(used), rows(ordered)
    account = {"account_id": repeated(_STAND_IN, len(held)), "pool": repeated("cross", len(held))}
    quantity = {"quantity": np.ones(len(held)), "unsettled": np.zeros(len(held))}
    positions = pa.table({**account, "instrument_id": held, **quantity})
    balance = {"account_id": repeated(_STAND_IN, 1), "pool": repeated("cross", 1)}
    asset = tables.tables["prices"]["asset"].slice(0, 1)
    more = {"positions": positions}
    more["balances"] = pa.table({**balance, "asset": asset, "amount": [0.0], "is_collateral": [True]})
    if len(wanted):
        each = pa.array([str(i) for i in range(len(wanted))], pa.string())
        terms = {
            "side": repeated("buy", len(wanted)),
            "quantity": np.zeros(len(wanted)),
            "price": np.zeros(len(wanted)),
        }
        who = {"account_id": repeated(_STAND_IN, len(wanted)), "pool": repeated("cross", len(wanted))}
        more["orders"] = pa.table({**who, "order_id": _words(each), "instrument_id": wanted, **terms})
    return _Market({**tables.tables, **more}, tables.sources, tables.frames)


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
    book: Book, models: list[MarginModel], instant: datetime, device: DeviceChoice | None
) -> list[ContractSet]:
    """The contracts that each model margins, with what forwards and vols are filled on a device; None = with none."""
    vol_limit = max(model.file.vol_limit for model in models)
    nothing = Filling(None, {})
    filling = nothing if device is None else fill_market(book, instant, device=device, vol_limit=vol_limit)
    return [market_contracts(book, model.file, instant, filling) for model in models]


def new_rows(block: Book) -> list[str]:
    """Tables of the market that a block has."""
    return [name for name in MARKET if name in block.tables]


def column_words(table: pa.Table, name: str) -> list[object]:
    """Distinct words of a column."""
    return list(encoded(table[name])[1].to_pylist())
