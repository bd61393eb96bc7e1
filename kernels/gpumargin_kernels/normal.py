"""The standard normal distribution, as option pricing needs it: both tails to a few ulp, without a branch.

Everything rests on the scaled tail Phi(-a) exp(a^2 / 2) of a >= 0. It is smooth, positive and falls like 1 / a, so one
rational function serves the whole half-line, and a tail is that times the bell exp(-x^2 / 2), with its digits kept. The
bell in turn squares its argument without rounding, because exp would multiply that rounding by x^2 / 2.

All functions are elementwise, take any shape of float64 or float32 and answer in that type. Below the smallest normal
number (x < -37.5 in float64, -12.9 in float32) results are 0. NaN gives NaN.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from gpumargin_kernels._log import log_one_plus

INV_SQRT_TWO_PI = 1 / math.sqrt(2 * math.pi)
# Bits of a number that `_leading_half` keeps: all but the last 27 of 53 and the last 12 of 24 digits.
_LEADING_64, _LEADING_32 = 0xFFFF_FFFF_F800_0000, 0xFFFF_F000
_SMALLEST_64, _SMALLEST_32 = 2.0**-1022, 2.0**-126  # normal numbers

# Rational interpolants of the scaled tail at Chebyshev points of t = (a - k) / (a + k) in (-1, 1), so over all a >= 0;
# the change of variable is that of Shepherd & Laframboise, Chebyshev approximation of (1 + 2x) exp(x^2) erfc x,
# Mathematics of Computation 36 (1981). Computed with 60 digits by tests/kernels/tail_fit.py, lowest power first. All
# coefficients are positive, so that nothing cancels.
# float64: k = 3.5, degrees 10 and 11, relative error of these rounded coefficients at most 8e-17.
_TAIL_P_64 = (
    0.5, 0.8509201558677936, 0.7157853162088873, 0.3854550897575051, 0.14592206823380713, 0.04041897339378923,
    0.00828885841382678, 0.0012448676602258607, 0.00013162753648561845, 8.919641261869862e-06, 2.983583337901719e-07,
)  # fmt: skip
_TAIL_Q_64 = (
    1.0, 2.4997248725384527, 2.9260625144711057, 2.1216693677540928, 1.061490738241009, 0.38589706412912633,
    0.10439104558969209, 0.021105532421931562, 0.00314277870028614, 0.00033068917811030684, 2.2358224986568365e-05,
    7.478734354502387e-07,
)  # fmt: skip
# float32: k = 3, degrees 5 and 6, relative error at most 1.7e-9.
_TAIL_P_32 = (
    0.4999999996555505, 0.5501810742929751, 0.29015505325928204, 0.08866638499203891, 0.015720853527278745,
    0.0013403701092351244,
)  # fmt: skip
_TAIL_Q_32 = (
    1.0, 1.8982466446519655, 1.5948927366595076, 0.766706084683263, 0.22561371561233368, 0.039406334073932854,
    0.0033598096165122922,
)  # fmt: skip

# M. J. Wichura, Algorithm AS 241: The percentage points of the normal distribution, Applied Statistics 37 (1988),
# PPND16: coefficients a, b of the centre |p - 1/2| <= 0.425; c, d of the middle; e, f of the tails; lowest power first.
_CENTRE_P = (
    3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
    4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3,
)  # fmt: skip
_CENTRE_Q = (
    1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
    2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3,
)  # fmt: skip
_MIDDLE_P = (
    1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
    1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4,
)  # fmt: skip
_MIDDLE_Q = (
    1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
    1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9,
)  # fmt: skip
_FAR_P = (
    6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
    2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7,
)  # fmt: skip
_FAR_Q = (
    1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15,
)  # fmt: skip
_RISE_ORDER = 6  # terms of `scaled_tail_rise`
_CENTRE_HALF_WIDTH, _MIDDLE_START, _FAR_START = 0.425, 1.6, 5.0


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    """Horner's rule, lowest power first."""
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def bounded(x: Array) -> Array:
    """`x` clipped to where the density is 0 in its type: squares stay finite, infinities meet no 0 * infinity."""
    bound = 40 if x.dtype == jnp.float64 else 15
    return jnp.clip(x, -bound, bound)


def _leading_half(x: Array) -> Array:
    """`x` cut to the 26 (float64) or 12 (float32) leading binary digits, whose square is exact."""
    whole, mask = (jnp.uint64, _LEADING_64) if x.dtype == jnp.float64 else (jnp.uint32, _LEADING_32)
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, whole) & jnp.array(mask, whole), x.dtype)


@jax.custom_jvp
def bell(x: Array) -> Array:
    """exp(-x^2 / 2) of `bounded` x: the square of the leading half of its digits is exact, the rest is small.

    Source: the splitting is W. J. Cody's, Rational Chebyshev approximations for the error function, Mathematics of
    Computation 23 (1969).
    """
    lead = _leading_half(x)
    rest = 0.5 * (x - lead) * (x + lead)
    return jnp.exp(-0.5 * (lead * lead)) * (1 - rest * (1 - rest * (0.5 - rest * (1 / 6))))


@bell.defjvp
def _bell_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    height = bell(primals[0])
    return height, -primals[0] * height * tangents[0]


@jax.custom_jvp
def scaled_tail(a: Array) -> Array:
    """Phi(-a) exp(a^2 / 2) of finite `a` >= 0: half of erfcx(a / sqrt 2), Mills' ratio over sqrt(2 pi); 1/2 at 0.

    Source: the coefficients, above; for Mills' ratio, Abramowitz & Stegun, Handbook of Mathematical Functions (1972),
    26.2.12.
    """
    is_double = a.dtype == jnp.float64
    p, q = (_TAIL_P_64, _TAIL_Q_64) if is_double else (_TAIL_P_32, _TAIL_Q_32)
    return _polynomial(p, a) / _polynomial(q, a)


@scaled_tail.defjvp
def _scaled_tail_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    tail = scaled_tail(primals[0])
    return tail, (primals[0] * tail - INV_SQRT_TWO_PI) * tangents[0]


def scaled_tail_rise(a: Array, tail: Array, step: Array) -> Array:
    """`scaled_tail` at `a - step` less that at `a`, whose value is `tail`: a Taylor series, so that nothing cancels.

    Six terms, all of one sign; what is left out is below step^6 / 100 of the sum for a `step` from 0 to 0.1. The slopes
    t' = a t - 1 / sqrt(2 pi) and, differentiated n times, t^(n+1) = n t^(n-1) + a t^(n) lose a^2 ulp.
    """
    slopes = [tail, a * tail - INV_SQRT_TWO_PI]
    for n in range(1, _RISE_ORDER):
        slopes.append(n * slopes[n - 1] + a * slopes[n])
    total = slopes[_RISE_ORDER]
    for n in range(_RISE_ORDER - 1, 0, -1):
        total = slopes[n] - (1 / (n + 1)) * step * total
    return -step * total


def normal_density(x: Array) -> Array:
    """Density of the standard normal distribution at `x`; 0 at infinities.

    Source: Abramowitz & Stegun, Handbook of Mathematical Functions (1972), 26.2.1.
    """
    return bell(bounded(x)) * INV_SQRT_TWO_PI


@jax.custom_jvp
def normal_cdf(x: Array) -> Array:
    """Probability that a standard normal variable is at most `x`: in [0, 1], exactly 0, 1/2 and 1 at -inf, 0 and inf.

    Source: Abramowitz & Stegun, Handbook of Mathematical Functions (1972), 26.2.2; as `scaled_tail`.
    """
    x = bounded(x)
    tail = bell(x) * scaled_tail(jnp.abs(x))
    return jnp.where(x > 0, 1 - tail, tail)


@normal_cdf.defjvp
def _cdf_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return normal_cdf(primals[0]), normal_density(primals[0]) * tangents[0]


def normal_survival(x: Array) -> Array:
    """Probability that a standard normal variable exceeds `x`; keeps its digits in the upper tail.

    Source: Abramowitz & Stegun, Handbook of Mathematical Functions (1972), 26.2.3; as `scaled_tail`.
    """
    return normal_cdf(-x)


def _far_scaled_tail(a: Array) -> Array:
    """`scaled_tail` of `a` cut to [0, 1e6]: beyond, powers overflow float32, and ln of it is lost beside a^2 / 2."""
    return scaled_tail(jnp.clip(a, 0, 1e6))


@jax.custom_jvp
def normal_log_cdf(x: Array) -> Array:
    """Logarithm of `normal_cdf`, finite where the cdf itself is too small for its type; -infinity at -infinity.

    ln of the scaled tail less x^2 / 2 below 0; above, with upper tail t, ln(1 - t) = -ln(1 + t / (1 - t)).

    Source: as `scaled_tail`.
    """
    below = jnp.log(_far_scaled_tail(-x)) - 0.5 * x * x
    tail = normal_survival(jnp.maximum(x, 0))
    return jnp.where(x < 0, below, -log_one_plus(tail / (1 - tail)))


@normal_log_cdf.defjvp
def _log_cdf_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """Density over cdf; about -x far below 0."""
    (x,) = primals
    below = jnp.maximum(INV_SQRT_TWO_PI / _far_scaled_tail(-x), -x)
    above = normal_density(x) / normal_cdf(jnp.maximum(x, 0))
    return normal_log_cdf(x), jnp.where(x < 0, below, above) * tangents[0]


@jax.custom_jvp
def normal_inverse_cdf(p: Array) -> Array:
    """The `x` whose `normal_cdf` is `p`: -infinity at 0, infinity at 1, NaN outside [0, 1].

    Close to 1 the answer is as exact as `p` can say it; for a small upper tail pass that tail and change the sign.

    Source: M. J. Wichura, Algorithm AS 241, Applied Statistics 37 (1988), PPND16; its ranges are all evaluated and the
    right one divided out.
    """
    middle = p - 0.5
    smaller = jnp.minimum(p, 1 - p)
    root = jnp.sqrt(-jnp.log(jnp.clip(smaller, _SMALLEST_64 if p.dtype == jnp.float64 else _SMALLEST_32, 0.5)))
    is_centre, is_far = jnp.abs(middle) <= _CENTRE_HALF_WIDTH, root > 5
    centre, tail, far = _CENTRE_HALF_WIDTH**2 - middle * middle, root - _MIDDLE_START, root - _FAR_START

    def chosen(of_centre: Sequence[float], of_tail: Sequence[float], of_far: Sequence[float]) -> Array:
        outside = jnp.where(is_far, _polynomial(of_far, far), _polynomial(of_tail, tail))
        return jnp.where(is_centre, _polynomial(of_centre, centre), outside)

    size = chosen(_CENTRE_P, _MIDDLE_P, _FAR_P) / chosen(_CENTRE_Q, _MIDDLE_Q, _FAR_Q)
    x = jnp.where(is_centre, middle * size, jnp.sign(middle) * size)
    at_end = jnp.where(smaller == 0, jnp.sign(middle) * jnp.inf, jnp.nan)
    return jnp.where(smaller > 0, x, at_end)


@normal_inverse_cdf.defjvp
def _inverse_cdf_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    x = normal_inverse_cdf(primals[0])
    return x, tangents[0] / normal_density(x)
