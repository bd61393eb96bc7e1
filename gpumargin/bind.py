"""A model file bound to the units and assets of a book: names become indexes, tables of numbers become arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gpumargin.evaluate import number_of
from gpumargin.expressions import names_in, parse_expression
from gpumargin.modelfile import (
    DEFAULT,
    CollateralTable,
    Correlated,
    Covariance,
    ModelFile,
    Offset,
    PriceShortfall,
    ScenarioLoss,
    ScenarioRow,
    Sensitivities,
    SpreadCredit,
    SpreadLeg,
)
from gpumargin.modelfile.scenarios import SKEWS, WEIGHT_NAMES
from gpumargin.pack.columns import Bools, Floats
from gpumargin.pack.contracts import USD
from gpumargin_kernels.expression import Expression
from gpumargin_kernels.model import Aggregation, Component, Model, ScenarioRules, ScenarioSet, VolShock, Weights
from gpumargin_kernels.spread_credit import SpreadTable

_DIRECTIONS = {"up": 1, "none": 0, "down": -1, "skew_linear": 2, "skew_abs": 3}
_DAYS_PER_YEAR = 365


def by_name(numbers: Mapping[str, float], names: Sequence[str]) -> Floats:
    """A table of numbers as an array over `names`, the default where a name is not listed."""
    return np.array([numbers.get(name, numbers[DEFAULT]) for name in names], dtype=np.float64)


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
    return found


def _scenario_sets(file: ModelFile) -> tuple[ScenarioSet, ...]:
    ends = np.cumsum([len(rows) for rows in file.scenarios.values()]).tolist()
    return tuple(
        ScenarioSet(name, end - len(rows), end) for (name, rows), end in zip(file.scenarios.items(), ends, strict=True)
    )


def _columns(values: Iterable[Floats], units: Sequence[str]) -> Floats:
    return np.stack([*values], axis=1) if units else np.zeros((0, 0))


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
    def choices(component: object) -> tuple[tuple[str, object], ...]:
        chosen = component.choices()  # type: ignore[attr-defined]
        if isinstance(component, SpreadCredit):
            known = {*file.components, "spot"}
            chosen = {"inputs": tuple((k, parse_expression(text, known)) for k, text in component.inputs().items())}
        return tuple((key, value) for key, value in chosen.items() if key != "asset")

    return tuple(Component(name, c.kind, choices(c)) for name, c in file.components.items())


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


def _listed_matrix(given: list[list[float]], rows: list[str], units: Sequence[str]) -> dict[str, np.ndarray]:
    """A table between listed units as one between the units of a book, and which of them it lists."""
    listed = np.array([unit in rows for unit in units], bool)
    table = np.eye(len(units))
    inside = np.flatnonzero(listed)
    source = [rows.index(units[i]) for i in inside]
    if source:
        table[np.ix_(inside, inside)] = np.array(given, dtype=np.float64)[np.ix_(source, source)]
    return {"matrix": table, "is_listed": listed}


def _places(groups: Iterable[Iterable[str]], units: Sequence[str], other: Sequence[int]) -> np.ndarray:
    """Index of the group that lists each unit, `[U]`; `other` for units that none lists."""
    place = {unit: index for index, members in enumerate(groups) for unit in members}
    return np.array([place.get(unit, other[i]) for i, unit in enumerate(units)], np.int32)


def _bucket_tables(rule: Sensitivities, units: Sequence[str]) -> dict[str, np.ndarray]:
    buckets = list(rule.buckets.values())
    others = [index for index, bucket in enumerate(buckets) if bucket.others]
    fields = ("correlation", "weight", "threshold", "vega_weight", "vega_threshold")
    return {
        "bucket": _places([bucket.units for bucket in buckets], units, others * len(units)),
        "across": np.array(rule.across, dtype=np.float64),
        "is_alone": np.array([bucket.alone for bucket in buckets]),
        "is_excluded": np.array([not bucket.curvature for bucket in buckets]),
        **{name: np.array([getattr(bucket, name) for bucket in buckets], dtype=np.float64) for name in fields},
    }


def _group_tables(rule: Offset, units: Sequence[str]) -> dict[str, np.ndarray]:
    groups = list(rule.groups.values())
    group = _places([g.units for g in groups], units, [len(groups) + i for i in range(len(units))])
    share = np.array([g.within for g in groups] + [1.0])  # the last one for units that no group lists
    return {"group": group, "within": share[np.minimum(group, len(groups))]}


def _aggregation_tables(file: ModelFile, units: Sequence[str]) -> dict[str, np.ndarray]:
    match file.aggregation:
        case Correlated() as rule:
            return _listed_matrix(rule.correlation, rule.units, units)
        case Covariance() as rule:
            other = {"other_deviation": np.array(np.sqrt(rule.other_variance))}
            return _listed_matrix(rule.covariance, rule.units, units) | other
        case Sensitivities() as rule:
            return _bucket_tables(rule, units)
        case Offset() as rule:
            return _group_tables(rule, units)
    return {}


_KIND_NUMBERS = ("horizon_days", "vol_ratio", "between")


def account_expressions(file: ModelFile) -> tuple[tuple[str, Expression], ...]:
    """Requirement of an account by margin type, where the aggregation states it; the same names as `bind` gives."""
    rule = file.aggregation
    known = {*file.components, *rule.numbers, *rule.outputs, *file.margin}
    return tuple((name, parse_expression(text, known)) for name, text in rule.margin.items())


def _aggregation(file: ModelFile, units: Sequence[str]) -> Aggregation:
    rule, margins = file.aggregation, account_expressions(file)
    used = set().union(*(names_in(expression) for _, expression in margins))
    own = {name: getattr(rule, name) for name in _KIND_NUMBERS if hasattr(rule, name)}
    return Aggregation(
        kind=rule.kind,
        choices=tuple(rule.inputs().items()),
        scenario_inputs=(rule.component,) if isinstance(rule, Offset) else (),
        sums=tuple(name for name in file.components if name in used),
        margins=margins,
        tables=_aggregation_tables(file, units),
        numbers={name: np.array(value, np.float64) for name, value in (own | rule.numbers).items()},
    )


def _spreads(component: SpreadCredit, units: Sequence[str]) -> SpreadTable:
    """Spreads as arrays, their legs padded to a common number; a unit that the book lacks is -1."""
    place = {unit: index for index, unit in enumerate(units)}
    most = max(len(spread.legs) for spread in component.spreads)
    padding = SpreadLeg(unit="", ratio=1, side=1)
    legs = [spread.legs + [padding] * (most - len(spread.legs)) for spread in component.spreads]
    return SpreadTable(
        unit=np.array([[place.get(leg.unit, -1) for leg in row] for row in legs], np.int32),
        is_leg=np.array([[leg is not padding for leg in row] for row in legs]),
        ratio=np.array([[leg.ratio for leg in row] for row in legs], np.float64),
        side=np.array([[float(leg.side) for leg in row] for row in legs], np.float64),
        rate=np.array([spread.rate for spread in component.spreads], np.float64),
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
        collateral={name: asset_weights(file.collateral_of(name), assets, base) for name in file.margin},
        aggregation=_aggregation(file, units),
        spreads={n: _spreads(c, units) for n, c in file.components.items() if isinstance(c, SpreadCredit)},
    )
