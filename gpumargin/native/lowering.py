"""From a traced function of one row to LLVM: every formula keeps its one source, in JAX.

A margin rule closes a group of legs by a function that JAX traces. Its jaxpr, traced for a single row, is translated
operation by operation, each rounding as XLA's own does: no contraction, no reassociation, NaN kept. What has no
translation here raises `UnsupportedError`, and the caller uses the XLA path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jax.extend import core
from llvmlite import ir

from gpumargin.native.blocks import Block, columns_of, constant_columns, joined, scalar, splat, widened

BIT = ir.IntType(1)


Traced: TypeAlias = Any  # a jaxpr with its constants, for which JAX has no public static type


class UnsupportedError(Exception):
    """The function uses an operation or a shape that has no translation."""


@dataclass(frozen=True)
class Target:
    """Where instructions go, and of which numbers.

    Attributes:
      builder: at the place where they go.
      element: type of a number.
      itemsize: its bytes.
    """

    builder: ir.IRBuilder
    element: ir.Type
    itemsize: int


def lowered(closed: Traced, target: Target, arguments: Sequence[Block]) -> list[Block]:
    """Instructions for a traced function.

    Args:
      closed: traced with arrays of one row, `[]`, `[1]` or `[1, K]`.
      target: where they go.
      arguments: one block per input.

    Returns:
      One block per output.

    Raises:
      UnsupportedError: an operation or a shape has no translation.
    """
    known: dict[Any, Block] = dict(zip(closed.jaxpr.invars, arguments, strict=True))
    for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        known[variable] = _constant(target, np.asarray(value))

    def read(atom: Any) -> Block:
        return _constant(target, np.asarray(atom.val)) if isinstance(atom, core.Literal) else known[atom]

    for equation in closed.jaxpr.eqns:
        results = _translated(target, equation, [read(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _width(shape: tuple[int, ...]) -> int:
    """Columns of an array of one row: it must be long in one direction only."""
    if sum(size != 1 for size in shape) > 1:
        message = f"an array of shape {shape}"
        raise UnsupportedError(message)
    return math.prod(shape)


def _constant(target: Target, value: np.ndarray) -> Block:
    _width(value.shape)
    element = BIT if value.dtype == bool else target.element
    if (
        value.dtype != bool
        and not np.issubdtype(value.dtype, np.floating)
        and not np.issubdtype(value.dtype, np.integer)
    ):
        message = f"a constant of type {value.dtype}"
        raise UnsupportedError(message)
    plain = [bool(x) if value.dtype == bool else float(x) for x in value.ravel()]
    return constant_columns(plain, element, target.itemsize)


def _translated(target: Target, equation: Any, operands: list[Block]) -> list[Block]:
    name = equation.primitive.name
    if name in {"jit", "pjit"}:
        return lowered(equation.params["jaxpr"], target, operands)
    if name in {"custom_jvp_call", "custom_vjp_call"}:
        return lowered(equation.params["call_jaxpr"], target, operands)
    shape = equation.outvars[0].aval.shape
    width = _width(shape)
    if name in _ELEMENTWISE:
        wide = [widened(target.builder, block, width, target.itemsize) for block in operands]
        parts = zip(*(block.parts for block in wide), strict=True)
        return [Block(width, tuple(_ELEMENTWISE[name](target.builder, *part) for part in parts))]
    if name in _SHAPING:
        return [_SHAPING[name](target, equation, operands, width)]
    message = f"the operation {name!r}"
    raise UnsupportedError(message)


def _intrinsic(name: str) -> Callable[..., ir.Value]:
    def call(builder: ir.IRBuilder, *operands: ir.Value) -> ir.Value:
        kind = operands[0].type
        count, element = (f"v{kind.count}", kind.element) if isinstance(kind, ir.VectorType) else ("", kind)
        full = f"llvm.{name}.{count}{element.intrinsic_name}"
        declared = builder.module.globals.get(full)
        if declared is None:
            declared = ir.Function(builder.module, ir.FunctionType(kind, [kind] * len(operands)), full)
        return builder.call(declared, operands)

    return call


def _compared(operator: str, *, is_unordered: bool = False) -> Callable[..., ir.Value]:
    def compare(builder: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
        kind = left.type.element if isinstance(left.type, ir.VectorType) else left.type
        if kind == BIT:
            return builder.icmp_unsigned(operator, left, right)
        # All comparisons but != are false where an operand is NaN.
        return (builder.fcmp_unordered if is_unordered else builder.fcmp_ordered)(operator, left, right)

    return compare


def _select(builder: ir.IRBuilder, which: ir.Value, if_false: ir.Value, if_true: ir.Value) -> ir.Value:
    return builder.select(which, if_true, if_false)


def _sign(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """-1, 1, or the number itself where it is 0 or NaN."""
    element = value.type.element if isinstance(value.type, ir.VectorType) else value.type
    one = ir.Constant(element, 1.0)
    count = value.type.count if isinstance(value.type, ir.VectorType) else 1
    signed = _intrinsic("copysign")(builder, splat(builder, one, count), value)
    zero = ir.Constant(value.type, None if count > 1 else 0.0)
    return builder.select(builder.fcmp_ordered("!=", value, zero), signed, value)


_ELEMENTWISE: dict[str, Callable[..., ir.Value]] = {
    "add": lambda b, x, y: b.fadd(x, y),
    "sub": lambda b, x, y: b.fsub(x, y),
    "mul": lambda b, x, y: b.fmul(x, y),
    "div": lambda b, x, y: b.fdiv(x, y),
    "neg": lambda b, x: b.fneg(x),
    "abs": _intrinsic("fabs"),
    "sign": _sign,
    "sqrt": _intrinsic("sqrt"),
    "floor": _intrinsic("floor"),
    "ceil": _intrinsic("ceil"),
    "max": _intrinsic("maximum"),
    "min": _intrinsic("minimum"),
    "gt": _compared(">"),
    "ge": _compared(">="),
    "lt": _compared("<"),
    "le": _compared("<="),
    "eq": _compared("=="),
    "ne": _compared("!=", is_unordered=True),
    "and": lambda b, x, y: b.and_(x, y),
    "or": lambda b, x, y: b.or_(x, y),
    "not": lambda b, x: b.not_(x),
    "select_n": _select,
    "stop_gradient": lambda b, x: x,  # noqa: ARG005
}


def _sliced(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
    params = equation.params
    if params["strides"] is not None and any(stride != 1 for stride in params["strides"]):
        message = "a slice with strides"
        raise UnsupportedError(message)
    start = sum(params["start_indices"])  # 0 in every direction but the long one
    return columns_of(target.builder, operands[0], start, start + width, target.itemsize)


def _concatenated(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
    del equation, width
    return joined(target.builder, [block for block in operands if block.width], target.itemsize)


def _same_columns(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
    """Another shape of the same columns, or one column repeated."""
    del equation
    return widened(target.builder, operands[0], width, target.itemsize)


def _converted(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
    """The same numbers in another type; whole numbers are constants here, and held as fractions already."""
    del target
    was, wanted = (np.dtype(atom.aval.dtype) for atom in (equation.invars[0], equation.outvars[0]))
    if was == wanted or (was.kind in "iu" and wanted.kind == "f"):
        return Block(width, operands[0].parts)
    message = f"a conversion of {was} to {wanted}"
    raise UnsupportedError(message)


def _reduced(operation: str) -> Callable[..., Block]:
    def reduce(target: Target, equation: Any, operands: list[Block], width: int) -> Block:
        """The columns of a row folded into one; exact for a least or a largest, whatever the order."""
        del width
        if math.prod(equation.outvars[0].aval.shape) != 1:
            message = "a reduction that leaves several columns"
            raise UnsupportedError(message)
        fold, block = _ELEMENTWISE[operation], operands[0]
        found = scalar(target.builder, block, 0)
        for column in range(1, block.width):
            found = fold(target.builder, found, scalar(target.builder, block, column))
        return Block(1, (found,))

    return reduce


_SHAPING: dict[str, Callable[[Target, Any, list[Block], int], Block]] = {
    "slice": _sliced,
    "concatenate": _concatenated,
    "stack": _concatenated,
    "reshape": _same_columns,
    "squeeze": _same_columns,
    "broadcast_in_dim": _same_columns,
    "convert_element_type": _converted,
    "reduce_min": _reduced("min"),
    "reduce_max": _reduced("max"),
}
