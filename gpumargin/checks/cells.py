"""Rules that look at one cell at a time, all driven by `schema.TABLES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from gpumargin.checks.findings import Finding, shown
from gpumargin.schema import MAX_ID_LENGTH, TABLES, Column, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from gpumargin.checks.facts import Facts

HIDDEN_CHARACTERS = r"[\p{Cc}\x{061C}\x{200B}-\x{200F}\x{2028}-\x{202E}\x{2060}-\x{2069}\x{FEFF}]"
"""Controls, zero-width and text-direction characters: two ids that look alike may differ in them alone."""

_FIRST_PRINTABLE, _LAST_PRINTABLE = 0x20, 0x7E


def cell_findings(facts: Facts, tables: Iterable[str], specs: Mapping[str, Table] = TABLES) -> Iterator[Finding]:
    """Nulls, numbers that are not finite or out of range, unknown words and unsafe ids, column by column."""
    for name in tables:
        for column in facts.book.tables[name].column_names:
            spec = specs[name].by_name[column]
            found = (rule(facts, name, spec) for rule in _RULES)
            yield from (finding for finding in found if finding is not None and len(finding.rows))


def rows_where(mask: pa.ChunkedArray) -> np.ndarray:
    """`[n]` int64 numbers of the rows where a mask is true; null is not."""
    if not len(mask):
        return np.empty(0, np.int64)  # pyarrow before 26 crashes on an array without chunks
    return np.asarray(pc.indices_nonzero(mask)).astype(np.int64)


def _values(facts: Facts, table: str, column: Column) -> pa.ChunkedArray:
    return facts.book.tables[table].column(column.name)


def _null(facts: Facts, table: str, column: Column) -> Finding | None:
    values = _values(facts, table, column)
    if column.optional or values.null_count == 0:
        return None
    message = f"{column.name} is null, expected {column.meaning}"
    remedy = f"fill it: {column.derived}" if column.derived else "fill it, or leave the row out on purpose"
    rows = rows_where(pc.is_null(values))
    return Finding(code="GM102", table=table, column=column.name, rows=rows, message=message, remedy=remedy)


def _not_finite(facts: Facts, table: str, column: Column) -> Finding | None:
    values = _values(facts, table, column)
    if not pat.is_floating(values.type) or facts.extent(table, column.name).is_finite:
        return None
    message = f"{column.name} is {{value}}, expected a finite number"
    remedy = "null means unknown where the column allows it; NaN and infinity never do"
    rows = rows_where(pc.invert(pc.is_finite(values)))
    return Finding(code="GM103", table=table, column=column.name, rows=rows, message=message, remedy=remedy)


def _out_of_range(facts: Facts, table: str, column: Column) -> Finding | None:
    allowed = column.allowed
    if allowed is None or allowed.holds(facts.extent(table, column.name)):
        return None
    values = _values(facts, table, column)
    too_low = pc.less_equal(values, allowed.low) if allowed.above else pc.less(values, allowed.low)
    outside = pc.or_(too_low, pc.greater(values, allowed.high)) if np.isfinite(allowed.high) else too_low
    rows = rows_where(pc.and_(outside, pc.is_finite(values)))  # infinity is GM103 alone
    message = f"{column.name} is {{value}}, expected {allowed}"
    return Finding(
        code=allowed.code, table=table, column=column.name, rows=rows, message=message, remedy=allowed.remedy
    )


def _unknown_word(facts: Facts, table: str, column: Column) -> Finding | None:
    if not column.choices:
        return None
    coded = facts.coded(table, column.name)
    is_known = pc.is_in(coded.words, value_set=pa.array(column.choices))
    rows = coded.rows_with(~is_known.to_numpy(zero_copy_only=False))
    message = f"{column.name} is {{value}}, expected one of {', '.join(column.choices)}"
    return Finding(
        code="GM112", table=table, column=column.name, rows=rows, message=message, remedy="use one of these words"
    )


def _unsafe_id(facts: Facts, table: str, column: Column) -> Finding | None:
    if column.kind != "id" or not pat.is_dictionary(_values(facts, table, column).type):
        return None
    coded = facts.coded(table, column.name)
    length = pc.utf8_length(coded.words).to_numpy(zero_copy_only=False)
    is_hidden = _is_hidden(coded.words)
    rows = coded.rows_with((length == 0) | (length > MAX_ID_LENGTH) | is_hidden)
    return Finding(
        code="GM118",
        table=table,
        column=column.name,
        rows=rows,
        message=_unsafe_message(facts, table, column, rows),
        remedy="give a plain id; the same everywhere it is used",
    )


def _is_hidden(words: pa.StringArray) -> np.ndarray:
    """`[n]` bool: words with a hidden character; where all bytes are printable ASCII, as in most books, none is."""
    data = words.buffers()[2]
    characters = np.frombuffer(data if data is not None else b"", np.uint8)
    if len(characters) == 0 or (characters.min() >= _FIRST_PRINTABLE and characters.max() <= _LAST_PRINTABLE):
        return np.zeros(len(words), bool)
    found: np.ndarray = pc.match_substring_regex(words, HIDDEN_CHARACTERS).to_numpy(zero_copy_only=False)
    return found


def _unsafe_message(facts: Facts, table: str, column: Column, rows: np.ndarray) -> Callable[[int], str]:
    values = _values(facts, table, column)
    expected = f"expected 1 to {MAX_ID_LENGTH} characters without control or text-direction characters"

    def message(position: int) -> str:
        word = values[int(rows[position])].as_py()
        return f"{column.name} is '{shown(word)}' ({len(word)} characters), {expected}"

    return message


_RULES: tuple[Callable[[Facts, str, Column], Finding | None], ...] = (
    _null,
    _not_finite,
    _out_of_range,
    _unknown_word,
    _unsafe_id,
)
