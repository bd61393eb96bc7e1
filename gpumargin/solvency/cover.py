"""Scenario by scenario: what is uncovered, what the insurance funds leave of it, and how many defaults they survive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from gpumargin.errors import InternalError
from gpumargin.pack.columns import Ints
from gpumargin.solvency.default_fund import two_largest
from gpumargin.solvency.sources import Sources
from gpumargin.solvency.stress import Stressed
from gpumargin.sums import exact_sum

_LISTED = 1000
_MOST = 2**63 - 1
_TYPES = {
    "pnl_minor": pl.Int64,
    "losses_minor": pl.Int64,
    "turned_bankrupt": pl.Int64,
    "bankrupt": pl.Int64,
    "uncovered_minor": pl.Int64,
    "cover1_minor": pl.Int64,
    "cover2_minor": pl.Int64,
    "turned_liquidatable": pl.Int64,
    "liquidatable_notional": pl.Float64,
    "fund_after_minor": pl.Int64,
    "beyond_fund_minor": pl.Int64,
    "defaults_survived": pl.Int64,
}


def fund_total(sources: Sources, money: str) -> int | None:
    """What all funds of the book are worth at its prices, minor units of an accounting asset; None without funds."""
    if "funds" not in sources.book.tables:
        return None
    funds = sources.book.frame("funds").select(pl.col("asset").cast(pl.String), pl.col("amount").cast(pl.Float64))
    scale = 10 ** sources.decimals[money]
    worth: list[int] = [math.floor(amount * sources.price(asset, money) * scale) for asset, amount in funds.iter_rows()]
    return sum(worth)


def survived(deficits: Ints, fund: int) -> int:
    """How many of the largest deficits, taken at once, a fund covers. `deficits` is descending."""
    left = fund
    for count, deficit in enumerate(deficits.tolist()):
        left -= deficit
        if left < 0:
            return count
    return len(deficits)


def scenario_totals(scenarios: pl.DataFrame, found: Stressed, groups: Ints, fund: int | None) -> pl.DataFrame:
    """One row per scenario, in the order of `scenario_pnl`.

    Args:
      scenarios: of the model.
      found: sums over its accounts.
      groups: `[A]` accounts that default together.
      fund: minor units; None without funds.
    """
    moves = scenarios.group_by("id", "column", "set", maintain_order=True).agg(
        spot_move_from=pl.col("spot_move").min(),
        spot_move_to=pl.col("spot_move").max(),
        vol_rule=pl.col("vol_rule").first().cast(pl.String),
        weight=pl.col("weight").max(),
    )
    rows = [_row(found, column, groups, fund) for column in range(len(found.pnl))]
    return pl.concat([moves.sort("column"), pl.DataFrame(_fitting(rows), schema=_TYPES)], how="horizontal")


def _fitting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows.

    Raises:
      InternalError: GM117, a sum needs more than 64 bits.
    """
    largest = max((abs(value) for row in rows for value in row.values() if isinstance(value, int)), default=0)
    if largest > _MOST:
        message = (
            f"GM117: a sum of {largest} minor units does not fit int64; give the accounting asset fewer decimals "
            "in the assets table"
        )
        raise InternalError(message)
    return rows


def _row(found: Stressed, scenario: int, groups: Ints, fund: int | None) -> dict[str, Any]:
    accounts, deficits = found.deficits_of(scenario)
    uncovered = exact_sum(deficits)
    cover1, cover2 = two_largest(deficits_by_group(groups[accounts], deficits)).tolist()
    row: dict[str, Any] = {
        "pnl_minor": found.pnl[scenario],
        "losses_minor": found.losses[scenario],
        "turned_bankrupt": int(found.turned_bankrupt[scenario]),
        "bankrupt": len(deficits),
        "uncovered_minor": uncovered,
        "cover1_minor": cover1,
        "cover2_minor": cover2,
        "turned_liquidatable": int(found.turned_liquidatable[scenario]),
        "liquidatable_notional": float(found.notional[scenario]),
    }
    left = None if fund is None else max(fund - uncovered, 0)
    beyond = None if fund is None else max(uncovered - fund, 0)
    cover = None if fund is None else survived(deficits, fund)
    return row | {"fund_after_minor": left, "beyond_fund_minor": beyond, "defaults_survived": cover}


def deficits_by_group(group: Ints, deficits: Ints) -> Ints:
    """Sums of deficits, one for each group among them."""
    found, row = np.unique(group, return_inverse=True)
    sums = np.zeros(len(found), np.int64)
    np.add.at(sums, row, deficits)
    return sums


def worst_scenario(found: Stressed) -> int:
    """The scenario that leaves most uncovered; among equals the one in which accounts lose most."""
    uncovered = [exact_sum(found.deficits_of(s)[1]) for s in range(len(found.pnl))]
    return max(range(len(uncovered)), key=lambda s: (uncovered[s], -found.losses[s], -s))


def stressed_accounts(sources: Sources, found: Stressed, ids: Sequence[str]) -> pl.DataFrame:
    """The accounts whose equity is negative after each scenario, who owes most first, at most `_LISTED` of each."""
    frames = []
    for scenario, name in enumerate(ids):
        account, deficit = (values[:_LISTED] for values in found.deficits_of(scenario))
        own = sources.accounts[account].select(pl.col("account_id").cast(pl.String), "pool", "status", "equity_minor")
        frames.append(
            own.with_columns(stressed_equity_minor=pl.Series(-deficit, dtype=pl.Int64), scenario=pl.lit(name))
        )
    return pl.concat(frames)
