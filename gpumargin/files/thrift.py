"""Thrift's compact protocol, read: fields that are asked for, all others passed over.

Every step takes at least a byte, so that the time is that of the length; what is torn raises IndexError or ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Wanted = Mapping[int, tuple[str, type, "Wanted | None"]]
"""Fields by number: the name to give them, int, bytes, dict (a struct) or list, and of structs the fields wanted."""

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_INTEGERS = (_I16, _I32, _I64)
_FIXED = {_TRUE: 0, _FALSE: 0, _BYTE: 1, _DOUBLE: 8}
_DEEPEST = 16


def read_struct(data: bytes, at: int, wanted: Wanted) -> tuple[dict[str, Any], int]:
    """The wanted fields of a struct that are there, by name, and where it ends.

    Args:
      data: holds the struct.
      at: where it begins.
      wanted: its fields.

    Raises:
      IndexError: it does not end.
      ValueError: it is no struct, a field is of another type than wanted, or it is nested deeper than any of Parquet.
    """
    found: dict[str, Any] = {}
    number = 0
    while head := data[at]:
        at, kind = at + 1, head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        if number not in wanted:
            at = _passed(kind, data, at, 0)
            continue
        name, expected, inner = wanted[number]
        found[name], at = _value(kind, data, at, inner or {})
        if not isinstance(found[name], expected):
            message = f"{name!r} is no {expected.__name__}"
            raise ValueError(message)  # noqa: TRY004  it is what a file holds, not what a caller gave
    return found, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while (byte := data[at]) & 128:
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if shift > 63:
            message = "a number of more than 64 bits"
            raise ValueError(message)
    return value | byte << shift, at + 1


def _integer(data: bytes, at: int) -> tuple[int, int]:
    raw, at = _varint(data, at)
    return (raw >> 1) ^ -(raw & 1), at


def _value(kind: int, data: bytes, at: int, wanted: Wanted) -> tuple[Any, int]:
    """An integer, bytes, a struct or a list, and where it ends; None of another type."""
    if kind in _INTEGERS:
        return _integer(data, at)
    if kind == _BINARY:
        size, at = _varint(data, at)
        return data[at : at + size], _within(data, at + size)
    if kind == _STRUCT:
        return read_struct(data, at, wanted)
    if kind == _LIST:
        size, inner, at = _list_head(data, at)
        found = []
        for _ in range(size):
            item, at = _value(inner, data, at, wanted)
            found.append(item)
        return found, at
    return None, _passed(kind, data, at, 0)


def _list_head(data: bytes, at: int) -> tuple[int, int, int]:
    """How many items, of what type, and where they begin; none can be empty, so there are no more than bytes."""
    size, kind = data[at] >> 4, data[at] & 15
    if size == 15:
        size, at = _varint(data, at + 1)
        at -= 1
    return size, kind, _within(data, at + 1 + size) - size


def _within(data: bytes, at: int) -> int:
    if at > len(data):
        raise IndexError(at)
    return at


def _passed(kind: int, data: bytes, at: int, depth: int) -> int:
    """Where a value ends that nobody wants."""
    if kind in _INTEGERS:
        while data[at] & 128:
            at += 1
        return at + 1
    if kind in _FIXED:
        return _within(data, at + _FIXED[kind])
    if kind == _BINARY:
        size, at = _varint(data, at)
        return _within(data, at + size)
    if depth > _DEEPEST or kind not in (_LIST, _SET, _STRUCT):
        message = f"a field of type {kind} at depth {depth}, which Parquet has not"
        raise ValueError(message)
    return _passed_struct(data, at, depth + 1) if kind == _STRUCT else _passed_list(data, at, depth + 1)


def _passed_struct(data: bytes, at: int, depth: int) -> int:
    while head := data[at]:
        at += 1
        if not head >> 4:
            _, at = _varint(data, at)
        at = _passed(head & 15, data, at, depth)
    return at + 1


def _passed_list(data: bytes, at: int, depth: int) -> int:
    size, kind, at = _list_head(data, at)
    if kind in (_TRUE, _FALSE, _BYTE):  # a flag takes a byte in a list, and none as a field
        return at + size
    for _ in range(size):
        at = _passed(kind, data, at, depth)
    return at
