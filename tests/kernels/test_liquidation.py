"""Claims about the price at which one position is liquidated, and about the order of risk."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpumargin_kernels import liquidation_price, marginal, risk_order

TABLE = np.array([[1_000.0, 0.1], [5_000.0, 0.2], [np.inf, 0.4]])


def price_of(price: float, quantity: float, excess: float, table: np.ndarray = TABLE) -> float:
    given = [np.array([value]) for value in (price, quantity, excess)]
    return float(jax.jit(liquidation_price)(*given, table[None])[0])


def test_with_one_bracket_it_is_the_published_formula() -> None:
    flat = np.array([[np.inf, 0.05]])
    assert price_of(100.0, 2.0, 30.0, flat) == pytest.approx(100 - 30 / 2 / (1 - 0.05), rel=1e-14)
    assert price_of(100.0, -2.0, 30.0, flat) == pytest.approx(100 + 30 / 2 / (1 + 0.05), rel=1e-14)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("notional", [300.0, 1_000.0, 2_500.0, 30_000.0])
@pytest.mark.parametrize("share", [-0.02, 0.0, 0.3, 0.9])
def test_the_excess_is_nothing_there_whatever_brackets_lie_between(side: int, notional: float, share: float) -> None:
    price, size, excess = 10.0, side * notional / 10.0, share * notional
    found = price_of(price, size, excess)
    if np.isnan(found):  # a long that keeps more than it can lose
        assert side == 1
        assert excess + float(marginal(jnp.array([notional]), TABLE[None])[0]) > notional
        return
    table = np.repeat(TABLE[None], 2, axis=0)
    now, then = np.asarray(marginal(jnp.array([notional, abs(size) * found]), jnp.asarray(table)))
    assert excess + size * (found - price) - (then - now) == pytest.approx(0, abs=1e-9 * notional)


def test_no_position_and_a_long_that_cannot_lose_enough_have_no_such_price() -> None:
    assert np.isnan(price_of(10.0, 0.0, 5.0))
    assert np.isnan(price_of(10.0, 1.0, 500.0))


def test_risk_is_ordered_by_ratio_then_margin_then_equity_and_the_other_way_round() -> None:
    pairs = [((100, 50), (100, 100), -1), ((0, 50), (0, 100), -1), ((100, 50), (0, 0), 1), ((5, 0), (6, 0), 1)]
    for first, second, expected in pairs:
        one, other = [jnp.asarray(float(x)) for x in first], [jnp.asarray(float(x)) for x in second]
        assert int(risk_order(*one, *other)) == expected
        assert int(risk_order(*other, *one)) == -expected
        assert int(risk_order(*one, *one)) == 0
