"""Whole margin blocks as fused numba kernels, as a specialist would write them for one model: honest opponents.

From the priced contract table to the status of every account in one loop over accounts, all cores, multiply-adds
contracted: legs with their strike and expiry levels, contingencies, unit requirement, cash P&L, collateral, excess and
status. They compute what gpumargin returns of units and accounts: charges, requirements, worst scenario, Greeks.
`derive-pm1` and `derive-pm2` share their skeleton.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np

from benchmarks.block_tables import Block, blank_block, model_of, money_of, priced, runs_of, summed, tally_of, totals_of
from benchmarks.opponents import RELAXED, TASK_ACCOUNTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpumargin.prepare import Pass
    from gpumargin_kernels.model import Model

# NaN must be seen where a status is decided, so only sums and minima assume that there is none.
CAREFUL = {"contract", "nsz"}
TOTALS = 5  # option value, then delta, gamma, vega, theta


@numba.njit(fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def add_row(total: Any, quantity: Any, table: Any, row: Any) -> None:
    for column in range(len(total)):
        total[column] += quantity * table[row, column]


@numba.njit(fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def least(pnl: Any, columns: Any) -> Any:
    """Least of the first columns, and where it first stands."""
    found = pnl[0]
    for column in range(1, columns):
        found = min(found, pnl[column])
    for column in range(columns):
        if pnl[column] == found:
            return found, column
    return found, 0


@numba.njit(fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def weigh(pnl: Any, weight: Any) -> None:
    for column in range(len(weight)):
        pnl[column] *= weight[column]


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def cash_of(book: Any, contracts: Any, row: Any) -> Any:
    """P&L not yet in the balance of a unit row."""
    total = 0.0
    for leg in range(book.cash_start[row], book.cash_start[row + 1]):
        c, entry = book.cash_contract[leg], book.entry[leg]
        gain = 0.0
        if book.is_open[leg]:
            gain = contracts.mark[c] - entry
            if contracts.is_inverse[c]:
                product = contracts.mark[c] * entry
                gain = gain / product if product != 0.0 else 0.0
        total += (book.cash_quantity[leg] * contracts.size[c] * gain + book.unsettled[leg]) * contracts.ratio[c]
    return total


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def collateral_of(book: Any, money: Any, account: Any) -> Any:
    """Balances of an account at full value, and what of them counts as initial and as maintenance."""
    full, initial, maintenance = 0.0, 0.0, 0.0
    for b in range(book.balance_start[account], book.balance_start[account + 1]):
        asset, amount = book.asset[b], book.amount[b]
        value = amount * money.ratio[asset]
        full += value
        if amount < 0.0:
            initial += value * money.liability_share[asset, 0]
            maintenance += value * money.liability_share[asset, 1]
        elif book.is_collateral[b]:
            initial += value * money.asset_share[asset, 0]
            maintenance += value * money.asset_share[asset, 1]
    return full, initial, maintenance


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def close_account(row: Any, cash: Any, option_value: Any, collateral: Any, margins: Any) -> Any:
    """Equity, balances, excess and health of an account into its row; returns its status."""
    full, initial, maintenance = collateral
    floating = cash + option_value
    row[0], row[1], row[2], row[3], row[4] = full + floating, cash, option_value, initial, maintenance
    row[5], row[6] = initial + floating, maintenance + floating
    row[7], row[8] = margins
    row[9], row[10] = row[5] - row[7], row[6] - row[8]
    row[11] = row[6] / row[8] if row[8] != 0.0 else np.nan
    status = 0
    if row[9] < 0.0:
        status = 1
    if row[10] < 0.0:
        status = 2
    if row[0] < 0.0:
        status = 3
    if not (np.isfinite(row[0]) and np.isfinite(row[9]) and np.isfinite(row[10])):
        status = 4
    return status


class DeriveLayout(NamedTuple):
    """What shapes the loop: rows of the table are scenarios, totals, and the basis up and down."""

    scenarios: int  # of the grid
    skew: int  # how many of them, the last, turn the smile
    is_second: bool  # PM2, whose haircuts are part of the requirement


class DeriveNumbers(NamedTuple):
    """Numbers of a Derive model, `[U]` unless said otherwise."""

    weight: np.ndarray  # [U, S]
    spot: np.ndarray
    spot_confidence: np.ndarray
    peg: np.ndarray
    perp_rate: np.ndarray  # PM1; PM2 has it in its factors
    base_rate: np.ndarray
    option_rate: np.ndarray
    oracle_rate: np.ndarray
    factors: np.ndarray  # [U, 6] loss, perpetual, option for maintenance; the same for initial
    haircuts: np.ndarray  # [C, 3] haircut, extra haircut, oracle rate
    collateral_confidence: np.ndarray  # [C]
    threshold: np.ndarray  # [C] of the oracle charge


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
def derive_row(book: Any, contracts: Any, numbers: Any, layout: Any, row: Any, total: Any, run: Any, gross: Any) -> Any:
    """Sums of a unit row over its legs; returns naked options and the basis loss."""
    total[:] = 0.0
    gross[:] = 0.0
    naked, basis = 0.0, 0.0
    leg, end = book.leg_start[row], book.leg_start[row + 1]
    while leg < end:
        run[:] = 0.0
        c = book.contract[leg]
        expiry = contracts.expiry[c]
        while leg < end and contracts.expiry[book.contract[leg]] == expiry:
            strike, net = contracts.strike[book.contract[leg]], 0.0
            while leg < end and contracts.strike[book.contract[leg]] == strike:
                c, quantity = book.contract[leg], book.quantity[leg]
                add_row(run, quantity, contracts.net, c)
                net += quantity * contracts.own[c]
                for column in range(len(gross)):
                    gross[column] += abs(quantity) * contracts.gross[c, column]
                leg += 1
            naked += max(-net, 0.0)
        close_expiry(total, run, contracts.terms[c, 0], contracts.terms[c, 1], layout.scenarios, layout.skew)
        basis -= min(min(run[-2], run[-1]), 0.0) * contracts.terms[c, 2]
    weigh(total, numbers.weight[book.unit[row]])
    return naked, basis


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def require(numbers: Any, layout: Any, unit: Any, loss: Any, gross: Any, naked: Any, out: Any) -> Any:
    """Initial and maintenance requirement of a unit; charges go to `out`."""
    spot, peg = numbers.spot[unit], numbers.peg[unit]
    oracle = numbers.oracle_rate[unit] * spot * (gross[2] if gross[0] > 0.0 else gross[1])
    perp = numbers.perp_rate[unit] * spot * gross[0]
    options = numbers.option_rate[unit] * spot * naked
    base = 0.0
    if layout.is_second:
        f = numbers.factors[unit]
        maintenance = f[0] * loss + f[1] * perp + f[2] * options
        initial = (f[3] + peg) * loss + f[4] * perp + f[5] * options + oracle
    else:
        base = numbers.base_rate[unit] * spot * gross[3]
        maintenance = loss + perp + base + options
        initial = maintenance * (numbers.factors[unit, 3] + peg) + oracle
    out[3], out[4], out[5], out[6], out[7] = perp, base, options, oracle, peg
    return initial, maintenance


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def haircuts_of(book: Any, money: Any, numbers: Any, account: Any, confidence: Any, row: Any) -> None:
    """Charges on the balances of an account."""
    haircut, extra, oracle = 0.0, 0.0, 0.0
    for b in range(book.balance_start[account], book.balance_start[account + 1]):
        asset = book.asset[b]
        if book.amount[b] > 0.0 and book.is_collateral[b]:
            value = book.amount[b] * money.ratio[asset]
            haircut += value * numbers.haircuts[asset, 0]
            extra += value * numbers.haircuts[asset, 1]
            known = min(numbers.collateral_confidence[asset], confidence)
            if known < numbers.threshold[asset]:
                oracle += value * numbers.haircuts[asset, 2] * (1.0 - known)
    row[17], row[18], row[19] = haircut, extra, oracle


@numba.njit(parallel=True, fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def block_derive(
    book: Any,
    contracts: Any,
    money: Any,
    numbers: Any,
    layout: Any,
    rows: Any,
    status: Any,
    worsts: Any,
    units: Any,
    binding: Any,
) -> None:
    # Each array is an argument of its own: numba drops writes to arrays that it only knows as a tuple's fields.
    accounts = len(status)
    for task in numba.prange((accounts + TASK_ACCOUNTS - 1) // TASK_ACCOUNTS):
        scenarios = layout.scenarios
        total, run = np.empty(scenarios + TOTALS), np.empty(scenarios + TOTALS + 2)
        gross = np.empty(contracts.gross.shape[1])
        for account in range(task * TASK_ACCOUNTS, min((task + 1) * TASK_ACCOUNTS, accounts)):
            of_account = rows[account]
            of_account[12:] = 0.0
            initial, maintenance, cash, value, confidence = 0.0, 0.0, 0.0, 0.0, 1.0
            first, last = book.unit_start[account], book.unit_start[account + 1]
            for row in range(first, last):
                unit = book.unit[row]
                naked, basis = derive_row(book, contracts, numbers, layout, row, total, run, gross)
                pnl, worst = least(total, scenarios)
                loss = basis
                if -pnl > basis:
                    loss = -pnl
                else:
                    worst = scenarios + 2  # the scenarios of both sets, then the first component of the file
                of_unit = units[row]
                of_unit[0], of_unit[1], of_unit[2] = basis, -pnl, loss
                own = require(numbers, layout, unit, loss, gross, naked, of_unit)
                own_cash = cash_of(book, contracts, row)
                of_unit[8], of_unit[9], of_unit[10], of_unit[11] = own[0], own[1], total[scenarios], own_cash
                for greek in range(4):
                    of_unit[12 + greek] = total[scenarios + 1 + greek]
                    of_account[13 + greek] += total[scenarios + 1 + greek]
                binding[row] = worst
                initial, maintenance, cash = initial + own[0], maintenance + own[1], cash + own_cash
                value += total[scenarios]
                of_account[12] += loss
                confidence = min(confidence, numbers.spot_confidence[unit])
            worsts[account] = binding[first] if last - first == 1 else -1
            if layout.is_second:
                haircuts_of(book, money, numbers, account, confidence, of_account)
                maintenance += of_account[17]
                initial += of_account[17] + of_account[18] + of_account[19]
            held = collateral_of(book, money, account)
            status[account] = close_account(of_account, cash, value, held, (initial, maintenance))


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
    return DeriveNumbers(
        weight=np.ascontiguousarray(model.weight[:, model.columns("grid")]),
        spot=np.asarray(market.spot),
        spot_confidence=np.asarray(market.spot_confidence),
        peg=shortfall,
        perp_rate=one if is_second else _by_unit(model, "perp", "rate"),
        base_rate=one if is_second else _by_unit(model, "base", "rate"),
        option_rate=one if is_second else _by_unit(model, "naked_options", "rate"),
        oracle_rate=_by_unit(model, "oracle", "rate"),
        factors=np.stack([*maintenance, *initial], axis=1),
        haircuts=np.stack([np.asarray(charges[n]["rate"]) if is_second else nothing for n in names], axis=1),
        collateral_confidence=np.asarray(assets.columns["collateral_confidence"]) if is_second else nothing,
        threshold=np.asarray(charges["collateral_oracle"]["threshold"]) if is_second else nothing,
    )


def derive_block(work: Pass) -> Callable[[], Block]:
    """The whole block of `derive-pm1` or `derive-pm2`, tables laid out and ready to run."""
    model, grid, basis = model_of(work), tally_of(work, "scan"), tally_of(work, "basis")
    is_second = "mm_factor" in model.parameters
    pnl = grid.columns["net"][:, :-1]  # its last column is the value, which the totals have
    gross = [summed(work, "perp", "size"), summed(work, "oracle", "apart"), summed(work, "oracle", "together")]
    contracts = priced(
        work,
        net=[pnl, totals_of(work), basis.columns["net"]],
        gross=gross if is_second else [*gross, summed(work, "base", "size")],
        own=summed(work, "naked_options", "size"),
        terms=np.concatenate([grid.terms, basis.terms], axis=1),
    )
    layout = DeriveLayout(pnl.shape[1], len(model.rules.skew), is_second)
    held = runs_of(work), contracts, money_of(work, model), derive_numbers(work, model), layout

    def run() -> Block:
        out = blank_block(len(work.legs), len(work.legs.unit))
        block_derive(*held, *out)
        return out

    return run
