"""Prints the numbers of the model `simm-like` as one TOML fragment, each with the figure before rounding.

Nobody publishes these numbers for crypto assets: they are estimates from public prices by fixed rules, the same on
every run. Coins and days are those of `calibrate_correlated_pm`. The buckets are ours: majors, large alternative coins,
and everything else.

1. `weight`: the largest over a bucket's coins of the 99 % quantile of absolute 10-day moves, overlapping windows, in
   per cent, rounded up to 1. The bucket of all others, for which there are no prices here, takes the largest of all.
2. `correlation`, `across`: median over pairs of coins of the median rolling 90-day correlation of daily log returns,
   to 0.05. Sensitivities have signs, so neither a high nor a low correlation is the cautious one. All others: 0.
3. `threshold`: what 1 % makes on a tenth of the median daily turnover of the last 365 days of the daily perpetual file,
   the smallest over a bucket's coins, two digits. All others: a tenth of the alternative coins'.
4. `vega_weight`: 99 % quantile of absolute relative 10-day changes of the at-the-money vol nearest to 30 days, the
   larger of BTC and ETH over the option chain file, rounded up to 0.05; one for all buckets.
5. `vega_threshold`: weight * threshold, the requirement of a factor that just becomes concentrated.
6. `vol_ratio`: realised vol of daily log returns over the vol that the weight stands for, the larger of the majors,
   to 0.05.

Usage: `python -m data.calibrate_simm_like` from the project's root. Reads `prices` and `options` under
`GPUMARGIN_DATA`, else under `../shared/data` beside the project.
"""

from __future__ import annotations

import math
import sys
from itertools import combinations, product
from statistics import NormalDist

import numpy as np
import polars as pl

from data.calibrate_correlated_pm import (
    CORRELATION_DAYS,
    DAILY,
    FIRST,
    LAST,
    coin_closes,
    moves,
    prices_folder,
    read,
    round_up,
)

BUCKETS = {"majors": ("BTC", "ETH"), "alts": ("SOL", "DOGE", "LINK", "BNB")}
CHAIN = "deribit_btc_eth_chain_20251230_20260531"
HORIZON_DAYS, QUANTILE, VOL_DAYS = 10, 0.99, 30
TURNOVER_DAYS, TURNOVER_SHARE, OTHERS_SHARE = 365, 0.1, 0.1
WEIGHT_STEP, STEP = 1.0, 0.05

Closes = dict[str, pl.DataFrame]


def weight(coin: str, closes: Closes) -> float:
    """Rule 1 for one coin, per cent, before rounding."""
    return 100 * float(np.quantile(np.abs(moves(closes[coin], HORIZON_DAYS)), QUANTILE))


def pair(first: pl.DataFrame, second: pl.DataFrame) -> float:
    """Rule 2 for one pair, on the days both have."""
    both = first.join(second, on="day", suffix="_2").sort("day")
    returns = both.select(a=pl.col("close").log().diff(), b=pl.col("close_2").log().diff()).drop_nulls()
    rolling = returns.select(pl.rolling_corr("a", "b", window_size=CORRELATION_DAYS)).to_series().drop_nulls()
    return float(np.median(rolling.to_numpy()))


def to_step(value: float) -> float:
    """Nearest multiple of 0.05."""
    return round(round(value / STEP) * STEP, 2)


def turnover(coin: str) -> float:
    """Median daily turnover of a coin's perpetual, USD."""
    rows = read(DAILY).filter(pl.col("symbol") == f"{coin}USDT", pl.col("time").dt.date() <= LAST)
    return float(np.median(rows.tail(TURNOVER_DAYS)["turnover"].to_numpy()))


def threshold(coins: tuple[str, ...]) -> float:
    """Rule 3 for one bucket, two digits."""
    smallest = min(turnover(coin) for coin in coins) * TURNOVER_SHARE / 100
    return round(smallest, 1 - math.floor(math.log10(smallest)))


def atm_vols(coin: str) -> np.ndarray:
    """One vol per day: of the strike nearest to the forward in the expiry nearest to 30 days."""
    chain = pl.read_parquet(prices_folder().parent / "options" / f"{CHAIN}.parquet")
    rows = chain.filter(pl.col("currency") == coin, pl.col("implied_volatility") > 0).with_columns(
        day=pl.col("timestamp").str.slice(0, 10),
        far=(pl.col("time_to_maturity") * 365.25 - VOL_DAYS).abs(),
        off=(pl.col("strike") / pl.col("underlying")).log().abs(),
    )
    nearest = rows.sort("day", "timestamp", "far", "off", "option_type").group_by("day", maintain_order=True).first()
    return nearest["implied_volatility"].to_numpy()


def vol_move(coin: str) -> float:
    """Rule 4 for one coin, before rounding."""
    vols = atm_vols(coin)
    return float(np.quantile(np.abs(vols[HORIZON_DAYS:] / vols[:-HORIZON_DAYS] - 1), QUANTILE))


def vol_ratio(coin: str, closes: Closes, per_cent: float) -> float:
    """Rule 6 for one coin, before rounding."""
    returns = np.diff(np.log(closes[coin]["close"].to_numpy()))
    realised = float(np.std(returns, ddof=1)) * math.sqrt(365) * 100
    return realised / (per_cent * math.sqrt(365 / HORIZON_DAYS) / NormalDist().inv_cdf(QUANTILE))


def bucket_lines(name: str, numbers: dict[str, float]) -> list[str]:
    """The fragment of one bucket."""
    return [f"[aggregation.buckets.{name}]", *(f"{key} = {value!r}" for key, value in numbers.items()), ""]


def fragments() -> str:
    """The fragment, one TOML document."""
    closes = {coin: coin_closes(coin) for coins in BUCKETS.values() for coin in coins}
    weights = {coin: weight(coin, closes) for coin in closes}
    vols = {coin: vol_move(coin) for coin in BUCKETS["majors"]}
    vega_weight = round_up(max(vols.values()), STEP)
    per_cent = {name: round_up(max(weights[coin] for coin in coins), WEIGHT_STEP) for name, coins in BUCKETS.items()}
    inside = {
        name: float(np.median([pair(closes[a], closes[b]) for a, b in combinations(coins, 2)]))
        for name, coins in BUCKETS.items()
    }
    across = float(np.median([pair(closes[a], closes[b]) for a, b in product(*BUCKETS.values())]))
    limits = {name: threshold(coins) for name, coins in BUCKETS.items()}
    per_cent["others"], inside["others"] = max(per_cent.values()), 0.0
    limits["others"] = float(f"{limits['alts'] * OTHERS_SHARE:.2g}")
    ratios = {coin: vol_ratio(coin, closes, per_cent["majors"]) for coin in BUCKETS["majors"]}
    lines = [
        f"# coins {FIRST} to {LAST}; 10-day moves {', '.join(f'{c} {w:.2f} %' for c, w in weights.items())}",
        f"# vols {', '.join(f'{coin} {move:.4f}' for coin, move in vols.items())} from {CHAIN}",
        f"# correlations {', '.join(f'{name} {rho:.4f}' for name, rho in inside.items())}, across {across:.4f}",
        f"# vol ratios {', '.join(f'{coin} {ratio:.4f}' for coin, ratio in ratios.items())}",
        "[aggregation]",
        f"horizon_days = {HORIZON_DAYS}",
        f"vol_ratio = {to_step(max(ratios.values()))}",
        f"across = {[[1.0, to_step(across), 0.0], [to_step(across), 1.0, 0.0], [0.0, 0.0, 1.0]]}",
        "",
    ]
    for name in (*BUCKETS, "others"):
        numbers = {
            "correlation": to_step(inside[name]),
            "weight": per_cent[name],
            "threshold": limits[name],
            "vega_weight": vega_weight,
            "vega_threshold": float(f"{limits[name] * per_cent[name]:.2g}"),
        }
        lines += bucket_lines(name, numbers)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(fragments())
