"""Logarithms that vectorise in float64, where XLA's own on the CPU do not."""

import jax
import jax.numpy as jnp
from jax import Array, lax

# Sun Microsystems, FDLIBM e_log.c (1993): ln(1 + f) = f - f^2 / 2 + s (f^2 / 2 + R(s^2)) with s = f / (2 + f), for
# |f| < sqrt 2 - 1, error below 2^-58.45; Lg1 ... Lg7, and ln 2 in two parts of which the first times k is exact.
_LG = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
    1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01,
)  # fmt: skip
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_REDUCED_BELOW = 0.41421356  # sqrt 2 - 1, rounded down
# Bits of 1 and of the sqrt(1/2) that mantissas are cut at, of the mantissa field, and the bias of the exponent.
_ONE, _ROOT_HALF, _MANTISSA = 0x3FF0 << 48, 0x3FE6A09E << 32, (1 << 52) - 1
_BIAS = 1023
_LARGEST_64, _LARGEST_32 = 1e308, 3e38  # ratios beyond count as these


def log_one_plus(z: Array) -> Array:
    """ln(1 + z) for finite `z` >= 0, to 2 ulp, small `z` included; `jnp.log1p` in float32. NaN gives NaN.

    Works on bits in float64, so it has no derivative there; `log_ratio` has.

    Source: FDLIBM e_log.c, Sun Microsystems (1993).
    """
    if z.dtype != jnp.float64:
        return jnp.log1p(z)
    shifted = lax.bitcast_convert_type(1 + z, jnp.uint64) + (_ONE - _ROOT_HALF)
    mantissa = lax.bitcast_convert_type((shifted & _MANTISSA) + _ROOT_HALF, jnp.float64)
    is_small = z < _REDUCED_BELOW
    f = jnp.where(is_small, z, mantissa - 1)
    k = jnp.where(is_small, 0, (shifted >> 52).astype(jnp.int32).astype(jnp.float64) - _BIAS)
    s = f / (2 + f)
    half_square, power = 0.5 * f * f, s * s
    rest = jnp.full_like(z, _LG[-1])
    for coefficient in _LG[-2::-1]:
        rest = rest * power + coefficient
    finite = k * _LN2_HIGH - ((half_square - (s * (half_square + rest * power) + k * _LN2_LOW)) - f)
    return jnp.where(z >= 0, finite, jnp.nan)


@jax.custom_jvp
def log_ratio(x: Array, y: Array) -> Array:
    """ln(x / y) of positive numbers, with its digits kept where the two are close.

    The difference of two numbers within a factor 2 is exact, that of their logarithms is not. Ratios
    beyond 1e308 (float32: 3e38) count as that.
    """
    excess = jnp.abs(x - y) / jnp.minimum(x, y)
    size = log_one_plus(jnp.minimum(excess, _LARGEST_64 if excess.dtype == jnp.float64 else _LARGEST_32))
    return jnp.where(x < y, -size, size)


@log_ratio.defjvp
def _ratio_slope(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, y), (dx, dy) = primals, tangents
    return log_ratio(x, y), dx / x - dy / y
