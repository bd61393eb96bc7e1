"""The largest loss of a unit over a set of scenarios, recomputed in plain numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from gpumargin.evaluate import number_of
from gpumargin.explain.figures import Figure
from gpumargin.explain.market import Floats
from gpumargin.explain.unit import Charge, UnitSide, with_total
from gpumargin.modelfile import Discount, DiscountRate, ScenarioLoss
from gpumargin.modelfile.scenarios import SKEWS


@dataclass(frozen=True)
class _Expiry:
    """One expiry of a unit under every scenario of a set, before weights.

    Attributes:
      pnl: `[S]` net P&L.
      value: net value now.
      counted: `[S]` what the model counts of the P&L.
      share: `[S]` share of the net shocked value that counts, 1 without a discount.
      shares: what that is for a positive and for a negative value.
    """

    pnl: Floats
    value: float
    counted: Floats
    share: Floats
    shares: tuple[float, float]


def _shares(discount: Discount, side: UnitSide, legs: np.ndarray) -> tuple[float, float]:
    """Shares of an expiry's positive and of its negative shocked value that count."""
    options = legs[side.is_kind("option")[legs]]
    if len(options) == 0:
        return 1.0, 1.0
    rate, years = max(side.column("rate")[options[-1]], 0.0), side.column("years")[options[-1]]

    def share(numbers: DiscountRate, sign: int) -> float:
        yearly = rate * side.number(numbers.rate_multiplier) + side.number(numbers.rate_addend)
        return float(side.number(numbers.static) * np.exp(sign * years * yearly))

    most = float(np.exp(rate * years)) if side.market.discounts else 1.0
    negative = 1.0 if discount.negative is None else min(most, share(discount.negative, 1))
    return share(discount, -1), negative


def _turns(scenarios: pl.DataFrame) -> np.ndarray:
    """Which scenarios turn the smile."""
    return scenarios["vol_rule"].cast(pl.String).is_in(SKEWS).to_numpy()


def _expiries(component: ScenarioLoss, side: UnitSide, columns: np.ndarray) -> dict[str, _Expiry]:
    """What every expiry gains, and what of it counts, in each scenario."""
    turns = _turns(side.scenarios[columns])
    found: dict[str, _Expiry] = {}
    for label, legs in side.expiries().items():
        pnl, value = side.pnl[np.ix_(legs, columns)].sum(axis=0), float(side.column("value")[legs].sum())
        shares = (1.0, 1.0) if component.discount is None else _shares(component.discount, side, legs)
        share = np.where(pnl + value > 0, *shares)
        counted = pnl + (share - 1) * (pnl + value)
        found[label] = _Expiry(pnl, value, np.where(turns, -np.abs(counted), counted), share, shares)
    return found


def _processed(component: ScenarioLoss, side: UnitSide, pnl: Floats, columns: np.ndarray) -> Floats:
    """Weighted P&L of each scenario as the component's expression turns it, `[S]`."""
    post = component.post_expression()
    if post is None:
        return pnl
    moves = side.scenarios["spot_move"].to_numpy()[columns]
    known = {name: side.number(values) for name, values in component.numbers.items()}
    known |= {"spot": side.spot, "dollar": 1 / side.market.dollar, "range": side.number(side.market.ranges)}
    return np.array(
        [
            number_of(post, known | {"pnl": float(own), "move": float(move)}) if not math.isnan(own) else math.nan
            for own, move in zip(pnl, moves, strict=True)
        ]
    )


def scenario_loss(component: ScenarioLoss, side: UnitSide) -> Charge:
    """Largest loss over a scenario set, with and without the discount of expiries that are worth something."""
    columns = side.columns_of(component.scenarios)
    rows, weight = side.scenarios[columns], side.scenarios["weight"].to_numpy()[columns]
    expiries = _expiries(component, side, columns)
    nothing = np.zeros(len(columns))
    pnl = sum((line.pnl for line in expiries.values()), nothing)
    adjustment = sum((line.counted - line.pnl for line in expiries.values()), nothing)
    weighted = weight * (pnl + adjustment)
    counted = _processed(component, side, weighted, columns)
    worst = int(np.argmin(counted))
    gross = np.abs(weight) * (np.abs(side.pnl[:, columns]).sum(axis=0) + np.abs(side.column("value")).sum())
    ids = [str(i) for i in rows["id"]]
    table = rows.select("id", "spot_move", "vol_rule", "weight").with_columns(
        pl.Series("pnl", pnl),
        pl.Series("discount", adjustment),
        pl.Series("weighted_pnl", weighted),
        pl.Series("counted_pnl", counted),
        pl.Series("binds", np.arange(len(columns)) == worst),
    )
    shares = ("share_if_positive", "share_if_negative", "share_counted")
    unused = () if component.discount else shares if _turns(rows).any() else (*shares, "discount")
    kept = (*unused, *(("weighted_pnl",) if component.post is None else ()))
    at_worst = _at_worst(expiries, worst, float(weight[worst]))
    return Charge(
        Figure(-float(counted[worst]), float(gross.max())),
        {"": table.drop(kept, strict=False), f"at {ids[worst]}": at_worst.drop(unused, strict=False)},
        worst=ids[worst],
        losses={i: Figure(-float(c), float(gross.max())) for i, c in zip(ids, counted, strict=True)},
        leg_pnl=side.pnl[:, columns[worst]] * weight[worst],
    )


def _at_worst(expiries: Mapping[str, _Expiry], worst: int, weight: float) -> pl.DataFrame:
    lines = [
        {
            "expiry": label,
            "net_value": line.value,
            "net_pnl": float(line.pnl[worst]),
            "share_if_positive": line.shares[0],
            "share_if_negative": line.shares[1],
            "share_counted": float(line.share[worst]),
            "discount": float(line.counted[worst] - line.pnl[worst]),
            "contribution": weight * float(line.counted[worst]),
        }
        for label, line in expiries.items()
    ]
    return with_total(lines, "net_value", "net_pnl", "discount", "contribution")
