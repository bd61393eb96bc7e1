"""Names among many, request by request: found by sorted hashes, and compared where they lie."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from gpumargin.native.control import INT, LONG, counted, fetch
from gpumargin.native.requests import AHEAD, BYTE, SOON, Function, Requests, typed


def lower_bound(own: Requests) -> None:
    """First place whose hash is not below the one asked for, from where the first with its first bits stands."""
    builder, (first, hashes, size, shift, wanted, found) = own.builder, own.arrays
    zero, one = ir.Constant(LONG, 0), ir.Constant(LONG, 1)
    with builder.goto_entry_block():
        place = builder.alloca(LONG)
    bits, count = own.at(shift, zero, LONG), own.at(size, zero, LONG)

    def head(request: ir.Value) -> ir.Value:
        return builder.lshr(own.at(wanted, request, LONG), bits)

    with counted(builder, own.count) as (request, _):
        fetch(builder, builder.gep(first, [head(own.ahead(request))], source_etype=INT))
        coming = builder.sext(own.at(first, head(own.ahead(request, SOON)), INT), LONG)
        fetch(builder, builder.gep(hashes, [coming], source_etype=LONG))
        key = own.at(wanted, request, LONG)
        start = builder.sext(own.at(first, head(request), INT), LONG)
        builder.store(start, place)
        with counted(builder, builder.sub(count, start)) as (step, end):
            here = builder.add(start, step)
            builder.store(here, place)
            below = builder.function.append_basic_block("below")
            builder.cbranch(builder.icmp_unsigned("<", own.at(hashes, here, LONG), key), below, end)
            builder.position_at_end(below)
            builder.store(builder.add(here, one), place)
        own.put(found, request, builder.load(place, typ=LONG))


def candidate(own: Requests) -> None:
    """The number that stands at the place of a hash, and whether it has the hash and the pool that are asked for."""
    builder, (hashes, order, pools, size, wanted, pool, place, number, has_hash, has_pool) = own.builder, own.arrays
    last = builder.sub(own.at(size, ir.Constant(LONG, 0), LONG), ir.Constant(LONG, 1))

    def inside(request: ir.Value) -> ir.Value:
        here = own.at(place, request, LONG)
        return builder.select(builder.icmp_signed("<", here, last), here, last)

    def number_at(request: ir.Value) -> ir.Value:
        return builder.sext(own.at(order, inside(request), INT), LONG)

    with counted(builder, own.count) as (request, _):
        fetch(builder, builder.gep(order, [inside(own.ahead(request))], source_etype=INT))
        fetch(builder, builder.gep(pools, [number_at(own.ahead(request, SOON))], source_etype=INT))
        here, found = inside(request), number_at(request)
        is_hash = builder.icmp_unsigned("==", own.at(hashes, here, LONG), own.at(wanted, request, LONG))
        is_hash = builder.and_(is_hash, builder.icmp_signed("==", here, own.at(place, request, LONG)))
        is_pool = builder.icmp_signed("==", own.at(pools, found, INT), own.at(pool, request, INT))
        own.put(number, request, found)
        own.put(has_hash, request, builder.zext(is_hash, BYTE))
        own.put(has_pool, request, builder.zext(builder.and_(is_hash, is_pool), BYTE))


def same_text(own: Requests) -> None:
    """Whether two texts, each one of many laid end to end, are the same byte for byte."""
    builder, (starts, texts, number, other_starts, others, other, found) = own.builder, own.arrays
    zero, one = ir.Constant(LONG, 0), ir.Constant(LONG, 1)

    def span(of: ir.Value, index: ir.Value) -> tuple[ir.Value, ir.Value]:
        begin, end = (builder.sext(own.at(of, i, INT), LONG) for i in (index, builder.add(index, one)))
        return begin, builder.sub(end, begin)

    with counted(builder, own.count) as (request, _):
        later, soon = (own.at(number, own.ahead(request, by), LONG) for by in (AHEAD, SOON))
        fetch(builder, builder.gep(starts, [later], source_etype=INT))
        fetch(builder, builder.gep(texts, [span(starts, soon)[0]], source_etype=BYTE))
        mine, length = span(starts, own.at(number, request, LONG))
        theirs, other_length = span(other_starts, own.at(other, request, LONG))
        is_long = builder.icmp_unsigned("==", length, other_length)
        own.put(found, request, builder.zext(is_long, BYTE))
        with counted(builder, builder.select(is_long, length, zero)) as (place, _):
            one_byte, other_byte = (
                own.at(of, builder.add(begin, place), BYTE) for of, begin in ((texts, mine), (others, theirs))
            )
            with builder.if_then(builder.icmp_unsigned("!=", one_byte, other_byte)):
                own.put(found, request, ir.Constant(BYTE, 0))


@cache
def _function() -> Function:
    return Function(
        (
            (lower_bound, "first hashes size shift wanted place"),
            (candidate, "hashes order pools size wanted pool place number has_hash has_pool"),
            (same_text, "starts texts number other_starts others other is_same"),
        )
    )


class Texts(NamedTuple):
    """Texts laid end to end."""

    starts: np.ndarray  # [A + 1] int32, where each begins, and where the last ends
    content: np.ndarray  # uint8


class Index(NamedTuple):
    """Names by number, sorted by hash."""

    first: np.ndarray  # [2^b] int32, where the first hash with each b first bits stands or would, b at least 1
    hashes: np.ndarray  # [A] uint64, ascending
    shift: int  # 64 - b
    order: np.ndarray  # [A] int32, number of each hash's name
    pools: np.ndarray  # [A] int32, by number
    words: Texts  # by number


class Found(NamedTuple):
    """What stands at the first place of each hash, `[E]` each."""

    place: np.ndarray  # int64
    number: np.ndarray  # int64, of any name where none has the hash
    has_hash: np.ndarray  # bool
    has_pool: np.ndarray  # bool, false without the hash
    is_same: np.ndarray  # bool, the text, whatever the hash


def find(index: Index, wanted: np.ndarray, pool: np.ndarray, others: Texts, other: np.ndarray) -> Found:
    """First name of each hash, and whether it is the one asked for; more names of one hash stand behind it.

    Args:
      index: at least one name.
      wanted: `[E]` uint64.
      pool: `[E]`.
      others: W texts.
      other: `[E]`, 0 to W - 1: the text asked for.
    """
    count = len(wanted)
    found = Found(*(np.empty(count, kind) for kind in (np.int64, np.int64, bool, bool, bool)))
    given = {
        "first": (index.first, np.int32),
        "hashes": (index.hashes, np.uint64),
        "size": ([len(index.hashes)], np.int64),
        "shift": ([index.shift], np.int64),
        "order": (index.order, np.int32),
        "pools": (index.pools, np.int32),
        "starts": (index.words.starts, np.int32),
        "texts": (index.words.content, np.uint8),
        "wanted": (wanted, np.uint64),
        "pool": (pool, np.int32),
        "other_starts": (others.starts, np.int32),
        "others": (others.content, np.uint8),
        "other": (other, np.int64),
    }
    _function().run(count, {**typed(given), **found._asdict()})
    return found
