"""Rows of a book: where they stand in their files, and a book without some of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from gpumargin.tables.book import Book, Source

if TYPE_CHECKING:
    from collections.abc import Mapping


def places(book: Book, table: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """File and row in that file of many rows of a table at once.

    Args:
      book: the book.
      table: a table of it.
      rows: `[n]` row numbers of the table.

    Returns:
      `[n]` file names and `[n]` int64 row numbers, counted from 0.
    """
    sources = book.sources[table]
    starts = np.cumsum([0, *(source.rows for source in sources)])
    which = np.searchsorted(starts, rows, side="right") - 1
    numbers = np.empty(len(rows), np.int64)
    for k in np.unique(which):
        own = which == k
        numbers[own] = _numbers(sources[k])[rows[own] - starts[k]]
    return np.array([source.file for source in sources], object)[which], numbers


def without(book: Book, gone: Mapping[str, np.ndarray]) -> Book:
    """The book without some rows of some tables; the others keep their places in the files.

    Words that only these rows used go with them: what is left is the book that a caller would have who had left the
    rows out.

    Args:
      book: the book, which stays as it is.
      gone: `[n]` row numbers by table.
    """
    tables, sources = dict(book.tables), dict(book.sources)
    for name, rows in gone.items():
        kept = np.ones(book.num_rows(name), bool)
        kept[rows] = False
        tables[name] = _compact(tables[name].filter(pa.array(kept)))
        starts = np.cumsum([source.rows for source in sources[name]])[:-1]
        split = zip(sources[name], np.split(kept, starts), strict=True)
        sources[name] = tuple(_kept(source, own) for source, own in split)
    return Book(tables, sources)


def _numbers(source: Source) -> np.ndarray:
    return np.arange(source.first, source.first + source.rows) if source.index is None else source.index


def _kept(source: Source, kept: np.ndarray) -> Source:
    return replace(source, rows=int(kept.sum()), index=_numbers(source)[kept])


def _compact(table: pa.Table) -> pa.Table:
    """One chunk, and no word in a dictionary that no row uses."""
    return pa.table({name: _compact_column(table.column(name)) for name in table.column_names})


def _compact_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pat.is_dictionary(column.type):
        return pa.chunked_array([column.combine_chunks()], column.type)
    return pa.chunked_array([column.cast(pa.string()).combine_chunks().dictionary_encode()])
