"""Fields of a standard margin reference case as the tables of a book and the values of a model. No formula here."""

from __future__ import annotations

from typing import Any

import polars as pl

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.run import margin
from gpumargin.runs import Run
from gpumargin.tables import read_book
from tests.reference.pm1_books import AS_OF, TIME, expiry_at

_PLACES = {
    "perp": {
        "mm": "components.perp_maintenance.numbers.rate",
        "im": "components.perp_initial.numbers.rate",
    },
    "option": {
        "max_spot": "parameters.most_spot",
        "min_spot": "parameters.least_spot",
        "mm_call_spot": "parameters.maintenance_call",
        "mm_put_spot": "parameters.maintenance_put",
        "mm_put_mtm": "parameters.maintenance_put_mark",
        "unpaired_im": "parameters.unpaired_initial",
        "unpaired_mm": "parameters.unpaired_maintenance",
        "mm_offset": "parameters.put_over_maintenance",
    },
    "oracle": {
        "perp_threshold": "components.oracle_perp.numbers.threshold",
        "option_threshold": "components.oracle_options.numbers.threshold",
        "base_threshold": "components.oracle_token.numbers.threshold",
        "factor": "parameters.oracle_rate",
    },
    "depeg": {"threshold": "components.peg.threshold", "factor": "components.peg.factor"},
    "base": {"margin_factor": "parameters.token_share", "im_scale": "parameters.token_scale"},
}
_INSTRUMENT = {
    "instrument_id": pl.String,
    "underlying": pl.String,
    "kind": pl.String,
    "strike": pl.Float64,
    "expiry": TIME,
    "option_type": pl.String,
}
_FORWARD = {
    "underlying": pl.String,
    "expiry": TIME,
    **dict.fromkeys(("forward", "forward_confidence", "vol_confidence"), pl.Float64),
}
_MARK = {
    "instrument_id": pl.String,
    **dict.fromkeys(("mark_price", "mark_iv", "settlement_price", "confidence"), pl.Float64),
}
_POSITION = {"instrument_id": pl.String, "quantity": pl.Float64, "unsettled": pl.Float64}


def model_of(params: dict[str, dict[str, float]]) -> MarginModel:
    """The shipped model with a case's values."""
    given = {_PLACES[group][name]: value for group, values in params.items() for name, value in values.items()}
    return load_model("derive-sm").replace(given)


def as_market(case: dict[str, Any]) -> dict[str, Any]:
    """A case of one option as a case of a market that holds nothing else and that nothing is wrong with."""
    sure = {"forward_confidence": 1.0, "vol_confidence": 1.0}
    option = {name: case[name] for name in ("seconds_to_expiry", "strike", "kind", "amount", "vol")}
    market = {
        "name": "x",
        "spot": case["spot"],
        "spot_confidence": 1.0,
        "perp_price": case["spot"],
        "perp_confidence": 1.0,
        "expiries": [{"seconds_to_expiry": case["seconds_to_expiry"], "forward": case["forward"], **sure}],
        "positions": {"perp_size": 0.0, "perp_unsettled_cash": 0.0, "base_amount": 0.0, "options": [option]},
    }
    return {"cash": 0.0, "stable_price": 1.0, "markets": [market], "expected": case["expected"]}


def _option_id(market: dict[str, Any], option: dict[str, Any]) -> str:
    return f"{market['name']}-{option['seconds_to_expiry']}-{option['strike']!r}-{option['kind']}"


def _instruments(market: dict[str, Any]) -> list[tuple[Any, ...]]:
    options = {_option_id(market, o): o for o in market["positions"]["options"]}
    perpetual = (f"{market['name']}-perp", market["name"], "perpetual", None, None, None)
    return [
        perpetual,
        *(
            (i, market["name"], "option", o["strike"], expiry_at(o["seconds_to_expiry"]), o["kind"])
            for i, o in options.items()
        ),
    ]


def _marks(market: dict[str, Any]) -> list[tuple[Any, ...]]:
    options = {_option_id(market, o): o for o in market["positions"]["options"]}
    forward = {e["seconds_to_expiry"]: e["forward"] for e in market["expiries"]}
    perpetual = (f"{market['name']}-perp", market["perp_price"], None, None, market["perp_confidence"])
    settled = {i: None if o["seconds_to_expiry"] > 0 else forward[o["seconds_to_expiry"]] for i, o in options.items()}
    return [perpetual, *((i, None, o["vol"], settled[i], 1.0) for i, o in options.items())]


def _forwards(market: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (
            market["name"],
            expiry_at(e["seconds_to_expiry"]),
            e["forward"],
            e["forward_confidence"],
            e["vol_confidence"],
        )
        for e in market["expiries"]
    ]


def _positions(market: dict[str, Any]) -> list[tuple[Any, ...]]:
    held = market["positions"]
    perpetual = (f"{market['name']}-perp", held["perp_size"], float(held["perp_unsettled_cash"]))
    return [perpetual, *((_option_id(market, o), o["amount"], 0.0) for o in held["options"])]


def tables_of(case: dict[str, Any]) -> dict[str, pl.DataFrame]:
    """The case's account and markets as the tables of a book; legs of one contract are added up first."""
    markets, owner = case["markets"], pl.lit("case").alias("account_id")

    def frame(rows: Any, schema: dict[str, Any]) -> pl.DataFrame:
        return pl.DataFrame([row for market in markets for row in rows(market)], schema=schema, orient="row")

    amounts = {m["name"]: m["positions"]["base_amount"] for m in markets} | {"USDC": case["cash"]}
    price = {m["name"]: m["spot"] for m in markets} | {"USDC": case["stable_price"]}
    confidence = {m["name"]: m["spot_confidence"] for m in markets} | {"USDC": 1.0}
    positions = frame(_positions, _POSITION).group_by("instrument_id", maintain_order=True).sum()
    return {
        "instruments": frame(_instruments, _INSTRUMENT).with_columns(settlement=pl.lit("USDC")),
        "marks": frame(_marks, _MARK),
        "forwards": frame(_forwards, _FORWARD),
        "prices": pl.DataFrame({"asset": [*price], "price": [*price.values()], "confidence": [*confidence.values()]}),
        "positions": positions.with_columns(owner),
        "balances": pl.DataFrame({"asset": [*amounts], "amount": [*amounts.values()]}).with_columns(
            owner, pl.col("amount").cast(pl.Float64)
        ),
    }


def margined(case: dict[str, Any], params: dict[str, dict[str, float]]) -> Run:
    """A case under the shipped model with its values."""
    return margin(read_book(**tables_of(case)), model_of(params), as_of=AS_OF)


def results_of(case: dict[str, Any], params: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Every figure a case may expect, under the names that cases use."""
    account = margined(case, params).accounts.row(0, named=True)
    initial, maintenance = account["initial_excess"], account["maintenance_excess"]
    return {
        "initial_margin": initial,
        "maintenance_margin": maintenance,
        "isolated_initial_margin": initial,
        "isolated_maintenance_margin": maintenance,
        "initial_margin_truncated": int(round(initial, 8)),
        "maintenance_margin_truncated": int(round(maintenance, 8)),
        "mark_to_market": account["equity"],
    }
