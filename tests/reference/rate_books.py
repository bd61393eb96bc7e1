"""Cases of venues whose margin is rates on positions, as books and model values. No formula here."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.formulas import formula_value
from gpumargin_kernels import risk_order
from tests.reference.venue_books import Held, Result, book_of, result_of

Inputs = dict[str, Any]
LARGEST_INTEGER = 2**53  # beyond, a double no longer holds every integer: compared to the double's own spacing


def scaled(number: float, exponent: int) -> float:
    """number * 10 ** exponent, rounded once."""
    return float(f"{number!r}e{exponent}")


def deribit_future(given: Inputs) -> dict[str, Any]:
    kind = {"im": "initial", "mm": "maintenance"}[given["margin"]]
    numbers = {f"parameters.{kind}_base": given["rate_base"], f"parameters.{kind}_slope": given["rate_per_coin"]}
    model = load_model("deribit-sm").replace(numbers)
    book = book_of([Held(quantity=given["size_coin"], mark=given["index"])])
    in_coin = result_of(book, model.replace({"accounting_asset": "X"})).account
    return {
        "rate": formula_value(model, f"components.futures_{kind}.each.rate", {"quantity": given["size_coin"]}),
        "margin_coin": in_coin[f"{kind}_margin"],
        "margin_usdc": result_of(book, model).account[f"{kind}_margin"],
    }


def _dydx_model(given: Inputs, unit: str = "default") -> dict[str, float]:
    """Numbers of the model that a case gives."""
    numbers = {"imf_ppm": "imf", "maintenance_fraction_ppm": "maintenance_fraction"}
    numbers |= {"oi_lower_cap": "oi_lower", "oi_upper_cap": "oi_upper"}
    return {f"parameters.{ours}.{unit}": scaled(given.get(name, 0), -6) for name, ours in numbers.items()}


def _quantums(money: float) -> int:
    """Money as whole quantums; what is no whole number of them is no figure of the chain."""
    exact = money * 1e6
    assert exact == pytest.approx(round(exact), rel=1e-15, abs=1e-6)
    return round(exact)


def _dydx_figures(result: Result) -> dict[str, Any]:
    names = {"initial_margin": "initial_margin", "maintenance_margin": "maintenance_margin", "net_collateral": "equity"}
    return {theirs: _quantums(result.account[ours]) for theirs, ours in names.items()}


def dydx_requirement(given: Inputs) -> dict[str, Any]:
    model = load_model("dydx-v4").replace(_dydx_model(given))
    price, size = scaled(given["price"], given["price_exponent"]), scaled(1, given["atomic_resolution"])
    if max(given["price"], given["position_quantums"]) > LARGEST_INTEGER:
        return _dydx_beyond(model, given, price, size)
    held = Held(
        quantity=given["position_quantums"],
        mark=price,
        terms={"contract_size": size},
        market={"open_interest": given["open_interest_quantums"]},
    )
    return _dydx_figures(result_of(book_of([held]), model))


def _dydx_beyond(model: MarginModel, given: Inputs, price: float, size: float) -> dict[str, Any]:
    """More money than a run can publish in whole minor units: the model's expressions alone."""
    values = {"quantity": given["position_quantums"] * size, "size": size, "price": price}
    values |= {"open_interest": given["open_interest_quantums"], "own_imf": 0}
    return {
        f"{kind}_margin": _quantums(formula_value(model, f"components.{kind}_rates.each.required", values))
        for kind in ("initial", "maintenance")
    }


def dydx_initial(given: Inputs) -> dict[str, Any]:
    """A notional is a position of that many quantums at a price of 1."""
    position = {"price": 1, "price_exponent": 0, "atomic_resolution": -6, "position_quantums": given["notional"]}
    return dydx_requirement(given | position | {"open_interest_quantums": given["open_interest_notional"]})


def dydx_subaccount(given: Inputs) -> dict[str, Any]:
    """The quote balance is what was paid for the positions too: their entry is 0."""
    places = [(f"U{i}", position) for i, position in enumerate(given["positions"])]
    held = [
        Held(unit=u, quantity=p["base"], mark=p["price"], entry=0.0, market={"open_interest": 0.0}) for u, p in places
    ]
    numbers: dict[str, float] = {}
    for unit, position in places:
        numbers |= _dydx_model(position, unit)
    book = book_of(held, balances={"USDC": scaled(given["quote"], -6)})
    return _dydx_figures(result_of(book, load_model("dydx-v4").replace(numbers)))


def dydx_risk(given: Inputs) -> dict[str, Any]:
    pairs = [jnp.asarray(float(given[side][name])) for side in ("first", "second") for name in ("nc", "mmr")]
    return {"riskier": int(risk_order(*pairs))}


def dydx_liquidatable(given: Inputs) -> dict[str, Any]:
    values = {"maintenance_balance": given["nc"], "maintenance_margin": given["mmr"]}
    return {"liquidatable": formula_value(load_model("dydx-v4"), "status.liquidatable", values) > 0}


def synthetix_account(given: Inputs) -> dict[str, Any]:
    ours = {
        "skew_scale": "skew_scale",
        "im_ratio": "im_fraction",
        "min_im_ratio": "min_im",
        "mm_scalar": "mm_scalar",
        "min_position_margin": "min_position_margin",
        "liquidation_reward_ratio": "reward_ratio",
    }
    markets = {f"U{i}": market for i, market in enumerate(given["markets"])}
    numbers = {f"parameters.{ours[n]}.{u}": m[n] for u, m in markets.items() for n in ours}
    model = load_model("synthetix-v3").replace(numbers)
    result = result_of(
        book_of([Held(unit=u, quantity=m["size"], mark=m["price"]) for u, m in markets.items()], money="USD"), model
    )
    path = "components.position_initial.each.im_rate"
    return {
        "im_rates": [formula_value(model, path, {"quantity": m["size"]}, subject=u) for u, m in markets.items()],
        "position_im": [result.units[unit]["position_initial"] for unit in markets],
        "initial_margin": result.account["initial_margin"],
        "maintenance_margin": result.account["maintenance_margin"],
        "liquidation_rewards": result.total("liquidation_reward"),
    }


def paradex_orders(given: Inputs) -> dict[str, Any]:
    model = load_model("paradex-cross").replace({"parameters.imf": given["imf"]})
    orders = [("buy", given["open_buys"], given["mark"]), ("sell", given["open_sells"], given["mark"])]
    result = result_of(book_of([Held(quantity=given["position"], mark=given["mark"], orders=orders)]), model)
    return {"imr_order_part": result.total("order_part")}


def paradex_minimum_delta(given: Inputs) -> dict[str, Any]:
    """Only the charge on delta is asked for; options need a strike and a vol to be priced at all."""
    rates = {f"components.min_delta.numbers.{name}": given[name] for name in ("net_rate", "hedged_rate")}
    held = [_with_delta(f"X-{i}", leg, given["spot"]) for i, leg in enumerate(given["positions"])]
    result = result_of(book_of(held), load_model("paradex-pm").replace(rates))
    names = {"min_delta_charge": "min_delta"} | {name: name for name in ("net_delta", "gross_delta", "hedged_delta")}
    return {theirs: result.total(ours) for theirs, ours in names.items()}


def _with_delta(name: str, leg: Inputs, spot: float) -> Held:
    market = {"delta": leg["delta"], "mark_iv": 0.5}
    if leg["type"] == "perp":
        market = {"delta": leg["delta"], "funding_rate": 0.0}
        return Held(name=name, quantity=leg["size"], mark=spot, market=market)
    terms = {"strike": spot, "option_type": leg["type"]}
    return Held(name=name, kind="option", quantity=leg["size"], spot=spot, terms=terms, market=market)


def _vega(numbers: dict[str, float]) -> MarginModel:
    return load_model("vega").replace({f"parameters.{name}": value for name, value in numbers.items()})


def vega_maintenance(given: Inputs) -> dict[str, Any]:
    factors = dict.fromkeys(("risk_factor_long", "risk_factor_short"), given["risk_factor"])
    orders = [(side, given.get(f"{side}s", 0), given["mark"]) for side in ("buy", "sell")]
    held = Held(kind="future", quantity=given["open"], mark=given["mark"], orders=orders)
    result = result_of(book_of([held], money="USD"), _vega(factors | {"linear_slippage": given["linear_slippage"]}))
    return {"maintenance": result.account["maintenance_margin"]}


def vega_perp_addition(given: Inputs) -> dict[str, Any]:
    """The futures' part is given, so that only the addition is the model's."""
    model = _vega({"funding_factor": given["funding_factor"]})
    values = {"payment": given["funding_payment_per_unit"], "quantity": given["open"]}
    funding = formula_value(model, "components.funding.each.owed", values)
    parts = {"risk": given["futures_maintenance"], "funding": funding, "capped_position": 0, "capped_orders": 0}
    return {"maintenance": formula_value(model, "margin.maintenance", parts)}


def vega_isolated(given: Inputs) -> dict[str, Any]:
    size = given["size"] * {"long": 1, "short": -1}[given["side"]]
    held = Held(kind="future", quantity=size, mark=given["average_entry"], entry=given["average_entry"])
    result = _isolated(held, given["margin_factor"])
    return {"position_margin": result.account["initial_margin"]}


def vega_isolated_order(given: Inputs) -> dict[str, Any]:
    order = (given.get("side", "buy"), given["size"], given["price"])
    result = _isolated(Held(kind="future", mark=given["price"], orders=[order]), given["margin_factor"])
    return {"order_margin": result.account["initial_margin"]}


def _isolated(held: Held, factor: float) -> Result:
    return result_of(book_of([held], money="USD", settings=[("X", "margin_factor", factor)]), load_model("vega"))


def vega_capped(given: Inputs) -> dict[str, Any]:
    held = Held(
        kind="future",
        quantity=given["position"],
        mark=given["average_entry"],
        entry=given["average_entry"],
        terms={"price_cap": given["max_price"]},
        orders=[(order["side"], order["size"], order["price"]) for order in given["orders"]],
    )
    result = result_of(book_of([held], money="USD"), load_model("vega"))
    whole = result.account["maintenance_margin"]
    parts = {"position_margin": result.total("capped_position"), "order_margin": result.total("capped_orders")}
    return {"margin": whole, "total": whole} | parts


def vega_riskiest(given: Inputs) -> dict[str, Any]:
    values = {"quantity": given["open"], "buys": given["buys"], "sells": given["sells"]}
    model = load_model("vega")
    return {side: formula_value(model, f"components.risk.each.riskiest_{side}", values) for side in ("long", "short")}
