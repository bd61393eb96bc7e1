"""Claims about the value of balances, in full and after haircuts."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from gpumargin_kernels.collateral import AccountSide, CollateralValue, collateral_value
from gpumargin_kernels.model import AccountModel, BalanceCharge, BalanceRule
from gpumargin_kernels.records import Assets, Balances
from tests.asserts import assert_close, assert_same_bits
from tests.sampled import rest_slow

value_of = jax.jit(collateral_value)
NO_SIDE = AccountSide({}, {})
USD, BTC, MEME = range(3)
RATIO = np.array([1.0, 60_000.0, 0.01])
WEIGHT = np.array([1.0, 0.9, 0.0])
LIABILITY = np.array([1.0, 1.1, 1.5])


def rules(dtype: str = "float64", rule: BalanceRule | None = None) -> AccountModel:
    """Two margin types, the second twice as strict about BTC; shares of value unless another rule is given."""
    asset, liability = WEIGHT.astype(dtype), LIABILITY.astype(dtype)
    shares = rule or BalanceRule(("*", "value", "assets"), ("*", "value", "liability"))
    return AccountModel(
        rules=(("maintenance", shares), ("initial", shares)),
        is_debt_required=False,
        charges=(BalanceCharge("lent", (("borrowed", ("max", ("-", 0.0, "value"), 0.0)), ("held", 1.0)), "borrowed"),),
        counted=(),
        settles=False,
        margins=(),
        statuses=(),
        numbers={
            "maintenance": {"assets": asset, "liability": liability},
            "initial": {"assets": asset * np.array([1, 0.5, 1], dtype), "liability": liability},
        },
        charge_numbers={"lent": {}},
        scalars={},
    )


def value(
    rows: list[list[tuple[int, float, bool]]], width: int = 4, dtype: str = "float64", model: AccountModel | None = None
) -> CollateralValue:
    """Values of accounts with these (asset, amount, is collateral) balances."""
    shape = (len(rows), width)
    asset, amount, counts = np.zeros(shape, np.int32), np.zeros(shape, dtype), np.zeros(shape, bool)
    for i, row in enumerate(rows):
        for j, balance in enumerate(row):
            asset[i, j], amount[i, j], counts[i, j] = balance
    assets = Assets(RATIO.astype(dtype), RATIO.astype(dtype), {"price": RATIO.astype(dtype)})
    balances = Balances(asset, amount, counts, np.arange(len(rows), dtype=np.int32))
    found = value_of(assets, model or rules(dtype), NO_SIDE, balances, np.zeros((), dtype))
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


SIZED = BalanceRule(
    ("*", "value", ("min", "assets", ("/", 1.1, ("+", 1.0, ("*", 0.1, ("sqrt", ("abs", "amount"))))))),
    ("*", ("*", "amount", "price"), ("max", "liability", ("+", 0.8, ("*", 0.1, ("sqrt", ("abs", "amount")))))),
)


def test_a_rule_may_depend_on_size(rng: np.random.Generator) -> None:
    rows = random_rows(rng, 32, 3)
    found = value(rows, model=rules(rule=SIZED))
    for row, counted in zip(rows, found.weighted["maintenance"], strict=True):
        expected = 0.0
        for asset, amount, counts in row:
            size = 0.1 * np.sqrt(abs(amount))
            share = max(LIABILITY[asset], 0.8 + size) if amount < 0 else min(WEIGHT[asset], 1.1 / (1 + size)) * counts
            expected += amount * RATIO[asset] * share
        assert counted == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_debt_that_is_required_leaves_the_balance() -> None:
    model = dataclasses.replace(rules(), is_debt_required=True)
    found = value([[(USD, 500.0, True), (BTC, -1.0, True)]], model=model)
    assert found.weighted["maintenance"][0] == 500.0
    assert found.debt["maintenance"][0] == pytest.approx(66_000.0)
    assert found.full[0] == 500.0 - 60_000.0


def test_charges_count_balances_other_than_zero_whatever_the_width() -> None:
    for width in (2, 4, 8):
        found = value([[(USD, 5.0, True), (BTC, -2.0, True)], [(USD, 0.0, True)]], width)
        assert found.parts["lent"]["held"].tolist() == [2.0, 0.0]
        assert found.parts["lent"]["borrowed"].tolist() == [120_000.0, 0.0]


@pytest.mark.parametrize("dtype", rest_slow(["float64", "float32"], ["float64"]))
def test_rules_with_sums_carry_the_same_bits_in_wider_buckets(dtype: str, rng: np.random.Generator) -> None:
    rows = random_rows(rng, 64, 2)
    model = rules(dtype, SIZED)
    expected = value(rows, 2, dtype, model)
    for width in (4, 8):
        found = value(rows, width, dtype, model)
        assert_same_bits(found.weighted["initial"], expected.weighted["initial"], width=width)
        assert_same_bits(found.parts["lent"]["borrowed"], expected.parts["lent"]["borrowed"], width=width)


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
    balances = Balances(asset, np.ones((2, 2)), np.ones((2, 2), bool), np.arange(2, dtype=np.int32))
    spoilt = np.array([1.0, np.nan, 0.01])
    found = value_of(Assets(spoilt, spoilt, {}), rules(), NO_SIDE, balances, np.zeros(()))
    assert np.isnan(found.full).tolist() == [True, False]
    assert np.isnan(found.weighted["initial"]).tolist() == [True, False]
