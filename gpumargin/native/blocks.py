"""A few columns of one row as LLVM values: the currency of the generated loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from llvmlite import ir

from gpumargin.native.machine import register_bytes

VECTOR_BYTES = register_bytes()
INDEX = ir.IntType(32)


@dataclass(frozen=True)
class Block:
    """Columns side by side.

    Attributes:
      width: number of columns.
      parts: vectors of `lanes(width, ...)` elements; what stands behind the last column is arbitrary. One column is a
        plain scalar.
    """

    width: int
    parts: tuple[ir.Value, ...]

    @property
    def lanes(self) -> int:
        """Elements of each part."""
        kind = self.parts[0].type
        return int(kind.count) if isinstance(kind, ir.VectorType) else 1


class Registers:
    """Blocks that other blocks of code may replace; LLVM keeps them in registers.

    Args:
      builder: in a function with an entry block.
      like: blocks of the same widths and types.
    """

    def __init__(self, builder: ir.IRBuilder, like: Sequence[Block]) -> None:
        self._builder, self._like = builder, like
        with builder.goto_entry_block():
            self._places = [[builder.alloca(part.type) for part in block.parts] for block in like]

    def keep(self, blocks: Sequence[Block]) -> None:
        """Replaces them."""
        for places, block in zip(self._places, blocks, strict=True):
            for place, part in zip(places, block.parts, strict=True):
                self._builder.store(part, place)

    def blocks(self) -> list[Block]:
        """What was kept last."""
        pairs = zip(self._like, self._places, strict=True)
        return [Block(own.width, tuple(self._loaded(own, places))) for own, places in pairs]

    def _loaded(self, own: Block, places: Sequence[ir.Value]) -> Iterator[ir.Value]:
        for part, place in zip(own.parts, places, strict=True):
            yield self._builder.load(place, typ=part.type)


def lanes(width: int, itemsize: int) -> int:
    """Elements of the vectors that hold `width` columns: a power of two, at most a register full."""
    most = VECTOR_BYTES // itemsize
    return next((n for n in (1, 2, 4, 8, 16) if n >= width), most) if width <= most else most


def padded(width: int, itemsize: int) -> int:
    """Columns that whole vectors of a block have room for."""
    step = lanes(width, itemsize)
    return -(-width // step) * step


def block_type(width: int, element: ir.Type, itemsize: int) -> ir.Type:
    """Type of each part of a block."""
    count = lanes(width, itemsize)
    return element if count == 1 else ir.VectorType(element, count)


def scalar(builder: ir.IRBuilder, block: Block, column: int) -> ir.Value:
    """One column of a block."""
    if block.width == 1:
        return block.parts[0]
    part, place = divmod(column, block.lanes)
    return builder.extract_element(block.parts[part], ir.Constant(INDEX, place))


def splat(builder: ir.IRBuilder, value: ir.Value, count: int) -> ir.Value:
    """A vector of `count` times the same scalar."""
    if count == 1:
        return value
    kind = ir.VectorType(value.type, count)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(INDEX, 0))
    mask = ir.Constant(ir.VectorType(INDEX, count), [0] * count)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)


def widened(builder: ir.IRBuilder, block: Block, width: int, itemsize: int) -> Block:
    """A block of one column repeated over `width` columns; any other as it is."""
    if block.width == width:
        return block
    count = lanes(width, itemsize)
    return Block(width, (splat(builder, block.parts[0], count),) * (padded(width, itemsize) // count))


def filled(builder: ir.IRBuilder, block: Block) -> Block:
    """The block with its last column repeated in what stands behind it."""
    rest = block.width % block.lanes
    if not rest:
        return block
    last = block.parts[-1]
    places = [min(place, rest - 1) for place in range(block.lanes)]
    mask = ir.Constant(ir.VectorType(INDEX, block.lanes), places)
    return Block(block.width, (*block.parts[:-1], builder.shuffle_vector(last, last, mask)))


def gathered(builder: ir.IRBuilder, scalars: Sequence[ir.Value], itemsize: int) -> Block:
    """Scalars side by side as a block."""
    if len(scalars) == 1:
        return Block(1, (scalars[0],))
    count = lanes(len(scalars), itemsize)
    kind = ir.VectorType(scalars[0].type, count)
    parts = []
    for first in range(0, len(scalars), count):
        part: ir.Value = ir.Constant(kind, ir.Undefined)
        for place, value in enumerate(scalars[first : first + count]):
            part = builder.insert_element(part, value, ir.Constant(INDEX, place))
        parts.append(part)
    return Block(len(scalars), tuple(parts))


def columns_of(builder: ir.IRBuilder, block: Block, start: int, stop: int, itemsize: int) -> Block:
    """The columns `start` to `stop`, the latter not included."""
    width = stop - start
    if width == 0:
        return Block(0, ())
    if width == 1:
        return Block(1, (scalar(builder, block, start),))
    if start % block.lanes == 0 and lanes(width, itemsize) == block.lanes:
        first = start // block.lanes
        return Block(width, block.parts[first : first + padded(width, itemsize) // block.lanes])
    return gathered(builder, [scalar(builder, block, i) for i in range(start, stop)], itemsize)


def joined(builder: ir.IRBuilder, blocks: Sequence[Block], itemsize: int) -> Block:
    """Blocks side by side as one."""
    if len(blocks) == 1:
        return blocks[0]
    width = sum(block.width for block in blocks)
    count = lanes(width, itemsize)
    ends = [sum(block.width for block in blocks[: i + 1]) for i in range(len(blocks))]
    is_aligned = all(b.lanes == count for b in blocks) and all(end % count == 0 for end in ends[:-1])
    if is_aligned:
        return Block(width, tuple(part for block in blocks for part in block.parts))
    return gathered(builder, [scalar(builder, b, i) for b in blocks for i in range(b.width)], itemsize)


def constant_columns(values: Sequence[float], element: ir.Type, itemsize: int) -> Block:
    """Known numbers as a block."""
    if len(values) == 1:
        return Block(1, (ir.Constant(element, values[0]),))
    count = lanes(len(values), itemsize)
    filled = [*values, *[values[-1]] * (padded(len(values), itemsize) - len(values))]
    cuts = pairwise(range(0, len(filled) + 1, count))
    return Block(len(values), tuple(ir.Constant(ir.VectorType(element, count), filled[a:b]) for a, b in cuts))
