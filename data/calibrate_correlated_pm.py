"""Prints the numbers of the demonstration model `correlated-pm` as TOML fragments, each with its file and date range.

No venue publishes these numbers: they are estimates from public prices, made by fixed rules, the same on every run.

1. `scenario_range`: 99.7 % quantile of the absolute 2-day simple move, closes at 00:00 UTC, overlapping windows,
   rounded up to 0.01. An underlying that is not listed gets the largest.
2. `correlation`: for each pair the 95 % quantile of the rolling 90-day correlation of daily log returns, at least 0.5,
   to 0.01. High on purpose: the model joins losses, which have no sign, so a low correlation would be the optimistic
   one. Pairs are estimated one by one, so the matrix is checked; one that is not positive semidefinite is replaced by
   the nearest correlation matrix and rounded so that it stays one. An unlisted pair gets the largest of the matrix.
3. `collateral`: haircut = 99 % quantile of the 1-day loss, rounded up to 0.005.
   A token that wraps a coin takes the coin's own loss quantile plus the 99 % quantile of the 1-day fall of their
   price ratio: its own history is shorter and lacks the worst days of the coin.
   A stablecoin takes the deepest discount to one dollar that lasted, over all files that quote it: the lowest median
   of closes over 4 hours in an intraday file (at least half of them quoted), the lowest close in a daily one. Such a
   median ignores single prints (one of 0.2 stands in the hourly file), and a quantile would answer "nearly nothing",
   which is the usual state of a stablecoin and not its risk.
   Weights: maintenance 1 - haircut, initial 1 - 1.5 * haircut, liability 1.

Coins: hourly perpetual closes 2020-01-01 to 2024-04-17 (`perp_usdt_hourly_2020_202404`), then daily perpetual closes
2024-04-18 to 2025-10-21 (`bybit_perp_daily_202301_202510` without its last, unfinished bar). Where both cover a day,
they differ by 0.23 % at most, typically 0.02 %. Wrapping tokens: `spot_usd_daily_2014_202412`, STETH from 2021-12-01
(its first year hardly traded).

Usage: `python data/calibrate_correlated_pm.py`. Reads the folder `prices` under `GPUMARGIN_DATA`, else under
`../shared/data` beside the project.
"""

from __future__ import annotations

import math
import os
import sys
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]

HOURLY = "perp_usdt_hourly_2020_202404"
DAILY = "bybit_perp_daily_202301_202510"
SPOT = "spot_usd_daily_2014_202412"
STABLE_HOURLY = "stablecoin_usdt_hourly_2021_2023"
DEPEG = "usdc_15min_depeg_20230309_20230318"

FIRST, SPLICE, LAST = date(2020, 1, 1), date(2024, 4, 18), date(2025, 10, 21)
COINS = ("BTC", "ETH", "SOL", "DOGE", "LINK", "BNB")
WRAPS = {"WBTC": ("BTC", FIRST), "STETH": ("ETH", date(2021, 12, 1)), "WSTETH": ("ETH", FIRST)}

MOVE_DAYS, MOVE_QUANTILE, MOVE_STEP = 2, 0.997, 0.01
CORRELATION_DAYS, CORRELATION_QUANTILE, CORRELATION_FLOOR, CORRELATION_DIGITS = 90, 0.95, 0.5, 2
LOSS_QUANTILE, HAIRCUT_STEP, INITIAL_MULTIPLE = 0.99, 0.005, 1.5
DEPEG_WINDOW = "4h"
DEPEG_QUIET_DAY = date(2023, 3, 9)


class Estimate(NamedTuple):
    """A number before rounding and where it comes from."""

    value: float
    source: str


def prices_folder() -> Path:
    """Folder of the price files."""
    default = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("GPUMARGIN_DATA", default)) / "prices"


def read(name: str) -> pl.DataFrame:
    """One price file, its time column (whatever its name) as `time`, without zone, UTC."""
    frame = pl.read_parquet(prices_folder() / f"{name}.parquet")
    column = next(column for column in ("Date", "timestamp", "date", "dt") if column in frame.columns)
    # The first 19 characters are date and time in every spelling of these files; a bare date has 10.
    text = pl.col(column).str.slice(0, 19).str.replace("T", " ")
    format_ = "%Y-%m-%d" if name == DAILY else "%Y-%m-%d %H:%M:%S"
    return frame.with_columns(time=text.str.to_datetime(format_)).rename(str.lower, strict=False).sort("time")


def coin_closes(coin: str) -> pl.DataFrame:
    """Daily closes `day`, `close` of one coin, two files spliced at `SPLICE`."""
    symbol = pl.col("symbol") == f"{coin}USDT"
    day = pl.col("time").dt.date()
    hourly = read(HOURLY).filter(symbol, day < SPLICE).group_by(day=day).agg(pl.col("close").last())
    daily = read(DAILY).filter(symbol, day >= SPLICE, day <= LAST).select(day=day, close="close")
    return _without_gaps(pl.concat([hourly, daily]).sort("day"), coin)


def spot_closes(asset: str, since: date) -> pl.DataFrame:
    """Daily USD closes `day`, `close` of one asset from the daily spot file; its last bar is unfinished and dropped."""
    day = pl.col("time").dt.date()
    rows = read(SPOT).filter(pl.col("symbol") == f"{asset}-USD", day >= since).select(day=day, close="close")
    return _without_gaps(rows.head(-1), asset)


def _without_gaps(closes: pl.DataFrame, asset: str) -> pl.DataFrame:
    """The same closes: a missing day would pass a longer move off as a daily one."""
    first, last = closes["day"][0], closes["day"][-1]
    if (last - first).days + 1 != closes.height:
        message = f"expected one close per day for {asset} from {first} to {last}; found {closes.height} rows"
        raise ValueError(message)
    return closes


def span(closes: pl.DataFrame, *files: str) -> str:
    """Where closes come from: files, first and last day, number of days."""
    return f"{' + '.join(files)}, {closes['day'][0]} to {closes['day'][-1]}, {closes.height} closes"


def moves(closes: pl.DataFrame, days: int) -> Floats:
    """Simple returns over overlapping windows of some days."""
    close: Floats = closes["close"].to_numpy()
    return close[days:] / close[:-days] - 1.0


def round_up(value: float, step: float) -> float:
    """Next multiple of a step; a value that is one already, up to rounding, stays."""
    return round(math.ceil(round(value / step, 9)) * step, 6)


def scenario_range(closes: pl.DataFrame) -> Estimate:
    """Rule 1 for one underlying, before rounding."""
    return Estimate(float(np.quantile(np.abs(moves(closes, MOVE_DAYS)), MOVE_QUANTILE)), span(closes, HOURLY, DAILY))


def pair_correlation(first: pl.DataFrame, second: pl.DataFrame) -> float:
    """Rule 2 for one pair, on the days both have."""
    both = first.join(second, on="day", suffix="_2").sort("day")
    returns = both.select(a=pl.col("close").log().diff(), b=pl.col("close_2").log().diff()).drop_nulls()
    rolling = returns.select(pl.rolling_corr("a", "b", window_size=CORRELATION_DAYS)).to_series().drop_nulls()
    high = float(np.quantile(rolling.to_numpy(), CORRELATION_QUANTILE))
    return round(max(CORRELATION_FLOOR, high), CORRELATION_DIGITS)


def correlation_matrix(closes: dict[str, pl.DataFrame]) -> Floats:
    """Rule 2: symmetric, ones on the diagonal, positive semidefinite after rounding. `[U, U]` in the order given."""
    names = list(closes)
    matrix = np.eye(len(names))
    for row, first in enumerate(names):
        for column, second in enumerate(names[:row]):
            matrix[row, column] = matrix[column, row] = pair_correlation(closes[first], closes[second])
    return matrix if smallest_eigenvalue(matrix) >= 0.0 else rounded_correlation(nearest_correlation(matrix))


def smallest_eigenvalue(matrix: Floats) -> float:
    """Smallest eigenvalue of a symmetric matrix."""
    return float(np.linalg.eigvalsh(matrix)[0])


def nearest_correlation(matrix: Floats, *, rounds: int = 500) -> Floats:
    """Nearest correlation matrix in the Frobenius norm: alternating projections with Dykstra's correction.

    Source: N. J. Higham, Computing the nearest correlation matrix, IMA Journal of Numerical Analysis 22 (2002).
    """
    nearest, correction = matrix.copy(), np.zeros_like(matrix)
    for _ in range(rounds):
        shifted = nearest - correction
        values, vectors = np.linalg.eigh(shifted)
        semidefinite = (vectors * np.maximum(values, 0.0)) @ vectors.T
        correction = semidefinite - shifted
        nearest = semidefinite.copy()
        np.fill_diagonal(nearest, 1.0)
    return nearest


def rounded_correlation(matrix: Floats) -> Floats:
    """The matrix to two decimals, moved towards the identity by as few hundredths as keep it semidefinite."""
    for hundredths in range(101):
        mixed = matrix * (1.0 - hundredths / 100)
        np.fill_diagonal(mixed, 1.0)
        rounded = np.round(mixed, CORRELATION_DIGITS)
        if smallest_eigenvalue(rounded) >= 0.0:
            return rounded
    return np.eye(len(matrix))


def loss_quantile(closes: pl.DataFrame) -> float:
    """99 % quantile of the 1-day loss."""
    return float(np.quantile(-moves(closes, 1), LOSS_QUANTILE))


def coin_haircut(coin: str, closes: dict[str, pl.DataFrame]) -> Estimate:
    """Rule 3 for a coin, before rounding."""
    return Estimate(loss_quantile(closes[coin]), span(closes[coin], HOURLY, DAILY))


def wrapper_haircut(asset: str, closes: dict[str, pl.DataFrame]) -> Estimate:
    """Rule 3 for a token that wraps a coin, before rounding; both prices of the ratio close at one time."""
    coin, since = WRAPS[asset]
    ratio = spot_closes(asset, since).join(spot_closes(coin, since), on="day", suffix="_coin").sort("day")
    closing = ratio.select("day", close=pl.col("close") / pl.col("close_coin"))
    value = loss_quantile(closes[coin]) + loss_quantile(closing)
    return Estimate(value, f"{coin} above + ratio to it: {span(closing, SPOT)}")


def lasting_discount(quotes: pl.DataFrame, *, samples: int, par: float, name: str) -> Estimate:
    """Deepest discount of the 4-hour median of `close` to `par`; windows of fewer quotes do not count."""
    median = pl.col("close").rolling_median_by("time", window_size=DEPEG_WINDOW, min_samples=samples)
    lowest = quotes.select("time", level=median).drop_nulls().sort("level", "time").row(0, named=True)
    return Estimate(1.0 - lowest["level"] / par, f"{name}, 4 hours to {lowest['time']:%Y-%m-%d %H:%M}")


def lowest_daily_close(asset: str) -> Estimate:
    """Deepest discount of a daily close to one dollar."""
    lowest = spot_closes(asset, FIRST).sort("close", "day").row(0, named=True)
    return Estimate(1.0 - lowest["close"], f"{SPOT}, close of {lowest['day']}")


def stablecoin_haircuts() -> dict[str, Estimate]:
    """Rule 3 for USDC and USDT, before rounding: the deepest over the files."""
    pair = read(STABLE_HOURLY).filter(pl.col("ticker") == "USDCUSDT")
    depeg = read(DEPEG).rename({"c": "close"})
    in_usdc = pair.with_columns(close=1.0 / pl.col("close"))
    # This venue quoted 1.003 while others quoted 1: its own quiet level is its dollar.
    quiet = depeg.filter(pl.col("time").dt.date() == DEPEG_QUIET_DAY)["close"].to_numpy()
    intraday = {
        "USDC": [
            lasting_discount(depeg, samples=8, par=float(np.median(quiet)), name=DEPEG),
            lasting_discount(pair, samples=2, par=1.0, name=STABLE_HOURLY),
        ],
        "USDT": [lasting_discount(in_usdc, samples=2, par=1.0, name=STABLE_HOURLY)],
    }
    return {asset: max([*found, lowest_daily_close(asset)]) for asset, found in intraday.items()}


def haircuts(closes: dict[str, pl.DataFrame]) -> dict[str, Estimate]:
    """Rule 3 for every asset, before rounding."""
    dollar = {"USD": Estimate(0.0, "the unit of account")}
    coins = {coin: coin_haircut(coin, closes) for coin in closes}
    wrappers = {asset: wrapper_haircut(asset, closes) for asset in WRAPS}
    return dollar | stablecoin_haircuts() | coins | wrappers


def range_lines(closes: dict[str, pl.DataFrame]) -> list[str]:
    """The fragment `scenario_range`."""
    found = {coin: scenario_range(frame) for coin, frame in closes.items()}
    rounded = {coin: round_up(estimate.value, MOVE_STEP) for coin, estimate in found.items()}
    listed = [f"{coin} = {rounded[coin]:.2f}  # {found[coin].value:.5f}: {found[coin].source}" for coin in found]
    return ["[scenario_range]", f"default = {max(rounded.values()):.2f}  # the largest below", *listed, ""]


def correlation_lines(closes: dict[str, pl.DataFrame]) -> list[str]:
    """The fragment `correlation`."""
    matrix = correlation_matrix(closes)
    largest = float(matrix[~np.eye(len(matrix), dtype=bool)].max())
    names = ", ".join(f'"{name}"' for name in closes)
    rows = [f"  [{', '.join(f'{value:.2f}' for value in row)}]," for row in matrix]
    return [
        "[correlation]",
        f"# {HOURLY} + {DAILY}, {FIRST} to {LAST}, per pair the days both have",
        f"# smallest eigenvalue {smallest_eigenvalue(matrix):.4f}",
        f"underlyings = [{names}]",
        f"default = {largest:.2f}  # the largest below",
        *["matrix = [", *rows, "]", ""],
    ]


def collateral_lines(asset: str, estimate: Estimate) -> list[str]:
    """The fragment of one collateral asset."""
    haircut = round_up(estimate.value, HAIRCUT_STEP)
    return [
        f"[collateral.{asset}]",
        f"haircut = {haircut:.3f}  # {estimate.value:.5f}: {estimate.source}",
        f"weight_maintenance = {1.0 - haircut:.4f}",
        f"weight_initial = {1.0 - INITIAL_MULTIPLE * haircut:.4f}",
        "weight_liability = 1.0",
        "",
    ]


def fragments() -> str:
    """All fragments, one TOML document."""
    closes = {coin: coin_closes(coin) for coin in COINS}
    collateral = [line for asset, found in haircuts(closes).items() for line in collateral_lines(asset, found)]
    return "\n".join([*range_lines(closes), *correlation_lines(closes), *collateral]).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(fragments())
