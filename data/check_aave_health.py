"""Health factors of real Aave accounts of June 2023 through the model file, against what the pool itself reported.

Two ways. `by account`: each account's collateral as one asset that carries the account's own average threshold, which
the pool reports in whole basis points: what is left is rounding. `by asset`: wstETH, rETH and cbETH with the numbers of
`aave-v3@2023-06-21`, efficiency mode by the account's own, for accounts that hold nothing else; the amounts were read
some minutes apart from the totals, so that values differ by 2e-4.

Usage: `python data/check_aave_health.py`. Reads `positions/aave_v3_steth_accounts_202306.parquet` and
`positions/aave_v2_steth_accounts_202306.parquet` under `GPUMARGIN_DATA`, else under `../shared/data` beside the
project.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import polars as pl

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.run import margin
from gpumargin.tables import Book, read_book

AS_OF = "2023-06-21T00:00:00Z"
MODEL = "aave-v3@2023-06-21"
FILES = {version: f"aave_{version}_steth_accounts_202306.parquet" for version in ("v2", "v3")}
# Column of the amount and of the price by asset; the price of the first is that of staked ETH wrapped.
_HOLDINGS = {
    "wstETH": ("amount", "steth_price"),
    "rETH": ("reth_collateral", "reth_price"),
    "cbETH": ("cbeth_collateral", "cbeth_price"),
}
_EXPLAINED = 1e-3  # share of the collateral that may be something else


def data_folder() -> Path:
    """Where the real files are."""
    return Path(os.environ.get("GPUMARGIN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def accounts_of(version: str) -> pl.DataFrame:
    """The accounts of one version of the pool, with an id of their own."""
    frame = pl.read_parquet(data_folder() / "positions" / FILES[version])
    return frame.with_row_index("row").with_columns(account_id=pl.format("{}-{}", pl.col("row"), pl.col("user")))


def _book(balances: pl.DataFrame, prices: dict[str, float], accounts: pl.DataFrame | None = None) -> Book:
    ids = dict.fromkeys(("instrument_id", "kind", "underlying", "settlement"), pl.String)
    time = pl.Datetime("us", "UTC")
    tables = {
        "instruments": pl.DataFrame(schema=ids),
        "marks": pl.DataFrame(schema={"instrument_id": pl.String}),
        "forwards": pl.DataFrame(schema={"underlying": pl.String, "expiry": time, "forward": pl.Float64}),
        "positions": pl.DataFrame(schema={"account_id": pl.String, "instrument_id": pl.String, "quantity": pl.Float64}),
        "prices": pl.DataFrame({"asset": list(prices), "price": list(prices.values())}),
        "balances": balances,
    }
    return read_book(**(tables if accounts is None else tables | {"accounts": accounts}))


def _debts(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("account_id", asset=pl.lit("money"), amount=-pl.col("debt"))


def by_account(frame: pl.DataFrame) -> tuple[Book, MarginModel]:
    """Each account's collateral as one asset with the account's own threshold."""
    held = frame.select("account_id", asset=pl.format("at-{}", pl.col("threshold")), amount=pl.col("collateral"))
    thresholds = sorted(frame["threshold"].unique())
    shares = {f"at-{t}": t / 1e4 for t in thresholds}
    model = load_model(MODEL).replace({"collateral.maintenance.assets": {"default": 0.0} | shares})
    return _book(pl.concat([held, _debts(frame)]), {"money": 1.0} | dict.fromkeys(shares, 1.0)), model


def explained(frame: pl.DataFrame) -> pl.DataFrame:
    """Accounts whose collateral is the three staked assets and nothing else."""
    parts = sum(pl.col(f"collateral_{name}_calc") for name in ("steth", "reth", "cbeth"))
    return frame.filter(((pl.col("collateral") - parts) / pl.col("collateral")).abs() < _EXPLAINED)


def by_asset(frame: pl.DataFrame) -> tuple[Book, MarginModel]:
    """The three staked assets with the numbers of the model file and the account's efficiency mode."""
    held = [
        frame.select("account_id", asset=pl.lit(asset), amount=pl.col(amount)).filter(pl.col("amount") > 0)
        for asset, (amount, _) in _HOLDINGS.items()
    ]
    prices = {asset: float(frame[price][0]) for asset, (_, price) in _HOLDINGS.items()}
    modes = frame.select("account_id", emode=pl.col("emode").cast(pl.String))
    return _book(pl.concat([*held, _debts(frame)]), prices | {"money": 1.0}, modes), load_model(MODEL)


def errors(frame: pl.DataFrame, book: Book, model: MarginModel) -> np.ndarray:
    """Relative error of the health factor of every account, `[A]`."""
    run = margin(book, model, as_of=AS_OF, device="cpu")
    found = run.accounts.select(pl.col("account_id").cast(pl.String), "health")
    joined = frame.join(found, on="account_id", how="left")
    return (joined["health"] / joined["healthf"] - 1).to_numpy()


def main() -> None:
    """Prints the distribution of errors of both ways."""
    v2, v3 = accounts_of("v2"), accounts_of("v3")
    for title, frame, ways in (
        ("v2 by account", v2, by_account),
        ("v3 by account", v3, by_account),
        ("v3 by asset", explained(v3), by_asset),
    ):
        found = np.abs(errors(frame, *ways(frame)))
        figures = ", ".join(f"p{q} {np.quantile(found, q / 100):.2e}" for q in (50, 90, 99))
        share = f"{len(found)} of {len(v3 if 'v3' in title else v2)} accounts"
        sys.stdout.write(f"{title}: {share}, {figures}, most {found.max():.2e}\n")


if __name__ == "__main__":
    main()
