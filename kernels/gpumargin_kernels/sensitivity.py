"""Margin from sensitivities: a variance-covariance form over risk factors in buckets.

Factors of an account are weighted, joined within their bucket, then across buckets; delta, vega and curvature each, and
the classes of risk at the end. Arrays are `[A, F]`: F factors of each account, padded with sensitivity 0, and `bucket`
says where each belongs (B buckets). Every sum runs factor by factor from a run-time zero (see `leg_sums`).

Source of the structure: ISDA SIMM methodology 2.5 to 2.6 (2022, 2023), equity class. The numbers of that methodology
are licensed and stand nowhere in this package: every table is the caller's.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import repeat
from gpumargin_kernels._safe import safe_divide, safe_sqrt
from gpumargin_kernels.leaf import Leaf

DAYS_PER_YEAR = 365
NORMAL_99 = 2.3263478740408408  # 99 % quantile of the standard normal distribution
NORMAL_995 = 2.5758293035489004  # 99.5 % quantile


class RiskBuckets(NamedTuple):
    """Tables of one layer of risk (delta, or vega), by bucket."""

    weight: Leaf  # [B] money that one unit of sensitivity requires
    correlation: Leaf  # [B] between two factors of the bucket
    threshold: Leaf  # [B] size beyond which a factor is concentrated, > 0
    across: Leaf  # [B, B] correlation between buckets, symmetric; its diagonal is not read
    is_alone: Leaf  # [B] bool, True: the bucket is added in full, without offset to others


class CurvatureBuckets(NamedTuple):
    """Tables of the curvature layer, by bucket; correlations are squared here, not by the caller."""

    correlation: Leaf  # [B]
    across: Leaf  # [B, B]
    is_alone: Leaf  # [B] bool
    is_excluded: Leaf  # [B] bool, True: has no curvature (a bucket of volatility itself)


class BucketMargins(NamedTuple):
    """Buckets of each account, `[A, B]` each."""

    margin: Array  # K, >= 0
    net: Array  # sum of weighted sensitivities, between -K and K


class SensitivityMargin(NamedTuple):
    """Margin of one class of risk, `[A]` each."""

    delta: Array
    vega: Array
    curvature: Array

    @property
    def total(self) -> Array:
        """Delta, vega and curvature together."""
        return self.delta + self.vega + self.curvature


def concentration(sensitivity: Array, threshold: Array) -> Array:
    """How much larger a factor's weight is for its size: max(1, sqrt(|sensitivity| / threshold)).

    Args:
      sensitivity: `[A, F]` net sensitivity of each factor.
      threshold: `[A, F]` of the factor's bucket, > 0, in the same unit.

    Returns:
      `[A, F]`, >= 1: beyond the threshold a requirement grows as size^1.5, as square-root price impact does.
    """
    return jnp.maximum(safe_sqrt(jnp.abs(sensitivity) / threshold), 1)


def vol_of_weight(weight: Array, horizon_days: Array | float) -> Array:
    """Vol that a delta weight stands for: weight * sqrt(365 / horizon) / z(0.99), in points for a weight in per cent.

    Args:
      weight: any shape, the 99 % move over the horizon.
      horizon_days: `[]`, > 0.
    """
    return weight * jnp.sqrt(DAYS_PER_YEAR / jnp.asarray(horizon_days, weight.dtype)) / NORMAL_99


def curvature_share(days: Array, horizon_days: Array | float) -> Array:
    """Share of vega that counts as curvature: 0.5 * min(1, horizon / days to expiry); 0.5 at expiry."""
    horizon = jnp.asarray(horizon_days, days.dtype)
    return 0.5 * horizon / jnp.maximum(days, horizon)


def _of_bucket(table: Leaf, bucket: Array) -> Array:
    return jnp.asarray(table)[bucket]


def bucket_margins(weighted: Array, size: Array, bucket: Array, correlation: Array, zero: Array) -> BucketMargins:
    """Factors of each bucket joined: K = sqrt(sum_kl rho_kl f_kl W_k W_l), f_kl = min(size) / max(size), rho_kk = 1.

    Args:
      weighted: `[A, F]` weighted sensitivities W, money.
      size: `[A, F]` concentration of each factor, > 0; equal everywhere = no reduction of offsets.
      bucket: `[A, F]` int32.
      correlation: `[B]` rho between two factors of one bucket, -1..1.
      zero: `[]` run-time zero.

    Returns:
      `BucketMargins` `[A, B]`; a form below 0 (a negative rho of many factors, rounding) gives K = 0.
    """
    rows, width = weighted.shape
    one = zero + 1
    buckets = jnp.arange(correlation.shape[0], dtype=bucket.dtype)[None, :]
    nothing = jnp.broadcast_to(zero, (rows, correlation.shape[0]))

    def add_pair(pair: Array, square: Array) -> Array:
        i, j = pair // width, pair % width
        rho = jnp.where(i == j, 1, correlation)[None, :]
        offset = jnp.minimum(size[:, i], size[:, j]) / jnp.maximum(size[:, i], size[:, j])
        product = weighted[:, i] * weighted[:, j] * offset
        is_here = (bucket[:, i] == bucket[:, j])[:, None] & (bucket[:, i][:, None] == buckets)
        return square + jnp.where(is_here, product[:, None] * rho * one, 0)

    def add_factor(k: Array, net: Array) -> Array:
        return net + jnp.where(bucket[:, k][:, None] == buckets, weighted[:, k][:, None], 0)

    margin = safe_sqrt(repeat(width * width, add_pair, nothing))
    return BucketMargins(margin, jnp.clip(repeat(width, add_factor, nothing), -margin, margin))


def across_buckets(buckets: BucketMargins, across: Array, is_alone: Array, zero: Array) -> Array:
    """Buckets joined: sqrt(sum_b K_b^2 + sum_(b != c) gamma_bc S_b S_c) of those that offset, `[A]`.

    Args:
      buckets: `[A, B]`.
      across: `[B, B]` gamma, symmetric; the diagonal is not read.
      is_alone: `[B]` bool, True = left out here; `alone` adds them.
      zero: `[]` run-time zero.
    """
    count = across.shape[0]
    one = zero + 1
    margin, net = (jnp.where(is_alone[None, :], 0, x) for x in buckets)

    def add_pair(pair: Array, square: Array) -> Array:
        b, c = pair // count, pair % count
        same, other = margin[:, b] * margin[:, b], net[:, b] * net[:, c] * across[b, c]
        return square + jnp.where(b == c, same, other) * one

    return safe_sqrt(repeat(count * count, add_pair, jnp.broadcast_to(zero, margin.shape[:1])))


def alone(amount: Array, is_alone: Array, zero: Array) -> Array:
    """Sum of the buckets that offset nothing, `[A]` of `[A, B]`."""
    kept = jnp.where(is_alone[None, :], amount, 0)
    return repeat(kept.shape[1], lambda b, total: total + kept[:, b], jnp.broadcast_to(zero, kept.shape[:1]))


def layer_margin(sensitivity: Array, bucket: Array, tables: RiskBuckets, zero: Array) -> Array:
    """Margin of one linear layer (delta or vega): weighted, joined in buckets and across them.

    Args:
      sensitivity: `[A, F]` net sensitivity per factor: delta as change of value for a move of +1 % where weights are
        in per cent, vega as `vega_risk`; 0 in padding.
      bucket: `[A, F]` int32.
      tables: by bucket.
      zero: `[]` run-time zero.

    Returns:
      `[A]`, >= 0, in money. Homogeneous of degree 1 while every factor is below its threshold.
    """
    size = concentration(sensitivity, _of_bucket(tables.threshold, bucket))
    weighted = _of_bucket(tables.weight, bucket) * sensitivity * size
    buckets = bucket_margins(weighted, size, bucket, jnp.asarray(tables.correlation), zero)
    is_alone = jnp.asarray(tables.is_alone)
    joined = across_buckets(buckets, jnp.asarray(tables.across), is_alone, zero)
    return joined + alone(buckets.margin, is_alone, zero)


class Tail(NamedTuple):
    """How far the tail of a quadratic form reaches."""

    theta: Array  # share of the form that is short, -1 to 0
    factor: Array  # lambda: (z(0.995)^2 - 1) (1 + theta) - theta


def curvature_tail(total: Array, gross: Array) -> Tail:
    """Tail of factors that add up to `total`, and to `gross` in size; theta is 0 where there are none."""
    theta = jnp.minimum(safe_divide(total, gross, 0), 0)
    return Tail(theta, (NORMAL_995 * NORMAL_995 - 1) * (1 + theta) - theta)


def curvature_margin(curvature: Array, bucket: Array, tables: CurvatureBuckets, zero: Array) -> Array:
    """Margin of the curvature layer: max(0, sum + lambda * norm), buckets that stand alone each with its own lambda.

    theta = min(sum / sum of sizes, 0), lambda = (z(0.995)^2 - 1) (1 + theta) - theta; correlations enter squared, and
    concentration does not enter. A class of interest rates multiplies the result by HVR^-2.

    Args:
      curvature: `[A, F]` curvature risk of each factor: `curvature_share` * vol points * vega summed over expiries,
        money, positive = long.
      bucket: `[A, F]` int32.
      tables: by bucket.
      zero: `[]` run-time zero.

    Returns:
      `[A]`, >= 0; 0 for accounts without curvature.
    """
    kept = jnp.where(_of_bucket(tables.is_excluded, bucket), 0, curvature)
    rho, gamma, is_alone = (jnp.asarray(x) for x in (tables.correlation, tables.across, tables.is_alone))
    buckets = bucket_margins(kept, jnp.ones_like(kept), bucket, rho * rho, zero)
    total, gross = _by_bucket(kept, bucket, rho.shape[0], zero), _by_bucket(jnp.abs(kept), bucket, rho.shape[0], zero)
    joined_total, joined_gross = (alone(x, ~is_alone, zero) for x in (total, gross))
    norm = across_buckets(buckets, gamma * gamma, is_alone, zero)
    joined = jnp.maximum(joined_total + curvature_tail(joined_total, joined_gross).factor * norm * (zero + 1), 0)
    own = jnp.maximum(total + curvature_tail(total, gross).factor * buckets.margin * (zero + 1), 0)
    return joined + alone(own, is_alone, zero)


def _by_bucket(amount: Array, bucket: Array, count: int, zero: Array) -> Array:
    """Plain sums of `[A, F]` by bucket, `[A, B]`."""
    buckets = jnp.arange(count, dtype=bucket.dtype)[None, :]

    def add_factor(k: Array, total: Array) -> Array:
        return total + jnp.where(bucket[:, k][:, None] == buckets, amount[:, k][:, None], 0)

    return repeat(amount.shape[1], add_factor, jnp.broadcast_to(zero, (amount.shape[0], count)))


def across_classes(margins: Array, correlation: Array, zero: Array) -> Array:
    """Classes of risk joined: sqrt(m' psi m).

    Args:
      margins: `[A, P]` margin of each class, money.
      correlation: `[P, P]` psi, symmetric with unit diagonal.
      zero: `[]` run-time zero.

    Returns:
      `[A]`, >= 0.
    """
    count = margins.shape[1]

    def add_pair(pair: Array, square: Array) -> Array:
        r, s = pair // count, pair % count
        return square + margins[:, r] * margins[:, s] * correlation[r, s] * (zero + 1)

    return safe_sqrt(repeat(count * count, add_pair, jnp.broadcast_to(zero, margins.shape[:1])))
