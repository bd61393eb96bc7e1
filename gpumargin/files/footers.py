"""What a Parquet file says of itself, parsed here: pyarrow ends the process over a footer that contradicts itself.

(`RowGroupMetaData.column` lets an exception of C++ pass where nothing can catch it, seen in pyarrow 26.0.1; reading is
free of that.) A footer is sane if its numbers agree with each other and with the file, and its pages with it; so what a
file decodes to is known before anything is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from gpumargin.errors import RefusedError
from gpumargin.files.thrift import Wanted, read_struct

MAX_COLUMNS, MAX_CHUNKS = 1_000, 50_000
MAX_FOOTER_BYTES = 1 << 24
MAX_TEXT, MAX_TEXT_PER_ROW = 1 << 26, 1 << 10
"""Bytes that a column of a row group may take: the first, and for every row the second."""

_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_TAIL = 8
_HEADER_BYTES, _LARGEST_HEADER = 256, 1 << 20
_STATISTICS: Wanted = {3: ("nulls", int, None), 5: ("high", bytes, None), 6: ("low", bytes, None)}
_META: Wanted = {
    3: ("path", list, None),
    5: ("values", int, None),
    6: ("uncompressed", int, None),
    7: ("compressed", int, None),
    9: ("data", int, None),
    11: ("dictionary", int, None),
    12: ("statistics", dict, _STATISTICS),
}
_COLUMN: Wanted = {3: ("meta", dict, _META), 8: ("crypto", dict, None)}
_GROUP: Wanted = {1: ("columns", list, _COLUMN), 3: ("rows", int, None)}
_FOOTER: Wanted = {3: ("rows", int, None), 4: ("groups", list, _GROUP)}
_PAGE_VALUES: Wanted = {1: ("values", int, None)}
_PAGE: Wanted = {
    2: ("uncompressed", int, None),
    3: ("compressed", int, None),
    5: ("data", dict, _PAGE_VALUES),
    8: ("data", dict, _PAGE_VALUES),
}

ReadAt = Callable[[int, int], bytes]
"""Bytes of a file: how many, from where."""


class Chunk(NamedTuple):
    """One column of a row group.

    Attributes:
      start: of its first page in the file.
      end: of its last.
      values: in it, nulls included.
      uncompressed: bytes of its pages before compression.
      low: smallest value as the file writes it; None if it does not say, or has nulls.
      high: largest.
    """

    start: int
    end: int
    values: int
    uncompressed: int
    low: bytes | None
    high: bytes | None


class Group(NamedTuple):
    """A row group: its rows, and its plain columns by name."""

    rows: int
    chunks: dict[str, Chunk]


def parse_footer(read_at: ReadAt, size: int) -> list[Group]:
    """The row groups of a file of `size` bytes.

    Raises:
      RefusedError: it is no whole Parquet file, is encrypted, or its numbers contradict each other or the file.
    """
    length = footer_length(read_at, size)
    end = size - _TAIL - length
    try:
        footer, _ = read_struct(read_at(length, end), 0, _FOOTER)
        groups = [_group(found, end) for found in footer["groups"]]
        declared = footer["rows"]
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        message = f"its footer is torn: {error or type(error).__name__}"
        raise RefusedError(message) from error
    rows = sum(group.rows for group in groups)
    if rows != declared:
        message = f"its row groups have {rows:,} rows together, its footer says {declared:,}"
        raise RefusedError(message)
    _refuse_overlap(groups)
    return groups


def footer_length(read_at: ReadAt, size: int) -> int:
    """Bytes of the footer of a file of `size` bytes.

    Raises:
      RefusedError: the file is no whole Parquet file, is encrypted, or has a footer larger than any that is read.
    """
    tail = read_at(_TAIL, max(size - _TAIL, 0))
    length, magic = int.from_bytes(tail[:4], "little"), tail[4:]
    if magic == _ENCRYPTED:
        message = "it is encrypted; write it without encryption"
        raise RefusedError(message)
    if size < 12 or magic != _MAGIC or length > size - 12:
        message = f"it is no whole Parquet file: {size:,} bytes that end in {tail!r}"
        raise RefusedError(message)
    refuse_many("bytes of footer", length, MAX_FOOTER_BYTES)
    return length


def refuse_many(what: str, found: int, most: int) -> None:
    """Raises RefusedError if a file has more of something than is read of any file."""
    if not 0 <= found <= most:
        message = f"it has {found:,} {what}, at most {most:,} are read"
        raise RefusedError(message)


def _group(found: dict[str, Any], end: int) -> Group:
    rows = found["rows"]
    chunks = {}
    for column in found["columns"]:
        if "meta" not in column or "crypto" in column:
            message = "it has encrypted columns; write it without encryption"
            raise RefusedError(message)
        path = [name.decode() for name in column["meta"]["path"]]
        chunk = _chunk(column["meta"], end)
        if len(path) == 1:
            _refuse_odd(path[0], chunk, rows)
            chunks[path[0]] = chunk
    if rows < 0:
        message = f"a row group says {rows:,} rows"
        raise RefusedError(message)
    return Group(rows, chunks)


def _chunk(meta: dict[str, Any], end: int) -> Chunk:
    # a column without rows has no page of data, and none of words unless its writer leaves an empty one
    places = [meta[name] for name in ("dictionary", "data") if meta.get(name, 0) != 0]
    if not places and meta["values"] == 0:
        return Chunk(0, 0, 0, 0, None, None)
    start = min(places, default=0)
    statistics = meta.get("statistics", {})
    low, high = (None, None) if statistics.get("nulls") else (statistics.get("low"), statistics.get("high"))
    chunk = Chunk(start, start + meta["compressed"], meta["values"], meta["uncompressed"], low, high)
    if not len(_MAGIC) <= chunk.start <= chunk.end <= end or chunk.uncompressed < 0:
        message = f"a column of it is said to lie at bytes {chunk.start:,} to {chunk.end:,} of {end:,}"
        raise RefusedError(message)
    return chunk


def _refuse_odd(name: str, chunk: Chunk, rows: int) -> None:
    if chunk.values != rows:
        message = f"a row group says {rows:,} rows, its column {name!r} {chunk.values:,} values"
        raise RefusedError(message)
    most = MAX_TEXT + MAX_TEXT_PER_ROW * rows
    if chunk.uncompressed > most:
        message = f"column {name!r} takes {chunk.uncompressed:,} bytes for {rows:,} rows, at most {most:,} are read"
        raise RefusedError(message)


def _refuse_overlap(groups: Sequence[Group]) -> None:
    """Pages that several columns share would decode to more than the file holds."""
    places = sorted((chunk.start, chunk.end) for group in groups for chunk in group.chunks.values())
    if any(first[1] > second[0] for first, second in pairwise(places)):
        message = "columns of it lie over each other"
        raise RefusedError(message)


def refuse_pages(read_at: ReadAt, group: Group, names: Collection[str]) -> None:
    """Raises RefusedError unless the pages of these columns hold what the footer says, by their own headers."""
    for name in names:
        chunk = group.chunks.get(name)
        if chunk is None:
            continue
        pages = [*_pages(read_at, chunk)]
        values, size = (sum(part) for part in zip(*pages, strict=True)) if pages else (0, 0)
        if values != chunk.values or size > chunk.uncompressed:
            message = (
                f"the pages of column {name!r} have {values:,} values in {size:,} bytes, its footer says "
                f"{chunk.values:,} in {chunk.uncompressed:,}"
            )
            raise RefusedError(message)


def _pages(read_at: ReadAt, chunk: Chunk) -> Iterator[tuple[int, int]]:
    """Values of every page, none for a page of words, and its bytes before compression."""
    at = chunk.start
    while at < chunk.end:
        page, end = _page(read_at, at, chunk.end)
        at += end + page["compressed"]
        if page["compressed"] < 0 or page["uncompressed"] < 0 or at > chunk.end:
            message = f"a page of it is said to take {page['compressed']:,} bytes"
            raise RefusedError(message)
        yield page.get("data", {}).get("values", 0), page["uncompressed"]


def _page(read_at: ReadAt, at: int, end: int) -> tuple[dict[str, Any], int]:
    """A page's header, and its length."""
    length = _HEADER_BYTES
    while True:
        data = read_at(min(length, end - at), at)
        try:
            page, used = read_struct(data, 0, _PAGE)
        except IndexError as error:
            if length < min(end - at, _LARGEST_HEADER):
                length *= 16
                continue
            message = "the header of a page is torn"
            raise RefusedError(message) from error
        except (RecursionError, ValueError) as error:
            message = f"the header of a page is torn: {error}"
            raise RefusedError(message) from error
        if not {"compressed", "uncompressed"} <= page.keys():
            message = "the header of a page is torn"
            raise RefusedError(message)
        return page, used
