"""Implied volatility of European options to the last digits, for every price that arbitrage allows."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._mills import mills_ratio, mills_slopes
from gpumargin_kernels._safe import safe_divide, smallest_normal
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.normal import normal_cdf, normal_density

STATUS_WORDS = ("converged", "below_intrinsic", "above_maximum", "not_finite")
CONVERGED, BELOW_INTRINSIC, ABOVE_MAXIMUM, NOT_FINITE = range(4)

_STEPS = 2
_SLACK = 2  # ulp by which three roundings (the price's own, F - K, the discounting) may put intrinsic above the price
_LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)
_SERIES_BELOW, _SERIES_ORDER = 0.2, 13  # the next term of the series in t is below 1e-16 of the first for t to 0.2


class ImpliedVol(NamedTuple):
    """Implied vol of each option and how it came about; both have the broadcast shape of the inputs."""

    vol: Leaf  # decimal per sqrt-year; NaN unless the status is converged
    status: Leaf  # int8, index into STATUS_WORDS


class _Target(NamedTuple):
    """The out-of-the-money side of each option, as a fraction of min(forward, strike).

    `fraction` is the price times exp(log_scale), which is 1 unless the price is so small that it would underflow.
    """

    moneyness: Array  # |ln(F/K)|
    fraction: Array
    rest: Array  # 1 - the price, without cancellation
    log_scale: Array


def implied_vol(
    value: Array, forward: Array, strike: Array, years: Array, is_call: Array, discount: Array
) -> ImpliedVol:
    """Black-76 implied vol of one European option each, without loops that depend on data.

    Two Householder steps of fourth order from an initial guess within 9 %, on the logarithm of the price of the
    out-of-the-money side or, beyond the price's inflection, of what it lacks to its maximum; both are written with the
    Mills ratio, so that nothing underflows. What the steps leave is below rounding for |ln(F/K)| to 100, below
    1e-12 of vol to 350 and below 1e-10 to 700.

    Args:
      value: price of the option, discounted, quote currency per unit of underlying. All arguments broadcast.
      forward: forward price of the underlying, >= 0, quote currency.
      strike: strike price, >= 0, quote currency.
      years: time to expiry, >= 0, years.
      is_call: bool, True for a call.
      discount: discount factor to expiry, > 0; 1 for an undiscounted value.

    Returns:
      `ImpliedVol`. In float64 the error of vol is a few ulp wherever the price determines it, otherwise what an ulp
      of the price is worth; in float32 the same with its ulp, and nothing is converted. Status by option:
        converged: vol > 0, or exactly 0 where the value is the discounted intrinsic value: to the last bits of
          rounding (2 ulp below), and above it by less than the smallest normal number.
        below_intrinsic: vol is NaN.
        above_maximum: vol is NaN: the value is at or above the discounted forward (call) or strike (put), which no
          finite vol reaches, or above intrinsic with no time left.
        not_finite: vol is NaN: an input is NaN or infinite, or outside its range.
      Derivatives are those of the inverse function (dvol = dvalue / vega); 0 where vol is 0 or NaN or vega underflows.

    Source: P. Jaeckel, Let's Be Rational, Wilmott 75 (2015), 40-53: normalisation, parity and objectives by region.
    """
    columns = jnp.broadcast_arrays(*(jnp.asarray(x) for x in (value, forward, strike, years, is_call, discount)))
    return ImpliedVol(_vol(*columns), _status(*columns))


def _bounds(forward: Array, strike: Array, is_call: Array, discount: Array) -> tuple[Array, Array]:
    """Discounted intrinsic value and discounted maximum, rounded as whoever made the price would round them."""
    intrinsic = jnp.maximum(jnp.where(is_call, forward - strike, strike - forward), 0)
    return discount * intrinsic, discount * jnp.where(is_call, forward, strike)


def _status(value: Array, forward: Array, strike: Array, years: Array, is_call: Array, discount: Array) -> Array:
    low, high = _bounds(forward, strike, is_call, discount)
    limits = jnp.finfo(value.dtype)  # type: ignore[no-untyped-call]
    largest = float(limits.max)
    is_valid = (jnp.abs(value) <= largest) & (discount > 0) & (discount <= largest)
    for x in (forward, strike, years):
        is_valid &= (x >= 0) & (x <= largest)
    is_above = (value > low) & ((value >= high) | (years == 0))
    is_below = value < low * (1 - _SLACK * float(limits.eps))
    status = jnp.where(is_below, BELOW_INTRINSIC, jnp.where(is_above, ABOVE_MAXIMUM, CONVERGED))
    return jnp.where(is_valid, status, NOT_FINITE).astype(jnp.int8)


@jax.custom_jvp
def _vol(value: Array, forward: Array, strike: Array, years: Array, is_call: Array, discount: Array) -> Array:
    low, _ = _bounds(forward, strike, is_call, discount)
    is_known = _status(value, forward, strike, years, is_call, discount) == CONVERGED
    has_time_value = is_known & (value > low)
    target = _target(value, forward, strike, is_call, discount, has_time_value)
    stdev = _guess(target)
    for _ in range(_STEPS):
        stdev = _householder(stdev, target)
    vol = stdev / jnp.sqrt(jnp.where(has_time_value, years, 1))
    return jnp.where(has_time_value, vol, jnp.where(is_known, 0, jnp.nan))


def _target(value: Array, forward: Array, strike: Array, is_call: Array, discount: Array, is_used: Array) -> _Target:
    """What to solve for; a harmless option where the row is not used."""
    low, high = _bounds(forward, strike, is_call, discount)
    near, far = jnp.minimum(forward, strike), jnp.maximum(forward, strike)
    unit = 1 / jnp.where(is_used, discount * near, 1)
    excess = jnp.where(is_used, value - low, 0.25)
    exponent = -int(jnp.finfo(value.dtype).minexp) // 3  # type: ignore[no-untyped-call]
    # Not by the excess: its rounding may differ between fused copies, and both fields below must decide alike.
    is_small = value * unit < 2.0 ** (-exponent)
    return _Target(
        moneyness=_log_ratio(jnp.where(is_used, far, 1), jnp.where(is_used, near, 1)),
        fraction=excess * jnp.where(is_small, 2.0**exponent, 1) * unit,
        rest=jnp.where(is_used, high - value, 0.75) * unit,
        log_scale=jnp.where(is_small, exponent * math.log(2), 0).astype(value.dtype),
    )


def _log_ratio(large: Array, small: Array) -> Array:
    """ln(large / small) with full relative accuracy: near the money, the ratio's rounding error is put back."""
    inverse = 1 / small
    ratio = large * inverse
    lost = (large - small) * inverse - (ratio - 1)
    return jnp.log(ratio) + lost / ratio


def _guess(target: _Target) -> Array:
    """Standard deviation within 9 %, the worst of a grid of |x| to 700 and of prices from 1e-300 to the maximum."""
    p = jnp.where(target.log_scale == 0, target.fraction, 0)
    is_high = (p > 0.3) | (p * target.moneyness**2 > 64)
    return jnp.where(is_high, _guess_high(target), _guess_low(target))


# Bachelier's formula solved for |d|: with w = ln(1 + |x| / price), |d| = w P(sqrt w) / Q(sqrt w), within 0.6 %; the
# first and last coefficients give its exact limits, n(0) w at the money and sqrt(2 w) far from it. A least-squares fit.
_BACHELIER = (0.3989422804014327, 0.09643579, 0.06107603)
_BACHELIER_BELOW = (1.0, 0.26727579, 0.08364222, 0.06107603 / math.sqrt(2))
_FAR = 1e8


def _guess_low(target: _Target) -> Array:
    """Bachelier's standard deviation, stretched for Black: exact in first order at and far from the money."""
    tiny = smallest_normal(target.fraction)
    x = jnp.maximum(target.moneyness, jnp.maximum(1e-20 * target.fraction * jnp.exp(-target.log_scale), tiny))
    odds = x / target.fraction
    lift = 0.5 * x + target.log_scale
    ratio = odds * jnp.exp(lift)
    is_far = ratio > _FAR
    log = jnp.log(jnp.where(is_far, odds, 1 + ratio)) + jnp.where(is_far, lift, 0)
    w = jnp.where(ratio < 1 / _FAR, ratio, log)
    root = jnp.sqrt(w)
    s = x * _horner(root, _BACHELIER_BELOW) / (w * _horner(root, _BACHELIER))
    h2 = (x / s) ** 2
    more = s * s / 24 * (1 + 3 * h2) / (1 + h2) ** 2
    return s * (1 + more * (1 + more * (3.5 + 4 * more)))


def _guess_high(target: _Target) -> Array:
    """From d1 by an inverse normal, the second term of the price being a fraction of the first that x alone gives."""
    x2 = 2 * target.moneyness
    share = 1 / (1 + 1 / jnp.sqrt(1 + x2))
    above = share * target.rest
    root = jnp.sqrt(-2 * jnp.log(jnp.maximum(jnp.minimum(above, 1 - above), smallest_normal(x2))))
    size = root - (2.30753 + 0.27061 * root) / (1 + root * (0.99229 + 0.04481 * root))  # A & S 26.2.22, within 0.003
    d1 = jnp.where(above > 0.5, -size, size)
    return d1 + jnp.sqrt(d1 * d1 + x2)


def _horner(x: Array, coefficients: tuple[float, ...]) -> Array:
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _householder(s: Array, target: _Target) -> Array:
    """One Householder step of fourth order for the logarithm of the price, or of what it lacks to its maximum.

    Every derivative with respect to s is multiplied by as many powers of s, so that nothing overflows for small s.
    `second` and `third` are the second and third derivatives of the price over its first.
    """
    inverse = 1 / s
    h, t = target.moneyness * inverse, 0.5 * s
    mills, is_high = _mills_difference(h, t)
    wanted = jnp.where(is_high, target.rest, target.fraction)
    offset = jnp.where(is_high, 0, target.log_scale) - _LOG_SQRT_TWO_PI
    residual = jnp.log(mills / wanted) - 0.5 * (h - t) ** 2 + offset
    slope = jnp.where(is_high, -s, s) / mills
    newton = jnp.where(is_high, residual, -residual) * mills * inverse
    second = (h - t) * (h + t)
    third = second * second - 3 * h * h - t * t
    bend = second - slope
    twist = third - 3 * second * slope + 2 * slope * slope
    return s * (1 + newton * (1 + 0.5 * bend * newton) / (1 + newton * (bend + twist * newton / 6)))


def _mills_difference(h: Array, t: Array) -> tuple[Array, Array]:
    """Price over vega, or what the price lacks to its maximum over vega where `is_high` (t > h).

    R(h - t) - R(h + t) or R(t - h) + R(t + h); a Taylor series in t where the difference would cancel.
    """
    is_series = (t < _SERIES_BELOW) & (h * t < 0.5)
    is_high = ~is_series & (t > h)
    slopes = mills_slopes(jnp.where(is_series, h, jnp.abs(h - t)), _SERIES_ORDER)
    far = mills_ratio(h + t)
    total = slopes[_SERIES_ORDER]
    for n in range(_SERIES_ORDER, 1, -2):
        total = slopes[n - 2] + t * t / (n * (n - 1)) * total
    direct = slopes[0] + jnp.where(is_high, far, -far)
    return jnp.where(is_series, 2 * t * total, direct), is_high


@_vol.defjvp
def _vol_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    """Implicit differentiation of discount * black(forward, strike, vol * sqrt(years)) = value."""
    value, forward, strike, years, is_call, discount = primals
    d_value, d_forward, d_strike, d_years, _, d_discount = tangents
    vol = _vol(*primals)
    is_smooth = vol > 0
    root = jnp.sqrt(jnp.where(is_smooth, years, 1))
    stdev = jnp.where(is_smooth, vol, 1) * root
    low, high = (jnp.where(is_smooth, f(forward, strike), 1) for f in (jnp.minimum, jnp.maximum))
    d1 = jnp.where(forward < strike, -1, 1) * _log_ratio(high, low) / stdev + 0.5 * stdev
    sign = jnp.where(is_call, 1, -1).astype(vol.dtype)
    delta, dual = sign * normal_cdf(sign * d1), -sign * normal_cdf(sign * (d1 - stdev))
    undiscounted = safe_divide(d_value - value * safe_divide(d_discount, discount, 0), discount, 0)
    vega = jnp.where(is_smooth, forward * normal_density(d1) * root, 0)
    d_vol = safe_divide(undiscounted - delta * d_forward - dual * d_strike, vega, 0)
    d_vol = d_vol - jnp.where(is_smooth & (vega > 0), 0.5 * vol * safe_divide(d_years, years, 0), 0)
    return vol, d_vol
