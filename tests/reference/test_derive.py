"""Derive's own figures: portfolio margin 1, Black-76, SVI and the forward feed."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from gpumargin_kernels.black import black_greeks
from gpumargin_kernels.forward import forward_split
from gpumargin_kernels.svi import SviSlice, svi_vol
from tests.reference import pm2_books
from tests.reference.folders import NOT_YET, found_files, read_cases
from tests.reference.pm1_books import results_of
from tests.reference.test_commitment import HANDLED as COMMITMENTS
from tests.reference.test_default_fund import HANDLED as FUNDS
from tests.reference.test_greeks import HANDLED as GREEKS
from tests.reference.test_lending import HANDLED as LENDING
from tests.reference.test_portfolio_margins import HANDLED as PORTFOLIOS
from tests.reference.test_rate_venues import HANDLED as RATES
from tests.reference.test_scenario_grids import HANDLED as GRIDS
from tests.reference.test_sensitivities import HANDLED as SENSITIVITIES

pytestmark = pytest.mark.reference

HANDLED = {
    f"derive_vectors/{name}.json"
    for name in (
        "black76_cases",
        "forward_feed_cases",
        "pmrm1_chain_cases",
        "pmrm1_portfolio_cases",
        "pmrm1_scenario_cases",
        "pmrm1_unit_cases",
        "pmrm2_cases",
        "pmrm2_chain_cases",
        "sm_chain_cases",
        "sm_portfolio_cases",
        "sm_scenario_cases",
        "sm_unit_cases",
        "svi_cases",
    )
}
_YEAR = 365 * 86_400
# Absolute room in USD beside the relative tolerance: upstream asserts 1e-10, and sums of thousands cancel to zero.
_ROOM = 1e-9


def _sampled(found: list[Any], *, every: int) -> list[Any]:
    """The cases, all but each so many marked slow: every one compiles a program for its own shapes."""
    return [
        case if i % every == 0 else pytest.param(*case.values, id=case.id, marks=pytest.mark.slow)
        for i, case in enumerate(found)
    ]


# Lists of cases beyond this are sampled in the short run.
MANY = 20


def cases(*names: str) -> list[Any]:
    """Parameters of every case of some files; one that skips with its reason where the files are absent."""
    found = [
        pytest.param(case, content.get("params", case.get("params")), id=case.get("id", f"{name}-{i}"))
        for name in names
        if (content := read_cases(f"derive_vectors/{name}.json")) is not None
        for i, case in enumerate(content["cases"])
    ]
    reason = f"no reference cases {names} on this machine; set GPUMARGIN_REFERENCE"
    return _sampled(found, every=24 if len(found) > MANY else 1) or [
        pytest.param(None, None, marks=pytest.mark.skip(reason=reason), id="absent")
    ]


def test_every_case_file_is_handled_or_stands_in_the_list() -> None:
    handled = HANDLED | COMMITMENTS | FUNDS | GREEKS | GRIDS | LENDING | PORTFOLIOS | RATES | SENSITIVITIES
    unknown = [name for name in found_files() if name not in handled and name not in NOT_YET]
    assert not unknown, f"nothing handles {unknown}"
    assert not handled & set(NOT_YET)


def assert_figures(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Every expected figure, to 1e-9 relative; integers and indexes exactly."""
    for name, value in expected.items():
        assert name in found, f"no field answers {name!r}"
        if isinstance(value, (int, str)):
            assert found[name] == value, f"{name}: {found[name]!r}, expected {value!r}"
        elif isinstance(value, list):
            figures, wanted = np.array(found[name]), np.array(value)
            room = _ROOM * max(1.0, float(np.abs(wanted).max(initial=0.0)))
            np.testing.assert_allclose(figures, wanted, rtol=1e-9, atol=room, err_msg=name)
        else:
            assert found[name] == pytest.approx(value, rel=1e-9, abs=_ROOM), name


@pytest.mark.parametrize(
    ("case", "params"), cases("pmrm1_chain_cases", "pmrm1_scenario_cases", "pmrm1_portfolio_cases")
)
def test_pm1_reproduces_the_published_figures(case: dict[str, Any], params: dict[str, Any]) -> None:
    assert_figures(results_of(case, params), case["expected"])


def pm2_cases() -> list[Any]:
    """Every PM2 case with its own list of scenarios."""
    found = [
        pytest.param(case, content["scenario_sets"][case["params"]["scenario_set"]], id=case["id"])
        for name in ("pmrm2_cases", "pmrm2_chain_cases")
        if (content := read_cases(f"derive_vectors/{name}.json")) is not None
        for case in content["cases"]
    ]
    return _sampled(found, every=24) or cases("pmrm2_cases")


@pytest.mark.parametrize(("case", "scenarios"), pm2_cases())
def test_pm2_reproduces_the_published_figures(case: dict[str, Any], scenarios: list[dict[str, Any]]) -> None:
    assert_figures(pm2_books.results_of(case, scenarios), case["expected"])


def as_portfolio(inputs: dict[str, Any]) -> dict[str, Any]:
    """A case of single figures as a portfolio; what it does not name is at rest."""
    spot, days = inputs["spot"], 30 * 86_400
    shorts = inputs.get("shorts", inputs.get("options", []))
    perpetual = inputs.get("perp_price", spot)
    return {
        "account": {
            "cash": inputs.get("cash", 0.0),
            "base_amount": inputs.get("base_amount", 0.0),
            "perp_size": inputs.get("perp_size", 0.0),
            "perp_unsettled_cash": inputs.get("perp_unsettled_cash", 0.0),
            "options": [{"seconds_to_expiry": days, "vol": 0.5, **option} for option in shorts],
        },
        "market": {
            "spot": spot,
            "spot_confidence": inputs.get("spot_confidence", 1.0),
            "stable_price": inputs.get("stable_price", 1.0),
            "perp_price": perpetual,
            "perp_confidence": inputs.get("perp_confidence", 1.0),
            "expiries": [
                {
                    "seconds_to_expiry": days,
                    "forward_fixed": 0.0,
                    "forward_variable": spot,
                    "rate": 0.0,
                    **dict.fromkeys(("forward_confidence", "rate_confidence", "vol_confidence"), 1.0),
                }
            ],
        },
    }


@pytest.mark.parametrize(("case", "params"), cases("pmrm1_unit_cases"))
def test_pm1_contingencies_equal_the_literals(case: dict[str, Any], params: None) -> None:
    base = read_cases("derive_vectors/pmrm1_scenario_cases.json")
    assert base is not None
    inputs, chosen = case["inputs"], dict(base["params"])
    given = {k.removesuffix("_percent"): v for k, v in inputs.items() if k.endswith("_percent")}
    chosen["contingency"] = chosen["contingency"] | given
    assert_figures(results_of(as_portfolio(inputs), chosen), case["expected"])


@pytest.mark.parametrize(("case", "params"), cases("black76_cases"))
def test_black_prices_equal_the_literals(case: dict[str, Any], params: None) -> None:
    def price(*, is_call: bool) -> Any:
        numbers = [jnp.asarray(case[name]) for name in ("forward", "strike", "vol")]
        return black_greeks(*numbers, jnp.asarray(case["seconds_to_expiry"] / _YEAR), jnp.asarray(is_call))

    discount = case["discount"]
    call, put = price(is_call=True), price(is_call=False)
    assert float(call.value) * discount == pytest.approx(case["call"], rel=1e-12, abs=1e-12)
    assert float(put.value) * discount == pytest.approx(case["put"], rel=1e-12, abs=1e-12)
    assert float(call.delta) * discount == pytest.approx(case["call_delta"], abs=1e-12)


@pytest.mark.parametrize(("case", "params"), cases("svi_cases"))
def test_svi_vols_equal_the_literals(case: dict[str, Any], params: None) -> None:
    p = case["params"]
    names = ("a", "b", "rho", "m", "sigma", "forward", "tau_years")
    vol = svi_vol(SviSlice(*(jnp.asarray(p[name]) for name in names)), jnp.asarray(case["strike"]))
    assert float(vol) == pytest.approx(case["vol"], rel=1e-14, abs=case["tolerance"])


@pytest.mark.parametrize(("case", "params"), cases("forward_feed_cases"))
def test_forwards_split_as_the_feed_does(case: dict[str, Any], params: None) -> None:
    inputs = case["inputs"]
    live = inputs["spot"] + inputs["forward_minus_spot"]
    average = inputs.get("average_spot_since_window_start", 0.0)
    split = forward_split(*map(jnp.asarray, (live, average, float(inputs["seconds_to_expiry_at_update"]))))
    assert float(split.fixed) == pytest.approx(case["expected"]["forward_fixed"], rel=1e-12)
    assert float(split.variable) == pytest.approx(case["expected"]["forward_variable"], rel=1e-12)
