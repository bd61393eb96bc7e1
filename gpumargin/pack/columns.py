"""Arrow columns as numpy arrays and integer codes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

Column = TypeVar("Column", pa.Array, pa.ChunkedArray)

MICROSECONDS_PER_YEAR = 365 * 86_400 * 1_000_000


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One contiguous array; dictionaries of several chunks are unified."""
    if isinstance(column, pa.Array):
        return column
    if pa.types.is_dictionary(column.type) and column.num_chunks > 1:
        return _flat_dictionary(column)
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _flat_dictionary(column: pa.ChunkedArray) -> pa.Array:
    """Chunks that share one dictionary, as readers leave them, are joined without hashing its words again."""
    words = column.chunk(0).dictionary
    if not all(chunk.dictionary.equals(words) for chunk in column.chunks):
        column = column.unify_dictionaries()
        words = column.chunk(0).dictionary
    indices = pa.chunked_array([chunk.indices for chunk in column.chunks]).combine_chunks()
    return pa.DictionaryArray.from_arrays(indices, words)


def as_type(values: Column, kind: pa.DataType, *, safe: bool = True) -> Column:
    """Values in a type; themselves where they have it already, for a cast that changes nothing costs a call as well."""
    return values if values.type == kind else values.cast(kind, safe=safe)


def floats(table: pa.Table, name: str, default: float = np.nan) -> Floats:
    """A column as float64 `[rows]`; nulls, and a column that is absent, give `default`."""
    if name not in table.column_names:
        return np.full(table.num_rows, default)
    column = as_type(flat(table[name]), pa.float64())
    return np.asarray(pc.fill_null(column, default) if column.null_count else column)


def flags(table: pa.Table, name: str, *, default: bool) -> Bools:
    """A boolean column `[rows]`; nulls, and a column that is absent, give `default`."""
    if name not in table.column_names:
        return np.full(table.num_rows, default)
    return np.asarray(pc.fill_null(flat(table[name]), default).to_numpy(zero_copy_only=False), bool)


def instants(table: pa.Table, name: str, missing: int) -> Ints:
    """A timestamp column as microseconds since 1970 `[rows]`; nulls give `missing`."""
    column = as_type(flat(table[name]), pa.timestamp("us", "UTC")).cast(pa.int64())
    return np.asarray(pc.fill_null(column, missing))


def encoded(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Codes `[rows]` into distinct values; nulls have code -1."""
    array = flat(column)
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    indices = array.indices
    codes = pc.fill_null(indices, -1) if indices.null_count else indices
    return np.asarray(codes), array.dictionary


def is_ascending(values: pa.Array) -> bool:
    """Whether no value is less than the one before it; False where there are nulls."""
    return not values.null_count and bool(pc.all(pc.less_equal(values[:-1], values[1:]), min_count=0).as_py())


def run_begins(values: pa.Array) -> Bools:
    """True where a value is not the one before it `[n]`; no nulls."""
    begins = np.ones(len(values), bool)
    begins[1:] = pc.not_equal(values[1:], values[:-1])
    return begins


def _by_word(table: pa.Table, name: str, say: Callable[[Any], object], null: object, dtype: Any) -> np.ndarray:
    """What each distinct value of a column says, `[rows]`; `null` for nulls, and where the column is absent."""
    if name not in table.column_names:
        return np.repeat(np.array([null], dtype), table.num_rows)
    codes, distinct = encoded(table[name])
    said = [*map(say, distinct.to_numpy(zero_copy_only=False).tolist()), null]  # code -1 takes the last
    return np.asarray(np.array(said, dtype)[codes])


def texts(table: pa.Table, name: str) -> np.ndarray:
    """A column of ids or words as numpy objects `[rows]` (small tables only); nulls, and an absent column, are None."""
    return _by_word(table, name, lambda word: word, None, object)


def strings(table: pa.Table, name: str) -> np.ndarray:
    """`texts` as numpy strings `[rows]`; nulls, and an absent column, are `None` in letters."""
    return _by_word(table, name, str, str(None), np.str_)


def numbers_of(table: pa.Table, name: str, numbers: Mapping[str, float]) -> Floats:
    """The number of each word of a column `[rows]`, NaN where there is none."""
    return _by_word(table, name, lambda word: numbers.get(str(word), np.nan), np.nan, np.float64)


def is_one_of(table: pa.Table, name: str, chosen: Collection[str]) -> Bools:
    """Whether a column holds one of some words `[rows]`; null is none."""
    return _by_word(table, name, lambda word: str(word) in chosen, False, np.bool_)


def laid_texts(array: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """Where the strings of an array begin, one number more for the end, int32, and their bytes as they lie."""
    if not len(array):  # which need not have any buffers
        return np.zeros(1, np.int32), np.zeros(0, np.uint8)
    _, starts, content = array.buffers()
    begin = np.frombuffer(starts, np.int32)[array.offset : array.offset + len(array) + 1]
    return begin, np.frombuffer(b"" if content is None else content, np.uint8)


def positions_in(values: pa.Array, known: pa.Array) -> np.ndarray:
    """Index of each value in `known`, -1 where it is not there; compared as text unless both are integers."""
    if values.type != known.type:
        values, known = values.cast(pa.string()), known.cast(pa.string())
    return np.asarray(pc.fill_null(pc.index_in(values, value_set=known), -1))


def plain(table: pa.Table, name: str) -> pa.Array:
    """A column without a dictionary `[rows]`, instants as integers; an absent one is all null."""
    column = flat(table[name]) if name in table.column_names else pa.nulls(table.num_rows, pa.string())
    if isinstance(column, pa.DictionaryArray):
        return column.dictionary_decode()
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


def key_codes(tables: Sequence[pa.Table], key: Collection[str]) -> list[np.ndarray]:
    """Number of every row's key, the same in all tables where the keys are equal."""
    found = [np.zeros(table.num_rows, np.int64) for table in tables]
    for name in key:
        columns = [plain(table, name) for table in tables]
        if len({column.type for column in columns}) > 1:  # an empty table may have strings where ids are integers
            columns = [column.cast(pa.string()) for column in columns]
        words = pa.chunked_array([column.unique() for column in columns]).unique()
        for i, column in enumerate(columns):
            found[i] = found[i] * (len(words) + 1) + positions_in(column, words) + 1
    return found


def common_codes(columns: Sequence[pa.ChunkedArray]) -> tuple[pa.Array, list[np.ndarray]]:
    """Codes of several columns against their common sorted values.

    Returns:
      The distinct values in ascending order, and one `[rows]` array of int64 codes per column.
    """
    parts = [encoded(column) for column in columns]
    merged = pa.chunked_array([values for _, values in parts])
    distinct = flat(merged.dictionary_encode())
    order = np.asarray(pc.sort_indices(distinct.dictionary))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    of_word = rank[np.asarray(distinct.indices)]
    starts = np.cumsum([0, *(len(values) for _, values in parts)])
    codes = [of_word[start : start + len(v)][c] for start, (c, v) in zip(starts[:-1], parts, strict=True)]
    return distinct.dictionary.take(pa.array(order)), codes
