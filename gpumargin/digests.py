"""Hashes of what went in and what came out: of values, not of files, so that any cut into parts gives the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import flat


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """Values without dictionary; timestamps as integers."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return flat(column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column)


def _text(array: pa.Array) -> memoryview:
    """The characters of a string array, one value after the other."""
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return memoryview(b"") if data is None else memoryview(data)[int(ends[0]) : int(ends[-1])]


def _values(array: pa.Array) -> tuple[bytes | memoryview, ...]:
    """Values as bytes; what stands under a null does not matter."""
    if pa.types.is_string(array.type):
        filled = pc.fill_null(array, "")
        return np.asarray(pc.binary_length(filled)).tobytes(), _text(filled)
    if pa.types.is_fixed_size_list(array.type):
        return (np.asarray(array.flatten()).tobytes(),)
    if pa.types.is_decimal(array.type):
        return _values(array.cast(pa.string()))
    filled = pc.fill_null(array, pa.scalar(0).cast(array.type))
    return (filled.to_numpy(zero_copy_only=False).tobytes(),)


class ColumnDigest:
    """Hash of a table that arrives in parts."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], Any] = {}

    def add(self, table: pa.Table) -> None:
        """Takes the next rows of the table."""
        for name in table.column_names:
            array = _plain(table[name])
            nulls = array.is_null().to_numpy(zero_copy_only=False).tobytes()
            for index, piece in enumerate((nulls, *_values(array))):
                self._running.setdefault((name, index), hashlib.sha256()).update(piece)

    def hexdigest(self) -> str:
        """Hash over all columns, by name."""
        whole = hashlib.sha256()
        for (name, index), running in sorted(self._running.items(), key=lambda item: item[0]):
            whole.update(f"{name}:{index}:{running.hexdigest()}\n".encode())
        return whole.hexdigest()


def combined_digest(digests: Mapping[str, str]) -> str:
    """One hash for several by name; of one alone it is that one."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256(
        "".join(f"{name}:{digest}\n" for name, digest in sorted(digests.items())).encode()
    ).hexdigest()


def table_digest(table: pa.Table) -> str:
    """Hash of a whole table's values in row order."""
    digest = ColumnDigest()
    digest.add(table)
    return digest.hexdigest()
