"""Accounts of a run recomputed from its folder and its book, some or all, and compared number by number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from gpumargin.verification.books import BookFrames
from gpumargin.verification.comparison import Comparison, compare, compare_legs
from gpumargin.verification.contracts import model_contracts
from gpumargin.verification.figures import Array
from gpumargin.verification.findings import Ledger
from gpumargin.verification.holdings import holdings
from gpumargin.verification.recomputation import recomputed
from gpumargin.verification.run_tables import KEYS, RunTables

_LEGS_AT_ONCE = 200_000  # a block of legs by scenarios that the processor's cache and memory bear well


def check_recomputation(
    ledger: Ledger, run: RunTables, frames: BookFrames, accounts: pl.DataFrame, chosen: Array, how: str
) -> None:
    """Recomputes accounts and compares every number of theirs and of their units.

    Args:
      ledger: takes the check.
      run: the run.
      frames: of its book.
      accounts: rows of the run, with the file and row where each stands.
      chosen: which of them, ascending.
      how: in words.
    """
    found, of_legs = (Comparison.of(str(run.manifest["dtype"])) for _ in range(2))
    parts = {name: _text_keys(run.frame(name, placed=True)) for name in ("units", "positions") if name in run.parts}
    for label, file in run.models.items():
        own = chosen[(accounts["model"] == label).to_numpy()[chosen]]
        if len(own):
            given = {name: run.of_model(name, label) for name in ("instruments", "scenarios")}
            contracts = model_contracts(file, given, frames.market, run.manifest)
            held = holdings(contracts, frames.rows(own), len(own))
            tables = {name: _of_accounts(part, accounts[own]) for name, part in parts.items()}
            for first, stop in _cuts(held.legs, len(own)):
                made = recomputed(contracts, held.part(first, stop))
                inside = {name: _between(table, first, stop) for name, table in tables.items()}
                compare(found, file, made, accounts[own][first:stop], inside.get("units"))
                if "positions" in inside:
                    compare_legs(of_legs, made, inside["positions"])
    if "positions" in parts:
        of_legs.add_to(ledger, "positions", f"numbers of the legs of {how}")
    found.add_to(ledger, "recomputation", f"numbers of {how}, from run folder and book in numpy")


def _text_keys(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col("account_id", "pool").cast(pl.String))


def _of_accounts(table: pl.DataFrame, accounts: pl.DataFrame) -> pl.DataFrame:
    """Rows of some accounts, each with its `account`, counted from 0 among them, ascending."""
    keys = accounts.select(KEYS).with_row_index("account").with_columns(pl.col("account").cast(pl.Int64))
    return table.join(keys, on=KEYS, how="inner", maintain_order="left").sort("account", maintain_order=True)


def _between(table: pl.DataFrame, first: int, stop: int) -> pl.DataFrame:
    low, high = np.searchsorted(table["account"].to_numpy(), [first, stop])
    return table[low:high].with_columns(pl.col("account") - first)


def _cuts(legs: pl.DataFrame, accounts: int) -> Iterator[tuple[int, int]]:
    """Ranges of accounts that hold about so many legs as are taken at once; one account at least."""
    ends = np.cumsum(np.bincount(legs["account"].to_numpy(), minlength=accounts))
    first = 0
    while first < accounts:
        before = int(ends[first - 1]) if first else 0
        stop = max(int(np.searchsorted(ends, before + _LEGS_AT_ONCE, side="right")), first + 1)
        yield first, min(stop, accounts)
        first = stop
