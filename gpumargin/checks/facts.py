"""What several rules need to know of a book, computed once: ids as integer codes, and which of them are used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime, timedelta

    from gpumargin.tables import Book


@dataclass(frozen=True, slots=True)
class Coded:
    """A column as integers: `codes` `[n]` int32 index into `words`, -1 for null; equal codes are equal values."""

    codes: np.ndarray
    words: pa.Array

    def used_words(self) -> pa.Array:
        """Words that at least one row holds; a dictionary may carry others."""
        used = np.zeros(len(self.words) + 1, bool)
        used[self.codes] = True
        return self.words.filter(pa.array(used[:-1]))

    def rows_with(self, is_wanted: np.ndarray) -> np.ndarray:
        """Rows whose word is wanted, `is_wanted` `[len(words)]`; null never is."""
        if not is_wanted.any():
            return np.empty(0, np.int64)
        # code -1 (null) picks the appended False
        return np.flatnonzero(np.append(is_wanted, False)[self.codes])


class Extent(NamedTuple):
    """Smallest and largest of some numbers: NaN if one of them is, or nothing is known of them."""

    low: float
    high: float

    @property
    def is_finite(self) -> bool:
        """Whether every number is."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def size(self) -> float:
        """Of the largest, without its sign."""
        return max(-self.low, self.high)


_UNKNOWN, _NOTHING = Extent(np.nan, np.nan), Extent(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the caller of a check decides: see `check_book`."""

    as_of: datetime | None
    kinds: Collection[str] | None
    accounting: str | None
    vol_limit: float
    tenor_limit_years: float
    max_age: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """A book with its coded columns and how far its numbers go, found out on first use and kept for the other rules."""

    book: Book
    _coded: dict[tuple[str, str], Coded] = field(default_factory=dict, repr=False)
    _extents: dict[tuple[str, str], Extent] = field(default_factory=dict, repr=False)

    def column(self, table: str, column: str) -> pa.ChunkedArray | None:
        """A column of the book, None where the table or the column was not given."""
        found = self.book.tables.get(table)
        at = -1 if found is None else found.schema.get_field_index(column)
        return None if found is None or at < 0 else found.column(at)

    def coded(self, table: str, column: str) -> Coded:
        """Codes of a column; an absent one is all null."""
        if (table, column) not in self._coded:
            values = self.column(table, column)
            nothing = pa.nulls(self.book.num_rows(table), pa.string())
            self._coded[table, column] = _encode(pa.chunked_array([nothing]) if values is None else values)
        return self._coded[table, column]

    def extent(self, table: str, column: str) -> Extent:
        """How far the numbers of a column go, nulls aside: lets a rule pass it without a look at every row."""
        if (table, column) not in self._extents:
            self._extents[table, column] = _extent(self.column(table, column))
        return self._extents[table, column]


def _extent(values: pa.ChunkedArray | None) -> Extent:
    if values is None or not pat.is_float64(values.type):
        return _UNKNOWN
    numbers = [np.asarray(chunk.drop_null() if chunk.null_count else chunk) for chunk in values.chunks]
    ends = [(float(chunk.min()), float(chunk.max())) for chunk in numbers if len(chunk)]
    if not ends:
        return _NOTHING
    low, high = np.array(ends).T
    return Extent(float(low.min()), float(high.max()))


def _encode(values: pa.ChunkedArray) -> Coded:
    if pat.is_timestamp(values.type):
        values = values.cast(pa.int64())
    encoded = values if pat.is_dictionary(values.type) else values.dictionary_encode()
    chunks = encoded.chunks
    if not chunks:
        return Coded(np.empty(0, np.int32), pa.array([], encoded.type.value_type))
    codes = [np.asarray(chunk.indices.fill_null(-1) if chunk.indices.null_count else chunk.indices) for chunk in chunks]
    return Coded(codes[0] if len(codes) == 1 else np.concatenate(codes), chunks[0].dictionary)
