"""Values written at places of many arrays, where XLA lets a result lie in its argument: nothing else is touched.

`gpumargin_kernels.edits.with_values` does the same, bucket by bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from itertools import accumulate, pairwise

import jax
from jax import Array
from llvmlite import ir

from gpumargin.native.compiler import registered
from gpumargin.native.control import DOUBLE, INT, LONG, counted
from gpumargin.native.handler import Frame, add_handler
from gpumargin.native.plan import array_of
from gpumargin_kernels.edits import NOWHERE


def written(columns: tuple[tuple[Array, ...], ...], at: Array, values: Array) -> tuple[tuple[Array, ...], ...]:
    """Columns of buckets with other values at some places; in place where the columns may be overwritten.

    Args:
      columns: N of them, the buckets `[R_b, L_b]` of each, float64.
      at: `[3, E]` int32: column, row among its buckets laid end to end, slot; no place twice; row `NOWHERE` = nothing.
      values: `[E]`.

    Returns:
      The columns.
    """
    # One axis more, as the devices hold them: XLA copies what another shape has than the argument that it overwrites.
    buckets = [own[None] for column in columns for own in column]
    counts = tuple(len(column) for column in columns)
    same = {number: number for number in range(len(buckets))}
    results = [array_of(own.shape, own.dtype) for own in buckets]
    found = jax.ffi.ffi_call(_name(counts), results, input_output_aliases=same)(*buckets, at, values)
    ends = [0, *accumulate(counts)]
    return tuple(tuple(own[0] for own in found[first:end]) for first, end in pairwise(ends))


@cache
def _name(counts: tuple[int, ...]) -> str:
    module = ir.Module("writing")
    add_handler(module, "handler", partial(_write, counts=counts))
    return registered("writing", module)


class _Table:
    """Numbers on the stack, looked up by index."""

    def __init__(self, builder: ir.IRBuilder, numbers: Sequence[ir.Value]) -> None:
        self._builder, self._kind = builder, numbers[0].type
        self._first = builder.alloca(self._kind, len(numbers))
        for index, number in enumerate(numbers):
            builder.store(number, self._place(ir.Constant(LONG, index)))

    def _place(self, index: ir.Value) -> ir.Value:
        return self._builder.gep(self._first, [index], source_etype=self._kind)

    def at(self, index: ir.Value) -> ir.Value:
        """One of them."""
        return self._builder.load(self._place(index), typ=self._kind)


class _Buckets:
    """Buckets of all columns, one after the other: where their numbers lie, and which rows of the column are theirs."""

    def __init__(self, frame: Frame, counts: Sequence[int]) -> None:
        buffers, zero, self.builder = frame.results(sum(counts)), ir.Constant(LONG, 0), frame.builder
        rows, widths = zip(*(frame.shape(own, 3)[1:] for own in buffers), strict=True)
        ends, begins = [0, *accumulate(counts)], list[ir.Value]()
        for first, end in pairwise(ends):
            begins += accumulate(rows[first : end - 1], self.builder.add, initial=zero)
        self._data = _Table(self.builder, [frame.data(own) for own in buffers])
        self._width, self._begin = _Table(self.builder, widths), _Table(self.builder, begins)
        self._first = _Table(self.builder, [ir.Constant(LONG, first) for first in ends[:-1]])
        self._count = _Table(self.builder, [ir.Constant(LONG, count) for count in counts])
        self._behind = self.builder.alloca(LONG)

    def place(self, column: ir.Value, row: ir.Value, slot: ir.Value) -> ir.Value:
        """Address of a slot."""
        builder, first = self.builder, self._first.at(column)
        builder.store(ir.Constant(LONG, -1), self._behind)
        with counted(builder, self._count.at(column)) as (other, _):
            is_behind = builder.icmp_signed(">=", row, self._begin.at(builder.add(first, other)))
            so_far = builder.load(self._behind, typ=LONG)
            builder.store(builder.add(so_far, builder.zext(is_behind, LONG)), self._behind)
        bucket = builder.add(first, builder.load(self._behind, typ=LONG))
        begin = builder.mul(builder.sub(row, self._begin.at(bucket)), self._width.at(bucket))
        return builder.gep(self._data.at(bucket), [builder.add(begin, slot)], source_etype=DOUBLE)


def _write(frame: Frame, counts: Sequence[int]) -> None:
    """Goes through the places."""
    builder = frame.builder
    *_, at, values = frame.arguments(sum(counts) + 2)
    (size,), buckets = frame.shape(values, 1), _Buckets(frame, counts)
    asked, given = frame.data(at), frame.data(values)

    def number(row: int, request: ir.Value) -> ir.Value:
        index = builder.add(builder.mul(ir.Constant(LONG, row), size), request)
        return builder.sext(builder.load(builder.gep(asked, [index], source_etype=INT), typ=INT), LONG)

    with counted(builder, size) as (request, _):
        column, row, slot = (number(own, request) for own in range(3))
        with builder.if_then(builder.icmp_signed("!=", row, ir.Constant(LONG, NOWHERE))):
            value = builder.load(builder.gep(given, [request], source_etype=DOUBLE), typ=DOUBLE)
            builder.store(value, buckets.place(column, row, slot))
