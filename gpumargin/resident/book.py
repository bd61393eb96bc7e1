"""The book that stays on the devices: changed in place by blocks, margined again after each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.clock import Clock
from gpumargin.device import DeviceChoice
from gpumargin.engine import DType, Settings
from gpumargin.errors import UsageError
from gpumargin.pack.columns import encoded, floats, positions_in
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.legs import ENTRY
from gpumargin.prepare import Options, prepare
from gpumargin.resident.change import Change, margined, status_changes, wanted_columns
from gpumargin.resident.checks import reject, require_sound
from gpumargin.resident.ids import Names
from gpumargin.resident.lane import ATTRIBUTES, Dormant, Lane, Rows, attribute
from gpumargin.resident.market import Kept, Tables, filled_contracts, new_rows, require_market, stand_in
from gpumargin.resident.schema import BLOCK_TABLES
from gpumargin.resident.staging import carry_out, changed_listings, refresh, staged
from gpumargin.resident.store import ACCOUNTS_PER_SHARD
from gpumargin.resident.whole import whole_book
from gpumargin.tables import Book, read_tables
from gpumargin.totals import AccountTotals, asset_decimals
from gpumargin_kernels.resident import MOST_ACCOUNTS

if TYPE_CHECKING:
    from gpumargin.tables import TableLike

_CONTRACT_STEP = 256  # listings come in strikes of an expiry; a table that has room for them compiles once


class ResidentBook:
    """A book on the devices between blocks.

    Legs lie there in padded buckets with spare slots and rows, balances beside them; on the host are names and small
    tables only. After any sequence of blocks `recalculate` gives, bit for bit, what `gpumargin.margin` gives on `book`.

    What is not carried: decimals and integers of balances are float64 from the start; an option paid upfront has no
    entry price in `book`, for no result depends on it; the `ledger` is dropped, for blocks change the sums it states.

    Args:
      book: from `read_book`.
      model: for accounts whose row names no other; a name or a model.
      as_of: instant of valuation of later recalculations unless they say otherwise; None = the newest timestamp.
      device: as in `gpumargin.margin`.
      dtype: precision of the kernels; what is resident is float64.
      accounts_per_shard: accounts that one device margins at a time, at most 2^21; bounds the memory of a
        recalculation.

    Raises:
      InputError: the book or the model breaks the input contract. ResourceError: no such device, or out of memory.
      UsageError: a model that the resident book cannot hold: one whose charges read entry prices of options.
    """

    def __init__(
        self,
        book: Book,
        model: MarginModel | str,
        *,
        as_of: datetime | str | None = None,
        device: DeviceChoice = "auto",
        dtype: DType = "float64",
        accounts_per_shard: int = ACCOUNTS_PER_SHARD,
    ) -> None:
        if not 1 <= accounts_per_shard <= MOST_ACCOUNTS:
            message = f"accounts_per_shard must be 1 to {MOST_ACCOUNTS:,}, found {accounts_per_shard:,}"
            raise UsageError(message)
        self._model = model if isinstance(model, MarginModel) else load_model(model)
        self._as_of = _instant(as_of)
        self._settings = Settings(device, dtype, contract_step=_CONTRACT_STEP)
        self._accounts_per_shard = accounts_per_shard
        self._load(book)

    def _load(self, book: Book) -> None:
        _require_holdable([self._model])
        passes = prepare(book, self._model, Options(self._as_of, self._settings), Clock())
        _require_holdable([work.model for work in passes])
        self._tables = Tables.of(book)
        self._columns = tuple(
            n for n in ATTRIBUTES if "accounts" in book.tables and n in book.tables["accounts"].column_names
        )
        self._has_accounts = "accounts" in book.tables
        self.lanes = [Lane.of(work, book.tables, accounts_per_shard=self._accounts_per_shard) for work in passes]
        for lane in self.lanes:
            _adopt(lane, book)
        self._decimals = dict(asset_decimals(book))

    @property
    def book(self) -> Book:
        """The book as blocks have left it; positions and balances are read from the devices, all of them."""
        return whole_book(self._tables, self.lanes, self._columns, has_accounts=self._has_accounts)

    @property
    def nbytes(self) -> int:
        """Bytes that stay between blocks, on devices and host: rows with their padding, names, places, attributes."""
        return sum(lane.nbytes for lane in self.lanes)

    def apply(
        self,
        fills: TableLike | None = None,
        transfers: TableLike | None = None,
        settlements: TableLike | None = None,
        *,
        instruments: TableLike | None = None,
        accounts: TableLike | None = None,
        orders: TableLike | None = None,
    ) -> None:
        """Changes the book in place: all of the block, or, where anything is wrong with it, nothing.

        Order: instruments, accounts and orders; fills as they stand; transfers; settlements of what is held then.

        * A fill that increases a position gives it the size-weighted entry (of inverse contracts the harmonic mean:
          their size is in quote currency); one that reduces it leaves the entry and pays the realised P&L into the
          balance of the settlement asset; through zero it reduces, then opens at the fill price. A position without
          entry has been settled at its mark: the difference between mark and fill price goes to the balance, and the
          entry stays null. Premium paid upfront and fees move the balance; such options realise no P&L.
        * A settlement closes every position in a contract: options at what they pay at that price of the underlying,
          all else at the price itself. Cash due on the position stays due.
        * Orders are upserted by account, pool and order_id; a quantity of 0 removes one.
        * Accounts that are to hold something for the first time must be named in `accounts`, now or before.

        Args:
          fills: account_id, pool?, instrument_id, quantity (bought > 0), price, fee?.
          transfers: account_id, pool?, asset, amount (received > 0).
          settlements: instrument_id, price.
          instruments: new listings, as in a book; terms of what is listed cannot change.
          accounts: new accounts, or owner and category of old ones; a model other than before is refused.
          orders: as in a book.

        Raises:
          InputError: with one row per offending cell; nothing was changed.
        """
        given = {"fills": fills, "transfers": transfers, "settlements": settlements}
        given |= {"instruments": instruments, "accounts": accounts, "orders": orders}
        self.apply_block(read_tables(BLOCK_TABLES, given))

    def apply_block(self, block: Book) -> None:
        """`apply` of tables that have been read with `read_tables`."""
        require_sound(block)
        tables, contracts = self._tables, [lane.contracts for lane in self.lanes]
        if "instruments" in block.tables:
            reject(block, list(changed_listings(block, tables.tables)))
            tables = tables.with_rows(block, ["instruments"])
            contracts = self._contracts(tables, self._as_of, None)  # order alone: prices come with recalculate
        change = staged(block, tables.tables["instruments"], self.lanes, contracts, self._model)
        if self._take_market(tables, contracts):
            change = staged(block, tables.tables["instruments"], self.lanes, contracts, self._model)
        for lane, own in zip(self.lanes, change, strict=True):
            carry_out(lane, own, tables.tables)
        self._note_accounts(block)

    def _note_accounts(self, block: Book) -> None:
        """Keeps which columns of `accounts` the book has."""
        if "accounts" in block.tables:
            named = {*self._columns, *block.tables["accounts"].column_names}
            self._columns, self._has_accounts = tuple(name for name in ATTRIBUTES if name in named), True

    def _contracts(self, tables: Tables, as_of: datetime | None, fill_on: DeviceChoice | None) -> list[ContractSet]:
        """The contracts of every lane at a market, which is checked as in a run, and filled if it says where."""
        market = stand_in(tables, *self._ids_in_use(tables.kept))
        models = [lane.model for lane in self.lanes]
        self._instant = require_market(market, models, as_of, self._tables.tables)
        before = [(lane.model, lane.contracts) for lane in self.lanes]
        return filled_contracts(market, before, self._instant, fill_on)

    def _ids_in_use(self, kept: Kept) -> tuple[pa.Array, pa.Array]:
        """Ids of the contracts with positions, and of those with orders; the same arrays as long as they are."""
        held = [(lane.contracts.ids, lane.is_held.tobytes()) for lane in self.lanes]
        ordered = [lane.about["orders"].table for lane in self.lanes if "orders" in lane.about]
        return (
            kept.get(
                "ids held",
                tuple(chain(*held)),
                lambda: _distinct([lane.contracts.ids.filter(pa.array(lane.is_held)) for lane in self.lanes]),
            ),
            kept.get(
                "ids ordered",
                tuple(ordered),
                lambda: _distinct([_decoded(table["instrument_id"]) for table in ordered]),
            ),
        )

    def _take_market(self, tables: Tables, contracts: list[ContractSet]) -> bool:
        """Takes tables and what was made of them; True if the whole book had to be laid out anew.

        It has to where units or assets are others than before: their numbers stand in every row.
        """
        if tables is self._tables:
            return False
        if not all(lane.has_axes_of(own) for lane, own in zip(self.lanes, contracts, strict=True)):
            self._reload(tables)
            contracts[:] = [lane.contracts for lane in self.lanes]
            return True
        for lane, own in zip(self.lanes, contracts, strict=True):
            lane.set_contracts(own, tables.tables["instruments"])
        self._tables = tables
        return False

    def _reload(self, tables: Tables) -> None:
        """Lays the book out anew over other tables; what statuses were is kept."""
        before = [(lane.model.label, lane.ids, lane.statuses()) for lane in self.lanes]
        book = whole_book(tables, self.lanes, self._columns, has_accounts=self._has_accounts)
        self._load(book)
        for label, ids, status in before:
            lane = next(lane for lane in self.lanes if lane.model.label == label)
            lane.set_statuses(lane.ids.find(ids.names()), status)

    def recalculate(
        self,
        marks: TableLike | None = None,
        prices: TableLike | None = None,
        forwards: TableLike | None = None,
        *,
        as_of: datetime | str | None = None,
        columns: Collection[str] | Literal["all"] = (),
    ) -> Change:
        """Takes new market rows and margins every account again.

        Args:
          marks: rows as in a book, each in place of the row of its key as a whole.
          prices: likewise.
          forwards: likewise.
          as_of: instant of valuation; None = that of the resident book, else the newest timestamp.
          columns: columns of `accounts` to bring down for all accounts, or `all`. A block that asks for none computes
            what health follows from, no Greeks and no worst scenarios; the first that asks for any compiles a program
            of its own.

        Returns:
          `Change`.

        Raises:
          InputError: the market lacks what accounts hold, or a row breaks the contract; the market stays as it was.
        """
        clock = Clock()
        with clock.stage("read"):
            block = read_tables(BLOCK_TABLES, {"marks": marks, "prices": prices, "forwards": forwards})
        return self.recalculate_block(block, as_of=as_of, columns=columns, clock=clock)

    def take_market(self, block: Book, *, as_of: datetime | str | None = None) -> None:
        """Takes new market rows without margining anything: the next recalculation does."""
        tables = self._tables.with_rows(block, new_rows(block))
        tables = replace(tables) if tables is self._tables else tables  # time has passed all the same
        self._take_market(tables, self._contracts(tables, _instant(as_of) or self._as_of, self._settings.device))

    def recalculate_block(
        self,
        block: Book,
        *,
        as_of: datetime | str | None = None,
        columns: Collection[str] | Literal["all"] = (),
        clock: Clock | None = None,
    ) -> Change:
        """`recalculate` with tables that have been read with `read_tables`."""
        clock = clock or Clock()
        with clock.stage("market"):
            self.take_market(block, as_of=as_of)
        with clock.stage("price"):
            for lane in self.lanes:
                lane.engine.price(lane.contracts)
                refresh(lane, self._tables.tables)
        with clock.stage("margin"):
            totals: dict[str, AccountTotals] = {}
            found = []
            for lane in self.lanes:
                money = lane.model.file.accounting_asset
                own = totals.setdefault(money, AccountTotals(lane.naming.decimals))
                found.append((lane, margined(lane, None if columns == "all" else columns, own)))
        with clock.stage("tables"):
            summary = {money: own.summary() for money, own in totals.items()}
            return Change(status_changes(found), summary, clock.seconds, self._instant, wanted_columns(found))


def _instant(as_of: datetime | str | None) -> datetime | None:
    return datetime.fromisoformat(as_of) if isinstance(as_of, str) else as_of


def _require_holdable(models: list[MarginModel]) -> None:
    """Refuses models whose charges read what is not resident.

    Raises:
      UsageError: entry prices of options.
    """
    for model in models:
        if ENTRY in model.file.leg_inputs:
            message = (
                f"{model.label} reads the entry price of options, which is not resident; margin the book with `run`"
            )
            raise UsageError(message)


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def _distinct(arrays: list[pa.Array]) -> pa.Array:
    texts = [array.cast(pa.string()) for array in arrays]
    return pa.chunked_array(texts, pa.string()).unique()


def _adopt(lane: Lane, book: Book) -> None:
    """Gives a lane what else the book says of its accounts."""
    tables = book.tables
    if "accounts" in tables:
        number = lane.ids.find(Names.of(tables["accounts"]))
        named = [name for name in ATTRIBUTES if name in tables["accounts"].column_names]
        lane.attributes = {name: attribute(tables["accounts"][name], number, len(lane.ids)) for name in named}
    for name in ("orders", "account_parameters"):
        if name in tables:
            number = lane.ids.find(Names.of(tables[name]))
            own = np.flatnonzero(number >= 0)
            lane.about[name] = Rows(tables[name].take(pa.array(own)), number[own])
    if not lane.model.file.unsettled_without_position:
        lane.dormant = _dormant(lane, tables["positions"])


def _dormant(lane: Lane, positions: pa.Table) -> Dormant:
    rows = np.flatnonzero((floats(positions, "quantity") == 0) & (floats(positions, "unsettled", 0.0) != 0))
    some = positions.take(pa.array(rows))
    number = lane.ids.find(Names.of(some))
    codes, words = encoded(some["instrument_id"])
    contract = positions_in(words, lane.contracts.ids)[codes] if len(rows) else np.zeros(0, np.int64)
    own = (number >= 0) & (contract >= 0)
    return Dormant(number[own], contract[own].astype(np.int64), floats(some, "unsettled", 0.0)[own])
