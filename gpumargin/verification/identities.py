"""Identities of the published tables, on every row: how their numbers follow from one another whatever the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from gpumargin.explain.account import STATUSES
from gpumargin.expressions import names_in
from gpumargin.modelfile import ModelFile, account_expressions
from gpumargin.verification.comparison import Comparison, Where, floats
from gpumargin.verification.figures import Array, Figures, given
from gpumargin.verification.findings import Finding, Ledger
from gpumargin.verification.recomputation import statuses
from gpumargin.verification.run_tables import KEYS

_SUMMED = ("unrealised_pnl", "option_value", "delta", "gamma", "vega", "theta")
_MINOR = {"equity": np.floor, "initial_margin": np.ceil, "maintenance_margin": np.ceil}


def check_identities(
    ledger: Ledger, file: ModelFile, accounts: pl.DataFrame, decimals: int, dtype: str, label: str
) -> None:
    """Checks every account row of one model.

    Args:
      ledger: takes the check.
      file: the model.
      accounts: its rows, with the file and row where each stands.
      decimals: of the accounting asset's minor unit.
      dtype: precision of the run.
      label: of the model.
    """
    found, where = Comparison.of(dtype), Where(accounts)
    columns = {c: floats(accounts, c) for c in accounts.columns if accounts[c].dtype.is_numeric()}
    with np.errstate(all="ignore"):
        _check_sums(found, file, columns, np.dtype(dtype), where)
        _check_minor(found, accounts, columns, decimals, where)
        _check_status(found, file, accounts, columns, where)
    found.add_to(ledger, "identities", f"accounts of {label}: excess, balance, health, minor units, status")


def _check_sums(
    found: Comparison, file: ModelFile, columns: Mapping[str, Array], dtype: np.dtype[Any], where: Where
) -> None:
    """An excess is decided by its last bit: it is subtracted as the run did, in the run's precision."""
    pnl, options = columns["unrealised_pnl"], columns["option_value"]
    for name in file.margin:
        balance, margin = columns[f"{name}_balance"], columns[f"{name}_margin"]
        excess = balance.astype(dtype) - margin.astype(dtype)
        found.column(f"{name}_excess", columns[f"{name}_excess"], Figures(excess, 0.0), where)
        collateral = columns[f"{name}_collateral_value"]
        if file.pnl_settles:
            found.column(f"{name}_balance", balance, Figures(collateral, 0.0), where)
        elif name not in file.counted:
            gross = np.abs(collateral) + np.abs(pnl) + np.abs(options)
            found.column(f"{name}_balance", balance, Figures(collateral + pnl + options, gross), where)
    balance, margin = columns["maintenance_balance"], columns["maintenance_margin"]
    health = np.where(margin == 0, np.nan, balance / np.where(margin == 0, 1.0, margin))
    found.column("health", columns["health"], given(health), where)


def _check_minor(
    found: Comparison, accounts: pl.DataFrame, columns: Mapping[str, Array], decimals: int, where: Where
) -> None:
    """Whole minor units, rounded once: equity down, requirements up; null where the amount is not finite."""
    for name, rounding in _MINOR.items():
        amount = columns[name]
        scaled = rounding(np.where(np.isfinite(amount), amount, 0.0) * 10.0**decimals).astype(np.int64)
        expected = [int(value) if known else None for value, known in zip(scaled, np.isfinite(amount), strict=True)]
        found.words(f"{name}_minor", accounts[f"{name}_minor"].to_list(), expected, where)


def _check_status(
    found: Comparison, file: ModelFile, accounts: pl.DataFrame, columns: Mapping[str, Array], where: Where
) -> None:
    """The status that the other columns mean; conditions that name more are left to the recomputation."""
    plain = {n: given(v["default"]) for n, v in file.parameters.items() if set(v) == {"default"}}
    named = set().union(*map(names_in, account_expressions(file).statuses.values()))
    if named <= {*columns, *plain}:
        expected = [STATUSES[code] for code in statuses(file, columns, plain)]
        found.words("status", accounts["status"].to_list(), expected, where)


def check_keys(ledger: Ledger, accounts: pl.DataFrame) -> None:
    """Every margin account has one row."""
    again = accounts.filter(~pl.struct(KEYS).is_first_distinct())
    findings = [
        Finding("account_id", "a second row of the account", "one row", r["file"], r["row"], r["account_id"], r["pool"])
        for r in again.head(20).iter_rows(named=True)
    ]
    ledger.add("one row for each account", "accounts", accounts.height, findings, again.height)


def _check_worst(found: Comparison, accounts: pl.DataFrame, units: pl.DataFrame, where: Where) -> None:
    """The worst scenario of an account is that of its only unit; with several units, or in doubt, there is none."""
    name = pl.col("worst_scenario").cast(pl.String)
    only = units.group_by(KEYS).agg(pl.when(pl.len() == 1).then(name.first()).alias("only"))
    own = accounts.select(*KEYS, "status").join(only, on=KEYS, how="left", maintain_order="left")
    expected = own.select(pl.when(pl.col("status") != "unknown").then("only").alias("only"))["only"].to_list()
    found.words("worst_scenario", accounts.select(name)["worst_scenario"].to_list(), expected, where)


def check_units(ledger: Ledger, accounts: pl.DataFrame, units: pl.DataFrame, tolerance: float) -> None:
    """P&L, option value and Greeks of accounts are the sums of their units; no unit row is alone or there twice."""
    found = Comparison(tolerance)
    sums = units.group_by(KEYS).agg(
        *(pl.col(name).sum() for name in _SUMMED),
        *(pl.col(name).abs().sum().alias(f"gross_{name}") for name in _SUMMED),
    )
    own = accounts.select(*KEYS, "file", "row").join(sums, on=KEYS, how="left", maintain_order="left").fill_null(0.0)
    where, is_unknown = Where(accounts), (accounts["status"] == "unknown").to_numpy()
    for name in _SUMMED:
        published, gross = floats(accounts, name), own[f"gross_{name}"].to_numpy() * 8
        shown = np.where(is_unknown & np.isnan(published), np.nan, own[name].to_numpy())
        found.column(name, published, Figures(shown, gross), where)
    _check_worst(found, accounts, units, where)
    again = units.filter(~pl.struct(*KEYS, "unit").is_first_distinct())
    alone = units.join(accounts.select(KEYS), on=KEYS, how="anti")
    for rows, text in ((again, "a second row of the unit"), (alone, "a row of no account")):
        found.failed += rows.height
        found.findings += [
            Finding("unit", text, "one row", **Where(rows).place(i)) for i in range(min(rows.height, 20))
        ]
    found.add_to(ledger, "sums of units", "accounts against their units: P&L, option value, Greeks, worst scenario")
