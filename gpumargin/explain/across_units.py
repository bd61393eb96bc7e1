"""Components that look at all units of an account, as lines that add up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from gpumargin.explain.figures import Figure, evaluate, exact
from gpumargin.explain.unit import Charge, UnitSide
from gpumargin.expressions import parse_expression
from gpumargin.modelfile import SpreadCredit


def _input(component: SpreadCredit, side: UnitSide, word: str) -> Figure:
    values = {name: charge.figure for name, charge in side.charges.items()} | {"spot": exact(side.spot)}
    return evaluate(parse_expression(component.inputs()[word], values), values)


def _weighted_risk(component: SpreadCredit, side: UnitSide) -> Figure:
    """Price risk per unit of delta, at most cap * spot."""
    risk, delta = _input(component, side, "price_risk"), _input(component, side, "delta")
    cap = side.number(component.cap) * side.spot
    if delta.amount == 0 or math.isnan(delta.amount + risk.amount):
        return exact(0.0 if delta.amount == 0 else math.nan)
    size = abs(delta.amount)
    found = max(risk.amount, 0.0) / size
    return Figure(min(found, cap), min(risk.gross / size + abs(found) * delta.gross / size, cap))


def spread_credit(component: SpreadCredit, sides: Sequence[UnitSide]) -> list[Charge]:
    """Credit of every unit, spreads formed in order from the deltas that earlier ones left."""
    held = {side.unit: side for side in sides}
    left = {side.unit: _input(component, side, "delta") for side in sides}
    risk = {side.unit: _weighted_risk(component, side) for side in sides}
    lines: dict[str, list[dict[str, Any]]] = {side.unit: [] for side in sides}
    for index, spread in enumerate(component.spreads):
        if any(leg.unit not in held for leg in spread.legs):
            continue
        possible = [leg.side * left[leg.unit].amount / leg.ratio for leg in spread.legs]
        number = max(min(possible), 0.0) + min(max(possible), 0.0)
        for leg in spread.legs:
            used = number * leg.ratio
            line = {"spread": index + 1, "spreads": abs(number), "delta_before": left[leg.unit].amount}
            line |= {"delta_used": used * leg.side, "risk_per_delta": risk[leg.unit].amount, "rate": spread.rate}
            lines[leg.unit].append(line | {"credit": abs(used) * risk[leg.unit].amount * spread.rate})
            left[leg.unit] = Figure(left[leg.unit].amount - used * leg.side, left[leg.unit].gross)
    return [_credited(lines[side.unit], left[side.unit], risk[side.unit]) for side in sides]


def _credited(lines: list[dict[str, Any]], delta: Figure, risk: Figure) -> Charge:
    amount = sum(line["credit"] for line in lines)
    return Charge(Figure(amount, delta.gross * risk.gross), {"": pl.DataFrame(lines)})


KINDS: Mapping[str, Callable[[Any, Sequence[UnitSide]], list[Charge]]] = {"spread_credit": spread_credit}
