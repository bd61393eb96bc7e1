"""One column of a caller's table, in the type a `Book` holds it in.

Each family of columns (`schema.Kind`) has one converter. A converter never guesses: a type outside `schema.ACCEPTED`, a
number that does not fit, text that is not UTF-8 raise `ColumnMismatchError` with the words for the failure table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from gpumargin.pack.columns import as_type, flat
from gpumargin.schema import ACCEPTED, ID, TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpumargin.schema import Column, Kind


_FIRST_MICROSECOND, _LAST_MICROSECOND = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Years 1 and 9999: what Python's datetime, and so every message and report, can say."""


MAX_SCALE = 18
"""Most decimals of a minor unit, as of ether's."""


class ColumnMismatchError(Exception):
    """A column that cannot become its canonical type; `code` is the failure code."""

    def __init__(self, message: str, code: str = "GM101") -> None:
        super().__init__(message)
        self.code = code


def canonical_column(values: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """The same values in the canonical type of the column.

    Args:
      values: any Arrow column; an all-null column of type null counts as every type.
      column: what the contract says of it.

    Returns:
      Column of the same length; ids as dictionaries (each chunk its own of distinct words, see `with_one_dictionary`)
      or int64.

    Raises:
      ColumnMismatchError: the type is not accepted, or a value does not fit.
    """
    try:
        converted = _CONVERTERS[column.kind](values)
    except (pa.ArrowException, OverflowError) as error:
        message = f"column {column.name!r} ({values.type}) does not fit: {error}"
        raise ColumnMismatchError(message) from error
    if converted is None:
        message = f"column {column.name!r} must be {ACCEPTED[column.kind]}, found {values.type}"
        raise ColumnMismatchError(message)
    return converted


def with_one_dictionary(table: pa.Table) -> pa.Table:
    """The table with one dictionary per column, shared by all chunks: equal codes are equal ids.

    Args:
      table: of canonical columns, the words of each chunk distinct.
    """
    return pa.table({name: _unified(table.column(name)) for name in table.column_names})


def _unified(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.unify_dictionaries() if pat.is_dictionary(values.type) and values.num_chunks > 1 else values


def _clean_dictionary(chunk: pa.DictionaryArray) -> pa.DictionaryArray:
    words = _valid_text(as_type(chunk.dictionary, pa.string()))
    return pa.DictionaryArray.from_arrays(as_type(chunk.indices, pa.int32()), words)


def _by_dictionary(values: pa.ChunkedArray) -> Iterator[pa.DictionaryArray]:
    """The rows in chunks of one dictionary each: readers cut a row group into many, whose words are all the same."""
    own = list[pa.DictionaryArray]()
    for chunk in values.chunks:
        if own and not chunk.dictionary.equals(own[0].dictionary):
            yield flat(pa.chunked_array(own))
            own = []
        own.append(chunk)
    if own:
        yield flat(pa.chunked_array(own))


def _distinct(chunk: pa.DictionaryArray) -> pa.DictionaryArray:
    """Two codes for one word, and a code for null, are legal Arrow; here there are none."""
    return chunk if _are_distinct(chunk.dictionary) else chunk.cast(pa.string()).dictionary_encode()


def _are_distinct(words: pa.StringArray) -> bool:
    """Whether no word stands twice, and none is null; words that ascend, as in sorted tables, need no hashing."""
    if words.null_count:
        return False
    ascend = pc.all(pc.less(words[:-1], words[1:]), min_count=0).as_py()
    return ascend or len(words.unique()) == len(words)


def _valid_text(words: pa.StringArray) -> pa.StringArray:
    try:
        words.validate(full=True)
    except pa.ArrowInvalid as error:
        message = f"holds text that is not UTF-8: {error}"
        raise ColumnMismatchError(message, "GM118") from error
    return words


def _is_text(dtype: pa.DataType) -> bool:
    return any(test(dtype) for test in (pat.is_null, pat.is_string, pat.is_large_string, pat.is_string_view))


def _is_number(dtype: pa.DataType) -> bool:
    return any(test(dtype) for test in (pat.is_null, pat.is_floating, pat.is_integer, pat.is_decimal))


def _words(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    is_coded = pat.is_dictionary(values.type)
    if not _is_text(values.type.value_type if is_coded else values.type):
        return None
    if is_coded:
        return pa.chunked_array([_distinct(_clean_dictionary(chunk)) for chunk in _by_dictionary(values)], type=ID)
    # 64-bit offsets: the words of one chunk may take more than 2 GiB, its distinct words rarely do
    codes = values.cast(pa.large_string()).dictionary_encode()
    return pa.chunked_array([_clean_dictionary(chunk) for chunk in codes.chunks], type=ID)


def _ids(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    if pat.is_dictionary(values.type) and pat.is_integer(values.type.value_type):
        values = values.cast(values.type.value_type)
    return as_type(values, pa.int64()) if pat.is_integer(values.type) else _words(values)


def _numbers(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    return as_type(values, pa.float64()) if _is_number(values.type) else None


def _amounts(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    if pat.is_integer(values.type):
        return as_type(values, pa.int64())
    if pat.is_decimal(values.type):
        if values.type.scale > MAX_SCALE:
            message = f"is {values.type}: at most {MAX_SCALE} decimals are read"
            raise ColumnMismatchError(message, "GM116")
        return values if pat.is_decimal128(values.type) else values.cast(pa.decimal128(38, values.type.scale))
    return _numbers(values)


def _integers(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    return as_type(values, pa.int64()) if pat.is_null(values.type) or pat.is_integer(values.type) else None


def _flags(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    return as_type(values, pa.bool_()) if pat.is_null(values.type) or pat.is_boolean(values.type) else None


def _times(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    if pat.is_null(values.type):
        return values.cast(TIME)
    if not pat.is_timestamp(values.type):
        return None
    # only nanoseconds lose digits on the way to microseconds, and dividing them cannot overflow
    micros = as_type(values, pa.timestamp("us", values.type.tz), safe=values.type.unit != "ns")
    micros = as_type(micros, TIME)
    _refuse_odd_years(micros)
    return micros


def _refuse_odd_years(micros: pa.ChunkedArray) -> None:
    numbers = pc.min_max(micros.cast(pa.int64())).as_py()
    low, high = numbers["min"], numbers["max"]
    if low is not None and not (_FIRST_MICROSECOND <= low <= high <= _LAST_MICROSECOND):
        message = f"timestamps from {low} to {high} us since 1970 leave the years 1 to 9999; looks like another unit"
        raise ColumnMismatchError(message)


_CONVERTERS: dict[Kind, Callable[[pa.ChunkedArray], pa.ChunkedArray | None]] = {
    "id": _ids,
    "enum": _words,
    "number": _numbers,
    "amount": _amounts,
    "integer": _integers,
    "flag": _flags,
    "time": _times,
}
