"""The correlated model and the contract formulas both oracle models share, against hand arithmetic and differences."""

import math
from typing import Any

import pytest

from tests.oracle.black import Option, black_sensitivities, black_value
from tests.oracle.book import Row
from tests.oracle.cases import AS_OF_SECONDS, YEAR, after, option, perpetual, positions
from tests.oracle.contract import Contract, entry_pnl, model_value, money_greeks, scenario_pnl
from tests.oracle.correlated import margin_book
from tests.oracle.params import CORRELATED_EXAMPLE

EXPIRY = after(YEAR / 4)
PRICES = {"BTC": 60000.0, "ETH": 2000.0, "SOL": 100.0, "USDC": 0.99}


def margined(
    tables: dict[str, list[Row]], params: dict[str, Any] = CORRELATED_EXAMPLE
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The only account of a book, and its units."""
    result = margin_book(tables, params, as_of_seconds=AS_OF_SECONDS)
    return result["accounts"][0], result["units"]


def only(rule: str, move: float) -> dict[str, Any]:
    """The example model with a single scenario."""
    return CORRELATED_EXAMPLE | {"scenarios": [{"move": move, "vol": rule, "weight": 1.0}]}


def book(instruments: list[Row], quantities: dict[str, float], marks: dict[str, Row]) -> dict[str, list[Row]]:
    """One account, four assets, and an ETH forward of 2000 in either quote currency."""
    return {
        "instruments": instruments,
        "marks": [{"instrument_id": name, **mark} for name, mark in marks.items()],
        "forwards": [
            {"underlying": "ETH", "quote": quote, "expiry": EXPIRY, "forward": 2000.0} for quote in ("USD", "USDC")
        ],
        "prices": [{"asset": asset, "price": price} for asset, price in PRICES.items()],
        "positions": positions("a", quantities),
        "balances": [],
    }


def perp_book(quantities: dict[str, float]) -> dict[str, list[Row]]:
    """Perpetuals named by their underlying, settled in USD and marked at spot."""
    perps = [perpetual(name, underlying=name, settlement="USD") for name in quantities]
    return book(perps, quantities, {name: {"mark_price": PRICES[name]} for name in quantities})


def test_correlated_margin_is_root_of_quadratic_form_plus_unlisted_units() -> None:
    account, units = margined(perp_book({"BTC": 1.0, "ETH": -10.0, "SOL": 50.0}))
    btc, eth, sol = 0.35 * 3 * 0.15 * 60000.0, 0.35 * 3 * 0.2 * 20000.0, 0.35 * 3 * 0.2 * 5000.0
    assert [unit["scan"] for unit in units] == pytest.approx([btc, eth, sol])
    assert [unit["worst_scenario"] for unit in units] == ["-3/none", "+3/none", "-3/none"]
    joined = math.sqrt(btc**2 + eth**2 + 2 * 0.7 * btc * eth) + sol
    assert account["maintenance_margin"] == pytest.approx(joined)
    assert account["initial_margin"] == pytest.approx(1.3 * joined)
    assert account["worst_loss"] == pytest.approx(btc + eth + sol)


def test_correlated_collateral_is_weighed_per_margin_type_and_debts_weigh_more() -> None:
    tables = perp_book({})
    amounts = {"USD": 100.0, "BTC": 0.5, "ETH": -1.0, "SOL": 2.0}
    tables["balances"] = [{"account_id": "a", "asset": asset, "amount": x} for asset, x in amounts.items()]
    tables["balances"].append({"account_id": "a", "asset": "ETH", "amount": 1.0, "is_collateral": False})
    account, units = margined(tables)
    assert account["initial_collateral_value"] == pytest.approx(100.0 + 0.9 * 30000.0 - 1.1 * 2000.0 + 0.5 * 200.0)
    assert account["maintenance_collateral_value"] == pytest.approx(
        100.0 + 0.95 * 30000.0 - 1.05 * 2000.0 + 0.6 * 200.0
    )
    assert account["equity"] == pytest.approx(100.0 + 30000.0 + 200.0)
    assert units == []


def test_correlated_scan_starts_from_the_model_price_and_converts_at_the_settlement_price() -> None:
    tables = book([option("c", 2000.0, "call", EXPIRY)], {"c": 2.0}, {"c": {"mark_price": 90.0, "mark_iv": 0.5}})
    account, units = margined(tables, only("none", -1.0))
    terms = Option(strike=2000.0, is_call=True, years=0.25)
    fall = black_value(terms, forward=2000.0, vol=0.5) - black_value(terms, forward=1600.0, vol=0.5)
    assert account["option_value"] == pytest.approx(2.0 * 90.0 * 0.99)
    assert units[0]["scan"] == pytest.approx(2.0 * 0.99 * fall)


def test_correlated_scan_is_zero_when_every_scenario_gains() -> None:
    account, units = margined(perp_book({"ETH": 1.0}), only("up", 1.0))
    assert (units[0]["scan"], units[0]["worst_scenario"], account["health"]) == (0.0, "+1/up", None)


def test_correlated_naked_options_let_a_long_put_cover_a_short_call_of_its_strike() -> None:
    terms = {"contract_size": 0.1}
    legs = [
        option("c", 2000.0, "call", EXPIRY, **terms),
        option("p", 2000.0, "put", EXPIRY, **terms),
        option("d", 2500.0, "call", EXPIRY, **terms),
    ]
    marks: dict[str, Row] = {name: {"mark_iv": 0.5} for name in ("c", "p", "d")}
    _, units = margined(book(legs, {"c": -50.0, "p": 20.0, "d": 100.0}, marks))
    assert units[0]["naked_options"] == pytest.approx(0.01 * 2000.0 * 3.0)
    assert units[0]["maintenance_margin"] == units[0]["scan"] + units[0]["naked_options"]


def test_inverse_perpetual_pays_in_coin_from_entry() -> None:
    tables = book([perpetual(settlement="ETH", inverse=True, contract_size=10.0)], {"ETH-PERP": 300.0}, {})
    tables["marks"] = [{"instrument_id": "ETH-PERP", "mark_price": 2500.0}]
    tables["positions"][0] |= {"entry_price": 2000.0, "unsettled": 0.25}
    account, units = margined(tables)
    assert account["unrealised_pnl"] == pytest.approx((3000.0 * (1 / 2000.0 - 1 / 2500.0) + 0.25) * 2000.0)
    assert units[0]["scan"] == pytest.approx(3000.0 / 2500.0 * 2000.0 * 0.35 * 0.6)
    assert account["delta"] == pytest.approx(3000.0 / 2500.0 * 2000.0)


def test_linear_future_pnl_is_size_times_mark_less_entry() -> None:
    future = Contract("f", "future", "ETH", inverse=False, size=0.1, ratio=0.99, mark=2100.0)
    assert entry_pnl(future, entry=2000.0) == pytest.approx(0.1 * 100.0 * 0.99)
    assert entry_pnl(future, entry=None) == 0.0
    assert scenario_pnl(future, move=0.9, vol_factor=2.0) == pytest.approx(-0.1 * 210.0 * 0.99)


def test_settled_future_keeps_its_settlement_pnl_and_no_risk() -> None:
    future = perpetual("f", kind="future", expiry=after(-60.0), settlement="USD")
    tables = book([future], {"f": 2.0}, {"f": {"mark_price": 2100.0, "settlement_price": 2050.0}})
    tables["positions"][0]["entry_price"] = 2000.0
    account, units = margined(tables)
    assert (account["unrealised_pnl"], units[0]["scan"], account["delta"]) == (100.0, 0.0, 0.0)


def test_expired_option_is_worth_its_payoff_at_the_settlement_price_and_does_not_move() -> None:
    put = option("p", 2000.0, "put", after(0.0), settlement="USD")
    account, units = margined(book([put], {"p": -3.0}, {"p": {"settlement_price": 1900.0}}))
    assert account["option_value"] == pytest.approx(-300.0)
    assert units[0]["scan"] == 0.0
    assert account["status"] == "bankrupt"


def read(name: str, strike: float, **terms: Any) -> Contract:
    """An ETH option of a quarter year, 40 of its forward of 2000 already fixed, in a unit of account at 0.99."""
    common: dict[str, Any] = {
        "kind": "option",
        "underlying": "ETH",
        "inverse": False,
        "size": 0.1,
        "ratio": 0.99,
        "mark": None,
    }
    seconds = YEAR / 4
    market = {"vol": 0.6, "fixed": 40.0, "variable": 1960.0, "seconds": seconds, "strike": strike, "is_call": True}
    return Contract(name, **(common | market | terms))


@pytest.mark.parametrize(
    "contract",
    [
        pytest.param(read("c", 2100.0), id="linear call"),
        pytest.param(read("p", 1800.0, is_call=False), id="linear put"),
        pytest.param(read("c", 2100.0, ratio=2000.0, inverse=True), id="inverse call"),
        pytest.param(read("p", 1800.0, ratio=2000.0, inverse=True, is_call=False), id="inverse put"),
    ],
)
def test_money_greeks_match_differences_of_the_contract_value(contract: Contract) -> None:
    forward = contract.fixed + contract.variable
    scale = contract.size * contract.ratio / (forward if contract.inverse else 1.0)

    def value(move: float = 1.0, vol: float = 0.6, years: float = 0.25) -> float:
        terms = Option(strike=contract.strike, is_call=contract.is_call, years=years)
        return scale * black_value(terms, forward=contract.fixed + contract.variable * move, vol=vol)

    h = 1e-4
    greeks = money_greeks(contract)
    assert value() == pytest.approx(model_value(contract), rel=1e-13)
    assert greeks.delta == pytest.approx((value(1 + h) - value(1 - h)) / (2 * h), rel=1e-6)
    assert greeks.gamma == pytest.approx((value(1 + h) - 2 * value() + value(1 - h)) / h**2 / 1e4, rel=1e-4)
    assert greeks.vega == pytest.approx((value(vol=0.6 + h) - value(vol=0.6 - h)) / (2 * h) / 100, rel=1e-6)
    passing = (value(years=0.25 - h) - value(years=0.25 + h)) / (2 * h)
    assert greeks.theta == pytest.approx(passing / 365, rel=1e-6)


def test_inverse_option_scenario_is_coin_value_times_shocked_coin_price() -> None:
    contract = read("c", 2100.0, ratio=2000.0, inverse=True, fixed=0.0, variable=2000.0)
    terms = contract.option
    shocked = black_value(terms, forward=2400.0, vol=0.9) / 2400.0 * 2400.0
    start = black_value(terms, forward=2000.0, vol=0.6) / 2000.0 * 2000.0
    assert scenario_pnl(contract, move=1.2, vol_factor=1.5) == pytest.approx(0.1 * (shocked - start), rel=1e-13)


@pytest.mark.parametrize("forward", [1500.0, 2500.0])
@pytest.mark.parametrize(("years", "vol"), [(0.0, 0.5), (0.5, 0.0)], ids=["no time", "no vol"])
def test_black_limits_are_intrinsic_with_no_gamma_vega_or_theta(forward: float, years: float, vol: float) -> None:
    for is_call, sign in ((True, 1.0), (False, -1.0)):
        terms = Option(strike=2000.0, is_call=is_call, years=years)
        assert black_value(terms, forward=forward, vol=vol) == pytest.approx(max(sign * (forward - 2000.0), 0.0))
        found = black_sensitivities(terms, forward=forward, vol=vol)
        assert found.delta == (sign if sign * (forward - 2000.0) > 0.0 else 0.0)
        assert (found.gamma, found.vega, found.theta) == (0.0, 0.0, 0.0)


def test_account_ids_and_pools_come_sorted() -> None:
    tables = perp_book({"ETH": 1.0})
    tables["balances"] = [
        {"account_id": "b", "asset": "USD", "amount": 1.0},
        {"account_id": "a", "pool": "aside", "asset": "USD", "amount": 1.0},
    ]
    rows = margin_book(tables, CORRELATED_EXAMPLE, as_of_seconds=AS_OF_SECONDS)["accounts"]
    assert [(row["account_id"], row["pool"]) for row in rows] == [("a", "aside"), ("a", "cross"), ("b", "cross")]
