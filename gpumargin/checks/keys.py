"""No two rows of a table share a key, also across its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpumargin.checks.findings import Finding, shown
from gpumargin.schema import TABLES, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gpumargin.checks.facts import Facts

_INT64_KEYS = 2**62


def key_findings(facts: Facts, tables: Iterable[str]) -> Iterator[Finding]:
    """One finding per table with repeated keys; every row after the first of its key is listed."""
    for name in tables:
        spec = TABLES[name]
        numbers, is_complete = _key_numbers(facts, spec)
        rows, first = repeated_rows(numbers, is_complete)
        if len(rows):
            yield Finding(
                code="GM104",
                table=name,
                column=spec.key[-1],
                rows=rows,
                message=_message(facts, spec, rows=rows, first=first),
                remedy="keep one row per key: add the quantities up, or remove the copy",
            )


def repeated_rows(numbers: np.ndarray, is_complete: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose number stood before, ascending, and for each the first row with that number.

    Args:
      numbers: `[n]` int64, one per row, equal where the keys are.
      is_complete: `[n]` bool, rows to look at; None = all.
    """
    nothing = np.empty(0, np.int64)
    if bool((numbers[1:] > numbers[:-1]).all()):
        return nothing, nothing
    ordered = np.sort(numbers if is_complete is None else numbers[is_complete])
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return nothing, nothing
    at = np.minimum(np.searchsorted(repeated, numbers), len(repeated) - 1)
    is_repeated = repeated[at] == numbers
    rows = np.flatnonzero(is_repeated if is_complete is None else is_repeated & is_complete)
    _, first, member = np.unique(numbers[rows], return_index=True, return_inverse=True)
    first_rows = rows[first][member]
    is_later = rows != first_rows
    return rows[is_later], first_rows[is_later]


def _key_numbers(facts: Facts, spec: Table) -> tuple[np.ndarray, np.ndarray | None]:
    numbers = np.zeros(facts.book.num_rows(spec.name), np.int64)
    size, is_complete = 1, None
    for column in spec.key:
        coded = facts.coded(spec.name, column)
        count = len(coded.words) + 1  # null is a value of its own
        if size * count >= _INT64_KEYS:
            distinct, numbers = np.unique(numbers, return_inverse=True)
            size = len(distinct)
        numbers *= count
        numbers += coded.codes
        numbers += 1
        size *= count
        if not spec.by_name[column].optional and bool((coded.codes < 0).any()):
            is_present = coded.codes >= 0
            is_complete = is_present if is_complete is None else is_complete & is_present
    return numbers, is_complete


def _message(facts: Facts, spec: Table, *, rows: np.ndarray, first: np.ndarray) -> Callable[[int], str]:
    table = facts.book.tables[spec.name]
    columns = [name for name in spec.key if name in table.column_names]

    def message(position: int) -> str:
        key = ", ".join(f"{name} {shown(table.column(name)[int(rows[position])].as_py())}" for name in columns)
        file, row = facts.book.locate(spec.name, int(first[position]))
        return f"the key ({key}) already stands in row {row:,} of {file}"

    return message
