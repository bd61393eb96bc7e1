"""What is asked of traced functions: which of their equations and inputs their results need."""

from __future__ import annotations

from typing import Any, TypeAlias

from jax.extend import core

Traced: TypeAlias = Any  # a jaxpr with its constants, for which JAX has no public static type
# Operations that call another function, and the parameter that holds it.
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def needed(jaxpr: Any) -> list[Any]:
    """The equations of a function that its results need."""
    return _needed(jaxpr)[0]


def _needed(jaxpr: Any) -> tuple[list[Any], set[Any]]:
    """The equations of a function that its results need, and the variables that they read."""
    used = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if used.intersection(equation.outvars):
            kept.append(equation)
            used.update(atom for atom in _read_by(equation) if not isinstance(atom, core.Literal))
    return kept[::-1], used


def _read_by(equation: Any) -> list[Any]:
    """What an equation reads; of a function that it calls, whatever is handed on from step to step counts as read."""
    name = equation.primitive.name
    if name not in CALLS and name != "scan":
        return list(equation.invars)
    inner = equation.params[CALLS.get(name, "jaxpr")]
    constants = len(equation.invars) - (len(equation.outvars) if name == "scan" else 0)
    is_read = [used or i >= constants for i, used in enumerate(inputs_of(inner.jaxpr))]
    return [atom for atom, used in zip(equation.invars, is_read, strict=True) if used]


def inputs_of(jaxpr: Any) -> list[bool]:
    """Of each input of a function, whether its results need it."""
    used = _needed(jaxpr)[1]
    return [variable in used for variable in jaxpr.invars]
