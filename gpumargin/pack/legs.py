"""Positions and balances in canonical order: account, unit, expiry, strike, contract."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from gpumargin.pack.accounts import Accounts, account_categories, account_owners
from gpumargin.pack.balance_inputs import BalanceInputs, with_empty
from gpumargin.pack.columns import Bools, Floats, Ints, encoded, flags, floats, positions_in
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.orders import ORDER_INPUTS, OpenOrders
from gpumargin.pack.settings import EVERY_UNIT, Settings, values_by_unit

ENTRY = "entry"  # the leg input that is no order


@dataclass(frozen=True)
class LegBook:
    """The book as runs of consecutive rows, one level inside the next.

    `x_start[i] : x_start[i + 1]` are the rows of the level below that belong to row i.
    """

    account_ids: pa.Array  # [A]
    pools: pa.Array  # [A]
    num_positions: Ints  # [A] positions other than 0
    unit_start: Ints  # [A + 1] account -> unit rows
    balance_start: Ints  # [A + 1] account -> balances
    unit: np.ndarray  # [R] int32
    leg_start: Ints  # [R + 1] unit row -> legs
    cash_start: Ints  # [R + 1] unit row -> cash legs
    contract: np.ndarray  # [N] int32, ascending within a unit row
    quantity: Floats  # [N]
    inputs: Mapping[str, Floats]  # [N] each, what else of a leg the model names
    is_cash: Bools  # [N] which legs are cash legs
    cash_contract: np.ndarray  # [Nc] int32
    cash_quantity: Floats  # [Nc]
    entry: Floats  # [Nc] NaN = P&L already settled
    unsettled: Floats  # [Nc]
    asset: np.ndarray  # [B] int32
    amount: Floats  # [B]
    is_collateral: Bools  # [B]
    category: np.ndarray | None = None  # [A] int32, 0 = none; None = the model has no categories
    owner: np.ndarray | None = None  # [A] int index into `owner_ids`, -1 = none; None = the book names no owners
    owner_ids: pa.Array | None = None
    settlement: np.ndarray | None = None  # [B] int32 settlement column, -1 = none; None = nothing settles
    settings: Mapping[str, Floats] = field(default_factory=dict)  # [A] each, numbers of whole accounts
    balance_inputs: Mapping[str, Floats] | None = None  # [B] each, what else of a balance the model names

    def __len__(self) -> int:
        return len(self.account_ids)


def _starts(owner: Ints, owners: int) -> Ints:
    """Where each owner's run begins, `[owners + 1]`; `owner` is ascending."""
    return np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=owners))]).astype(np.int64)


def _order(key: Ints) -> np.ndarray | slice:
    """Permutation that sorts `key`, or all rows as they are if it is ascending already."""
    if bool(np.all(key[1:] >= key[:-1])):
        return slice(None)
    return np.argsort(key, kind="stable")


@dataclass(frozen=True)
class _Rows:
    """Legs, in canonical order once sorted."""

    account: Ints
    contract: np.ndarray
    quantity: Floats
    entry: Floats
    unsettled: Floats
    inputs: Mapping[str, Floats] = field(default_factory=dict)

    def take(self, index: np.ndarray | slice) -> _Rows:
        """The rows `index`."""
        return _Rows(
            self.account[index],
            self.contract[index],
            self.quantity[index],
            self.entry[index],
            self.unsettled[index],
            {name: values[index] for name, values in self.inputs.items()},
        )

    def and_empty(self, account: Ints, contract: np.ndarray, quantity: Floats) -> _Rows:
        """These rows and more, without entry or cash due."""
        return _Rows(
            np.concatenate([self.account, account]),
            np.concatenate([self.contract, contract]),
            np.concatenate([self.quantity, quantity]),
            np.concatenate([self.entry, np.full(len(account), np.nan)]),
            np.concatenate([self.unsettled, np.zeros(len(account))]),
        )


def _position_rows(positions: pa.Table, account: Ints, contracts: ContractSet, *, keep_empty: bool) -> _Rows:
    codes, values = encoded(positions["instrument_id"])
    contract = positions_in(values, contracts.ids)[codes].astype(np.int32)
    quantity = floats(positions, "quantity")
    unsettled = floats(positions, "unsettled", 0.0)
    keep = (contract >= 0) & ((quantity != 0) | (keep_empty & (unsettled != 0)))
    chosen = slice(None) if keep.all() else np.flatnonzero(keep)
    entry = floats(positions, "entry_price")
    return _Rows(account[chosen], contract[chosen], quantity[chosen], entry[chosen], unsettled[chosen])


def _with_base_legs(rows: _Rows, balances: pa.Table, account: Ints, contracts: ContractSet) -> _Rows:
    """Balances in a unit's own asset, held as collateral, as legs of that unit."""
    codes, values = encoded(balances["asset"])
    asset = positions_in(values, pa.array(contracts.asset_ids, pa.string()))[codes]
    contract = contracts.base_contract[asset]
    amount = floats(balances, "amount")
    counts = flags(balances, "is_collateral", default=True) | (amount < 0)
    chosen = np.flatnonzero((asset >= 0) & (contract >= 0) & (amount != 0) & counts)
    if len(chosen) == 0:
        return rows
    return rows.and_empty(account[chosen], contract[chosen].astype(np.int32), amount[chosen])


def _with_inputs(
    rows: _Rows, orders: pa.Table | None, accounts: Accounts, contracts: ContractSet, names: Collection[str]
) -> _Rows:
    """Adds what else the model names of a leg; orders without a position become legs of quantity 0."""
    found: dict[str, Floats] = {}
    if orders is not None and {*names} & {*ORDER_INPUTS}:
        codes, values = encoded(orders["instrument_id"])
        place = positions_in(values, contracts.ids)[codes]
        book = OpenOrders.of(orders, accounts.of_orders, place, np.asarray(contracts.contracts.mark))
        account, contract = book.without_leg(rows.account, rows.contract)
        rows = rows.and_empty(account, contract, np.zeros(len(account)))
        found = {n: book.of_legs(rows.account, rows.contract, n) for n in names if n in ORDER_INPUTS}
    found |= {n: np.zeros(len(rows.account)) for n in names if n in ORDER_INPUTS and n not in found}
    if ENTRY in names:
        entry = np.where(np.isnan(rows.entry), contracts.contracts.mark[rows.contract], rows.entry)
        # An option that is priced from its vol and was entered at no known price: its premium is settled.
        found[ENTRY] = np.where(np.isnan(entry) & contracts.contracts.is_option[rows.contract], 0.0, entry)
    return replace(rows, inputs=found)


def _with_settings(
    rows: _Rows,
    parameters: pa.Table | None,
    accounts: Accounts,
    contracts: ContractSet,
    settable: Mapping[str, Mapping[str, float]],
) -> _Rows:
    """Adds the numbers that accounts may set, each leg's own: by its underlying, else by its account, else default."""
    found = {name: values_by_unit(values, contracts.units) for name, values in settable.items()}
    unit = contracts.contracts.unit[rows.contract]
    settings = {name: values[unit] for name, values in found.items()}
    if parameters is not None and settings:
        own = Settings.of(parameters, accounts.of_parameters, contracts.units)
        settings = {name: own.applied(name, values, rows.account, unit) for name, values in settings.items()}
    return replace(rows, inputs={**rows.inputs, **settings})


def _account_settings(
    tables: Mapping[str, pa.Table], accounts: Accounts, usual: Mapping[str, float]
) -> dict[str, Floats]:
    """Numbers of whole accounts, `[A]` each: their own where they set one without a subject."""
    found: dict[str, Floats] = {name: np.full(len(accounts), value) for name, value in usual.items()}
    parameters, everyone = tables.get("account_parameters"), np.arange(len(accounts))
    if parameters is None or not found:
        return found
    own = Settings.of(parameters, accounts.of_parameters, ())
    return {name: own.applied(name, v, everyone, np.full(len(accounts), EVERY_UNIT)) for name, v in found.items()}


def _sorted(rows: _Rows, contracts: int) -> _Rows:
    return rows.take(_order(rows.account * np.int64(contracts) + rows.contract))


def leg_book(
    tables: Mapping[str, pa.Table],
    accounts: Accounts,
    contracts: ContractSet,
    *,
    included: Bools,
    keep_empty: bool,
    inputs: Collection[str] = (),
    balance_inputs: Collection[str] = (),
    categories: Mapping[str, int] | None = None,
    settable: Mapping[str, Mapping[str, float]] | None = None,
    account_settings: Mapping[str, float] | None = None,
) -> LegBook:
    """Legs and balances of the included accounts in canonical order.

    Args:
      tables: the book's tables in canonical types, checked: every id is known.
      accounts: from `find_accounts`.
      contracts: the contracts that legs refer to.
      included: `[A]` which accounts this book is about.
      keep_empty: whether cash due on a position of size 0 counts.
      inputs: what else of a leg the model names: `entry`, or `buys`, `sells` and `orders`, with which an instrument
        that has orders but no position becomes a leg of quantity 0.
      balance_inputs: what else of a balance the model names: `bids`, `asks` and `orders` of spot, with which an asset
        that has orders but no balance gets a balance of 0, and numbers that accounts may set.
      categories: code of every category that `accounts.emode` may name; None or empty = the model has none.
      settable: numbers by unit that accounts may set for the legs of a unit in `account_parameters`.
      account_settings: numbers that they may set as a whole there, with their defaults.

    Returns:
      `LegBook` over the included accounts.
    """
    renumbered = np.cumsum(included) - 1
    positions, balances = tables["positions"], tables["balances"]
    rows = _position_rows(positions, accounts.of_positions, contracts, keep_empty=keep_empty)
    rows = _with_base_legs(rows, balances, accounts.of_balances, contracts)
    rows = _with_inputs(rows, tables.get("orders"), accounts, contracts, inputs)
    rows = _with_settings(rows, tables.get("account_parameters"), accounts, contracts, settable or {})
    if not included.all():
        rows = rows.take(included[rows.account])
    rows = _sorted(replace(rows, account=renumbered[rows.account]), contracts.padding + 1)
    held = _balance_columns(balances, accounts, contracts, included)
    if contracts.settlement is not None:
        held = _with_settlements(held, rows, contracts)
    prices = np.asarray(contracts.assets.ratio)
    own = BalanceInputs.of(tables, accounts, contracts.asset_ids, renumbered, included, balance_inputs, prices)
    held = own.with_rows(held)
    book = _assembled(rows, accounts, contracts, held, included)
    owner, owner_ids = account_owners(tables, accounts)
    return replace(
        book,
        owner=None if owner is None else owner[included],
        owner_ids=owner_ids,
        category=account_categories(tables, accounts, categories)[included] if categories else None,
        settlement=_settlement_places(book.asset, contracts),
        settings={
            name: values[included]
            for name, values in _account_settings(tables, accounts, account_settings or {}).items()
        },
        balance_inputs=own.columns(held[0], held[1], settable or {}),
    )


def _settlement_places(asset: np.ndarray, contracts: ContractSet) -> np.ndarray | None:
    """Settlement column of every balance, -1 where nothing settles in its asset."""
    if contracts.settlement is None:
        return None
    column = np.full(len(contracts.asset_ids), -1, np.int32)
    column[contracts.settlement] = np.arange(len(contracts.settlement))
    places: np.ndarray = column[asset]
    return places


def _with_settlements(
    held: tuple[Ints, np.ndarray, Floats, Bools], rows: _Rows, contracts: ContractSet
) -> tuple[Ints, np.ndarray, Floats, Bools]:
    """Balances, and empty ones where an account has legs that settle in an asset it has no balance of."""
    account, asset, _, _ = held
    count, of_contract = len(contracts.asset_ids), contracts.contracts.settlement_column
    if contracts.settlement is None or of_contract is None or len(contracts.settlement) == 0:
        return held
    own = account * np.int64(count) + asset
    column = of_contract[rows.contract]
    pays = column >= 0
    due = np.unique(rows.account[pays] * np.int64(count) + contracts.settlement[column[pays]])
    return with_empty(held, due[~np.isin(due, own)], count)


def _balance_columns(
    balances: pa.Table, accounts: Accounts, contracts: ContractSet, included: Bools
) -> tuple[Ints, np.ndarray, Floats, Bools]:
    codes, values = encoded(balances["asset"])
    asset = positions_in(values, pa.array(contracts.asset_ids, pa.string()))[codes].astype(np.int32)
    chosen = np.flatnonzero(included[accounts.of_balances])
    account = (np.cumsum(included) - 1)[accounts.of_balances[chosen]]
    order = _order(account * np.int64(len(contracts.asset_ids)) + asset[chosen])
    chosen = chosen[order]
    return (
        account[order],
        asset[chosen],
        floats(balances, "amount")[chosen],
        flags(balances, "is_collateral", default=True)[chosen],
    )


def _assembled(
    rows: _Rows,
    accounts: Accounts,
    contracts: ContractSet,
    balances: tuple[Ints, np.ndarray, Floats, Bools],
    included: Bools,
) -> LegBook:
    count = int(included.sum())
    unit_of_leg = contracts.contracts.unit[rows.contract]
    begins = np.ones(len(rows.account), bool)
    begins[1:] = (rows.account[1:] != rows.account[:-1]) | (unit_of_leg[1:] != unit_of_leg[:-1])
    heads = np.flatnonzero(begins)
    row_of_leg = np.cumsum(begins) - 1
    is_cash = ~(contracts.contracts.is_option | contracts.contracts.is_base)[rows.contract] | (rows.unsettled != 0)
    cash = np.flatnonzero(is_cash)
    is_option = contracts.contracts.is_option[rows.contract[cash]]
    counted = contracts.is_listed[np.minimum(rows.contract, contracts.padding - 1)] & (rows.quantity != 0)
    balance_account, asset, amount, is_collateral = balances
    chosen = np.flatnonzero(included)
    return LegBook(
        account_ids=accounts.account_ids.take(pa.array(chosen)),
        pools=accounts.pools.take(pa.array(chosen)),
        num_positions=np.bincount(rows.account[counted], minlength=count).astype(np.int64),
        unit_start=_starts(rows.account[heads], count),
        balance_start=_starts(balance_account, count),
        unit=unit_of_leg[heads].astype(np.int32),
        leg_start=np.concatenate([heads, [len(rows.account)]]).astype(np.int64),
        cash_start=_starts(row_of_leg[cash], len(heads)),
        contract=rows.contract,
        quantity=rows.quantity,
        inputs=rows.inputs,
        is_cash=is_cash,
        cash_contract=rows.contract[cash],
        cash_quantity=np.where(is_option, 0.0, rows.quantity[cash]),
        entry=np.where(is_option, np.nan, rows.entry[cash]),
        unsettled=rows.unsettled[cash],
        asset=asset,
        amount=amount,
        is_collateral=is_collateral,
    )
