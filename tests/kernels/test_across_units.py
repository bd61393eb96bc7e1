"""Claims about credits for spreads between units, and about gains that offset losses in part."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gpumargin_kernels.offset import offset_loss
from gpumargin_kernels.spread_credit import SpreadTable, spread_credit, weighted_price_risk
from tests.asserts import assert_close, assert_same_bits

ROWS, UNITS, WIDTH = 30, 5, 4
credit = jax.jit(spread_credit)
loss = jax.jit(offset_loss)
ZERO = np.zeros(())


def spreads() -> SpreadTable:
    """Three spreads in order; the second has three legs, the last one a unit that no book holds."""
    return SpreadTable(
        unit=np.array([[0, 1, -1], [1, 2, 3], [0, -1, -1]], np.int32),
        is_leg=np.array([[True, True, False], [True, True, True], [True, True, False]]),
        ratio=np.array([[1.0, 18.0, 1.0], [4.0, 1.0, 2.0], [1.0, 1.0, 1.0]]),
        side=np.array([[1.0, -1.0, 1.0], [1.0, -1.0, -1.0], [1.0, -1.0, 1.0]]),
        rate=np.array([0.6, 0.3, 1.0]),
    )


def accounts(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Delta, price risk per delta and unit of every slot."""
    units = np.array([np.sort(rng.choice(UNITS, WIDTH, replace=False)) for _ in range(ROWS)], np.int32)
    return rng.normal(0, 10, (ROWS, WIDTH)), rng.uniform(0, 100, (ROWS, WIDTH)), units


def plain_credit(delta: np.ndarray, risk: np.ndarray, units: np.ndarray, table: SpreadTable) -> list[float]:
    """Credit of one account, spread by spread."""
    left, price = dict(zip(units, delta, strict=True)), dict(zip(units, risk, strict=True))
    found = dict.fromkeys(units, 0.0)
    for p in range(len(table.rate)):
        legs = [j for j in range(table.ratio.shape[1]) if table.is_leg[p, j]]
        names = [int(table.unit[p, j]) for j in legs]
        if not set(names) <= set(left):
            continue
        for turn in (1.0, -1.0):
            sides = [turn * table.side[p, j] * left[u] for j, u in zip(legs, names, strict=True)]
            if all(s > 0 for s in sides):
                number = min(abs(left[u]) / table.ratio[p, j] for j, u in zip(legs, names, strict=True))
                for j, u in zip(legs, names, strict=True):
                    found[u] += number * table.ratio[p, j] * price[u] * table.rate[p]
                    left[u] -= turn * table.side[p, j] * number * table.ratio[p, j]
                break
    return [found[u] for u in units]


def test_credit_equals_spreads_formed_one_after_the_other(rng: np.random.Generator) -> None:
    delta, risk, units = accounts(rng)
    expected = [plain_credit(d, r, u, spreads()) for d, r, u in zip(delta, risk, units, strict=True)]
    found = credit(delta, risk, units, spreads(), ZERO)
    assert np.count_nonzero(np.array(expected)) > 10
    assert_close(found, expected, "margin", scale=100.0)


def test_a_spread_uses_up_the_delta_that_later_ones_would_want(rng: np.random.Generator) -> None:
    table = spreads()._replace(
        unit=np.array([[0, 1], [0, 1]], np.int32),
        is_leg=np.ones((2, 2), bool),
        ratio=np.ones((2, 2)),
        side=np.array([[1.0, -1.0], [1.0, -1.0]]),
        rate=np.array([0.5, 0.25]),
    )
    found = credit(np.array([[3.0, -2.0]]), np.array([[10.0, 20.0]]), np.array([[0, 1]], np.int32), table, ZERO)
    np.testing.assert_allclose(found, [[10.0, 20.0]])


def test_deltas_on_the_same_side_earn_nothing() -> None:
    found = credit(np.array([[3.0, 2.0]]), np.ones((1, 2)), np.array([[0, 1]], np.int32), spreads(), ZERO)
    assert_same_bits(found, np.zeros((1, 2)))


def test_credit_doubles_with_the_positions_and_padding_changes_no_bit(rng: np.random.Generator) -> None:
    delta, risk, units = accounts(rng)
    once = np.asarray(credit(delta, risk, units, spreads(), ZERO))
    assert_same_bits(credit(2 * delta, risk, units, spreads(), ZERO), 2 * once)
    pad = ((0, 0), (0, 4))
    wide = credit(np.pad(delta, pad), np.pad(risk, pad), np.pad(units, pad, constant_values=-2), spreads(), ZERO)
    assert_same_bits(wide[:, :WIDTH], once)
    assert_same_bits(wide[:, WIDTH:], np.zeros((ROWS, 4)))


def test_risk_per_delta_is_capped_where_the_delta_nearly_vanishes() -> None:
    found = weighted_price_risk(np.array([100.0, 100.0, -5.0, 7.0]), np.array([-4.0, 1e-9, 2.0, 0.0]), np.full(4, 50.0))
    np.testing.assert_allclose(found, [25.0, 50.0, 0.0, 0.0])


def pnl(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(0, 10, (ROWS, WIDTH, 7)), rng.integers(0, 3, (ROWS, WIDTH)).astype(np.int32)


def plain_loss(of_units: np.ndarray, group: np.ndarray, within: np.ndarray, between: float) -> float:
    """Loss of one account, scenario by scenario and group by group."""
    worst = np.inf
    for column in of_units.T:
        total = 0.0
        for name in set(group.tolist()):
            own = sum(x * w if x > 0 else x for x, g, w in zip(column, group, within, strict=True) if g == name)
            total += own * between if own > 0 else own
        worst = min(worst, total)
    return -worst


def test_offset_loss_equals_groups_formed_one_by_one(rng: np.random.Generator) -> None:
    (of_units, group), within = pnl(rng), rng.uniform(0, 1, (ROWS, WIDTH))
    expected = [plain_loss(*one, 0.4) for one in zip(of_units, group, within, strict=True)]
    assert_close(loss(of_units, group, within, np.array(0.4), ZERO), expected, "margin", scale=100.0)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(1.0, lambda p: -p.sum(axis=1).min(axis=1), id="gains count in full: units net"),
        pytest.param(0.0, lambda p: -np.minimum(p, 0).sum(axis=1).min(axis=1), id="gains count nothing"),
    ],
)
def test_offset_loss_at_the_ends_is_known(share: float, expected: object, rng: np.random.Generator) -> None:
    of_units, group = pnl(rng)
    found = loss(of_units, group, np.full(group.shape, share), np.array(share), ZERO)
    assert_close(found, expected(of_units), "margin", scale=100.0)  # type: ignore[operator]


def test_offset_loss_falls_with_every_share_and_padding_changes_no_bit(rng: np.random.Generator) -> None:
    of_units, group = pnl(rng)

    def at(within: float, between: float) -> np.ndarray:
        return np.asarray(loss(of_units, group, np.full(group.shape, within), np.array(between), ZERO))

    assert np.all(at(0.2, 0.3) >= at(0.8, 0.3) - 1e-12)
    assert np.all(at(0.2, 0.3) >= at(0.2, 0.9) - 1e-12)
    wide = loss(
        np.pad(of_units, ((0, 0), (0, 4), (0, 0))),
        np.pad(group, ((0, 0), (0, 4)), constant_values=-2),
        np.full((ROWS, WIDTH + 4), 0.2),
        np.array(0.3),
        ZERO,
    )
    assert_same_bits(wide, at(0.2, 0.3))
