"""One account's legs of one risk unit, and what a component says of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from gpumargin.explain.figures import Figure, exact
from gpumargin.explain.market import Floats, Market
from gpumargin.modelfile import DEFAULT, SharedNames

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
      parameters: of the model, by name and unit.
      shared: what charges may name of the model; numbers that accounts set are columns of `legs`.
      tables: bracket tables of the model, by name and unit.
    """

    unit: str
    legs: pl.DataFrame
    pnl: Floats
    scenarios: pl.DataFrame
    market: Market
    charges: dict[str, Charge]
    parameters: Mapping[str, Mapping[str, float]]
    shared: SharedNames
    tables: Mapping[str, Any]

    @property
    def spot(self) -> float:
        """Index price of the unit, in the accounting asset."""
        return self.market.price.get(self.unit, math.nan) / self.market.dollar

    @property
    def unit_size(self) -> Floats:
        """Size of one contract of each leg in units of the underlying, `[N]`.

        The size of an inverse future and of a digital option is an amount of quote currency.
        """
        is_amount = self.legs["inverse"].fill_null(value=False).to_numpy() & ~self.is_kind("option")
        forward = np.where(self.column("forward") == 0, np.inf, self.column("forward"))
        divisor = np.where(self.is_digital, forward, np.where(is_amount, self.column("mark"), 1.0))
        return self.column("contract_size") / divisor

    @property
    def is_digital(self) -> np.ndarray:
        """Which legs are digital options, `[N]`."""
        return (self.legs["payoff"] == "digital").fill_null(value=False).to_numpy()

    @property
    def is_call(self) -> np.ndarray:
        """Which legs are calls."""
        return (self.legs["option_type"].cast(pl.String) == "call").fill_null(value=False).to_numpy()

    def unit_values(self) -> dict[str, Figure]:
        """Price and confidences of the unit, and what a dollar is."""
        return {
            "spot": exact(self.spot),
            "spot_confidence": exact(self.market.confidence.get(self.unit, 1.0)),
            "perpetual_confidence": exact(self.market.perpetual_confidence.get(self.unit, 1.0)),
            "dollar": exact(1 / self.market.dollar),
        }

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
        return runs([day or name for day, name in zip(days, self.legs["instrument_id"], strict=True)])

    def strikes(self) -> dict[str, np.ndarray]:
        """Options by expiry, strike and payoff."""
        days, strikes = self.legs["expiry"].dt.strftime("%Y-%m-%d %H:%M").to_list(), self.legs["strike"].to_list()
        chosen, digital = np.flatnonzero(self.is_kind("option")), self.is_digital
        labels = [f"{days[i]} {strikes[i]:g}{' digital' if digital[i] else ''}" for i in chosen]
        return {label: chosen[group] for label, group in runs(labels).items()}


def runs(labels: list[Any]) -> dict[Any, np.ndarray]:
    """Indexes of equal labels, in the order in which they first appear."""
    return {label: np.flatnonzero([other == label for other in labels]) for label in dict.fromkeys(labels)}


def with_total(lines: list[dict[str, Any]], *sums: str) -> pl.DataFrame:
    """Lines and, below them, a row with the sums of some columns; the first column says what it is."""
    if not lines:
        return pl.DataFrame()
    first = next(iter(lines[0]))
    last = {first: TOTAL} | {name: sum(line[name] for line in lines) for name in sums}
    return pl.DataFrame([*lines, last], infer_schema_length=None)
