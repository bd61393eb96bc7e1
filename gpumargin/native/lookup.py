"""Search and reading in memory: what functions over requests are made of.

Rows lie in many arrays, one for each shard and bucket; bases say where each begins. Each piece is a loop over all
requests, so that memory is asked for what later ones look at, and takes its arrays in the order that it names.
"""

from __future__ import annotations

from llvmlite import ir

from gpumargin.native.control import DOUBLE, INT, LINE, LONG, POINTER, counted, fetch
from gpumargin.native.requests import BYTE, SOON, Requests

_NUMBERS = LINE // 4  # int32 of a line of the cache
_ZERO = ir.Constant(LONG, 0)


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


def place(own: Requests) -> None:
    """In which array a row lies, at which number of it the row begins, and how many belong to it."""
    builder, (shard, row, buckets, ends, widths, array, first, width) = own.builder, own.arrays
    zero, one = ir.Constant(LONG, 0), ir.Constant(LONG, 1)
    with builder.goto_entry_block():
        bucket = builder.alloca(LONG)
    number = own.at(buckets, zero, LONG)
    with counted(builder, own.count) as (request, _):
        asked = builder.sext(own.at(row, request, INT), LONG)
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


def find_member(own: Requests, none: int) -> None:
    """Of a row of numbers `[width]` of which some are in use, the one at which a table holds the key, else `none`."""
    builder, (numbers, used, tables, table, array, first, width, key, found) = own.builder, own.arrays
    zero = ir.Constant(LONG, 0)
    with counted(builder, own.count) as (request, _):
        at, start, later = own.at(array, request, LONG), own.at(first, request, LONG), own.ahead(request)
        for base, kind in ((numbers, INT), (used, BYTE)):
            fetch(builder, _there(own, base, own.at(array, later, LONG), own.at(first, later, LONG), kind))
        soon = own.ahead(request, SOON)
        number = own.at(_there(own, numbers, own.at(array, soon, LONG), own.at(first, soon, LONG), INT), zero, INT)
        fetch(builder, _there(own, tables, own.at(table, soon, LONG), builder.sext(number, LONG), INT))
        row, is_used = _there(own, numbers, at, start, INT), _there(own, used, at, start, BYTE)
        values = _there(own, tables, own.at(table, request, LONG), zero, INT)
        wanted = own.at(key, request, INT)
        own.put(found, request, ir.Constant(INT, none))
        with counted(builder, own.at(width, request, LONG)) as (slot, _), builder.if_then(_is_set(own, is_used, slot)):
            number = own.at(row, slot, INT)
            held = own.at(values, builder.sext(number, LONG), INT)
            with builder.if_then(builder.icmp_signed("==", held, wanted)):
                own.put(found, request, number)


def find_first(own: Requests) -> None:
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
        own.put(found, request, builder.zext(is_there, INT))
        own.put(at, request, builder.add(start, inside))


def read(own: Requests, kind: ir.Type = INT, index: ir.Type = LONG) -> None:
    """Numbers of arrays, as int32 those that are narrower; `index` says how places in them are given."""
    builder, (base, array, at, found) = own.builder, own.arrays
    with counted(builder, own.count) as (request, _):
        here = builder.sext(own.at(at, request, index), LONG) if index != LONG else own.at(at, request, LONG)
        number = own.at(_there(own, base, own.at(array, request, LONG), here, kind), _ZERO, kind)
        own.put(found, request, builder.zext(number, INT) if kind == BYTE else number)


def replace(own: Requests, key: int, other: int) -> None:
    """Values int32, `other` in place of those whose key is `key`."""
    builder, (keys, values, found) = own.builder, own.arrays
    with counted(builder, own.count) as (request, _):
        is_key = builder.icmp_signed("==", own.at(keys, request, INT), ir.Constant(INT, key))
        own.put(found, request, builder.select(is_key, ir.Constant(INT, other), own.at(values, request, INT)))


def read_fractions(own: Requests, default: float) -> None:
    """Numbers of arrays of float64 where a flag is set, else `default`."""
    builder, (base, array, at, flag, found) = own.builder, own.arrays
    with counted(builder, own.count) as (request, _):
        there = _there(own, base, own.at(array, request, LONG), own.at(at, request, LONG), DOUBLE)
        is_there = builder.icmp_unsigned("!=", own.at(flag, request, INT), ir.Constant(INT, 0))
        own.put(found, request, builder.select(is_there, own.at(there, _ZERO, DOUBLE), ir.Constant(DOUBLE, default)))
