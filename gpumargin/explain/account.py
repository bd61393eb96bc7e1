"""One account explained: its tables, its headline, and the proof that they add up to what the run published."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from gpumargin.errors import InternalError
from gpumargin.explain.aggregation import Aggregated, aggregated
from gpumargin.explain.figures import Figure, evaluate, exact, total
from gpumargin.explain.market import Market, account_legs, account_market, base_assets
from gpumargin.explain.requirements import (
    UnitResult,
    component_tables,
    requirement_table,
    unit_results,
    with_values,
)
from gpumargin.explain.sources import AccountSources, account_sources
from gpumargin.explain.unit import with_total
from gpumargin.expressions import parse_expression
from gpumargin.modelfile import CollateralTable, ModelFile
from gpumargin.runs import Run

# Two ways to the same sum differ by rounding only, relative to what was added up; float32 runs carry 2^-24.
_TOLERANCE = {"float64": 1e-9, "float32": 1e-3}
_CHECK_COLUMNS = {
    "name": pl.String,
    "recomputed": pl.Float64,
    "published": pl.Float64,
    "difference": pl.Float64,
    "ok": pl.Boolean,
}
_STATUSES = ("healthy", "margin_call", "liquidatable", "bankrupt", "unknown")


@dataclass(frozen=True)
class Explanation:
    """Where the number of one account comes from.

    Attributes:
      headline: the account's published result: account, pool, model, as_of, money (the accounting asset), status,
        equity, for each margin type `<type>_collateral_value`, `<type>_balance`, `<type>_margin`, `<type>_excess`, and
        health.
      tables: polars frames by title, in the order to show them. Amounts are in the accounting asset, requirements and
        losses positive. A table of lines ends with a row `total`. A component without lines in a unit has no table.
      checks: name, recomputed, published, difference, ok: every figure that the run published, against the sum of the
        lines shown here.
    """

    headline: Mapping[str, Any]
    tables: Mapping[str, pl.DataFrame]
    checks: pl.DataFrame


@dataclass(frozen=True)
class _Check:
    """A figure recomputed here, and what the run published."""

    name: str
    recomputed: Figure
    published: float | None

    def line(self, tolerance: float) -> dict[str, Any]:
        amount, published = float(self.recomputed.amount), math.nan if self.published is None else float(self.published)
        is_same = amount == published or (math.isnan(amount) and math.isnan(published))
        difference = 0.0 if is_same else amount - published
        ok = bool(is_same or abs(difference) <= tolerance * self.recomputed.gross)
        return {"name": self.name, "recomputed": amount, "published": published, "difference": difference, "ok": ok}


@dataclass(frozen=True)
class _Parts:
    """The account in pieces."""

    sources: AccountSources
    balances: pl.DataFrame
    legs: pl.DataFrame
    units: list[UnitResult]
    requirements: Aggregated

    @property
    def file(self) -> ModelFile:
        return self.sources.file


def explain_account(run: Path | str | Run, account: str, pool: str = "cross") -> Explanation:
    """Recomputes one margin account line by line and proves that the lines add up to what the run published.

    Args:
      run: a run in memory, or the path of a run folder, of a folder of runs or of its `latest`.
      account: account id; integer ids as their digits.
      pool: collateral pool of the margin account.

    Returns:
      `Explanation`, every check of it passed.

    Raises:
      UsageError: no such run, account or pool (the message gives close matches), or the book is gone.
      InputError: the book can no longer be read.
      InternalError: GM202, a figure differs by more than 1e-9 (float32 runs: 1e-3) of what was added up to get it; the
        message names it.

    Source: risk arrays, scenarios and the model file of the run; prices, forwards, marks and holdings of its book.
    """
    sources = account_sources(run, account, pool)
    market = account_market(sources)
    legs = account_legs(sources, market)
    units = unit_results(sources.file, legs, sources.scenarios, market)
    parts = _Parts(sources, _balances(sources, market), legs, units, aggregated(sources.file, units))
    checks = _checks(parts)
    _require_ok(checks, sources)
    return Explanation(_headline(parts), {**_tables(parts), "checks": checks}, checks)


def _weight(table: CollateralTable, asset: str, amount: float, *, counts: bool, is_base: bool) -> float:
    """Share of a balance's value that supports margin."""
    if amount < 0:
        return table.liability.get(asset, table.liability["default"])
    if not counts:
        return 0.0
    if is_base and table.base is not None:
        return table.base
    return table.assets.get(asset, table.assets["default"])


def _balances(sources: AccountSources, market: Market) -> pl.DataFrame:
    """Every balance at full value, and what of it counts towards each margin type."""
    base, file = base_assets(sources), sources.file
    lines = []
    for asset, amount, counts in sources.book["balances"].select("asset", "amount", "is_collateral").iter_rows():
        price = market.collateral.get(asset, math.nan) / market.accounting
        line = {"asset": asset, "amount": amount, "is_collateral": counts, "price": price, "value": amount * price}
        for name in file.margin:
            weight = _weight(file.collateral_of(name), asset, amount, counts=counts, is_base=asset in base)
            line |= {f"{name}_weight": weight, f"{name}_counted": amount * price * weight}
        lines.append(line)
    return pl.DataFrame(lines).sort("asset") if lines else pl.DataFrame()


def _sum(frame: pl.DataFrame, column: str, gross: str | None = None) -> Figure:
    """Sum of a column, 0 of a frame without rows."""
    if frame.height == 0:
        return exact(0.0)
    return Figure(float(frame[column].sum()), float(frame[gross or column].abs().sum()))


def _money(parts: _Parts) -> dict[str, Figure]:
    """Figures of the account that are sums of lines, by their column in the accounts table."""
    found = {
        "full_value": _sum(parts.balances, "value"),
        "unrealised_pnl": _sum(parts.legs, "unrealised_pnl", "gross_pnl"),
        "option_value": _sum(parts.legs, "value"),
    }
    found |= {f"{name}_collateral_value": _sum(parts.balances, f"{name}_counted") for name in parts.file.margin}
    return found | {f"{name}_margin": figure for name, figure in parts.requirements.margins.items()}


def _identities(file: ModelFile) -> dict[str, str]:
    """How figures of the account follow from one another."""
    found = {"equity": "full_value + unrealised_pnl + option_value"}
    for name in file.margin:
        found[f"{name}_balance"] = f"{name}_collateral_value + unrealised_pnl + option_value"
        found[f"{name}_excess"] = f"{name}_balance - {name}_margin"
    return found | {"health": "maintenance_balance / maintenance_margin"}


def _figures(parts: _Parts) -> dict[str, Figure]:
    """Every figure of the account, the identities applied to the sums of lines."""
    values = _money(parts)
    for name, text in _identities(parts.file).items():
        values[name] = evaluate(parse_expression(text, values), values)
    return values


def _identity_table(parts: _Parts) -> pl.DataFrame:
    figures = _figures(parts)
    values = {name: figure.amount for name, figure in figures.items()}
    lines = [
        {"name": name, "formula": text, "with_values": with_values(text, values), "value": values[name]}
        for name, text in _identities(parts.file).items()
        if name != "health" or values["maintenance_margin"] != 0
    ]
    return pl.DataFrame(lines)


def _leg_table(parts: _Parts) -> pl.DataFrame:
    """Legs with what each is worth and loses where its unit's worst case is."""
    shown = ("unit", "expiry", "strike", "kind", "instrument_id", "quantity", "value", "unrealised_pnl")
    pieces = [
        unit.legs.select(shown).with_columns(
            worst_case=pl.lit(unit.binding.worst if unit.binding else None, pl.String),
            pnl_in_worst_case=pl.lit(None, pl.Float64)
            if unit.binding is None or unit.binding.leg_pnl is None
            else pl.Series(unit.binding.leg_pnl, dtype=pl.Float64),
        )
        for unit in parts.units
    ]
    lines = pl.concat(pieces).to_dicts() if pieces else []
    has_worst = all(line["pnl_in_worst_case"] is not None for line in lines)
    return with_total(lines, "value", "unrealised_pnl", *(["pnl_in_worst_case"] if has_worst else []))


def _tables(parts: _Parts) -> dict[str, pl.DataFrame]:
    """Tables by title, from what the account holds to what it must hold."""
    sums = ("value", *(f"{name}_counted" for name in parts.file.margin))
    tables = {"balances": with_total(parts.balances.to_dicts(), *sums), "legs": _leg_table(parts)}
    for unit in parts.units:
        tables |= component_tables(unit)
        tables[f"{unit.unit} requirement"] = requirement_table(parts.file, unit)
    if parts.units:
        tables |= parts.requirements.tables
    tables["identities"] = _identity_table(parts)
    return {title: table for title, table in tables.items() if table.height}


def _unit_figures(unit: UnitResult) -> dict[str, Figure]:
    """Figures of one unit by their column in the units table."""
    found = {name: charge.figure for name, charge in unit.charges.items()}
    found |= {f"{name}_margin": figure for name, figure in unit.margins.items()}
    found["option_value"] = _sum(unit.legs, "value")
    found["unrealised_pnl"] = _sum(unit.legs, "unrealised_pnl", "gross_pnl")
    return found


def _unit_checks(unit: UnitResult, published: Mapping[str, Any]) -> Iterator[_Check]:
    for name, figure in _unit_figures(unit).items():
        yield _Check(f"{unit.unit} {name}", figure, published[name])
    worst = published["worst_scenario"]
    if unit.binding is not None:
        # of equal scenarios either may have been called the worst: what counts is the loss there
        found = unit.binding.losses.get(str(worst), exact(math.nan))
        yield _Check(f"{unit.unit} worst_loss, at {worst}", found, published["worst_loss"])


def _all_unit_checks(parts: _Parts) -> Iterator[_Check]:
    if parts.sources.units is None:
        return
    published = {str(row["unit"]): row for row in parts.sources.units.iter_rows(named=True)}
    yield _Check("number of units", exact(float(len(parts.units))), float(len(published)))
    for unit in parts.units:
        if unit.unit in published:
            yield from _unit_checks(unit, published[unit.unit])


def _account_checks(parts: _Parts) -> Iterator[_Check]:
    row, figures = parts.sources.account, _figures(parts)
    for name, figure in figures.items():
        is_absent = name == "full_value" or (name == "health" and figures["maintenance_margin"].amount == 0)
        if not is_absent:
            yield _Check(name, figure, row[name])
    worst = total([unit.binding.figure for unit in parts.units if unit.binding is not None])
    yield _Check("worst_loss", worst, row["worst_loss"])
    held = parts.legs.filter((pl.col("kind") != "base") & (pl.col("quantity") != 0)).height
    yield _Check("num_positions", exact(float(held)), row["num_positions"])
    yield _Check(f"status {row['status']}", exact(float(_status(row))), float(_STATUSES.index(str(row["status"]))))


def _status(row: Mapping[str, Any]) -> int:
    """Index of the status that the published figures mean; on a knife's edge the recomputed ones may round across."""
    figures = [row["equity"], *(value for name, value in row.items() if name.endswith("_excess"))]
    if not all(value is not None and math.isfinite(value) for value in figures):
        return _STATUSES.index("unknown")
    is_met = {"bankrupt": row["equity"] >= 0, "liquidatable": row["maintenance_excess"] >= 0}
    is_met["margin_call"] = row["initial_excess"] >= 0
    return next((_STATUSES.index(name) for name, met in is_met.items() if not met), 0)


def _checks(parts: _Parts) -> pl.DataFrame:
    tolerance = _TOLERANCE[str(parts.sources.manifest["dtype"])]
    found = [*_all_unit_checks(parts), *_account_checks(parts)]
    return pl.DataFrame([check.line(tolerance) for check in found], schema=_CHECK_COLUMNS)


def _require_ok(checks: pl.DataFrame, sources: AccountSources) -> None:
    wrong = checks.filter(~pl.col("ok"))
    if wrong.height == 0:
        return
    first, account, pool = wrong.row(0, named=True), str(sources.account["account_id"]), sources.account["pool"]
    message = (
        f"GM202: {first['name']} of account {account!r} (pool {pool}) is {first['published']!r} in the run, "
        f"recomputed {first['recomputed']!r} ({wrong.height} of {checks.height} figures differ); the run or its book "
        f"({sources.manifest['book'] or 'in memory'}) is not what it was: run again, or report this"
    )
    raise InternalError(message)


def _headline(parts: _Parts) -> dict[str, Any]:
    row, per_type = parts.sources.account, ("collateral_value", "balance", "margin", "excess")
    names = ["status", "equity", *(f"{name}_{part}" for name in parts.file.margin for part in per_type), "health"]
    about = {
        "account": str(row["account_id"]),
        "pool": str(row["pool"]),
        "model": str(row["model"]),
        "as_of": str(parts.sources.manifest["as_of"]),
        "money": parts.file.accounting_asset,
    }
    return about | {name: row[name] for name in names}
