"""Row groups of the Parquet files of one table: which accounts each may hold, and its rows in canonical types."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.types as pat

from gpumargin.errors import RefusedError
from gpumargin.failures import Failure, failure_frame, input_error
from gpumargin.files import Footer, named, read_footer, read_parquet
from gpumargin.schema import TABLES
from gpumargin.tables.book import Source, typed_table
from gpumargin.tables.defaults import fill_constants
from gpumargin.tables.parts import Part, Raw, known_names, load_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumargin.files import Group
ACCOUNT = "account_id"
Id = str | int


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Consecutive rows of one file, and between which account ids they lie (None = the file does not say)."""

    part: Part
    footer: Footer
    index: int
    rows: int
    first: int
    low: Id | None
    high: Id | None


def row_groups(part: Part) -> list[RowGroup]:
    """The row groups of a file, in order."""
    footer, found = _footer(part), list[RowGroup]()
    first = 0
    dtype = footer.schema.field(ACCOUNT).type if ACCOUNT in footer.names else pa.null()
    for index, group in enumerate(footer.groups):
        low, high = _account_range(group, dtype)
        found.append(RowGroup(part, footer, index, group.rows, first, low, high))
        first += group.rows
    return found


def _footer(part: Part) -> Footer:
    if part.path is None:
        message = f"{part.file!r} is no file"
        raise RefusedError(message)
    return read_footer(part.path, partial(known_names, spec=TABLES[part.table]))


def _account_range(group: Group, dtype: pa.DataType) -> tuple[Id | None, Id | None]:
    """Smallest and largest account id by the file's statistics; rows without an id are not counted."""
    chunk = group.chunks.get(ACCOUNT)
    if chunk is None or chunk.low is None or chunk.high is None:
        return None, None
    low, high = _id(chunk.low, dtype), _id(chunk.high, dtype)
    return (None, None) if low is None or high is None else (low, high)


def _id(raw: bytes, dtype: pa.DataType) -> Id | None:
    """A value of statistics; None of a type whose order is another."""
    inner = dtype.value_type if pat.is_dictionary(dtype) else dtype
    if pat.is_signed_integer(inner):
        return int.from_bytes(raw, "little", signed=True)
    try:
        return raw.decode() if pat.is_string(inner) or pat.is_large_string(inner) else None
    except UnicodeDecodeError:  # cut in the middle of a character, which is allowed
        return None


def schema_part(part: Part) -> Part:
    """The same file without its rows: what is wrong with its columns shows all the same."""
    return Part(part.table, part.file, partial(_empty, part), part.path)


def _empty(part: Part) -> Raw:
    footer = _footer(part)
    return Raw(tuple(footer.schema.names), footer.schema.empty_table().select(footer.names))


def read_group(group: RowGroup, like: pa.Table) -> tuple[pa.Table, Source]:
    """Rows of a row group in canonical types, and where they came from.

    Args:
      group: which one.
      like: table of the same name whose columns the rows get; those that the file lacks are null.

    Raises:
      InputError: GM119 the file cannot be read, GM101 or GM118 a value does not fit its column.
    """
    part, failures = group.part, list[Failure]()
    spec = TABLES[part.table]
    raw = load_part(Part(part.table, part.file, partial(_read, group)), failures)
    table = None if raw is None else typed_table(spec, part, raw, failures)
    if failures or table is None:
        raise input_error(failure_frame(failures))
    filled = fill_constants(spec, table)
    columns = {field.name: _column(filled, field) for field in like.schema}
    return pa.table(columns), Source(part.file, group.rows, group.first)


def _read(group: RowGroup) -> Raw:
    return Raw(tuple(group.footer.schema.names), read_parquet(group.footer, group=group.index))


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name in table.column_names:
        return table.column(field.name)
    return pa.chunked_array([pa.nulls(table.num_rows, field.type)])


def read_column(group: RowGroup, name: str) -> pa.ChunkedArray | None:
    """One column of a row group as it stands in the file, text as dictionary; None where the file lacks it."""
    if name not in group.footer.names:
        return None
    with named(group.footer.path):
        return read_parquet(group.footer, [name], group=group.index).column(name)


def in_order(groups: Sequence[RowGroup]) -> bool:
    """Whether the account ids of every row group are known to end where those of the next begin, or before."""
    if any(group.low is None for group in groups):
        return False
    return all(a.high <= b.low for a, b in pairwise(groups))  # type: ignore[operator]
