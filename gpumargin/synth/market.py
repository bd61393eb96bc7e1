"""A made-up option market: coins, expiries, strike ladders and an arbitrage-free smile, as contract tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]

AS_OF = datetime(2026, 3, 5, 8, tzinfo=UTC)
_TIMESTAMP = pl.Datetime("us", "UTC")
_DAYS_PER_YEAR = 365.0

# Days from AS_OF to the dailies, the Fridays, the last Fridays of the months and of the quarters that follow it.
_LARGE = (1, 2, 3, 8, 15, 22, 50, 85, 113, 204, 295)
_MEDIUM = (1, 8, 22, 50, 113)
_SMALL = (8, 22, 50)


class Coin(NamedTuple):
    """One underlying: spot in USD, vols per sqrt-year, `skew` the SSVI correlation, `decimals` of its minor unit."""

    symbol: str
    spot: float
    short_vol: float
    long_vol: float
    skew: float
    carry: float
    lots_per_unit: int
    weight: float
    tenors: tuple[int, ...]
    decimals: int = 8


COINS = (
    Coin("BTC", 71_250.0, 0.46, 0.50, -0.25, 0.045, 100, 0.500, _LARGE),
    Coin("ETH", 2_085.0, 0.62, 0.68, -0.20, 0.040, 100, 0.270, _LARGE),
    Coin("SOL", 88.4, 0.74, 0.79, -0.15, 0.035, 10, 0.090, _MEDIUM),
    Coin("XRP", 1.412, 0.72, 0.78, -0.08, 0.030, 1, 0.040, _SMALL, 6),
    Coin("DOGE", 0.0948, 0.85, 0.88, 0.02, 0.025, 1, 0.020, _SMALL),
    Coin("LINK", 9.12, 0.80, 0.84, -0.05, 0.025, 10, 0.015, _SMALL),
    Coin("AVAX", 9.37, 0.83, 0.86, -0.05, 0.020, 10, 0.012, _SMALL),
    Coin("HYPE", 31.3, 0.92, 0.95, -0.02, 0.055, 10, 0.018, _MEDIUM),
    Coin("BNB", 641.0, 0.52, 0.58, -0.15, 0.020, 100, 0.010, _SMALL),
    Coin("SUI", 0.931, 0.95, 0.97, 0.00, 0.020, 1, 0.006, _SMALL),
    Coin("ADA", 0.268, 0.82, 0.86, 0.00, 0.020, 1, 0.005, _SMALL, 6),
    Coin("LTC", 54.6, 0.66, 0.70, -0.05, 0.020, 10, 0.004, _SMALL),
    Coin("AAVE", 116.0, 0.88, 0.90, -0.05, 0.015, 10, 0.004, _SMALL),
    Coin("NEAR", 1.33, 0.92, 0.94, 0.00, 0.015, 1, 0.003, _SMALL),
    Coin("DOT", 1.52, 0.86, 0.89, 0.00, 0.015, 1, 0.002, _SMALL),
    Coin("TRX", 0.284, 0.45, 0.50, 0.00, 0.010, 1, 0.001, _SMALL, 6),
)

_STABLES = {"USDC": 0.9998, "USDT": 1.0004}
_STABLE_DECIMALS = 6


@dataclass(frozen=True)
class Market:
    """The tables every account of a book shares, plus how much each contract is traded.

    Attributes:
      tables: contract tables instruments, marks, forwards, prices, assets; empty of open interest when made up.
      trade: one row per contract with instrument_id, popularity (share of turnover, >= 0) and lots_per_unit.
    """

    tables: dict[str, pl.DataFrame]
    trade: pl.DataFrame


def made_up_market(rng: np.random.Generator, *, underlyings: int) -> Market:
    """The first `underlyings` coins of `COINS` with perpetuals and options settled in USDC, as of `AS_OF`.

    Args:
      rng: source of the perpetuals' premium, the funding rates and the feeds' confidences.
      underlyings: 1 to `len(COINS)`.
    """
    coins = COINS[:underlyings]
    parts = [_perpetuals(rng, coins), *(_options(coin, days) for coin in coins for days in coin.tenors)]
    rows = pl.concat(parts, how="diagonal").with_columns(
        settlement=pl.lit("USDC"), quote=pl.lit("USDC"), inverse=False, contract_size=1.0, timestamp=_as_of()
    )
    instruments = ("instrument_id", "kind", "underlying", "settlement", "quote", "inverse", "contract_size")
    marks = ("instrument_id", "mark_price", "mark_iv", "funding_rate", "timestamp")
    tables = {
        "instruments": rows.select(*instruments, "strike", "expiry", "option_type"),
        "marks": rows.select(*marks),
        "forwards": _forwards(coins),
        "prices": _prices(rng, coins),
        "assets": _assets(coins),
    }
    return Market(tables, rows.select("instrument_id", "popularity", "lots_per_unit"))


def smile_vol(coin: Coin, log_moneyness: Floats, *, years: float) -> Floats:
    """Implied volatility per sqrt-year at log(strike / forward) for one tenor.

    Surface SVI: total variance theta / 2 * (1 + r p k + sqrt((p k + r)^2 + 1 - r^2)) with k the log moneyness and
    p = e / theta^g / (1 + theta)^(1 - g); e (1 + |r|) <= 2 and theta rising in time keep it free of butterfly and
    calendar arbitrage.
    Source: Gatheral and Jacquier, "Arbitrage-free SVI volatility surfaces", 2014, section 4.
    """
    theta = _at_the_money_variance(coin, years)
    steepness = 1.1 / theta**0.45 / (1.0 + theta) ** 0.55
    scaled = steepness * log_moneyness
    root = np.sqrt((scaled + coin.skew) ** 2 + 1.0 - coin.skew**2)
    vol: Floats = np.sqrt(theta / 2.0 * (1.0 + coin.skew * scaled + root) / years)
    return vol


def _at_the_money_variance(coin: Coin, years: float) -> float:
    """Integral of a variance that decays from its short to its long level within about a quarter: always rising."""
    decay = years / 0.25
    return years * (coin.long_vol**2 + (coin.short_vol**2 - coin.long_vol**2) * -math.expm1(-decay) / decay)


def _strikes(forward: float, deviation: float) -> Floats:
    """Ladder around the forward: a fine step near the money, a coarse one in the wings, both wider with time."""
    low, high = forward * math.exp(-2.6 * deviation - 0.04), forward * math.exp(3.0 * deviation + 0.05)
    fine = _round_step((high - low) / (62.0 + 50.0 * deviation))
    inner = np.arange(math.ceil(forward * math.exp(-deviation) / fine), forward * math.exp(deviation) / fine + 1.0)
    outer = np.round(np.arange(math.ceil(low / fine / 2.5), high / fine / 2.5 + 1.0) * 2.5)
    return np.round(np.unique(np.concatenate([inner, outer[outer > 0.0]])) * fine, 8)


def _round_step(step: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return power * float(min((1.0, 2.0, 5.0, 10.0), key=lambda nice: abs(math.log(nice * power / step))))


def _options(coin: Coin, days: int) -> pl.DataFrame:
    years = days / _DAYS_PER_YEAR
    forward = _forward(coin, days)
    strike = _strikes(forward, math.sqrt(_at_the_money_variance(coin, years)))
    moneyness = np.log(strike / forward)
    vol = np.round(smile_vol(coin, moneyness, years=years), 4)
    calls = _one_side(coin, days, strike, vol, _turnover(coin, days, moneyness / vol / math.sqrt(years)), "call")
    puts = _one_side(coin, days, strike, vol, _turnover(coin, days, -moneyness / vol / math.sqrt(years)), "put")
    return pl.concat([calls, puts])


def _one_side(coin: Coin, days: int, strike: Floats, vol: Floats, popularity: Floats, side: str) -> pl.DataFrame:
    expiry = AS_OF + timedelta(days=days)
    ids = [f"{coin.symbol}-{expiry:%Y%m%d}-{value:.10g}-{side[0].upper()}" for value in strike]
    columns = {"instrument_id": ids, "strike": strike, "mark_iv": vol, "popularity": popularity}
    return pl.DataFrame(columns).with_columns(
        kind=pl.lit("option"),
        underlying=pl.lit(coin.symbol),
        expiry=pl.lit(expiry, _TIMESTAMP),
        option_type=pl.lit(side),
        lots_per_unit=pl.lit(coin.lots_per_unit, pl.Int64),
        mark_price=pl.lit(None, pl.Float64),
        funding_rate=pl.lit(None, pl.Float64),
    )


def _turnover(coin: Coin, days: int, deviations_out: Floats) -> Floats:
    """Trade goes to near expiries and to strikes just out of the money (`deviations_out` > 0 is out)."""
    width = np.where(deviations_out > 0.4, 0.9, 0.6)
    shape = np.exp(-0.5 * ((deviations_out - 0.4) / width) ** 2) + 0.004
    friday = 1.0 if days > 3 else 0.35  # dailies live for days only, so less piles up in them
    result: Floats = coin.weight * friday / (days + 25.0) ** 0.6 * shape / shape.sum()
    return result


def _perpetuals(rng: np.random.Generator, coins: tuple[Coin, ...]) -> pl.DataFrame:
    spot = np.array([coin.spot for coin in coins])
    premium = rng.normal(1e-4, 2e-4, len(coins))
    return pl.DataFrame(
        {
            "instrument_id": [f"{coin.symbol}-PERP" for coin in coins],
            "kind": "perpetual",
            "underlying": [coin.symbol for coin in coins],
            "mark_price": np.round(spot * (1.0 + premium), 6),
            "funding_rate": np.round(1.25e-5 + premium / 8.0, 8),
            "popularity": [coin.weight for coin in coins],
            "lots_per_unit": [coin.lots_per_unit for coin in coins],
        }
    )


def _forward(coin: Coin, days: int) -> float:
    """Spot with a basis that starts low and reaches the coin's carry within some months, to 8 significant digits."""
    years = days / _DAYS_PER_YEAR
    return float(f"{coin.spot * math.exp(coin.carry * years * (1.0 - 0.4 * math.exp(-6.0 * years))):.8g}")


def _forwards(coins: tuple[Coin, ...]) -> pl.DataFrame:
    keys = [(coin, days) for coin in coins for days in coin.tenors]
    columns = {
        "underlying": [coin.symbol for coin, _ in keys],
        "expiry": pl.Series([AS_OF + timedelta(days=days) for _, days in keys], dtype=_TIMESTAMP),
        "forward": [_forward(coin, days) for coin, days in keys],
    }
    ones = {f"{name}_confidence": 1.0 for name in ("forward", "rate", "vol")}
    return pl.DataFrame(columns).with_columns(
        quote=pl.lit("USDC"), rate=0.0, forward_fixed=0.0, timestamp=_as_of(), **{k: pl.lit(v) for k, v in ones.items()}
    )


def _prices(rng: np.random.Generator, coins: tuple[Coin, ...]) -> pl.DataFrame:
    assets = {coin.symbol: coin.spot for coin in coins} | _STABLES
    confidence = np.where(rng.random(len(assets)) < 0.1, 0.98, 1.0)
    columns = {"asset": list(assets), "price": list(assets.values()), "confidence": confidence}
    return pl.DataFrame(columns).with_columns(timestamp=_as_of())


def _assets(coins: tuple[Coin, ...]) -> pl.DataFrame:
    decimals = {coin.symbol: coin.decimals for coin in coins} | dict.fromkeys(_STABLES, _STABLE_DECIMALS)
    return pl.DataFrame({"asset": list(decimals), "decimals": list(decimals.values())})


def _as_of() -> pl.Expr:
    return pl.lit(AS_OF, _TIMESTAMP)
