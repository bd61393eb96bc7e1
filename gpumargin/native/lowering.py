"""From a traced function of one row to LLVM: every formula keeps its one source, in JAX.

Rules close groups of legs, and make a requirement of a row's sums, by functions that JAX traces. Their jaxprs, traced
for a single row, are translated operation by operation, each rounding as XLA's own does: no contraction, no
reassociation, NaN kept. What has no translation here raises `UnsupportedError`, and the caller uses the XLA path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jax.extend import core
from llvmlite import ir

from gpumargin.native import instructions
from gpumargin.native.blocks import Block, block_type, columns_of, constant_columns, filled, gathered, joined, widened

LONG = ir.IntType(64)
Traced: TypeAlias = Any  # a jaxpr with its constants, for which JAX has no public static type


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
    known = {"bool": ir.IntType(1), "int32": ir.IntType(32), "int64": LONG, "float32": ir.FloatType()}
    known["float64"] = ir.DoubleType()
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

    for equation in closed.jaxpr.eqns:
        results = _translated(target, equation, [read(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [_loaded(target, read(atom)) for atom in closed.jaxpr.outvars]


def _width(shape: tuple[int, ...]) -> int:
    """Columns of an array of one row: it must be long in one direction only."""
    if sum(size != 1 for size in shape) > 1:
        message = f"an array of shape {shape}"
        raise UnsupportedError(message)
    return math.prod(shape)


def _constant(target: Target, value: np.ndarray) -> Block:
    _width(value.shape)
    return constant_columns(value.ravel().tolist(), element_type(value.dtype), target.itemsize)


def _loaded(target: Target, value: Value) -> Block:
    """A block; of memory only what is one number or one row."""
    if isinstance(value, Block):
        return value
    return _row_of(target, value, ir.Constant(LONG, 0), _width(value.shape))


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

    whole = width // step * step
    parts = [load(column, kind) for column in range(0, whole, step)]
    if whole < width:
        rest = [load(column, memory.element) for column in range(whole, width)]
        filled = [*rest, *[rest[-1]] * (step - len(rest))]
        parts += gathered(builder, filled, target.itemsize).parts
    return Block(width, tuple(parts))


def _translated(target: Target, equation: Any, operands: list[Value]) -> list[Block]:
    name = equation.primitive.name
    inner = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
    if name in inner:
        return lowered(equation.params[inner[name]], target, operands)
    if name == "optimization_barrier":
        return [_loaded(target, operand) for operand in operands]
    width = _width(equation.outvars[0].aval.shape)
    if name == "gather":
        return [_gather(target, equation, operands, width)]
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
    """The row of an array that one index names; indices are known to be within it."""
    array, index = operands
    shape, numbers = equation.invars[0].aval.shape, equation.params["dimension_numbers"]
    is_row = tuple(numbers.collapsed_slice_dims) == (0,) and tuple(numbers.start_index_map) == (0,)
    is_whole = tuple(equation.params["slice_sizes"]) == (1, *shape[1:]) and width == math.prod(shape[1:])
    if not (is_row and is_whole and isinstance(array, Memory) and isinstance(index, Block) and index.width == 1):
        message = "a look-up of other than one row by its index"
        raise UnsupportedError(message)
    row = index.parts[0] if index.parts[0].type == LONG else target.builder.sext(index.parts[0], LONG)
    return _row_of(target, array, row, width)


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
}
