"""Search and reading in memory, request by request.

Rows lie in many arrays, one for each shard and bucket, and callers say where each begins. Whoever calls keeps the
arrays alive and sees to it that every row is inside one of them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from gpumargin.native.control import INT, LONG, POINTER, counted, fetch
from gpumargin.native.requests import BYTE, LINE, SOON, Functions, Requests, Writer

_NUMBERS = LINE // 4  # int32 of a line of the cache
_SIZES = (1, 4, 8)


def _there(own: Requests, base: ir.Value, array: ir.Value, first: ir.Value, kind: ir.Type) -> ir.Value:
    """Where a row begins: at a number `first` of an array, whose own begin `base` holds."""
    start = own.builder.inttoptr(own.at(base, array, LONG), POINTER)
    return own.builder.gep(start, [first], source_etype=kind)


def _is_set(own: Requests, flags: ir.Value, index: ir.Value) -> ir.Value:
    """A flag of an array of bytes."""
    return own.builder.icmp_unsigned("!=", own.at(flags, index, BYTE), ir.Constant(BYTE, 0))


def _fetch_row(own: Requests, row: ir.Value, width: ir.Value) -> None:
    """Asks the memory for all lines of a row of int32: a search goes from one to the other."""
    builder, step = own.builder, ir.Constant(LONG, _NUMBERS)
    with counted(builder, builder.udiv(builder.add(width, ir.Constant(LONG, _NUMBERS - 1)), step)) as (line, _):
        fetch(builder, builder.gep(row, [builder.mul(line, step)], source_etype=INT))


def _ascending(own: Requests, row: ir.Value, slot: ir.Value) -> tuple[ir.Value, ir.Value]:
    """A slot of a row, and whether it is in use: zeros behind the first are padding."""
    value, builder = own.at(row, slot, INT), own.builder
    is_first = builder.icmp_unsigned("==", slot, ir.Constant(LONG, 0))
    return value, builder.or_(is_first, builder.icmp_signed("!=", value, ir.Constant(INT, 0)))


def _is_below(own: Requests, row: ir.Value, slot: ir.Value, key: ir.Value) -> ir.Value:
    """Whether a slot holds less than a key."""
    value, is_used = _ascending(own, row, slot)
    return own.builder.and_(own.builder.icmp_signed("<", value, key), is_used)


def _place(own: Requests) -> None:
    """In which array a row lies, at which number of it the row begins, and how many belong to it."""
    builder, (shard, row, buckets, ends, widths, array, first, width) = own.builder, own.arrays
    zero, one = ir.Constant(LONG, 0), ir.Constant(LONG, 1)
    with builder.goto_entry_block():
        bucket = builder.alloca(LONG)
    number = own.at(buckets, zero, LONG)
    with counted(builder, own.count) as (request, _):
        asked = own.at(row, request, LONG)
        builder.store(zero, bucket)
        with counted(builder, builder.sub(number, one)) as (other, _):
            is_behind = builder.icmp_signed(">=", asked, own.at(ends, other, LONG))
            builder.store(builder.add(builder.load(bucket, typ=LONG), builder.zext(is_behind, LONG)), bucket)
        found = builder.load(bucket, typ=LONG)
        is_first = builder.icmp_unsigned("==", found, zero)
        before = own.at(ends, builder.select(is_first, zero, builder.sub(found, one)), LONG)
        slots = own.at(widths, found, LONG)
        local = builder.sub(asked, builder.select(is_first, zero, before))
        own.put(array, request, builder.add(builder.mul(own.at(shard, request, LONG), number), found))
        own.put(first, request, builder.mul(local, slots))
        own.put(width, request, slots)


def _find_member(own: Requests) -> None:
    """Of a row of numbers `[width]` of which some are in use, the one at which a table holds the key."""
    builder, (numbers, used, tables, array, first, width, key, found) = own.builder, own.arrays
    zero = ir.Constant(LONG, 0)
    with counted(builder, own.count) as (request, _):
        at, start, later = own.at(array, request, LONG), own.at(first, request, LONG), own.ahead(request)
        for base, kind in ((numbers, INT), (used, BYTE)):
            fetch(builder, _there(own, base, own.at(array, later, LONG), own.at(first, later, LONG), kind))
        soon = own.ahead(request, SOON)
        number = own.at(_there(own, numbers, own.at(array, soon, LONG), own.at(first, soon, LONG), INT), zero, INT)
        fetch(builder, _there(own, tables, own.at(array, soon, LONG), builder.sext(number, LONG), INT))
        row, is_used = _there(own, numbers, at, start, INT), _there(own, used, at, start, BYTE)
        values, wanted = _there(own, tables, at, zero, INT), own.at(key, request, INT)
        with counted(builder, own.at(width, request, LONG)) as (slot, _), builder.if_then(_is_set(own, is_used, slot)):
            number = own.at(row, slot, INT)
            held = own.at(values, builder.sext(number, LONG), INT)
            with builder.if_then(builder.icmp_signed("==", held, wanted)):
                own.put(found, request, number)


def _find_first(own: Requests) -> None:
    """First slot of a row `[width]` that is not below the key, and whether the key stands there.

    The row ascends; zeros behind its first slot are padding, above all keys. How often a row is halved depends on its
    width alone.
    """
    builder, (base, array, first, width, key, slots, found, at) = own.builder, own.arrays
    with builder.goto_entry_block():
        low, left = builder.alloca(LONG), builder.alloca(LONG)
    zero, one = ir.Constant(LONG, 0), ir.Constant(LONG, 1)
    with counted(builder, own.count) as (request, _):
        start, size, wanted = own.at(first, request, LONG), own.at(width, request, LONG), own.at(key, request, INT)
        row, later = _there(own, base, own.at(array, request, LONG), start, INT), own.ahead(request)
        coming = _there(own, base, own.at(array, later, LONG), own.at(first, later, LONG), INT)
        _fetch_row(own, coming, own.at(width, later, LONG))
        builder.store(zero, low)
        builder.store(size, left)
        head, body, end = (builder.function.append_basic_block(name) for name in ("narrow", "halve", "narrowed"))
        builder.branch(head)
        builder.position_at_end(head)
        lowest, count = builder.load(low, typ=LONG), builder.load(left, typ=LONG)
        builder.cbranch(builder.icmp_unsigned(">", count, one), body, end)
        builder.position_at_end(body)
        half = builder.lshr(count, one)
        following = builder.add(lowest, half)
        is_below = _is_below(own, row, builder.sub(following, one), wanted)
        builder.store(builder.select(is_below, following, lowest), low)
        builder.store(builder.sub(count, half), left)
        builder.branch(head)
        builder.position_at_end(end)
        slot = builder.add(lowest, builder.zext(_is_below(own, row, lowest, wanted), LONG))
        inside = builder.select(builder.icmp_unsigned("<", slot, size), slot, lowest)
        value, is_used = _ascending(own, row, inside)
        is_there = builder.and_(builder.icmp_signed("==", value, wanted), is_used)
        own.put(slots, request, builder.trunc(slot, INT))
        own.put(found, request, builder.zext(is_there, BYTE))
        own.put(at, request, builder.add(start, inside))


def _reader(size: int) -> Writer:
    """Numbers of arrays, `size` bytes each."""

    def write(own: Requests) -> None:
        kind = ir.IntType(8 * size)
        base, array, at, found = own.arrays
        with counted(own.builder, own.count) as (request, _):
            place = _there(own, base, own.at(array, request, LONG), own.at(at, request, LONG), kind)
            own.put(found, request, own.builder.load(place, typ=kind))

    return write


@cache
def _functions() -> Functions:
    searches = {"place": (8, _place), "find_member": (8, _find_member), "find_first": (8, _find_first)}
    return Functions(searches | {f"read_{size}": (4, _reader(size)) for size in _SIZES})


class Rows(NamedTuple):
    """Rows of arrays that one or more columns have, `[E]` int64 each."""

    array: np.ndarray  # which of the arrays
    first: np.ndarray  # number of it at which the row begins
    width: np.ndarray  # numbers that belong to it

    @staticmethod
    def of(shard: np.ndarray, row: np.ndarray, ends: np.ndarray, widths: np.ndarray) -> Rows:
        """Rows counted within each shard over its buckets, which are arrays one after the other.

        Args:
          shard: `[E]`.
          row: `[E]`, below the last of `ends`.
          ends: `[B]` rows of a shard up to the end of each bucket.
          widths: `[B]`.
        """
        found = Rows(*(np.empty(len(row), np.int64) for _ in Rows._fields))
        asked = [shard, row, [len(ends)], ends, widths]
        _functions().call("place", len(row), [(values, np.int64) for values in asked], *found)
        return found

    def read(self, base: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """The first number of each row; `base` says where arrays of `dtype` begin."""
        found = np.empty(len(self.first), dtype)
        asked = (base, self.array, self.first)
        _functions().call(f"read_{dtype.itemsize}", len(found), [(values, np.int64) for values in asked], found)
        return found

    def find_first(self, base: np.ndarray, key: np.ndarray) -> tuple[Rows, np.ndarray, np.ndarray]:
        """First slot of each row that is not below a key.

        Args:
          base: where arrays of int32 begin; a row ascends, and behind its first a 0 is padding, above all keys.
          key: `[E]`, int32 can hold it.

        Returns:
          The slot, or where all are below the key one of the row; its number in the row, `width` where all are,
          `[E]` int32; and whether it holds the key, `[E]` bool.
        """
        count = len(key)
        slot, is_there, at = np.empty(count, np.int32), np.zeros(count, bool), np.empty(count, np.int64)
        asked = [*((values, np.int64) for values in (base, *self)), (key, np.int32)]
        _functions().call("find_first", count, asked, slot, is_there, at)
        return self._replace(first=at), slot, is_there

    def find_member(
        self, numbers: np.ndarray, used: np.ndarray, tables: np.ndarray, key: np.ndarray, none: int
    ) -> np.ndarray:
        """Of each row of numbers, the one in use at which a table holds the key, `[E]` int32.

        Args:
          numbers: where arrays of int32 begin.
          used: where arrays of as many bytes begin, 0 = the number is not in use.
          tables: where for each of these arrays the table begins, int32, as many as the largest number in use says.
          key: `[E]`, int32 can hold it.
          none: what is found where the table holds no such key.
        """
        found = np.full(len(key), none, np.int32)
        asked = [*((values, np.int64) for values in (numbers, used, tables, *self)), (key, np.int32)]
        _functions().call("find_member", len(key), asked, found)
        return found
