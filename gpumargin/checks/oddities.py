"""What is odd and used all the same: counted, shown, and no reason to end a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from gpumargin.checks.findings import Oddity
from gpumargin.checks.market import SECONDS_PER_YEAR, contract_frame
from gpumargin.frames import instant

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
    frame = contract_frame(facts, limits)
    forward, strike, years = pl.col("forward"), pl.col("strike"), _years(limits)
    is_call = pl.col("option_type") == "call"
    discount = (-pl.col("rate") * years).exp()
    gain = pl.when(is_call).then(forward - strike).otherwise(strike - forward).clip(lower_bound=0.0)
    most = pl.when(is_call).then(forward).otherwise(strike)
    unit = pl.when("inverse").then(forward).otherwise(1.0)
    price, room = pl.col("mark_price") * unit, _ROUNDING * forward
    # venues differ in whether they discount: outside of both is odd
    is_below = price < gain * pl.min_horizontal(discount, 1.0) - room
    is_above = price > most * pl.max_horizontal(discount, 1.0) + room
    is_option = (pl.col("kind") == "option") & (pl.col("payoff") == "vanilla") & ~pl.col("is_expired")
    odd = frame.filter(is_option & (is_below | is_above)).get_column("marks_row").sort()
    if len(odd):
        message = "mark_price {value} lies outside of what no-arbitrage allows on its forward"
        remedy = "check mark_price, strike and forward; the price is used as it is"
        rows = odd.cast(pl.Int64).to_numpy()
        yield Oddity(code="GM109", table="marks", column="mark_price", rows=rows, message=message, remedy=remedy)


def _years(limits: Limits) -> pl.Expr:
    left = pl.col("expiry") - instant(limits.as_of)
    return left.dt.total_seconds() / SECONDS_PER_YEAR


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
