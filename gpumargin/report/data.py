"""What the figures and tables of a report show, as frames: each figure is drawn from one of them and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from gpumargin.files import whole_table
from gpumargin.runs import run_json, run_table

_LOWEST, _HIGHEST, _BINS_PER_DECADE = 0.1, 100.0, 12
_HIGHEST_USE = 2.0
_WORST = 20
_VOLS = {
    "up": "vol up",
    "none": "vol as it is",
    "down": "vol down",
    "skew_linear": "smile tilted",
    "skew_abs": "smile bent",
}
VOL_ORDER = tuple(_VOLS.values())


@dataclass(frozen=True)
class RunData:
    """A run folder, read once.

    Attributes:
      folder: the run.
      summary: of the run.
      manifest: of the run.
      accounts: every margin account.
      solvency: figures of its snapshot; None if it has none.
    """

    folder: Path
    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]
    accounts: pl.DataFrame
    solvency: Mapping[str, Any] | None

    def solvency_table(self, name: str) -> pl.DataFrame | None:
        """A table of the snapshot; None if there is none."""
        path = self.folder / "solvency" / f"{name}.parquet"
        return cast("pl.DataFrame", pl.from_arrow(whole_table(path))) if path.is_file() else None

    def decimals(self, money: str) -> int:
        """Decimals of the minor unit of an accounting asset."""
        text = str(self.summary["by_accounting_asset"][money]["totals"]["equity"])
        return len(text.partition(".")[2])


def read_run(folder: Path) -> RunData:
    """Reads what a report shows of a run."""
    summary = run_json(folder, "summary")
    assets = {label: model["accounting_asset"] for label, model in summary["models"].items()}
    words = [pl.col(name).cast(pl.String) for name in ("account_id", "pool", "model", "status")]
    columns = [
        "equity", "initial_balance", "initial_margin", "maintenance_balance", "maintenance_margin",
        "maintenance_excess", "health", "equity_minor", "initial_margin_minor", "maintenance_margin_minor",
    ]  # fmt: skip
    accounts = run_table(folder, "accounts").select(*words, *columns).collect()
    accounts = accounts.with_columns(accounting_asset=pl.col("model").replace_strict(assets, return_dtype=pl.String))
    has_snapshot = (folder / "solvency" / "solvency.json").is_file()
    solvency = run_json(folder / "solvency", "solvency") if has_snapshot else None
    return RunData(folder, summary, run_json(folder, "manifest"), accounts, solvency)


def health_histogram(accounts: pl.DataFrame) -> pl.DataFrame:
    """Accounts by health, in bins of equal ratio; what lies beyond the ends is in the last bin of that end."""
    health = accounts["health"].drop_nulls().drop_nans().to_numpy()
    decades = np.log10(_HIGHEST / _LOWEST)
    edges = np.logspace(np.log10(_LOWEST), np.log10(_HIGHEST), round(decades * _BINS_PER_DECADE) + 1)
    counts, _ = np.histogram(np.clip(health, _LOWEST, _HIGHEST), edges)
    return pl.DataFrame({"health_from": edges[:-1], "health_to": edges[1:], "accounts": counts.astype(np.int64)})


def utilisation_curve(accounts: pl.DataFrame) -> pl.DataFrame:
    """Share of accounts, and of their requirement, whose maintenance margin is at most a share of their balance.

    An account whose balance is not positive is beyond every share.
    """
    own = accounts.filter(pl.col("maintenance_margin").is_finite() & (pl.col("maintenance_margin") > 0))
    margin, balance = own["maintenance_margin"].to_numpy(), own["maintenance_balance"].to_numpy()
    use = np.where(balance > 0, margin / np.where(balance > 0, balance, 1.0), np.inf)
    order = np.argsort(use, kind="stable")
    levels = np.linspace(0.0, _HIGHEST_USE, 201)
    place = np.searchsorted(use[order], levels, side="right")
    by_margin = np.concatenate([[0.0], np.cumsum(margin[order])])
    return pl.DataFrame(
        {
            "utilisation": levels,
            "share_of_accounts": place / max(len(use), 1),
            "share_of_margin": by_margin[place] / max(by_margin[-1], 1e-300),
        }
    )


def quantiles(accounts: pl.DataFrame, shares: tuple[float, ...] = (0.5, 0.9, 0.99)) -> dict[str, float]:
    """Utilisation of the maintenance balance that shares of the accounts stay below."""
    own = accounts.filter((pl.col("maintenance_margin") > 0) & (pl.col("maintenance_balance") > 0))
    use = own.select(pl.col("maintenance_margin") / pl.col("maintenance_balance")).to_series()
    return {f"{share:.0%}": float(use.quantile(share) or 0.0) for share in shares}


def _placed(totals: pl.DataFrame) -> pl.DataFrame:
    """Scenarios with their place on an axis of spot: the middle of the units' moves, which may differ."""
    return totals.with_columns(place=((pl.col("spot_move_from") + pl.col("spot_move_to")) / 2).round(9))


def _move_words(low: float, high: float) -> str:
    """`-15%`, or over two lines the least and the greatest move of the units."""
    first, last = (f"{100 * move:+.3g}%".replace("+0%", "0%") for move in sorted((low, high), key=abs))
    return first if first == last else f"{first}\nto {last}"


def stress_grid(totals: pl.DataFrame, decimals: int) -> pl.DataFrame:
    """The largest scenario set as a grid of spot moves and vol rules, the worst of several scenarios in one place.

    Returns:
      place (on the axis of spot), move (its words), vol, pnl, losses, uncovered and bankrupt.
    """
    largest = totals.group_by("set").len().sort(["len", "set"], descending=[True, False])["set"][0]
    own = _placed(totals.filter(pl.col("set") == largest))
    words = [_move_words(*pair) for pair in own.select("spot_move_from", "spot_move_to").iter_rows()]
    scale = 10.0**decimals
    return (
        own.with_columns(
            move=pl.Series(words, dtype=pl.String),
            vol=pl.col("vol_rule").replace_strict(_VOLS, default=pl.col("vol_rule")),
        )
        .group_by("place", "move", "vol")
        .agg(
            pnl=pl.col("pnl_minor").min() / scale,
            losses=pl.col("losses_minor").min() / scale,
            uncovered=pl.col("uncovered_minor").max() / scale,
            bankrupt=pl.col("bankrupt").max(),
        )
        .sort("place", "move", "vol")
    )


def liquidation_ladder(totals: pl.DataFrame) -> pl.DataFrame:
    """Notional and accounts that turn liquidatable by spot move: vol as it is, and the worst of all vol rules.

    Where units move by different shares, a scenario stands at the middle of them.
    """
    calm = pl.col("vol_rule") == "none"
    return (
        _placed(totals)
        .group_by(spot_move="place")
        .agg(
            notional_vol_as_it_is=pl.col("liquidatable_notional").filter(calm).max(),
            notional_worst_vol=pl.col("liquidatable_notional").max(),
            accounts_vol_as_it_is=pl.col("turned_liquidatable").filter(calm).max(),
            accounts_worst_vol=pl.col("turned_liquidatable").max(),
        )
        .sort("spot_move")
    )


def worst_accounts(accounts: pl.DataFrame) -> pl.DataFrame:
    """Accounts with the lowest maintenance excess."""
    keys = ("account_id", "pool", "status", "equity", "maintenance_margin", "maintenance_excess", "health")
    return accounts.sort("maintenance_excess", "account_id", "pool", nulls_last=True).head(_WORST).select(keys)
