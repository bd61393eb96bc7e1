"""The input contract: every rule a book must satisfy before a number is computed from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, Unpack

from gpumargin.checks.cells import cell_findings
from gpumargin.checks.facts import Facts, Limits
from gpumargin.checks.findings import failures_of
from gpumargin.checks.keys import key_findings
from gpumargin.checks.ledger import ledger_findings
from gpumargin.checks.market import market_findings
from gpumargin.checks.references import domain_findings, reference_findings
from gpumargin.checks.times import future_findings, newest_stamp, no_time, resolve_as_of
from gpumargin.failures import failure_frame, input_error

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    import polars as pl

    from gpumargin.checks.findings import Finding
    from gpumargin.tables import Book

__all__ = ["CheckOptions", "check_book", "require_valid", "resolve_as_of"]


class CheckOptions(TypedDict, total=False):
    """Keywords of `check_book`."""

    as_of: datetime | None
    kinds: Collection[str] | None
    accounting: str | None
    vol_limit: float
    tenor_limit_years: float
    max_examples: int | None


def check_book(
    book: Book,
    *,
    as_of: datetime | None = None,
    kinds: Collection[str] | None = None,
    accounting: str | None = None,
    vol_limit: float = 5.0,
    tenor_limit_years: float = 10.0,
    max_examples: int | None = 20,
) -> pl.DataFrame:
    """Every way in which a book breaks the input contract.

    Args:
      book: the book.
      as_of: instant of valuation; None = the newest timestamp of the book. If given, later timestamps are failures.
      kinds: kinds of contract that the model margins; None = all.
      accounting: asset in which results will be stated, whose price must not be 0; None = not known yet.
      vol_limit: highest vol, decimal per square root of a year; above it a unit error is assumed.
      tenor_limit_years: longest time to expiry, likewise.
      max_examples: rows listed per code, table and column, the first with the total in its message; None = all rows.

    Returns:
      Frame with the columns `errors.FAILURE_COLUMNS`, empty for a valid book. `row` counts from 0 within `file`.
    """
    instant = newest_stamp(book) if as_of is None else resolve_as_of(book, as_of)
    limits = Limits(instant, kinds, accounting, vol_limit, tenor_limit_years)
    facts = Facts(book)
    found = list(domain_findings(facts)) or list(_findings(facts, limits, is_given=as_of is not None))
    return failure_frame(failures_of(book, found, max_examples=max_examples))


def require_valid(book: Book, **options: Unpack[CheckOptions]) -> None:
    """Raises InputError with the failures of `check_book`, if there are any."""
    failures = check_book(book, **options)
    if not failures.is_empty():
        raise input_error(failures)


def _findings(facts: Facts, limits: Limits, *, is_given: bool) -> Iterator[Finding]:
    yield from cell_findings(facts)
    yield from key_findings(facts)
    yield from reference_findings(facts)
    if limits.as_of is None:
        yield no_time()
    elif is_given:
        yield from future_findings(facts, limits.as_of)
    yield from market_findings(facts, limits)
    yield from ledger_findings(facts)
