"""Cases of venues that weigh balances, as books and model values. No formula here."""

from __future__ import annotations

import re
from typing import Any

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.formulas import formula_value
from tests.reference.venue_books import Held, book_of, result_of

Inputs = dict[str, Any]


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
