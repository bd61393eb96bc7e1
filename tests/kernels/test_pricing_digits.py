"""Claims about digits: the normal distribution, the logarithm and option values against 50-digit arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from gpumargin_kernels import normal
from gpumargin_kernels._log import log_one_plus
from gpumargin_kernels._moves import Option
from gpumargin_kernels.black import option_greeks
from tests.kernels import tail_fit

Real = Any  # mpmath has no types


def cdf(x: Real) -> Real:
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def log_cdf(x: Real) -> Real:
    return mpmath.log(cdf(x)) if x < 0 else mpmath.log1p(-cdf(-x))


def ulps(found: np.ndarray, expected: list[Real]) -> np.ndarray:
    """Distance in units of the last place of the expected number; 0 where both are below the normal numbers."""
    tiny = float(np.finfo(found.dtype).tiny)
    rounded = np.array([float(x) for x in expected]).astype(found.dtype)
    place = np.spacing(np.maximum(np.abs(rounded), tiny)).astype(np.float64)
    error = [abs(mpmath.mpf(a) - b) for a, b in zip(found.tolist(), expected, strict=True)]
    is_lost = (np.abs(rounded) < tiny) & (np.abs(found) <= tiny)
    return np.where(is_lost, 0, np.array([float(x) for x in error]) / place)


def points(rng: np.random.Generator, dtype: str, count: int = 4_000) -> np.ndarray:
    """From tail to tail, half of them near the middle, and the places where formulas change."""
    ends = 38.0 if dtype == "float64" else 14.0
    drawn = [rng.uniform(-ends, ends, count // 2), rng.uniform(-6, 6, count // 2)]
    return np.concatenate([*drawn, [-ends, -1e-300, 0.0, 1e-9, 1.0, ends]]).astype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("function", "exact"),
    [
        pytest.param(normal.normal_density, mpmath.npdf, id="density"),
        pytest.param(normal.normal_cdf, cdf, id="cdf"),
        pytest.param(normal.normal_survival, lambda x: cdf(-x), id="survival"),
        pytest.param(normal.normal_log_cdf, log_cdf, id="log cdf"),
    ],
)
def test_normal_functions_are_right_to_eight_ulp_from_tail_to_tail(
    function: Callable[[jax.Array], jax.Array], exact: Callable[[Real], Real], dtype: str, rng: np.random.Generator
) -> None:
    x = points(rng, dtype)
    found = np.asarray(jax.jit(function)(x))
    assert found.dtype == dtype
    with mpmath.workdps(50):
        error = ulps(found, [exact(mpmath.mpf(value)) for value in x.tolist()])
    assert np.max(error) <= 8, f"{np.max(error)} ulp at {x[np.argmax(error)]!r}"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_inverse_cdf_is_right_to_six_ulp(dtype: str, rng: np.random.Generator) -> None:
    least = -300 if dtype == "float64" else -37
    drawn = [rng.uniform(0, 1, 700), 10 ** rng.uniform(least, -1, 700), 1 - 10 ** rng.uniform(-7, -1, 300)]
    p = np.concatenate(drawn).astype(dtype)
    p = p[(p > 0) & (p < 1)]
    found = np.asarray(jax.jit(normal.normal_inverse_cdf)(p))
    with mpmath.workdps(50):
        expected = [refined(mpmath.mpf(x), mpmath.mpf(q)) for x, q in zip(found.tolist(), p.tolist(), strict=True)]
        error = ulps(found, expected)
    assert np.max(error) <= 6, f"{np.max(error)} ulp at {p[np.argmax(error)]!r}"


def refined(x: Real, p: Real) -> Real:
    """Three steps of Newton's method for cdf(x) = p, on the side of the smaller tail."""
    for _ in range(3):
        gap = cdf(x) - p if p < 0.5 else (1 - p) - cdf(-x)
        x -= gap / mpmath.npdf(x)
    return x


def test_edges_of_the_normal_functions_are_exact() -> None:
    ends = jnp.array([-jnp.inf, 0.0, jnp.inf])
    assert normal.normal_cdf(ends).tolist() == [0.0, 0.5, 1.0]
    assert normal.normal_survival(ends).tolist() == [1.0, 0.5, 0.0]
    assert normal.normal_density(ends)[jnp.array([0, 2])].tolist() == [0.0, 0.0]
    assert normal.normal_log_cdf(ends)[jnp.array([0, 2])].tolist() == [-np.inf, 0.0]
    assert normal.normal_inverse_cdf(jnp.array([0.0, 0.5, 1.0])).tolist() == [-np.inf, 0.0, np.inf]
    assert np.all(np.isnan(normal.normal_inverse_cdf(jnp.array([-0.1, 1.1, jnp.nan]))))


@pytest.mark.parametrize("name", ["normal_density", "normal_cdf", "normal_survival", "normal_log_cdf"])
def test_slopes_are_right_everywhere_and_never_nan(name: str, rng: np.random.Generator) -> None:
    slope = jax.jit(jax.vmap(jax.grad(getattr(normal, name))))
    assert not np.any(np.isnan(slope(jnp.array([-jnp.inf, -1e300, -40.0, 0.0, 40.0, 1e300, jnp.inf]))))
    x = points(rng, "float64", 400)
    exact = {
        "normal_density": lambda v: -v * mpmath.npdf(v),
        "normal_cdf": mpmath.npdf,
        "normal_survival": lambda v: -mpmath.npdf(v),
        "normal_log_cdf": lambda v: mpmath.npdf(v) / cdf(v),
    }[name]
    with mpmath.workdps(50):
        error = ulps(np.asarray(slope(x)), [exact(mpmath.mpf(v)) for v in x.tolist()])
    assert np.max(error) <= 10, f"{np.max(error)} ulp at {x[np.argmax(error)]!r}"


def test_the_slope_of_the_inverse_cdf_is_one_over_the_density() -> None:
    p = jnp.array([1e-200, 1e-9, 0.3, 0.5, 0.999])
    found = jax.vmap(jax.grad(normal.normal_inverse_cdf))(p)
    np.testing.assert_allclose(found * normal.normal_density(normal.normal_inverse_cdf(p)), 1, rtol=1e-13)


def polynomial(coefficients: tuple[float, ...], a: Real) -> Real:
    return mpmath.fsum(mpmath.mpf(c) * a**power for power, c in enumerate(coefficients))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_coefficients_of_the_tail_are_those_of_the_fit_and_good_to_an_ulp_before_rounding(dtype: str) -> None:
    size = dtype[-2:]
    p, q = getattr(normal, f"_TAIL_P_{size}"), getattr(normal, f"_TAIL_Q_{size}")
    fitted = tail_fit.fit(dtype)
    np.testing.assert_allclose(np.concatenate([p, q]), np.concatenate(fitted), rtol=1e-15)
    with mpmath.workdps(50):
        for a in tail_fit.chebyshev_points(150, mpmath.mpf(3)):
            ratio = polynomial(p, a) / polynomial(q, a)
            assert abs(ratio / tail_fit.scaled_tail(a) - 1) < np.finfo(dtype).eps / 2, a


def test_the_logarithm_is_right_to_two_ulp(rng: np.random.Generator) -> None:
    z = np.concatenate([10 ** rng.uniform(-300, 308, 800), rng.uniform(0, 3, 800), [0.0, 0.41421356, 0.41421357]])
    with mpmath.workdps(50):
        error = ulps(np.asarray(jax.jit(log_one_plus)(z)), [mpmath.log1p(mpmath.mpf(v)) for v in z.tolist()])
    assert np.max(error) <= 2.0, f"{np.max(error)} ulp at {z[np.argmax(error)]!r}"
    assert np.isnan(log_one_plus(jnp.asarray(jnp.nan)))


def options(rng: np.random.Generator, count: int) -> Option:
    """Half ordinary, half corners: a second to 5 years, vol 0.1 % to 500 %, strikes a hundredth to a hundred times."""
    price = rng.choice([100.0, 65_000.0, 3_200.0, 0.021], count)
    is_corner = rng.random(count) < 0.5
    wide = np.exp(rng.uniform(-np.log(100), np.log(100), count))
    strike = price * np.where(is_corner, wide, np.exp(rng.normal(0, 0.2, count)))
    strike = np.where(rng.random(count) < 0.05, price, strike)
    vol = np.where(is_corner, 10 ** rng.uniform(-3, 0.7, count), rng.uniform(0.2, 1.5, count))
    years = np.where(is_corner, 10 ** rng.uniform(-7.5, 0.7, count), rng.uniform(0.01, 2, count))
    rate, growth = rng.uniform(-0.02, 0.1, count), rng.uniform(-0.05, 0.1, count)
    return Option(price, strike, vol, years, rng.random(count) < 0.5, rate, growth)


def exact_figures(row: tuple[float, ...]) -> tuple[float, ...]:
    """Value, delta, gamma, vega, vanna and volga as closed forms of 50 digits, and the density at d1."""
    s, k, vol, t, is_call, r, b = (mpmath.mpf(x) for x in row)
    stdev, sign = vol * mpmath.sqrt(t), 2 * is_call - 1
    d1 = (mpmath.log(s / k) + b * t) / stdev + stdev / 2
    d2 = d1 - stdev
    present, discount, density = mpmath.exp((b - r) * t), mpmath.exp(-r * t), mpmath.npdf(d1)
    value = sign * (s * present * cdf(sign * d1) - k * discount * cdf(sign * d2))
    vega = s * present * density * mpmath.sqrt(t)
    gamma = present * density / (s * stdev)
    vanna, volga = -present * density * d2 / vol, vega * d1 * d2 / vol
    return tuple(map(float, (value, sign * present * cdf(sign * d1), gamma, vega, vanna, volga, density)))


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_values_and_greeks_equal_fifty_digit_arithmetic_corners_included(count: int, rng: np.random.Generator) -> None:
    option = options(rng, count)
    names = ("value", "delta", "gamma", "vega", "vanna", "volga")
    found = jax.jit(option_greeks, static_argnums=1)(option, names)
    with mpmath.workdps(50):
        rows = [exact_figures(row) for row in zip(*(x.tolist() for x in option), strict=True)]
    *expected, density = np.array(rows).T
    is_near = density > 1e-30
    for name, want in zip(names, expected, strict=True):
        error = np.abs(np.asarray(found[name]) - want)
        plain = {"value": 1e-12 * np.maximum(option.underlying, option.strike), "delta": 1e-12}.get(name)
        room = np.where(is_near, 1e-10 * np.abs(want), 1e-14) if plain is None else plain
        worst = int(np.argmax(error - room))
        assert np.all(error <= room), f"{name} {found[name][worst]!r}, expected {want[worst]!r} at option {worst}"


@pytest.mark.parametrize(("dtype", "least"), [("float64", -9), ("float32", -5)])
def test_values_out_of_the_money_keep_their_own_digits_however_small_the_deviation(
    dtype: str, least: float, rng: np.random.Generator
) -> None:
    count = 2_000
    moves, stdev = rng.uniform(-12, 12, count), 10 ** rng.uniform(least, 0.3, count)
    forward = rng.uniform(50, 150, count)
    terms = [x.astype(dtype) for x in (forward, forward * np.exp(-moves * stdev), stdev)]
    option = Option(*terms, np.ones(count, dtype), terms[1] >= terms[0])
    found = np.asarray(jax.jit(option_greeks, static_argnums=1)(option, ("value",))["value"]).tolist()
    room = 500 * float(np.finfo(dtype).eps)  # where the series gives way to a difference, 1 / stdev ulp are left
    with mpmath.workdps(50):
        for price, *row in zip(found, *(x.tolist() for x in (*terms, option.is_call)), strict=True):
            f, k, s = map(mpmath.mpf, row[:3])
            sign, d1 = (1 if row[3] else -1), mpmath.log(f / k) / s + s / 2
            expected = sign * (f * cdf(sign * d1) - k * cdf(sign * (d1 - s)))
            assert abs(price / expected - 1) <= room * (1 + d1 * d1), (price, expected, row)
