"""Claims about arithmetic whose unused branch must stay finite, in value and in gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpumargin_kernels._safe import safe_divide, safe_log, safe_sqrt

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = [
    pytest.param(lambda x: safe_divide(jnp.ones_like(x), x, 7.0), 0.0, 7.0, id="division by zero"),
    pytest.param(lambda x: safe_divide(x, x, 0.0), 0.0, 0.0, id="zero by zero"),
    pytest.param(lambda x: safe_log(x, -5.0), 0.0, -5.0, id="logarithm of zero"),
    pytest.param(lambda x: safe_log(x, -5.0), -1.0, -5.0, id="logarithm of a negative number"),
    pytest.param(safe_sqrt, 0.0, 0.0, id="root of zero"),
    pytest.param(safe_sqrt, -1e-18, 0.0, id="root of a rounding error below zero"),
]


@pytest.mark.parametrize(("function", "x", "expected"), CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_edge_gives_the_named_value_and_a_finite_gradient(
    function: Callable[[jax.Array], jax.Array], x: float, expected: float, dtype: str
) -> None:
    value, slope = jax.value_and_grad(function)(jnp.asarray(x, dtype))
    assert value == expected
    assert value.dtype == dtype
    assert np.isfinite(slope)


def test_away_from_the_edge_nothing_changes(rng: np.random.Generator) -> None:
    x, y = rng.lognormal(size=(2, 50))
    np.testing.assert_array_equal(safe_divide(x, y, 0.0), x / y)
    np.testing.assert_allclose(safe_log(jnp.asarray(x), 0.0), np.log(x), rtol=1e-15, atol=1e-16)
    np.testing.assert_array_equal(safe_sqrt(jnp.asarray(x)), np.sqrt(x))


@pytest.mark.parametrize(
    "function",
    [
        safe_sqrt,
        lambda x: safe_log(x, -5.0),
        lambda x: safe_divide(x, jnp.ones_like(x), 0.0),
        lambda x: safe_divide(jnp.ones_like(x), x, 0.0),
    ],
    ids=["root", "logarithm", "numerator", "denominator"],
)
def test_nan_is_never_taken_for_an_edge(function: Callable[[jax.Array], jax.Array]) -> None:
    assert np.isnan(function(jnp.asarray(jnp.nan)))
