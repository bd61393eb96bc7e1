"""A model file bound to the units and assets of a book: names become indexes, tables of numbers become arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from gpumargin.expressions import parse_expression
from gpumargin.modelfile import DEFAULT, ChargeTable, CollateralTable, ModelFile, PriceShortfall, ScenarioRow
from gpumargin.pack.columns import Bools, Floats
from gpumargin_kernels.charge import ChargeChoices, Summed
from gpumargin_kernels.expression import Expression
from gpumargin_kernels.model import Component, Model, ScenarioSet, VolShock, Weights

_DIRECTIONS = {"up": 1, "none": 0, "down": -1}
_DAYS_PER_YEAR = 365


def by_name(numbers: Mapping[str, float], names: Sequence[str]) -> Floats:
    """A table of numbers as an array over `names`, the default where a name is not listed."""
    return np.array([numbers.get(name, numbers[DEFAULT]) for name in names], dtype=np.float64)


def brackets_by_name(tables: Mapping[str, Sequence[tuple[float, float]]], names: Sequence[str]) -> Floats:
    """Bracket tables over `names` `[N, T, 2]`, shorter ones with their last row repeated: brackets of no width."""
    rows = [tables.get(name, tables[DEFAULT]) for name in names]
    longest = max(map(len, tables.values()))
    return np.array([[*row, *[row[-1]] * (longest - len(row))] for row in rows], np.float64).reshape(-1, longest, 2)


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
    """Columns side by side, `[U, S]`; none of them, or no units, give an empty block."""
    columns = [*values]
    return np.stack(columns, axis=1) if units and columns else np.zeros((len(units), 0))


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
        bound[name] = {number: by_name(values, units) for number, values in component.leaves().items()}
        if isinstance(component, ChargeTable):
            tables = file.tables | component.tables
            bound[name] |= {table: brackets_by_name(values, units) for table, values in tables.items()}
        if isinstance(component, PriceShortfall):
            bound[name]["asset"] = np.full(len(units), assets.index(component.asset), np.int32)
    return bound


def _components(file: ModelFile) -> tuple[Component, ...]:
    earlier: list[str] = []
    bound = []
    for name, component in file.components.items():
        if isinstance(component, ChargeTable):
            choices: dict[str, object] = {"charge": _charge_choices(component, file, earlier)}
        else:
            choices = {key: value for key, value in component.choices().items() if key != "asset"}
        bound.append(Component(name, component.kind, tuple(choices.items())))
        earlier.append(name)
    return tuple(bound)


def _charge_choices(table: ChargeTable, file: ModelFile, earlier: Collection[str]) -> ChargeChoices:
    parsed = table.parsed(file.shared_names(), earlier)
    return ChargeChoices(
        legs=tuple(table.legs),
        level=table.level,
        sums=tuple(Summed(name, word, expression) for name, (word, expression) in parsed.sums.items()),
        terms=tuple(parsed.terms),
        each=tuple(parsed.each.items()),
        amount=parsed.amount,
    )


def margin_expressions(file: ModelFile) -> tuple[tuple[str, Expression], ...]:
    """Requirement of one unit by margin type, in the order of the file; later types may name earlier ones."""
    known = {*file.components, *file.parameters, *file.margin}
    return tuple((name, parse_expression(text, known)) for name, text in file.margin.items())


def asset_weights(table: CollateralTable, assets: Sequence[str], base: Bools) -> Weights:
    """Weights of every asset, `[C]`; `base` marks assets that are legs of a unit."""
    asset = by_name(table.assets, assets)
    if table.base is not None:
        asset = np.where(base, table.base, asset)
    return Weights(asset, by_name(table.liability, assets))


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


def without_scenarios(units: int) -> Model:
    """A model of `units` risk units that asks for nothing: for pricing contracts alone."""
    ones = np.ones(units)
    return Model(
        scenario_sets=(),
        components=(),
        margins=(),
        aggregation="sum",
        spot=np.ones((units, 0)),
        vol_direction=np.zeros(0, np.int32),
        weight=np.ones((units, 0)),
        vol_shock=VolShock(*(ones for _ in VolShock._fields)),
        parameters={},
        numbers={},
        collateral={},
        correlation=np.eye(units),
        is_correlated=np.zeros(units, bool),
    )


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
        collateral={name: asset_weights(file.collateral_of(name), assets, base) for name in file.margin},
        correlation=correlation,
        is_correlated=listed,
    )
