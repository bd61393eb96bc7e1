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
from gpumargin.explain.balances import BalanceSide, balance_side, balance_table
from gpumargin.explain.figures import Figure, evaluate, exact, total
from gpumargin.explain.market import Market, account_legs, account_market
from gpumargin.explain.requirements import (
    UnitResult,
    component_tables,
    requirement_table,
    unit_results,
    with_values,
)
from gpumargin.explain.settings import own_settings
from gpumargin.explain.sources import AccountSources, account_sources
from gpumargin.explain.unit import with_total
from gpumargin.expressions import parse_expression
from gpumargin.modelfile import ModelFile, account_expressions, account_settings
from gpumargin.runs import Run

# Two ways to the same sum differ by rounding only, relative to what was added up; float32 runs carry 2^-24.
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}
_CHECK_COLUMNS = {
    "name": pl.String,
    "recomputed": pl.Float64,
    "published": pl.Float64,
    "difference": pl.Float64,
    "ok": pl.Boolean,
}
# Conditions of the statuses where a model has none of its own, each outranking those before it.
USUAL_STATUSES = {
    "margin_call": ("where<", "initial_excess", 0.0, 1.0, 0.0),
    "liquidatable": ("where<", "maintenance_excess", 0.0, 1.0, 0.0),
    "bankrupt": ("where<", "equity", 0.0, 1.0, 0.0),
}
STATUSES = ("healthy", "margin_call", "liquidatable", "bankrupt", "unknown")


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
    side: BalanceSide
    legs: pl.DataFrame
    units: list[UnitResult]
    requirements: Aggregated
    values: Mapping[str, Figure]  # of the account and plain parameters, by name

    @property
    def file(self) -> ModelFile:
        return self.sources.file

    @property
    def counted_types(self) -> set[str]:
        """Margin types with an expression of what counts beside the balances."""
        return set() if self.file.pnl_settles else set(self.file.counted)


def explain_account(run: Path | str | Run, account: str, pool: str = "cross") -> Explanation:
    """Recomputes one margin account line by line and proves that the lines add up to what the run published.

    Args:
      run: a run in memory, or the path of a run folder, of a folder of runs or of its `latest`.
      account: account id; integer ids as their digits.
      pool: collateral pool of the margin account.

    Returns:
      `Explanation`, every check of it passed.

    Raises:
      UsageError: no such run, account or pool (the message gives close matches), the book is gone, or rows of the
        account are in quarantine, so that there are no numbers to explain.
      InputError: the book can no longer be read.
      InternalError: GM202, a figure differs by more than 1e-9 (float32 runs: 1e-3) of what was added up to get it; the
        message names it.

    Source: risk arrays, scenarios and the model file of the run; prices, forwards, marks and holdings of its book.
    """
    sources = account_sources(run, account, pool)
    market = account_market(sources)
    legs = account_legs(sources, market)
    units = unit_results(sources.file, legs, sources.scenarios, market)
    values = _account_values(sources, market, legs)
    side = balance_side(sources, market, units, values)
    parts = _Parts(sources, side, legs, units, aggregated(sources.file, units), values)
    checks = _checks(parts)
    _require_ok(checks, sources)
    return Explanation(_headline(parts), {**_tables(parts), "checks": checks}, checks)


def _sum(frame: pl.DataFrame, column: str, gross: str | None = None) -> Figure:
    """Sum of a column, 0 of a frame without rows."""
    if frame.height == 0:
        return exact(0.0)
    return Figure(float(frame[column].sum()), float(frame[gross or column].abs().sum()))


def _account_values(sources: AccountSources, market: Market, legs: pl.DataFrame) -> dict[str, Figure]:
    """What expressions of the account may name: plain parameters, its own numbers, equity and what it is made of."""
    found = {n: exact(v["default"]) for n, v in sources.file.parameters.items() if set(v) == {"default"}}
    own = own_settings(sources)
    found |= {name: exact(own.get((name, None), usual)) for name, usual in account_settings(sources.file).items()}
    amounts = sources.book["balances"].select("asset", "amount").iter_rows()
    values = [amount * market.collateral.get(str(asset), math.nan) / market.accounting for asset, amount in amounts]
    found["full_value"] = total([exact(value) for value in values])
    found["unrealised_pnl"] = _sum(legs, "unrealised_pnl", "gross_pnl")
    found["option_value"] = _sum(legs, "value")
    found["equity"] = total([found[name] for name in ("full_value", "unrealised_pnl", "option_value")])
    return found


def _margins(parts: _Parts) -> dict[str, Figure]:
    """Requirements of the account by margin type; later types may name earlier ones."""
    expressions = account_expressions(parts.file).margins
    values = {**parts.values, **parts.side.charges}
    found: dict[str, Figure] = {}
    for name, of_units in parts.requirements.margins.items():
        debt = parts.side.debt(name) if parts.file.debt == "requirement" else exact(0.0)
        own = {**values, **found, "units": of_units, "debt": debt}
        found[name] = evaluate(expressions[name], own) if name in expressions else total([of_units, debt])
    return found


def _margin_table(parts: _Parts) -> pl.DataFrame:
    """How the account's requirements follow from its units, its debt and its charges; empty if they are its units'."""
    file = parts.file
    if not file.account and file.debt == "balance":
        return pl.DataFrame()
    found = _margins(parts)
    values = {name: figure.amount for name, figure in {**parts.values, **parts.side.charges}.items()}
    lines = []
    for name, of_units in parts.requirements.margins.items():
        debt = parts.side.debt(name).amount if file.debt == "requirement" else 0.0
        text = file.account.get(name, "units + debt")
        shown = with_values(text, {**values, "units": of_units.amount, "debt": debt})
        values[name] = found[name].amount
        lines.append({"name": name, "expression": text, "with_values": shown, "value": values[name]})
    return pl.DataFrame(lines)


def _money(parts: _Parts) -> dict[str, Figure]:
    """Figures of the account that are sums of lines, by their column in the accounts table."""
    side, without_debt = parts.side, parts.file.debt == "requirement"
    found = {name: parts.values[name] for name in ("full_value", "unrealised_pnl", "option_value")}
    found |= {f"{n}_collateral_value": side.collateral(n, without_debt=without_debt) for n in parts.file.margin}
    found |= {f"{name}_counted": figure for name, figure in side.counted.items() if name in parts.counted_types}
    return found | {f"{name}_margin": figure for name, figure in _margins(parts).items()}


def identities(file: ModelFile) -> dict[str, str]:
    """How figures of the account follow from one another."""
    found = {"equity": "full_value + unrealised_pnl + option_value"}
    for name in file.margin:
        counted = f"{name}_counted" if name in file.counted else "unrealised_pnl + option_value"
        found[f"{name}_balance"] = f"{name}_collateral_value" + ("" if file.pnl_settles else f" + {counted}")
        found[f"{name}_excess"] = f"{name}_balance - {name}_margin"
    return found | {"health": "maintenance_balance / maintenance_margin"}


def _figures(parts: _Parts) -> dict[str, Figure]:
    """Every figure of the account, the identities applied to the sums of lines."""
    values = _money(parts)
    for name, text in identities(parts.file).items():
        values[name] = evaluate(parse_expression(text, values), values)
    return values


def _identity_table(parts: _Parts) -> pl.DataFrame:
    figures = _figures(parts)
    values = {name: figure.amount for name, figure in figures.items()}
    lines = [
        {"name": name, "formula": text, "with_values": with_values(text, values), "value": values[name]}
        for name, text in identities(parts.file).items()
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
    tables = {"balances": balance_table(parts.file, parts.side), "legs": _leg_table(parts)}
    for unit in parts.units:
        tables |= component_tables(unit)
        tables[f"{unit.unit} requirement"] = requirement_table(parts.file, unit)
    if parts.units:
        tables |= parts.requirements.tables
    tables |= parts.side.tables
    tables["account requirement"] = _margin_table(parts)
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
        is_absent = (
            name == "full_value"
            or name.endswith("_counted")
            or (name == "health" and figures["maintenance_margin"].amount == 0)
        )
        if not is_absent:
            yield _Check(name, figure, row[name])
    for name, figure in parts.side.charges.items():
        yield _Check(name, figure, row[name])
    worst = total([unit.binding.figure for unit in parts.units if unit.binding is not None])
    yield _Check("worst_loss", worst, row["worst_loss"])
    held = parts.legs.filter((pl.col("kind") != "base") & (pl.col("quantity") != 0)).height
    yield _Check("num_positions", exact(float(held)), row["num_positions"])
    yield _Check(f"status {row['status']}", exact(float(_status(parts))), float(STATUSES.index(str(row["status"]))))


def _status(parts: _Parts) -> int:
    """Index of the status that the published figures mean; on a knife's edge the recomputed ones may round across."""
    row, found = parts.sources.account, 0
    figures = [row["equity"], *(value for name, value in row.items() if name.endswith("_excess"))]
    if not all(value is not None and math.isfinite(value) for value in figures):
        return STATUSES.index("unknown")
    values = {name: exact(float(value)) for name, value in row.items() if isinstance(value, (int, float))}
    values |= {name: figure for name, figure in parts.values.items() if name not in values}
    for status, expression in (USUAL_STATUSES | account_expressions(parts.file).statuses).items():
        if evaluate(expression, values).amount > 0:
            found = STATUSES.index(status)
    return found


def _checks(parts: _Parts) -> pl.DataFrame:
    tolerance = TOLERANCE[str(parts.sources.manifest["dtype"])]
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
