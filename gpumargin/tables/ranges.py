"""Ranges of account ids: where a book is cut into parts, and which rows fall into which part."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.types as pat

from gpumargin.tables.rowgroups import ACCOUNT, in_order, read_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpumargin.tables.rowgroups import Id, RowGroup

_SAMPLED_GROUPS, _SAMPLED_ROWS = 64, 1 << 14
_SMALL_DICTIONARY = 4096  # words that a slice may carry without using them


class Ranges(NamedTuple):
    """Parts by account id: part k has the ids above `bounds[k - 1]` up to and with `bounds[k]`; the last is open."""

    bounds: pl.Series

    def __len__(self) -> int:
        return len(self.bounds) + 1

    def of(self, ids: pl.Series) -> np.ndarray:
        """`[n]` part of each id; null belongs to part 0."""
        kind = self.bounds.dtype
        found: np.ndarray = self.bounds.search_sorted(ids.cast(kind), side="left").to_numpy()
        return np.where(ids.is_null().to_numpy(), 0, found).astype(np.uint16)

    def of_id(self, account: Id) -> int:
        """Part of one id."""
        return int(self.bounds.search_sorted(account, side="left"))


def account_ranges(groups: Sequence[RowGroup], parts: int) -> Ranges:
    """Ranges that cut the rows of a table into parts of about the same number of rows.

    Args:
      groups: the row groups of the table; where their ids follow one another and they are small beside a part, cuts
        fall between them, else they are quantiles of a sample.
      parts: how many; fewer where there are not as many distinct ids.
    """
    rows = np.array([group.rows for group in groups])
    if in_order(groups) and rows.max(initial=0) * parts <= rows.sum():
        wanted = rows.sum() * np.arange(1, parts) / parts
        ends = [groups[i].high for i in np.searchsorted(np.cumsum(rows), wanted)]
        return Ranges(pl.Series(ends).unique().sort())
    sample = pl.concat([_sampled(group) for group in _spread(groups)]).drop_nulls().sort()
    places = len(sample) * np.arange(1, parts) // parts
    return Ranges(sample.gather(places).unique().sort())


def _spread(groups: Sequence[RowGroup]) -> list[RowGroup]:
    """Row groups from all over a table."""
    filled = [group for group in groups if group.rows]
    places = np.linspace(0, len(filled) - 1, min(len(filled), _SAMPLED_GROUPS)).round().astype(int)
    return [filled[i] for i in np.unique(places)]


def _sampled(group: RowGroup) -> pl.Series:
    """Ids of rows from all over a row group, one for about as many rows in every group."""
    column = read_column(group, ACCOUNT)
    if column is None:
        return pl.Series([], dtype=pl.String)
    rows = np.arange(0, len(column), max(1, len(column) // _SAMPLED_ROWS))
    return _ids(column.take(pa.array(rows)))


def _ids(column: pa.ChunkedArray | pa.Array) -> pl.Series:
    if pat.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    ids = pl.Series(pl.from_arrow(column))
    return ids if ids.dtype == pl.String else ids.cast(pl.Int64)


class Cut(NamedTuple):
    """Rows of a table that fall into one part; `rows` `[n]` says which ones, None = all."""

    part: int
    table: pa.Table
    rows: np.ndarray | None


def cut(table: pa.Table, ranges: Ranges) -> Iterator[Cut]:
    """The rows of a canonical table by part, in the order they had; parts without rows are left out."""
    part = _part_of_rows(table.column(ACCOUNT), ranges)
    if not len(part):
        return
    if bool((part == part[0]).all()):
        yield Cut(int(part[0]), table, None)
        return
    order = np.argsort(part, kind="stable")
    ends = np.cumsum(np.bincount(part, minlength=len(ranges)))
    is_sorted = bool((part[1:] >= part[:-1]).all())
    ordered = table if is_sorted else table.combine_chunks().take(pa.array(order))
    for k in np.unique(part):
        rows = slice(int(ends[k - 1]) if k else 0, int(ends[k]))
        yield Cut(int(k), _compact(ordered.slice(rows.start, rows.stop - rows.start)), order[rows])


def _part_of_rows(ids: pa.ChunkedArray, ranges: Ranges) -> np.ndarray:
    return np.concatenate([_part_of_chunk(chunk, ranges) for chunk in ids.chunks] or [np.zeros(0, np.uint16)])


def _part_of_chunk(ids: pa.Array, ranges: Ranges) -> np.ndarray:
    if not pat.is_dictionary(ids.type):
        return ranges.of(_ids(ids))
    of_word = np.append(ranges.of(_ids(ids.dictionary)), 0).astype(np.uint16)
    return of_word[np.asarray(ids.indices.fill_null(-1))]


def _compact(table: pa.Table) -> pa.Table:
    """The table without the words of large dictionaries that no row of it uses: slices share those of the whole."""
    columns = {name: _compact_column(table.column(name)) for name in table.column_names}
    return pa.table(columns)


def _compact_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pat.is_dictionary(column.type):
        return column
    return pa.chunked_array([_compact_chunk(chunk) for chunk in column.chunks], column.type)


def _compact_chunk(chunk: pa.DictionaryArray) -> pa.DictionaryArray:
    words = chunk.dictionary
    if len(words) <= max(_SMALL_DICTIONARY, len(chunk) // 4):
        return chunk
    codes = np.asarray(chunk.indices.fill_null(-1))
    has_word = codes >= 0
    first, last = codes.min(initial=len(words), where=has_word), codes.max(initial=-1)
    words = words.slice(first, max(last + 1 - first, 0))  # of sorted tables not many more than are used
    codes = np.where(has_word, codes - first, len(words))
    is_used = np.zeros(len(words) + 1, bool)
    is_used[codes] = True
    new = np.cumsum(is_used, dtype=np.int32) - 1
    indices = pa.array(new[codes], mask=~has_word)
    return pa.DictionaryArray.from_arrays(indices, words.filter(pa.array(is_used[:-1])))
