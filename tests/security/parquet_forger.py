"""Parquet files whose footers and page headers say what their maker wants."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.security import thrift
from tests.security.thrift import Struct

MAGIC = b"PAR1"
# Numbers of fields in parquet.thrift.
VERSION, SCHEMA, NUM_ROWS, ROW_GROUPS = 1, 2, 3, 4
COLUMNS, GROUP_ROWS = 1, 3
COLUMN_META = 3
NUM_VALUES, UNCOMPRESSED, COMPRESSED, DATA_OFFSET, DICTIONARY_OFFSET = 5, 6, 7, 9, 11
PAGE_UNCOMPRESSED, PAGE_COMPRESSED, PAGE_CRC, DATA_PAGE = 2, 3, 4, 5


def footer_of(path: Path) -> Struct:
    data = path.read_bytes()
    length = struct.unpack("<I", data[-8:-4])[0]
    return thrift.parse(data[-8 - length : -8])[0]


def with_footer(body: bytes, footer: Struct) -> bytes:
    packed = thrift.pack(footer)
    return body + packed + struct.pack("<I", len(packed)) + MAGIC


def forge(path: Path, change: Callable[[Struct], None]) -> None:
    """Rewrites a file's footer after a change to it."""
    data = path.read_bytes()
    length = struct.unpack("<I", data[-8:-4])[0]
    footer = footer_of(path)
    change(footer)
    path.write_bytes(with_footer(data[: -8 - length], footer))


def groups(footer: Struct) -> list[Struct]:
    return list(footer[ROW_GROUPS][1][1])


def column_metas(footer: Struct) -> list[Struct]:
    return [column[COLUMN_META][1] for group in groups(footer) for column in group[COLUMNS][1][1]]


def put(record: Struct, field: int, value: Any) -> None:
    """Another value in a field that is there."""
    record[field] = record[field][0], value


def repeat_groups(times: int) -> Callable[[Struct], None]:
    """The same row groups over and over, all pointing at the same pages."""

    def change(footer: Struct) -> None:
        kind, found = footer[ROW_GROUPS][1]
        put(footer, ROW_GROUPS, (kind, [thrift.pack(group) for group in found] * times))
        put(footer, NUM_ROWS, footer[NUM_ROWS][1] * times)

    return change


def forge_page(path: Path, change: Callable[[Struct], None], column: int = 0) -> None:
    """Rewrites the header of the first data page of a column; every offset behind it moves along."""
    data, footer = path.read_bytes(), footer_of(path)
    at = column_metas(footer)[column][DATA_OFFSET][1]
    header, end = thrift.parse(data, at)
    change(header)
    packed = thrift.pack(header)
    shift = len(packed) - (end - at)
    length = struct.unpack("<I", data[-8:-4])[0]
    body = data[:at] + packed + data[end : -8 - length]
    for number, meta in enumerate(column_metas(footer)):
        if number == column:
            put(meta, COMPRESSED, meta[COMPRESSED][1] + shift)
        for field in (DATA_OFFSET, DICTIONARY_OFFSET):
            if field in meta and meta[field][1] > at:
                put(meta, field, meta[field][1] + shift)
    path.write_bytes(with_footer(body, footer))


def chunk_end(meta: Struct) -> int:
    start = min(meta[field][1] for field in (DATA_OFFSET, DICTIONARY_OFFSET) if field in meta)
    return int(start + meta[COMPRESSED][1])


def moved(group: Struct, shift: int) -> Struct:
    """A row group whose pages lie further back."""
    group = copy.deepcopy(group)
    for column in group[COLUMNS][1][1]:
        meta = column[COLUMN_META][1]
        for field in (DATA_OFFSET, DICTIONARY_OFFSET):
            if field in meta:
                put(meta, field, meta[field][1] + shift)
    return group


def page_bodies(path: Path) -> list[range]:
    """Where the pages of a file lie, without their headers."""
    data, found = path.read_bytes(), []
    for meta in column_metas(footer_of(path)):
        at = min(meta[field][1] for field in (DATA_OFFSET, DICTIONARY_OFFSET) if field in meta)
        while at < chunk_end(meta):
            header, start = thrift.parse(data, at)
            at = start + header[PAGE_COMPRESSED][1]
            found.append(range(start, at))
    return found


def wide(columns: int) -> bytes:
    """A file without rows and with many columns."""
    leaf = {1: (thrift.I32, 5), 3: (thrift.I32, 1)}
    root = {4: (thrift.BINARY, b"schema"), 5: (thrift.I32, columns)}
    leaves = [leaf | {4: (thrift.BINARY, f"c{number}".encode())} for number in range(columns)]
    return with_footer(MAGIC, _empty([root, *leaves]))


def deep(levels: int) -> bytes:
    """A file without rows, one column nested many levels deep."""
    inner = {3: (thrift.I32, 1), 4: (thrift.BINARY, b"a"), 5: (thrift.I32, 1)}
    root = {4: (thrift.BINARY, b"schema"), 5: (thrift.I32, 1)}
    leaf = {1: (thrift.I32, 5), 3: (thrift.I32, 1), 4: (thrift.BINARY, b"x")}
    return with_footer(MAGIC, _empty([root, *[inner] * levels, leaf]))


def _empty(schema: list[Struct]) -> Struct:
    return {
        VERSION: (thrift.I32, 1),
        SCHEMA: (thrift.LIST, (thrift.STRUCT, schema)),
        NUM_ROWS: (thrift.I64, 0),
        ROW_GROUPS: (thrift.LIST, (thrift.STRUCT, [])),
    }
