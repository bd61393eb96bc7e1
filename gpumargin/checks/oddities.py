"""What is odd and used all the same: counted, shown, and no reason to end a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpumargin.checks.contracts import Contracts
from gpumargin.checks.findings import Oddity
from gpumargin.checks.market import SECONDS_PER_YEAR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpumargin.checks.facts import Facts, Limits
    from gpumargin.pack.accounts import Accounts
    from gpumargin.tables import Book

_ROUNDING = 1e-6


def market_warnings(facts: Facts, limits: Limits) -> Iterator[Oddity]:
    """Option prices outside of what no-arbitrage allows on their forward (GM109)."""
    if limits.as_of is None or not facts.book.num_rows("instruments"):
        return
    contracts = Contracts(facts, limits)
    forward, rate = (contracts.numbers("forwards", name) for name in ("forward", "rate"))
    price, strike = contracts.numbers("marks", "mark_price"), contracts.numbers("instruments", "strike")
    is_call = contracts.is_word("option_type", "call")
    discount = np.exp(-rate * contracts.seconds_left / SECONDS_PER_YEAR)
    gain = np.maximum(np.where(is_call, forward - strike, strike - forward), 0.0)
    most = np.where(is_call, forward, strike)
    value, room = price * np.where(contracts.is_set("inverse"), forward, 1.0), _ROUNDING * forward
    # venues differ in whether they discount: outside of both is odd; without a rate they do not
    is_below = value < gain * np.fmin(discount, 1.0) - room
    is_above = value > most * np.fmax(discount, 1.0) + room
    is_option = contracts.is_option & contracts.is_word("payoff", "vanilla") & ~contracts.is_expired
    rows = np.sort(contracts.rows["marks"][is_option & (is_below | is_above)])
    if len(rows):
        message = "mark_price {value} lies outside of what no-arbitrage allows on its forward"
        remedy = "check mark_price, strike and forward; the price is used as it is"
        yield Oddity(code="GM109", table="marks", column="mark_price", rows=rows, message=message, remedy=remedy)


def uncovered(book: Book, accounts: Accounts) -> Iterator[Oddity]:
    """Margin accounts with positions and without any balance (GM106), each at its first position."""
    if not book.num_rows("positions"):
        return
    has_balance = np.zeros(len(accounts), bool)
    has_balance[accounts.of_balances] = True
    if has_balance.all():
        return
    bare = np.flatnonzero(~has_balance[accounts.of_positions])
    _, first = np.unique(accounts.of_positions[bare], return_index=True)
    rows = np.sort(bare[first])
    if len(rows):
        message = "margin account ({value} with its pool) has positions and no balance"
        remedy = "add its balances if it has any; it is margined without collateral"
        where = {"code": "GM106", "table": "positions", "column": "account_id"}
        yield Oddity(**where, rows=rows, message=message, remedy=remedy)
