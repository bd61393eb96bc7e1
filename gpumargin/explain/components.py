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
from gpumargin.explain.figures import Figure
from gpumargin.explain.unit import Charge, UnitSide, with_total
from gpumargin.modelfile import Discount, ExpiryLoss, Largest, PriceShortfall, ScenarioLoss


def _share_of_value(discount: Discount, side: UnitSide, legs: np.ndarray) -> float:
    """Share of an expiry's positive shocked value that counts: static * exp(-years * (rate multiplier + addend))."""
    options = legs[side.is_kind("option")[legs]]
    if len(options) == 0:
        return 1.0
    rate, years = side.column("rate")[options[-1]], side.column("years")[options[-1]]
    yearly = max(rate, 0.0) * side.number(discount.rate_multiplier) + side.number(discount.rate_addend)
    return float(side.number(discount.static) * np.exp(-years * yearly))


def _expiry_lines(component: ScenarioLoss, side: UnitSide, columns: np.ndarray) -> dict[str, dict[str, Any]]:
    """Net P&L, net value and discount of every expiry, the first and last `[S]`."""
    lines: dict[str, dict[str, Any]] = {}
    for label, legs in side.expiries().items():
        pnl, value = side.pnl[np.ix_(legs, columns)].sum(axis=0), float(side.column("value")[legs].sum())
        share = 1.0 if component.discount is None else _share_of_value(component.discount, side, legs)
        shocked = pnl + value
        discount = np.where(shocked > 0, (share - 1) * shocked, 0.0)
        lines[label] = {"pnl": pnl, "value": value, "share": share, "discount": discount}
    return lines


def scenario_loss(component: ScenarioLoss, side: UnitSide) -> Charge:
    """Largest loss over a scenario set, with and without the discount of expiries that are worth something."""
    columns = side.columns_of(component.scenarios)
    rows, weight = side.scenarios[columns], side.scenarios["weight"].to_numpy()[columns]
    expiries = _expiry_lines(component, side, columns)
    pnl = sum(line["pnl"] for line in expiries.values())
    discount = sum(line["discount"] for line in expiries.values())
    counted = weight * (pnl + discount)
    worst = int(np.argmin(counted))
    gross = np.abs(weight) * (np.abs(side.pnl[:, columns]).sum(axis=0) + np.abs(side.column("value")).sum())
    ids = [str(i) for i in rows["id"]]
    table = rows.select("id", "spot_move", "vol_rule", "weight").with_columns(
        pl.Series("pnl", pnl),
        pl.Series("discount", discount),
        pl.Series("counted_pnl", counted),
        pl.Series("binds", np.arange(len(columns)) == worst),
    )
    at_worst = _at_worst(expiries, worst, float(weight[worst]))
    unused = () if component.discount else ("discount", "share_counted")
    return Charge(
        Figure(-float(counted[worst]), float(gross.max())),
        {"": table.drop(unused, strict=False), f"at {ids[worst]}": at_worst.drop(unused, strict=False)},
        worst=ids[worst],
        losses={i: Figure(-float(c), float(gross.max())) for i, c in zip(ids, counted, strict=True)},
        leg_pnl=side.pnl[:, columns[worst]] * weight[worst],
    )


def _at_worst(expiries: Mapping[str, Mapping[str, Any]], worst: int, weight: float) -> pl.DataFrame:
    lines = [
        {
            "expiry": label,
            "net_value": line["value"],
            "net_pnl": float(line["pnl"][worst]),
            "share_counted": line["share"],
            "discount": float(line["discount"][worst]),
            "contribution": weight * float(line["pnl"][worst] + line["discount"][worst]),
        }
        for label, line in expiries.items()
    ]
    return with_total(lines, "net_value", "net_pnl", "discount", "contribution")


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
    "expiry_loss": expiry_loss,
    "charge": charge,
    "price_shortfall": price_shortfall,
    "largest": largest,
}
