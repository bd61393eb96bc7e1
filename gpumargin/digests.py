"""Hashes of what went in and what came out: of values, not of files, so that any cut into parts gives the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLOCK_ROWS = 1 << 14
"""Rows that are hashed together: enough that a block costs little, few enough to be laid aside in the middle of one."""


class _Numbers:
    """Running hash of a column of numbers: values and places of nulls; what stands under a null does not matter."""

    def __init__(self) -> None:
        self._values, self._nulls, self._rows = hashlib.sha256(), hashlib.sha256(), 0

    def add(self, column: pa.ChunkedArray) -> None:
        for chunk in column.chunks:
            if chunk.null_count:
                self._nulls.update(np.flatnonzero(np.asarray(chunk.is_null())) + self._rows)
                chunk = pc.fill_null(chunk, pa.scalar(0).cast(chunk.type))
            self._values.update(np.ascontiguousarray(chunk.to_numpy(zero_copy_only=False)))
            self._rows += len(chunk)

    def hexdigest(self) -> str:
        return f"{self._rows}:{self._values.hexdigest()}:{self._nulls.hexdigest()}"


class _Texts:
    """Running hash of a column of texts as runs of equal ones: length (-1 = null), characters, and how often."""

    def __init__(self) -> None:
        self._lengths, self._characters, self._counts = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._last: tuple[str | None, int] | None = None  # the run that the next rows may go on with

    def add(self, column: pa.ChunkedArray) -> None:
        for chunk in column.chunks:
            if len(chunk):
                self._add(chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode())

    def _add(self, chunk: pa.DictionaryArray) -> None:
        indices = chunk.indices if pa.types.is_signed_integer(chunk.indices.type) else chunk.indices.cast(pa.int64())
        codes = np.asarray(indices.fill_null(-1))
        heads = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
        counts = np.diff(np.append(heads, len(codes)))
        texts = chunk.dictionary.take(pa.array(codes[heads], mask=codes[heads] < 0)).cast(pa.string())
        if self._last is not None:
            text, count = self._last
            if text == texts[0].as_py():
                counts[0] += count
            else:
                self._take(pa.array([text], pa.string()), np.array([count]))
        self._take(texts[:-1], counts[:-1])
        self._last = (texts[-1].as_py(), int(counts[-1]))

    def _take(self, texts: pa.StringArray, counts: np.ndarray) -> None:
        self._lengths.update(np.asarray(pc.fill_null(pc.binary_length(texts), -1)))
        self._characters.update(_characters(pc.fill_null(texts, "") if texts.null_count else texts))
        self._counts.update(np.ascontiguousarray(counts, np.int64))

    def hexdigest(self) -> str:
        done = _Texts()
        hashes = (self._lengths, self._characters, self._counts)
        done._lengths, done._characters, done._counts = (each.copy() for each in hashes)
        if self._last is not None:
            done._take(pa.array([self._last[0]], pa.string()), np.array([self._last[1]]))
        return ":".join(each.hexdigest() for each in (done._lengths, done._characters, done._counts))


def _characters(array: pa.Array) -> memoryview:
    """The characters of a string array, one value after the other."""
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return memoryview(b"") if data is None or not len(array) else memoryview(data)[int(ends[0]) : int(ends[-1])]


def _hashable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts with or without dictionary, or values of eight bytes or fewer."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64())
    if pa.types.is_decimal(column.type):
        return column.cast(pa.string())
    if pa.types.is_fixed_size_list(column.type):
        return pa.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)
    if pa.types.is_dictionary(column.type) and not pa.types.is_string(column.type.value_type):
        return _hashable(column.cast(column.type.value_type))
    if pa.types.is_large_string(column.type):
        return column.cast(pa.string())
    return column


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(dtype) or pa.types.is_string(dtype))


class DigestState(NamedTuple):
    """A hash that was laid aside: of the full blocks, and the rows since then."""

    blocks: bytes
    tail: pa.Table | None


class ColumnDigest:
    """Hash of a table that arrives in parts: the hash of the hashes of its blocks of `BLOCK_ROWS` rows.

    The blocks do not depend on the parts, and what is behind a full block is never needed again: so the hash can be
    laid aside with few rows, and taken up by another process.

    Args:
      state: what was laid aside; None = nothing so far.
    """

    def __init__(self, state: DigestState | None = None) -> None:
        self._blocks = bytearray(state.blocks if state else b"")
        self._open, self._tail = _Block(), list[pa.Table]()
        if state is not None and state.tail is not None:
            self.add(state.tail)

    @property
    def rows(self) -> int:
        """Rows so far."""
        return len(self._blocks) // hashlib.sha256().digest_size * BLOCK_ROWS + self._open.rows

    def add(self, table: pa.Table) -> None:
        """Takes the next rows of the table."""
        done = 0
        while True:
            rows = min(BLOCK_ROWS - self._open.rows, table.num_rows - done)
            piece = table.slice(done, rows)
            self._open.add(piece)
            done += rows
            if self._open.rows < BLOCK_ROWS:
                self._tail.append(_copied(piece))
                return
            self._blocks += self._open.digest()
            self._open, self._tail = _Block(), []
            if done == table.num_rows:
                self._open.add(table.slice(done))
                self._tail.append(_copied(table.slice(0, 0)))
                return

    def hexdigest(self) -> str:
        """Hash over all columns, by name."""
        return hashlib.sha256(self._blocks + self._open.digest()).hexdigest()

    def state(self) -> DigestState:
        """What another process needs to go on."""
        tail = pa.concat_tables(self._tail, promote_options="default") if self._tail else None
        return DigestState(bytes(self._blocks), tail)


def _copied(piece: pa.Table) -> pa.Table:
    """A slice without the memory of the whole table, nor the words of dictionaries that it does not use."""
    taken = piece.take(np.arange(piece.num_rows))
    columns = {
        name: column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for name, column in zip(taken.column_names, taken.columns, strict=True)
    }
    return pa.table(columns)


class _Block:
    """Running hash of consecutive rows, column by column."""

    def __init__(self) -> None:
        self.rows = 0
        self._running: dict[str, _Numbers | _Texts] = {}

    def add(self, table: pa.Table) -> None:
        for name in table.column_names:
            column = _hashable(table[name])
            if name not in self._running:
                self._running[name] = _Texts() if _is_text(column.type) else _Numbers()
            self._running[name].add(column)
        self.rows += table.num_rows

    def digest(self) -> bytes:
        lines = (f"{name}:{running.hexdigest()}\n" for name, running in sorted(self._running.items()))
        return hashlib.sha256("".join(lines).encode()).digest()


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
