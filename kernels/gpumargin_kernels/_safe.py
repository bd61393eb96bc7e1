"""Arithmetic whose unused branch is safe.

`jnp.where` computes both of its branches, in value and in gradient. Each helper replaces the operand that would
give NaN *before* the operation, so that the branch not taken stays finite.
"""

import jax.numpy as jnp
from jax import Array


def safe_divide(numerator: Array, denominator: Array, otherwise: float | Array) -> Array:
    """Numerator / denominator, `otherwise` where the denominator is 0.

    Prevents 0/0 and x/0, whose NaN or infinity would survive a `where` in the gradient.
    """
    is_zero = denominator == 0
    return jnp.where(is_zero, otherwise, numerator / jnp.where(is_zero, 1, denominator))


def safe_log(x: Array, otherwise: float | Array) -> Array:
    """ln(x), `otherwise` where x <= 0, NaN for NaN. Prevents the infinite gradient of ln at 0."""
    is_edge = x <= 0
    return jnp.where(is_edge, otherwise, jnp.log(jnp.where(is_edge, 1, x)))


def safe_sqrt(x: Array) -> Array:
    """sqrt(max(x, 0)), NaN for NaN. Prevents NaN for rounding below 0 and the infinite gradient at 0."""
    is_edge = x <= 0
    return jnp.where(is_edge, 0, jnp.sqrt(jnp.where(is_edge, 1, x)))


def largest_finite(x: Array) -> float:
    """Largest finite number of the dtype of `x`."""
    return float(jnp.finfo(x.dtype).max)  # type: ignore[no-untyped-call]


def smallest_normal(x: Array) -> float:
    """Smallest positive number of the dtype of `x` that has all its digits."""
    return float(jnp.finfo(x.dtype).tiny)  # type: ignore[no-untyped-call]
