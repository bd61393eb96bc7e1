"""Requirements as small expressions over named components, evaluated while tracing."""

import functools
import operator
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array

# A name, a number, or (operator, operand, ...) with the operators of `OPERATORS`.
Expression = str | float | tuple["str | Expression", ...]

OPERATORS: dict[str, Callable[..., Array]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "max": lambda *operands: functools.reduce(jnp.maximum, operands),
    "min": lambda *operands: functools.reduce(jnp.minimum, operands),
    "sqrt": jnp.sqrt,
    "abs": jnp.abs,
}


def evaluate(expression: Expression, values: Mapping[str, Array]) -> Array | float:
    """Value of an expression, every name looked up in `values`.

    Args:
      expression: a name, a number or a tuple (operator, operands...).
      values: arrays of one shape, by name.

    Returns:
      An array of that shape; a float if no name occurs. NaN operands give NaN, also under max and min.
    """
    if isinstance(expression, str):
        return values[expression]
    if isinstance(expression, (int, float)):
        return expression
    name, *operands = expression
    return OPERATORS[str(name)](*(evaluate(operand, values) for operand in operands))
