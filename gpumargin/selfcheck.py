"""Checks of our own results, on every run: identities that must hold whatever the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.engine import EngineResult
from gpumargin.errors import InternalError
from gpumargin.modelfile import ModelFile
from gpumargin.pack.columns import Floats, Ints, flat, floats
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.legs import LegBook

# Two ways to the same sum of n terms differ by at most n roundings of the gross amount, and by those of each term.
_ROUNDINGS = 16
_MINOR = {"equity": -1, "initial_margin": 1, "maintenance_margin": 1}  # which way each is rounded


@dataclass(frozen=True)
class Expected:
    """What results are held against.

    Attributes:
      book: packed accounts.
      contracts: what they hold.
      values: `[M]` what one long contract adds to the option value, in the run's precision.
      decimals: of the accounting asset.
      plain: margin types whose balance is collateral value, P&L and option value and nothing else.
    """

    book: LegBook
    contracts: ContractSet
    values: Floats
    decimals: int
    plain: Collection[str]


def plain_types(file: ModelFile) -> tuple[str, ...]:
    """Margin types of a model that count P&L and option value as they are."""
    return () if file.pnl_settles else tuple(name for name in file.margin if name not in file.counted)


def _sum_by_run(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums of consecutive values from each start to the next; the last start is the end of the values."""
    sums, held = np.zeros(len(starts) - 1), np.flatnonzero(np.diff(starts))
    if len(held):  # reduceat takes an empty run for the value that it begins at
        sums[held] = np.add.reduceat(values, starts[held])
    return sums


def _cash(book: LegBook, rows: slice) -> slice:
    """Cash legs of consecutive unit rows."""
    return slice(int(book.cash_start[rows.start]), int(book.cash_start[rows.stop]))


def _cash_pnl(book: LegBook, contracts: ContractSet, cash: slice) -> np.ndarray:
    c, contract, entry = contracts.contracts, book.cash_contract[cash], book.entry[cash]
    mark = c.mark[contract]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        gain = np.where(c.is_inverse[contract], 1 / entry - 1 / mark, mark - entry)
    open_gain = np.where(np.isnan(entry), 0.0, gain)
    pnl = book.cash_quantity[cash] * c.size[contract] * open_gain + book.unsettled[cash]
    return np.asarray(pnl * c.settlement_ratio[contract])


def leg_pnl(book: LegBook, contracts: ContractSet, rows: slice) -> np.ndarray:
    """P&L not yet in the balance, cash due included, of every leg of the unit rows `rows`: the contract's formula."""
    legs = slice(book.leg_start[rows.start], book.leg_start[rows.stop])
    values = np.zeros(legs.stop - legs.start)
    values[book.is_cash[legs]] = _cash_pnl(book, contracts, _cash(book, rows))
    return values


def _cash_gross(book: LegBook, contracts: ContractSet, cash: slice) -> np.ndarray:
    """Money that the P&L of every cash leg is a difference of: what rounding is relative to."""
    c, contract = contracts.contracts, book.cash_contract[cash]
    with np.errstate(divide="ignore", over="ignore"):
        price = np.where(c.is_inverse[contract], 1 / c.mark[contract], c.mark[contract])
    price = np.where(c.is_option[contract], 0.0, price)
    gross = np.abs(book.cash_quantity[cash] * c.size[contract] * price) + np.abs(book.unsettled[cash])
    return np.asarray(gross * np.abs(c.settlement_ratio[contract]))


@dataclass(frozen=True)
class _Sum:
    """Sums of many terms the slow way, and how far another way may round to."""

    value: Floats
    room: Floats

    @staticmethod
    def of(values: Floats, gross: Floats, starts: Ints, epsilon: float) -> _Sum:
        """Sums of runs of values, `gross` being what each was computed from."""
        roundings = epsilon * (np.diff(starts) + _ROUNDINGS)
        return _Sum(_sum_by_run(values, starts), roundings * _sum_by_run(np.abs(values) + gross, starts))

    def by_run(self, starts: Ints) -> _Sum:
        """Sums of these sums, twice their room for the additions that these take."""
        return _Sum(_sum_by_run(self.value, starts), 2 * _sum_by_run(self.room, starts))

    def and_also(self, other: _Sum, epsilon: float) -> _Sum:
        """Both together."""
        value = self.value + other.value
        return _Sum(value, self.room + other.room + epsilon * (np.abs(self.value) + np.abs(other.value)))


class _Rows:
    """A result table of consecutive rows, and which account each is about."""

    def __init__(self, name: str, table: pa.Table, accounts: pa.Array) -> None:
        self._name, self._table, self._accounts = name, table, accounts

    def column(self, name: str, dtype: np.dtype | None = None) -> Floats:
        """A column in the run's precision."""
        return floats(self._table, name).astype(dtype or np.float64)

    def require(self, name: str, found: np.ndarray, expected: np.ndarray, room: np.ndarray | float = 0.0) -> None:
        """Raises InternalError where a number is not the one that was computed anew; NaN is an account's alarm."""
        self.require_all(name, ~(np.abs(found - expected) > room), found, expected)

    def require_all(self, name: str, holds: np.ndarray, found: np.ndarray, expected: np.ndarray) -> None:
        """Raises InternalError where something does not hold."""
        wrong = np.flatnonzero(~holds)
        if len(wrong):
            row = int(wrong[0])
            message = (
                f"GM202: {name} of account {self._accounts[row].as_py()!r} is {found[row].item()!r} in {self._name}, "
                f"recomputed {expected[row].item()!r} ({len(wrong):,} rows differ); nothing was published"
            )
            raise InternalError(message)


def check_part(expected: Expected, part: EngineResult, tables: Mapping[str, pa.Table]) -> None:
    """Recomputes P&L, option value and equity of some accounts from the book, the slow way, and every identity.

    What is looked at are the tables that get hashed and published, so that no step before them goes unwatched. The
    room for rounding is that of the sum at hand: far below a minor unit for any account whose amounts have one.

    Args:
      expected: what to hold them against.
      part: results of these accounts.
      tables: result tables made of it.

    Raises:
      InternalError: GM202, an identity does not hold; the message names the account and both figures.
    """
    book, dtype = expected.book, part.result.accounts.equity.dtype
    chosen = slice(part.first_account, part.first_account + len(part.result.accounts.equity))
    _require_names(book, chosen, tables["accounts"])
    accounts = _Rows("accounts", tables["accounts"], book.account_ids[chosen])
    epsilon = float(np.finfo(dtype).eps)
    unit_rows = book.unit_start[chosen.start : chosen.stop + 1]
    pnl, options = _floating(expected, slice(int(unit_rows[0]), int(unit_rows[-1])), epsilon)
    held = unit_rows - unit_rows[0]
    if "units" in tables:
        owners = pa.array(np.repeat(np.arange(chosen.start, chosen.stop), np.diff(held)))
        units = _Rows("units", tables["units"], book.account_ids.take(owners))
        units.require("unrealised_pnl", units.column("unrealised_pnl"), pnl.value, pnl.room)
        units.require("option_value", units.column("option_value"), options.value, options.room)
    pnl, options = pnl.by_run(held), options.by_run(held)
    accounts.require("unrealised_pnl", accounts.column("unrealised_pnl"), pnl.value, pnl.room)
    accounts.require("option_value", accounts.column("option_value"), options.value, options.room)
    equity = _balances(expected, chosen, epsilon).and_also(pnl.and_also(options, epsilon), epsilon)
    accounts.require("equity", accounts.column("equity"), equity.value, equity.room)
    _check_margins(expected, accounts, part, dtype)
    _check_minor(expected, accounts, tables["accounts"])


def _require_names(book: LegBook, chosen: slice, accounts: pa.Table) -> None:
    for name, names in (("account_id", book.account_ids), ("pool", book.pools)):
        if not flat(accounts[name]).equals(names[chosen]):
            message = f"GM202: {name} of {accounts.num_rows:,} results are not those of the book; nothing was published"
            raise InternalError(message)


def _floating(expected: Expected, rows: slice, epsilon: float) -> tuple[_Sum, _Sum]:
    """P&L and option value of every unit row."""
    book, contracts = expected.book, expected.contracts
    cash, legs = _cash(book, rows), slice(int(book.leg_start[rows.start]), int(book.leg_start[rows.stop]))
    amounts, gross = _cash_pnl(book, contracts, cash), _cash_gross(book, contracts, cash)
    pnl = _Sum.of(amounts, gross, book.cash_start[rows.start : rows.stop + 1] - cash.start, epsilon)
    values = book.quantity[legs] * np.append(expected.values, 0.0)[book.contract[legs]]
    starts = book.leg_start[rows.start : rows.stop + 1] - legs.start
    return pnl, _Sum.of(values, np.zeros(1), starts, epsilon)


def _balances(expected: Expected, chosen: slice, epsilon: float) -> _Sum:
    """Balances of every account at full value."""
    book, starts = expected.book, expected.book.balance_start[chosen.start : chosen.stop + 1]
    held = slice(int(starts[0]), int(starts[-1]))
    value = book.amount[held] * expected.contracts.assets.ratio[book.asset[held]]
    return _Sum.of(value, np.zeros(1), starts - held.start, epsilon)


def _check_margins(expected: Expected, accounts: _Rows, part: EngineResult, dtype: np.dtype) -> None:
    """Excess is balance less requirement, and a balance is what counts towards it."""
    floating = accounts.column("unrealised_pnl", dtype) + accounts.column("option_value", dtype)
    for name in part.result.accounts.margin:
        balance, margin = accounts.column(f"{name}_balance", dtype), accounts.column(f"{name}_margin", dtype)
        accounts.require(f"{name}_excess", accounts.column(f"{name}_excess", dtype), balance - margin)
        if name in expected.plain:
            accounts.require(f"{name}_balance", balance, accounts.column(f"{name}_collateral_value", dtype) + floating)


def _check_minor(expected: Expected, accounts: _Rows, table: pa.Table) -> None:
    """Minor units are less than one away from the number itself, on the side that is against the account."""
    for name, side in _MINOR.items():
        column, scaled = flat(table[f"{name}_minor"]), accounts.column(name) * 10.0**expected.decimals
        minor, is_known = np.asarray(pc.fill_null(column, 0)), np.asarray(column.is_valid())
        away = side * (minor - scaled)
        is_less = (away < 1) | ((away == 1) & (scaled != np.rint(scaled)))  # 1 - 1e-18 reads 1
        holds = np.where(is_known, (away >= 0) & is_less, ~np.isfinite(scaled))
        accounts.require_all(f"{name}_minor", holds, minor, scaled)


def check_rows(done: int, expected: int) -> None:
    """Every account must have got exactly one result row, in order.

    Raises:
      InternalError: GM202.
    """
    if done != expected:
        message = f"GM202: {done:,} accounts have results, {expected:,} were read; nothing was published"
        raise InternalError(message)
