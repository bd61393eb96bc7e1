"""What each component requires of one risk unit, as lines that add up: one plain numpy function per kind.

A new kind of component is one more entry of `KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from gpumargin.explain.charges import charge
from gpumargin.explain.figures import Figure, total
from gpumargin.explain.scenario_losses import scenario_loss
from gpumargin.explain.unit import Charge, UnitSide, with_total
from gpumargin.modelfile import ExpiryLoss, Largest, PriceShortfall, ScenarioMean


def expiry_loss(component: ExpiryLoss, side: UnitSide) -> Charge:
    """Each expiry's own worst side of a small scenario set, times a factor that grows with its tenor."""
    columns, is_option = side.columns_of(component.scenarios), side.is_kind("option")
    ids, leg_pnl = side.scenarios["id"].to_list(), np.zeros(side.legs.height)
    lines, gross = [], 0.0
    for label, group in side.expiries().items():
        legs = group[is_option[group]]
        if len(legs) == 0:
            continue
        pnl = side.pnl[np.ix_(legs, columns)].sum(axis=0)
        worst = int(np.argmin(pnl))
        factor = side.number(component.addend) + side.number(component.multiplier) * side.column("years")[legs[0]]
        counts = pnl[worst] < 0 or math.isnan(pnl[worst])
        leg_pnl[legs] = side.pnl[legs, columns[worst]] * factor * counts
        gross += factor * float(np.abs(side.pnl[np.ix_(legs, columns)]).sum(axis=0).max())
        charge = -float(pnl[worst]) * factor if counts else 0.0
        worst_id = ids[columns[worst]]
        lines.append(
            {"expiry": label, "worst_side": worst_id, "pnl": float(pnl[worst]), "factor": factor, "charge": charge}
        )
    figure = Figure(sum(line["charge"] for line in lines), gross)
    return Charge(figure, {"": with_total(lines, "charge")}, leg_pnl=leg_pnl)


def price_shortfall(component: PriceShortfall, side: UnitSide) -> Charge:
    """Factor * max(0, threshold - price) of an asset: a pure number."""
    price, threshold = side.market.price.get(component.asset, math.nan), side.number(component.threshold)
    factor = side.number(component.factor)
    shortfall = max(threshold - price, 0.0) if not math.isnan(price) else math.nan
    line = {"asset": component.asset, "price": price, "threshold": threshold, "shortfall": shortfall, "factor": factor}
    result = shortfall * factor
    figure = Figure(result, factor * (abs(threshold) + abs(price)))
    return Charge(figure, {"": pl.DataFrame([line | {"charge": result}])})


def scenario_mean(component: ScenarioMean, side: UnitSide) -> Charge:
    """Mean loss of an earlier component over its unmoved scenarios, or over the worst and its counterpart."""
    source = side.charges[component.of]
    rows = {str(row["id"]): row for row in side.scenarios.iter_rows(named=True) if str(row["id"]) in source.losses}
    if component.which == "unmoved":
        chosen = [name for name, row in rows.items() if row["spot_move"] == 0]
    else:
        worst = str(source.worst)
        chosen = [worst, _pair(worst, rows)]
    lines = [{"scenario": name, "loss": source.losses[name].amount} for name in chosen]
    together = total([source.losses[name] for name in chosen])
    mean = Figure(together.amount / len(chosen), together.gross / len(chosen))
    return Charge(mean, {"": pl.DataFrame(lines)})


def _pair(worst: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The scenario that differs from the worst by the direction of vol; itself if there is none."""
    turned = worst.replace("/up", "/down") if "/up" in worst else worst.replace("/down", "/up")
    return turned if turned in rows else worst


def largest(component: Largest, side: UnitSide) -> Charge:
    """The largest of earlier components; the first of equals binds."""
    charges = {name: side.charges[name] for name in component.of}
    amounts = [charge.figure.amount for charge in charges.values()]
    binding = component.of[int(np.argmax(amounts))]
    chosen = charges[binding]
    lines = [{"component": n, "amount": c.figure.amount, "binds": n == binding} for n, c in charges.items()]
    losses = {i: loss for charge in charges.values() for i, loss in charge.losses.items()}
    losses |= {name: charge.figure for name, charge in charges.items() if charge.worst is None}
    return Charge(
        Figure(chosen.figure.amount, max(charge.figure.gross for charge in charges.values())),
        {"": pl.DataFrame(lines)},
        worst=chosen.worst or binding,
        losses=losses,
        leg_pnl=chosen.leg_pnl,
    )


KINDS: Mapping[str, Callable[[Any, UnitSide], Charge]] = {
    "scenario_loss": scenario_loss,
    "scenario_mean": scenario_mean,
    "expiry_loss": expiry_loss,
    "charge": charge,
    "price_shortfall": price_shortfall,
    "largest": largest,
}
