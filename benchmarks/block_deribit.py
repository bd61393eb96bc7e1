"""The whole block of `deribit-pm` as one fused numba kernel: see `block_numba`, whose helpers it shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np

from benchmarks.block_numba import (
    CAREFUL,
    TOTALS,
    add_row,
    cash_of,
    close_account,
    collateral_of,
    derive_block,
    least,
)
from benchmarks.block_tables import Block, blank_block, model_of, money_of, priced, runs_of, summed, tally_of, totals_of
from benchmarks.opponents import RELAXED, TASK_ACCOUNTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpumargin.prepare import Pass
    from gpumargin_kernels.model import Model


class DeribitNumbers(NamedTuple):
    """Numbers of the model, `[U]` unless said otherwise."""

    weight: np.ndarray  # [U, S]
    gain_factor: np.ndarray  # [U, 2] standard, extended
    gain_cap: np.ndarray  # [U, 2] accounting unit
    dampener: np.ndarray  # [U, extended] most by which a scenario shrinks
    spot: np.ndarray
    slope: np.ndarray
    cap: np.ndarray
    threshold: np.ndarray  # units of the underlying
    mm_factor: np.ndarray
    own_margin: np.ndarray  # [A] what accounts bring: spot, market maker protection, open orders


@numba.njit(fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def losses_of(total: Any, numbers: Any, unit: Any, standard: Any, scenarios: Any, pnl: Any) -> None:
    """P&L as it counts: weighted, gains cut, extended scenarios shrunk towards zero."""
    for s in range(scenarios):
        k = 0 if s < standard else 1
        plain = total[s] * numbers.weight[unit, s]
        gain = min(plain * numbers.gain_factor[unit, k], numbers.gain_cap[unit, k])
        counted = gain if plain > 0.0 else plain
        if s >= standard:
            by = min(abs(plain), numbers.dampener[unit, s - standard])
            size = max(abs(counted) - by, 0.0)
            counted = size if counted > 0.0 else -size
        pnl[s] = counted


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def delta_shock(numbers: Any, unit: Any, delta: Any, of_long_options: Any) -> Any:
    net = min(abs(delta), abs(delta - of_long_options))
    return (
        numbers.spot[unit] * net * min(numbers.cap[unit], numbers.slope[unit] * max(net - numbers.threshold[unit], 0.0))
    )


@numba.njit(fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def deribit_row(book: Any, contracts: Any, row: Any, total: Any) -> Any:
    """Sums of a unit row over its legs; returns delta, that of long options, and the roll shock in underlying."""
    total[:] = 0.0
    delta, of_long_options, roll = 0.0, 0.0, 0.0
    leg, end = book.leg_start[row], book.leg_start[row + 1]
    while leg < end:
        c, own = book.contract[leg], 0.0
        expiry = contracts.expiry[c]
        while leg < end and contracts.expiry[book.contract[leg]] == expiry:
            c, quantity = book.contract[leg], book.quantity[leg]
            add_row(total, quantity, contracts.net, c)
            own += quantity * contracts.own[c]
            of_long_options += max(quantity, 0.0) * contracts.gross[c, 0]
            leg += 1
        roll += abs(own) * contracts.terms[c, 0]
        delta += own
    return delta, of_long_options, roll


@numba.njit(parallel=True, fastmath=CAREFUL)  # type: ignore[untyped-decorator, unused-ignore]
def block_deribit(
    book: Any,
    contracts: Any,
    money: Any,
    numbers: Any,
    standard: Any,
    rows: Any,
    status: Any,
    worsts: Any,
    units: Any,
    binding: Any,
) -> None:
    # Each array is an argument of its own: numba drops writes to arrays that it only knows as a tuple's fields.
    accounts = len(status)
    for task in numba.prange((accounts + TASK_ACCOUNTS - 1) // TASK_ACCOUNTS):
        scenarios = numbers.weight.shape[1]
        total, pnl = np.empty(scenarios + TOTALS), np.empty(scenarios)
        for account in range(task * TASK_ACCOUNTS, min((task + 1) * TASK_ACCOUNTS, accounts)):
            of_account = rows[account]
            of_account[12:] = 0.0
            initial, maintenance, cash, value = 0.0, 0.0, 0.0, 0.0
            first, last = book.unit_start[account], book.unit_start[account + 1]
            for row in range(first, last):
                unit = book.unit[row]
                delta, of_long_options, roll = deribit_row(book, contracts, row, total)
                losses_of(total, numbers, unit, standard, scenarios, pnl)
                near, worst = least(pnl, standard)
                far, beyond = least(pnl[standard:], scenarios - standard)
                loss = -near
                if -far > loss:
                    loss, worst = -far, standard + beyond
                roll *= numbers.spot[unit]
                shock = delta_shock(numbers, unit, delta, of_long_options)
                matrix = np.floor(max(loss, 0.0) * 1e9 + 0.5) / 1e9 + roll + shock
                own, own_cash = numbers.mm_factor[unit] * matrix, cash_of(book, contracts, row)
                of_unit = units[row]
                of_unit[0], of_unit[1], of_unit[2], of_unit[3] = -near, -far, loss, roll
                of_unit[4], of_unit[5], of_unit[6], of_unit[7] = shock, matrix, 0.0, 0.0
                of_unit[8], of_unit[9], of_unit[10], of_unit[11] = matrix, own, total[scenarios], own_cash
                for greek in range(4):
                    of_unit[12 + greek] = total[scenarios + 1 + greek]
                    of_account[13 + greek] += total[scenarios + 1 + greek]
                binding[row] = worst
                initial, maintenance, cash = initial + matrix, maintenance + own, cash + own_cash
                value += total[scenarios]
                of_account[12] += loss
            worsts[account] = binding[first] if last - first == 1 else -1
            initial += numbers.own_margin[account]
            held = collateral_of(book, money, account)
            status[account] = close_account(of_account, cash, value, held, (initial, maintenance))


def deribit_numbers(work: Pass, model: Model) -> DeribitNumbers:
    """What the kernel reads of the bound model."""
    standard, extended, delta = (model.numbers[name] for name in ("standard", "extended", "delta_shock"))
    market, price = work.contracts.market, np.asarray(work.contracts.assets.price)
    dollar = [1 / price[n["accounting"]] for n in (standard, extended)]
    move = model.spot[:, model.columns("extended")] - 1
    reach = extended["range"][:, None]
    beyond = np.maximum(np.abs(move) / reach, 1) - 1
    dampener = beyond * extended["dampener"][:, None] * dollar[1][:, None] / (1 + np.sign(move) * reach)
    return DeribitNumbers(
        weight=np.ascontiguousarray(model.weight),
        gain_factor=np.stack([standard["gain_factor"], extended["gain_factor"]], axis=1),
        gain_cap=np.stack([n["gain_cap"] * d for n, d in zip((standard, extended), dollar, strict=True)], axis=1),
        dampener=dampener,
        spot=np.asarray(market.spot),
        slope=delta["slope"],
        cap=delta["cap"],
        threshold=delta["threshold"] * np.asarray(market.dollar) / np.asarray(market.spot),
        mm_factor=model.parameters["mm_factor"],
        own_margin=np.sum(list(work.legs.settings.values()), axis=0),
    )


def deribit_block(work: Pass) -> Callable[[], Block]:
    """The whole block of `deribit-pm`, tables laid out and ready to run."""
    model = model_of(work)
    sets = [tally_of(work, name).columns["net"] for name in ("standard", "extended")]
    roll = tally_of(work, "roll_shock")
    names = [name for name, _ in roll.close.terms]  # type: ignore[union-attr]
    floor, rate, years = (roll.terms[:, names.index(name)] for name in ("floor", "rate", "years"))
    contracts = priced(
        work,
        net=[*sets, totals_of(work)],
        gross=[summed(work, "delta_shock", "of_long_options")],
        own=summed(work, "roll_shock", "delta"),
        terms=np.maximum(floor, rate * years)[:, None],
    )
    held = runs_of(work), contracts, money_of(work, model), deribit_numbers(work, model), sets[0].shape[1]

    def run() -> Block:
        out = blank_block(len(work.legs), len(work.legs.unit))
        block_deribit(*held, *out)
        return out

    return run


BLOCKS = {"derive-pm1": derive_block, "derive-pm2": derive_block, "deribit-pm": deribit_block}
