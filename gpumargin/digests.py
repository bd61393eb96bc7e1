"""Hashes of what went in and what came out: of values, not of files, so that any cut into parts gives the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import is_ascending, laid_texts, run_begins

BLOCK_ROWS = 1 << 14
"""Rows that are hashed together: enough that a block costs little, few enough to be laid aside in the middle of one and
for 16 bits to number its texts."""

Buffer = np.ndarray | memoryview


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
        self._tail: list[pa.Table] = [] if state is None or state.tail is None else [state.tail]

    @property
    def _waiting(self) -> int:
        return sum(piece.num_rows for piece in self._tail)

    @property
    def rows(self) -> int:
        """Rows so far."""
        return len(self._blocks) // hashlib.sha256().digest_size * BLOCK_ROWS + self._waiting

    def add(self, table: pa.Table) -> None:
        """Takes the next rows of the table."""
        done = 0
        if self._waiting:
            done = min(BLOCK_ROWS - self._waiting, table.num_rows)
            self._tail.append(_plain(table.slice(0, done)))
            if self._waiting == BLOCK_ROWS:
                self._blocks += _block_digest(self._joined())
                self._tail = []
            else:
                self._tail[-1] = _copied(self._tail[-1])
        while table.num_rows - done >= BLOCK_ROWS:
            self._blocks += _block_digest(table.slice(done, BLOCK_ROWS))
            self._tail, done = [], done + BLOCK_ROWS
        if done < table.num_rows or not self.rows:
            self._tail.append(_copied(table.slice(done)))

    def _joined(self) -> pa.Table:
        return pa.concat_tables(self._tail, promote_options="default")

    def hexdigest(self) -> str:
        """Hash over all columns, by name."""
        last = _block_digest(self._joined()) if self._tail else b""
        return hashlib.sha256(self._blocks + last).hexdigest()

    def state(self) -> DigestState:
        """What another process needs to go on."""
        return DigestState(bytes(self._blocks), self._joined() if self._tail else None)


def _copied(piece: pa.Table) -> pa.Table:
    """A slice without the memory of the whole table, nor the words of dictionaries that it does not use."""
    return _plain(piece.take(np.arange(piece.num_rows)))


def _plain(piece: pa.Table) -> pa.Table:
    """Texts in place of dictionaries, which differ from part to part."""
    columns = {
        name: column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for name, column in zip(piece.column_names, piece.columns, strict=True)
    }
    return pa.table(columns)


def _block_digest(table: pa.Table) -> bytes:
    """Hash of some rows: of every column, by name, its kind and contents, the length of each before it."""
    sha256 = hashlib.sha256()
    for name in sorted(table.column_names):
        column = _one_array(_hashable(table[name]))
        kind, contents = (b"texts", _texts(column)) if _is_text(column.type) else (b"numbers", _numbers(column))
        for content in (name.encode(), kind, *contents):
            sha256.update(memoryview(content).nbytes.to_bytes(8, "little"))
            sha256.update(content)
    return sha256.digest()


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    if pa.types.is_dictionary(column.type):  # of several chunks each may have words of its own
        column = column.cast(column.type.value_type)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _numbers(column: pa.Array) -> tuple[Buffer, ...]:
    """Values and places of nulls; what stands under a null does not matter."""
    nulls = np.zeros(0, np.int64)
    if column.null_count:
        nulls = np.flatnonzero(np.asarray(column.is_null()))
        column = pc.fill_null(column, pa.scalar(0).cast(column.type))
    return np.ascontiguousarray(column.to_numpy(zero_copy_only=False)), nulls


def _texts(column: pa.Array) -> tuple[Buffer, ...]:
    """Which of its distinct texts each row has, -1 = null; their lengths; their characters, in order of appearance."""
    codes, words = _in_order(column) if pa.types.is_dictionary(column.type) else _encoded(column)
    codes = codes.fill_null(-1) if codes.null_count else codes
    return np.asarray(codes).astype(np.int16), np.asarray(pc.binary_length(words)), _characters(words)


def _encoded(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Codes and words in order of appearance; of ids in their order, as results have them, none need be hashed."""
    if is_ascending(column):
        begins = run_begins(column)
        return pa.array(np.cumsum(begins, dtype=np.int32) - 1), column.take(pa.array(np.flatnonzero(begins)))
    found = column.dictionary_encode()
    return found.indices, found.dictionary


def _in_order(column: pa.DictionaryArray) -> tuple[pa.Array, pa.StringArray]:
    """Codes and words in order of appearance, each word once, whatever the dictionary that the column came with."""
    codes, places = _encoded(column.indices)
    texts = column.dictionary.take(places)
    own, words = _encoded(texts)
    return (codes, words) if len(words) == len(texts) else (own.take(codes), words)


def _characters(array: pa.StringArray) -> Buffer:
    """The characters of a string array, one value after the other."""
    starts, content = laid_texts(array)
    return content[int(starts[0]) : int(starts[-1])] if len(array) else memoryview(b"")


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


def combined_digest(digests: Mapping[str, str]) -> str:
    """One hash for several by name; of one alone it is that one."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256(
        "".join(f"{name}:{digest}\n" for name, digest in sorted(digests.items())).encode()
    ).hexdigest()


def files_digest(digests: Mapping[str, str]) -> str:
    """One hash for files by path: that of what `sha256sum` prints of them in the order of their paths."""
    lines = (f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def table_digest(table: pa.Table) -> str:
    """Hash of a whole table's values in row order."""
    digest = ColumnDigest()
    digest.add(table)
    return digest.hexdigest()
