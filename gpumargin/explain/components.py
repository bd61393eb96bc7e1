"""What each component requires of one risk unit, as lines that add up: one plain numpy function per kind.

A new kind of component is one more entry of `KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from gpumargin.explain.figures import Figure, exact, total
from gpumargin.explain.scenario_losses import scenario_loss
from gpumargin.explain.sides import Charge, UnitSide, runs, with_total
from gpumargin.modelfile import (
    ConfidenceCharge,
    ExpiryLoss,
    Largest,
    NetShortCharge,
    PriceShortfall,
    ScenarioMean,
    SizeCharge,
)


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


def _charged(lines: list[dict[str, Any]]) -> Charge:
    """A charge that is the sum of its lines, none of which can be negative."""
    return Charge(total([exact(line["charge"]) for line in lines]), {"": with_total(lines, "charge")})


def size_charge(component: SizeCharge, side: UnitSide) -> Charge:
    """Rate * spot * size of every leg of one sort, longs and shorts alike."""
    rate, size = side.number(component.rate), np.abs(side.size)
    ids, quantity = side.legs["instrument_id"].to_list(), side.column("quantity")
    return _charged(
        [
            {
                "instrument_id": ids[leg],
                "quantity": float(quantity[leg]),
                "size": float(size[leg]),
                "spot": side.spot,
                "rate": rate,
                "charge": float(size[leg] * side.spot * rate),
            }
            for leg in np.flatnonzero(side.is_kind(component.legs))
        ]
    )


def net_short_charge(component: NetShortCharge, side: UnitSide) -> Charge:
    """Rate * spot * options short after netting calls and puts of one expiry and strike."""
    rate, strike, is_option = side.number(component.rate), side.column("strike"), side.is_kind("option")
    lines = []
    for label, group in side.expiries().items():
        options = group[is_option[group]]
        for price, members in runs(strike[options].tolist()).items():
            net = float(side.size[options[members]].sum())
            charge = max(-net, 0.0) * side.spot * rate
            lines.append(
                {"expiry": label, "strike": price, "net_size": net, "spot": side.spot, "rate": rate, "charge": charge}
            )
    gross = float(np.abs(side.size[is_option]).sum()) * side.spot * rate
    return Charge(Figure(sum(line["charge"] for line in lines), gross), {"": with_total(lines, "charge")})


def confidence_charge(component: ConfidenceCharge, side: UnitSide) -> Charge:
    """Rate * spot * (1 - confidence) * size where the least confidence of an expiry's feeds is below the threshold."""
    rate, threshold = side.number(component.rate), side.number(component.threshold)
    outside = [side.market.confidence.get(side.unit, 1.0)]
    if side.is_kind("perpetual").any():
        outside.append(side.market.perpetual_confidence.get(side.unit, 1.0))
    lines = []
    for label, legs in side.expiries().items():
        size = float(np.abs(side.size[legs]).sum())
        least = min(float(side.column("confidence")[legs].min()), *outside)
        gap = 1 - least if least < threshold else 0.0
        charge = size * gap * side.spot * rate
        feed = {"expiry": label, "size": size, "confidence": least, "threshold": threshold, "gap": gap}
        lines.append(feed | {"spot": side.spot, "rate": rate, "charge": charge})
    return _charged(lines)


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
    "size_charge": size_charge,
    "net_short_charge": net_short_charge,
    "confidence_charge": confidence_charge,
    "price_shortfall": price_shortfall,
    "largest": largest,
}
