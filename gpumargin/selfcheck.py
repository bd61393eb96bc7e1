"""Checks of our own results, on every run: identities that must hold whatever the model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpumargin.engine import EngineResult
from gpumargin.errors import InternalError
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.legs import LegBook

# Two ways to the same sum differ by rounding only: a few ulp of the gross amount. float32 runs carry 2^-24.
_TOLERANCE = {8: 1e-9, 4: 1e-3}


def _sum_by_run(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return np.bincount(owner, weights=values, minlength=len(starts) - 1)


class _CashLegs(NamedTuple):
    """Cash legs of consecutive unit rows, with the legs among which they stand."""

    legs: slice
    cash: slice


def _cash_legs(book: LegBook, rows: slice) -> _CashLegs:
    return _CashLegs(
        slice(book.leg_start[rows.start], book.leg_start[rows.stop]),
        slice(book.cash_start[rows.start], book.cash_start[rows.stop]),
    )


def _on_legs(book: LegBook, which: _CashLegs, of_cash_legs: np.ndarray) -> np.ndarray:
    values = np.zeros(which.legs.stop - which.legs.start)
    values[book.is_cash[which.legs]] = of_cash_legs
    return values


def leg_pnl(book: LegBook, contracts: ContractSet, rows: slice) -> np.ndarray:
    """P&L not yet in the balance, cash due included, of every leg of the unit rows `rows`: the contract's formula."""
    c, which = contracts.contracts, _cash_legs(book, rows)
    contract, entry = book.cash_contract[which.cash], book.entry[which.cash]
    mark = c.mark[contract]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        gain = np.where(c.is_inverse[contract], 1 / entry - 1 / mark, mark - entry)
    open_gain = np.where(np.isnan(entry), 0.0, gain)
    cash = book.cash_quantity[which.cash] * c.size[contract] * open_gain + book.unsettled[which.cash]
    return _on_legs(book, which, cash * c.settlement_ratio[contract])


def _leg_notional(book: LegBook, contracts: ContractSet, rows: slice) -> np.ndarray:
    """Money that the P&L of every cash leg is a difference of: what rounding is relative to."""
    c, which = contracts.contracts, _cash_legs(book, rows)
    contract = book.cash_contract[which.cash]
    with np.errstate(divide="ignore", over="ignore"):
        price = np.where(c.is_inverse[contract], 1 / c.mark[contract], c.mark[contract])
    price = np.where(c.is_option[contract], 0.0, price)
    notional = book.cash_quantity[which.cash] * c.size[contract] * price * c.settlement_ratio[contract]
    return _on_legs(book, which, np.abs(notional))


def check_part(book: LegBook, contracts: ContractSet, part: EngineResult) -> None:
    """Recomputes the equity of every account of a part from balances, the slow way, and the excess identity.

    Raises:
      InternalError: GM202, an identity does not hold; the message names the account and both figures.
    """
    rows = part.result.accounts
    chosen = slice(part.first_account, part.first_account + len(rows.equity))
    starts = book.balance_start[chosen.start : chosen.stop + 1]
    value = book.amount[starts[0] : starts[-1]] * contracts.assets.ratio[book.asset[starts[0] : starts[-1]]]
    unit_rows = book.unit_start[chosen.start : chosen.stop + 1]
    legs = book.leg_start[unit_rows]
    own = slice(int(unit_rows[0]), int(unit_rows[-1]))
    pnl, notional = leg_pnl(book, contracts, own), _leg_notional(book, contracts, own)
    recomputed = _sum_by_run(pnl, legs - legs[0])
    tolerance = _TOLERANCE[rows.equity.dtype.itemsize]
    room = tolerance * (_sum_by_run(np.abs(pnl) + notional, legs - legs[0]) + 1)
    _require(book, chosen.start, "unrealised_pnl", rows.unrealised_pnl, recomputed, room)
    floating = rows.unrealised_pnl.astype(np.float64) + rows.option_value
    expected = _sum_by_run(value, starts - starts[0]) + floating
    gross = _sum_by_run(np.abs(value), starts - starts[0]) + np.abs(floating) + room / tolerance
    _require(book, chosen.start, "equity", rows.equity, expected, tolerance * gross)
    for name, excess in rows.health.excess.items():
        _require(book, chosen.start, f"{name}_excess", excess, rows.balance[name] - rows.margin[name], 0)


def _require(
    book: LegBook, first: int, name: str, found: np.ndarray, expected: np.ndarray, tolerance: np.ndarray | float
) -> None:
    wrong = np.flatnonzero(np.abs(found - expected) > tolerance)
    if len(wrong):
        row = int(wrong[0])
        account = book.account_ids[first + row].as_py()
        message = (
            f"GM202: {name} of account {account!r} is {found[row]!r}, recomputed {expected[row]!r} "
            f"({len(wrong):,} accounts differ); nothing was published"
        )
        raise InternalError(message)


def check_rows(done: int, expected: int) -> None:
    """Every account must have got exactly one result row.

    Raises:
      InternalError: GM202.
    """
    if done != expected:
        message = f"GM202: {done:,} accounts have results, {expected:,} were read; nothing was published"
        raise InternalError(message)
