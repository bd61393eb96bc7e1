"""Who and what the book hangs on: the largest accounts, owners and instruments, and Herfindahl indexes."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from gpumargin.pack.columns import Floats
from gpumargin.runs import run_table
from gpumargin.solvency.sources import Sources

_LISTED = 20


def herfindahl(amounts: Floats) -> float:
    """Sum of squared shares, 1 / n for n equal ones and 1 for a single one; 0 of nothing."""
    total = float(amounts.sum())
    return float(np.square(amounts / total).sum()) if total else 0.0


def _ranked(kind: str, money: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, float]:
    """The largest of account_id, pool and amount, with their shares; and the Herfindahl index of all."""
    amounts = np.maximum(frame["amount"].to_numpy(), 0.0)
    total = float(amounts.sum())
    share = amounts / total if total else np.zeros(len(amounts))
    ranked = frame.with_columns(share=pl.Series(share, dtype=pl.Float64)).sort(
        ["amount", "id", "pool"], descending=[True, False, False]
    )
    head = (
        ranked.head(_LISTED).with_row_index("rank", 1).with_columns(kind=pl.lit(kind), accounting_asset=pl.lit(money))
    )
    order = ("kind", "accounting_asset", "rank", "id", "pool", "amount", "share")
    return head.with_columns(pl.col("rank").cast(pl.Int64)).select(order), herfindahl(amounts)


def _accounts(sources: Sources, money: str) -> pl.DataFrame:
    """Maintenance margin by account."""
    own = sources.accounts.filter((pl.col("accounting_asset") == money) & pl.col("maintenance_margin").is_finite())
    return own.select(id=pl.col("account_id").cast(pl.String), pool="pool", amount="maintenance_margin")


def _owners(sources: Sources, money: str) -> pl.DataFrame | None:
    """Maintenance margin by owner; None where the book names none."""
    if not (sources.folder / "owners.parquet").is_file():
        return None
    own = run_table(sources.folder, "owners").filter(pl.col("accounting_asset").cast(pl.String) == money).collect()
    amount = pl.col("maintenance_margin_minor").fill_null(0) / 10.0 ** sources.decimals[money]
    return own.select(id=pl.col("owner_id").cast(pl.String), pool=pl.lit(""), amount=amount)


def concentration(sources: Sources, money: str, contracts: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The largest accounts and owners by maintenance margin and instruments by notional, of one accounting asset.

    Args:
      sources: run and book.
      money: accounting asset.
      contracts: id and notional, `amount`, of every contract.

    Returns:
      Rows ranked by amount, and the Herfindahl index by kind.
    """
    measured = {
        "account": _accounts(sources, money),
        "owner": _owners(sources, money),
        "instrument": contracts.with_columns(pool=pl.lit("")),
    }
    ranked = {kind: _ranked(kind, money, frame) for kind, frame in measured.items() if frame is not None}
    return pl.concat([rows for rows, _ in ranked.values()]), {kind: index for kind, (_, index) in ranked.items()}
