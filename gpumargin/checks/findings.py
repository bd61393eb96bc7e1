"""What a rule found: all rows that break it, turned into a bounded number of failure rows in one place."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumargin.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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


class Oddity(Finding):
    """Something odd that breaks no rule: it is counted and shown, its rows are used, and no run ends for it."""

    __slots__ = ()


def shown(value: object) -> str:
    """A value as text that is safe to print: at most 80 characters, controls and direction marks spelt out."""
    text = str(value)[:_LONGEST]
    return text if text.isprintable() else ascii(text)[1:-1]


@dataclass
class Group:
    """What findings of one rule come to: how many rows, and the first of them as failures."""

    total: int
    examples: list[Failure]


@dataclass
class Gathered:
    """Findings on a book that arrives in parts, the same as if it had come whole.

    Attributes:
      max_examples: failures kept of each code, table and column (None = all of them).
    """

    max_examples: int | None
    _groups: dict[tuple[object, ...], Group] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything was found."""
        return bool(self._groups)

    def add(self, book: Book, findings: Iterable[Finding], *, rank: int) -> None:
        """Takes what rules of one rank found in a part; ranks are reported in ascending order."""
        for finding in findings:
            rows = len(finding.rows) if self.max_examples is None else self.max_examples
            key = (rank, finding.table, finding.column, finding.code, finding.remedy)
            group = self._groups.setdefault(key, Group(0, []))
            group.total += len(finding.rows)
            group.examples = _first([*group.examples, *examples_of(book, finding, limit=rows)], rows)

    def failures(self) -> list[Failure]:
        """Failure rows of everything found, the first of several with their number in its message."""
        shown: Counter[tuple[str, str, str]] = Counter()
        failures: list[Failure] = []
        for _, group in sorted(self._groups.items(), key=lambda item: item[0][0]):  # type: ignore[arg-type, return-value]
            first = group.examples[0]
            key = (first.code, first.table, first.column)
            left = len(group.examples) if self.max_examples is None else self.max_examples - shown[key]
            rows = _counted(group)[:left]
            shown[key] += len(rows)
            failures += rows
        return failures

    def laid_aside(self) -> list[list[Any]]:
        """What was found so far, as JSON has it."""
        return [[*key, group.total, *map(astuple, group.examples)] for key, group in self._groups.items()]

    def take_up(self, state: Iterable[Sequence[Any]]) -> None:
        """Takes what was laid aside."""
        for rank, table, column, code, remedy, total, *examples in state:
            group = Group(total, [Failure(*example) for example in examples])
            self._groups[rank, table, column, code, remedy] = group


def _first(failures: list[Failure], limit: int) -> list[Failure]:
    """The first failures by file and row; files of a table are read in the order of their names."""
    return sorted(failures, key=lambda failure: (failure.file, -1 if failure.row is None else failure.row))[:limit]


def _counted(group: Group) -> list[Failure]:
    first, *rest = group.examples
    if group.total > 1:
        first = replace(first, message=f"{first.message} ({group.total:,} rows in all)")
    return [first, *rest]


def failures_of(book: Book, findings: Iterable[Finding], *, max_examples: int | None) -> list[Failure]:
    """Failure rows of all findings, at most `max_examples` of each code, table and column (None = all of them)."""
    gathered = Gathered(max_examples)
    gathered.add(book, findings, rank=0)
    return gathered.failures()


def examples_of(book: Book, finding: Finding, *, limit: int) -> list[Failure]:
    """Failure rows of the first `limit` rows of a finding; one of the table if no row is to blame."""
    if not len(finding.rows):
        return [_failure(finding, file="", row=None, value="", message=str(finding.message))]
    return [_located(book, finding, position) for position in range(min(limit, len(finding.rows)))]


def _located(book: Book, finding: Finding, position: int) -> Failure:
    row = int(finding.rows[position])
    file, row_in_file = book.locate(finding.table, row)
    value = _cell(book, finding.table, finding.column, row=row)
    text = finding.message.format(value=value) if isinstance(finding.message, str) else finding.message(position)
    return _failure(finding, file=file, row=row_in_file, value=value, message=text)


def _cell(book: Book, table: str, column: str, *, row: int) -> str:
    if column not in book.tables[table].column_names:
        return ""
    value = book.tables[table].column(column)[row].as_py()
    return "null" if value is None else shown(value)


def _failure(finding: Finding, *, file: str, row: int | None, value: str, message: str) -> Failure:
    return Failure(finding.code, finding.table, file, row, finding.column, value, message, finding.remedy)
