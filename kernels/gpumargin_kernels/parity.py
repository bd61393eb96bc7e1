"""Forwards from put-call parity, where a venue gives none; a few bad quotes do not move them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gpumargin_kernels._robust import huber_weight, weighted_median
from gpumargin_kernels._safe import safe_divide
from gpumargin_kernels.leaf import Leaf

PASSES = 50
SMALLEST_SCALE = 1e-9  # of the typical strike (of a coin, for inverse options): below it residuals are rounding


class ParityForward(NamedTuple):
    """What the pairs of each expiry say, all `[E]`."""

    forward: Leaf  # quote currency; NaN where it cannot be told
    discount: Leaf  # as given, or estimated
    spread: Leaf  # median absolute residual, as a shift of the forward, quote currency
    pairs: Leaf  # int32, pairs of a call and a put that were counted


class _Line(NamedTuple):
    """difference = top - slope * strike, in units of the typical strike."""

    top: Leaf
    slope: Leaf


class _Pairs(NamedTuple):
    """Pairs of one expiry in units of the typical strike, `[Q]`, finite also where the weight is 0."""

    strike: Leaf
    difference: Leaf
    weight: Leaf


class _Terms(NamedTuple):
    discount: Leaf  # NaN = estimate it
    is_inverse: Leaf


def parity_forward(
    strike: Array, difference: Array, weight: Array, *, discount: Array, is_inverse: Array
) -> ParityForward:
    """Forward, and discount where it is not given, of every expiry, each by itself.

    A call less a put of one strike K is worth D (F - K) in quote currency; for an inverse option, whose price is in
    coin, D (1 - K / F). Either is a line in K that is 0 at K = F. The start is the weighted median over pairs of what
    each alone would say (discount given), or the median slope over all pairs of strikes (discount estimated); least
    squares with Huber weights follow, in which no pair pulls harder than one at the bend.

    Args:
      strike: `[E, Q]`, > 0, quote currency, any order.
      difference: `[E, Q]`, call less put of that strike, quote currency (coin for inverse options).
      weight: `[E, Q]`, >= 0, e.g. 1 / squared sum of the two spreads; 0 = no pair: its other cells may hold anything.
        A strike that is not above 0, or a difference that is not finite, is no pair either.
      discount: `[E]`, > 0, value now of 1 of the premium's currency at expiry (1 for most crypto venues); NaN =
        estimate it, for which at least two different strikes are needed.
      is_inverse: `[E]` bool.

    Returns:
      `ParityForward`. No pair, only one strike where the discount is to be estimated, or a line that has no zero above
      0: forward, and an estimated discount, NaN. One pair and a given discount: what it says, spread 0.

    Source: H. Stoll, The relationship between put and call option prices, Journal of Finance 24 (1969), for parity;
    H. Theil, A rank-invariant method of linear and polynomial regression analysis (1950), and P. Sen, Estimates of the
    regression coefficient based on Kendall's tau, JASA 63 (1968), for the start; weights as `_robust.huber_weight`.
    """
    return jax.vmap(_parity_of_one)(strike, difference, weight, discount, is_inverse)


def _parity_of_one(
    strike: Array, difference: Array, weight: Array, discount: Array, is_inverse: Array
) -> ParityForward:
    is_pair = (weight > 0) & (strike > 0) & jnp.isfinite(strike) & jnp.isfinite(difference)
    typical = weighted_median(strike, is_pair.astype(strike.dtype))
    pairs = _Pairs(
        strike=jnp.where(is_pair, strike / typical, 1),
        difference=jnp.where(is_pair, difference / jnp.where(is_inverse, 1, typical), 0),
        weight=jnp.where(is_pair, safe_divide(weight, jnp.max(jnp.where(is_pair, weight, 0)), 0), 0),
    )
    terms = _Terms(discount, is_inverse)
    line = _fitted(pairs, terms, _first_line(pairs, terms))
    spread = weighted_median(jnp.abs(_residual(pairs, line)), is_pair.astype(strike.dtype))
    is_line = (line.top > 0) & (line.slope > 0)
    estimate = jnp.where(is_line, jnp.where(is_inverse, line.top, line.slope), jnp.nan)
    return ParityForward(
        forward=jnp.where(is_line, typical * safe_divide(line.top, line.slope, 0), jnp.nan),
        discount=jnp.where(jnp.isnan(discount), estimate, discount),
        spread=jnp.where(is_line, typical * safe_divide(spread, line.slope, 0), jnp.nan),
        pairs=jnp.sum(is_pair).astype(jnp.int32),
    )


def _residual(pairs: _Pairs, line: _Line) -> Array:
    residual: Array = jnp.where(pairs.weight > 0, pairs.difference - line.top + line.slope * pairs.strike, 0)
    return residual


def _of_terms(terms: _Terms, *, slope_given: _Line, top_given: _Line, free: _Line) -> _Line:
    """The line that fits what is known: the slope is D, or, for inverse options, the top is."""
    given = (jnp.where(terms.is_inverse, top, slope) for top, slope in zip(top_given, slope_given, strict=True))
    return _Line(*(jnp.where(jnp.isnan(terms.discount), *both) for both in zip(free, given, strict=True)))


def _first_line(pairs: _Pairs, terms: _Terms) -> _Line:
    x, y, weight = pairs

    def top(slope: Array) -> _Line:
        return _Line(weighted_median(y + slope * x, weight), slope)

    return _of_terms(
        terms,
        slope_given=top(terms.discount),
        top_given=_Line(terms.discount, weighted_median((terms.discount - y) / x, weight * x)),
        free=top(_median_slope(pairs)),
    )


def _median_slope(pairs: _Pairs) -> Array:
    """Median of the slopes downwards between all pairs of different strikes; NaN where all are one strike."""
    run = pairs.strike[:, None] - pairs.strike[None, :]
    fall = pairs.difference[None, :] - pairs.difference[:, None]
    both = (pairs.weight > 0).astype(run.dtype)
    weight = jnp.where(run > 0, both[:, None] * both[None, :], 0)
    return weighted_median(safe_divide(fall, run, 0).ravel(), weight.ravel())


def _fitted(pairs: _Pairs, terms: _Terms, start: _Line) -> _Line:
    def again(_: Array, line: _Line) -> _Line:
        weight = huber_weight(_residual(pairs, line), pairs.weight, SMALLEST_SCALE)
        return _least_squares(pairs, terms, weight)

    line: _Line = lax.fori_loop(0, PASSES, again, start)
    return line


def _least_squares(pairs: _Pairs, terms: _Terms, weight: Array) -> _Line:
    x, y = pairs.strike, pairs.difference
    total = jnp.sum(weight)
    x_mean, y_mean = safe_divide(jnp.sum(weight * x), total, 0), safe_divide(jnp.sum(weight * y), total, 0)
    run = x - x_mean
    slope = -safe_divide(jnp.sum(weight * run * (y - y_mean)), jnp.sum(weight * run * run), jnp.nan)
    steep = safe_divide(jnp.sum(weight * x * (terms.discount - y)), jnp.sum(weight * x * x), jnp.nan)
    return _of_terms(
        terms,
        slope_given=_Line(y_mean + terms.discount * x_mean, terms.discount),
        top_given=_Line(terms.discount, steep),
        free=_Line(y_mean + slope * x_mean, slope),
    )
