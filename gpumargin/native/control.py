"""Functions and loops as LLVM blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import ir

LINE = 64  # bytes of a line of the cache
INT, LONG, DOUBLE, POINTER = ir.IntType(32), ir.IntType(64), ir.DoubleType(), ir.PointerType()


def builder_of(function: ir.Function) -> ir.IRBuilder:
    """A builder at the start of a function's code, behind a block of its own for what is allocated."""
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    start = function.append_basic_block("start")
    builder.branch(start)
    builder.position_at_end(start)
    return builder


@contextmanager
def counted(builder: ir.IRBuilder, count: ir.Value) -> Iterator[tuple[ir.Value, ir.Block]]:
    """A loop over 0 to `count`; yields the index and the block to leave for."""
    with builder.goto_entry_block():
        index = builder.alloca(LONG)
    builder.store(ir.Constant(LONG, 0), index)
    head, body, end = (builder.function.append_basic_block(name) for name in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    here = builder.load(index, typ=LONG)
    builder.cbranch(builder.icmp_unsigned("<", here, count), body, end)
    builder.position_at_end(body)
    yield here, end
    builder.store(builder.add(here, ir.Constant(LONG, 1)), index)
    builder.branch(head)
    builder.position_at_end(end)


def grouped(
    builder: ir.IRBuilder,
    rows: ir.Value,
    span: int,
    before: Callable[[ir.Value], None],
    each: Callable[[ir.Value], None],
) -> None:
    """A loop over rows, `span` at a time: `before` gets the first row of every group, `each` every row."""
    step = ir.Constant(LONG, span)
    with counted(builder, builder.udiv(builder.add(rows, ir.Constant(LONG, span - 1)), step)) as (number, _):
        first = builder.mul(number, step)
        before(first)
        left = builder.sub(rows, first)
        own = builder.select(builder.icmp_unsigned("<", left, step), left, step)
        with counted(builder, own) as (row, _):
            each(builder.add(first, row))


def fetch(builder: ir.IRBuilder, address: ir.Value, *, to_write: bool = False) -> None:
    """Asks the memory for what is soon read or written, one line of the cache; nothing waits for it."""
    name, kind = "llvm.prefetch.p0", ir.FunctionType(ir.VoidType(), [POINTER, INT, INT, INT])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(function, [address, *(ir.Constant(INT, n) for n in (int(to_write), 3, 1))])  # keep, data
