"""The instant of the snapshot, and stamps that contradict it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.checks.cells import rows_where
from gpumargin.checks.findings import NO_ROW, Finding, failures_of
from gpumargin.failures import failure_frame, input_error
from gpumargin.schema import TIME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpumargin.checks.facts import Facts
    from gpumargin.tables import Book

_STAMPED = ("marks", "forwards", "prices")


def resolve_as_of(book: Book, as_of: datetime | None = None) -> datetime:
    """Instant at which the book is valued, with zone UTC.

    Args:
      book: the book.
      as_of: what the user asked for; without a zone it is read as UTC. None = the newest timestamp in marks, forwards
        and prices.

    Raises:
      InputError: GM108, nothing given and no table has a timestamp.
    """
    if as_of is not None:
        return as_of.replace(tzinfo=UTC) if as_of.tzinfo is None else as_of.astimezone(UTC)
    found = newest_stamp(book)
    if found is None:
        raise input_error(failure_frame(failures_of(book, [no_time()], max_examples=1)))
    return found


def newest_stamp(book: Book) -> datetime | None:
    """Newest timestamp in marks, forwards and prices, None where there is none."""
    stamps = [book.tables[table].column("timestamp") for table in _STAMPED if "timestamp" in _columns(book, table)]
    newest = [value for stamp in stamps if (value := pc.max(stamp).as_py()) is not None]
    return max(newest).astimezone(UTC) if newest else None


def no_time() -> Finding:
    """GM108 for a book that does not say when it was taken."""
    message = "no table says when the snapshot was taken"
    remedy = "give --as-of (in Python: as_of), or a timestamp column in marks, forwards or prices"
    return Finding(code="GM108", table="marks", column="timestamp", rows=NO_ROW, message=message, remedy=remedy)


def future_findings(facts: Facts, as_of: datetime) -> Iterator[Finding]:
    """Stamps later than the instant the user asked for: prices that were not known then."""
    for table in _STAMPED:
        stamp = facts.column(table, "timestamp")
        rows = NO_ROW if stamp is None else rows_where(pc.greater(stamp, pa.scalar(as_of, TIME)))
        if len(rows):
            message = f"timestamp {{value}} is later than --as-of {as_of.isoformat()}"
            remedy = "use prices of that time, or a later --as-of"
            yield Finding(code="GM108", table=table, column="timestamp", rows=rows, message=message, remedy=remedy)


def stale_findings(facts: Facts, as_of: datetime, max_age: timedelta) -> Iterator[Finding]:
    """Prices, forwards, and marks of contracts in use, that are older at the instant of valuation than is allowed."""
    for table in _STAMPED:
        stamp = facts.column(table, "timestamp")
        rows = NO_ROW if stamp is None else rows_where(pc.less(stamp, pa.scalar(as_of - max_age, TIME)))
        if table == "marks" and len(rows):
            rows = rows[np.isin(rows, _rows_in_use(facts))]
        if len(rows):
            message = f"timestamp {{value}} is more than {max_age} before {as_of.isoformat()}"
            remedy = "renew the value, or allow a greater --max-age (in Python: max_age)"
            yield Finding(code="GM108", table=table, column="timestamp", rows=rows, message=message, remedy=remedy)


def _rows_in_use(facts: Facts) -> np.ndarray:
    """Rows of marks whose contract somebody holds or has ordered."""
    marks = facts.coded("marks", "instrument_id")
    used = [facts.coded(name, "instrument_id") for name in ("positions", "orders") if facts.book.num_rows(name)]
    words = [word for coded in used for word in coded.used_words().to_pylist()]
    is_used = pc.is_in(marks.words, value_set=pa.array(words, marks.words.type))
    return marks.rows_with(is_used.to_numpy(zero_copy_only=False))


def _columns(book: Book, table: str) -> list[str]:
    return book.tables[table].column_names if table in book.tables else []
