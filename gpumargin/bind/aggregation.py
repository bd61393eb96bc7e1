"""What a model file says of units together, bound to the units of a book."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gpumargin.expressions import names_in, parse_expression
from gpumargin.modelfile import (
    Correlated,
    Covariance,
    ModelFile,
    Offset,
    Sensitivities,
    SpreadCredit,
    SpreadLeg,
)
from gpumargin_kernels.expression import Expression
from gpumargin_kernels.model import Aggregation
from gpumargin_kernels.spread_credit import SpreadTable


def _listed_matrix(given: list[list[float]], rows: list[str], units: Sequence[str]) -> dict[str, np.ndarray]:
    """A table between listed units as one between the units of a book, and which of them it lists."""
    listed = np.array([unit in rows for unit in units], bool)
    table = np.eye(len(units))
    inside = np.flatnonzero(listed).tolist()
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


def aggregation_expressions(file: ModelFile) -> tuple[tuple[str, Expression], ...]:
    """Requirement of an account by margin type, where the aggregation states it; the same names as `bind` gives."""
    rule = file.aggregation
    known = {*file.components, *rule.numbers, *rule.outputs, *file.margin}
    return tuple((name, parse_expression(text, known)) for name, text in rule.margin.items())


def bound_aggregation(file: ModelFile, units: Sequence[str]) -> Aggregation:
    """How units come together, as kernels take it; the static part depends on the file alone."""
    rule, margins = file.aggregation, aggregation_expressions(file)
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


def spread_table(component: SpreadCredit, units: Sequence[str]) -> SpreadTable:
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
