"""Figures of venues whose margin is rates on positions, reproduced by the shipped models with the cases' values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.formulas import formula_value
from gpumargin_kernels import risk_order
from tests.reference.folders import NOT_YET_FORMS, read_cases
from tests.reference.venue_books import Held, Result, book_of, result_of

pytestmark = pytest.mark.reference

Inputs = dict[str, Any]
Form = Callable[[Inputs], dict[str, Any]]
_LARGEST_INTEGER = 2**53  # beyond, a double no longer holds every integer: compared to the double's own spacing


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
    if max(given["price"], given["position_quantums"]) > _LARGEST_INTEGER:
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


def _drift_share(side: str, given: Inputs, values: dict[str, float]) -> dict[str, Any]:
    number = {"asset": "scaled_weight", "debt": "liability_weight"}[side]
    base = {number: given["base_weight"] * 1e-4, "imf": given["imf_factor"], "margin_ratio": 0}
    found = formula_value(load_model("drift-v2"), f"collateral.initial.bids_{side}", base | values)
    return {"weight": found * 1e4}


def drift_asset(given: Inputs) -> dict[str, Any]:
    return _drift_share("asset", given, {"filled_bids": given["size"]})


def drift_liability(given: Inputs) -> dict[str, Any]:
    return _drift_share("debt", given, {"filled_bids": -given["size"]})


def drift_scaled_weight(given: Inputs) -> dict[str, Any]:
    names = {"scale_start": "scale_start_value", "price": "price", "total_deposits": "total_deposits"}
    values = {ours: given[theirs] for ours, theirs in names.items()} | {"asset_weight": given["base_weight"] * 1e-4}
    return {"weight": formula_value(load_model("drift-v2"), "collateral.initial.scaled_weight", values) * 1e4}


def drift_pnl_weight(given: Inputs) -> dict[str, Any]:
    values = {"pnl_weight": given["base_weight"] * 1e-4, "pnl_imf": given["imf_factor"]}
    values |= {"unrealised_pnl": given["pnl_usd"]}
    return {"weight": formula_value(load_model("drift-v2"), "counted.pnl_share", values) * 1e4}


def drift_perp(given: Inputs) -> dict[str, Any]:
    """What the position paid or got is its cash due: its entry is 0."""
    numbers = {"perp_initial": given["margin_ratio_initial"], "perp_imf": given["imf_factor"]}
    model = _drift(numbers | {"pnl_cap": given["initial_upnl_cap_usd"]})
    held = Held(quantity=given["base"], mark=given["price"], entry=0.0, unsettled=given["quote_entry"])
    row = result_of(_drift_book([held]), model).account
    return {"requirement": row["initial_margin"], "unrealised_pnl_counted": row["initial_balance"]}


def drift_spot_orders(given: Inputs) -> dict[str, Any]:
    weights = {
        f"collateral.initial.numbers.{kind}_weight.{asset.upper()}": given[f"{asset}_{short}_weight"]
        for kind, short in (("asset", "asset"), ("liability", "liab"))
        for asset in ("sol", "usdc")
    }
    charge = {"collateral.initial.numbers.order_charge": given["charge_per_open_order"]}
    price = given["price_sol"]
    orders = [(side, given[key], price) for side, key in (("buy", "sol_bids"), ("sell", "sol_asks")) if given[key]]
    held = Held(unit="SOL", kind="spot", spot=price, orders=orders)
    book = _drift_book([held], balances={"USDC": given["usdc"], "SOL": given["sol"]})
    return _drift_account(book, load_model("drift-v2").replace(weights | charge), "initial")


def drift_custom_ratio(given: Inputs) -> dict[str, Any]:
    kinds = {"asset": given.get("sol_asset_weight", {}), "liability": given.get("sol_liab_weight", {})}
    weights = {
        f"collateral.{margin_type}.numbers.{kind}_weight.SOL": weight
        for kind, by_type in kinds.items()
        for margin_type, weight in by_type.items()
    }
    rates = {f"parameters.perp_{margin_type}": rate for margin_type, rate in given.get("perp_ratio", {}).items()}
    held = Held(unit="SOL", quantity=given.get("sol_perp", 0), mark=given["price"])
    book = _drift_book(
        [held],
        balances={"SOL": given.get("sol_deposit", 0) - given.get("sol_borrow", 0)},
        settings=[(None, "margin_ratio", given["ratio"])],
    )
    model = load_model("drift-v2").replace({"parameters.perp_imf": 0} | weights | rates)
    return _drift_account(book, model, given["margin_type"])


def drift_strict(given: Inputs) -> dict[str, Any]:
    """The stricter of price and average is the rule of initial margin, whatever weights it is tried with."""
    numbers = {"parameters.perp_imf": 0, "parameters.perp_initial": given.get("perp_ratio", 0.1)}
    if "sol_liab_weight_maint" in given:
        numbers["collateral.initial.numbers.liability_weight.SOL"] = given["sol_liab_weight_maint"]
    tokens = [token for token in ("usdc", "sol") if f"{token}_price" in given]
    book = _drift_book(
        [Held(unit="X", quantity=given.get("perp_base", 0), mark=given.get("perp_price", 1.0))],
        balances={t.upper(): given.get(f"{t}_deposit", 0) - given.get(f"{t}_borrow", 0) for t in tokens},
        prices={token.upper(): given[f"{token}_price"] for token in tokens},
        twaps={token.upper(): given[f"{token}_twap"] for token in tokens},
    )
    return _drift_account(book, load_model("drift-v2").replace(numbers), "initial")


def _drift(numbers: dict[str, float]) -> MarginModel:
    return load_model("drift-v2").replace({f"parameters.{name}": value for name, value in numbers.items()})


def _drift_book(held: list[Held], **more: Any) -> dict[str, Any]:
    """A book quoted in USDC; averages are the prices where the case gives none."""
    return book_of(held, assets=[{"asset": "USDC", "total_deposits": 0.0}], **more)


def _drift_account(book: dict[str, Any], model: MarginModel, margin_type: str) -> dict[str, Any]:
    row = result_of(book, model).account
    return {"requirement": row[f"{margin_type}_margin"], "collateral": row[f"{margin_type}_collateral_value"]}


def _quote_index(config: Inputs) -> int:
    """Index of the token that spot markets are quoted in."""
    return int(re.findall(r"index (\d+)", next(iter(config["spot_markets"].values())))[1])


def mango_health(given: Inputs) -> dict[str, Any]:
    """Tokens T0, T1, ...; what a perpetual's position paid or got is its cash due, so that its entry is 0."""
    config, names = given["config"], [f"T{i}" for i in range(len(given["tokens"]))]
    perp = config["perp"]
    lots, quote, bids, asks = given["perp"]
    taker = given.get("perp_taker", [0, 0])
    held = Held(
        unit="P",
        quantity=(lots + taker[0]) * perp["base_lot"],
        mark=perp["price"],
        entry=0.0,
        unsettled=quote + taker[1] * perp["quote_lot"],
        orders=[("buy", bids * perp["base_lot"], perp["price"]), ("sell", asks * perp["base_lot"], perp["price"])],
        terms={"settlement": names[perp["settle_token"]], "quote": names[perp["settle_token"]]},
    )
    free = given.get("spot_free", [0] * len(names))
    banks = given.get("bank_settings", [{}] * len(names))
    prices = {name: token["price"] for name, token in zip(names, config["tokens"], strict=True)}
    book = book_of(
        [held, *_mango_spot(given, names)],
        balances={name: amount + more for name, amount, more in zip(names, given["tokens"], free, strict=True)},
        prices=prices | {"P": perp["price"]},
        assets=[
            {"asset": name, "total_deposits": bank.get("deposits", 0.0), "total_borrows": bank.get("borrows", 0.0)}
            for name, bank in zip(names, banks, strict=True)
        ],
    )
    row = result_of(book, load_model("mango-v4").replace(_mango_numbers(config, names, banks))).account
    return {"init_health": row["initial_excess"], "maint_health": row["maintenance_excess"]}


def _mango_spot(given: Inputs, names: list[str]) -> list[Held]:
    """Spot orders of every market; where a case gives no limit, the oracle's."""
    found = []
    for market, words in given["config"]["spot_markets"].items():
        base, quote = (int(index) for index in re.findall(r"index (\d+)", words))
        reserved_quote, reserved_base = given[f"orders_{market}"]
        oracle = given["config"]["tokens"][base]["price"] / given["config"]["tokens"][quote]["price"]
        bid, ask = given.get(f"highest_bid_{market}", oracle), given.get(f"lowest_ask_{market}", oracle)
        orders = [("buy", reserved_quote / bid, bid), ("sell", reserved_base, ask)]
        terms = {"quote": names[quote], "settlement": names[quote]}
        found.append(
            Held(
                unit=names[base],
                kind="spot",
                spot=given["config"]["tokens"][base]["price"],
                terms=terms,
                orders=[order for order in orders if order[1]],
            )
        )
    return found


def _mango_numbers(config: Inputs, names: list[str], banks: list[Inputs]) -> dict[str, float]:
    perp, types = config["perp"], {"init": "initial", "maint": "maintenance"}
    numbers = {
        f"parameters.{ours}_{types[short]}": perp[f"{short}_{theirs}"]
        for short in types
        for ours, theirs in (
            ("base_asset", "base_asset_weight"),
            ("base_liability", "base_liab_weight"),
            ("overall", "overall_asset_weight"),
        )
        if f"{short}_{theirs}" in perp
    }
    quote = config["tokens"][_quote_index(config)]
    for short, margin_type in types.items():
        place = f"collateral.{margin_type}.numbers.quote"
        numbers[f"{place}_asset_weight"] = quote[f"{short}_asset_weight"]
        numbers[f"{place}_liability_weight"] = quote[f"{short}_liab_weight"]
    numbers[f"balances.quote_held.numbers.is_quote.{names[_quote_index(config)]}"] = 1
    for name, token, bank in zip(names, config["tokens"], banks, strict=True):
        for short, margin_type in types.items():
            place = f"collateral.{margin_type}.numbers"
            numbers[f"{place}.asset_weight.{name}"] = token[f"{short}_asset_weight"]
            numbers[f"{place}.liability_weight.{name}"] = token[f"{short}_liab_weight"]
        for side in ("deposit", "borrow"):
            start = bank.get(f"{side}_weight_scale_start_quote", 0)
            numbers[f"collateral.initial.numbers.{side}_start.{name}"] = start
    return numbers


# File -> form -> the keys that tell it from the others (or `kind`), and what answers it.
FORMS: dict[str, dict[str, tuple[set[str], Form]]] = {
    "deribit_sm_linear": {"future": ({"rate_per_coin"}, deribit_future)},
    "dydx_margin": {
        "requirement": ({"position_quantums"}, dydx_requirement),
        "initial": ({"notional"}, dydx_initial),
        "subaccount": ({"positions"}, dydx_subaccount),
        "risk_order": ({"first", "second"}, dydx_risk),
        "liquidatable": ({"nc", "mmr"}, dydx_liquidatable),
    },
    "drift_margin": {
        "asset": ({"base_weight", "size"}, drift_asset),
        "liability": ({"base_weight", "size"}, drift_liability),
        "scaled_initial_asset_weight": ({"scale_start_value"}, drift_scaled_weight),
        "unrealised_pnl_weight": ({"pnl_usd"}, drift_pnl_weight),
        "perp": ({"margin_ratio_initial"}, drift_perp),
        "spot_with_orders": ({"sol_bids"}, drift_spot_orders),
        "user_custom_margin_ratio": ({"ratio"}, drift_custom_ratio),
        "strict_price": ({"usdc_twap"}, drift_strict),
    },
    "mango_health": {"tokens_and_perpetual": ({"tokens", "perp"}, mango_health)},
    "synthetix_margin": {"account": ({"markets"}, synthetix_account)},
    "paradex_margin": {
        "orders": ({"open_buys", "open_sells"}, paradex_orders),
        "minimum_delta": ({"net_rate", "hedged_rate"}, paradex_minimum_delta),
    },
    "vega_margin": {
        "maintenance": ({"linear_slippage"}, vega_maintenance),
        "perp_addition": ({"futures_maintenance"}, vega_perp_addition),
        "isolated": ({"average_entry", "margin_factor"}, vega_isolated),
        "isolated_order": ({"price", "margin_factor"}, vega_isolated_order),
        "capped_future_full_collateral": ({"max_price"}, vega_capped),
        "riskiest": ({"open", "buys", "sells"}, vega_riskiest),
    },
}
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
    return found or [pytest.param("", {}, {}, marks=pytest.mark.skip(reason=reason), id="absent")]


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
    elif abs(expected) > _LARGEST_INTEGER:
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
