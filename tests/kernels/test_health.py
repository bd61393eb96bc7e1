"""Claims about excess, health ratio and status."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from gpumargin_kernels.health import STATUSES, Health, account_health


def health(
    equity: float, initial: tuple[float, float], maintenance: tuple[float, float], dtype: str = "float64"
) -> Health:
    """Health of one account; each margin type as (balance, requirement)."""

    def column(value: float) -> np.ndarray:
        return np.array([value], dtype)

    balance = {"initial": column(initial[0]), "maintenance": column(maintenance[0])}
    requirement = {"initial": column(initial[1]), "maintenance": column(maintenance[1])}
    return jax.tree.map(np.asarray, jax.jit(account_health)(column(equity), balance, requirement))


CASES = [
    pytest.param(100.0, (100.0, 50.0), (100.0, 40.0), "healthy", id="room to spare"),
    pytest.param(100.0, (100.0, 100.0), (100.0, 100.0), "healthy", id="exactly on the line"),
    pytest.param(100.0, (100.0, 100.5), (100.0, 80.0), "margin_call", id="below initial"),
    pytest.param(100.0, (100.0, 130.0), (100.0, 100.5), "liquidatable", id="below maintenance"),
    pytest.param(100.0, (100.0, 50.0), (100.0, 100.5), "liquidatable", id="below maintenance outranks above initial"),
    pytest.param(-0.5, (-0.5, 10.0), (-0.5, 5.0), "bankrupt", id="equity below zero"),
    pytest.param(-0.5, (10.0, 0.0), (10.0, 0.0), "bankrupt", id="bankrupt outranks an excess"),
    pytest.param(0.0, (0.0, 0.0), (0.0, 0.0), "healthy", id="an empty account"),
    pytest.param(math.nan, (100.0, 50.0), (100.0, 40.0), "unknown", id="equity is nan"),
    pytest.param(100.0, (math.nan, 50.0), (100.0, 40.0), "unknown", id="initial balance is nan"),
    pytest.param(100.0, (100.0, 50.0), (100.0, math.nan), "unknown", id="maintenance requirement is nan"),
    pytest.param(100.0, (100.0, math.inf), (100.0, 40.0), "unknown", id="a requirement without bound"),
    pytest.param(-math.inf, (100.0, 50.0), (100.0, 40.0), "unknown", id="unknown outranks bankrupt"),
    pytest.param(math.inf, (math.inf, math.inf), (100.0, 40.0), "unknown", id="infinity less infinity"),
]


@pytest.mark.parametrize(("equity", "initial", "maintenance", "status"), CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_status_is_the_gravest_that_applies(
    equity: float, initial: tuple[float, float], maintenance: tuple[float, float], status: str, dtype: str
) -> None:
    found = health(equity, initial, maintenance, dtype)
    assert STATUSES[found.status[0]] == status
    assert found.status.dtype == np.int8


def test_excess_is_balance_less_requirement_by_margin_type() -> None:
    found = health(100.0, (100.0, 130.0), (90.0, 70.0))
    assert {name: value[0] for name, value in found.excess.items()} == {"initial": -30.0, "maintenance": 20.0}


@pytest.mark.parametrize(
    ("maintenance", "ratio"),
    [((90.0, 60.0), 1.5), ((-30.0, 60.0), -0.5), ((90.0, 0.0), math.nan), ((0.0, 0.0), math.nan)],
    ids=["above one", "negative", "no requirement", "nothing at all"],
)
def test_ratio_is_balance_over_requirement_and_nan_where_nothing_is_required(
    maintenance: tuple[float, float], ratio: float
) -> None:
    assert health(100.0, (100.0, 1.0), maintenance).ratio[0] == pytest.approx(ratio, nan_ok=True)


def test_one_unknown_account_leaves_the_others_as_they_are() -> None:
    equity = np.array([1.0, np.nan, -1.0])
    some = {"initial": np.ones(3), "maintenance": np.ones(3)}
    found = account_health(equity, some, {name: np.zeros(3) for name in some})
    assert [STATUSES[code] for code in np.asarray(found.status)] == ["healthy", "unknown", "bankrupt"]


def test_a_further_margin_type_that_is_not_finite_makes_the_account_unknown() -> None:
    some = dict.fromkeys(("initial", "maintenance", "close_out"), np.ones(1))
    requirement = some | {"close_out": np.full(1, np.nan)}
    assert STATUSES[int(account_health(np.ones(1), some, requirement).status[0])] == "unknown"
