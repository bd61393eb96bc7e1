"""Amounts that know how much was added up to get them, so that rounding can be told from a wrong number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gpumargin_kernels.expression import Expression


class Figure(NamedTuple):
    """An amount, and the size that its rounding is relative to: the sum of the sizes of what went into it."""

    amount: float
    gross: float


def exact(amount: float) -> Figure:
    """A number that is given, not computed."""
    return Figure(amount, abs(amount))


def total(figures: list[Figure]) -> Figure:
    """Sum of figures, 0 if there are none."""
    return Figure(sum(f.amount for f in figures), sum(f.gross for f in figures))


def _quotient(a: Figure, b: Figure) -> Figure:
    if b.amount == 0:
        return Figure(math.nan if a.amount == 0 else math.copysign(math.inf, a.amount), math.inf)
    return Figure(a.amount / b.amount, a.gross * b.gross / b.amount**2)


def _choice(choose: Callable[[float, float], float]) -> Callable[[Figure, Figure], Figure]:
    def chosen(a: Figure, b: Figure) -> Figure:
        is_number = not (math.isnan(a.amount) or math.isnan(b.amount))
        return Figure(choose(a.amount, b.amount) if is_number else math.nan, max(a.gross, b.gross))

    return chosen


def root(square: Figure) -> Figure:
    """Square root; NaN below 0."""
    amount = math.sqrt(square.amount) if square.amount >= 0 else math.nan
    return Figure(amount, square.gross / amount if amount > 0 else math.sqrt(square.gross))


_OPERATORS: dict[str, Callable[..., Figure]] = {
    "+": lambda a, b: Figure(a.amount + b.amount, a.gross + b.gross),
    "-": lambda a, b: Figure(a.amount - b.amount, a.gross + b.gross),
    "*": lambda a, b: Figure(a.amount * b.amount, a.gross * b.gross),
    "/": _quotient,
    "max": lambda *operands: reduce(_choice(max), operands),
    "min": lambda *operands: reduce(_choice(min), operands),
    "sqrt": root,
    "abs": lambda a: Figure(abs(a.amount), a.gross),
}


def evaluate(expression: Expression, values: Mapping[str, Figure]) -> Figure:
    """Value of an expression from `parse_expression`, every name looked up in `values`."""
    if isinstance(expression, str):
        return values[expression]
    if isinstance(expression, (int, float)):
        return exact(expression)
    name, *operands = expression
    return _OPERATORS[str(name)](*(evaluate(operand, values) for operand in operands))
