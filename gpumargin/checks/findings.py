"""What a rule found: all rows that break it, turned into a bounded number of failure rows in one place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpumargin.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpumargin.tables import Book

_LONGEST = 80
NO_ROW = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that was broken, and where.

    Attributes:
      code: code of the rule.
      table: table whose rows break it.
      column: column to blame.
      rows: `[n]` int64 row numbers of the table, ascending; empty where no row is to blame but the table.
      message: what was expected and found; `{value}` is the cell. A function gets the position within `rows`.
      remedy: what to do.
    """

    code: str
    table: str
    column: str
    rows: np.ndarray
    message: str | Callable[[int], str]
    remedy: str


def shown(value: object) -> str:
    """A value as text that is safe to print: at most 80 characters, controls and direction marks spelt out."""
    text = str(value)[:_LONGEST]
    return text if text.isprintable() else ascii(text)[1:-1]


def failures_of(book: Book, findings: Iterable[Finding], *, max_examples: int | None) -> list[Failure]:
    """Failure rows of all findings, at most `max_examples` of each code, table and column (None = all of them)."""
    shown: Counter[tuple[str, str, str]] = Counter()
    failures: list[Failure] = []
    for finding in findings:
        key = (finding.code, finding.table, finding.column)
        left = len(finding.rows) if max_examples is None else max_examples - shown[key]
        rows = _failures(book, finding, limit=left)
        shown[key] += len(rows)
        failures += rows
    return failures


def _failures(book: Book, finding: Finding, *, limit: int) -> list[Failure]:
    if not len(finding.rows):
        return [_failure(finding, file="", row=None, value="", message=str(finding.message))]
    return [_located(book, finding, position) for position in range(min(limit, len(finding.rows)))]


def _located(book: Book, finding: Finding, position: int) -> Failure:
    row = int(finding.rows[position])
    file, row_in_file = book.locate(finding.table, row)
    value = _cell(book, finding.table, finding.column, row=row)
    text = finding.message.format(value=value) if isinstance(finding.message, str) else finding.message(position)
    total = len(finding.rows)
    counted = f"{text} ({total:,} rows in all)" if position == 0 and total > 1 else text
    return _failure(finding, file=file, row=row_in_file, value=value, message=counted)


def _cell(book: Book, table: str, column: str, *, row: int) -> str:
    if column not in book.tables[table].column_names:
        return ""
    value = book.tables[table].column(column)[row].as_py()
    return "null" if value is None else shown(value)


def _failure(finding: Finding, *, file: str, row: int | None, value: str, message: str) -> Failure:
    return Failure(finding.code, finding.table, file, row, finding.column, value, message, finding.remedy)
