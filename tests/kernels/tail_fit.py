"""Where the coefficients of `gpumargin_kernels.normal` come from; `test_pricing_digits` compares."""

from __future__ import annotations

import mpmath

DIGITS = 60
# Type -> degree of the numerator (the denominator has one more) and the k of the change of variable.
FITS = {"float64": (10, "3.5"), "float32": (5, "3")}


def scaled_tail(a: mpmath.mpf) -> mpmath.mpf:
    """Phi(-a) exp(a^2 / 2), with all the digits that mpmath is set to."""
    return mpmath.erfc(a / mpmath.sqrt(2)) * mpmath.exp(a * a / 2) / 2


def chebyshev_points(count: int, k: mpmath.mpf) -> list[mpmath.mpf]:
    """Zeros of the Chebyshev polynomial in t = (a - k) / (a + k), as points a > 0."""
    roots = [mpmath.cos((2 * i + 1) * mpmath.pi / (2 * count)) for i in range(count)]
    return [k * (1 + t) / (1 - t) for t in roots]


def fit(dtype: str) -> tuple[list[float], list[float]]:
    """Coefficients, lowest power first, of the rational function that meets `scaled_tail` at Chebyshev points."""
    with mpmath.workdps(DIGITS):
        degree, k = FITS[dtype][0], mpmath.mpf(FITS[dtype][1])
        points = chebyshev_points(2 * degree + 2, k)
        values = [scaled_tail(a) for a in points]
        # P(a) - f (q1 a + ... ) = f, each row divided by the size of its terms.
        rows = [
            [a**j / (f * (1 + a) ** (degree + 1)) for j in range(degree + 1)]
            + [-(a**j) / (1 + a) ** (degree + 1) for j in range(1, degree + 2)]
            for a, f in zip(points, values, strict=True)
        ]
        right = [1 / (1 + a) ** (degree + 1) for a in points]
        solution = list(mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix(right)))
    p, q = solution[: degree + 1], [mpmath.mpf(1), *solution[degree + 1 :]]
    return [float(x) for x in p], [float(x) for x in q]
