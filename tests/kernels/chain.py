"""One snapshot of a venue's whole option chain, by expiry, where this machine has it."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = "options/deribit_btc_eth_chain_20251230_20260531.parquet"
SNAPSHOT = "deribit_options_snapshot_20260205T212937Z.csv"  # 2026-02-05 21:29 UTC, BTC 11 % down on the day
SECONDS_PER_YEAR = 365 * 86400


class Expiries(NamedTuple):
    """Options by expiry, padded with weight 0."""

    name: list[str]  # [E]
    forward: np.ndarray  # [E] median of the underlyings that the file gives for the expiry
    years: np.ndarray  # [E]
    strike: np.ndarray  # [E, Q]
    vol: np.ndarray  # [E, Q]
    weight: np.ndarray  # [E, Q] vega


class Pairs(NamedTuple):
    """Calls less puts of one strike, by expiry, in coin, padded with weight 0."""

    strike: np.ndarray  # [E, Q]
    difference: np.ndarray  # [E, Q] of mark prices
    middle: np.ndarray  # [E, Q] of mid prices, NaN where one side has no quote
    weight: np.ndarray  # [E, Q]
    middle_weight: np.ndarray  # [E, Q] 1 / squared sum of the spreads between bid and ask


@cache
def _snapshot() -> pl.DataFrame:
    path = Path(os.environ.get("GPUMARGIN_DATA", ROOT.parent / "shared" / "data")) / FILE
    if not path.exists():
        pytest.skip(f"no {path} on this machine; set GPUMARGIN_DATA")
    chain = pl.scan_parquet(path).filter(pl.col("snapshot_file") == SNAPSHOT).collect()
    times = [pl.col(name).str.to_datetime(time_zone="UTC") for name in ("timestamp", "expiry_datetime")]
    left = (pl.col("expiry_datetime") - pl.col("timestamp")).dt.total_seconds()
    return chain.with_columns(times).with_columns(years=left / SECONDS_PER_YEAR)


def _padded(column: pl.Series, value: float) -> np.ndarray:
    width = int(column.list.len().max())  # type: ignore[arg-type]
    return np.array([row + [value] * (width - len(row)) for row in column.to_list()], np.float64)


def chain_expiries() -> Expiries:
    """Every expiry of both currencies; skips the test where the file is absent."""
    columns: list[Any] = ["strike", pl.col("implied_volatility").alias("vol"), "vega"]
    by_expiry = (
        _snapshot()
        .group_by("currency", "expiry_datetime")
        .agg(*columns, pl.col("underlying").median(), pl.col("years").median())
        .sort("currency", "expiry_datetime")
    )
    return Expiries(
        by_expiry["currency"].to_list(),
        by_expiry["underlying"].to_numpy(),
        by_expiry["years"].to_numpy(),
        _padded(by_expiry["strike"], 1.0),
        _padded(by_expiry["vol"], 1.0),
        _padded(by_expiry["vega"], 0.0),
    )


def chain_pairs() -> Pairs:
    """Pairs in the order of `chain_expiries`."""
    key = ["currency", "expiry_datetime", "strike"]
    calls, puts = (_snapshot().filter(pl.col("option_type") == kind) for kind in ("call", "put"))
    pairs = calls.join(puts, on=key, suffix="_put").with_columns(
        difference=pl.col("mark_price") - pl.col("mark_price_put"),
        middle=(pl.col("mid_price") - pl.col("mid_price_put")).fill_null(float("nan")),
        middle_weight=(pl.col("bid_ask_spread") + pl.col("bid_ask_spread_put")).pow(-2).fill_null(0.0),
    )
    columns = ("strike", "difference", "middle", "middle_weight")
    by_expiry = pairs.group_by(key[:2]).agg(*columns).sort(key[:2])
    strike, difference, middle, middle_weight = (_padded(by_expiry[name], np.nan) for name in columns)
    is_pair = ~np.isnan(strike)
    return Pairs(strike, difference, middle, np.where(is_pair, 1.0, 0.0), np.where(is_pair, middle_weight, 0.0))
