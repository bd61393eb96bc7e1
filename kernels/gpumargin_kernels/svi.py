"""Implied vol from a raw SVI slice."""

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
    x = k - svi.m
    w = svi.a + svi.b * (svi.rho * x + jnp.sqrt(x * x + svi.sigma * svi.sigma))
    vol = jnp.sqrt(jnp.minimum(w, MAX_TOTAL_VARIANCE) / svi.years)
    return jnp.where(strike == 0, 0, vol)
