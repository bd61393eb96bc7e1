"""Requirements as small expressions over named values, evaluated while tracing."""

import functools
import operator
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels.rates import bracket, marginal

# A name, a number, or (operator, operand, ...) with the operators of `OPERATORS`.
Expression = str | float | tuple["str | Expression", ...]


Comparison = Callable[[Array, Array], Array]


def _choice(compare: Comparison, opposite: Comparison) -> Callable[..., Array]:
    """One of two values by a comparison; NaN on either side of it gives NaN, which a plain `where` would hide."""

    def chosen(a: Array, b: Array, if_true: Array, if_false: Array) -> Array:
        choice = jnp.where(compare(a, b), if_true, jnp.where(opposite(a, b), if_false, jnp.nan))
        return choice.astype(jnp.result_type(a, b))  # two literals would take the widest precision

    return chosen


def shrink(x: Array, by: Array) -> Array:
    """A number moved towards zero by at most `by`, never through it."""
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - by, 0)


def divided(amount: Array | float, by: Array | float) -> Array | float:
    """Quotient; a divisor that stands for many amounts is inverted once.

    XLA turns such a division into a product by itself, in one program and not in another. So it is one from the start,
    and bits depend on no compiler.
    """
    return amount / by if jnp.shape(amount) == jnp.shape(by) else amount * (1 / by)


OPERATORS: dict[str, Callable[..., Array]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "max": lambda *operands: functools.reduce(jnp.maximum, operands),
    "min": lambda *operands: functools.reduce(jnp.minimum, operands),
    "sqrt": jnp.sqrt,
    "abs": jnp.abs,
    "exp": jnp.exp,
    "log": jnp.log,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "sign": jnp.sign,
    "pow": jnp.power,
    "shrink": shrink,
    "where<": _choice(operator.lt, operator.ge),
    "where<=": _choice(operator.le, operator.gt),
    "marginal": marginal,
    "bracket": bracket,
}


def evaluate(expression: Expression, values: Mapping[str, Array], one: Array | float | None = None) -> Array | float:
    """Value of an expression, every name looked up in `values`.

    Args:
      expression: a name, a number or a tuple (operator, operands...).
      values: arrays of one shape `[R]`, by name; the second operand of `marginal` and `bracket` names a table
        `[R, T, 2]`.
      one: `[]` run-time one that every product and quotient is multiplied by, so that none is fused with what it is
        added to and bits do not depend on what XLA fuses (see `leg_sums`); None = not needed.

    Returns:
      An array of that shape; a float if no name occurs. NaN operands give NaN, also under max, min and where.
    """
    if isinstance(expression, str):
        return values[expression]
    if isinstance(expression, (int, float)):
        return expression
    name, *operands = expression
    found = [evaluate(operand, values, one) for operand in operands]
    if one is not None and name == "*":
        return found[0] * found[1] * one
    if one is not None and name == "/":
        return divided(found[0], found[1]) * one
    if one is not None and name == "marginal":
        return marginal(found[0], found[1], one)  # type: ignore[arg-type]
    return OPERATORS[str(name)](*found)
