"""What is odd and used all the same: counted, shown, and no reason to end a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from gpumargin.checks.findings import NO_ROW, Oddity, shown
from gpumargin.checks.market import SECONDS_PER_YEAR, contract_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpumargin.checks.facts import Facts, Limits
    from gpumargin.pack.accounts import Accounts
    from gpumargin.tables import Book

_ROUNDING = 1e-6
_NAMED = (("instruments", "instrument_id"), ("prices", "asset"))


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
    left = pl.col("expiry") - pl.lit(limits.as_of, pl.Datetime("us", "UTC"))
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


@dataclass
class Twins:
    """Ids that are equal but for case or for how Unicode writes them, over parts.

    Attributes:
      accounts: account ids of every part, each id once.
    """

    accounts: list[pl.Series] = field(default_factory=list)

    def add(self, accounts: Accounts) -> None:
        """Takes the account ids of a part, whose accounts no other part has."""
        ids = accounts.account_ids
        if not pat.is_integer(ids.type):
            begins = np.append(True, pc.not_equal(ids[1:], ids[:-1])) if len(ids) else np.zeros(0, bool)
            self.accounts.append(_series(ids.filter(pa.array(begins))))

    def findings(self, facts: Facts) -> Iterator[Oddity]:
        """Twins among accounts, contracts and assets (GM118).

        Args:
          facts: of the market.
        """
        for table, column in _NAMED:
            words = facts.coded(table, column).used_words()
            if not pat.is_integer(words.type):
                yield from _twins(_series(words), table, column)
        if self.accounts:
            yield from _twins(pl.concat(self.accounts), "accounts", "account_id")


def _series(words: pa.Array) -> pl.Series:
    return pl.Series("word", pl.from_arrow(words)).cast(pl.String)


def _twins(words: pl.Series, table: str, column: str) -> Iterator[Oddity]:
    """Twins among different words."""
    is_plain = bool((words.str.len_bytes() == words.str.len_chars()).all())
    folded = (words if is_plain else words.str.normalize("NFKC")).str.to_lowercase()
    if folded.hash().n_unique() == len(words):  # as in most books, at a fraction of the cost of groups
        return
    named = pl.DataFrame({"word": words, "folded": folded}).unique().sort("word")
    alike = named.group_by("folded").agg("word").filter(pl.col("word").list.len() > 1).sort("folded")
    for pair in alike["word"]:
        names = " and ".join(f"'{shown(word)}'" for word in pair)
        message = f"{column} {names} differ in case or spelling of characters alone"
        remedy = "write one id in one way; they are taken for different ones"
        yield Oddity(code="GM118", table=table, column=column, rows=NO_ROW, message=message, remedy=remedy)
