"""Claims about margin from sensitivities."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

import jax
import numpy as np
import pytest

from gpumargin_kernels.sensitivity import (
    NORMAL_995,
    CurvatureBuckets,
    RiskBuckets,
    across_classes,
    curvature_margin,
    curvature_share,
    layer_margin,
)
from tests.asserts import assert_close, assert_same_bits

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, FACTORS, BUCKETS = 40, 6, 3
layer = jax.jit(layer_margin)
curvature = jax.jit(curvature_margin)


def tables(rng: np.random.Generator, *, threshold: float = 1.0) -> RiskBuckets:
    """Three buckets of positive correlations, the last one alone."""
    across = np.full((BUCKETS, BUCKETS), 0.4)
    np.fill_diagonal(across, 1.0)
    return RiskBuckets(
        rng.uniform(5, 50, BUCKETS),
        rng.uniform(0, 0.9, BUCKETS),
        np.full(BUCKETS, threshold),
        across,
        np.array([False, False, True]),
    )


def bent(of: RiskBuckets) -> CurvatureBuckets:
    return CurvatureBuckets(of.correlation, of.across, of.is_alone, np.array([False, True, False]))


def factors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivities of both signs around the threshold, and their buckets."""
    return rng.normal(0, 2, (ROWS, FACTORS)), rng.integers(0, BUCKETS, (ROWS, FACTORS)).astype(np.int32)


def plain_norms(weighted: np.ndarray, size: np.ndarray, bucket: np.ndarray, rho: np.ndarray) -> list[float]:
    """Bucket norms of one account, pair by pair."""
    square = [0.0] * BUCKETS
    for k, j in product(range(len(weighted)), repeat=2):
        if bucket[k] == bucket[j]:
            offset = min(size[k], size[j]) / max(size[k], size[j])
            square[bucket[k]] += weighted[k] * weighted[j] * (1.0 if k == j else rho[bucket[k]] * offset)
    return [math.sqrt(max(s, 0.0)) for s in square]


def plain_join(norms: list[float], nets: list[float], across: np.ndarray) -> float:
    """The two buckets that offset, joined."""
    a, b = (max(-k, min(k, s)) for k, s in zip(norms[:2], nets[:2], strict=True))
    return math.sqrt(max(norms[0] ** 2 + norms[1] ** 2 + 2 * across[0, 1] * a * b, 0.0))


def plain_layer(sensitivity: np.ndarray, bucket: np.ndarray, of: RiskBuckets) -> float:
    """The same margin of one account, written as loops."""
    size = [max(1.0, math.sqrt(abs(s) / of.threshold[b])) for s, b in zip(sensitivity, bucket, strict=True)]
    weighted = [of.weight[b] * s * c for s, b, c in zip(sensitivity, bucket, size, strict=True)]
    norms = plain_norms(np.array(weighted), np.array(size), bucket, of.correlation)
    nets = [sum(w for w, own in zip(weighted, bucket, strict=True) if own == b) for b in range(BUCKETS)]
    return plain_join(norms, nets, of.across) + norms[2]


def plain_curvature(amount: np.ndarray, bucket: np.ndarray, of: CurvatureBuckets) -> float:
    kept = np.where(of.is_excluded[bucket], 0.0, amount)
    norms = plain_norms(kept, np.ones(len(kept)), bucket, of.correlation**2)
    nets = [float(kept[bucket == b].sum()) for b in range(BUCKETS)]

    def tail(chosen: np.ndarray, norm: float) -> float:
        gross = float(np.abs(kept[chosen]).sum())
        theta = min(float(kept[chosen].sum()) / gross, 0.0) if gross else 0.0
        return max(float(kept[chosen].sum()) + ((NORMAL_995**2 - 1) * (1 + theta) - theta) * norm, 0.0)

    return tail(bucket != 2, plain_join(norms, nets, of.across**2)) + tail(bucket == 2, norms[2])


def test_layer_margin_equals_loops_over_factors_and_buckets(rng: np.random.Generator) -> None:
    of, (sensitivity, bucket) = tables(rng), factors(rng)
    expected = [plain_layer(s, b, of) for s, b in zip(sensitivity, bucket, strict=True)]
    assert_close(layer(sensitivity, bucket, of, np.zeros(())), expected, "margin", scale=100.0)


def test_curvature_margin_equals_loops_over_factors_and_buckets(rng: np.random.Generator) -> None:
    of, (amount, bucket) = bent(tables(rng)), factors(rng)
    expected = [plain_curvature(a, b, of) for a, b in zip(amount, bucket, strict=True)]
    assert_close(curvature(amount, bucket, of, np.zeros(())), expected, "margin", scale=100.0)


def margins(rng: np.random.Generator) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    of = tables(rng, threshold=1e9)
    return {
        "layer": lambda s, b: np.asarray(layer(s, b, of, np.zeros(()))),
        "curvature": lambda s, b: np.asarray(curvature(s, b, bent(of), np.zeros(()))),
    }


@pytest.mark.parametrize("name", ["layer", "curvature"])
def test_margin_below_the_thresholds_grows_with_size_and_ignores_the_order_of_factors(
    name: str, rng: np.random.Generator
) -> None:
    margin, (sensitivity, bucket) = margins(rng)[name], factors(rng)
    once = margin(sensitivity, bucket)
    assert np.all(once >= 0)
    assert_same_bits(margin(2 * sensitivity, bucket), 2 * once)
    order = rng.permutation(FACTORS)
    assert_close(margin(sensitivity[:, order], bucket[:, order]), once, "margin", scale=100.0)


@pytest.mark.parametrize("name", ["layer", "curvature"])
def test_margin_carries_the_same_bits_in_wider_buckets(name: str, rng: np.random.Generator) -> None:
    margin, (sensitivity, bucket) = margins(rng)[name], factors(rng)
    pad = ((0, 0), (0, 10))
    assert_same_bits(margin(np.pad(sensitivity, pad), np.pad(bucket, pad)), margin(sensitivity, bucket))


def test_layer_margin_of_a_concentrated_factor_grows_as_size_to_three_halves(rng: np.random.Generator) -> None:
    of = tables(rng)
    one, four = (layer(np.array([[s]]), np.zeros((1, 1), np.int32), of, np.zeros(())) for s in (10.0, 40.0))
    assert float(four[0] / one[0]) == pytest.approx(8.0, rel=1e-12)


def test_an_account_without_factors_needs_nothing(rng: np.random.Generator) -> None:
    nothing, bucket = np.zeros((2, FACTORS)), np.zeros((2, FACTORS), np.int32)
    of = tables(rng)
    assert_same_bits(layer(nothing, bucket, of, np.zeros(())), np.zeros(2))
    assert_same_bits(curvature(nothing, bucket, bent(of), np.zeros(())), np.zeros(2))


def test_a_sensitivity_that_is_nan_makes_its_account_nan_and_no_other(rng: np.random.Generator) -> None:
    of, (sensitivity, bucket) = tables(rng), factors(rng)
    sensitivity[3, 2] = np.nan
    assert np.flatnonzero(np.isnan(layer(sensitivity, bucket, of, np.zeros(())))).tolist() == [3]
    kept = np.zeros_like(bucket)
    assert np.flatnonzero(np.isnan(curvature(sensitivity, kept, bent(of), np.zeros(())))).tolist() == [3]


def test_curvature_share_is_half_up_to_the_horizon_and_falls_as_one_over_time() -> None:
    found = curvature_share(np.array([0.0, 7.0, 14.0, 28.0, 140.0]), 14.0)
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5, 0.25, 0.05])


@pytest.mark.parametrize(
    ("psi", "expected"), [pytest.param(0.0, 5.0, id="independent"), pytest.param(1.0, 7.0, id="one risk")]
)
def test_classes_are_joined_by_their_correlation(psi: float, expected: float) -> None:
    found = jax.jit(across_classes)(np.array([[3.0, 4.0]]), np.array([[1.0, psi], [psi, 1.0]]), np.zeros(()))
    assert float(found[0]) == pytest.approx(expected, rel=1e-15)
