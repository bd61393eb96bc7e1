"""Liquidation prices of real Hyperliquid accounts with one position, against those that the venue published.

Each account is margined with the model `hyperliquid`, its whole account value taken as cross collateral; the price at
which its maintenance excess is 0 follows from the model's brackets. The file does not say which positions are isolated:
those have less collateral than assumed and miss by much. Positions are of 22 February 2026, brackets of March.

Usage: `python data/check_hyperliquid_liquidation.py`. Reads
`positions/hyperliquid_top_traders_positions_20260222.parquet` under `GPUMARGIN_DATA`, else under `../shared/data`
beside the project.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax
import numpy as np
import polars as pl

from gpumargin.catalogue import load_model
from gpumargin.run import margin
from gpumargin.tables import Book, read_book
from gpumargin_kernels import liquidation_price

AS_OF = "2026-02-22T01:27:00Z"
FILE = "hyperliquid_top_traders_positions_20260222.parquet"


def data_file() -> Path:
    """Where the real file is."""
    folder = Path(os.environ.get("GPUMARGIN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    return folder / "positions" / FILE


def single_positions() -> pl.DataFrame:
    """Accounts with one position for which the venue gives a liquidation price, ascending by account."""
    frame = pl.read_parquet(data_file())
    alone = frame.group_by("trader").len().filter(pl.col("len") == 1)["trader"]
    chosen = frame.filter(pl.col("trader").is_in(alone.implode()), pl.col("liquidationPx").is_not_null())
    signed = pl.when(pl.col("direction") == "Long").then(pl.col("size")).otherwise(-pl.col("size"))
    return chosen.with_columns(
        quantity=signed, mark=pl.col("positionValue") / pl.col("size"), instrument_id=pl.format("{}-PERP", "trader")
    ).sort("trader")


def book_of(frame: pl.DataFrame) -> Book:
    """Each account with a contract of its own, marked where its position was valued."""
    listed = {"kind": pl.lit("perpetual"), "underlying": pl.col("coin"), "settlement": pl.lit("USDC")}
    coins = frame.group_by("coin").agg(pl.col("mark").first()).select(asset="coin", price="mark")
    schema = {"underlying": pl.String, "expiry": pl.Datetime("us", "UTC"), "forward": pl.Float64}
    return read_book(
        instruments=frame.select("instrument_id", **listed),
        marks=frame.select("instrument_id", mark_price="mark"),
        forwards=pl.DataFrame(schema=schema),
        prices=pl.concat([coins, pl.DataFrame({"asset": ["USDC"], "price": [1.0]})]),
        positions=frame.select("instrument_id", "quantity", account_id="trader"),
        balances=frame.select(account_id="trader", asset=pl.lit("USDC"), amount="accountValue"),
    )


def relative_errors(frame: pl.DataFrame) -> np.ndarray:
    """Our liquidation price against the venue's, relative; infinite where we find none."""
    model = load_model("hyperliquid")
    run = margin(book_of(frame), model, as_of=AS_OF, device="cpu")
    excess = run.accounts.sort("account_id")["maintenance_excess"].to_numpy()
    by_coin = model.file.tables["tiers"]
    tables = [by_coin.get(coin, by_coin["default"]) for coin in frame["coin"]]
    longest = max(map(len, tables))
    padded = np.array([[*table, *[table[-1]] * (longest - len(table))] for table in tables])
    with jax.enable_x64(True):
        found = liquidation_price(frame["mark"].to_numpy(), frame["quantity"].to_numpy(), excess, padded)
    published = frame["liquidationPx"].to_numpy()
    return np.nan_to_num(np.abs(np.asarray(found) / published - 1), nan=np.inf)


def main() -> int:
    """Prints how the errors are distributed."""
    if not data_file().is_file():
        sys.stderr.write(f"no {data_file()}; set GPUMARGIN_DATA to the folder that holds positions/\n")
        return 2
    errors = relative_errors(single_positions())
    shares = ", ".join(f"{np.mean(errors <= room):.0%} within {room:.1%}" for room in (0.001, 0.01, 0.05, 0.2))
    quartiles = ", ".join(f"{q:.3%}" for q in np.quantile(errors, [0.25, 0.5, 0.75], method="lower"))
    sys.stdout.write(f"{len(errors)} accounts: {shares}; quartiles of the error {quartiles}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
