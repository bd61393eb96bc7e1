"""Vols between quotes: linear in total variance along log-moneyness, then along time at equal forward moneyness."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._safe import safe_divide
from gpumargin_kernels.leaf import Leaf


class VolGrid(NamedTuple):
    """Quoted vols of several surfaces (one per underlying), padded at the end with +infinity.

    Coordinates ascend without repetition among those that are finite; total variance may be anything where its
    log-moneyness is infinite.
    """

    years: Leaf  # [S, E] to each expiry, > 0
    log_moneyness: Leaf  # [S, E, Q] ln(strike / forward of the expiry)
    total_variance: Leaf  # [S, E, Q] vol^2 * years, >= 0


def variance_in_strike(log_moneyness: Array, total_variance: Array, at: Array) -> Array:
    """Total variance of one expiry between its quoted strikes.

    Linear in log-moneyness between neighbours. Beyond the first or last quoted strike: the total variance, hence the
    vol, of that strike. One quoted strike: its vol everywhere. None: NaN.

    Args:
      log_moneyness: `[N, Q]`, ascending, padded with +infinity.
      total_variance: `[N, Q]`.
      at: `[N]`, log-moneyness wanted, finite.

    Returns:
      `[N]`.
    """
    below = jnp.sum(log_moneyness <= at[:, None], axis=1) - 1
    last = jnp.sum(jnp.isfinite(log_moneyness), axis=1) - 1
    left, right = jnp.clip(below, 0, last), jnp.clip(below + 1, 0, last)
    (k_left, w_left), (k_right, w_right) = (
        (_picked(log_moneyness, place), _picked(total_variance, place)) for place in (left, right)
    )
    share = jnp.clip(safe_divide(at - k_left, k_right - k_left, 0), 0, 1)
    return jnp.where(last >= 0, _between(w_left, w_right, share), jnp.nan)


def surface_vol(grid: VolGrid, surface: Array, log_moneyness: Array, years: Array) -> Array:
    """Implied vol at any strike and time.

    In strike as `variance_in_strike`, at each of the two expiries around `years` and at the same log-moneyness to each
    one's own forward; between the two, total variance is linear in time. So if total variance does not fall from one
    expiry to the next, none in between opens a calendar spread. Before the first or after the last expiry: the vol of
    that expiry at the same log-moneyness (flat in vol), down to and including years 0. One expiry: its vols at any
    time. A surface without expiries, or an expiry in use without quotes: NaN.

    Args:
      grid: surfaces.
      surface: `[N]` int, which of them.
      log_moneyness: `[N]`, ln(strike / forward for `years`), finite.
      years: `[N]`, >= 0.

    Returns:
      `[N]` vol, decimal per sqrt-year.

    Source: M. Fengler, Arbitrage-free smoothing of the implied volatility surface, Quantitative Finance 9 (2009), for
    total variance that does not fall at equal forward moneyness.
    """
    times = grid.years[surface]
    last = jnp.sum(jnp.isfinite(times), axis=1) - 1
    below = jnp.sum(times <= years[:, None], axis=1) - 1
    early, late = jnp.clip(below, 0, last), jnp.clip(below + 1, 0, last)
    t_early, t_late = _picked(times, early), _picked(times, late)
    w_early, w_late = (
        variance_in_strike(grid.log_moneyness[surface, at], grid.total_variance[surface, at], log_moneyness)
        for at in (early, late)
    )
    within = jnp.clip(years, t_early, t_late)
    w = _between(w_early, w_late, safe_divide(within - t_early, t_late - t_early, 0))
    return jnp.where(last >= 0, jnp.sqrt(w / within), jnp.nan)


def _picked(rows: Array, place: Array) -> Array:
    """One element of each row; the last of a row where the place is negative."""
    return jnp.take_along_axis(rows, place[:, None], axis=1)[:, 0]


def _between(first: Array, second: Array, share: Array) -> Array:
    """Linear; exact at both ends, and `second` may be NaN where its share is 0."""
    return jnp.where(share > 0, (1 - share) * first + share * second, first)
