"""Values of expressions on the host: for numbers of a model file that are known before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpumargin_kernels.expression import Expression


def _sign(x: float) -> float:
    return math.copysign(1.0, x) if x else 0.0


_OPERATORS: dict[str, Callable[..., float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "max": max,
    "min": min,
    "sqrt": math.sqrt,
    "abs": abs,
    "exp": math.exp,
    "log": math.log,
    "floor": math.floor,
    "ceil": math.ceil,
    "sign": _sign,
    "pow": math.pow,
    "shrink": lambda x, by: _sign(x) * max(abs(x) - by, 0.0),
    "where<": lambda a, b, x, y: x if a < b else y,
    "where<=": lambda a, b, x, y: x if a <= b else y,
}


def number_of(expression: Expression, values: Mapping[str, float]) -> float:
    """Value of an expression without bracket tables, every name looked up in `values`.

    Raises:
      ArithmeticError, ValueError: it has no value, as after a division by 0.
    """
    if isinstance(expression, str):
        return values[expression]
    if isinstance(expression, (int, float)):
        return float(expression)
    name, *operands = expression
    return float(_OPERATORS[str(name)](*(number_of(operand, values) for operand in operands)))
