"""A model file bound to the units and assets of a book: names become indexes, tables of numbers become arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gpumargin.bind_account import bind_account, by_name
from gpumargin.expressions import parse_expression
from gpumargin.modelfile import ModelFile, PriceShortfall, ScenarioRow
from gpumargin.pack.columns import Bools, Floats
from gpumargin_kernels.expression import Expression
from gpumargin_kernels.model import Component, Model, ScenarioSet, VolShock

_DIRECTIONS = {"up": 1, "none": 0, "down": -1}
_DAYS_PER_YEAR = 365


def scenario_rows(file: ModelFile) -> list[tuple[str, ScenarioRow]]:
    """Every scenario with the name of its set, in column order."""
    return [(name, row) for name, rows in file.scenarios.items() for row in rows]


def spot_levels(file: ModelFile, row: ScenarioRow, units: Sequence[str]) -> Floats:
    """Level that multiplies spot in one scenario, `[U]`."""
    if row.spot is not None:
        return by_name(row.spot, units)
    return 1 + (row.move or 0.0) * by_name(file.scenario_range, units)


def _scenario_sets(file: ModelFile) -> tuple[ScenarioSet, ...]:
    ends = np.cumsum([len(rows) for rows in file.scenarios.values()]).tolist()
    return tuple(
        ScenarioSet(name, end - len(rows), end) for (name, rows), end in zip(file.scenarios.items(), ends, strict=True)
    )


def _columns(values: Iterable[Floats], units: Sequence[str]) -> Floats:
    columns = [*values]
    return np.stack(columns, axis=1) if columns else np.zeros((len(units), 0))


def _vol_shock(file: ModelFile, units: Sequence[str]) -> VolShock:
    def field(name: str) -> Floats:
        return by_name(getattr(file.vol_shock, name), units)

    return VolShock(
        up=field("up"),
        down=field("down"),
        short_power=field("short_power"),
        long_power=field("long_power"),
        pivot_years=field("pivot_days") / _DAYS_PER_YEAR,
        floor_years=field("floor_days") / _DAYS_PER_YEAR,
    )


def _numbers(file: ModelFile, units: Sequence[str], assets: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    bound: dict[str, dict[str, np.ndarray]] = {}
    for name, component in file.components.items():
        bound[name] = {number: by_name(values, units) for number, values in component.numbers().items()}
        if isinstance(component, PriceShortfall):
            bound[name]["asset"] = np.full(len(units), assets.index(component.asset), np.int32)
    return bound


def _components(file: ModelFile) -> tuple[Component, ...]:
    def choices(component: object) -> tuple[tuple[str, object], ...]:
        chosen = component.choices()  # type: ignore[attr-defined]
        return tuple((key, value) for key, value in chosen.items() if key != "asset")

    return tuple(Component(name, c.kind, choices(c)) for name, c in file.components.items())


def margin_expressions(file: ModelFile) -> tuple[tuple[str, Expression], ...]:
    """Requirement of one unit by margin type, in the order of the file; later types may name earlier ones."""
    known = {*file.components, *file.parameters, *file.margin}
    return tuple((name, parse_expression(text, known)) for name, text in file.margin.items())


def correlation_table(file: ModelFile, units: Sequence[str]) -> tuple[Floats, np.ndarray]:
    """Correlation `[U, U]` between the units of a book, and which of them the model lists."""
    rows = file.aggregation.units
    listed = np.array([unit in rows for unit in units], bool)
    table = np.eye(len(units))
    given = np.array(file.aggregation.correlation, dtype=np.float64)
    inside = [i for i, is_listed in enumerate(listed) if is_listed]
    source = [rows.index(units[i]) for i in inside]
    if inside:
        table[np.ix_(inside, inside)] = given[np.ix_(source, source)]
    return table, listed


def bind(file: ModelFile, units: Sequence[str], assets: Sequence[str], base: Bools) -> Model:
    """The model as kernels take it.

    Args:
      file: a validated model file.
      units: `[U]` risk units of the book, ascending.
      assets: `[C]` assets of the book, ascending.
      base: `[C]` whether the asset is held as a leg of a unit.

    Returns:
      `Model` with numpy leaves; its static part depends on the file alone, never on the book.
    """
    rows = [row for _, row in scenario_rows(file)]
    correlation, listed = correlation_table(file, units)
    return Model(
        scenario_sets=_scenario_sets(file),
        components=_components(file),
        margins=margin_expressions(file),
        aggregation=file.aggregation.kind,
        spot=_columns([spot_levels(file, row, units) for row in rows], units),
        vol_direction=np.array([_DIRECTIONS[row.vol] for row in rows], np.int32),
        weight=_columns([by_name(row.weight, units) for row in rows], units),
        vol_shock=_vol_shock(file, units),
        parameters={name: by_name(values, units) for name, values in file.parameters.items()},
        numbers=_numbers(file, units, assets),
        account=bind_account(file, assets, base),
        correlation=correlation,
        is_correlated=listed,
    )
