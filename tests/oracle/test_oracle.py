"""The oracle reproduces the Derive reference cases, and hand-made ones where no reference case separates readings."""

import copy
import math
from typing import Any

import pytest

from tests.oracle.black import (
    SECONDS_PER_YEAR,
    Option,
    Svi,
    black_sensitivities,
    black_value,
    forward_split,
    normal_cdf,
    svi_vol,
)
from tests.oracle.book import Row
from tests.oracle.cases import (
    AS_OF_SECONDS,
    YEAR,
    after,
    case_tables,
    marks_of_vols,
    option,
    perpetual,
    positions,
    reference_cases,
)
from tests.oracle.params import PM1_CHAIN_2025_02, PM1_SCRIPT
from tests.oracle.pm1 import margin_book

BOOK_CASES = ("pmrm1_scenario_cases.json", "pmrm1_portfolio_cases.json", "pmrm1_chain_cases.json")
DOLLARS = 1e-9
EXPIRY = after(YEAR / 4)


def margined(tables: dict[str, list[Row]], params: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The only account of a book, and its units."""
    result = margin_book(tables, params, as_of_seconds=AS_OF_SECONDS)
    return result["accounts"][0], result["units"]


def expected_by_column(case: dict[str, Any]) -> dict[str, float]:
    """What a case states, in the words and signs of our tables."""
    expected = case["expected"]
    columns = {
        "initial_margin": ("initial_excess", 1.0),
        "maintenance_margin": ("maintenance_excess", 1.0),
        "portfolio_mtm": ("equity", 1.0),
        "forward_contingency": ("basis", -1.0),
        "perp_contingency": ("perp", -1.0),
        "base_contingency": ("base", -1.0),
        "option_contingency": ("naked_options", -1.0),
        "oracle_contingency": ("oracle", -1.0),
        "static_contingency": ("static", 1.0),
        "effective_im_factor": ("factor", 1.0),
    }
    return {column: sign * expected[name] for name, (column, sign) in columns.items() if name in expected}


def scenario_id(params: dict[str, Any], index: int) -> str:
    """Name of a scenario by its index; one past the last is the basis contingency."""
    if index == len(params["scenarios"]):
        return "basis"
    scenario = params["scenarios"][index]
    return f"{scenario['spot']:g}/{scenario['vol']}"


@pytest.mark.parametrize("case", reference_cases(*BOOK_CASES))
def test_pm1_margin_equals_reference_case(case: dict[str, Any]) -> None:
    account, units = margined(case_tables(case), case["params"])
    unit = units[0]
    static = unit["perp"] + unit["base"] + unit["naked_options"]
    found = account | unit | {"static": static, "factor": case["params"]["im_factor"] + unit["peg"]}
    expected = expected_by_column(case)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-13, abs=DOLLARS)
    if "worst_scenario_index" in case["expected"]:
        assert account["worst_scenario"] == scenario_id(case["params"], case["expected"]["worst_scenario_index"])
    for kind in ("initial", "maintenance"):
        whole = case["expected"].get(f"{kind}_margin_truncated")
        assert whole in (None, math.trunc(round(account[f"{kind}_excess"], 8)))


@pytest.mark.parametrize("case", reference_cases("pmrm1_unit_cases.json"))
def test_pm1_static_contingency_equals_reference_case(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    legs = {f"o{i}": leg for i, leg in enumerate(inputs["shorts"])}
    tables = option_book(
        [option(name, leg["strike"], leg["kind"], EXPIRY) for name, leg in legs.items()],
        {name: leg["amount"] for name, leg in legs.items()},
        spot=inputs["spot"],
    )
    params = copy.deepcopy(PM1_SCRIPT)
    params["contingency"]["option"] = inputs["option_percent"]
    _, units = margined(tables, params)
    assert units[0]["naked_options"] == pytest.approx(case["expected"]["static_contingency"], abs=DOLLARS)


@pytest.mark.parametrize("case", reference_cases("black76_cases.json"))
def test_black_value_equals_reference_case(case: dict[str, Any]) -> None:
    terms = {"strike": case["strike"], "years": case["seconds_to_expiry"] / SECONDS_PER_YEAR}
    call = Option(is_call=True, discount=case["discount"], **terms)
    put = Option(is_call=False, discount=case["discount"], **terms)
    at = {"forward": case["forward"], "vol": case["vol"]}
    assert black_value(call, **at) == pytest.approx(case["call"], rel=1e-15, abs=1e-12)
    assert black_value(put, **at) == pytest.approx(case["put"], rel=1e-15, abs=1e-12)
    assert black_sensitivities(call, **at).delta == pytest.approx(case["call_delta"], rel=0, abs=1e-12)


@pytest.mark.parametrize("case", reference_cases("svi_cases.json"))
def test_svi_vol_equals_reference_case(case: dict[str, Any]) -> None:
    terms = dict(case["params"])
    svi = Svi(years=terms.pop("tau_years"), **terms)
    assert svi_vol(svi, strike=case["strike"]) == pytest.approx(case["vol"], rel=0, abs=case["tolerance"])


def test_svi_vol_is_zero_at_strike_zero() -> None:
    assert svi_vol(Svi(a=0.01, b=0.01, rho=0.0, m=0.0, sigma=0.05, forward=2000.0, years=0.1), strike=0.0) == 0.0


@pytest.mark.parametrize("case", reference_cases("forward_feed_cases.json"))
def test_forward_split_equals_reference_case(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    found = forward_split(
        spot=inputs["spot"],
        diff=inputs["forward_minus_spot"],
        seconds=inputs["seconds_to_expiry_at_update"],
        window_average=inputs.get("average_spot_since_window_start", 0.0),
    )
    assert found == (case["expected"]["forward_fixed"], case["expected"]["forward_variable"])


def option_book(
    instruments: list[Row], quantities: dict[str, float], *, spot: float = 2000.0, rate: float = 0.0
) -> dict[str, list[Row]]:
    """One account with options of one expiry, forward = spot, vol 0.5, and no cash."""
    return {
        "instruments": instruments,
        "marks": marks_of_vols(dict.fromkeys(quantities, 0.5)),
        "forwards": [{"underlying": "ETH", "expiry": EXPIRY, "forward": spot, "rate": rate}],
        "prices": [{"asset": "ETH", "price": spot}, {"asset": "USDC", "price": 1.0}],
        "positions": positions("a", quantities),
        "balances": [],
    }


def one_scenario(move: float, rule: str) -> dict[str, Any]:
    """PM1 with one scenario and no basis contingency, so that a loss can be written down by hand."""
    return PM1_SCRIPT | {
        "scenarios": [{"spot": move, "vol": rule}],
        "forward_contingency": {"spot_up": 1.0, "spot_down": 1.0, "add": 0.0, "mult": 0.0},
    }


@pytest.mark.parametrize("rate", [0.0, -0.3], ids=["zero rate", "negative rate"])
def test_pm1_discount_clamps_negative_rate_to_zero(rate: float) -> None:
    tables = option_book([option("c", 2000.0, "call", EXPIRY)], {"c": 3.0}, rate=rate)
    _, units = margined(tables, one_scenario(1.0, "none"))
    value = 3.0 * 2000.0 * (2.0 * normal_cdf(0.125) - 1.0)
    assert units[0]["option_value"] == pytest.approx(value, rel=1e-13)
    assert units[0]["loss"] == pytest.approx(value * (1.0 - 0.95 * math.exp(-0.25 * 0.12)), rel=1e-12)


@pytest.mark.parametrize(("perp_quantity", "charge"), [(0.0, 0.0), (-1.0, 0.6 * 3.0 * 2000.0)])
def test_pm1_base_confidence_includes_perp_confidence_only_while_a_perp_is_held(
    perp_quantity: float, charge: float
) -> None:
    tables = option_book([perpetual()], {"ETH-PERP": perp_quantity})
    tables["marks"] = [{"instrument_id": "ETH-PERP", "mark_price": 2010.0, "confidence": 0.4}]
    tables["balances"] = [{"account_id": "a", "asset": "ETH", "amount": 2.0}]
    account, units = margined(tables, PM1_SCRIPT)
    assert units[0]["oracle"] == pytest.approx(charge)
    assert account["initial_margin"] == pytest.approx(1.25 * account["maintenance_margin"] + charge)


def test_pm1_zero_strike_call_is_worth_its_forward_and_loses_with_it() -> None:
    tables = option_book([option("c", 0.0, "call", EXPIRY), option("p", 0.0, "put", EXPIRY)], {"c": -2.0, "p": 5.0})
    account, units = margined(tables, one_scenario(1.2, "up"))
    assert account["option_value"] == -4000.0
    assert units[0]["loss"] == pytest.approx(2.0 * 2000.0 * 0.2)
    assert units[0]["naked_options"] == 0.0
    assert (units[0]["delta"], units[0]["gamma"], units[0]["vega"], units[0]["theta"]) == (-4000.0, 0.0, 0.0, 0.0)


def test_pm1_short_zero_strike_call_is_naked() -> None:
    _, units = margined(option_book([option("c", 0.0, "call", EXPIRY)], {"c": -2.0}), PM1_SCRIPT)
    assert units[0]["naked_options"] == pytest.approx(0.02 * 2000.0 * 2.0)


@pytest.mark.parametrize(("quantity", "unsettled"), [(1.0, 70.0), (0.0, 0.0)], ids=["held", "flat"])
def test_pm1_unsettled_perp_cash_counts_once_and_only_while_held(quantity: float, unsettled: float) -> None:
    tables = option_book([perpetual()], {"ETH-PERP": quantity})
    tables["marks"] = [{"instrument_id": "ETH-PERP", "mark_price": 2010.0}]
    tables["positions"][0]["unsettled"] = 70.0
    tables["balances"] = [{"account_id": "a", "asset": "USDC", "amount": 500.0}]
    account, _ = margined(tables, PM1_SCRIPT)
    assert account["equity"] == 500.0 + unsettled
    assert account["unrealised_pnl"] == unsettled
    assert account["maintenance_balance"] == account["equity"]
    assert account["num_positions"] == quantity


def test_pm1_discount_follows_the_sign_of_the_shocked_expiry_and_a_mark_off_the_model_moves_no_scenario() -> None:
    tables = option_book([option("c", 2000.0, "call", EXPIRY)], {"c": 1.0})
    tables["marks"][0]["mark_price"] = 150.0
    account, units = margined(tables, one_scenario(1.0, "none"))
    assert account["equity"] == 150.0
    assert units[0]["loss"] == pytest.approx(150.0 * (1.0 - 0.95 * math.exp(-0.03)))


def test_pm1_account_adds_its_units_and_counts_cash_once() -> None:
    tables = option_book([perpetual(), perpetual("BTC-PERP", underlying="BTC")], {"ETH-PERP": 1.0, "BTC-PERP": -1.0})
    tables["marks"] = [
        {"instrument_id": "ETH-PERP", "mark_price": 2000.0},
        {"instrument_id": "BTC-PERP", "mark_price": 60000.0},
    ]
    tables["prices"].append({"asset": "BTC", "price": 60000.0})
    tables["balances"] = [{"account_id": "a", "asset": "USDC", "amount": 15000.0}]
    account, units = margined(tables, PM1_CHAIN_2025_02)
    assert [unit["unit"] for unit in units] == ["BTC", "ETH"]
    assert account["maintenance_margin"] == pytest.approx((0.18 + 0.03) * 62000.0)
    assert account["worst_loss"] == pytest.approx(0.18 * 62000.0)
    assert account["worst_scenario"] is None
    assert account["maintenance_excess"] == pytest.approx(15000.0 - 0.21 * 62000.0)
    assert account["status"] == "margin_call"
    assert [unit["worst_scenario"] for unit in units] == ["1.18/up", "0.82/up"]


def test_pm1_ties_go_to_the_basis_and_then_to_the_earlier_scenario() -> None:
    tables = option_book([perpetual()], {"ETH-PERP": 1.0})
    tables["marks"] = [{"instrument_id": "ETH-PERP", "mark_price": 2000.0}]
    params = PM1_SCRIPT | {"scenarios": [{"spot": 0.8, "vol": rule} for rule in ("none", "up")]}
    assert margined(tables, params)[0]["worst_scenario"] == "0.8/none"
    expired = option_book([option("c", 1500.0, "call", after(-60.0))], {"c": -1.0})
    expired["marks"][0]["settlement_price"] = 1900.0
    account, units = margined(expired, params)
    assert account["option_value"] == pytest.approx(-400.0)
    assert (units[0]["worst_scenario"], units[0]["loss"]) == ("basis", 0.0)


def test_pm1_peg_raises_only_the_initial_factor_and_divides_only_base_balances() -> None:
    tables = option_book([perpetual()], {"ETH-PERP": -1.0})
    tables["marks"] = [{"instrument_id": "ETH-PERP", "mark_price": 2000.0}]
    tables["prices"][1]["price"] = 0.95
    tables["balances"] = [{"account_id": "a", "asset": "ETH", "amount": 1.0}]
    account, units = margined(tables, PM1_SCRIPT)
    base_value = 2000.0 / 0.95
    assert account["equity"] == pytest.approx(base_value)
    assert units[0]["scan"] == pytest.approx((base_value - 2000.0) * 0.2)
    assert units[0]["delta"] == pytest.approx(base_value - 2000.0)
    assert units[0]["peg"] == pytest.approx(0.16)
    assert account["initial_margin"] == pytest.approx(account["maintenance_margin"] * 1.41)


def test_pm1_foreign_asset_gives_equity_but_no_collateral_and_its_debt_counts_in_full() -> None:
    tables = option_book([perpetual()], {})
    tables["prices"].append({"asset": "DRV", "price": 0.5})
    tables["balances"] = [
        {"account_id": "a", "asset": "DRV", "amount": 100.0},
        {"account_id": "b", "asset": "DRV", "amount": -100.0},
    ]
    rows = margin_book(tables, PM1_SCRIPT, as_of_seconds=AS_OF_SECONDS)["accounts"]
    assert [(row["equity"], row["maintenance_collateral_value"]) for row in rows] == [(50.0, 0.0), (-50.0, -50.0)]
    assert [row["status"] for row in rows] == ["healthy", "bankrupt"]
    assert [row["health"] for row in rows] == [None, None]


def test_minor_units_round_equity_down_and_requirements_up() -> None:
    tables = option_book([perpetual()], {"ETH-PERP": 1.0})
    tables["marks"] = [{"instrument_id": "ETH-PERP", "mark_price": 0.07}]
    tables["prices"][0]["price"] = 0.07
    tables["assets"] = [{"asset": "USDC", "decimals": 2}]
    tables["balances"] = [{"account_id": "a", "asset": "USDC", "amount": -1.237}]
    account, _ = margined(tables, PM1_SCRIPT)
    assert account["maintenance_margin"] == pytest.approx(0.07 * 0.23)
    assert (account["equity_minor"], account["maintenance_margin_minor"]) == (-124, 2)


def test_pools_of_one_account_never_net() -> None:
    tables = option_book([perpetual()], {"ETH-PERP": 1.0})
    tables["marks"] = [{"instrument_id": "ETH-PERP", "mark_price": 2000.0}]
    tables["positions"].append({"account_id": "a", "pool": "side", "instrument_id": "ETH-PERP", "quantity": -1.0})
    result = margin_book(tables, PM1_SCRIPT, as_of_seconds=AS_OF_SECONDS)
    assert [row["pool"] for row in result["accounts"]] == ["cross", "side"]
    assert all(row["maintenance_margin"] == pytest.approx(0.23 * 2000.0) for row in result["accounts"])


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param({"premium": "futures_style"}, id="futures-style premium"),
        pytest.param({"price_cap": 3000.0}, id="capped"),
        pytest.param({"inverse": True, "settlement": "ETH"}, id="inverse under PM1"),
    ],
)
def test_contract_without_a_rule_is_refused(terms: Row) -> None:
    tables = option_book([option("c", 2000.0, "call", EXPIRY, **terms)], {"c": 1.0})
    with pytest.raises(NotImplementedError, match="expected"):
        margined(tables, PM1_SCRIPT)
