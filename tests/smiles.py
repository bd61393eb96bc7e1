"""A book of two chains with known smiles: BTC settled in USDC and ETH in its coin, complete in every mark."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import polars as pl

from tests.books import AS_OF, FAR, NEAR, TIME
from tests.oracle.black import SECONDS_PER_YEAR, Option, black_value

MIDDLE = datetime(2026, 4, 24, 8, tzinfo=UTC)
EXPIRIES = (NEAR, MIDDLE, FAR)
STEPS = tuple(range(-4, 5))  # strikes stand at forward * exp(0.08 step)
SPOT = {"BTC": 68_000.0, "ETH": 2_200.0}
TERMS: dict[str, dict[str, Any]] = {
    "BTC": {"settlement": "USDC", "quote": "USDC", "inverse": False},
    "ETH": {"settlement": "ETH", "quote": "USD", "inverse": True},
}


def years(expiry: datetime) -> float:
    """Time to an expiry at `AS_OF`."""
    return (expiry - AS_OF).total_seconds() / SECONDS_PER_YEAR


def forward(underlying: str, expiry: datetime) -> float:
    """Forward that grows by 5 % a year."""
    return SPOT[underlying] * math.exp(0.05 * years(expiry))


def vol(k: float) -> float:
    """One SVI shape in vol for every expiry, so that total variance is linear in time at equal k = ln(K/F)."""
    return math.sqrt(0.16 + 0.25 * (-0.3 * k + math.sqrt(k * k + 0.03)))


def price(underlying: str, expiry: datetime, k: float, side: str) -> float:
    """Black-76 price per unit of underlying, in coin where the chain is."""
    at = forward(underlying, expiry)
    terms = Option(at * math.exp(k), side == "call", years(expiry))
    value = black_value(terms, forward=at, vol=vol(k))
    return value / at if TERMS[underlying]["inverse"] else value


def name_of(underlying: str, expiry: datetime, step: int, side: str) -> str:
    """Instrument id."""
    return f"{underlying}-{expiry:%m%d}-{step:+d}-{side}"


def _rows() -> list[dict[str, Any]]:
    return [
        {
            "instrument_id": name_of(underlying, expiry, step, side),
            "underlying": underlying,
            "expiry": expiry,
            "strike": forward(underlying, expiry) * math.exp(0.08 * step),
            "option_type": side,
            "mark_price": price(underlying, expiry, 0.08 * step, side),
            "mark_iv": vol(0.08 * step),
            **TERMS[underlying],
        }
        for underlying in TERMS
        for expiry in EXPIRIES
        for step in STEPS
        for side in ("call", "put")
    ]


def smile_book() -> dict[str, pl.DataFrame]:
    """Every option of the two chains; ann and ben hold each of them, long and short in turn, and cash."""
    options = pl.DataFrame(_rows()).with_columns(kind=pl.lit("option"), expiry=pl.col("expiry").cast(TIME))
    keys = ("instrument_id", "kind", "underlying", "expiry", "strike", "option_type", *TERMS["BTC"])
    turn = pl.int_range(pl.len()) % 3 - 1
    held = options.select("instrument_id", quantity=turn.cast(pl.Float64)).filter(pl.col("quantity") != 0)
    forwards = [
        {"underlying": name, "quote": TERMS[name]["quote"], "expiry": expiry, "forward": forward(name, expiry)}
        for name in TERMS
        for expiry in EXPIRIES
    ]
    cash = [("ann", "USDC", 5e5), ("ann", "BTC", 1.0), ("ben", "USDC", 4e5), ("ben", "ETH", 30.0)]
    return {
        "instruments": options.select(keys),
        "marks": options.select("instrument_id", "mark_price", "mark_iv", timestamp=pl.lit(AS_OF, TIME)),
        "forwards": pl.DataFrame(forwards).cast({"expiry": TIME}),
        "prices": pl.DataFrame({"asset": ["USDC", "BTC", "ETH"], "price": [1.0, *SPOT.values()]}),
        "positions": pl.concat(
            [
                held.with_columns(account_id=pl.lit("ann")),
                held.with_columns(-pl.col("quantity"), account_id=pl.lit("ben")),
            ]
        ),
        "balances": pl.DataFrame(cash, ["account_id", "asset", "amount"], orient="row"),
    }
