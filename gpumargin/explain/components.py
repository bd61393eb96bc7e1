"""What each component requires of one risk unit, as lines that add up: one plain numpy function per kind.

A new kind of component is one more entry of `KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from gpumargin.explain.figures import Figure, exact, total
from gpumargin.explain.market import Floats, Market
from gpumargin.modelfile import (
    DEFAULT,
    ConfidenceCharge,
    Discount,
    ExpiryLoss,
    Largest,
    NetShortCharge,
    PriceShortfall,
    ScenarioLoss,
    SizeCharge,
)

TOTAL = "total"


@dataclass(frozen=True)
class Charge:
    """What one component requires of one unit.

    Attributes:
      figure: the requirement or loss, positive.
      tables: its lines; the key follows the component's name in the table's title, empty for the main table.
      worst: id of the scenario that binds; None for components without scenarios.
      losses: loss by id of scenario, for those that could have bound.
      leg_pnl: P&L of each leg where the component's worst case is, `[N]`; None for components without scenarios.
    """

    figure: Figure
    tables: Mapping[str, pl.DataFrame]
    worst: str | None = None
    losses: Mapping[str, Figure] = field(default_factory=dict)
    leg_pnl: Floats | None = None


@dataclass(frozen=True)
class UnitSide:
    """One account's legs of one risk unit.

    Attributes:
      unit: the underlying.
      legs: `[N]`, as `market.account_legs` makes them.
      pnl: `[N, S]` P&L of each position in each scenario column, before weights.
      scenarios: `[S]` scenarios of this unit in column order.
      market: prices and confidences.
      charges: of the components before this one, by name; components that look across units come last.
    """

    unit: str
    legs: pl.DataFrame
    pnl: Floats
    scenarios: pl.DataFrame
    market: Market
    charges: dict[str, Charge]

    @property
    def spot(self) -> float:
        """Index price of the unit, in the accounting asset."""
        return self.market.price.get(self.unit, math.nan) / self.market.dollar

    @property
    def size(self) -> Floats:
        """Signed size of each leg in units of the underlying, `[N]`."""
        is_amount = self.legs["inverse"].fill_null(value=False).to_numpy() & ~self.is_kind("option")
        divisor = np.where(
            is_amount, self.column("mark"), 1.0
        )  # an inverse future's size is an amount of quote currency
        return self.column("quantity") * self.column("contract_size") / divisor

    def number(self, by_name: Mapping[str, float]) -> float:
        """The unit's own value in a table of numbers by name, or the default."""
        return by_name.get(self.unit, by_name[DEFAULT])

    def column(self, name: str) -> Floats:
        """A column of the legs as floats; nulls are NaN."""
        return self.legs[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()

    def is_kind(self, kind: str) -> np.ndarray:
        """Which legs are of one kind of contract."""
        return (self.legs["kind"].cast(pl.String) == kind).to_numpy()

    def columns_of(self, scenario_set: str) -> np.ndarray:
        """Scenario columns of a set."""
        return np.flatnonzero((self.scenarios["set"].cast(pl.String) == scenario_set).to_numpy())

    def expiries(self) -> dict[str, np.ndarray]:
        """Legs by expiry; a contract without one stands alone under its own id."""
        days = self.legs["expiry"].dt.strftime("%Y-%m-%d %H:%M")
        return _runs([day or name for day, name in zip(days, self.legs["instrument_id"], strict=True)])


def _runs(labels: list[Any]) -> dict[Any, np.ndarray]:
    return {label: np.flatnonzero([other == label for other in labels]) for label in dict.fromkeys(labels)}


def with_total(lines: list[dict[str, Any]], *sums: str) -> pl.DataFrame:
    """Lines and, below them, a row with the sums of some columns; the first column says what it is."""
    if not lines:
        return pl.DataFrame()
    first = next(iter(lines[0]))
    last = {first: TOTAL} | {name: sum(line[name] for line in lines) for name in sums}
    return pl.DataFrame([*lines, last], infer_schema_length=None)


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
        for price, members in _runs(strike[options].tolist()).items():
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
    "size_charge": size_charge,
    "net_short_charge": net_short_charge,
    "confidence_charge": confidence_charge,
    "price_shortfall": price_shortfall,
    "largest": largest,
}
