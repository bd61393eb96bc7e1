"""What a report checks of the folder that it shows, by reading it again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from gpumargin.digests import table_digest
from gpumargin.files import whole_table
from gpumargin.report.data import RunData
from gpumargin.sums import exact_sum
from gpumargin.totals import decimal_text

_TOTALS = ("equity", "negative_equity", "initial_margin", "maintenance_margin")


class Check(NamedTuple):
    """A statement about the folder, and whether it holds."""

    statement: str
    holds: bool


def checks_of(run: RunData) -> list[Check]:
    """Every check, those of a snapshot only where there is one."""
    found = [_totals(run, money) for money in run.summary["by_accounting_asset"]]
    if run.solvency is not None:
        manifest = json.loads((run.folder / "solvency" / "manifest.json").read_text("utf-8"))
        found += [_same_run(run.folder, manifest), _unchanged(run.folder / "solvency", manifest)]
        found += _committed(run, manifest["commitment"])
    return found


def _sums(own: pl.DataFrame) -> dict[str, int]:
    """Exact sums of whole minor units."""
    columns = {
        name: own[f"{name}_minor"].fill_null(0).to_numpy()
        for name in ("equity", "initial_margin", "maintenance_margin")
    }
    columns["negative_equity"] = np.minimum(columns["equity"], 0)
    return {name: exact_sum(columns[name]) for name in _TOTALS}


def _totals(run: RunData, money: str) -> Check:
    sums = _sums(run.accounts.filter(pl.col("accounting_asset") == money))
    decimals = run.decimals(money)
    expected: dict[str, Any] = run.summary["by_accounting_asset"][money]["totals"]
    holds = {name: decimal_text(total, decimals) for name, total in sums.items()} == expected
    return Check(f"the accounts add up to the totals in {money}, to the last unit", holds)


def _same_run(folder: Path, manifest: dict[str, Any]) -> Check:
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    return Check("the snapshot is of this run", digest == manifest["run_manifest_sha256"])


def _unchanged(folder: Path, manifest: dict[str, Any]) -> Check:
    figures = hashlib.sha256((folder / "solvency.json").read_bytes()).hexdigest()
    tables = {name: table_digest(whole_table(folder / f"{name}.parquet")) for name in manifest["tables"]}
    holds = figures == manifest["figures_sha256"]
    holds &= tables == {name: found["sha256"] for name, found in manifest["tables"].items()}
    return Check("figures and tables of the snapshot are as published", holds)


def _committed(run: RunData, commitment: dict[str, Any]) -> list[Check]:
    """The sums of the root against the accounts."""
    sums = dict(zip(commitment["columns"], map(int, commitment["sums"]), strict=True))
    found = []
    for money in run.summary["by_accounting_asset"]:
        own = _sums(run.accounts.filter(pl.col("accounting_asset") == money))
        equity = sums[f"equity {money}"] - sums[f"negative_equity {money}"]
        holds = equity == own["equity"] and sums[f"negative_equity {money}"] == -own["negative_equity"]
        holds &= all(sums[f"{name} {money}"] == own[name] for name in ("initial_margin", "maintenance_margin"))
        found.append(Check(f"the commitment sums to the accounts in {money}, to the last unit", holds))
    return found
