"""Claims about the rules of scenarios: how vols, time, coins and discounts enter one contract's scenario P&L."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpumargin_kernels.black import black_value
from gpumargin_kernels.model import Model, ScenarioRules, ScenarioSet
from gpumargin_kernels.records import Contracts
from gpumargin_kernels.scenario import ContractRisk, contract_risk
from gpumargin_kernels.shocked_vol import shocked_stdev, skew_multiplier, vol_points
from tests.asserts import assert_same_bits
from tests.kernels.inputs import contracts, model, vol_shock
from tests.oracle.pm2 import Expiry, Leg, skew_factor

DAY = 1 / 365
DIRECTIONS = np.array([1, 0, -1], np.int32)
SKEW = {
    "linear_cap": 0.15,
    "linear_slope": -0.05,
    "abs_cap": 0.25,
    "abs_slope": -0.1,
    "min_k_star": 0.01,
    "width": 4.0,
    "vol_static": 0.6,
    "vol_slope": -0.1,
}


def scenarios(direction: np.ndarray = DIRECTIONS, spot: Any = None, **given: Any) -> Model:
    """A model of one unit with these scenarios and rules."""
    count = len(direction)
    numbers = {name: np.asarray(value, float) for name, value in given.pop("numbers", {}).items()}
    return model(
        scenario_sets=(ScenarioSet("grid", 0, count),),
        spot=np.ones((1, count)) if spot is None else np.asarray([spot], float),
        vol_direction=direction,
        weight=np.ones((1, count)),
        scenario_numbers=numbers,
        **({"vol_shock": vol_shock()} | given),
    )


def vols(listed: Contracts, some: Model) -> np.ndarray:
    """Shocked vols, read off the deviations."""
    found = jax.jit(shocked_stdev)(listed, some, listed.vol)
    return np.asarray(found) / np.sqrt(np.asarray(listed.years))[:, None]


def risk(listed: Contracts, some: Model, index: float = math.nan) -> ContractRisk:
    """Risk array as numpy."""
    found = jax.jit(contract_risk)(listed, some, jnp.full_like(listed.mark, index))
    return jax.tree.map(np.asarray, found)


def flat(up: float, down: float, **more: float) -> dict[str, Any]:
    """A shock that does not depend on the tenor."""
    return {"vol_shock": vol_shock(up=up, down=down, short_power=0.0, long_power=0.0, **more)}


def test_additive_shocks_add_points_and_stop_at_zero() -> None:
    listed = contracts(2, vol=[0.6, 0.2])
    found = vols(listed, scenarios(rules=ScenarioRules(is_additive=True), **flat(0.5, 0.25)))
    np.testing.assert_allclose(found, [[1.1, 0.6, 0.35], [0.7, 0.2, 0.0]], rtol=1e-14)


def test_points_grow_towards_expiry_by_the_power_of_the_tenor() -> None:
    shock = vol_shock(up=0.5, down=0.2, short_power=0.5, long_power=0.25)
    found = np.asarray(vol_points(shock, DIRECTIONS, np.array([7.5 * DAY])))
    np.testing.assert_allclose(found, [[1.0, 0.0, -0.4]], rtol=1e-14)


def test_bounds_hold_vols_of_upward_moves_alone() -> None:
    listed = contracts(2, vol=[0.1, 3.0])
    some = scenarios(numbers={"min_up": [0.45], "max_up": [4.0]}, **flat(0.5, 0.5))
    np.testing.assert_allclose(vols(listed, some), [[0.45, 0.1, 0.05], [4.0, 3.0, 1.5]], rtol=1e-14)


def test_numbers_of_a_scenario_scale_then_shift_the_vol_that_its_rule_gives() -> None:
    numbers = {"vol_factor": [[2.0, 0.5, 1.0]], "vol_shift": [[0.1, 0.0, -9.0]]}
    found = vols(contracts(1, vol=0.6), scenarios(numbers=numbers, **flat(0.5, 0.5)))
    np.testing.assert_allclose(found, [[1.9, 0.3, 0.0]], rtol=1e-14)


@pytest.mark.parametrize("strike", [1.0, 60.0, 99.9, 100.0, 100.1, 180.0, 9_000.0])
@pytest.mark.parametrize("years", [DAY / 24, 0.1, 1.0, 9.5])
def test_turns_of_the_smile_equal_the_oracle_also_where_the_cap_is_below_zero(strike: float, years: float) -> None:
    numbers = {name: np.array([value]) for name, value in SKEW.items()}
    expiry = Expiry(years * 365 * 86_400, 10.0, 90.0, 0.0, 1.0, [])
    leg = Leg(strike, is_call=True, amount=1.0, vol=0.5)
    for is_absolute, kind in ((False, "linear"), (True, "abs")):
        found = skew_multiplier(numbers, np.log(np.array([strike / 100])), np.array([years]), is_absolute=is_absolute)
        assert float(found[0]) == pytest.approx(skew_factor(leg, expiry, SKEW, kind), rel=1e-14)


def test_a_turn_of_the_smile_moves_no_vol_at_the_money_and_none_without_moneyness() -> None:
    listed = contracts(3, strike=[100.0, 0.0, 100.0], forward_variable=[100.0, 100.0, 0.0])
    rules = ScenarioRules(skew=(0, 1))
    found = vols(listed, scenarios(np.array([2, 3], np.int32), numbers={k: [v] for k, v in SKEW.items()}, rules=rules))
    np.testing.assert_array_equal(found, np.full((3, 2), 0.6))


def test_a_scenario_that_looks_ahead_prices_with_the_time_that_is_left_then() -> None:
    listed = contracts(2, years=[0.25, DAY / 2], vol=0.6, strike=90.0)
    found = risk(listed, scenarios(np.zeros(2, np.int32), numbers={"years_ahead": [0.0, DAY]}))
    later = black_value(100.0, 90.0, 0.6 * np.sqrt(0.25 - DAY), True)
    assert found.scenario_pnl[:, 0].tolist() == [0.0, 0.0]
    assert found.scenario_pnl[0, 1] == pytest.approx(float(later) - float(found.value[0]), rel=1e-12)
    assert found.scenario_pnl[1, 1] == pytest.approx(10.0 - float(found.value[1]), rel=1e-12)


def test_linear_contracts_move_by_the_index_where_shocks_are_of_the_index() -> None:
    terms = {"is_option": False, "mark": [97_093.7, 97_093.7], "size": [0.1, 100.0], "settlement_ratio": 0.99954}
    listed = contracts(2, is_perpetual=True, is_inverse=[False, True], **terms)
    listed = listed._replace(settlement_ratio=np.array([0.99954, 97_000.0]))
    moved = scenarios(np.zeros(1, np.int32), [1.12], rules=ScenarioRules(is_index_based=True))
    found = risk(listed, moved, index=97_034.24)
    assert found.scenario_pnl[0, 0] == pytest.approx(0.1 * 97_034.24 * 0.12, rel=1e-13)
    assert found.scenario_pnl[1, 0] == pytest.approx(100 / 97_093.7 * 97_000 * 0.12, rel=1e-13)
    assert found.exposure[0] == pytest.approx(0.1 * 97_093.7 * 0.99954, rel=1e-13)


@pytest.mark.parametrize("move", [-0.66, -0.16, 0.0, 0.16, 5.0])
def test_coins_are_counted_at_the_unshocked_price_where_the_model_says_so(move: float) -> None:
    listed = contracts(3, is_inverse=[True, True, False], is_option=[False, True, False], is_perpetual=True)
    listed = listed._replace(mark=np.array([110.0, np.nan, 110.0]), settlement_ratio=np.array([1.0, 1.0, 0.01]))
    some = scenarios(np.zeros(1, np.int32), [1 + move], rules=ScenarioRules(is_coin_pnl=True))
    found = risk(listed, some).scenario_pnl[:, 0]
    coins = black_value(100.0 * (1 + move), 100.0, 0.6 * np.sqrt(0.25), True) / (100.0 * (1 + move))
    assert found[0] == pytest.approx(1 / 110 * (1 - 1 / (1 + move)), abs=1e-15)
    now = black_value(100.0, 100.0, 0.3, True) / 100.0
    assert found[1] == pytest.approx(float(coins) - float(now), abs=1e-15)
    assert found[2] == pytest.approx(0.01 * 110 * move, abs=1e-15)


def test_discounted_options_are_worth_their_value_times_the_discount_and_theta_knows_it() -> None:
    listed = contracts(2, rate=[0.08, -0.05], strike=90.0)
    rules = ScenarioRules(is_discounted=True)
    some = scenarios(np.zeros(2, np.int32), [1.0, 1.2], rules=rules)
    found, plain = risk(listed, some), risk(listed, scenarios(np.zeros(2, np.int32), [1.0, 1.2]))
    factor = np.array([math.exp(-0.08 * 0.25), 1.0])
    np.testing.assert_allclose(found.value, plain.value * factor, rtol=1e-14)
    np.testing.assert_allclose(found.scenario_pnl, plain.scenario_pnl * factor[:, None], rtol=1e-12, atol=1e-13)
    step = 1e-5
    later = risk(listed._replace(years=listed.years - step), some).value
    np.testing.assert_allclose(found.greeks.theta, (later - found.value) / step, rtol=1e-3)


def test_numbers_that_change_nothing_change_no_vol() -> None:
    listed = contracts(3, vol=[0.1, 0.6, 2.0], years=[0.01, 0.2, 2.0])
    nothing = {"min_up": [0.0], "vol_factor": np.ones((1, 3)), "vol_shift": np.zeros((1, 3)), "years_ahead": [0.0] * 3}
    some = scenarios(numbers=nothing)
    np.testing.assert_allclose(vols(listed, some), vols(listed, scenarios()), rtol=1e-15)


def test_a_missing_vol_stays_missing_under_every_rule() -> None:
    listed = contracts(2, vol=[np.nan, 0.6])
    rules = ScenarioRules(skew=(3, 4))
    numbers = {"min_up": [0.4], "max_up": [2.0]} | {name: [value] for name, value in SKEW.items()}
    found = vols(listed, scenarios(np.array([1, 0, -1, 2, 3], np.int32), numbers=numbers, rules=rules))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_rows_of_padding_yield_nothing_under_every_rule() -> None:
    blank = contracts(1, is_option=False, is_call=False, **dict.fromkeys(("size", "strike", "forward_variable"), 0.0))
    blank = blank._replace(years=np.zeros(1), vol=np.zeros(1), mark=np.zeros(1), settlement_ratio=np.zeros(1))
    rules = ScenarioRules(is_additive=True, is_index_based=True, is_coin_pnl=True, is_discounted=True, skew=(1,))
    numbers = {"min_up": [0.4], "years_ahead": [DAY, 0.0]} | {name: [value] for name, value in SKEW.items()}
    found = risk(blank, scenarios(np.array([1, 2], np.int32), [0.5, 1.0], numbers=numbers, rules=rules), index=100.0)
    assert_same_bits(np.abs(found.scenario_pnl), np.zeros((1, 2)))
