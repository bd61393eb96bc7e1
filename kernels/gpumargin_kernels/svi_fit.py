"""Raw SVI slices fitted to quoted vols, every expiry at once.

For given m and sigma total variance is linear in a, b rho and b, so a coarse grid of (m, sigma) with a small linear
problem at each point gives the start; damped Gauss-Newton steps in parameters that cannot leave the domain finish it.
Both count quotes by their distance in vol and trust the odd one less (`_robust.huber_weight`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gpumargin_kernels._robust import huber_weight, weighted_median
from gpumargin_kernels._safe import safe_divide, safe_log
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.svi import SviSlice, svi_total_variance

FITTED, TOO_FEW_QUOTES, NOT_CONVERGED = 0, 1, 2
PARAMETERS = 5
STEEPEST = 2.0  # slope of a wing of total variance
STEPS = 100
GRID_M, GRID_SIGMA = 17, 12
SMALLEST_SCALE = 1e-6  # vol: residuals below it are not told apart
CONVERGED = 1e-4  # vol: how far another step may still move the fitted vols (weighted rms)

_LINEAR_PASSES = 3
_WIDTHS = (0.01, 2.0)  # of the grid's sigma, as a share of the quoted range of log-moneyness
_START_SLOPES = (1e-4, 0.9999)  # of a wing, as a share of the steepest
_START_LOWEST = 1e-3  # total variance, as a share of the quotes' median
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-9, 1e9
_EASE, _TIGHTEN = 0.2, 5.0


class SviFit(NamedTuple):
    """Fitted slices, all `[E]`."""

    svi: SviSlice  # NaN where there are too few quotes
    rms: Leaf  # weighted root mean square of fitted less quoted vol, all quotes counted; decimal vol
    status: Leaf  # int32: FITTED, TOO_FEW_QUOTES (below five distinct strikes), NOT_CONVERGED


class _Quotes(NamedTuple):
    """Quotes of one expiry, `[Q]`, finite also where the weight is 0."""

    log_moneyness: Leaf
    variance: Leaf  # total variance
    per_variance: Leaf  # change of vol per total variance, at the quote
    weight: Leaf


class _Coordinates(NamedTuple):
    """A slice in coordinates without bounds: whatever their values, the slice lies in the domain.

    The wings of total variance have slopes b (1 - rho) and b (1 + rho), both between 0 and 2, the most that absence of
    arbitrage allows (R. Lee, The moment formula for implied volatility at extreme strikes, Mathematical Finance 14,
    2004); its lowest value a + b sigma sqrt(1 - rho^2) is above 0.
    """

    log_lowest: Leaf
    logit_left: Leaf  # of half the left wing's slope
    logit_right: Leaf
    m: Leaf
    log_sigma: Leaf


def fit_svi(strike: Array, vol: Array, weight: Array, *, forward: Array, years: Array) -> SviFit:
    """Fits one raw SVI slice per expiry, each by itself.

    Minimises the Huber loss of (fitted - quoted total variance) / (2 quoted vol years), which is the error in vol to
    first order, times the weights. Each slice has a positive total variance at every strike; freedom from arbitrage is
    checked (`svi_arbitrage`), not imposed. Differentiate the result with care: it comes from a fixed number of steps.

    Args:
      strike: `[E, Q]`, > 0, quote currency; any order; a call and a put of one strike may both stand here.
      vol: `[E, Q]`, > 0, decimal per sqrt-year.
      weight: `[E, Q]`, >= 0, e.g. vega or 1 / squared spread; only ratios within an expiry count. 0 = no quote: its
        other cells may hold anything. A strike or vol that is not above 0 and finite is no quote either.
      forward: `[E]`, > 0, quote currency.
      years: `[E]`, > 0, to expiry.

    Returns:
      `SviFit`. Fewer than five distinct strikes give NaN and TOO_FEW_QUOTES, as do a forward or years that are not
      above 0. Beyond the quotes the slice is the formula's own extrapolation, straight wings in total variance.

    Source: Zeliade Systems (De Marco & Martini), Quasi-explicit calibration of Gatheral's SVI model (2009), for the
    start; Marquardt, An algorithm for least-squares estimation of nonlinear parameters (1963), for the steps.
    """
    return jax.vmap(_fit_slice)(strike, vol, weight, forward, years)


def _fit_slice(strike: Array, vol: Array, weight: Array, forward: Array, years: Array) -> SviFit:
    quotes = _quotes(strike, vol, weight, forward, years)
    found, left = _descended(quotes, _start(quotes))
    is_enough = _distinct(quotes) >= PARAMETERS
    status = jnp.where(left <= CONVERGED, FITTED, NOT_CONVERGED)
    svi = _slice(found, forward, years)
    fitted_vol = jnp.sqrt(jnp.maximum(svi_total_variance(svi, quotes.log_moneyness), 0) / years)
    error = jnp.where(quotes.weight > 0, fitted_vol - jnp.sqrt(quotes.variance / years), 0)
    rms = jnp.sqrt(jnp.sum(quotes.weight * error * error) / jnp.sum(quotes.weight))
    return SviFit(
        svi=SviSlice(*(jnp.where(is_enough, field, jnp.nan) for field in svi)),
        rms=jnp.where(is_enough, rms, jnp.nan),
        status=jnp.where(is_enough, status, TOO_FEW_QUOTES).astype(jnp.int32),
    )


def _quotes(strike: Array, vol: Array, weight: Array, forward: Array, years: Array) -> _Quotes:
    is_usable = (forward > 0) & (years > 0) & jnp.isfinite(forward) & jnp.isfinite(years)
    is_quote = (weight > 0) & (strike > 0) & (vol > 0) & jnp.isfinite(strike) & jnp.isfinite(vol) & is_usable
    safe_vol = jnp.where(is_quote, vol, 1)
    safe_years = jnp.where(is_usable, years, 1)
    largest = jnp.max(jnp.where(is_quote, weight, 0))
    return _Quotes(
        log_moneyness=safe_log(jnp.where(is_quote, strike / forward, 1), 0),
        variance=safe_vol * safe_vol * safe_years,
        per_variance=0.5 / (safe_vol * safe_years),
        weight=jnp.where(is_quote, safe_divide(weight, largest, 0), 0),
    )


def _distinct(quotes: _Quotes) -> Array:
    """Number of different strikes."""
    ordered = jnp.sort(jnp.where(quotes.weight > 0, quotes.log_moneyness, jnp.inf))
    is_new = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    return jnp.sum(is_new & jnp.isfinite(ordered))


def _slice(at: _Coordinates, forward: Array, years: Array) -> SviSlice:
    left, right = (STEEPEST * jax.nn.sigmoid(at) for at in (at.logit_left, at.logit_right))
    sigma = jnp.exp(at.log_sigma)
    a = jnp.exp(at.log_lowest) - sigma * jnp.sqrt(left * right)
    return SviSlice(a, 0.5 * (left + right), (right - left) / (left + right), at.m, sigma, forward, years)


def _error(quotes: _Quotes, packed: Array) -> Array:
    """Fitted less quoted vol, to first order, `[Q]`."""
    svi = _slice(_Coordinates(*packed), jnp.ones_like(packed[0]), jnp.ones_like(packed[0]))
    error: Array = (svi_total_variance(svi, quotes.log_moneyness) - quotes.variance) * quotes.per_variance
    return error


# --- The start: a grid of (m, sigma), with a linear problem at each point.


def _start(quotes: _Quotes) -> Array:
    """The best point of the grid, `[5]`."""
    is_quote = quotes.weight > 0
    low = jnp.min(jnp.where(is_quote, quotes.log_moneyness, jnp.inf))
    high = jnp.max(jnp.where(is_quote, quotes.log_moneyness, -jnp.inf))
    low, high = jnp.where(jnp.isfinite(low), low, -1), jnp.where(jnp.isfinite(high), high, 1)
    shares = jnp.geomspace(*_WIDTHS, GRID_SIGMA, dtype=low.dtype)
    places = jnp.linspace(0, 1, GRID_M, dtype=low.dtype)
    m, sigma = jnp.meshgrid(low + (high - low) * places, jnp.maximum(high - low, 1e-3) * shares)
    points = jax.vmap(lambda m, sigma: _linear(quotes, m, sigma))(m.ravel(), sigma.ravel())
    errors = jax.vmap(lambda point: jnp.sum(quotes.weight * jnp.abs(_error(quotes, point))))(points)
    return points[jnp.argmin(errors)]


def _linear(quotes: _Quotes, m: Array, sigma: Array) -> Array:
    """The slice for given m and sigma: least squares with Huber weights, then moved into the domain; `[5]`."""
    y = (quotes.log_moneyness - m) / sigma
    basis = jnp.stack([jnp.ones_like(y), y, jnp.sqrt(y * y + 1)], axis=-1) * quotes.per_variance[:, None]
    target = quotes.variance * quotes.per_variance
    weight, solution = quotes.weight, jnp.zeros(3, y.dtype)
    for _ in range(_LINEAR_PASSES):
        solution = _least_squares(basis, target, weight)
        weight = huber_weight(basis @ solution - target, quotes.weight, SMALLEST_SCALE)
    return _in_domain(quotes, solution, m, sigma)


def _least_squares(basis: Array, target: Array, weight: Array) -> Array:
    square = basis.T @ (basis * weight[:, None])
    ridge = _negligible(100 * jnp.trace(square)) * jnp.eye(len(square), dtype=square.dtype)
    solution: Array = jnp.linalg.solve(square + ridge, basis.T @ (weight * target))
    return solution


def _negligible(size: Array) -> Array:
    """An ulp of a size, above 0: what keeps a matrix without information invertible."""
    limits = jnp.finfo(size.dtype)  # type: ignore[no-untyped-call]
    return limits.eps * size + limits.tiny


def _in_domain(quotes: _Quotes, solution: Array, m: Array, sigma: Array) -> Array:
    """The point nearest to w = a + d y + c sqrt(y^2 + 1), whose wings have slopes (c -+ d) / sigma; `[5]`."""
    a, d, c = solution
    typical = jnp.nan_to_num(weighted_median(quotes.variance, quotes.weight), nan=1)
    left, right = (jnp.clip(slope / sigma / STEEPEST, *_START_SLOPES) for slope in (c - d, c + d))
    lowest = jnp.maximum(a + STEEPEST * sigma * jnp.sqrt(left * right), _START_LOWEST * typical)
    return jnp.stack(
        [jnp.log(lowest), jax.scipy.special.logit(left), jax.scipy.special.logit(right), m, jnp.log(sigma)]
    )


# --- The steps.


class _State(NamedTuple):
    at: Leaf  # [5]
    damping: Leaf


def _normal_equations(quotes: _Quotes, at: Array) -> tuple[Array, Array, Array]:
    """Curvature `[5, 5]` and slope `[5]` of half the weighted squared error, and the weights `[Q]`."""
    error = _error(quotes, at)
    weight = huber_weight(error, quotes.weight, SMALLEST_SCALE)
    slopes = jax.jacfwd(lambda point: _error(quotes, point))(at)
    return slopes.T @ (slopes * weight[:, None]), slopes.T @ (weight * error), weight


def _step(curvature: Array, slope: Array, damping: Array) -> Array:
    """The damped step, `[5]`, at most 1 in each coordinate: a factor e for those that are logarithms."""
    diagonal = jnp.diagonal(curvature)
    damped = curvature + jnp.diag(damping * diagonal + _negligible(jnp.max(diagonal)))
    return jnp.clip(-jnp.linalg.solve(damped, slope), -1, 1)


def _descended(quotes: _Quotes, start: Array) -> tuple[_Coordinates, Array]:
    """Where the steps end, and by how much (vol, weighted rms) another one would move the fitted vols."""

    def improve(_: Array, state: _State) -> _State:
        curvature, slope, weight = _normal_equations(quotes, state.at)
        candidate = state.at + _step(curvature, slope, state.damping)
        before, after = (jnp.sum(weight * _error(quotes, at) ** 2) for at in (state.at, candidate))
        is_better = after < before  # also false for NaN
        damping = state.damping * jnp.where(is_better, _EASE, _TIGHTEN)
        at = jnp.where(is_better, candidate, state.at)
        return _State(at, jnp.clip(damping, _LEAST_DAMPING, _MOST_DAMPING))

    state = lax.fori_loop(0, STEPS, improve, _State(start, jnp.full_like(start[0], _FIRST_DAMPING)))
    curvature, slope, weight = _normal_equations(quotes, state.at)
    squared = -slope @ _step(curvature, slope, jnp.full_like(state.damping, _FIRST_DAMPING))
    return _Coordinates(*state.at), jnp.sqrt(jnp.maximum(squared, 0) / jnp.sum(weight))
