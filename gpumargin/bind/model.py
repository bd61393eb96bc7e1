"""A model file bound to the units and assets of a book: names become indexes, tables of numbers become arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from gpumargin.bind.account import NO_ACCOUNTS, bind_account
from gpumargin.bind.aggregation import bound_aggregation, spread_table
from gpumargin.bind.numbers import brackets_by_name, by_name
from gpumargin.evaluate import number_of
from gpumargin.expressions import names_in, parse_expression
from gpumargin.modelfile import (
    ChargeTable,
    ModelFile,
    PriceShortfall,
    ScenarioLoss,
    ScenarioMean,
    ScenarioRow,
    SpreadCredit,
)
from gpumargin.modelfile.scenarios import SKEWS, WEIGHT_NAMES, counterparts, unmoved
from gpumargin.pack.columns import Bools, Floats
from gpumargin.schema import USD
from gpumargin_kernels.charge import ChargeChoices, Summed
from gpumargin_kernels.expression import Expression
from gpumargin_kernels.model import (
    Component,
    DeltaPoints,
    Model,
    ScenarioRules,
    ScenarioSet,
    VolShock,
)

_DIRECTIONS = {"up": 1, "none": 0, "down": -1, "skew_linear": 2, "skew_abs": 3}
_DAYS_PER_YEAR = 365
_SMALLEST_K_STAR = 1e-12  # what expires now has no other and would divide by 0
_SHORTEST_DAYS = 1e-9  # a floor of 0 would make the shock of what expires now infinite


def scenario_rows(file: ModelFile) -> list[tuple[str, ScenarioRow]]:
    """Every scenario with the name of its set, in column order."""
    return [(name, row) for name, rows in file.scenarios.items() for row in rows]


def spot_levels(file: ModelFile, row: ScenarioRow, units: Sequence[str]) -> Floats:
    """Level that multiplies spot in one scenario, `[U]`."""
    if row.spot is not None:
        return by_name(row.spot, units)
    return 1 + (row.move or 0.0) * by_name(file.scenario_range, units)


def scenario_weights(file: ModelFile, row: ScenarioRow, units: Sequence[str]) -> Floats:
    """Share of one scenario's P&L that counts, `[U]`."""
    if not isinstance(row.weight, str):
        return by_name(row.weight, units)
    expression = parse_expression(row.weight, {*WEIGHT_NAMES, *file.parameters})
    moves, ranges = spot_levels(file, row, units) - 1, by_name(file.scenario_range, units)
    numbers = {name: by_name(values, units) for name, values in file.parameters.items()}
    return np.array(
        [
            number_of(
                expression,
                {name: float(values[i]) for name, values in numbers.items()}
                | {"move": float(moves[i]), "range": float(ranges[i])},
            )
            for i in range(len(units))
        ]
    )


def _rules(file: ModelFile, rows: Sequence[ScenarioRow]) -> ScenarioRules:
    return ScenarioRules(
        is_additive=file.vol_shock.rule == "additive",
        is_parallel=file.scenario_rules.shock_base == "parallel",
        is_index_based=file.scenario_rules.shock_base == "index",
        is_coin_pnl=file.scenario_rules.pnl_currency == "coin",
        is_discounted=file.discounted_marks,
        skew=tuple(i for i, row in enumerate(rows) if row.vol in SKEWS),
    )


def _scenario_numbers(file: ModelFile, rows: Sequence[ScenarioRow], units: Sequence[str]) -> dict[str, Floats]:
    """Numbers of vols and times in scenarios, only those that differ from doing nothing."""
    found: dict[str, Floats] = {}
    bounds = {"min_up": file.vol_shock.min_up, "max_up": file.vol_shock.max_up}
    found |= {name: by_name(values, units) for name, values in bounds.items() if values is not None}
    for name, nothing in (("vol_factor", 1.0), ("vol_shift", 0.0)):
        values = [getattr(row, name) for row in rows]
        if any(set(value.values()) != {nothing} for value in values):
            found[name] = _columns([by_name(value, units) for value in values], units)
    if any(row.days for row in rows):
        found["years_ahead"] = np.array([row.days for row in rows]) / _DAYS_PER_YEAR
    if any(row.vol in SKEWS for row in rows) and file.skew is not None:
        found |= {name: by_name(values, units) for name, values in file.skew}
        found["min_k_star"] = np.maximum(found["min_k_star"], _SMALLEST_K_STAR)
    return found


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
        floor_years=np.maximum(field("floor_days"), _SHORTEST_DAYS) / _DAYS_PER_YEAR,
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
        if isinstance(component, ScenarioLoss) and component.post is not None:
            bound[name] |= _post_numbers(file, component.post_expression(), units, assets)
    return bound


def _post_numbers(
    file: ModelFile, post: Expression | None, units: Sequence[str], assets: Sequence[str]
) -> dict[str, np.ndarray]:
    """What an expression of P&L names of the model: the unit's range, and the asset that says what a dollar is."""
    used = set() if post is None else names_in(post)
    found: dict[str, np.ndarray] = {"range": by_name(file.scenario_range, units)} if "range" in used else {}
    if "dollar" in used:
        dollar = USD if file.dollar_at_par else file.accounting_asset
        found["accounting"] = np.full(len(units), assets.index(dollar), np.int32)
    return found


def _components(file: ModelFile) -> tuple[Component, ...]:
    earlier: list[str] = []
    bound = []
    for name, component in file.components.items():
        bound.append(Component(name, component.kind, tuple(_choices(file, component, earlier).items())))
        earlier.append(name)
    return tuple(bound)


def _choices(file: ModelFile, component: object, earlier: Collection[str]) -> dict[str, object]:
    """What of a component shapes the program."""
    match component:
        case ChargeTable():
            return {"charge": _charge_choices(component, file, earlier)}
        case SpreadCredit():
            known = {*earlier, "spot"}
            return {"inputs": tuple((k, parse_expression(text, known)) for k, text in component.inputs().items())}
        case ScenarioMean():
            return component.choices() | {"members": _members(file, component)}
    return {key: value for key, value in component.choices().items() if key != "asset"}  # type: ignore[attr-defined]


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


def _members(file: ModelFile, component: ScenarioMean) -> tuple[int, ...]:
    """Scenarios whose mean is taken, or the pair of each scenario, as indexes within the set."""
    source = file.components[component.of]
    rows = file.scenarios[source.scenarios]  # type: ignore[union-attr]
    return tuple(unmoved(rows) if component.which == "unmoved" else counterparts(rows))


def _delta_points(file: ModelFile, units: Sequence[str]) -> DeltaPoints | None:
    table = file.composite_delta
    if table is None:
        return None
    ranges = by_name(file.scenario_range, units)
    return DeltaPoints(
        spot=_columns([1 + point.move * ranges for point in table.points], units),
        weight=np.array([point.weight for point in table.points], np.float64),
        years_ahead=np.array(table.days / _DAYS_PER_YEAR),
    )


def margin_expressions(file: ModelFile) -> tuple[tuple[str, Expression], ...]:
    """Requirement of one unit by margin type, in the order of the file; later types may name earlier ones."""
    known = {*file.components, *file.parameters, *file.margin}
    return tuple((name, parse_expression(text, known)) for name, text in file.margin.items())


def without_scenarios(units: int) -> Model:
    """A model of `units` risk units that asks for nothing: for pricing contracts alone."""
    ones = np.ones(units)
    return Model(
        scenario_sets=(),
        components=(),
        margins=(),
        spot=np.ones((units, 0)),
        vol_direction=np.zeros(0, np.int32),
        weight=np.ones((units, 0)),
        vol_shock=VolShock(*(ones for _ in VolShock._fields)),
        parameters={},
        numbers={},
        account=NO_ACCOUNTS,
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
    return Model(
        scenario_sets=_scenario_sets(file),
        components=_components(file),
        margins=margin_expressions(file),
        spot=_columns([spot_levels(file, row, units) for row in rows], units),
        vol_direction=np.array([_DIRECTIONS[row.vol] for row in rows], np.int32),
        weight=_columns([scenario_weights(file, row, units) for row in rows], units),
        vol_shock=_vol_shock(file, units),
        rules=_rules(file, rows),
        scenario_numbers=_scenario_numbers(file, rows, units),
        parameters={name: by_name(values, units) for name, values in file.parameters.items()},
        numbers=_numbers(file, units, assets),
        aggregation=bound_aggregation(file, units),
        delta_points=_delta_points(file, units),
        spreads={n: spread_table(c, units) for n, c in file.components.items() if isinstance(c, SpreadCredit)},
        account=bind_account(file, assets, base),
    )
