"""Claims about the contract stage: value, Greeks and scenario P&L of one long contract, against the oracle's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from gpumargin_kernels.black import BlackGreeks
from gpumargin_kernels.model import Model, ScenarioSet
from gpumargin_kernels.records import Contracts
from gpumargin_kernels.scenario import ContractRisk, contract_risk
from gpumargin_kernels.shocked_vol import vol_multiplier
from gpumargin_kernels.svi import SviSlice, svi_vol
from tests.asserts import assert_close, assert_same_bits
from tests.kernels.inputs import contracts, model, vol_shock
from tests.oracle import black as oracle
from tests.oracle import contract as plain


@jax.jit
def risk_of(listed: Contracts, some: Model) -> ContractRisk:
    """Risk of contracts whose index stands where the oracle's does not look."""
    return contract_risk(listed, some, jnp.full_like(listed.mark, jnp.nan))


MOVES = [(level, rule) for level in (0.7, 1.0, 1.25) for rule in ("up", "none", "down")]
DIRECTION = {"up": 1, "none": 0, "down": -1}
SHOCK = {"range_up": 0.5, "range_down": 0.275, "short_term_power": 0.3, "long_term_power": 0.13, "dte_floor_days": 1.0}
DAY = 86_400.0

# What each contract is, in the words of the oracle; forward = fixed + variable.
TERMS: dict[str, dict[str, Any]] = {
    "linear call": {},
    "linear put in the money": {"is_call": False, "strike": 2_400.0},
    "call with its own mark": {"mark": 77.0},
    "call of one day": {"seconds": DAY},
    "put of two years": {"seconds": 730 * DAY, "is_call": False},
    "call whose forward is half fixed": {"fixed": 1_000.0, "variable": 1_000.0},
    "inverse call": {"inverse": True, "ratio": 1_990.0},
    "inverse put in the money": {"inverse": True, "ratio": 1_990.0, "is_call": False, "strike": 2_400.0},
    "inverse call whose forward is half fixed": {
        "inverse": True,
        "ratio": 1_990.0,
        "fixed": 1_000.0,
        "variable": 1_000.0,
    },
    "expired call in the money": {"seconds": 0.0, "fixed": 2_300.0, "variable": 0.0, "vol": 0.0},
    "call struck at zero": {"strike": 0.0},
    "call without vol": {"vol": 0.0},
    "digital call": {"digital": True, "size": 100.0},
    "digital put in the money with its own mark": {"digital": True, "is_call": False, "strike": 2_400.0, "mark": 0.8},
    "inverse digital put": {"digital": True, "inverse": True, "ratio": 1_990.0, "is_call": False},
    "digital call whose forward is half fixed": {"digital": True, "fixed": 1_000.0, "variable": 1_000.0},
    "expired digital call on its strike": {"digital": True, "seconds": 0.0, "strike": 2_000.0},
    "digital put struck at zero": {"digital": True, "strike": 0.0, "is_call": False},
    "digital call without vol": {"digital": True, "vol": 0.0},
    "linear perpetual": {"kind": "perpetual", "mark": 2_003.0},
    "inverse perpetual": {"kind": "perpetual", "mark": 2_003.0, "inverse": True, "ratio": 1_990.0, "size": 10.0},
    "linear future": {"kind": "future", "mark": 2_010.0},
    "expired future": {"kind": "future", "mark": 2_010.0, "seconds": 0.0, "settled": True},
}
_COMMON: dict[str, Any] = {
    "kind": "option",
    "underlying": "ETH",
    "inverse": False,
    "size": 0.1,
    "ratio": 0.99,
    "mark": None,
    "strike": 2_100.0,
    "is_call": True,
    "seconds": 90 * DAY,
    "vol": 0.6,
    "fixed": 0.0,
    "variable": 2_000.0,
}
PLAIN = {name: plain.Contract(name, **(_COMMON | terms)) for name, terms in TERMS.items()}


def as_columns(some: list[plain.Contract], dtype: str = "float64") -> Contracts:
    """The oracle's contracts as the kernel's columns."""
    is_option = np.array([c.kind == "option" for c in some])
    column = {
        "is_option": is_option,
        "is_call": [c.is_call for c in some],
        "is_perpetual": [c.kind == "perpetual" for c in some],
        "is_inverse": [c.inverse for c in some],
        "size": [c.size for c in some],
        "strike": np.where(is_option, [c.strike for c in some], 0),
        "forward_fixed": np.where(is_option, [c.fixed for c in some], 0),
        "forward_variable": np.where(is_option, [c.variable for c in some], 0),
        "years": [0.0 if c.kind == "perpetual" else c.years for c in some],
        "vol": np.where(is_option, [c.vol for c in some], 0),
        "mark": [math.nan if c.mark is None else c.mark for c in some],
        "settlement_ratio": [c.ratio for c in some],
        **({"is_digital": [c.digital for c in some]} if any(c.digital for c in some) else {}),
    }
    return contracts(len(some), dtype, **column)


def scenarios(dtype: str = "float64") -> Model:
    """One unit, the moves of `MOVES`, Derive's vol shock."""
    return model(
        dtype,
        scenario_sets=(ScenarioSet("grid", 0, len(MOVES)),),
        spot=np.array([[level for level, _ in MOVES]], dtype),
        vol_direction=np.array([DIRECTION[rule] for _, rule in MOVES], np.int32),
        weight=np.ones((1, len(MOVES)), dtype),
    )


@pytest.fixture(scope="module")
def risk() -> ContractRisk:
    """Risk array of every contract of `TERMS`, in that order."""
    return jax.tree.map(np.asarray, risk_of(as_columns(list(PLAIN.values())), scenarios()))


@pytest.mark.parametrize("rule", DIRECTION)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_vol_multiplier_equals_the_oracle_from_below_the_floor_to_beyond_the_pivot(rule: str, dtype: str) -> None:
    days = np.array([0.0, 0.5, 1.0, 1.001, 7.0, 29.9, 30.0, 30.1, 365.0, 3_650.0])
    found = vol_multiplier(
        vol_shock(len(days), dtype), np.array([DIRECTION[rule]], np.int32), (days / 365).astype(dtype)
    )
    expected = [oracle.vol_multiplier(rule, seconds=day * DAY, shock=SHOCK) for day in days.tolist()]
    assert_close(found[:, 0], expected, "vol", scale=1.0, days=days)


def test_a_vol_falls_at_most_to_zero() -> None:
    found = vol_multiplier(vol_shock(1, down=0.9), np.array([-1], np.int32), np.array([1 / 365]))
    assert found.tolist() == [[0.0]]


@pytest.mark.parametrize("name", TERMS)
def test_value_equals_the_oracle(risk: ContractRisk, name: str) -> None:
    contract, row = PLAIN[name], list(PLAIN).index(name)
    expected = plain.mark_value(contract) if contract.kind == "option" else 0.0
    assert_close(risk.value[row], expected, "option_value", scale=contract.size * 2_000, contract=contract)


@pytest.mark.parametrize("name", TERMS)
def test_scenario_pnl_equals_the_oracle_in_every_scenario(risk: ContractRisk, name: str) -> None:
    contract, row = PLAIN[name], list(PLAIN).index(name)
    factors = [oracle.vol_multiplier(rule, seconds=contract.seconds, shock=SHOCK) for _, rule in MOVES]
    expected = [
        plain.scenario_pnl(contract, move=level, vol_factor=f) for (level, _), f in zip(MOVES, factors, strict=True)
    ]
    assert_close(
        risk.scenario_pnl[row], expected, "option_value", scale=contract.size * 4_000, move=[str(m) for m in MOVES]
    )


@pytest.mark.parametrize("greek", ["delta", "gamma", "vega", "theta"])
def test_greeks_in_money_equal_the_oracle(risk: ContractRisk, greek: str) -> None:
    variable = as_columns(list(PLAIN.values())).forward_variable
    in_money = {
        "delta": risk.greeks.delta * variable + risk.exposure,
        "gamma": risk.greeks.gamma * variable**2 / 1e4,
        "vega": risk.greeks.vega / 100,
        "theta": risk.greeks.theta / 365,
    }
    expected = [getattr(plain.money_greeks(contract), greek) for contract in PLAIN.values()]
    assert_close(in_money[greek], expected, "greek", scale=1e3, name=list(PLAIN))


def test_an_unmoved_scenario_has_no_pnl(risk: ContractRisk) -> None:
    unmoved = risk.scenario_pnl[:, MOVES.index((1.0, "none"))]
    assert_close(unmoved, np.zeros(len(PLAIN)), "option_value", scale=400.0, name=list(PLAIN))


def test_a_digital_option_is_what_a_tight_spread_tends_to_in_every_scenario() -> None:
    near = [replace(PLAIN["linear call"], strike=2_100.0 + h, size=size) for h, size in ((-0.01, 50.0), (0.01, -50.0))]
    digital = replace(PLAIN["digital call"], size=1.0)
    found = risk_of(as_columns([*near, digital]), scenarios())
    spread = jax.tree.map(lambda x: np.asarray(x[0] + x[1]), found)
    assert_allclose(found.value[2], spread.value, rtol=1e-8)
    assert_allclose(found.scenario_pnl[2], spread.scenario_pnl, atol=1e-8)
    for name in BlackGreeks._fields:
        assert_allclose(getattr(found.greeks, name)[2], getattr(spread.greeks, name), rtol=1e-6, err_msg=name)


def test_a_book_without_digital_options_has_the_program_and_the_bits_it_had() -> None:
    some = [c for c in PLAIN.values() if not c.digital]
    without, beside = risk_of(as_columns(some), scenarios()), risk_of(as_columns(list(PLAIN.values())), scenarios())
    rows = [row for row, c in enumerate(PLAIN.values()) if not c.digital]
    jax.tree.map(lambda a, b: assert_same_bits(a, b[np.array(rows)]), without, beside)
    assert as_columns(some).is_digital is None
    text = str(jax.make_jaxpr(risk_of)(as_columns(some), scenarios()))
    assert len(text) < len(str(jax.make_jaxpr(risk_of)(as_columns(list(PLAIN.values())), scenarios())))


def test_contracts_that_settle_their_gains_have_no_value_no_vol_and_a_linear_pnl(risk: ContractRisk) -> None:
    rows = [row for row, contract in enumerate(PLAIN.values()) if contract.kind != "option"]
    level = np.array([level for level, _ in MOVES])
    assert not risk.value[rows].any()
    assert not risk.implied_vol[rows].any()
    assert_same_bits(risk.scenario_pnl[rows], risk.exposure[rows][:, None] * (level - 1))


def test_everything_doubles_with_the_contract_size_to_the_last_bit(risk: ContractRisk) -> None:
    columns = as_columns(list(PLAIN.values()))
    doubled = risk_of(columns._replace(size=2 * columns.size), scenarios())
    for name in ("value", "exposure", "scenario_pnl"):
        assert_same_bits(getattr(doubled, name), 2 * getattr(risk, name), field=name)
    assert_same_bits(doubled.greeks.vega, 2 * risk.greeks.vega)
    assert_same_bits(doubled.implied_vol, risk.implied_vol)


def test_a_contract_of_size_zero_is_worth_nothing_in_any_scenario() -> None:
    blank = contracts(
        2, size=0.0, strike=0.0, forward_variable=0.0, years=0.0, vol=0.0, mark=0.0, is_option=[False, True]
    )
    found = risk_of(blank._replace(settlement_ratio=np.zeros(2)), scenarios())
    assert all(not np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(found))


def test_vol_comes_from_the_fit_where_the_mark_has_none() -> None:
    fit = SviSlice(*(np.full(2, x) for x in (0.02, 0.05, -0.3, 0.01, 0.2, 2_000.0, 0.25)))
    columns = as_columns([PLAIN["linear call"]] * 2)._replace(vol=np.array([math.nan, 0.6]), svi=fit)
    found = risk_of(columns, scenarios())
    assert found.implied_vol[0] == pytest.approx(float(svi_vol(fit, columns.strike)[0]), rel=1e-14)
    assert found.implied_vol[1] == 0.6


def test_a_contract_without_a_vol_is_nan_and_its_neighbours_keep_their_bits(risk: ContractRisk) -> None:
    columns = as_columns(list(PLAIN.values()))
    spoilt = columns._replace(vol=np.where(np.arange(len(PLAIN)) == 0, math.nan, columns.vol))
    found = risk_of(spoilt, scenarios())
    assert np.isnan(found.value[0])
    assert np.isnan(found.scenario_pnl[0]).all()
    assert_same_bits(found.scenario_pnl[1:], risk.scenario_pnl[1:])
    assert_same_bits(found.value[1:], risk.value[1:])


def test_a_mark_does_not_hide_that_a_contract_has_no_vol() -> None:
    columns = as_columns([PLAIN["call with its own mark"]])._replace(vol=np.array([math.nan]))
    found = risk_of(columns, scenarios())
    assert found.value[0] == pytest.approx(plain.mark_value(PLAIN["call with its own mark"]))
    assert np.isnan(found.scenario_pnl).all()


def test_float32_stays_within_its_bound_of_float64(risk: ContractRisk) -> None:
    narrow = risk_of(as_columns(list(PLAIN.values()), "float32"), scenarios("float32"))
    scale = np.array([contract.size for contract in PLAIN.values()]) * 4_000
    assert narrow.scenario_pnl.dtype == np.float32
    assert_close(narrow.scenario_pnl, risk.scenario_pnl, "option_value", scale=scale[:, None])
    assert_close(narrow.value, risk.value, "option_value", scale=scale, name=list(PLAIN))
