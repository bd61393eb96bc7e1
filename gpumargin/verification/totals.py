"""Figures of `summary.json` against the tables that they are of: counts, and exact sums of whole minor units."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import polars as pl

from gpumargin.verification.findings import Finding, Ledger
from gpumargin.verification.run_tables import RunTables

_MINOR = ("equity_minor", "initial_margin_minor", "maintenance_margin_minor")
_DIGITS = 100


def exact_sum(values: pl.Series) -> int:
    """Sum of int64 values in whole numbers of any size; nulls count nothing."""
    array = values.fill_null(0).to_numpy()
    return int((array >> 32).sum()) * (1 << 32) + int((array & np.int64(0xFFFFFFFF)).sum())


def stated_decimals(summary: Mapping[str, Any], money: str) -> int:
    """Decimals of an accounting asset as the totals of a summary are written with."""
    return len(str(summary["by_accounting_asset"][money]["totals"]["equity"]).partition(".")[2])


def _text(minor: int, decimals: int) -> str:
    with localcontext(prec=_DIGITS):
        return format(Decimal(minor).scaleb(-decimals), "f")


def _made(accounts: pl.DataFrame, decimals: int) -> dict[str, Any]:
    """The section of one accounting asset as its accounts make it."""
    sums = {name.removesuffix("_minor"): exact_sum(accounts[name]) for name in _MINOR}
    sums["negative_equity"] = exact_sum(accounts["equity_minor"].clip(upper_bound=0))
    counts = accounts["status"].value_counts()
    return {
        "accounts": accounts.height,
        "status": dict(counts.iter_rows()),
        "totals": {name: _text(total, decimals) for name, total in sums.items()},
    }


def _differences(path: str, stored: Any, made: Any) -> list[Finding]:
    """Every leaf of two documents that is not the same."""
    if isinstance(stored, Mapping) and isinstance(made, Mapping):
        keys = sorted({*stored, *made})
        return [f for key in keys for f in _differences(f"{path}.{key}", stored.get(key), made.get(key))]
    return [] if stored == made else [Finding(path.removeprefix("."), stored, made, "summary.json")]


def check_summary(ledger: Ledger, run: RunTables, accounts: pl.DataFrame) -> None:
    """Counts by status and model, exact totals, rows and names of `summary.json`."""
    summary, manifest = run.summary, run.manifest
    money = {label: file.accounting_asset for label, file in run.models.items()}
    by_asset = accounts.with_columns(money=pl.col("model").replace_strict(money, default=None, return_dtype=pl.String))
    findings = _differences(
        "by_accounting_asset",
        summary["by_accounting_asset"],
        {
            asset: _made(by_asset.filter(pl.col("money") == asset), stated_decimals(summary, asset))
            for asset in by_asset["money"].drop_nulls().unique().sort()
        },
    )
    counts = dict(accounts["model"].value_counts().iter_rows())
    stated = {label: {w: own[w] for w in ("accounts", "accounting_asset")} for label, own in summary["models"].items()}
    made = {
        label: {"accounts": counts.get(label, 0), "accounting_asset": money.get(label)} for label in {*counts, *money}
    }
    findings += _differences("models", stated, made)
    read = {name: table["rows"] for name, table in manifest["inputs"].items()}
    findings += _differences("rows.read", summary["rows"]["read"], read)
    by_file = {name: sum(table["files"].values()) for name, table in manifest["inputs"].items()}
    findings += _differences("rows.read", read, by_file)
    for name in ("as_of", "dtype"):
        findings += _differences(name, summary[name], manifest[name])
    ledger.add("summary", "counts by status and model, exact totals, rows read", accounts.height, findings)
