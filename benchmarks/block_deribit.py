"""The whole block of `deribit-pm` as one fused numba kernel: see `block_numba`, whose helpers it shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np

from benchmarks.block_numba import (
    CAREFUL,
    add_greeks,
    add_row,
    cash_of,
    close_account,
    collateral_of,
    derive_block,
    least,
)
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


class DeribitNumbers(NamedTuple):
    """Numbers of the model."""

    weight: np.ndarray  # [U, S]
    # [U, 9] gain factor and gain cap of the standard set, of the extended set; spot; slope, cap and threshold (units of
    # the underlying) of the delta shock; factor of the maintenance margin.
    unit: np.ndarray
    dampener: np.ndarray  # [U, extended] most by which a scenario shrinks
    own_margin: np.ndarray  # [A] what accounts bring: spot, market maker protection, open orders


@numba.njit(fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def count_losses(total: Any, weight: Any, numbers: Any, dampener: Any, unit: Any, pnl: Any) -> None:
    """P&L as it counts: weighted, gains cut, extended scenarios shrunk towards zero."""
    scenarios = len(pnl)
    standard = scenarios - dampener.shape[1]
    factor, cap = numbers[unit, 0], numbers[unit, 1]
    for s in range(standard):
        plain = total[s] * weight[unit, s]
        pnl[s] = min(plain * factor, cap) if plain > 0.0 else plain
    factor, cap = numbers[unit, 2], numbers[unit, 3]
    for s in range(standard, scenarios):
        plain = total[s] * weight[unit, s]
        counted = min(plain * factor, cap) if plain > 0.0 else plain
        size = max(abs(counted) - min(abs(plain), dampener[unit, s - standard]), 0.0)
        pnl[s] = size if counted > 0.0 else -size


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def delta_shock(numbers: Any, unit: Any, delta: Any, of_long_options: Any) -> Any:
    net = min(abs(delta), abs(delta - of_long_options))
    share = min(numbers[unit, 6], numbers[unit, 5] * max(net - numbers[unit, 7], 0.0))
    return numbers[unit, 4] * net * share


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def deribit_row(
    start: Any,
    contract: Any,
    quantity: Any,
    net: Any,
    long: Any,
    expiry: Any,
    own: Any,
    terms: Any,
    row: Any,
    total: Any,
) -> Any:
    """Sums of a unit row over its legs; returns delta, that of long options, and the roll shock in underlying."""
    total[:] = 0.0
    delta, of_long_options, roll = 0.0, 0.0, 0.0
    leg, end = start[row], start[row + 1]
    while leg < end:
        c, of_expiry = contract[leg], 0.0
        this_expiry = expiry[c]
        while leg < end and expiry[contract[leg]] == this_expiry:
            c, q = contract[leg], quantity[leg]
            add_row(total, q, net, c)
            of_expiry += q * own[c]
            of_long_options += max(q, 0.0) * long[c, 0]
            leg += 1
        roll += abs(of_expiry) * terms[c, 0]
        delta += of_expiry
    return delta, of_long_options, roll


@numba.njit(parallel=True, fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def block_deribit(
    book: Any, contracts: Any, money: Any, numbers: Any, is_whole: Any,
    rows: Any, status: Any, worsts: Any, units: Any, binding: Any,
) -> None:  # fmt: skip
    # As in `block_derive`, no array is met as a field inside the loop.
    unit_start, unit_of, leg_start, contract, quantity = (
        book.unit_start, book.unit, book.leg_start, book.contract, book.quantity
    )  # fmt: skip
    cash_start, cash_contract, cash_quantity, entry, is_open, unsettled = (
        book.cash_start, book.cash_contract, book.cash_quantity, book.entry, book.is_open, book.unsettled
    )  # fmt: skip
    balance_start, asset, amount, is_collateral = book.balance_start, book.asset, book.amount, book.is_collateral
    net, long, expiry, own, terms, cash_table = (
        contracts.net, contracts.gross, contracts.expiry, contracts.own, contracts.terms, contracts.cash
    )  # fmt: skip
    weight, of_units, dampener, own_margin = numbers.weight, numbers.unit, numbers.dampener, numbers.own_margin
    scenarios, accounts = weight.shape[1], len(status)
    standard = scenarios - dampener.shape[1]
    for task in numba.prange((accounts + TASK_ACCOUNTS - 1) // TASK_ACCOUNTS):
        total, pnl = np.empty(net.shape[1]), np.empty(scenarios)
        for account in range(task * TASK_ACCOUNTS, min((task + 1) * TASK_ACCOUNTS, accounts)):
            for column in range(NUM_HEALTH, rows.shape[1]):
                rows[account, column] = 0.0
            initial, maintenance, cash, value = own_margin[account], 0.0, 0.0, 0.0
            first, last = unit_start[account], unit_start[account + 1]
            for row in range(first, last):
                unit, at = unit_of[row], row if is_whole else np.int64(task)
                delta, of_long_options, roll = deribit_row(
                    leg_start, contract, quantity, net, long, expiry, own, terms, row, total
                )
                count_losses(total, weight, of_units, dampener, unit, pnl)
                near, worst = least(pnl, 0, standard, is_whole)
                far, beyond = least(pnl, standard, scenarios, is_whole)
                loss, worst = (-far, beyond) if -far > -near else (-near, worst)
                roll *= of_units[unit, 4]
                shock = delta_shock(of_units, unit, delta, of_long_options)
                matrix = np.floor(max(loss, 0.0) * 1e9 + 0.5) / 1e9 + roll + shock
                less = of_units[unit, 8] * matrix
                own_cash = cash_of(cash_start, cash_contract, cash_quantity, entry, is_open, unsettled, cash_table, row)
                units[at, 0], units[at, 1], units[at, 2], units[at, 3] = -near, -far, loss, roll
                units[at, 4], units[at, 5], units[at, 6], units[at, 7] = shock, matrix, 0.0, 0.0
                units[at, 8], units[at, 9], units[at, 10], units[at, 11] = matrix, less, total[scenarios], own_cash
                add_greeks(rows, units, total, scenarios + 1, account, at)
                binding[at] = worst
                initial, maintenance, cash = initial + matrix, maintenance + less, cash + own_cash
                value += total[scenarios]
                if is_whole:
                    rows[account, NUM_HEALTH] += loss
            worsts[account] = binding[first] if is_whole and last - first == 1 else -1
            held = collateral_of(balance_start, asset, amount, is_collateral, money, account)
            status[account] = close_account(rows, account, cash, value, held, initial, maintenance)


def deribit_numbers(work: Pass, model: Model) -> DeribitNumbers:
    """What the kernel reads of the bound model."""
    standard, extended, delta = (model.numbers[name] for name in ("standard", "extended", "delta_shock"))
    market, price = work.contracts.market, np.asarray(work.contracts.assets.price)
    dollar = [1 / price[n["accounting"]] for n in (standard, extended)]
    move = model.spot[:, model.columns("extended")] - 1
    reach = extended["range"][:, None]
    beyond = np.maximum(np.abs(move) / reach, 1) - 1
    dampener = beyond * extended["dampener"][:, None] * dollar[1][:, None] / (1 + np.sign(move) * reach)
    caps = [n["gain_cap"] * d for n, d in zip((standard, extended), dollar, strict=True)]
    spot = np.asarray(market.spot)
    threshold = delta["threshold"] * np.asarray(market.dollar) / spot
    gains = standard["gain_factor"], caps[0], extended["gain_factor"], caps[1]
    units = [*gains, spot, delta["slope"], delta["cap"], threshold, model.parameters["mm_factor"]]
    return DeribitNumbers(
        weight=np.ascontiguousarray(model.weight),
        unit=np.stack(units, axis=1),
        dampener=dampener,
        own_margin=np.sum(list(work.legs.settings.values()), axis=0),
    )


def deribit_block(work: Pass, *, is_whole: bool = True) -> Callable[[], Block]:
    """The block of `deribit-pm`, all of it or health alone, tables laid out and ready to run."""
    model = model_of(work)
    sets = [tally_of(work, name).columns["net"] for name in ("standard", "extended")]
    roll = tally_of(work, "roll_shock")
    names = [name for name, _ in roll.close.terms]  # type: ignore[union-attr]
    floor, rate, years = (roll.terms[:, names.index(name)] for name in ("floor", "rate", "years"))
    contracts = priced(
        work,
        net=[*sets, totals_of(work, is_whole=is_whole)],
        gross=[summed(work, "delta_shock", "of_long_options")],
        own=summed(work, "roll_shock", "delta"),
        terms=np.maximum(floor, rate * years)[:, None],
    )
    held = runs_of(work), contracts, money_of(work, model), deribit_numbers(work, model), is_whole

    def run() -> Block:
        out = blank_block(work.legs, is_whole=is_whole)
        block_deribit(*held, *out)
        return out

    return run


BLOCKS = {"derive-pm1": derive_block, "derive-pm2": derive_block, "deribit-pm": deribit_block}
