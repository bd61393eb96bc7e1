"""Thrift's compact protocol, enough to take a Parquet footer or page header apart and put a forged one together.

A struct is a dict from field number to (type, value), a list is (type of its items, items).
"""

from __future__ import annotations

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
Struct = dict[int, tuple[int, Any]]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 128:
            return value, at


def _value(kind: int, data: bytes, at: int) -> tuple[Any, int]:
    if kind in (TRUE, FALSE):
        return kind == TRUE, at
    if kind == BYTE:
        return data[at], at + 1
    if kind in (I16, I32, I64):
        raw, at = _varint(data, at)
        return (raw >> 1) ^ -(raw & 1), at
    if kind == DOUBLE:
        return data[at : at + 8], at + 8
    if kind == BINARY:
        size, at = _varint(data, at)
        return data[at : at + size], at + size
    if kind == LIST:
        head, at = data[at], at + 1
        size, inner = head >> 4, head & 15
        if size == 15:
            size, at = _varint(data, at)
        items = []
        for _ in range(size):
            item, at = _value(inner, data, at)
            items.append(item)
        return (inner, items), at
    assert kind == STRUCT, f"Parquet has no type {kind}"
    return parse(data, at)


def parse(data: bytes, at: int = 0) -> tuple[Struct, int]:
    """A struct, and where it ends."""
    found: Struct = {}
    number = 0
    while data[at]:
        delta, kind = data[at] >> 4, data[at] & 15
        at += 1
        if delta:
            number += delta
        else:
            number, at = _value(I16, data, at)
        found[number] = kind, None
        value, at = _value(kind, data, at)
        found[number] = kind, value
    return found, at + 1


def _packed_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _packed_value(kind: int, value: Any) -> bytes:
    if kind in (TRUE, FALSE):
        return b""
    if kind == BYTE:
        return bytes([value])
    if kind in (I16, I32, I64):
        return _packed_varint(value << 1 if value >= 0 else (-value << 1) - 1)
    if kind == DOUBLE:
        return bytes(value)
    if kind == BINARY:
        return _packed_varint(len(value)) + value
    if kind == LIST:
        inner, items = value
        head = bytes([len(items) << 4 | inner]) if len(items) < 15 else bytes([0xF0 | inner])
        head += b"" if len(items) < 15 else _packed_varint(len(items))
        return head + b"".join(_packed_value(inner, item) for item in items)
    return value if isinstance(value, bytes) else pack(value)


def pack(struct: Struct) -> bytes:
    """A struct as bytes."""
    out, last = bytearray(), 0
    for number, (kind, value) in sorted(struct.items()):
        written = (TRUE if value else FALSE) if kind in (TRUE, FALSE) else kind
        out += bytes([(number - last) << 4 | written]) + _packed_value(kind, value)
        last = number
    return bytes(out) + b"\0"
