"""Amounts that know how much was added up to get them, so that rounding can be told from a wrong number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
    "exp": lambda a: Figure(math.exp(a.amount), math.exp(a.amount) * (1 + a.gross)),
    "log": lambda a: (
        Figure(math.log(a.amount), abs(math.log(a.amount)) + a.gross / a.amount)
        if a.amount > 0
        else Figure(math.nan, a.gross)
    ),
    "floor": lambda a: Figure(float(math.floor(a.amount)), a.gross),
    "ceil": lambda a: Figure(float(math.ceil(a.amount)), a.gross),
    "sign": lambda a: exact(math.copysign(1.0, a.amount) if a.amount else a.amount),
    "pow": lambda a, b: Figure(a.amount**b.amount, abs(a.amount**b.amount) * (1 + abs(b.amount))),
    "shrink": lambda a, b: Figure(math.copysign(max(abs(a.amount) - b.amount, 0.0), a.amount), a.gross + b.gross),
    "where<": lambda a, b, x, y: _chosen(a, b, x if a.amount < b.amount else y),
    "where<=": lambda a, b, x, y: _chosen(a, b, x if a.amount <= b.amount else y),
    "marginal": lambda a, table: _marginal(a, table),
    "bracket": lambda a, table: exact(next((rate for upper, rate in table if a.amount <= upper), table[-1][1])),
}

Table = Sequence[tuple[float, float]]  # upper bound and rate of each bracket


def _chosen(a: Figure, b: Figure, chosen: Figure) -> Figure:
    is_number = not (math.isnan(a.amount) or math.isnan(b.amount))
    return chosen if is_number else Figure(math.nan, chosen.gross)


def _marginal(amount: Figure, table: Table) -> Figure:
    lower = [0.0, *(upper for upper, _ in table[:-1])]
    parts = [
        rate * max(min(amount.amount, upper) - start, 0.0) for (upper, rate), start in zip(table, lower, strict=True)
    ]
    return Figure(sum(parts) if not math.isnan(amount.amount) else math.nan, max(r for _, r in table) * amount.gross)


def evaluate(expression: Expression, values: Mapping[str, Figure], tables: Mapping[str, Table] | None = None) -> Figure:
    """Value of an expression from `parse_expression`, names looked up in `values`, bracket tables in `tables`."""
    if isinstance(expression, str):
        return values[expression]
    if isinstance(expression, (int, float)):
        return exact(expression)
    name, *operands = expression
    if name in {"marginal", "bracket"}:
        return _OPERATORS[str(name)](evaluate(operands[0], values, tables), (tables or {})[str(operands[1])])
    return _OPERATORS[str(name)](*(evaluate(operand, values, tables) for operand in operands))
