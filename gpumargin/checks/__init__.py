"""The input contract: every rule a book must satisfy before a number is computed from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, Unpack

from gpumargin.checks.cells import cell_findings
from gpumargin.checks.facts import Facts, Limits
from gpumargin.checks.findings import Gathered
from gpumargin.checks.keys import key_findings
from gpumargin.checks.ledger import ledger_findings
from gpumargin.checks.market import market_findings, zero_entries
from gpumargin.checks.references import (
    account_findings,
    domain_findings,
    empty_findings,
    has_accounts,
    reference_findings,
)
from gpumargin.checks.times import future_findings, newest_stamp, no_time, resolve_as_of
from gpumargin.failures import failure_frame, input_error
from gpumargin.sums import BalanceSums
from gpumargin.tables import CUT_TABLES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    import polars as pl

    from gpumargin.checks.findings import Finding
    from gpumargin.tables import Book

__all__ = ["BookChecks", "CheckOptions", "check_book", "require_valid", "resolve_as_of"]

EXAMPLES = 20


class CheckOptions(TypedDict, total=False):
    """Keywords of `check_book`."""

    as_of: datetime | None
    kinds: Collection[str] | None
    accounting: str | None
    vol_limit: float
    tenor_limit_years: float
    max_examples: int | None


class BookChecks:
    """The input contract of a book whose accounts come in parts: market first, then every part, then what they sum to.

    Args:
      head: all of the market, and at least a row for every instrument in use (`tables.Parts.head`).
      **options: as `check_book`.

    Attributes:
      sums: of the balances of the parts so far.
      has_domains: whether columns that name the same things are of one type; if not, nothing else is looked at.
    """

    def __init__(self, head: Book, **options: Unpack[CheckOptions]) -> None:
        self.sums = BalanceSums()
        self._found = Gathered(options.get("max_examples", EXAMPLES))
        self._facts = Facts(head)
        self._found.add(head, domain_findings(self._facts), rank=0)
        self.has_domains = not self._found
        if self.has_domains:
            self._market(head, options)

    def __bool__(self) -> bool:
        """Whether nothing was found so far."""
        return not self._found

    def _market(self, head: Book, options: CheckOptions) -> None:
        as_of = options.get("as_of")
        instant = newest_stamp(head) if as_of is None else resolve_as_of(head, as_of)
        limits = Limits(
            instant,
            options.get("kinds"),
            options.get("accounting"),
            options.get("vol_limit", 5.0),
            options.get("tenor_limit_years", 10.0),
        )
        market = [name for name in head.tables if name not in CUT_TABLES]
        self._rules(self._facts, market)
        self._found.add(head, empty_findings(self._facts), rank=3)
        self._found.add(head, _time_findings(self._facts, limits, is_given=as_of is not None), rank=4)
        self._found.add(head, market_findings(self._facts, limits), rank=5)

    def _rules(self, facts: Facts, tables: Collection[str]) -> None:
        self._found.add(facts.book, cell_findings(facts, tables), rank=1)
        self._found.add(facts.book, key_findings(facts, tables), rank=2)
        self._found.add(facts.book, reference_findings(facts, tables), rank=3)

    def part(self, book: Book) -> None:
        """Checks all rows of some accounts.

        Args:
          book: the whole market, and every row of these accounts.
        """
        if not self.has_domains:
            return
        facts = Facts(book)
        self._rules(facts, [name for name in book.tables if name in CUT_TABLES])
        if has_accounts(self._facts):
            self._found.add(book, account_findings(facts), rank=3)
        self._found.add(book, zero_entries(facts), rank=5)
        if "balances" in book.tables:
            self.sums.add(book.tables["balances"])

    def finished(self) -> pl.DataFrame:
        """All failures, after the last part; empty for a valid book."""
        if self.has_domains:
            self._found.add(self._facts.book, ledger_findings(self._facts, self.sums.by_asset), rank=6)
        return failure_frame(self._found.failures())


def _time_findings(facts: Facts, limits: Limits, *, is_given: bool) -> Iterator[Finding]:
    if limits.as_of is None:
        yield no_time()
    elif is_given:
        yield from future_findings(facts, limits.as_of)


def check_book(book: Book, **options: Unpack[CheckOptions]) -> pl.DataFrame:
    """Every way in which a book breaks the input contract.

    Args:
      book: the book.
      **options: of these keywords any.

        as_of: instant of valuation; None = the newest timestamp of the book. If given, later timestamps are failures.
        kinds: kinds of contract that the model margins; None = all.
        accounting: asset in which results will be stated, whose price must not be 0; None = not known yet.
        vol_limit: highest vol, decimal per square root of a year (5); above it a unit error is assumed.
        tenor_limit_years: longest time to expiry (10), likewise.
        max_examples: rows listed per code, table and column (20), the first with the total in its message; None = all
          rows.

    Returns:
      Frame with the columns `errors.FAILURE_COLUMNS`, empty for a valid book. `row` counts from 0 within `file`.
    """
    checks = BookChecks(book, **options)
    checks.part(book)
    return checks.finished()


def require_valid(book: Book, **options: Unpack[CheckOptions]) -> None:
    """Raises InputError with the failures of `check_book`, if there are any."""
    failures = check_book(book, **options)
    if not failures.is_empty():
        raise input_error(failures)
