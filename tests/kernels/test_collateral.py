"""Claims about the value of balances, in full and after haircuts."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gpumargin_kernels.collateral import CollateralValue, collateral_value
from gpumargin_kernels.model import Weights
from gpumargin_kernels.records import Assets, Balances
from tests.asserts import assert_close, assert_same_bits

value_of = jax.jit(collateral_value)
USD, BTC, MEME = range(3)
RATIO = np.array([1.0, 60_000.0, 0.01])
WEIGHT = np.array([1.0, 0.9, 0.0])
LIABILITY = np.array([1.0, 1.1, 1.5])


def weights(dtype: str = "float64") -> dict[str, Weights]:
    """Two margin types, the second twice as strict about BTC."""
    asset, liability = WEIGHT.astype(dtype), LIABILITY.astype(dtype)
    return {
        "maintenance": Weights(asset, liability),
        "initial": Weights(asset * np.array([1, 0.5, 1], dtype), liability),
    }


def value(rows: list[list[tuple[int, float, bool]]], width: int = 4, dtype: str = "float64") -> CollateralValue:
    """Values of accounts with these (asset, amount, is collateral) balances."""
    shape = (len(rows), width)
    asset, amount, counts = np.zeros(shape, np.int32), np.zeros(shape, dtype), np.zeros(shape, bool)
    for i, row in enumerate(rows):
        for j, balance in enumerate(row):
            asset[i, j], amount[i, j], counts[i, j] = balance
    assets = Assets(RATIO.astype(dtype), RATIO.astype(dtype))
    found = value_of(Balances(asset, amount, counts), assets, weights(dtype), np.zeros((), dtype))
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(
    ("balance", "full", "maintenance", "initial"),
    [
        pytest.param((USD, 500.0, True), 500.0, 500.0, 500.0, id="cash counts in full"),
        pytest.param((BTC, 2.0, True), 120_000.0, 108_000.0, 54_000.0, id="a coin after its haircut"),
        pytest.param((BTC, 2.0, False), 120_000.0, 0.0, 0.0, id="a coin that is not collateral counts nothing"),
        pytest.param((BTC, -1.0, True), -60_000.0, -66_000.0, -66_000.0, id="a borrowed coin weighs more"),
        pytest.param((BTC, -1.0, False), -60_000.0, -66_000.0, -66_000.0, id="a debt counts whatever its flag says"),
        pytest.param((MEME, 1e6, True), 10_000.0, 0.0, 0.0, id="an asset of weight zero"),
        pytest.param((MEME, -1e6, True), -10_000.0, -15_000.0, -15_000.0, id="a debt in an asset of weight zero"),
        pytest.param((BTC, 0.0, True), 0.0, 0.0, 0.0, id="nothing"),
    ],
)
def test_one_balance_counts_as_the_rule_says(
    balance: tuple[int, float, bool], full: float, maintenance: float, initial: float
) -> None:
    found = value([[balance]])
    assert found.full[0] == full
    assert found.weighted["maintenance"][0] == pytest.approx(maintenance)
    assert found.weighted["initial"][0] == pytest.approx(initial)


def random_rows(rng: np.random.Generator, rows: int, width: int) -> list[list[tuple[int, float, bool]]]:
    """Accounts with up to `width` balances of random assets, a third of them debts."""
    return [
        [
            (int(rng.integers(3)), float(rng.normal(1, 2)), bool(rng.random() < 0.8))
            for _ in range(rng.integers(0, width + 1))
        ]
        for _ in range(rows)
    ]


def plain(row: list[tuple[int, float, bool]]) -> tuple[float, float]:
    """Full and maintenance value, balance by balance."""
    full = sum(amount * RATIO[asset] for asset, amount, _ in row)
    weigh = [LIABILITY[asset] if amount < 0 else WEIGHT[asset] * counts for asset, amount, counts in row]
    return full, sum(amount * RATIO[asset] * w for (asset, amount, _), w in zip(row, weigh, strict=True))


def test_sums_equal_a_plain_loop(rng: np.random.Generator) -> None:
    rows = random_rows(rng, 64, 4)
    found, expected = value(rows), np.array([plain(row) for row in rows])
    assert_close(found.full, expected[:, 0], "sum", scale=1e6)
    assert_close(found.weighted["maintenance"], expected[:, 1], "sum", scale=1e6)


def test_haircuts_never_raise_a_value(rng: np.random.Generator) -> None:
    found = value(random_rows(rng, 64, 4))
    assert np.all(found.weighted["maintenance"] <= found.full + 1e-9)
    assert np.all(found.weighted["initial"] <= found.weighted["maintenance"] + 1e-9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_carry_the_same_bits_in_wider_buckets(dtype: str, rng: np.random.Generator) -> None:
    rows = random_rows(rng, 64, 2)
    expected = value(rows, 2, dtype)
    for width in (4, 8):
        found = value(rows, width, dtype)
        assert_same_bits(found.full, expected.full, width=width)
        for name in expected.weighted:
            assert_same_bits(found.weighted[name], expected.weighted[name], width=width, margin=name)


def test_a_price_that_is_nan_reaches_its_holders_alone() -> None:
    asset = np.array([[BTC, USD], [USD, USD]], np.int32)
    balances = Balances(asset, np.ones((2, 2)), np.ones((2, 2), bool))
    spoilt = np.array([1.0, np.nan, 0.01])
    found = value_of(balances, Assets(spoilt, spoilt), weights(), np.zeros(()))
    assert np.isnan(found.full).tolist() == [True, False]
    assert np.isnan(found.weighted["initial"]).tolist() == [True, False]
