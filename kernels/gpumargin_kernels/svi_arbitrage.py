"""Static arbitrage of SVI slices: within one expiry (butterflies) and between two (calendar spreads)."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.svi import SviSlice, svi_total_variance

TOLERANCE = 1e-9
WIDEST_LOG_MONEYNESS = 5.0  # strikes up to a factor of 150 on either side


class Violation(NamedTuple):
    """How far each slice is from being free of one arbitrage, all `[E]`."""

    is_violated: Leaf  # bool; True for a slice of NaN, which nothing vouches for
    largest: Leaf  # shortfall at the worst point, 0 where there is none, infinite where total variance is not above 0
    log_moneyness: Leaf  # of the worst point of the grid


def moneyness_grid(svi: SviSlice, points: int = 513) -> Array:
    """Log-moneyness at which to look, `[E, points]`: dense around each slice's bend, out to 5 on both sides of it.

    k = m + sigma sinh(u) with u in equal steps: neighbours are sigma u apart near the bend and a constant ratio apart
    in the wings.
    """
    sigma = jnp.maximum(svi.sigma, 1e-6)
    widest = jnp.arcsinh(WIDEST_LOG_MONEYNESS / sigma)[:, None]
    share = jnp.linspace(-1, 1, points, dtype=sigma.dtype)[None, :]
    grid: Array = svi.m[:, None] + sigma[:, None] * jnp.sinh(widest * share)
    return grid


def butterfly_violation(svi: SviSlice, log_moneyness: Array) -> Violation:
    """Where the density of the settlement price that a slice implies is negative.

    The density has the sign of g(k) = (1 - k w' / 2w)^2 - (w'^2 / 4) (1 / w + 1 / 4) + w'' / 2. Beyond the grid g tends
    to (4 - slope^2) / 16 with slope = b (1 +- rho), so a wing steeper than 2 violates far enough out, whatever the
    grid; where that limit is the lowest g, `log_moneyness` is infinite.

    Args:
      svi: `[E]` parameters.
      log_moneyness: `[E, G]`, where to look; `moneyness_grid` serves.

    Returns:
      `Violation`, `largest` = the size of the lowest g below 0.

    Source: Gatheral & Jacquier, Arbitrage-free SVI volatility surfaces (2014), section 2.2, lemma 2.2.
    """
    wide = _columns(svi)
    density = _density_sign(wide, log_moneyness)
    wings = jnp.stack([_wing_limit(svi.b * (1 - svi.rho)), _wing_limit(svi.b * (1 + svi.rho))], axis=1)
    ends = jnp.broadcast_to(jnp.array([-jnp.inf, jnp.inf], density.dtype)[None, :], wings.shape)
    return _worst(jnp.concatenate([density, wings], axis=1), jnp.concatenate([log_moneyness, ends], axis=1))


def calendar_violation(svi: SviSlice, previous: Array, log_moneyness: Array) -> Violation:
    """Where total variance at equal forward moneyness is lower than at the expiry before.

    Args:
      svi: `[E]` parameters.
      previous: `[E]` int, index of the preceding expiry of the same underlying, negative for a first one, which is
        compared with total variance 0.
      log_moneyness: `[E, G]`, where to look; crossings beyond it are not seen.

    Returns:
      `Violation` of each slice against the one before, `largest` in total variance. A NaN in either marks it.

    Source: Gatheral & Jacquier, Arbitrage-free SVI volatility surfaces (2014), section 2.1, lemma 2.1.
    """
    before = SviSlice(*(field[jnp.maximum(previous, 0)] for field in svi))
    earlier = svi_total_variance(_columns(before), log_moneyness)
    earlier = jnp.where((previous >= 0)[:, None], earlier, 0)
    return _worst(svi_total_variance(_columns(svi), log_moneyness) - earlier, log_moneyness)


def _columns(svi: SviSlice) -> SviSlice:
    return SviSlice(*(field[:, None] for field in svi))


def _density_sign(svi: SviSlice, k: Array) -> Array:
    x = k - svi.m
    size = jnp.sqrt(x * x + svi.sigma * svi.sigma)
    root = jnp.where(size > 0, size, 1)  # the corner of a slice with sigma 0 is convex: no violation there
    w = svi_total_variance(svi, k)
    slope, bend = svi.b * (svi.rho + x / root), svi.b * svi.sigma**2 / root**3
    safe = jnp.where(w <= 0, 1, w)
    g = (1 - 0.5 * k * slope / safe) ** 2 - 0.25 * slope**2 * (1 / safe + 0.25) + 0.5 * bend
    return jnp.where(w <= 0, -jnp.inf, g)


def _wing_limit(slope: Array) -> Array:
    return (4 - slope * slope) / 16


def _worst(margin: Array, log_moneyness: Array) -> Violation:
    """Of margins that should be at least 0, `[E, G]`; NaN is worse than anything."""
    place = jnp.argmin(margin, axis=1)[:, None]  # the first NaN where there is one
    lowest = jnp.take_along_axis(margin, place, axis=1)[:, 0]
    return Violation(
        is_violated=~(lowest >= -TOLERANCE),
        largest=jnp.maximum(-lowest, 0),
        log_moneyness=jnp.take_along_axis(log_moneyness, place, axis=1)[:, 0],
    )
