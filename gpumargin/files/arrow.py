"""What an Arrow IPC file says that its compressed buffers unpack to, read before any is.

A compressed buffer begins with its length before compression, to which pyarrow holds it; where the buffers lie is said
in flatbuffers, of which this reads the few fields that matter: Footer (dictionaries, recordBatches), Message (header)
and RecordBatch (buffers, compression).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gpumargin.errors import RefusedError

ReadAt = Callable[[int, int], bytes]
"""Bytes of a file: how many, from where."""

_MAGIC = b"ARROW1"
_TAIL = 4 + len(_MAGIC)
_MOST_METADATA = 1 << 26
_DICTIONARIES, _BATCHES = 2, 3
_HEADER_TYPE, _HEADER = 1, 2
_DICTIONARY_BATCH, _DATA = 2, 1
_BUFFERS, _COMPRESSION = 2, 3
_MARK, _PREFIX = b"\xff" * 4, 8  # of a message: a mark, which old files lack, and the length of its metadata
_UNCOMPRESSED = -1


class _Table(NamedTuple):
    """A table of a flatbuffer: its fields by number."""

    data: bytes
    at: int

    def place(self, field: int) -> int | None:
        """Where a field stands; None if it is absent."""
        names = self.at - _number("<i", self.data, self.at)
        slot = 4 + 2 * field
        if slot >= _number("<H", self.data, names):
            return None
        offset = _number("<H", self.data, names + slot)
        return self.at + offset if offset else None

    def table(self, field: int) -> _Table | None:
        """A table in a field."""
        place = self.place(field)
        return None if place is None else _Table(self.data, place + _number("<I", self.data, place))

    def items(self, field: int, form: str) -> Iterator[tuple[int, ...]]:
        """Structs of a vector in a field."""
        place = self.place(field)
        if place is not None:
            start = place + _number("<I", self.data, place)
            size = struct.calcsize(form)
            for number in range(_number("<I", self.data, start)):
                yield struct.unpack_from(form, self.data, start + 4 + number * size)


def _number(form: str, data: bytes, at: int) -> int:
    if at < 0:
        message = f"a place before the beginning: {at}"
        raise ValueError(message)
    found: int = struct.unpack_from(form, data, at)[0]
    return found


def _root(data: bytes) -> _Table:
    return _Table(data, _number("<I", data, 0))


def unpacked_bytes(read_at: ReadAt, size: int) -> int:
    """Bytes that the compressed buffers of a file of `size` bytes say to unpack to.

    Raises:
      RefusedError: it is no whole Arrow file, or its footer is torn.
    """
    tail = read_at(_TAIL, max(size - _TAIL, 0))
    length = int.from_bytes(tail[:4], "little", signed=True)
    if tail[4:] != _MAGIC or not 0 < length <= min(size - _TAIL, _MOST_METADATA):
        message = f"it is no whole Arrow IPC file: {size:,} bytes that end in {tail!r}"
        raise RefusedError(message)
    try:
        footer = _root(read_at(length, size - _TAIL - length))
        blocks = [block for field in (_DICTIONARIES, _BATCHES) for block in footer.items(field, "<qi4xq")]
        return sum(_of_block(read_at, size, block) for block in blocks)
    except (struct.error, ValueError) as error:
        message = f"its footer is torn: {error}"
        raise RefusedError(message) from error


def _of_block(read_at: ReadAt, size: int, block: tuple[int, ...]) -> int:
    offset, metadata, body = block
    if not (0 <= offset <= size and 0 <= metadata <= min(size - offset, _MOST_METADATA) and 0 <= body <= size):
        message = f"a block of {body:,} bytes at {offset:,}, of {size:,}"
        raise ValueError(message)
    data = read_at(metadata, offset)
    message_at = _root(data[_PREFIX:] if data.startswith(_MARK) else data[_PREFIX - len(_MARK) :])
    batch = message_at.table(_HEADER)
    kind = message_at.place(_HEADER_TYPE)
    if batch is not None and kind is not None and _number("<B", message_at.data, kind) == _DICTIONARY_BATCH:
        batch = batch.table(_DATA)
    if batch is None or batch.table(_COMPRESSION) is None:
        return 0
    return sum(_of_buffer(read_at, offset + metadata + at, length) for at, length in batch.items(_BUFFERS, "<qq"))


def _of_buffer(read_at: ReadAt, at: int, length: int) -> int:
    if length < _PREFIX or at < 0:
        return 0  # nothing in it, or no place: pyarrow's to refuse
    said = _number("<q", read_at(_PREFIX, at), 0)
    if said < _UNCOMPRESSED:
        message = f"a buffer of {said:,} bytes"
        raise ValueError(message)
    return length if said == _UNCOMPRESSED else said
