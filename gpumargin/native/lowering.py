"""From a traced function of one row to LLVM: every formula keeps its one source, in JAX.

Rules close groups of legs, and make a requirement of a row's sums, by functions that JAX traces. Their jaxprs, traced
for a single row, are translated operation by operation, each rounding as XLA's own does: no contraction, no
reassociation, NaN kept. What has no translation here raises `UnsupportedError`, and the caller uses the XLA path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from jax.extend import core
from llvmlite import ir

from gpumargin.native import instructions
from gpumargin.native.blocks import (
    Block,
    Registers,
    block_type,
    columns_of,
    constant_columns,
    filled,
    gathered,
    joined,
    scalar,
    widened,
)
from gpumargin.native.control import LONG, counted
from gpumargin.native.traced import CALLS, Traced, needed


class UnsupportedError(Exception):
    """The function uses an operation or a shape that has no translation."""


@dataclass(frozen=True)
class Memory:
    """An array that rows look up in, `[N]` or `[N, K]`, or one number `[]`."""

    pointer: ir.Value
    shape: tuple[int, ...]
    element: ir.Type


@dataclass(frozen=True)
class Target:
    """Where instructions go, and of which numbers.

    Attributes:
      builder: at the place where they go.
      itemsize: bytes of a floating number.
    """

    builder: ir.IRBuilder
    itemsize: int


Value = Block | Memory


def element_type(dtype: Any) -> ir.Type:
    """LLVM's type of one number.

    Raises:
      UnsupportedError: it has none here.
    """
    known = {f"int{bits}": ir.IntType(bits) for bits in (8, 32, 64)}
    known |= {"bool": instructions.BIT, "float32": ir.FloatType(), "float64": ir.DoubleType()}
    if str(dtype) not in known:
        message = f"numbers of type {dtype}"
        raise UnsupportedError(message)
    return known[str(dtype)]


def lowered(closed: Traced, target: Target, arguments: Sequence[Value]) -> list[Block]:
    """Instructions for a traced function.

    Args:
      closed: traced with arrays of one row, `[]`, `[1]` or `[1, K]`, and arrays that rows look up in.
      target: where they go.
      arguments: one per input.

    Returns:
      One block per output.

    Raises:
      UnsupportedError: an operation or a shape has no translation.
    """
    known: dict[Any, Value] = dict(zip(closed.jaxpr.invars, arguments, strict=True))
    for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        known[variable] = _constant(target, np.asarray(value))

    def read(atom: Any) -> Value:
        return _constant(target, np.asarray(atom.val)) if isinstance(atom, core.Literal) else known[atom]

    for equation in needed(closed.jaxpr):
        results = _translated(target, equation, [read(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [_loaded(target, read(atom)) for atom in closed.jaxpr.outvars]


def is_alike(equation: Any) -> bool:
    """Whether an operation gives the same bits on every path; of reductions XLA chooses the order, and signs of 0."""
    name = equation.primitive.name
    if name in CALLS or name == "scan":
        return all(is_alike(inner) for inner in equation.params[CALLS.get(name, "jaxpr")].jaxpr.eqns)
    known = {*instructions.ELEMENTWISE, *_SHAPING, "gather", "optimization_barrier"}
    return name in known and not name.startswith("reduce")


def is_same_columns(equation: Any) -> bool:
    """Whether an operation gives the columns that it gets in another shape, or its one column again and again."""
    return _SHAPING.get(equation.primitive.name) is _same_columns


def is_one_row(shape: tuple[int, ...]) -> bool:
    """Whether an array is long in one direction only."""
    return sum(size != 1 for size in shape) <= 1


def width_of(shape: tuple[int, ...]) -> int:
    """Columns of an array of one row.

    Raises:
      UnsupportedError: it is long in more than one direction.
    """
    if not is_one_row(shape):
        message = f"an array of shape {shape}"
        raise UnsupportedError(message)
    return math.prod(shape)


def _constant(target: Target, value: np.ndarray) -> Block:
    width_of(value.shape)
    return constant_columns(value.ravel().tolist(), element_type(value.dtype), target.itemsize)


def _loaded(target: Target, value: Value) -> Block:
    """A block; of memory only what is one number or one row."""
    if isinstance(value, Block):
        return value
    return _row_of(target, value, ir.Constant(LONG, 0), width_of(value.shape))


def _row_of(target: Target, memory: Memory, row: ir.Value, width: int) -> Block:
    """Columns of a row of memory: whole vectors, then one by one, for nothing may be read behind the last."""
    builder = target.builder
    start = builder.mul(row, ir.Constant(LONG, width))
    kind = block_type(width, memory.element, target.itemsize)
    step = kind.count if isinstance(kind, ir.VectorType) else 1
    size = instructions.bytes_of(memory.element)

    def load(column: int, of_type: ir.Type) -> ir.Value:
        place = builder.add(start, ir.Constant(LONG, column))
        pointer = builder.gep(memory.pointer, [place], source_etype=memory.element)
        return builder.load(pointer, align=size, typ=of_type)

    is_apart = memory.element == instructions.BIT and width > 1  # flags are bytes in memory, in vectors they are bits
    whole = 0 if is_apart else width // step * step
    parts = [load(column, kind) for column in range(0, whole, step)]
    if whole < width:
        rest = [load(column, memory.element) for column in range(whole, width)]
        filled = [*rest, *[rest[-1]] * (step - len(rest))]
        parts += gathered(builder, filled, target.itemsize).parts
    return Block(width, tuple(parts))


def _translated(target: Target, equation: Any, operands: list[Value]) -> list[Block]:
    name = equation.primitive.name
    if name in CALLS:
        return lowered(equation.params[CALLS[name]], target, operands)
    if name == "scan":
        return _repeated(target, equation, operands)
    if name == "optimization_barrier":
        return [_loaded(target, operand) for operand in operands]
    width = width_of(equation.outvars[0].aval.shape)
    if name == "gather":
        return [_gather(target, equation, operands, width)]
    if name == "dynamic_slice":
        return [_column(target, operands, width)]
    loaded = [_loaded(target, operand) for operand in operands]
    if name in instructions.ELEMENTWISE:
        wide = [widened(target.builder, block, width, target.itemsize) for block in loaded]
        parts = zip(*(block.parts for block in wide), strict=True)
        return [Block(width, tuple(instructions.ELEMENTWISE[name](target.builder, *part) for part in parts))]
    if name in _SHAPING:
        return [_SHAPING[name](target, equation, loaded, width)]
    message = f"the operation {name!r}"
    raise UnsupportedError(message)


def _gather(target: Target, equation: Any, operands: list[Value], width: int) -> Block:
    """The row of an array that one index names; one beyond it means the nearest, as on XLA's own path."""
    array, index = operands
    shape, numbers = equation.invars[0].aval.shape, equation.params["dimension_numbers"]
    is_row = tuple(numbers.collapsed_slice_dims) == (0,) and tuple(numbers.start_index_map) == (0,)
    is_whole = tuple(equation.params["slice_sizes"]) == (1, *shape[1:]) and width == math.prod(shape[1:])
    if not (is_row and is_whole and isinstance(array, Memory) and isinstance(index, Block) and index.width == 1):
        message = "a look-up of other than one row by its index"
        raise UnsupportedError(message)
    row = instructions.within(target.builder, _as_long(target, index), shape[0])
    return _row_of(target, array, row, width)


def _column(target: Target, operands: list[Value], width: int) -> Block:
    """One slot of a row's own."""
    array, *_, slot = operands
    if not (isinstance(array, Memory) and array.shape[0] == 1 and len(array.shape) == 2 and width == 1):
        message = "a slot of what does not lie in memory"
        raise UnsupportedError(message)
    return _row_of(target, array, instructions.within(target.builder, _as_long(target, slot), array.shape[1]), 1)


def _as_long(target: Target, index: Value) -> ir.Value:
    number = _loaded(target, index).parts[0]
    return number if number.type == LONG else target.builder.sext(number, LONG)


def _repeated(target: Target, equation: Any, operands: list[Value]) -> list[Block]:
    """A function applied again and again to its own results; they lie in registers."""
    builder, body = target.builder, equation.params["jaxpr"]
    outside, inside = ((*e.invars, *e.outvars) for e in (equation, body.jaxpr))
    if [x.aval.shape for x in outside] != [x.aval.shape for x in inside]:
        message = "a loop over rows of arrays"
        raise UnsupportedError(message)
    count = len(operands) - len(equation.outvars)
    start = [_loaded(target, operand) for operand in operands[count:]]
    held = Registers(builder, start)
    held.keep(start)
    with counted(builder, ir.Constant(LONG, equation.params["length"])):
        held.keep(lowered(body, target, [*operands[:count], *held.blocks()]))
    return held.blocks()


def _sliced(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
    params = equation.params
    if params["strides"] is not None and any(stride != 1 for stride in params["strides"]):
        message = "a slice with strides"
        raise UnsupportedError(message)
    start = sum(params["start_indices"])  # 0 in every direction but the long one
    return columns_of(target.builder, operands[0], start, start + width, target.itemsize)


def _concatenated(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
    del equation
    if not width:
        return Block(0, ())
    return joined(target.builder, [block for block in operands if block.width], target.itemsize)


def _same_columns(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
    """Another shape of the same columns, or one column repeated."""
    del equation
    return widened(target.builder, operands[0], width, target.itemsize)


def _converted(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
    wanted = element_type(equation.outvars[0].aval.dtype)
    found = tuple(instructions.converted(target.builder, part, wanted) for part in operands[0].parts)
    if None in found:
        message = f"a conversion of {equation.invars[0].aval.dtype} to {equation.outvars[0].aval.dtype}"
        raise UnsupportedError(message)
    return Block(width, found)


def _reduced(operation: str) -> Callable[..., Block]:
    def reduce(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
        """The columns of a row folded into one; exact for a least or a largest, whatever the order."""
        del width
        if math.prod(equation.outvars[0].aval.shape) != 1:
            message = "a reduction that leaves several columns"
            raise UnsupportedError(message)
        parts = filled(target.builder, operands[0]).parts
        return Block(1, (instructions.extreme(target.builder, parts, operation),))

    return reduce


def _summed(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
    """The columns of a row added up: of whole numbers, exact in any order."""
    del width
    (block,) = operands
    if math.prod(equation.outvars[0].aval.shape) != 1 or not isinstance(
        instructions.element_of(block.parts[0]), ir.IntType
    ):
        message = "a sum in an order that XLA chooses"
        raise UnsupportedError(message)
    columns = [scalar(target.builder, block, i) for i in range(block.width)]
    return Block(1, (reduce(target.builder.add, columns),))


def _counted(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
    """0, 1, 2 along the columns."""
    del operands
    kind = element_type(equation.outvars[0].aval.dtype)
    return constant_columns(list(range(width)), kind, target.itemsize)


_SHAPING: dict[str, Callable[[Target, Any, list[Block], int], Block]] = {
    "slice": _sliced,
    "concatenate": _concatenated,
    "stack": _concatenated,
    "reshape": _same_columns,
    "squeeze": _same_columns,
    "broadcast_in_dim": _same_columns,
    "convert_element_type": _converted,
    "iota": _counted,
    "reduce_min": _reduced("min"),
    "reduce_max": _reduced("max"),
    "reduce_sum": _summed,
    "reshard": _same_columns,
}
