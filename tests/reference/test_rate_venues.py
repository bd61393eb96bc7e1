"""Figures of venues whose margin is rates on positions and weights of balances, reproduced by the shipped models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.reference import rate_books as rates
from tests.reference import weight_books as weights
from tests.reference.folders import NOT_YET_FORMS, read_cases
from tests.reference.rate_books import LARGEST_INTEGER, Inputs

pytestmark = pytest.mark.reference

Form = Callable[[Inputs], dict[str, Any]]


# File -> form -> the keys that tell it from the others (or `kind`), and what answers it.
FORMS: dict[str, dict[str, tuple[set[str], Form]]] = {
    "deribit_sm_linear": {"future": ({"rate_per_coin"}, rates.deribit_future)},
    "dydx_margin": {
        "requirement": ({"position_quantums"}, rates.dydx_requirement),
        "initial": ({"notional"}, rates.dydx_initial),
        "subaccount": ({"positions"}, rates.dydx_subaccount),
        "risk_order": ({"first", "second"}, rates.dydx_risk),
        "liquidatable": ({"nc", "mmr"}, rates.dydx_liquidatable),
    },
    "drift_margin": {
        "asset": ({"base_weight", "size"}, weights.drift_asset),
        "liability": ({"base_weight", "size"}, weights.drift_liability),
        "scaled_initial_asset_weight": ({"scale_start_value"}, weights.drift_scaled_weight),
        "unrealised_pnl_weight": ({"pnl_usd"}, weights.drift_pnl_weight),
        "perp": ({"margin_ratio_initial"}, weights.drift_perp),
        "spot_with_orders": ({"sol_bids"}, weights.drift_spot_orders),
        "user_custom_margin_ratio": ({"ratio"}, weights.drift_custom_ratio),
        "strict_price": ({"usdc_twap"}, weights.drift_strict),
    },
    "mango_health": {"tokens_and_perpetual": ({"tokens", "perp"}, weights.mango_health)},
    "synthetix_margin": {"account": ({"markets"}, rates.synthetix_account)},
    "paradex_margin": {
        "orders": ({"open_buys", "open_sells"}, rates.paradex_orders),
        "minimum_delta": ({"net_rate", "hedged_rate"}, rates.paradex_minimum_delta),
    },
    "vega_margin": {
        "maintenance": ({"linear_slippage"}, rates.vega_maintenance),
        "perp_addition": ({"futures_maintenance"}, rates.vega_perp_addition),
        "isolated": ({"average_entry", "margin_factor"}, rates.vega_isolated),
        "isolated_order": ({"price", "margin_factor"}, rates.vega_isolated_order),
        "capped_future_full_collateral": ({"max_price"}, rates.vega_capped),
        "riskiest": ({"open", "buys", "sells"}, rates.vega_riskiest),
    },
}
FAST = ("dydx_margin",)
HANDLED = {f"exchange_vectors/{name}.json" for name in FORMS}


def cases() -> list[Any]:
    """Every case of the files with its file's name and tolerance; one that skips where there are none."""
    found = [
        pytest.param(name, _with_config(case, content), content["tolerance"], id=f"{name}-{case['id']}")
        for name in FORMS
        if (content := read_cases(f"exchange_vectors/{name}.json")) is not None
        for case in content["cases"]
    ]
    reason = "no reference cases on this machine; set GPUMARGIN_REFERENCE"
    return _sampled(found) or [pytest.param("", {}, {}, marks=pytest.mark.skip(reason=reason), id="absent")]


def _sampled(found: list[Any]) -> list[Any]:
    """The cases, all marked slow but the first of every form of a few files: each form compiles."""
    seen: set[tuple[str, ...]] = set()
    cases = []
    for case in found:
        form = (case.values[0], *sorted(case.values[1]["inputs"]))
        is_fast = case.values[0] in FAST and form not in seen
        cases.append(case if is_fast else pytest.param(*case.values, id=case.id, marks=pytest.mark.slow))
        seen.add(form)
    return cases


def _with_config(case: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """A case with what its file says for all of them."""
    shared = {"config": content["config"]} if "config" in content else {}
    return case | {"inputs": shared | case["inputs"]}


def form_of(name: str, given: Inputs) -> str:
    """Name of a case's form: its `kind`, or the first form or form not handled yet whose keys it has."""
    if "kind" in given:
        return str(given["kind"])
    keys = {form: wanted for form, (wanted, _) in FORMS[name].items()}
    keys |= {form: wanted for form, (wanted, _) in NOT_YET_FORMS.get(f"exchange_vectors/{name}.json", {}).items()}
    return next((form for form, wanted in keys.items() if wanted <= set(given)), f"keys {sorted(given)}")


def assert_figure(name: str, found: Any, expected: Any, tolerance: dict[str, float]) -> None:
    """Equal as the file says; integers beyond 2**53 to a double's own spacing, which no double can beat."""
    if isinstance(expected, (bool, str)):
        assert found == expected, name
    elif isinstance(expected, list):
        assert len(found) == len(expected), name
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_figure(f"{name}[{i}]", one, other, tolerance)
    elif abs(expected) > LARGEST_INTEGER:
        assert found == pytest.approx(expected, rel=1e-14), name
    else:
        room = tolerance.get("weights_abs", 0) if name == "weight" else tolerance.get("abs", 0)
        assert found == pytest.approx(expected, rel=tolerance.get("rel", 0), abs=room), name


@pytest.mark.parametrize(("name", "case", "tolerance"), cases())
def test_venues_figures_are_reproduced(name: str, case: dict[str, Any], tolerance: dict[str, float]) -> None:
    form = form_of(name, case["inputs"])
    waiting = NOT_YET_FORMS.get(f"exchange_vectors/{name}.json", {})
    if form in waiting:
        pytest.skip(waiting[form][1])
    assert form in FORMS[name], f"nothing handles {form!r} of {name}"
    found = FORMS[name][form][1](case["inputs"])
    for figure, expected in case["expected"].items():
        assert figure in found, f"no field answers {figure!r}"
        assert_figure(figure, found[figure], expected, tolerance)
