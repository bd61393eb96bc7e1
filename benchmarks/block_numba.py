"""Whole margin blocks as fused numba kernels, as a specialist would write them for one model: honest opponents.

From the priced contract table to the status of every account in one loop over accounts, all cores, multiply-adds
contracted: legs with their strike and expiry levels, contingencies, unit requirement, cash P&L, collateral, excess and
status. They compute what gpumargin returns of units and accounts: charges, requirements, worst scenario, Greeks. Or,
like our block that is asked for no column, only what the health of accounts follows from: then nothing is kept of
units, no worst scenario is sought, and the table has no Greeks. `derive-pm1` and `derive-pm2` share their skeleton.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np

from benchmarks.block_tables import (
    NUM_HEALTH,
    Block,
    blank_block,
    model_of,
    money_of,
    priced,
    runs_of,
    summed,
    tally_of,
    totals_of,
)
from benchmarks.opponents import RELAXED, TASK_ACCOUNTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpumargin.prepare import Pass
    from gpumargin_kernels.model import Model

# NaN must be seen where a status is decided, so only sums and minima assume that there is none.
CAREFUL = {"contract", "nsz"}


@numba.njit(fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def add_row(total: Any, quantity: Any, table: Any, row: Any) -> None:
    for column in range(len(total)):
        total[column] += quantity * table[row, column]


@numba.njit(fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def least(pnl: Any, start: Any, stop: Any, is_whole: Any) -> Any:
    """Least of some columns, and if wanted where it first stands."""
    found = pnl[start]
    for column in range(start + 1, stop):
        found = min(found, pnl[column])
    if is_whole:
        for column in range(start, stop):
            if pnl[column] == found:
                return found, column
    return found, start


@numba.njit(fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def weigh(pnl: Any, weight: Any, unit: Any) -> None:
    for column in range(weight.shape[1]):
        pnl[column] *= weight[unit, column]


@numba.njit(fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def add_greeks(rows: Any, units: Any, total: Any, start: Any, account: Any, row: Any) -> None:
    for greek in range(len(total) - start):
        units[row, 12 + greek] = total[start + greek]
        rows[account, 13 + greek] += total[start + greek]


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def cash_of(
    start: Any, contract: Any, quantity: Any, entry: Any, is_open: Any, unsettled: Any, table: Any, row: Any
) -> Any:
    """P&L not yet in the balance of a unit row."""
    total = 0.0
    for leg in range(start[row], start[row + 1]):
        c = contract[leg]
        gain = 0.0
        if is_open[leg]:
            gain = table[c, 0] - entry[leg]
            if table[c, 3] != 0.0:
                product = table[c, 0] * entry[leg]
                gain = gain / product if product != 0.0 else 0.0
        total += (quantity[leg] * table[c, 1] * gain + unsettled[leg]) * table[c, 2]
    return total


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def collateral_of(start: Any, assets: Any, amounts: Any, is_collateral: Any, money: Any, account: Any) -> Any:
    """Balances of an account at full value, and what of them counts as initial and as maintenance."""
    full, initial, maintenance = 0.0, 0.0, 0.0
    for b in range(start[account], start[account + 1]):
        asset, amount = assets[b], amounts[b]
        value = amount * money[asset, 0]
        full += value
        if amount < 0.0:
            initial += value * money[asset, 3]
            maintenance += value * money[asset, 4]
        elif is_collateral[b]:
            initial += value * money[asset, 1]
            maintenance += value * money[asset, 2]
    return full, initial, maintenance


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def close_account(
    rows: Any, account: Any, cash: Any, option_value: Any, collateral: Any, initial: Any, maintenance: Any
) -> Any:
    """Equity, balances, excess and health of an account into its row; returns its status."""
    floating = cash + option_value
    equity = collateral[0] + floating
    balance, other = collateral[1] + floating, collateral[2] + floating
    excess, left = balance - initial, other - maintenance
    rows[account, 0], rows[account, 1], rows[account, 2] = equity, cash, option_value
    rows[account, 3], rows[account, 4] = collateral[1], collateral[2]
    rows[account, 5], rows[account, 6] = balance, other
    rows[account, 7], rows[account, 8] = initial, maintenance
    rows[account, 9], rows[account, 10] = excess, left
    rows[account, 11] = other / maintenance if maintenance != 0.0 else np.nan
    if not (np.isfinite(equity) and np.isfinite(excess) and np.isfinite(left)):
        return 4
    if equity < 0.0:
        return 3
    if left < 0.0:
        return 2
    return 1 if excess < 0.0 else 0


class DeriveLayout(NamedTuple):
    """What shapes the loop: rows of the table are scenarios, totals, and the basis up and down."""

    scenarios: int  # of the grid
    skew: int  # how many of them, the last, turn the smile
    is_second: bool  # PM2, whose haircuts are part of the requirement
    is_whole: bool  # every number is wanted, not health alone


class DeriveNumbers(NamedTuple):
    """Numbers of a Derive model."""

    weight: np.ndarray  # [U, S]
    # [U, 13] spot, its confidence, peg, rates of perpetuals, base, naked options and oracle, then the factors of loss,
    # perpetuals and naked options for maintenance and for initial.
    unit: np.ndarray
    asset: np.ndarray  # [C, 5] haircut, extra haircut, rate of the oracle charge, confidence, threshold


@numba.njit(fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def close_expiry(total: Any, run: Any, positive: Any, negative: Any, scenarios: Any, skew: Any) -> None:
    """Adds an expiry's P&L, its net shocked value discounted by its sign; columns that turn count by their loss."""
    value = run[scenarios]
    for s in range(scenarios - skew):
        shocked = run[s] + value
        total[s] += run[s] + (positive if shocked > 0.0 else negative) * shocked
    for s in range(scenarios - skew, scenarios):
        shocked = run[s] + value
        total[s] -= abs(run[s] + (positive if shocked > 0.0 else negative) * shocked)
    for column in range(scenarios, len(run) - 2):
        total[column] += run[column]


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def derive_row(
    start: Any, contract: Any, quantity: Any, net: Any, gross_table: Any, expiry: Any, strike: Any, own: Any,
    terms: Any, scenarios: Any, skew: Any, row: Any, total: Any, run: Any, gross: Any,
) -> Any:  # fmt: skip
    """Sums of a unit row over its legs; returns naked options and the basis loss."""
    total[:] = 0.0
    gross[:] = 0.0
    naked, basis = 0.0, 0.0
    leg, end = start[row], start[row + 1]
    while leg < end:
        run[:] = 0.0
        c = contract[leg]
        this_expiry = expiry[c]
        while leg < end and expiry[contract[leg]] == this_expiry:
            this_strike, net_size = strike[contract[leg]], 0.0
            while leg < end and strike[contract[leg]] == this_strike:
                c, q = contract[leg], quantity[leg]
                add_row(run, q, net, c)
                net_size += q * own[c]
                for column in range(len(gross)):
                    gross[column] += abs(q) * gross_table[c, column]
                leg += 1
            naked += max(-net_size, 0.0)
        close_expiry(total, run, terms[c, 0], terms[c, 1], scenarios, skew)
        basis -= min(min(run[-2], run[-1]), 0.0) * terms[c, 2]
    return naked, basis


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def require(numbers: Any, is_second: Any, unit: Any, loss: Any, gross: Any, naked: Any, units: Any, row: Any) -> Any:
    """Initial and maintenance requirement of a unit; charges go to its row."""
    spot, peg = numbers[unit, 0], numbers[unit, 2]
    oracle = numbers[unit, 6] * spot * (gross[2] if gross[0] > 0.0 else gross[1])
    perp = numbers[unit, 3] * spot * gross[0]
    options = numbers[unit, 5] * spot * naked
    base = 0.0
    if is_second:
        maintenance = numbers[unit, 7] * loss + numbers[unit, 8] * perp + numbers[unit, 9] * options
        initial = (numbers[unit, 10] + peg) * loss + numbers[unit, 11] * perp + numbers[unit, 12] * options + oracle
    else:
        base = numbers[unit, 4] * spot * gross[3]
        maintenance = loss + perp + base + options
        initial = maintenance * (numbers[unit, 10] + peg) + oracle
    units[row, 3], units[row, 4], units[row, 5], units[row, 6], units[row, 7] = perp, base, options, oracle, peg
    return initial, maintenance


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def haircuts_of(
    start: Any, assets: Any, amounts: Any, is_collateral: Any, money: Any, numbers: Any, account: Any, confidence: Any
) -> Any:
    """Charges on the balances of an account."""
    haircut, extra, oracle = 0.0, 0.0, 0.0
    for b in range(start[account], start[account + 1]):
        asset = assets[b]
        if amounts[b] > 0.0 and is_collateral[b]:
            value = amounts[b] * money[asset, 0]
            haircut += value * numbers[asset, 0]
            extra += value * numbers[asset, 1]
            known = min(numbers[asset, 3], confidence)
            if known < numbers[asset, 4]:
                oracle += value * numbers[asset, 2] * (1.0 - known)
    return haircut, extra, oracle


@numba.njit(parallel=True, fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def block_derive(
    book: Any, contracts: Any, money: Any, numbers: Any, layout: Any,
    rows: Any, status: Any, worsts: Any, units: Any, binding: Any,
) -> None:  # fmt: skip
    # Arrays are taken out of their tuples before the loop: numba drops writes to arrays that it knows as a field only,
    # and counts references to a field in every call, which two threads then fight over.
    unit_start, unit_of, leg_start, contract, quantity = (
        book.unit_start, book.unit, book.leg_start, book.contract, book.quantity
    )  # fmt: skip
    cash_start, cash_contract, cash_quantity, entry, is_open, unsettled = (
        book.cash_start, book.cash_contract, book.cash_quantity, book.entry, book.is_open, book.unsettled
    )  # fmt: skip
    balance_start, asset, amount, is_collateral = book.balance_start, book.asset, book.amount, book.is_collateral
    net, gross_table, expiry, strike, own, terms, cash_table = (
        contracts.net, contracts.gross, contracts.expiry, contracts.strike, contracts.own, contracts.terms,
        contracts.cash,
    )  # fmt: skip
    weight, of_units, of_assets = numbers.weight, numbers.unit, numbers.asset
    scenarios, skew, is_second, accounts = layout.scenarios, layout.skew, layout.is_second, len(status)
    is_whole, columns = layout.is_whole, net.shape[1]
    for task in numba.prange((accounts + TASK_ACCOUNTS - 1) // TASK_ACCOUNTS):
        total, run = np.empty(columns - 2), np.empty(columns)
        gross = np.empty(gross_table.shape[1])
        for account in range(task * TASK_ACCOUNTS, min((task + 1) * TASK_ACCOUNTS, accounts)):
            for column in range(NUM_HEALTH, rows.shape[1]):
                rows[account, column] = 0.0
            initial, maintenance, cash, value, confidence = 0.0, 0.0, 0.0, 0.0, 1.0
            first, last = unit_start[account], unit_start[account + 1]
            for row in range(first, last):
                unit, at = unit_of[row], row if is_whole else np.int64(task)
                naked, basis = derive_row(
                    leg_start, contract, quantity, net, gross_table, expiry, strike, own, terms, scenarios, skew, row,
                    total, run, gross,
                )  # fmt: skip
                weigh(total, weight, unit)
                pnl, worst = least(total, 0, scenarios, is_whole)
                # Codes: scenarios of both sets, then components, of which the basis is the first.
                loss, worst = (-pnl, worst) if -pnl > basis else (basis, scenarios + 2)
                units[at, 0], units[at, 1], units[at, 2] = basis, -pnl, loss
                more, less = require(of_units, is_second, unit, loss, gross, naked, units, at)
                own_cash = cash_of(cash_start, cash_contract, cash_quantity, entry, is_open, unsettled, cash_table, row)
                units[at, 8], units[at, 9], units[at, 10], units[at, 11] = more, less, total[scenarios], own_cash
                add_greeks(rows, units, total, scenarios + 1, account, at)
                binding[at] = worst
                initial, maintenance, cash = initial + more, maintenance + less, cash + own_cash
                value += total[scenarios]
                if is_whole:
                    rows[account, NUM_HEALTH] += loss
                confidence = min(confidence, of_units[unit, 1])
            worsts[account] = binding[first] if is_whole and last - first == 1 else -1
            held = collateral_of(balance_start, asset, amount, is_collateral, money, account)
            if is_second:
                cut, extra, oracle = haircuts_of(
                    balance_start, asset, amount, is_collateral, money, of_assets, account, confidence
                )
                if is_whole:
                    rows[account, 17], rows[account, 18], rows[account, 19] = cut, extra, oracle
                initial, maintenance = initial + cut + extra + oracle, maintenance + cut
            status[account] = close_account(rows, account, cash, value, held, initial, maintenance)


def _by_unit(model: Model, component: str, name: str) -> np.ndarray:
    return np.asarray(model.numbers[component][name])


def derive_numbers(work: Pass, model: Model) -> DeriveNumbers:
    """What the kernel reads of a bound Derive model."""
    is_second = "mm_factor" in model.parameters
    market, assets, p = work.contracts.market, work.contracts.assets, model.parameters
    one, charges = np.ones(len(work.contracts.units)), model.account.charge_numbers
    peg = {name: _by_unit(model, "peg", name) for name in ("asset", "threshold", "factor")}
    shortfall = np.maximum(peg["threshold"] - np.asarray(assets.price)[peg["asset"]], 0) * peg["factor"]
    if is_second:
        maintenance, more = (p["mm_factor"], p["mm_perp"], p["mm_option"]), (p["im_perp"], p["im_option"])
        initial = (p["im_factor"], p["mm_perp"] + more[0], p["mm_option"] + more[1])
    else:
        maintenance, initial = (one, one, one), (p["im_factor"], one, one)
    names = ("haircut", "extra_haircut", "collateral_oracle")
    nothing = np.zeros(len(work.contracts.asset_ids))
    rates = [one if is_second else _by_unit(model, name, "rate") for name in ("perp", "base", "naked_options")]
    haircuts = [np.asarray(charges[name]["rate"]) if is_second else nothing for name in names]
    confidence = np.asarray(assets.columns["collateral_confidence"]) if is_second else nothing
    threshold = np.asarray(charges["collateral_oracle"]["threshold"]) if is_second else nothing
    units = [market.spot, market.spot_confidence, shortfall, *rates, _by_unit(model, "oracle", "rate")]
    return DeriveNumbers(
        weight=np.ascontiguousarray(model.weight[:, model.columns("grid")]),
        unit=np.stack([*units, *maintenance, *initial], axis=1),
        asset=np.stack([*haircuts, confidence, threshold], axis=1),
    )


def derive_block(work: Pass, *, is_whole: bool = True) -> Callable[[], Block]:
    """The block of `derive-pm1` or `derive-pm2`, all of it or health alone, tables laid out and ready to run."""
    model, grid, basis = model_of(work), tally_of(work, "scan"), tally_of(work, "basis")
    is_second = "mm_factor" in model.parameters
    pnl = grid.columns["net"][:, :-1]  # its last column is the value, which the totals have
    gross = [summed(work, "perp", "size"), summed(work, "oracle", "apart"), summed(work, "oracle", "together")]
    contracts = priced(
        work,
        net=[pnl, totals_of(work, is_whole=is_whole), basis.columns["net"]],
        gross=gross if is_second else [*gross, summed(work, "base", "size")],
        own=summed(work, "naked_options", "size"),
        terms=np.concatenate([grid.terms, basis.terms], axis=1),
    )
    layout = DeriveLayout(pnl.shape[1], len(model.rules.skew), is_second, is_whole)
    held = runs_of(work), contracts, money_of(work, model), derive_numbers(work, model), layout

    def run() -> Block:
        out = blank_block(work.legs, is_whole=is_whole)
        block_derive(*held, *out)
        return out

    return run
