"""From legs to requirements: components and expressions of each unit, and the units of an account together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from gpumargin.errors import UsageError
from gpumargin.explain.across_units import KINDS as ACROSS
from gpumargin.explain.aggregation import Unit
from gpumargin.explain.components import KINDS
from gpumargin.explain.figures import Figure, evaluate, exact
from gpumargin.explain.market import Floats, Market
from gpumargin.explain.unit import Charge, UnitSide
from gpumargin.expressions import parse_expression
from gpumargin.modelfile import ModelFile

_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class UnitResult(Unit):
    """One account's requirements for one risk unit.

    Attributes:
      legs: its legs.
      binding: the charge whose worst case is the unit's; None if no component has scenarios.
    """

    legs: pl.DataFrame
    binding: Charge | None


def unit_results(file: ModelFile, legs: pl.DataFrame, scenarios: pl.DataFrame, market: Market) -> list[UnitResult]:
    """Every component and margin type of every unit that the account holds, in the order of the legs."""
    units = legs["unit"].cast(pl.String).unique(maintain_order=True)
    sides = [_unit_side(file, str(unit), legs.filter(pl.col("unit") == unit), scenarios, market) for unit in units]
    for name, component in file.components.items():
        if component.kind in ACROSS:
            for side, charge in zip(sides, ACROSS[component.kind](component, sides), strict=True):
                side.charges[name] = charge
    return [_unit_result(file, side) for side in sides]


def _scenario_pnl(legs: pl.DataFrame) -> Floats:
    """P&L of each position in each scenario column, `[N, S]`; a model without scenarios has no risk array."""
    if "scenario_pnl" not in legs.columns:
        return np.zeros((legs.height, 0))
    of_one: Floats = np.array(legs["scenario_pnl"].to_list(), dtype=np.float64).reshape(legs.height, -1)
    quantity: Floats = legs["quantity"].to_numpy()
    return of_one * quantity[:, None]


def _unit_side(file: ModelFile, unit: str, legs: pl.DataFrame, scenarios: pl.DataFrame, market: Market) -> UnitSide:
    """One unit with the charges of every component that needs no other unit."""
    own = scenarios.filter(pl.col("unit") == unit).sort("column") if "unit" in scenarios.columns else scenarios
    charges: dict[str, Charge] = {}
    side = UnitSide(
        unit, legs, _scenario_pnl(legs), own, market, charges, file.parameters, file.shared_names(), file.tables
    )
    for name, component in file.components.items():
        if component.kind not in ACROSS:
            charges[name] = _explained_kind(component.kind)(component, side)
    return side


def _unit_result(file: ModelFile, side: UnitSide) -> UnitResult:
    charges = {name: side.charges[name] for name in file.components}
    binding = next((charge for charge in reversed(charges.values()) if charge.worst is not None), None)
    return UnitResult(side.unit, charges, _margins(file, side), side.legs, binding)


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
