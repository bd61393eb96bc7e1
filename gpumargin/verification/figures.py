"""Arrays of amounts that know how much was added up to get them: `explain.figures` for many accounts at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from gpumargin_kernels.expression import Expression

Array = np.ndarray[Any, np.dtype[Any]]
Table = Sequence[tuple[float, float]]  # upper bound and rate of each bracket


class Figures(NamedTuple):
    """Amounts, and the sizes that their rounding is relative to; numbers stand for arrays of equal ones."""

    amount: Any
    gross: Any


NOTHING = Figures(0.0, 0.0)


def given(amount: Any) -> Figures:
    """Numbers that are given, not computed."""
    return Figures(amount, np.abs(amount))


def total(figures: Sequence[Figures]) -> Figures:
    """Sum of figures, 0 if there are none."""
    return Figures(sum(f.amount for f in figures), sum(f.gross for f in figures))


def scaled(figures: Figures, factor: float) -> Figures:
    """Figures times a number."""
    return Figures(figures.amount * factor, figures.gross * abs(factor))


def product(a: Figures, b: Figures) -> Figures:
    """Product of figures."""
    return Figures(a.amount * b.amount, a.gross * b.gross)


def root(square: Figures) -> Figures:
    """Square root; NaN below 0."""
    amount = np.sqrt(np.where(np.asarray(square.amount) >= 0, square.amount, np.nan))
    return Figures(amount, np.where(amount > 0, square.gross / np.where(amount > 0, amount, 1), np.sqrt(square.gross)))


def norm(squares: Figures) -> Figures:
    """Root of a sum of pairs; a sum below 0 by rounding counts as 0."""
    return root(Figures(np.maximum(squares.amount, 0.0), squares.gross))


def _quotient(a: Figures, b: Figures) -> Figures:
    is_zero = np.asarray(b.amount) == 0
    safe = np.where(is_zero, 1.0, b.amount)
    by_zero = np.where(np.asarray(a.amount) == 0, np.nan, np.copysign(np.inf, a.amount))
    gross = np.where(is_zero, np.inf, a.gross * b.gross / safe**2)
    return Figures(np.where(is_zero, by_zero, a.amount / safe), gross)


def _choice(choose: Callable[[Any, Any], Any]) -> Callable[..., Figures]:
    def one(a: Figures, b: Figures) -> Figures:
        return Figures(choose(a.amount, b.amount), np.maximum(a.gross, b.gross))

    return lambda *operands: reduce(one, operands)


def _where(compare: Callable[[Any, Any], Any]) -> Callable[[Figures, Figures, Figures, Figures], Figures]:
    def chosen(a: Figures, b: Figures, x: Figures, y: Figures) -> Figures:
        holds = compare(a.amount, b.amount)
        amount = np.where(np.isnan(a.amount) | np.isnan(b.amount), np.nan, np.where(holds, x.amount, y.amount))
        return Figures(amount, np.where(holds, x.gross, y.gross))

    return chosen


def _log(a: Figures) -> Figures:
    is_positive = np.asarray(a.amount) > 0
    safe = np.where(is_positive, a.amount, 1.0)
    amount = np.where(is_positive, np.log(safe), np.nan)
    return Figures(amount, np.where(is_positive, np.abs(amount) + a.gross / safe, a.gross))


def _marginal(amount: Figures, table: Table) -> Figures:
    lower = [0.0, *(upper for upper, _ in table[:-1])]
    parts = [
        rate * np.maximum(np.minimum(amount.amount, upper) - start, 0.0)
        for (upper, rate), start in zip(table, lower, strict=True)
    ]
    return Figures(sum(parts), max(rate for _, rate in table) * amount.gross)


def _bracket(amount: Figures, table: Table) -> Figures:
    uppers, rates = np.array([upper for upper, _ in table]), np.array([rate for _, rate in table])
    return given(rates[np.minimum(np.searchsorted(uppers, amount.amount), len(rates) - 1)])


def _power(a: Figures, b: Figures) -> Figures:
    amount = np.power(a.amount, b.amount)
    return Figures(amount, np.abs(amount) * (1 + np.abs(b.amount)))


_OPERATORS: dict[str, Callable[..., Figures]] = {
    "+": lambda a, b: Figures(a.amount + b.amount, a.gross + b.gross),
    "-": lambda a, b: Figures(a.amount - b.amount, a.gross + b.gross),
    "*": product,
    "/": _quotient,
    "max": _choice(np.maximum),
    "min": _choice(np.minimum),
    "sqrt": root,
    "abs": lambda a: Figures(np.abs(a.amount), a.gross),
    "exp": lambda a: Figures(np.exp(a.amount), np.exp(a.amount) * (1 + a.gross)),
    "log": _log,
    "floor": lambda a: Figures(np.floor(a.amount), a.gross),
    "ceil": lambda a: Figures(np.ceil(a.amount), a.gross),
    "sign": lambda a: given(np.sign(a.amount)),
    "pow": _power,
    "shrink": lambda a, b: Figures(
        np.copysign(np.maximum(np.abs(a.amount) - b.amount, 0.0), a.amount), a.gross + b.gross
    ),
    "where<": _where(np.less),
    "where<=": _where(np.less_equal),
}


def evaluate(
    expression: Expression, values: Mapping[str, Figures], tables: Mapping[str, Table] | None = None
) -> Figures:
    """Values of an expression from `parse_expression`, names looked up in `values`, bracket tables in `tables`."""
    if isinstance(expression, str):
        return values[expression]
    if isinstance(expression, (int, float)):
        return given(float(expression))
    name, *operands = expression
    if name in ("marginal", "bracket"):
        looked_up = _marginal if name == "marginal" else _bracket
        return looked_up(evaluate(operands[0], values, tables), (tables or {})[str(operands[1])])
    return _OPERATORS[str(name)](*(evaluate(operand, values, tables) for operand in operands))
