"""Names among many, request by request: the place of a hash among sorted ones, and texts compared where they lie."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from gpumargin.native.control import INT, LONG, counted, fetch
from gpumargin.native.requests import AHEAD, BYTE, SOON, Functions, Requests


def _lower_bound(own: Requests) -> None:
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


def _same_text(own: Requests) -> None:
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
def _functions() -> Functions:
    return Functions({"lower_bound": (6, _lower_bound), "same_text": (7, _same_text)})


def lower_bound(first: np.ndarray, hashes: np.ndarray, shift: int, wanted: np.ndarray) -> np.ndarray:
    """First place of each hash among sorted ones that is not below it, `[E]` int64.

    Args:
      first: `[2^b]` int32, where the first hash with each b first bits stands or would.
      hashes: `[A]` uint64, ascending.
      shift: 64 - b; b at least 1.
      wanted: `[E]` uint64.
    """
    found = np.empty(len(wanted), np.int64)
    asked = [(first, np.int32), (hashes, np.uint64), ([len(hashes)], np.int64), ([shift], np.int64)]
    _functions().call("lower_bound", len(wanted), [*asked, (wanted, np.uint64)], found)
    return found


class Texts(NamedTuple):
    """Texts laid end to end."""

    starts: np.ndarray  # [A + 1] int32, where each begins, and where the last ends
    content: np.ndarray  # uint8


def same_text(words: Texts, number: np.ndarray, others: Texts, other: np.ndarray) -> np.ndarray:
    """Whether the text of each number is that of another of others, `[E]` bool.

    Args:
      words: A of them.
      number: `[E]`, 0 to A - 1.
      others: W of them.
      other: `[E]`, 0 to W - 1.
    """
    found = np.empty(len(number), bool)
    asked = [(words.starts, np.int32), (words.content, np.uint8), (number, np.int64)]
    asked += [(others.starts, np.int32), (others.content, np.uint8), (other, np.int64)]
    _functions().call("same_text", len(number), asked, found)
    return found
