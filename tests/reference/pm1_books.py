"""Fields of a PM1 reference case as the tables of a book and the values of a model. No formula here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.run import margin
from gpumargin.tables import read_book

AS_OF = datetime(2026, 3, 5, 8, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def model_of(params: dict[str, Any]) -> MarginModel:
    """The shipped model with a case's values."""
    shock, discount = params["vol_shock"], params["discount"]
    basis, contingency = params["forward_contingency"], params["contingency"]
    return load_model("derive-pm1").replace(
        {
            "scenarios.grid": params["scenarios"],
            "scenarios.forward": [{"spot": basis["spot_up"]}, {"spot": basis["spot_down"]}],
            "vol_shock.up": shock["range_up"],
            "vol_shock.down": shock["range_down"],
            "vol_shock.short_power": shock["short_term_power"],
            "vol_shock.long_power": shock["long_term_power"],
            "vol_shock.floor_days": shock["dte_floor_days"],
            "components.scan.discount.static": discount["static"],
            "components.scan.discount.rate_multiplier": discount["rate_mult"],
            "components.scan.discount.rate_addend": discount["rate_add"],
            "components.basis.addend": basis["add"],
            "components.basis.multiplier": basis["mult"],
            "components.perp.numbers.rate": contingency["perp"],
            "components.base.numbers.rate": contingency["base"],
            "components.naked_options.numbers.rate": contingency["option"],
            "components.oracle.numbers.threshold": contingency["conf_threshold"],
            "components.oracle.numbers.rate": contingency["conf_scale"],
            "components.peg.threshold": contingency["peg_threshold"],
            "components.peg.factor": contingency["peg_factor"],
            "parameters.im_factor": params["im_factor"],
        }
    )


def expiry_at(seconds: float) -> datetime:
    """The instant so many seconds after the case's."""
    return AS_OF + timedelta(seconds=seconds)


def _option_id(option: dict[str, Any]) -> str:
    return f"X-{option['seconds_to_expiry']}-{option['strike']!r}-{option['kind']}"


def tables_of(case: dict[str, Any]) -> dict[str, pl.DataFrame]:
    """The case's account and market as the tables of a book; the underlying is X."""
    account, market = case["account"], case["market"]
    options = account["options"]
    forward = {e["seconds_to_expiry"]: e["forward_fixed"] + e["forward_variable"] for e in market["expiries"]}
    ids = {_option_id(o): o for o in options}
    instruments = [
        {
            "instrument_id": i,
            "kind": "option",
            "strike": o["strike"],
            "expiry": expiry_at(o["seconds_to_expiry"]),
            "option_type": o["kind"],
        }
        for i, o in ids.items()
    ]
    instruments.append(
        {"instrument_id": "X-PERP", "kind": "perpetual", "strike": None, "expiry": None, "option_type": None}
    )
    marks = [
        {
            "instrument_id": i,
            "mark_price": None,
            "mark_iv": o["vol"],
            "settlement_price": None if o["seconds_to_expiry"] > 0 else forward[o["seconds_to_expiry"]],
            "confidence": 1.0,
        }
        for i, o in ids.items()
    ]
    marks.append(
        {
            "instrument_id": "X-PERP",
            "mark_price": market["perp_price"],
            "mark_iv": None,
            "settlement_price": None,
            "confidence": market["perp_confidence"],
        }
    )
    positions = [{"instrument_id": _option_id(o), "quantity": o["amount"], "unsettled": 0.0} for o in options]
    positions.append(
        {
            "instrument_id": "X-PERP",
            "quantity": account["perp_size"],
            "unsettled": float(account["perp_unsettled_cash"]),
        }
    )
    balances = [{"asset": "USDC", "amount": account["cash"]}, {"asset": "X", "amount": account["base_amount"]}]
    schema = {
        "instrument_id": pl.String,
        "kind": pl.String,
        "strike": pl.Float64,
        "expiry": TIME,
        "option_type": pl.String,
    }
    owner = pl.lit("case").alias("account_id")
    return {
        "instruments": pl.DataFrame(instruments, schema=schema).with_columns(
            underlying=pl.lit("X"), settlement=pl.lit("USDC")
        ),
        "marks": pl.DataFrame(
            marks,
            schema={
                "instrument_id": pl.String,
                **dict.fromkeys(("mark_price", "mark_iv", "settlement_price", "confidence"), pl.Float64),
            },
        ),
        "forwards": _forwards(market["expiries"]),
        "prices": pl.DataFrame(
            {
                "asset": ["X", "USDC"],
                "price": [market["spot"], market["stable_price"]],
                "confidence": [market["spot_confidence"], 1.0],
            }
        ),
        "positions": pl.DataFrame(
            positions, schema={"instrument_id": pl.String, "quantity": pl.Float64, "unsettled": pl.Float64}
        ).with_columns(owner),
        "balances": pl.DataFrame(balances, schema={"asset": pl.String, "amount": pl.Float64}).with_columns(owner),
    }


def _forwards(expiries: list[dict[str, Any]]) -> pl.DataFrame:
    rows = [
        {
            "underlying": "X",
            "expiry": expiry_at(e["seconds_to_expiry"]),
            "forward": e["forward_fixed"] + e["forward_variable"],
            "forward_fixed": e["forward_fixed"],
            "rate": e["rate"],
            "forward_confidence": e["forward_confidence"],
            "rate_confidence": e["rate_confidence"],
            "vol_confidence": e["vol_confidence"],
        }
        for e in expiries
    ]
    numbers = ("forward", "forward_fixed", "rate", "forward_confidence", "rate_confidence", "vol_confidence")
    return pl.DataFrame(rows, schema={"underlying": pl.String, "expiry": TIME, **dict.fromkeys(numbers, pl.Float64)})


def results_of(case: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Every figure a case may expect, under the names that cases use."""
    model = model_of(params)
    run = margin(read_book(**tables_of(case)), model, as_of=AS_OF)
    account = run.accounts.row(0, named=True)
    unit = run.units.row(0, named=True) if run.units.height else dict.fromkeys(run.units.columns, 0.0)
    grid = [row["id"] for row in run.scenarios.filter(pl.col("set") == "grid").sort("column").iter_rows(named=True)]
    initial, maintenance = account["initial_excess"], account["maintenance_excess"]
    return {
        "initial_margin": initial,
        "maintenance_margin": maintenance,
        "initial_margin_truncated": int(round(initial, 8)),
        "maintenance_margin_truncated": int(round(maintenance, 8)),
        "portfolio_mtm": account["equity"],
        "worst_scenario_index": [*grid, "basis"].index(unit["worst_scenario"]) if unit["worst_scenario"] else None,
        "static_contingency": unit["perp"] + unit["base"] + unit["naked_options"],
        "forward_contingency": -unit["basis"],
        "perp_contingency": -unit["perp"],
        "base_contingency": -unit["base"],
        "option_contingency": -unit["naked_options"],
        "oracle_contingency": -unit["oracle"],
        "effective_im_factor": model.file.parameters["im_factor"]["default"] + unit["peg"],
    }
