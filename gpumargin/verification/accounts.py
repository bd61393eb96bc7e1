"""Accounts of a run recomputed from its folder and its book, some or all, and compared number by number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from gpumargin.modelfile import ModelFile
from gpumargin.verification.books import BookFrames
from gpumargin.verification.comparison import Comparison, compare
from gpumargin.verification.contracts import Contracts, model_contracts
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
    found = Comparison.of(str(run.manifest["dtype"]))
    units = run.frame("units", placed=True) if "units" in run.parts else None
    for label, file in run.models.items():
        own = chosen[(accounts["model"] == label).to_numpy()[chosen]]
        if len(own):
            tables = {name: run.of_model(name, label) for name in ("instruments", "scenarios")}
            contracts = model_contracts(file, tables, frames.market, run.manifest)
            _compare_model(found, file, contracts, frames, accounts[own], own, units)
    found.add_to(ledger, "recomputation", f"numbers of {how}, from run folder and book in numpy")


def _compare_model(
    found: Comparison,
    file: ModelFile,
    contracts: Contracts,
    frames: BookFrames,
    accounts: pl.DataFrame,
    chosen: Array,
    units: pl.DataFrame | None,
) -> None:
    held = holdings(contracts, frames.rows(chosen), len(chosen))
    own = None if units is None else _own_units(units, accounts)
    for first, stop in _cuts(held.legs, len(chosen)):
        made = recomputed(contracts, held.part(first, stop))
        inside = None if own is None else _between(own, first, stop)
        compare(found, file, made, accounts[first:stop], inside)


def _own_units(units: pl.DataFrame, accounts: pl.DataFrame) -> pl.DataFrame:
    keys = accounts.select(KEYS).with_row_index("account").with_columns(pl.col("account").cast(pl.Int64))
    return units.join(keys, on=KEYS, how="inner").sort("account")


def _between(units: pl.DataFrame, first: int, stop: int) -> pl.DataFrame:
    low, high = np.searchsorted(units["account"].to_numpy(), [first, stop])
    return units[low:high].with_columns(pl.col("account") - first)


def _cuts(legs: pl.DataFrame, accounts: int) -> Iterator[tuple[int, int]]:
    """Ranges of accounts that hold about so many legs as are taken at once; one account at least."""
    ends = np.cumsum(np.bincount(legs["account"].to_numpy(), minlength=accounts))
    first = 0
    while first < accounts:
        before = int(ends[first - 1]) if first else 0
        stop = max(int(np.searchsorted(ends, before + _LEGS_AT_ONCE, side="right")), first + 1)
        yield first, min(stop, accounts)
        first = stop
