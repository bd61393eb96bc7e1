"""Fields of scenario-grid cases as the tables of a book and the values of a model. No formula here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.tables import Book, read_book

AS_OF = datetime(2026, 3, 5, 8, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
_DAYS = 365.0
_NO_CAP = 1e300  # the case caps no weighted price risk
_KINDS = {"fut": "future", "c": "option", "p": "option"}
_TYPES = {"c": "call", "p": "put"}
_INSTRUMENTS = {
    "instrument_id": pl.String,
    "kind": pl.String,
    "underlying": pl.String,
    "contract_size": pl.Float64,
    "strike": pl.Float64,
    "expiry": TIME,
    "option_type": pl.String,
}
_MARKS = {"instrument_id": pl.String, "mark_price": pl.Float64, "mark_iv": pl.Float64}


def _expiry(years: float) -> datetime:
    return AS_OF + timedelta(days=years * _DAYS)


def month_expiries(unit: Mapping[str, Any]) -> dict[str, datetime]:
    """When each contract month expires: with its options, and any other day where it has none."""
    found = {month: AS_OF + timedelta(days=2_000 + i) for i, month in enumerate(unit["price"])}
    found |= {p["month"]: _expiry(p["T"]) for p in unit["positions"] if "T" in p}
    assert len(set(found.values())) == len(found), "two months expire together"
    return found


def _tables(rows: list[dict[str, Any]], forwards: list[dict[str, Any]], prices: Mapping[str, float]) -> Book:
    """A book of one account in dollars; each row is a contract with its mark and position."""
    owner = pl.lit("case").alias("account_id")
    balances = [{"asset": "USD", "amount": 0.0}]
    balances += [{"asset": r["underlying"], "amount": r["quantity"]} for r in rows if r["kind"] == "spot"]
    held = [r for r in rows if r["kind"] != "spot"]
    return read_book(
        instruments=pl.DataFrame([{k: r[k] for k in _INSTRUMENTS} for r in held], schema=_INSTRUMENTS).with_columns(
            settlement=pl.lit("USD")
        ),
        marks=pl.DataFrame([{k: r[k] for k in _MARKS} for r in held], schema=_MARKS),
        forwards=pl.DataFrame(forwards, schema={"underlying": pl.String, "expiry": TIME, "forward": pl.Float64}),
        prices=pl.DataFrame({"asset": ["USD", *prices], "price": [1.0, *prices.values()]}),
        positions=pl.DataFrame([{k: r[k] for k in ("instrument_id", "quantity")} for r in held]).with_columns(owner),
        balances=pl.DataFrame(balances).with_columns(owner),
    )


def _row(name: str, index: int, position: Mapping[str, Any], mark: float | None, expiry: datetime) -> dict[str, Any]:
    kind = _KINDS[position["type"]]
    return {
        "instrument_id": f"{name}-{index}",
        "kind": kind,
        "underlying": name,
        "contract_size": position.get("mult", 1.0),
        "strike": position.get("K"),
        "expiry": expiry,
        "option_type": _TYPES.get(position["type"]),
        "mark_price": mark if kind == "future" else None,
        "mark_iv": position.get("sigma"),
        "quantity": position["qty"],
    }


def span_book(commodities: Mapping[str, Any]) -> Book:
    """Every position of a case, futures of a month expiring with its options; ids are name and place in the case."""
    rows, forwards = [], []
    for name, unit in commodities.items():
        expiry = month_expiries(unit)
        forwards += [{"underlying": name, "expiry": expiry[m], "forward": f} for m, f in unit["price"].items()]
        for i, p in enumerate(unit["positions"]):
            rows.append(_row(name, i, p, unit["price"][p["month"]], expiry[p["month"]]))
    return _tables(rows, forwards, {name: next(iter(unit["price"].values())) for name, unit in commodities.items()})


def span_model(inputs: Mapping[str, Any]) -> MarginModel:
    """The shipped model with a case's values."""
    params, units = inputs["params"], inputs["commodities"]
    shipped = load_model("span")
    grid = [dict(row) for row in shipped.raw["scenarios"]["grid"]]
    for row in grid:
        row["days"] = params["lookahead_days"]
        if "weight" in row:
            row |= {"move": params["extreme_mult"] * (1 if row["move"] > 0 else -1), "weight": params["cover"]}
    first = {name: next(iter(unit["price"].values())) for name, unit in units.items()}

    def by_unit(field: str) -> dict[str, float]:
        return {"default": 1.0, **{name: unit[field] for name, unit in units.items()}}

    spreads = [
        {
            "rate": pair["rate"],
            "legs": [
                {"unit": leg["name"], "ratio": leg["ratio"], "side": -1 if i else 1}
                for i, leg in enumerate(pair["legs"])
            ],
        }
        for pair in inputs["intercommodity"]
    ]
    return shipped.replace(
        {
            "scenarios.grid": grid,
            "scenario_range": {"default": 1.0, **{n: unit["psr"] / first[n] for n, unit in units.items()}},
            "vol_shock.up": by_unit("vsr"),
            "vol_shock.down": by_unit("vsr"),
            "composite_delta.days": params["lookahead_days"],
            "composite_delta.points": [{"move": move, "weight": weight} for move, weight in params["delta_weights"]],
            "components.net_delta.numbers.delta_unit": by_unit("delta_unit"),
            "components.inter_month.numbers.delta_unit": by_unit("delta_unit"),
            "components.inter_month.numbers.rate": by_unit("intermonth_rate"),
            "components.short_options.numbers.rate": by_unit("som"),
            "components.credit.spreads": spreads,
            "components.credit.cap": _NO_CAP,
        }
    )


def tims_book(inputs: Mapping[str, Any]) -> Book:
    """Every position of a case on the underlying X; spot is a balance."""
    rows, expiries = [], {}
    for i, p in enumerate(inputs["positions"]):
        if p["type"] == "spot":
            rows.append({"kind": "spot", "underlying": "X", "quantity": p["qty"]})
        else:
            expiries[_expiry(p["T"])] = inputs["S"]
            rows.append(_row("X", i, p, None, _expiry(p["T"])))
    forwards = [{"underlying": "X", "expiry": expiry, "forward": level} for expiry, level in expiries.items()]
    return _tables(rows, forwards, {"X": inputs["S"]})


def tims_model(inputs: Mapping[str, Any]) -> MarginModel:
    """The shipped model with a case's values."""
    return load_model("tims").replace(
        {"scenario_range": inputs["range"], "components.minimum.numbers.per_contract": inputs["min_per_contract"]}
    )
