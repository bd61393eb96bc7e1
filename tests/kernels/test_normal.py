"""Claims about the normal distribution: both tails keep their digits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpumargin_kernels.normal import normal_cdf, normal_density
from tests.asserts import assert_close
from tests.oracle import black as oracle

GRID = np.concatenate([np.linspace(-37.0, 37.0, 149), [-0.1, 1e-12, 0.1]])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_cdf_equals_the_oracle_from_tail_to_tail(dtype: str) -> None:
    x = GRID.astype(dtype)
    x = x[np.abs(x) < 12] if dtype == "float32" else x  # beyond, float32 has no numbers left
    expected = np.array([oracle.normal_cdf(value) for value in x.tolist()])
    assert_close(jax.jit(normal_cdf)(x), expected, "probability", x=x)


def test_cdf_and_density_equal_table_values() -> None:
    # Abramowitz & Stegun, Handbook of Mathematical Functions (1972), table 26.1.
    x = np.array([0.0, 1.0, 2.0, 3.0])
    cdf = [0.5, 0.841344746068543, 0.977249868051821, 0.998650101968370]
    density = [0.398942280401433, 0.241970724519143, 0.053990966513188, 0.004431848411938]
    np.testing.assert_allclose(normal_cdf(x), cdf, rtol=0, atol=6e-16)
    np.testing.assert_allclose(normal_density(x), density, rtol=0, atol=6e-16)


def test_cdf_of_infinities_is_zero_and_one() -> None:
    assert normal_cdf(jnp.asarray([-jnp.inf, jnp.inf])).tolist() == [0.0, 1.0]


def test_cdf_never_falls() -> None:
    x = np.linspace(-38.0, 9.0, 4_001)
    assert np.all(np.diff(jax.jit(normal_cdf)(x)) >= 0)


def test_tails_are_mirror_images_and_sum_to_one() -> None:
    x = GRID[np.abs(GRID) < 8]
    assert_close(normal_cdf(x) + normal_cdf(-x), np.ones_like(x), "probability", x=x)


def test_density_is_the_slope_of_the_cdf() -> None:
    slope = jax.vmap(jax.grad(normal_cdf))(jnp.asarray(GRID))
    assert_close(slope, normal_density(jnp.asarray(GRID)), "derivative", x=GRID)
