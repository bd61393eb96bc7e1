"""Claims about the Mills ratio."""

from __future__ import annotations

import jax
import mpmath
import numpy as np

from gpumargin_kernels._mills import mills_ratio, mills_slopes


def exact(x: float) -> float:
    with mpmath.workdps(40):
        z = mpmath.mpf(x)
        return float(mpmath.sqrt(mpmath.pi / 2) * mpmath.exp(z * z / 2) * mpmath.erfc(z / mpmath.sqrt(2)))


def test_mills_ratio_is_within_six_ulp_from_zero_to_far_beyond_the_range_of_the_density() -> None:
    x = np.concatenate([np.linspace(0, 12, 600), np.geomspace(12, 1e4, 200)])
    expected = np.array([exact(z) for z in x.tolist()])
    error = np.abs(np.asarray(jax.jit(mills_ratio)(x)) - expected) / np.spacing(expected)
    assert error.max() <= 6, x[error.argmax()]
    assert error.mean() <= 1


def test_mills_ratio_falls_as_one_over_x_far_out() -> None:
    x = np.array([1e9, 1e100])
    assert np.allclose(mills_ratio(x) * x, 1, rtol=1e-8)


def test_slopes_are_the_derivatives_toward_smaller_x() -> None:
    found = mills_slopes(np.array([0.7]), 3)
    expected = [mpmath.diff(lambda z: mpmath.ncdf(z) / mpmath.npdf(z), -0.7, n) for n in range(4)]
    assert np.allclose([float(f[0]) for f in found], [float(e) for e in expected], rtol=1e-12)
