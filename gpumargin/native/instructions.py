"""JAX's elementwise operations as LLVM instructions, on scalars and vectors, of fractions and whole numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

from llvmlite import ir

from gpumargin.native.blocks import splat

BIT = ir.IntType(1)
Instruction = Callable[..., ir.Value]


def element_of(value: ir.Value) -> ir.Type:
    """Type of one number of a scalar or a vector."""
    return value.type.element if isinstance(value.type, ir.VectorType) else value.type


def count_of(value: ir.Value) -> int:
    """Numbers of a vector; 1 for a scalar."""
    return int(value.type.count) if isinstance(value.type, ir.VectorType) else 1


def bytes_of(element: ir.Type) -> int:
    """Bytes of one number in memory."""
    if isinstance(element, ir.IntType):
        return max(int(element.width) // 8, 1)
    return 8 if isinstance(element, ir.DoubleType) else 4


def converted(builder: ir.IRBuilder, value: ir.Value, wanted: ir.Type) -> ir.Value | None:
    """The same numbers as another type; None if there is no plain way."""
    was, count = element_of(value), count_of(value)
    kind = wanted if count == 1 else ir.VectorType(wanted, count)
    if was == wanted:
        return value
    if isinstance(was, ir.IntType) and isinstance(wanted, ir.IntType):
        if wanted == BIT:
            return None
        return builder.zext(value, kind) if was == BIT else _resized(builder, value, kind, was.width < wanted.width)
    if isinstance(was, ir.IntType):
        return builder.uitofp(value, kind) if was == BIT else builder.sitofp(value, kind)
    return None


def _resized(builder: ir.IRBuilder, value: ir.Value, kind: ir.Type, is_wider: bool) -> ir.Value:  # noqa: FBT001
    return builder.sext(value, kind) if is_wider else builder.trunc(value, kind)


def intrinsic(name: str) -> Instruction:
    """A function that LLVM knows by name, for numbers of any type."""

    def call(builder: ir.IRBuilder, *operands: ir.Value) -> ir.Value:
        kind = operands[0].type
        vector = f"v{kind.count}" if isinstance(kind, ir.VectorType) else ""
        full = f"llvm.{name}.{vector}{element_of(operands[0]).intrinsic_name}"
        declared = builder.module.globals.get(full)
        if declared is None:
            declared = ir.Function(builder.module, ir.FunctionType(kind, [kind] * len(operands)), full)
        return builder.call(declared, operands)

    return call


def within(builder: ir.IRBuilder, index: ir.Value, size: int) -> ir.Value:
    """An index moved into an array of so many rows."""
    first, last = (ir.Constant(index.type, number) for number in (0, size - 1))
    return intrinsic("smin")(builder, intrinsic("smax")(builder, index, first), last)


def folded(builder: ir.IRBuilder, fold: Instruction, value: ir.Value) -> ir.Value:
    """The numbers of a vector folded into one, half by half."""
    index = ir.IntType(32)
    half = count_of(value) // 2
    while half:
        numbers = ir.VectorType(index, half)
        low, high = (ir.Constant(numbers, list(range(a, a + half))) for a in (0, half))
        nothing = ir.Constant(value.type, ir.Undefined)
        value = fold(builder, *(builder.shuffle_vector(value, nothing, mask) for mask in (low, high)))
        half //= 2
    return _first(builder, value) if isinstance(value.type, ir.VectorType) else value


def extreme(builder: ir.IRBuilder, parts: Sequence[ir.Value], operation: str) -> ir.Value:
    """The number of some vectors that `min` or `max` leaves, NaN before all others and -0 below 0.

    A processor's own instruction loses a NaN and takes either of -0 and 0. Where there is no NaN and the result is not
    0, every way gives the same bits; elsewhere, which is rare, all is folded again exactly, at several times the cost.
    """
    exact, operator = ELEMENTWISE[operation], {"min": "<", "max": ">"}[operation]
    if isinstance(element_of(parts[0]), ir.IntType):
        return _folded_parts(builder, exact, parts)

    def quick(builder: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
        return builder.select(builder.fcmp_ordered(operator, left, right), left, right)

    found = _folded_parts(builder, quick, parts)
    is_odd = builder.or_(_has_nan(builder, parts), builder.fcmp_unordered("==", found, ir.Constant(found.type, 0.0)))
    before = builder.block
    with builder.if_then(is_odd, likely=False):
        again, odd = _folded_parts(builder, exact, parts), builder.block
    chosen = builder.phi(found.type)
    chosen.add_incoming(found, before)
    chosen.add_incoming(again, odd)
    return chosen


def _has_nan(builder: ir.IRBuilder, parts: Sequence[ir.Value]) -> ir.Value:
    """Whether any number of some vectors is NaN."""
    pairs = zip(parts[::2], [*parts[1::2], *parts[-1:]], strict=False)
    found = reduce(builder.or_, [builder.fcmp_unordered("uno", one, other) for one, other in pairs])
    if not isinstance(found.type, ir.VectorType):
        return found
    bits = ir.IntType(found.type.count)
    return builder.icmp_unsigned("!=", builder.bitcast(found, bits), ir.Constant(bits, 0))


def _folded_parts(builder: ir.IRBuilder, fold: Instruction, parts: Sequence[ir.Value]) -> ir.Value:
    rest = list(parts)
    while len(rest) > 1:  # pair by pair: rows wait for the longest chain of operations
        rest.append(fold(builder, rest.pop(0), rest.pop(0)))
    return folded(builder, fold, rest[0])


def _first(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))


def _by_type(fraction: Instruction, whole: Instruction) -> Instruction:
    def choose(builder: ir.IRBuilder, *operands: ir.Value) -> ir.Value:
        return (whole if isinstance(element_of(operands[0]), ir.IntType) else fraction)(builder, *operands)

    return choose


def _compared(operator: str) -> Instruction:
    def compare(builder: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
        if element_of(left) == BIT:
            return builder.icmp_unsigned(operator, left, right)
        if isinstance(element_of(left), ir.IntType):
            return builder.icmp_signed(operator, left, right)
        # All comparisons but != are false where an operand is NaN.
        return (builder.fcmp_unordered if operator == "!=" else builder.fcmp_ordered)(operator, left, right)

    return compare


def _sign(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """-1, 1, or the number itself where it is 0 or NaN."""
    one, zero = (splat(builder, ir.Constant(element_of(value), x), count_of(value)) for x in (1.0, 0.0))
    signed = intrinsic("copysign")(builder, one, value)
    return builder.select(builder.fcmp_ordered("!=", value, zero), signed, value)


def _is_finite(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    size = intrinsic("fabs")(builder, value)
    return builder.fcmp_ordered("<", size, splat(builder, ir.Constant(element_of(value), math.inf), count_of(value)))


def _select(builder: ir.IRBuilder, which: ir.Value, if_false: ir.Value, if_true: ir.Value) -> ir.Value:
    return builder.select(which, if_true, if_false)


ELEMENTWISE: dict[str, Instruction] = {
    "add": _by_type(ir.IRBuilder.fadd, ir.IRBuilder.add),
    "sub": _by_type(ir.IRBuilder.fsub, ir.IRBuilder.sub),
    "mul": _by_type(ir.IRBuilder.fmul, ir.IRBuilder.mul),
    "div": ir.IRBuilder.fdiv,
    "neg": _by_type(ir.IRBuilder.fneg, ir.IRBuilder.neg),
    "abs": intrinsic("fabs"),
    "sign": _sign,
    "sqrt": intrinsic("sqrt"),
    "floor": intrinsic("floor"),
    "ceil": intrinsic("ceil"),
    "max": _by_type(intrinsic("maximum"), intrinsic("smax")),
    "min": _by_type(intrinsic("minimum"), intrinsic("smin")),
    "is_finite": _is_finite,
    "gt": _compared(">"),
    "ge": _compared(">="),
    "lt": _compared("<"),
    "le": _compared("<="),
    "eq": _compared("=="),
    "ne": _compared("!="),
    "and": ir.IRBuilder.and_,
    "or": ir.IRBuilder.or_,
    "not": ir.IRBuilder.not_,
    "select_n": _select,
    "copy": lambda builder, value: value,  # noqa: ARG005
    "copy_p": lambda builder, value: value,  # noqa: ARG005
    "stop_gradient": lambda builder, value: value,  # noqa: ARG005
}
