"""Writes `data/sample/chain.parquet`: a made-up Deribit-like option chain, the same on every run.

Nothing in it was traded or quoted anywhere. Two coins, four expiries, fifteen strikes, calls and puts, two snapshots,
in the columns of the real collector's file, so that whatever reads the one reads the other. Vols follow a made-up
smile; marks are Black-76 in coin on the row's own underlying, rounded as the venue rounds. Like the real file it has
a daily expiry whose underlying is synthetic and differs a little between rows, far strikes without a bid, and an
index that moves while it is collected.

Usage: `python data/make_sample_chain.py [FILE]`.
"""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

SEED = 20260305
DEFAULT_FILE = Path(__file__).parent / "sample" / "chain.parquet"
SNAPSHOTS = (datetime(2026, 3, 4, 20, 0, 12, 250000, tzinfo=UTC), datetime(2026, 3, 5, 8, 0, 7, 500000, tzinfo=UTC))
EXPIRIES = tuple(datetime(2026, month, day, 8, tzinfo=UTC) for month, day in ((3, 6), (3, 27), (6, 26), (12, 25)))
DAILY = EXPIRIES[0]
STANDARDISED_STRIKES = np.linspace(-2.1, 2.1, 15)
YEAR_OF_COLLECTOR = timedelta(days=365.25)
YEAR_OF_VENUE = timedelta(days=365)
CARRY_PER_YEAR = 0.05
FEWEST_STEPS_FOR_A_BID = 2.0


class Coin(NamedTuple):
    """One made-up coin: index at each snapshot and strike grid in USD, at-the-money vol, tick and rounding in coin."""

    name: str
    spots: tuple[float, float]
    vol: float
    strike_step: float
    tick: float
    mark_digits: int


COINS = (
    Coin("BTC", spots=(66_250.0, 67_410.0), vol=0.52, strike_step=250.0, tick=0.0005, mark_digits=8),
    Coin("ETH", spots=(1_948.0, 1_985.0), vol=0.68, strike_step=10.0, tick=0.0005, mark_digits=6),
)


def make_chain(seed: int = SEED) -> pl.DataFrame:
    """The whole made-up file: 480 rows, snapshots stacked, sorted by name inside a snapshot."""
    rng = np.random.default_rng(seed)
    rows = [
        _row(rng, coin, when=when, spot=spot, expiry=expiry, strike=strike, kind=kind)
        for coin in COINS
        for when, spot in zip(SNAPSHOTS, coin.spots, strict=True)
        for expiry in EXPIRIES
        for strike in _strikes(coin, expiry)
        for kind in ("call", "put")
    ]
    spread = (pl.col("ask_price") - pl.col("bid_price")).round(4)
    frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(bid_ask_spread=spread)
    return frame.sort("snapshot_file", "instrument_name")


def _strikes(coin: Coin, expiry: datetime) -> list[float]:
    """Fifteen strikes, 2.1 deviations either way of the first spot, on the coin's grid; the same in both snapshots."""
    width = coin.vol * math.sqrt((expiry - SNAPSHOTS[0]) / YEAR_OF_VENUE)
    raw = coin.spots[0] * np.exp(width * STANDARDISED_STRIKES)
    return [float(strike) for strike in np.round(raw / coin.strike_step) * coin.strike_step]


def _smile(coin: Coin, log_moneyness: float, years: float) -> float:
    """Made-up mark IV, to 0.01 vol points: puts dearer than calls, wings up, flatter for long tenors."""
    x = log_moneyness / math.sqrt(years + 0.02)
    return round(coin.vol * (1.0 - 0.10 * x + 0.12 * x * x), 4)


def _black_in_coin(forward: float, strike: float, *, deviation: float, sign: int) -> tuple[float, float, float]:
    """Price / forward, forward delta, and d1 of Black-76 without discounting; deviation = vol * sqrt(years)."""
    d1 = math.log(forward / strike) / deviation + deviation / 2
    in_measure = [0.5 * math.erfc(-sign * d / math.sqrt(2)) for d in (d1, d1 - deviation)]
    return sign * (in_measure[0] - strike / forward * in_measure[1]), sign * in_measure[0], d1


def _row(
    rng: np.random.Generator, coin: Coin, *, when: datetime, spot: float, expiry: datetime, strike: float, kind: str
) -> dict[str, object]:
    """One option in the collector's columns."""
    years = (expiry - when) / YEAR_OF_VENUE
    forward = round(spot * math.exp(CARRY_PER_YEAR * years), 2)
    vol = _smile(coin, math.log(strike / forward), years)
    # A synthetic underlying is computed while the rows are collected, so the rows of its expiry carry several.
    underlying = round(forward * (1.0 + 1e-4 * int(rng.integers(0, 4))), 4) if expiry == DAILY else forward
    sign = 1 if kind == "call" else -1
    price, delta, d1 = _black_in_coin(underlying, strike, deviation=vol * math.sqrt(years), sign=sign)
    vega = underlying * math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi) * math.sqrt(years) / 100
    quotes = _quotes(price, coin)
    series = f"{coin.name}-{expiry.day}{expiry:%b%y}".upper()
    future = None if expiry == DAILY else series
    volume = float(rng.poisson(2.0))
    drifted_index = round(spot * (1.0 + 2e-4 * float(rng.random())), 2)
    return {
        "timestamp": when.isoformat(),
        "instrument_name": f"{series}-{strike:.0f}-{kind[0].upper()}",
        "underlying": underlying,
        "underlying_name": future or f"SYN.{series}",
        "option_type": kind,
        "strike": strike,
        "expiry_datetime": expiry.isoformat(),
        "time_to_maturity": (expiry - when) / YEAR_OF_COLLECTOR,
        **quotes,
        "futures_price": underlying if future else None,
        "futures_instrument_name": future,
        "implied_volatility": vol,
        "delta": round(delta, 5),
        "vega": round(vega, 5),
        "open_interest": round(float(rng.lognormal(3.0, 1.5)), 1),
        "volume": volume,
        "bid_ask_spread": None,
        "currency": coin.name,
        "index_price": drifted_index,
        "volume_usd": round(volume * price * drifted_index, 2),
        "snapshot_file": f"sample_options_snapshot_{when:%Y%m%dT%H%M%SZ}.csv",
    }


def _quotes(price: float, coin: Coin) -> dict[str, float | None]:
    """Bid, ask, mark and mid in coin; an option of less than two ticks has no bid."""
    steps = price / coin.tick
    bid = round(math.floor(steps * 0.98) * coin.tick, 4) if steps >= FEWEST_STEPS_FOR_A_BID else None
    ask = round((math.ceil(steps * 1.02) + 1) * coin.tick, 4)
    mid = None if bid is None else round((bid + ask) / 2, 5)
    return {"bid_price": bid, "ask_price": ask, "mark_price": round(price, coin.mark_digits), "mid_price": mid}


def main(arguments: list[str]) -> None:
    """Writes the file named first, or the sample of this repository."""
    file = Path(arguments[0]) if arguments else DEFAULT_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    chain = make_chain()
    chain.write_parquet(file)
    sys.stdout.write(f"{file}: {chain.height} rows, {file.stat().st_size} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1:])
