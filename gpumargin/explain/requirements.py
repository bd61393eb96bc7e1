"""From legs to requirements: components and expressions of each unit, and the units of an account together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import polars as pl

from gpumargin.errors import UsageError
from gpumargin.explain.components import KINDS
from gpumargin.explain.figures import Figure, evaluate, exact, root, total
from gpumargin.explain.market import Floats, Market
from gpumargin.explain.unit import TOTAL, Charge, UnitSide, with_total
from gpumargin.expressions import parse_expression
from gpumargin.modelfile import ModelFile

_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class UnitResult:
    """One account's requirements for one risk unit.

    Attributes:
      unit: the underlying.
      legs: its legs.
      charges: by component, in the order of the file.
      margins: requirement by margin type.
      binding: the charge whose worst case is the unit's; None if no component has scenarios.
    """

    unit: str
    legs: pl.DataFrame
    charges: Mapping[str, Charge]
    margins: Mapping[str, Figure]
    binding: Charge | None


@dataclass(frozen=True)
class Aggregated:
    """Requirements of an account by margin type, and the tables that show how its units make them."""

    margins: Mapping[str, Figure]
    tables: Mapping[str, pl.DataFrame]


def unit_results(file: ModelFile, legs: pl.DataFrame, scenarios: pl.DataFrame, market: Market) -> list[UnitResult]:
    """Every component and margin type of every unit that the account holds, in the order of the legs."""
    return [
        _unit_result(file, str(unit), legs.filter(pl.col("unit") == unit), scenarios, market)
        for unit in legs["unit"].cast(pl.String).unique(maintain_order=True)
    ]


def _scenario_pnl(legs: pl.DataFrame) -> Floats:
    """P&L of each position in each scenario column, `[N, S]`; a model without scenarios has no risk array."""
    if "scenario_pnl" not in legs.columns:
        return np.zeros((legs.height, 0))
    of_one: Floats = np.array(legs["scenario_pnl"].to_list(), dtype=np.float64).reshape(legs.height, -1)
    quantity: Floats = legs["quantity"].to_numpy()
    return of_one * quantity[:, None]


def _unit_result(file: ModelFile, unit: str, legs: pl.DataFrame, scenarios: pl.DataFrame, market: Market) -> UnitResult:
    own = scenarios.filter(pl.col("unit") == unit).sort("column") if "unit" in scenarios.columns else scenarios
    charges: dict[str, Charge] = {}
    side = UnitSide(
        unit, legs, _scenario_pnl(legs), own, market, charges, file.parameters, file.shared_names(), file.tables
    )
    for name, component in file.components.items():
        charges[name] = _explained_kind(component.kind)(component, side)
    margins = _margins(file, side)
    binding = next((charge for charge in reversed(charges.values()) if charge.worst is not None), None)
    return UnitResult(unit, legs, charges, margins, binding)


def _explained_kind(kind: str) -> Any:
    if kind not in KINDS:
        message = f"components of kind {kind!r} cannot be explained by this version; it knows {', '.join(KINDS)}"
        raise UsageError(message)
    return KINDS[kind]


def _named_values(file: ModelFile, side: UnitSide) -> dict[str, Figure]:
    parameters = {name: exact(side.number(values)) for name, values in file.parameters.items()}
    return parameters | {name: charge.figure for name, charge in side.charges.items()}


def _margins(file: ModelFile, side: UnitSide) -> dict[str, Figure]:
    """Requirement of each margin type; later types may use earlier ones."""
    values = _named_values(file, side)
    for name, text in file.margin.items():
        values[name] = evaluate(parse_expression(text, values), values)
    return {name: values[name] for name in file.margin}


def with_values(text: str, values: Mapping[str, float]) -> str:
    """An expression with every known name replaced by its value."""

    def shown(match: re.Match[str]) -> str:
        if match[0] not in values:
            return match[0]
        number = f"{values[match[0]]:.10g}"
        return f"({number})" if number.startswith("-") else number

    return _NAME.sub(shown, text)


def requirement_table(file: ModelFile, result: UnitResult) -> pl.DataFrame:
    """Components, parameters and margin types of one unit: name, expression, the same with values, value."""
    values = {name: charge.figure.amount for name, charge in result.charges.items()}
    values |= {n: v.get(result.unit, v["default"]) for n, v in file.parameters.items()}
    lines = [{"name": name, "expression": None, "with_values": None, "value": value} for name, value in values.items()]
    values |= {name: figure.amount for name, figure in result.margins.items()}
    lines += [
        {"name": name, "expression": text, "with_values": with_values(text, values), "value": values[name]}
        for name, text in file.margin.items()
    ]
    schema = {"name": pl.String, "expression": pl.String, "with_values": pl.String, "value": pl.Float64}
    return pl.DataFrame(lines, schema=schema)


def component_tables(result: UnitResult) -> dict[str, pl.DataFrame]:
    """Tables of the components of one unit by title; components without lines have none."""
    return {
        " ".join(filter(None, (result.unit, name, suffix))): table
        for name, charge in result.charges.items()
        for suffix, table in charge.tables.items()
        if table.height
    }


def aggregated(file: ModelFile, units: list[UnitResult]) -> Aggregated:
    """Requirements of the account: the sum of its units', or sqrt(m' R m) over those that the model correlates."""
    listed = [u for u in units if file.aggregation.kind == "correlated" and u.unit in file.aggregation.units]
    alone = {name: total([u.margins[name] for u in units if u not in listed]) for name in file.margin}
    pairs = _pairs(file, listed)
    norms = {name: root(_square([line[name] for line in pairs])) for name in file.margin}
    margins = {name: total([norms[name], alone[name]]) for name in file.margin} if listed else alone
    lines = [{"unit": u.unit} | {name: u.margins[name].amount for name in file.margin} for u in units]
    if listed:
        lines.append({"unit": "root of pairs"} | {name: figure.amount for name, figure in norms.items()})
        lines.append({"unit": "other units"} | {name: figure.amount for name, figure in alone.items()})
    lines.append({"unit": TOTAL} | {name: figure.amount for name, figure in margins.items()})
    tables = {"aggregation": pl.DataFrame(lines)}
    if pairs:
        shown = [{k: v.amount if isinstance(v, Figure) else v for k, v in line.items()} for line in pairs]
        tables["aggregation pairs"] = with_total(shown, *file.margin)
    return Aggregated(margins, tables)


def _square(figures: list[Figure]) -> Figure:
    """Sum of the pairs, 0 where rounding takes it below."""
    found = total(figures)
    return Figure(max(found.amount, 0.0), found.gross)


def _pairs(file: ModelFile, listed: list[UnitResult]) -> list[dict[str, Any]]:
    """Every pair of correlated units with its share of the square; two different units count twice."""
    names, matrix = file.aggregation.units, file.aggregation.correlation
    lines = []
    for a, b in combinations_with_replacement(listed, 2):
        correlation, times = matrix[names.index(a.unit)][names.index(b.unit)], 1 if a is b else 2
        line: dict[str, Any] = {"unit": a.unit, "other_unit": b.unit, "correlation": correlation, "times": times}
        for name in file.margin:
            one, other, factor = a.margins[name], b.margins[name], correlation * times
            line[name] = Figure(one.amount * other.amount * factor, one.gross * other.gross * abs(factor))
        lines.append(line)
    return lines
