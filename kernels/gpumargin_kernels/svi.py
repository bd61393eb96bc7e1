"""Total variance and implied vol from a raw SVI slice."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._safe import safe_log, safe_sqrt
from gpumargin_kernels.leaf import Leaf

MAX_TOTAL_VARIANCE = 144.0


class SviSlice(NamedTuple):
    """Raw SVI parameters of the expiry that each contract belongs to, all `[M]`.

    `forward` and `years` belong to the fit, not to the live market.
    """

    a: Leaf
    b: Leaf
    rho: Leaf
    m: Leaf
    sigma: Leaf
    forward: Leaf
    years: Leaf


def svi_total_variance(svi: SviSlice, log_moneyness: Array) -> Array:
    """Total variance, vol^2 * years, of the formula alone: w = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)).

    Args:
      svi: parameters.
      log_moneyness: k = ln(strike / fit forward), of the parameters' shape.

    Returns:
      As `log_moneyness`; neither clipped nor capped, negative where the parameters say so.

    Source: Gatheral & Jacquier, Arbitrage-free SVI volatility surfaces (2014), equation 3.1.
    """
    x = log_moneyness - svi.m
    total: Array = svi.a + svi.b * (svi.rho * x + jnp.sqrt(x * x + svi.sigma * svi.sigma))
    return total


def svi_vol(svi: SviSlice, strike: Array) -> Array:
    """Implied vol of each strike, decimal per sqrt-year.

    w = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)) with k = ln(strike / fit forward) clipped to
    +-4 sqrt(a + b sigma); w is capped at 144; vol = sqrt(w / fit years). A strike of 0 has vol 0.

    Args:
      svi: `[M]` parameters.
      strike: `[M]`, >= 0, quote currency.

    Returns:
      `[M]`; NaN where the fit gives a negative total variance (an error of the fit, never healthy).

    Source: Gatheral & Jacquier, Arbitrage-free SVI volatility surfaces (2014), equation 3.1; clipping and cap as in
    Derive's on-chain feed (lyra-utils, SVI.sol, 2024-05-29).
    """
    bound = 4 * safe_sqrt(svi.a + svi.b * svi.sigma)
    k = jnp.clip(safe_log(strike / svi.forward, 0), -bound, bound)
    vol = jnp.sqrt(jnp.minimum(svi_total_variance(svi, k), MAX_TOTAL_VARIANCE) / svi.years)
    return jnp.where(strike == 0, 0, vol)
