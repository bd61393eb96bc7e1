"""How the units of many accounts make their requirements: `explain.aggregation` with an axis of accounts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from gpumargin.expressions import parse_expression
from gpumargin.modelfile import Correlated, Covariance, ModelFile, Offset, Sensitivities, SpreadCredit
from gpumargin.verification.figures import (
    NOTHING,
    Array,
    Figures,
    evaluate,
    given,
    norm,
    product,
    scaled,
    total,
)
from gpumargin.verification.unit_rows import Charges, UnitRows

_NORMAL = NormalDist()


class Unit(NamedTuple):
    """One unit of all accounts, 0 for accounts without it."""

    unit: str
    rows: UnitRows
    charges: Mapping[str, Figures]  # [A] each
    margins: Mapping[str, Figures]


def spread(account: Array, figures: Figures, accounts: int) -> Figures:
    """Figures of unit rows as figures of accounts, `[R]` to `[A]`."""
    found = []
    for part in figures:
        dense = np.zeros(accounts)
        dense[account] = part
        found.append(dense)
    return Figures(*found)


Joined = Mapping[str, Figures]


def _summed(rule: object, units: Sequence[Unit], names: Sequence[str]) -> Joined:
    del rule
    return {name: total([u.margins[name] for u in units]) for name in names}


def _form(rule: Correlated | Covariance, units: Sequence[Unit], names: Sequence[str]) -> Joined:
    """Sqrt of a quadratic form of the listed units, and the others in full."""
    is_covariance = isinstance(rule, Covariance)
    matrix = rule.covariance if isinstance(rule, Covariance) else rule.correlation
    listed, others = ([u for u in units if (u.unit in rule.units) is inside] for inside in (True, False))
    found = {}
    for name in names:
        squares = []
        for a, b in combinations_with_replacement(listed, 2):
            entry = matrix[rule.units.index(a.unit)][rule.units.index(b.unit)] * (1 if a is b else 2)
            squares.append(scaled(product(a.margins[name], b.margins[name]), entry))
        alone = [u.margins[name] for u in others]
        if isinstance(rule, Covariance) and is_covariance:
            factor = math.sqrt(rule.other_variance)
            alone = [scaled(Figures(np.abs(own.amount), own.gross), factor) for own in alone]
        found[name] = total([norm(total(squares)), *alone])
    return found


class _Factor(NamedTuple):
    """One unit in one layer of a sensitivity margin."""

    bucket: str
    concentration: Any
    weighted: Figures


def _bucket_of(rule: Sensitivities, unit: str) -> str:
    listed = {name: key for key, bucket in rule.buckets.items() for name in bucket.units}
    return listed.get(unit) or next(key for key, bucket in rule.buckets.items() if bucket.others)


def _factor(rule: Sensitivities, unit: Unit, layer: str) -> _Factor:
    """One unit with what it weighs in one layer."""
    key = _bucket_of(rule, unit.unit)
    bucket, figures = rule.buckets[key], unit.charges[rule.inputs()[layer]]
    points = bucket.weight * math.sqrt(365 / rule.horizon_days) / _NORMAL.inv_cdf(0.99)
    if layer == "curvature":
        return _Factor(key, 1.0, scaled(figures, points if bucket.curvature else 0.0))
    sensitivity = figures if layer == "delta" else scaled(figures, points * rule.vol_ratio)
    weight = bucket.weight if layer == "delta" else bucket.vega_weight
    threshold = bucket.threshold if layer == "delta" else bucket.vega_threshold
    size = np.maximum(1.0, np.sqrt(np.abs(sensitivity.amount) / threshold))
    weighted = product(sensitivity, given(weight * size))
    return _Factor(key, size, weighted)


def _bucket_norm(factors: list[_Factor], rho: float) -> Figures:
    squares = []
    for a, b in combinations_with_replacement(factors, 2):
        offset = np.minimum(a.concentration, b.concentration) / np.maximum(a.concentration, b.concentration)
        squares.append(product(product(a.weighted, b.weighted), given(1.0 if a is b else 2 * rho * offset)))
    return norm(total(squares))


def _clipped(figures: Figures, bound: Figures) -> Figures:
    amount = np.minimum(np.maximum(figures.amount, -bound.amount), bound.amount)
    return Figures(amount, figures.gross + bound.gross)


def _bent(amounts: list[Figures], norm_of_them: Figures) -> Figures:
    """max(0, sum + lambda * norm), lambda by the share of the sum that is short."""
    sums, gross = total(amounts), sum(np.abs(f.amount) for f in amounts)
    theta = np.where(gross > 0, np.minimum(sums.amount / np.where(gross > 0, gross, 1.0), 0.0), 0.0)
    factor = (_NORMAL.inv_cdf(0.995) ** 2 - 1) * (1 + theta) - theta
    amount = np.maximum(sums.amount + factor * norm_of_them.amount, 0.0)
    return Figures(amount, sums.gross * 8 + factor * norm_of_them.gross)


def _layer(rule: Sensitivities, units: Sequence[Unit], layer: str) -> Figures:
    """Margin of one layer."""
    power, order = (2 if layer == "curvature" else 1), list(rule.buckets)
    groups: dict[str, list[_Factor]] = {}
    for unit in units:
        factor = _factor(rule, unit, layer)
        groups.setdefault(factor.bucket, []).append(factor)
    norms = {key: _bucket_norm(members, rule.buckets[key].correlation ** power) for key, members in groups.items()}
    nets = {key: _clipped(total([f.weighted for f in members]), norms[key]) for key, members in groups.items()}
    kept, alone = ([key for key in groups if rule.buckets[key].alone is is_alone] for is_alone in (False, True))
    squares = []
    for a, b in combinations_with_replacement(kept, 2):
        gamma = rule.across[order.index(a)][order.index(b)] ** power
        squares.append(product(norms[a], norms[a]) if a == b else scaled(product(nets[a], nets[b]), 2 * gamma))
    joined = norm(total(squares))
    if layer != "curvature":
        return total([joined, *(norms[key] for key in alone)])
    offsetting = [f.weighted for key in kept for f in groups[key]]
    return total([_bent(offsetting, joined), *(_bent([f.weighted for f in groups[key]], norms[key]) for key in alone)])


def _sensitivities(rule: Sensitivities, units: Sequence[Unit], names: Sequence[str]) -> Joined:
    del names
    return {f"{layer}_margin": _layer(rule, units, layer) for layer in rule.inputs()}


def _offset(rule: Offset, units: Sequence[Unit], names: Sequence[str]) -> Joined:
    """Largest loss over scenarios, gains counted to a share inside and between groups."""
    del names
    if not units:
        return {"offset_loss": NOTHING}
    group_of = {unit: (key, group.within) for key, group in rule.groups.items() for unit in group.units}
    own: dict[str, Any] = {}
    for unit in units:
        key, within = group_of.get(unit.unit, (f"{unit.unit} alone", 1.0))
        losses = unit.rows.charges[rule.component].losses
        pnl = np.zeros((len(unit.charges[rule.component].amount), losses.shape[1]))
        pnl[unit.rows.account] = -losses
        own[key] = own.get(key, 0.0) + np.where(pnl > 0, pnl * within, pnl)
    counted = sum(np.where(pnl > 0, pnl * rule.between, pnl) for pnl in own.values())
    gross = total([unit.charges[rule.component] for unit in units]).gross
    return {"offset_loss": Figures(-np.min(counted, axis=1), gross)}


KINDS: Mapping[str, Callable[[Any, Sequence[Unit], Sequence[str]], Joined]] = {
    "sum": _summed,
    "correlated": _form,
    "covariance": _form,
    "sensitivities": _sensitivities,
    "offset": _offset,
}


def aggregated(file: ModelFile, units: Sequence[Unit]) -> dict[str, Figures]:
    """Requirements of the accounts by margin type from their units', as the model's aggregation says."""
    rule, names = file.aggregation, list(file.margin)
    joined = KINDS[rule.kind](rule, units, names)
    if not rule.margin:
        return dict(joined)
    values = {name: given(number) for name, number in rule.numbers.items()}
    values |= {name: total([u.charges[name] for u in units]) for name in file.components}
    values |= joined
    for name, text in rule.margin.items():
        values[name] = evaluate(parse_expression(text, values), values)
    return {name: values[name] for name in rule.margin}


# --- Components that look at all units of an account.


def _input(component: SpreadCredit, rows: UnitRows, word: str) -> Figures:
    values = {name: charges.figures for name, charges in rows.charges.items()}
    values["spot"] = given(rows.contracts.side.spot)
    return evaluate(parse_expression(component.inputs()[word], values), values)


def _weighted_risk(component: SpreadCredit, rows: UnitRows) -> Figures:
    """Price risk per unit of delta, at most cap * spot."""
    risk, delta = _input(component, rows, "price_risk"), _input(component, rows, "delta")
    cap = rows.contracts.side.number(component.cap) * rows.contracts.side.spot
    size = np.abs(delta.amount)
    safe = np.where(size > 0, size, 1.0)
    found = np.maximum(risk.amount, 0.0) / safe
    gross = np.minimum(risk.gross / safe + found * delta.gross / safe, cap)
    is_nothing = size == 0
    return Figures(np.where(is_nothing, 0.0, np.minimum(found, cap)), np.where(is_nothing, 0.0, gross))


def with_spread_credit(name: str, component: SpreadCredit, units: Sequence[UnitRows], accounts: int) -> None:
    """Credit of every unit row, spreads formed in order from the deltas that earlier ones left."""
    delta = {u.contracts.unit: spread(u.account, _input(component, u, "delta"), accounts) for u in units}
    risk = {u.contracts.unit: spread(u.account, _weighted_risk(component, u), accounts) for u in units}
    left = {unit: figures.amount for unit, figures in delta.items()}
    credit = {unit: np.zeros(accounts) for unit in delta}
    for each in component.spreads:
        if any(leg.unit not in left for leg in each.legs):
            continue
        possible = np.stack([leg.side * left[leg.unit] / leg.ratio for leg in each.legs])
        number = np.maximum(possible.min(axis=0), 0.0) + np.minimum(possible.max(axis=0), 0.0)
        for leg in each.legs:
            used = number * leg.ratio
            credit[leg.unit] = credit[leg.unit] + np.abs(used) * risk[leg.unit].amount * each.rate
            left[leg.unit] = left[leg.unit] - used * leg.side
    for rows in units:
        unit = rows.contracts.unit
        gross = delta[unit].gross * risk[unit].gross
        rows.charges[name] = Charges(Figures(credit[unit][rows.account], gross[rows.account]))
