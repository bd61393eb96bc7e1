"""What a stage has to do: bytes and floating-point operations, by rules that do not depend on how it is compiled.

Bytes: every array that a stage takes is read once and every array that it returns is written once, padding included:
the least traffic that its layout allows. A table that many legs gather from counts once, as it fits in a cache.

Operations of the leg stage: one multiplication and one addition per leg and per column that the model adds up, padding,
levels that close and the row's charges left out. Of the contract and account stages: additions, multiplications,
divisions, minima, maxima and elementary functions of floating-point numbers in the traced program, one for each element
of a result (of an operand, in a reduction), loops by their trips, padding included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

# fmt: off
_ELEMENTWISE = {
    "add", "sub", "mul", "div", "max", "min", "neg", "abs", "sign", "exp", "exp2", "expm1", "log", "log1p", "sqrt",
    "rsqrt", "pow", "integer_pow", "erf", "erfc", "erf_inv", "tanh", "logistic", "floor", "ceil", "round", "square",
}
_REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmin", "argmax", "cumsum"}
# fmt: on


def bytes_of(*trees: Any) -> int:
    """Bytes of every array of some records."""
    return sum(int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(trees))


def _size(variable: Any) -> int:
    shape, dtype = variable.aval.shape, variable.aval.dtype
    return int(np.prod(shape)) if np.issubdtype(dtype, np.floating) else 0


def _of_equation(equation: Any) -> int:
    name = equation.primitive.name
    if name in _ELEMENTWISE:
        return _size(equation.outvars[0])
    if name in _REDUCTIONS:
        return _size(equation.invars[0])
    trips = equation.params.get("length", 1) if name == "scan" else 1
    inner = [value for key, value in equation.params.items() if key in ("jaxpr", "call_jaxpr", "body_jaxpr")]
    return sum(int(trips) * _of_program(getattr(program, "jaxpr", program)) for program in inner)


def _of_program(program: Any) -> int:
    return sum(_of_equation(equation) for equation in program.eqns)


def operations(function: Callable[..., Any], *arguments: Any) -> int:
    """Floating-point operations of a function of arrays, from its traced program.

    Args:
      function: traced, not run.
      arguments: arrays, or `jax.ShapeDtypeStruct`s in their place.
    """
    with jax.enable_x64(True):
        return _of_program(jax.make_jaxpr(function)(*arguments).jaxpr)
