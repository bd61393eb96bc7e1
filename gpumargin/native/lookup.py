"""Search and reading by address, request by request, compiled by LLVM: numpy would do it array by array.

Rows lie in many arrays, one for each shard and bucket; a request says where its row begins. Whoever calls keeps the
arrays alive and sees to it that every address and width is inside one of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from gpumargin.native.compiler import compiled
from gpumargin.native.control import INT, LONG, POINTER, builder_of, counted, fetch

_BYTE = ir.IntType(8)
_AHEAD = 16  # requests between asking the memory for a row and looking at it: nearly halves a search (measured)
_ARGUMENTS = {"find_member": 7, "find_first": 6, "read_1": 3, "read_4": 3, "read_8": 3}


class _Requests:
    """A function over requests: its arguments are their number, then an array for each thing asked and answered."""

    def __init__(self, module: ir.Module, name: str) -> None:
        count = _ARGUMENTS[name] - 1
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [LONG, *[POINTER] * count]), name)
        self.builder = builder_of(function)
        self.count, *self.arrays = function.args

    def at(self, array: ir.Value, index: ir.Value, kind: ir.Type) -> ir.Value:
        """A number of an array."""
        return self.builder.load(self.builder.gep(array, [index], source_etype=kind), typ=kind)

    def put(self, array: ir.Value, index: ir.Value, value: ir.Value) -> None:
        """Keeps a number in an array."""
        self.builder.store(value, self.builder.gep(array, [index], source_etype=value.type))

    def there(self, array: ir.Value, index: ir.Value) -> ir.Value:
        """Memory whose address an array holds."""
        return self.builder.inttoptr(self.at(array, index, LONG), POINTER)

    def is_set(self, flags: ir.Value, index: ir.Value) -> ir.Value:
        """A flag of an array of bytes."""
        return self.builder.icmp_unsigned("!=", self.at(flags, index, _BYTE), ir.Constant(_BYTE, 0))

    def fetch_ahead(self, rows: ir.Value, widths: ir.Value, request: ir.Value) -> None:
        """Asks the memory for the middle of a row that is soon looked at."""
        builder = self.builder
        last = builder.sub(self.count, ir.Constant(LONG, 1))
        ahead = builder.add(request, ir.Constant(LONG, _AHEAD))
        ahead = builder.select(builder.icmp_unsigned("<", ahead, last), ahead, last)
        half = builder.lshr(self.at(widths, ahead, LONG), ir.Constant(LONG, 1))
        fetch(builder, builder.gep(self.there(rows, ahead), [half], source_etype=INT))

    def ascending(self, row: ir.Value, slot: ir.Value) -> tuple[ir.Value, ir.Value]:
        """A slot of a row, and whether it is in use: zeros behind the first are padding."""
        value, builder = self.at(row, slot, INT), self.builder
        is_first = builder.icmp_unsigned("==", slot, ir.Constant(LONG, 0))
        return value, builder.or_(is_first, builder.icmp_signed("!=", value, ir.Constant(INT, 0)))

    def is_below(self, row: ir.Value, slot: ir.Value, key: ir.Value) -> ir.Value:
        """Whether a slot holds less than a key."""
        value, is_used = self.ascending(row, slot)
        return self.builder.and_(self.builder.icmp_signed("<", value, key), is_used)


def _add_find_member(module: ir.Module) -> None:
    """Of a row of numbers `[width]` of which some are in use, the one at which a table holds the key."""
    own = _Requests(module, "find_member")
    builder, (numbers, used, table, width, key, found) = own.builder, own.arrays
    with counted(builder, own.count) as (request, _):
        row, is_used, values = (own.there(array, request) for array in (numbers, used, table))
        wanted = own.at(key, request, INT)
        with counted(builder, own.at(width, request, LONG)) as (slot, _), builder.if_then(own.is_set(is_used, slot)):
            number = own.at(row, slot, INT)
            held = own.at(values, builder.sext(number, LONG), INT)
            with builder.if_then(builder.icmp_signed("==", held, wanted)):
                own.put(found, request, number)
    builder.ret_void()


def _add_find_first(module: ir.Module) -> None:
    """First slot of a row `[width]` that is not below the key, and whether the key stands there.

    The row ascends; zeros behind its first slot are padding, above all keys. How often a row is halved depends on its
    width alone.
    """
    own = _Requests(module, "find_first")
    builder, (rows, widths, keys, slots, found) = own.builder, own.arrays
    with builder.goto_entry_block():
        low, left = builder.alloca(LONG), builder.alloca(LONG)
    zero, one = ir.Constant(LONG, 0), ir.Constant(LONG, 1)
    with counted(builder, own.count) as (request, _):
        row, width, key = own.there(rows, request), own.at(widths, request, LONG), own.at(keys, request, INT)
        own.fetch_ahead(rows, widths, request)
        builder.store(zero, low)
        builder.store(width, left)
        head, body, end = (builder.function.append_basic_block(name) for name in ("narrow", "halve", "narrowed"))
        builder.branch(head)
        builder.position_at_end(head)
        first, count = builder.load(low, typ=LONG), builder.load(left, typ=LONG)
        builder.cbranch(builder.icmp_unsigned(">", count, one), body, end)
        builder.position_at_end(body)
        half = builder.lshr(count, one)
        following = builder.add(first, half)
        is_below = own.is_below(row, builder.sub(following, one), key)
        builder.store(builder.select(is_below, following, first), low)
        builder.store(builder.sub(count, half), left)
        builder.branch(head)
        builder.position_at_end(end)
        slot = builder.add(first, builder.zext(own.is_below(row, first, key), LONG))
        own.put(slots, request, builder.trunc(slot, INT))
        inside = builder.select(builder.icmp_unsigned("<", slot, width), slot, first)
        value, is_used = own.ascending(row, inside)
        is_there = builder.and_(builder.icmp_signed("==", value, key), is_used)
        own.put(found, request, builder.zext(is_there, _BYTE))
    builder.ret_void()


def _add_read(module: ir.Module, size: int) -> None:
    """What stands at addresses, `size` bytes each."""
    own, kind = _Requests(module, f"read_{size}"), ir.IntType(8 * size)
    addresses, found = own.arrays
    with counted(own.builder, own.count) as (request, _):
        own.put(found, request, own.builder.load(own.there(addresses, request), typ=kind))
    own.builder.ret_void()


@cache
def _functions() -> tuple[Any, dict[str, Any]]:
    """The engine, which must live as long as its functions, and these by name."""
    module = ir.Module("lookup")
    _add_find_member(module)
    _add_find_first(module)
    for size in (1, 4, 8):
        _add_read(module, size)
    engine, found = compiled(str(module)), {}
    for name, count in _ARGUMENTS.items():
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * (count - 1))
        found[name] = kind(engine.get_function_address(name))
    return engine, found


def _call(name: str, asked: Sequence[tuple[np.ndarray, type]], *answers: np.ndarray) -> None:
    given = [*(np.ascontiguousarray(values, dtype) for values, dtype in asked), *answers]
    _functions()[1][name](len(answers[0]), *(array.ctypes.data for array in given))


def find_member(
    numbers: np.ndarray, used: np.ndarray, table: np.ndarray, width: np.ndarray, key: np.ndarray, none: int
) -> np.ndarray:
    """Of a row of numbers, the one in use at which a table holds the key, `[E]` int32.

    Args:
      numbers: `[E]` int64, address of `width` int32.
      used: `[E]` int64, address of `width` bytes, 0 = the number is not in use.
      table: `[E]` int64, address of int32, as many as the largest number in use says.
      width: `[E]` int64.
      key: `[E]`, int32 can hold it.
      none: what is found where the table holds no such key.
    """
    found = np.full(len(key), none, np.int32)
    asked = [*((address, np.int64) for address in (numbers, used, table, width)), (key, np.int32)]
    _call("find_member", asked, found)
    return found


def find_first(row: np.ndarray, width: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First slot of a row that is not below the key, `width` where there is none, and whether it holds the key.

    Args:
      row: `[E]` int64, address of `width` int32, ascending; behind the first a 0 is padding, above all keys.
      width: `[E]` int64.
      key: `[E]`, int32 can hold it.

    Returns:
      `[E]` int32 and bool.
    """
    slot, is_there = np.empty(len(key), np.int32), np.zeros(len(key), bool)
    _call("find_first", [(row, np.int64), (width, np.int64), (key, np.int32)], slot, is_there)
    return slot, is_there


def read(address: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """What stands at addresses `[E]` int64."""
    found = np.empty(len(address), dtype)
    _call(f"read_{dtype.itemsize}", [(address, np.int64)], found)
    return found
