"""How the units of an account make its requirement, as lines that add up: one plain function per kind.

Written apart from the kernels, on Python numbers. A new kind of aggregation is one more entry of `KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from statistics import NormalDist
from typing import Any

import polars as pl

from gpumargin.explain.figures import Figure, evaluate, exact, root, total
from gpumargin.explain.unit import TOTAL, Charge, with_total
from gpumargin.expressions import parse_expression
from gpumargin.modelfile import Correlated, Covariance, ModelFile, Offset, Sensitivities

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Unit:
    """One unit of an account: its name, its charges by component and its requirement by margin type."""

    unit: str
    charges: Mapping[str, Charge]
    margins: Mapping[str, Figure]


@dataclass(frozen=True)
class Aggregated:
    """Requirements of an account by margin type, and the tables that show how its units make them."""

    margins: Mapping[str, Figure]
    tables: Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class _Joined:
    """Named amounts of one kind, further rows of the table of units, and tables of its own."""

    amounts: Mapping[str, Figure]
    rows: Sequence[Mapping[str, Any]] = ()
    tables: Mapping[str, pl.DataFrame] | None = None


def _times(figure: Figure, factor: float) -> Figure:
    return Figure(figure.amount * factor, figure.gross * abs(factor))


def _product(a: Figure, b: Figure, factor: float) -> Figure:
    return Figure(a.amount * b.amount * factor, a.gross * b.gross * abs(factor))


def _norm(squares: list[Figure]) -> Figure:
    """Root of a sum of pairs; a sum below 0 by rounding counts as 0."""
    found = total(squares)
    return root(Figure(max(found.amount, 0.0) if not math.isnan(found.amount) else math.nan, found.gross))


def _plain(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v.amount if isinstance(v, Figure) else v for k, v in line.items()} for line in lines]


def _summed(rule: object, units: Sequence[Unit], names: Sequence[str]) -> _Joined:
    del rule
    return _Joined({name: total([u.margins[name] for u in units]) for name in names})


def _pairs(
    units: Sequence[Unit], names: Sequence[str], order: list[str], matrix: list[list[float]], word: str
) -> list[dict[str, Any]]:
    """Every pair of listed units with its share of the square; two different units count twice."""
    lines = []
    for a, b in combinations_with_replacement(units, 2):
        entry, times = matrix[order.index(a.unit)][order.index(b.unit)], 1 if a is b else 2
        line: dict[str, Any] = {"unit": a.unit, "other_unit": b.unit, word: entry, "times": times}
        lines.append(line | {name: _product(a.margins[name], b.margins[name], entry * times) for name in names})
    return lines


def _form(rule: Correlated | Covariance, units: Sequence[Unit], names: Sequence[str]) -> _Joined:
    """Sqrt of a quadratic form of the listed units, and the others in full."""
    is_covariance = isinstance(rule, Covariance)
    matrix = rule.covariance if isinstance(rule, Covariance) else rule.correlation
    listed, others = ([u for u in units if (u.unit in rule.units) is inside] for inside in (True, False))
    lines = _pairs(listed, names, rule.units, matrix, "covariance" if is_covariance else "correlation")
    norms = {name: _norm([line[name] for line in lines]) for name in names}

    def in_full(unit: Unit, name: str) -> Figure:
        own = unit.margins[name]
        if not isinstance(rule, Covariance):
            return own
        return _times(Figure(abs(own.amount), own.gross), math.sqrt(rule.other_variance))

    alone = {name: total([in_full(u, name) for u in others]) for name in names}
    rows = [{"unit": "root of pairs"} | norms, {"unit": "other units"} | alone] if listed or is_covariance else []
    tables = {"aggregation pairs": with_total(_plain(lines), *names)} if lines else {}
    return _Joined({name: total([norms[name], alone[name]]) for name in names}, rows, tables)


@dataclass(frozen=True)
class _Factor:
    """One unit in one layer of a sensitivity margin."""

    unit: str
    bucket: str
    sensitivity: Figure
    concentration: float
    weighted: Figure

    def line(self, layer: str) -> dict[str, Any]:
        return {
            "layer": layer,
            "bucket": self.bucket,
            "unit": self.unit,
            "sensitivity": self.sensitivity.amount,
            "concentration": self.concentration,
            "weighted": self.weighted.amount,
        }


def _bucket_of(rule: Sensitivities, unit: str) -> str:
    listed = {name: key for key, bucket in rule.buckets.items() for name in bucket.units}
    return listed.get(unit) or next(key for key, bucket in rule.buckets.items() if bucket.others)


def _points(rule: Sensitivities, bucket: str) -> float:
    """Vol in points that the delta weight of a bucket stands for."""
    return rule.buckets[bucket].weight * math.sqrt(365 / rule.horizon_days) / _NORMAL.inv_cdf(0.99)


def _factors(rule: Sensitivities, units: Sequence[Unit], layer: str) -> list[_Factor]:
    """Every unit with what it weighs in one layer."""
    found = []
    for unit in units:
        key = _bucket_of(rule, unit.unit)
        bucket, figure = rule.buckets[key], unit.charges[rule.inputs()[layer]].figure
        if layer == "curvature":
            counted = _times(figure, _points(rule, key) if bucket.curvature else 0.0)
            found.append(_Factor(unit.unit, key, figure, 1.0, counted))
            continue
        sensitivity = figure if layer == "delta" else _times(figure, _points(rule, key) * rule.vol_ratio)
        weight = bucket.weight if layer == "delta" else bucket.vega_weight
        threshold = bucket.threshold if layer == "delta" else bucket.vega_threshold
        size = max(1.0, math.sqrt(abs(sensitivity.amount) / threshold))
        found.append(_Factor(unit.unit, key, sensitivity, size, _times(sensitivity, weight * size)))
    return found


def _bucket_norm(factors: list[_Factor], rho: float) -> Figure:
    squares = []
    for a, b in combinations_with_replacement(factors, 2):
        offset = min(a.concentration, b.concentration) / max(a.concentration, b.concentration)
        squares.append(_product(a.weighted, b.weighted, 1.0 if a is b else 2 * rho * offset))
    return _norm(squares)


def _clipped(figure: Figure, bound: Figure) -> Figure:
    return Figure(min(max(figure.amount, -bound.amount), bound.amount), figure.gross + bound.gross)


def _across(rule: Sensitivities, norms: Mapping[str, Figure], nets: Mapping[str, Figure], power: int) -> Figure:
    """Buckets that offset, joined."""
    order = list(rule.buckets)
    kept = [key for key in norms if not rule.buckets[key].alone]
    squares = []
    for a, b in combinations_with_replacement(kept, 2):
        gamma = rule.across[order.index(a)][order.index(b)] ** power
        squares.append(_product(norms[a], norms[a], 1.0) if a == b else _product(nets[a], nets[b], 2 * gamma))
    return _norm(squares)


def _layer(rule: Sensitivities, factors: list[_Factor], layer: str) -> tuple[Figure, list[dict[str, Any]]]:
    """Margin of one layer, and its buckets as lines."""
    power = 2 if layer == "curvature" else 1
    groups = {key: [f for f in factors if f.bucket == key] for key in rule.buckets}
    groups = {key: members for key, members in groups.items() if members}
    norms = {key: _bucket_norm(members, rule.buckets[key].correlation ** power) for key, members in groups.items()}
    sums = {key: total([f.weighted for f in members]) for key, members in groups.items()}
    nets = {key: _clipped(sums[key], norms[key]) for key in groups}
    joined, alone = _across(rule, norms, nets, power), [key for key in groups if rule.buckets[key].alone]
    if layer == "curvature":
        kept = [f.weighted for key, members in groups.items() if key not in alone for f in members]
        parts = [_bent(kept, joined), *(_bent([f.weighted for f in groups[key]], norms[key]) for key in alone)]
    else:
        parts = [joined, *(norms[key] for key in alone)]
    lines = [
        {"layer": layer, "bucket": key, "margin": norms[key].amount, "net": nets[key].amount, "alone": key in alone}
        for key in groups
    ]
    return total(parts), lines


def _bent(amounts: list[Figure], norm: Figure) -> Figure:
    """max(0, sum + lambda * norm), lambda by the share of the sum that is short."""
    sums, gross = total(amounts), sum(abs(figure.amount) for figure in amounts)
    theta = min(sums.amount / gross, 0.0) if gross else 0.0
    factor = (_NORMAL.inv_cdf(0.995) ** 2 - 1) * (1 + theta) - theta
    return Figure(max(sums.amount + factor * norm.amount, 0.0), sums.gross * 8 + factor * norm.gross)


def _sensitivities(rule: Sensitivities, units: Sequence[Unit], names: Sequence[str]) -> _Joined:
    del names
    amounts, factor_lines, bucket_lines = {}, [], []
    for layer in rule.inputs():
        factors = _factors(rule, units, layer)
        amounts[f"{layer}_margin"], lines = _layer(rule, factors, layer)
        factor_lines += [factor.line(layer) for factor in factors]
        bucket_lines += lines
    tables = {"aggregation factors": pl.DataFrame(factor_lines), "aggregation buckets": pl.DataFrame(bucket_lines)}
    return _Joined(amounts, (), tables)


def _offset(rule: Offset, units: Sequence[Unit], names: Sequence[str]) -> _Joined:
    """Largest loss over scenarios, gains counted to a share inside and between groups."""
    del names
    group_of = {unit: (key, group.within) for key, group in rule.groups.items() for unit in group.units}
    scenarios = list(next(iter(units)).charges[rule.component].losses) if units else []
    gross = total([f for u in units for f in list(u.charges[rule.component].losses.values())[:1]]).gross
    lines: list[dict[str, Any]] = []
    for scenario in scenarios:
        own: dict[str, float] = {}
        for unit in units:
            key, within = group_of.get(unit.unit, (f"{unit.unit} alone", 1.0))
            pnl = -unit.charges[rule.component].losses[scenario].amount
            own[key] = own.get(key, 0.0) + (pnl * within if pnl > 0 else pnl)
        counted = [pnl * rule.between if pnl > 0 else pnl for pnl in own.values()]
        lines.append({"scenario": scenario} | own | {"counted_pnl": sum(counted)})
    worst = min((line["counted_pnl"] for line in lines), default=0.0)
    return _Joined({"offset_loss": Figure(-worst, gross)}, (), {"aggregation scenarios": pl.DataFrame(lines)})


KINDS: Mapping[str, Callable[[Any, Sequence[Unit], Sequence[str]], _Joined]] = {
    "sum": _summed,
    "correlated": _form,
    "covariance": _form,
    "sensitivities": _sensitivities,
    "offset": _offset,
}


def _stated(file: ModelFile, units: Sequence[Unit], joined: Mapping[str, Figure]) -> dict[str, Figure]:
    """Account expressions over the kind's amounts, sums of components and the aggregation's numbers."""
    rule = file.aggregation
    values = {name: exact(number) for name, number in rule.numbers.items()}
    values |= {name: total([u.charges[name].figure for u in units]) for name in file.components}
    values |= joined
    for name, text in rule.margin.items():
        values[name] = evaluate(parse_expression(text, values), values)
    return {name: values[name] for name in rule.margin}


def aggregated(file: ModelFile, units: Sequence[Unit]) -> Aggregated:
    """Requirements of the account from its units', as the model's aggregation says."""
    names, rule = list(file.margin), file.aggregation
    joined = KINDS[rule.kind](rule, units, names)
    margins = _stated(file, units, joined.amounts) if rule.margin else dict(joined.amounts)
    lines = [{"unit": u.unit} | {name: u.margins[name] for name in names} for u in units]
    lines += [dict(row) for row in joined.rows]
    lines.append({"unit": TOTAL} | margins)
    tables = {"aggregation": pl.DataFrame(_plain(lines))} | dict(joined.tables or {})
    if rule.margin:
        parts = [{"name": name, "formula": None, "value": figure.amount} for name, figure in joined.amounts.items()]
        parts += [{"name": n, "formula": text, "value": margins[n].amount} for n, text in rule.margin.items()]
        schema = {"name": pl.String, "formula": pl.String, "value": pl.Float64}
        tables["aggregation requirement"] = pl.DataFrame(parts, schema=schema)
    return Aggregated(margins, tables)
