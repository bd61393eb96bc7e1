"""Pairs of runs whose difference is known, and what every difference must satisfy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl

from gpumargin.catalogue import MarginModel
from gpumargin.difference import EFFECTS, FIGURES, Difference
from gpumargin.run import margin
from gpumargin.tables import Book
from tests.books import AS_OF, tiny_book

if TYPE_CHECKING:
    from gpumargin.runs import Run

Tables = Mapping[str, pl.DataFrame]
Move = Callable[[Tables], dict[str, pl.DataFrame]]
LATER = AS_OF + timedelta(days=2)


def run_of(tables: Tables, model: MarginModel | str = "derive-pm1", as_of: datetime = AS_OF) -> Run:
    """A run in memory."""
    return margin(Book(**tables), model, as_of=as_of)


def scaled(table: str, column: str, factor: float, where: pl.Expr | None = None) -> Move:
    """A move that multiplies a column."""

    def move(tables: Tables) -> dict[str, pl.DataFrame]:
        chosen = pl.lit(value=True) if where is None else where
        value = pl.when(chosen).then(pl.col(column) * factor).otherwise(column).alias(column)
        return {**tables, table: tables[table].with_columns(value)}

    return move


def of_instrument(name: str) -> pl.Expr:
    return pl.col("instrument_id") == name


MOVES: dict[str, list[Move]] = {
    "position": [
        scaled("positions", "quantity", 1.5),
        scaled("balances", "amount", 0.8),
        scaled("positions", "entry_price", 1.01),
    ],
    "price": [
        scaled("prices", "price", 0.93, pl.col("asset") == "BTC"),
        scaled("prices", "price", 0.999, pl.col("asset") == "USDC"),
        scaled("forwards", "forward", 1.04),
        scaled("forwards", "rate", 1.5),
        scaled("marks", "mark_price", 0.95, of_instrument("BTC-PERP")),
        scaled("marks", "mark_price", 1.02, of_instrument("BTC-20260327-70000-C")),
    ],
    "vol": [scaled("marks", "mark_iv", 1.2), scaled("marks", "mark_iv", 0.9, of_instrument("ETH-20260626-2500-C"))],
}
"""Moves that each belong to one group of inputs alone."""


def moved(*moves: Move) -> dict[str, pl.DataFrame]:
    """The tiny book after some moves."""
    tables = tiny_book()
    for move in moves:
        tables = move(tables)
    return tables


def without_option_marks(tables: Tables) -> dict[str, pl.DataFrame]:
    """The book with options priced from their vols."""
    price = pl.when(pl.col("mark_iv").is_null()).then("mark_price").alias("mark_price")
    return {**tables, "marks": tables["marks"].with_columns(price)}


def made_elsewhere(run: Run) -> Run:
    """The run as if another version had made it: a difference then takes no published number for one of its own."""
    return replace(run, manifest={**run.manifest, "versions": {**run.manifest["versions"], "jax": "0.1"}})


def effects(found: Difference, account: str, figure: str = "equity", pool: str = "cross") -> dict[str, int]:
    """Effects on one figure of an account in minor units, those that are not 0."""
    rows = found.accounts.filter(account_id=account, pool=pool)
    if rows.is_empty():
        return {}
    row = rows.row(0, named=True)
    return {effect: row[f"{figure}_{effect}_minor"] for effect in EFFECTS if row[f"{figure}_{effect}_minor"]}


def effects_found(found: Difference) -> set[str]:
    """Effects that any account has on any figure."""
    return {
        effect
        for effect in EFFECTS
        if found.accounts.select(
            pl.any_horizontal(pl.col(f"{name}_{effect}_minor") != 0 for name in FIGURES).any()
        ).item()
    }


def require_adds_up(found: Difference, before: Run, after: Run) -> None:
    """Effects of every account and of the totals come to the change between what the runs published, exactly."""
    for name in FIGURES:
        change = pl.sum_horizontal(f"{name}_{effect}_minor" for effect in EFFECTS)
        difference = pl.col(f"{name}_minor") - pl.col(f"{name}_before_minor")
        assert found.accounts.select((change == difference).all()).item(), name
        assert found.accounts.select((change == pl.col(f"{name}_change_minor")).all()).item(), name
        amounts = dict(found.totals.select("effect", pl.col(name)).iter_rows())
        inner = [Decimal(amount) for effect, amount in amounts.items() if effect not in {"before", "after"}]
        assert Decimal(amounts["before"]) + sum(inner) == Decimal(amounts["after"]), name
    for word, run in (("before", before), ("after", after)):
        (group,) = run.summary["by_accounting_asset"].values()
        row = found.totals.filter(effect=word).row(0, named=True)
        for name in ("equity", "initial_margin", "maintenance_margin"):
            assert Decimal(row[name]) == Decimal(group["totals"][name]), (word, name)
