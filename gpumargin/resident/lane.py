"""The accounts of one model: names, contracts, engine, and what they hold on the devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from gpumargin.catalogue import MarginModel
from gpumargin.engine import Engine
from gpumargin.pack.accounts import Accounts
from gpumargin.pack.columns import Bools, Floats, Ints, encoded, plain, positions_in, texts
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.legs import LegBook
from gpumargin.prepare import Pass, model_legs
from gpumargin.resident.fills import Holdings, Payoffs, Terms
from gpumargin.resident.ids import Ids
from gpumargin.resident.keys import is_among
from gpumargin.resident.reading import Held
from gpumargin.resident.store import Store
from gpumargin.results import Naming

ATTRIBUTES = ("owner_id", "model", "emode")


@dataclass(frozen=True)
class Dormant:
    """Positions of quantity 0 with cash due that the model passes over, and a later fill may revive; `[D]` each."""

    account: Ints
    contract: Ints
    unsettled: Floats

    @staticmethod
    def none() -> Dormant:
        """No positions."""
        return Dormant(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True)
class Attribute:
    """A column of `accounts`: a code for every account into words, -1 = null."""

    codes: np.ndarray
    words: pa.Array

    def column(self, accounts: Ints | slice = slice(None)) -> pa.DictionaryArray:
        """The column of some accounts."""
        codes = self.codes[accounts].astype(np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), self.words.cast(pa.string()))


@dataclass(frozen=True)
class Rows:
    """Rows of a table about accounts, and the account of each."""

    table: pa.Table
    account: Ints

    def of(self, accounts: Ints) -> tuple[pa.Table, Ints]:
        """Rows about some accounts, ascending, and the place of each row's account among them."""
        rows = np.flatnonzero(is_among(self.account, accounts))
        return self.table.take(pa.array(rows)), np.searchsorted(accounts, self.account[rows])


@dataclass
class Lane:
    """One model over the accounts that it margins, between blocks.

    Attributes:
      num_positions: `[A]` positions other than 0.
      holders: `[M]` accounts with a leg in each contract.
      about: tables with rows about accounts, `orders` and `account_parameters`, where the book has them.
    """

    model: MarginModel
    contracts: ContractSet
    engine: Engine
    naming: Naming
    store: Store
    ids: Ids
    num_positions: np.ndarray
    holders: Ints
    terms: Terms
    payoffs: Payoffs
    dormant: Dormant = field(default_factory=Dormant.none)
    attributes: dict[str, Attribute] = field(default_factory=dict)
    about: dict[str, Rows] = field(default_factory=dict)

    @staticmethod
    def of(work: Pass, tables: Mapping[str, pa.Table], *, accounts_per_shard: int) -> Lane:
        """The accounts of one pass, on its devices."""
        pad = work.engine.rows_of(work.contracts) - 1
        store = Store.of(work.legs, work.engine.mesh, pad, accounts_per_shard=accounts_per_shard)
        return Lane(
            model=work.model,
            contracts=work.contracts,
            engine=work.engine,
            naming=work.naming,
            store=store,
            ids=Ids(work.legs.account_ids, work.legs.pools),
            num_positions=work.legs.num_positions.astype(np.int32),
            holders=np.bincount(work.legs.contract, minlength=work.contracts.padding),
            terms=contract_terms(work.contracts, tables["instruments"]),
            payoffs=contract_payoffs(work.contracts),
        )

    def set_contracts(self, contracts: ContractSet, instruments: pa.Table) -> None:
        """Takes contracts at new prices, or more of them, of the same units and assets; they are yet to be priced."""
        before, count = self.contracts, self.contracts.padding
        self.contracts = contracts
        pad = self.engine.rows_of(contracts) - 1
        if contracts.ids is not before.ids and not contracts.ids.equals(before.ids):
            to = positions_in(before.ids, contracts.ids)
            table = np.full(self.store.parts.pad + 1, pad)
            table[:count] = to
            self.store.parts.renumber(table)
            holders: Ints = np.zeros(contracts.padding, np.int64)
            holders[to] = self.holders
            self.holders = holders
            self.dormant = replace(self.dormant, contract=to[self.dormant.contract])
            self.payoffs = contract_payoffs(contracts)
            self.terms = contract_terms(contracts, instruments)
        self.terms = self.terms._replace(mark=np.asarray(contracts.contracts.mark[: contracts.padding]))

    @property
    def is_held(self) -> Bools:
        """Which contracts somebody has a leg in, `[M]`; those that balances are among them are not counted."""
        return np.asarray((self.holders > 0) & self.contracts.is_listed)

    def has_axes_of(self, contracts: ContractSet) -> bool:
        """Whether other contracts have the same units, assets and settlement assets, whose numbers rows carry."""
        own = self.contracts
        same = own.units == contracts.units and own.asset_ids == contracts.asset_ids
        if own.settlement is None or contracts.settlement is None:
            return same and own.settlement is contracts.settlement
        return same and np.array_equal(own.settlement, contracts.settlement)

    @property
    def nbytes(self) -> int:
        """Bytes that stay between blocks."""
        codes = sum(each.codes.nbytes + each.words.nbytes for each in self.attributes.values())
        return int(self.store.nbytes + self.ids.nbytes + self.num_positions.nbytes + codes)

    def statuses(self) -> Ints:
        """Status of every account, as the block before left it."""
        return self.store.held(np.arange(len(self.ids)), self.unit_of).status

    def set_statuses(self, accounts: Ints, status: Ints) -> None:
        """Keeps statuses of accounts."""
        self.store.keep_statuses(accounts, status)

    @property
    def unit_of(self) -> np.ndarray:
        """Unit of every contract, `[M]`."""
        return np.asarray(self.contracts.contracts.unit)

    def holdings(self, accounts: Ints) -> tuple[Held, Holdings]:
        """What accounts (ascending) hold: where it lies, and as positions and balances; new accounts hold nothing."""
        is_old = accounts < len(self.store.where.row)
        held = self.store.held(accounts[is_old], self.unit_of)
        keep = self.contracts.is_listed[held.contract] & ((held.quantity != 0) | (held.unsettled != 0))
        found = Holdings(
            owner=held.leg_owner[keep],
            contract=held.contract[keep],
            quantity=held.quantity[keep],
            entry=held.entry[keep],
            unsettled=held.unsettled[keep],
            balance_owner=held.balance_owner,
            asset=held.asset,
            amount=held.amount,
            is_collateral=held.is_collateral,
        )
        return self.store.with_new(held, accounts), self._revived(found, accounts)

    def _revived(self, held: Holdings, accounts: Ints) -> Holdings:
        """Holdings with the dormant positions of their accounts."""
        rows = np.flatnonzero(is_among(self.dormant.account, accounts))
        if not len(rows):
            return held
        owner = np.concatenate([held.owner, np.searchsorted(accounts, self.dormant.account[rows])])
        contract = np.concatenate([held.contract, self.dormant.contract[rows]])
        order = np.lexsort((contract, owner))
        return replace(
            held,
            owner=owner[order],
            contract=contract[order],
            quantity=np.append(held.quantity, np.zeros(len(rows)))[order],
            entry=np.append(held.entry, np.full(len(rows), np.nan))[order],
            unsettled=np.append(held.unsettled, self.dormant.unsettled[rows])[order],
        )

    def packed(self, held: Holdings, accounts: Ints, tables: Mapping[str, pa.Table]) -> LegBook:
        """Accounts as a run packs them, from what they hold."""
        everyone = np.arange(len(accounts))
        own = {"instruments": tables["instruments"], "prices": tables["prices"]}
        own |= {"positions": self.positions(held), "balances": self.balances(held)}
        rows: dict[str, Ints] = {"orders": np.zeros(0, np.int64), "account_parameters": np.zeros(0, np.int64)}
        for name, about in self.about.items():
            own[name], rows[name] = about.of(accounts)
        if self.attributes:
            columns = {name: each.column(accounts) for name, each in self.attributes.items() if name == "emode"}
            own["accounts"] = pa.table({"account_id": pa.array(everyone), **columns})
        names = pa.array(everyone)
        known = Accounts(
            names, names, held.owner, held.balance_owner, everyone, rows["orders"], rows["account_parameters"]
        )
        return model_legs(own, known, self.contracts, self.model.file, np.ones(len(accounts), bool))

    def positions(self, held: Holdings) -> pa.Table:
        """Positions as a table, without account names."""
        return pa.table(
            {
                "instrument_id": _coded(held.contract, self.contracts.ids),
                "quantity": held.quantity,
                "entry_price": held.entry,
                "unsettled": held.unsettled,
            }
        )

    def balances(self, held: Holdings) -> pa.Table:
        """Balances as a table, without account names."""
        return pa.table(
            {
                "asset": _coded(held.asset, pa.array(self.contracts.asset_ids, pa.string())),
                "amount": held.amount,
                "is_collateral": held.is_collateral,
            }
        )

    def commit(self, accounts: Ints, held: Held, now: Holdings, book: LegBook) -> None:
        """Puts accounts packed anew in the place of what they were."""
        self.holders -= np.bincount(held.contract, minlength=self.contracts.padding)
        self.holders += np.bincount(book.contract, minlength=self.contracts.padding)
        self.store.replace(accounts, held, book, self.unit_of)
        missing = int(accounts.max(initial=-1)) + 1 - len(self.num_positions)
        self.num_positions = np.append(self.num_positions, np.zeros(max(missing, 0), np.int32))
        self.num_positions[accounts] = book.num_positions
        if not self.model.file.unsettled_without_position:
            self._keep_dormant(accounts, now)

    def _keep_dormant(self, accounts: Ints, now: Holdings) -> None:
        others = ~is_among(self.dormant.account, accounts)
        rows = np.flatnonzero((now.quantity == 0) & (now.unsettled != 0))
        if others.all() and not len(rows):
            return
        self.dormant = Dormant(
            np.append(self.dormant.account[others], accounts[now.owner[rows]]),
            np.append(self.dormant.contract[others], now.contract[rows]),
            np.append(self.dormant.unsettled[others], now.unsettled[rows]),
        )


def _coded(codes: Ints, words: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), words)


def contract_terms(contracts: ContractSet, instruments: pa.Table) -> Terms:
    """What the fill rule asks of contracts, `[M]`; assets without a price have place -1."""
    c, count = contracts.contracts, contracts.padding
    listed = plain(instruments, "instrument_id").cast(pa.string())
    row = positions_in(contracts.ids, listed)
    known = {name: i for i, name in enumerate(contracts.asset_ids)}
    paid = np.array([known.get(str(asset), -1) for asset in texts(instruments, "settlement")], np.int64)
    settlement = np.where(contracts.is_listed, paid[row] if len(paid) else -1, -1)
    return Terms(
        size=np.asarray(c.size[:count]),
        is_upfront=np.asarray(c.is_option[:count]),
        is_inverse=np.asarray(c.is_inverse[:count]),
        settlement=settlement,
        mark=np.asarray(c.mark[:count]),
    )


def contract_payoffs(contracts: ContractSet) -> Payoffs:
    """What settling them asks of contracts, `[M]`."""
    c, count = contracts.contracts, contracts.padding
    is_digital = np.zeros(count, bool) if c.is_digital is None else np.asarray(c.is_digital[:count])
    return Payoffs(c.is_option[:count], c.is_call[:count], is_digital, c.is_inverse[:count], c.strike[:count])


def attribute(column: pa.ChunkedArray, number: Ints, accounts: int) -> Attribute:
    """A column of `accounts` by account; `number` says whose each row is, negative = nobody's here."""
    codes, words = encoded(column)
    found = np.full(accounts, -1, np.int32)
    found[number[number >= 0]] = codes[number >= 0]
    return Attribute(found, words)
