"""The input contract: every rule a book must satisfy before a number is computed from it."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

import polars as pl

from gpumargin.checks.amounts import amount_findings, size_findings
from gpumargin.checks.cells import cell_findings
from gpumargin.checks.facts import Facts, Limits
from gpumargin.checks.findings import Gathered, Oddity
from gpumargin.checks.keys import key_findings
from gpumargin.checks.ledger import ledger_findings
from gpumargin.checks.market import market_findings, zero_entries
from gpumargin.checks.oddities import market_warnings, uncovered
from gpumargin.checks.policy import ON_BAD_ROWS, ends_run
from gpumargin.checks.quarantine import Sieve, Sifted, surface_findings
from gpumargin.checks.references import (
    account_findings,
    domain_findings,
    empty_findings,
    has_accounts,
    reference_findings,
)
from gpumargin.checks.times import future_findings, newest_stamp, no_time, resolve_as_of, stale_findings
from gpumargin.checks.twins import Twins, market_twins
from gpumargin.errors import UsageError
from gpumargin.failures import failure_frame, input_error
from gpumargin.pack.accounts import find_accounts
from gpumargin.sums import BalanceSums
from gpumargin.tables import CUT_TABLES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path

    import pyarrow as pa

    from gpumargin.checks.findings import Finding
    from gpumargin.checks.policy import OnBadRows
    from gpumargin.pack.accounts import Accounts
    from gpumargin.tables import Book

__all__ = [
    "BookChecks",
    "CheckOptions",
    "Sifted",
    "Sifting",
    "check_book",
    "require_valid",
    "resolve_as_of",
    "sift_book",
]

EXAMPLES = 20


class CheckOptions(TypedDict, total=False):
    """Keywords of `check_book`."""

    as_of: datetime | None
    max_age: timedelta | None
    kinds: Collection[str] | None
    accounting: str | None
    vol_limit: float
    tenor_limit_years: float
    max_examples: int | None
    passed: Collection[str]


class BookChecks:
    """The input contract of a book whose accounts come in parts: market first, then every part, then what they sum to.

    Args:
      head: all of the market, and at least a row for every instrument in use (`tables.Parts.head`).
      on_bad_rows: `fail`, everything that is wrong ends the run; `quarantine`, rows that a run may go on without
        (`policy`) are taken out.
      **options: as `check_book`.

    Attributes:
      head: what is left of it; of its market nothing is wrong, unless there are failures.
      sums: of the balances of the parts so far, those in quarantine included.
      has_domains: whether columns that name the same things are of one type; if not, nothing else is looked at.

    Raises:
      UsageError: `on_bad_rows` is none of these words.
    """

    def __init__(self, head: Book, on_bad_rows: OnBadRows = "fail", **options: Unpack[CheckOptions]) -> None:
        if on_bad_rows not in ON_BAD_ROWS:
            message = f"on_bad_rows is {on_bad_rows!r}, expected one of {', '.join(ON_BAD_ROWS)}"
            raise UsageError(message)
        self.head, self.sums = head, BalanceSums()
        self._options = options
        self._found = Gathered(options.get("max_examples", EXAMPLES))
        self._warned = Gathered(options.get("max_examples", EXAMPLES))
        self._twins = Twins()
        self._sieve = Sieve() if on_bad_rows == "quarantine" else None
        self._given = Facts(head)
        self._sorted(head, domain_findings(self._given), rank=0)
        self.has_domains = not self._found
        if self.has_domains:
            self._settle()

    def __bool__(self) -> bool:
        """Whether nothing was found so far that ends the run."""
        return not self._found

    @property
    def rejected_market(self) -> pl.DataFrame:
        """Rows of the market in quarantine, columns as `cascade.RECORDS`."""
        return (self._sieve or Sieve()).rejected_market()

    def spare(self, findings: Sequence[Finding]) -> bool:
        """Takes out rows of the market that turned out to be of no use only when more was computed from them.

        Returns:
          Whether there is anything left to be computed anew; False where the findings end the run.
        """
        if self._sieve is None or any(map(ends_run, findings)):
            return False
        self.head = self._sieve.market(self.head, findings)
        self._settle()
        return bool(self)

    def _settle(self) -> None:
        """Checks the market; in quarantine mode again and again until of what is left nothing is wrong."""
        bad = self._market(Facts(self.head))
        while bad and self._sieve is not None and not self._found:
            self.head = self._sieve.market(self.head, bad)
            bad = self._market(Facts(self.head))

    def _limits(self) -> Limits:
        as_of, options = self._options.get("as_of"), self._options
        return Limits(
            newest_stamp(self.head) if as_of is None else resolve_as_of(self.head, as_of),
            options.get("kinds"),
            options.get("accounting"),
            options.get("vol_limit", 5.0),
            options.get("tenor_limit_years", 10.0),
            options.get("max_age"),
        )

    def _market(self, facts: Facts) -> list[Finding]:
        """What is wrong with the market and does not end the run."""
        limits, head = self._limits(), facts.book
        is_given = self._options.get("as_of") is not None
        bad = self._rules(facts, [name for name in head.tables if name not in CUT_TABLES])
        bad += self._sorted(head, empty_findings(self._given), rank=3)
        bad += self._sorted(head, _time_findings(facts, limits, is_given=is_given), rank=4)
        bad += self._sorted(head, market_findings(facts, limits), rank=5)
        if not bad and self._sieve is not None and limits.as_of is not None and not self._found:
            bad += surface_findings(head, self._sieve.causes, limits.as_of)
        return bad

    def _rules(self, facts: Facts, tables: Collection[str]) -> list[Finding]:
        book, passed = facts.book, self._options.get("passed", ())
        tables = [name for name in tables if name not in passed]
        return [
            *self._sorted(book, cell_findings(facts, tables), rank=1),
            *self._sorted(book, key_findings(facts, tables), rank=2),
            *self._sorted(book, reference_findings(facts, tables), rank=3),
            *self._sorted(book, amount_findings(facts, tables), rank=5),
        ]

    def _sorted(self, book: Book, findings: Iterable[Finding], *, rank: int) -> list[Finding]:
        """Files warnings and what ends the run; returns the rest."""
        rest = []
        for finding in findings:
            if isinstance(finding, Oddity):
                self._warned.add(book, [finding], rank=rank)
            elif self._sieve is None or ends_run(finding):
                self._found.add(book, [finding], rank=rank)
            else:
                rest.append(finding)
        return rest

    def part(self, book: Book) -> Sifted:
        """Checks all rows of some accounts.

        Args:
          book: the whole market, and every row of these accounts.

        Returns:
          What may be used of it; once something ends the run, the book itself.
        """
        if not self.has_domains:
            return Sifted(book)
        facts = Facts(book)
        bad = self._rules(facts, [name for name in book.tables if name in CUT_TABLES])
        if has_accounts(self._given):
            bad += self._sorted(book, account_findings(facts), rank=3)
        bad += self._sorted(book, zero_entries(facts), rank=5)
        bad += self._sorted(book, size_findings(facts), rank=5)
        if "balances" in book.tables:
            self.sums.add(book.tables["balances"])
        return Sifted(book) if self._sieve is None or self._found else self._sieve.part(book, self.head, bad)

    def keep_ids_in(self, folder: Path) -> None:
        """Makes a folder for the ids of parts to come, else in memory; needed for `warnings`, the caller removes it."""
        self._twins.keep_in(folder)

    def cover(self, book: Book, accounts: Accounts) -> None:
        """Looks for accounts without any balance, and keeps the ids of all.

        Args:
          book: a part that nothing is wrong with.
          accounts: of it.
        """
        self._sorted(book, uncovered(book, accounts), rank=3)
        self._twins.add(accounts)

    def laid_aside(self) -> dict[str, Any]:
        """What another process needs to go on after the parts so far, as JSON has it; and `ids_of_part` of each."""
        sums = [[asset, str(total)] for asset, total in self.sums.by_asset.items()]
        return {"sums": sums, "odd": self._warned.laid_aside()}

    def ids_of_part(self) -> pa.Table:
        """Account ids of the last part, a column `word`; none where ids are integers."""
        return self._twins.last.to_frame().to_arrow()

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Takes what was laid aside after the parts so far; the ids of each are taken by `take_up_part`."""
        self.sums.by_asset.update({asset: Fraction(total) for asset, total in state["sums"]})
        self._warned.take_up(state["odd"])

    def take_up_part(self, ids: pa.Table) -> None:
        """Takes the ids of a part in its place, as `ids_of_part` gave them."""
        self._twins.keep(pl.Series("word", pl.from_arrow(ids["word"]), dtype=pl.String))

    def finished(self) -> pl.DataFrame:
        """All failures that end the run, after the last part; empty for a valid book."""
        if self.has_domains:
            self._sorted(self._given.book, ledger_findings(self._given, self.sums.by_asset), rank=6)
        return failure_frame(self._found.failures())

    def warnings(self) -> pl.DataFrame:
        """What is odd and was used all the same, after the last part, columns as `check_book`."""
        if self.has_domains and not self._found:
            facts = Facts(self.head)
            self._sorted(self.head, market_warnings(facts, self._limits()), rank=5)
            self._sorted(self.head, market_twins(facts), rank=6)
            self._sorted(self.head, self._twins.findings(), rank=6)
        return failure_frame(self._warned.failures())


def _time_findings(facts: Facts, limits: Limits, *, is_given: bool) -> Iterator[Finding]:
    if limits.as_of is None:
        yield no_time()
        return
    if is_given:
        yield from future_findings(facts, limits.as_of)
    if limits.max_age is not None:
        yield from stale_findings(facts, limits.as_of, limits.max_age)


def check_book(book: Book, on_bad_rows: OnBadRows = "fail", **options: Unpack[CheckOptions]) -> pl.DataFrame:
    """Every way in which a book breaks the input contract.

    Args:
      book: the book.
      on_bad_rows: `fail`: all of them; `quarantine`: those alone that end a run which puts bad rows into quarantine.
      **options: of these keywords any.

        as_of: instant of valuation; None = the newest timestamp of the book. If given, later timestamps are failures.
        max_age: how much older than that marks in use, forwards and prices may be; None = any age.
        kinds: kinds of contract that the model margins; None = all.
        accounting: asset in which results will be stated, whose price must not be 0; None = not known yet.
        vol_limit: highest vol, decimal per square root of a year (5); above it a unit error is assumed.
        tenor_limit_years: longest time to expiry (10), likewise.
        max_examples: rows listed per code, table and column (20), the first with the total in its message; None = all
          rows.
        passed: tables whose rows have passed before, unchanged: rules on their own cells, keys, references and sizes
          are not asked again.

    Returns:
      Frame with the columns `errors.FAILURE_COLUMNS`, empty for a valid book. `row` counts from 0 within `file`.
    """
    checks = BookChecks(book, on_bad_rows, **options)
    checks.part(book)
    return checks.finished()


class Sifting(NamedTuple):
    """What a run that puts bad rows into quarantine makes of a book.

    Attributes:
      failures: what ends it all the same, columns as `check_book`.
      rejected: rows in quarantine, columns as `cascade.RECORDS`.
      unknown: margin accounts that are in doubt for it.
      warnings: what is odd and is used, columns as `check_book`.
    """

    failures: pl.DataFrame
    rejected: pl.DataFrame
    unknown: int
    warnings: pl.DataFrame


def sift_book(book: Book, on_bad_rows: OnBadRows = "quarantine", **options: Unpack[CheckOptions]) -> Sifting:
    """The input contract of a book with all that becomes of its rows; arguments as `check_book`."""
    checks = BookChecks(book, on_bad_rows, **options)
    part = checks.part(book)
    if checks:
        checks.cover(part.book, find_accounts(part.book.tables))
    found = [frame for frame in (checks.rejected_market, part.rejected) if frame is not None]
    unknown = 0 if part.unknown is None else part.unknown.height
    return Sifting(checks.finished(), pl.concat(found), unknown, checks.warnings())


def require_valid(book: Book, **options: Unpack[CheckOptions]) -> None:
    """Raises InputError with the failures of `check_book`, if there are any."""
    failures = check_book(book, **options)
    if not failures.is_empty():
        raise input_error(failures)
