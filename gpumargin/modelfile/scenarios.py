"""Scenario sets, vol shocks and the rules of scenarios of a model file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gpumargin.expressions import names_in, parse_expression
from gpumargin.modelfile.numbers import (
    DEFAULT,
    MultipleNumber,
    NotNegativeNumber,
    Number,
    PositiveNumber,
    ShockNumber,
    Strict,
    placed,
)

SKEWS = ("skew_linear", "skew_abs")
# What a weight may name besides parameters: the relative move of spot, and the unit's scenario_range.
WEIGHT_NAMES = ("move", "range")


class ScenarioRow(Strict):
    """One joint move: of spot, as a level (`spot`) or in multiples of the unit's range (`move`), of vol, and of time.

    `vol_factor` multiplies the vol that the rule gives, then `vol_shift` adds points. `weight` is a number by unit or
    an expression.
    """

    spot: MultipleNumber | None = Field(None, description="a level: up 15 % is 1.15")
    move: float | None = None
    vol: Literal["up", "none", "down", "skew_linear", "skew_abs"] = "none"
    vol_factor: NotNegativeNumber = {DEFAULT: 1.0}
    vol_shift: Number = {DEFAULT: 0.0}
    days: Annotated[float, Field(ge=0)] = 0.0
    weight: MultipleNumber | str = {DEFAULT: 1.0}

    @model_validator(mode="after")
    def _has_one_move(self) -> Self:
        if (self.spot is None) == (self.move is None):
            message = "a scenario has either spot (a level, 1.18 = +18 %) or move (a multiple of scenario_range)"
            raise ValueError(message)
        if self.vol in SKEWS and (self.move or set((self.spot or {}).values()) - {1.0}):
            message = f"a scenario with vol = {self.vol!r} leaves spot where it is (spot = 1): only the smile turns"
            raise ValueError(message)
        return self

    @property
    def label(self) -> str:
        """Id of the scenario in results, for example `1.18/up`, `-1/none` or `1/up*1.5+0.1/1d`."""
        size = f"{self.move:+g}" if self.spot is None else f"{self.spot[DEFAULT]:g}"
        factor, shift = self.vol_factor[DEFAULT], self.vol_shift[DEFAULT]
        own = (f"*{factor:g}" if factor != 1 else "") + (f"{shift:+g}" if shift else "")
        return f"{size}/{self.vol}{own}" + (f"/{self.days:g}d" if self.days else "")

    def weight_expression(self, parameters: Collection[str]) -> object:
        """The parsed weight, None if it is a number.

        Raises:
          ValueError: it is not an expression over `move`, `range` and parameters.
        """
        return parse_expression(self.weight, {*WEIGHT_NAMES, *parameters}) if isinstance(self.weight, str) else None


class VolShockTable(Strict):
    """How far vols move: up g and down g with g = (pivot_days / max(days, floor_days)) ** power.

    Multiplicative: vol times 1 + up g, vol times max(0, 1 - down g). Additive: vol + up g, max(vol - down g, 0).
    """

    rule: Literal["multiplicative", "additive"] = "multiplicative"
    up: ShockNumber = {DEFAULT: 0.0}
    down: ShockNumber = {DEFAULT: 0.0}
    short_power: Number = {DEFAULT: 0.0}
    long_power: Number = {DEFAULT: 0.0}
    pivot_days: PositiveNumber = {DEFAULT: 30.0}
    floor_days: NotNegativeNumber = {DEFAULT: 1.0}
    min_up: NotNegativeNumber | None = None
    max_up: NotNegativeNumber | None = None


class SkewTable(Strict):
    """How far the smile turns in scenarios whose vol is `skew_linear` or `skew_abs`.

    The vol is multiplied by 1 plus k cap / k_star within plus and minus the cap; cap = base + slope * sqrt(years),
    k_star = max(min_k_star, sqrt(years) * width * (vol_static + vol_slope * sqrt(years))), k = ln(strike / forward) or
    its size.
    """

    linear_cap: Number
    linear_slope: Number
    abs_cap: Number
    abs_slope: Number
    min_k_star: NotNegativeNumber
    width: Number
    vol_static: Number
    vol_slope: Number


class ScenarioRulesTable(Strict):
    """What a move of spot moves, and the currency in which P&L of coin-settled contracts counts.

    `mark` moves each mark and forward in proportion, `index` linear contracts by the index's gain, `parallel` these and
    the forwards of options.
    """

    shock_base: Literal["mark", "index", "parallel"] = "mark"
    pnl_currency: Literal["money", "coin"] = "money"


class DeltaPoint(Strict):
    """A move of spot, in multiples of the unit's range, and what the delta there weighs."""

    move: float
    weight: Annotated[float, Field(ge=0)]


class CompositeDeltaTable(Strict):
    """Price points over which `composite_delta` is averaged, after some days, vols unmoved."""

    days: Annotated[float, Field(ge=0)] = 0.0
    points: list[DeltaPoint] = Field(min_length=1)


def counterparts(rows: Sequence[ScenarioRow]) -> list[int]:
    """Index of the scenario that differs from each by nothing but the direction of vol; its own where there is none."""
    opposite = {"up": "down", "down": "up"}
    found = []
    for index, row in enumerate(rows):
        wanted = row.model_copy(update={"vol": opposite.get(row.vol, row.vol)})
        found.append(next((i for i, other in enumerate(rows) if other == wanted), index))
    return found


def unmoved(rows: Sequence[ScenarioRow]) -> list[int]:
    """Indexes of the scenarios that leave spot where it is."""
    return [i for i, row in enumerate(rows) if not row.move and set((row.spot or {}).values()) <= {1.0}]


Scenarios = Mapping[str, Sequence[ScenarioRow]]


def check_rows(scenarios: Scenarios, skew: SkewTable | None, rules: ScenarioRulesTable, scenario_range: Number) -> None:
    """Checks what no row can know of itself.

    Raises:
      ValueError: a smile turns without numbers for it, or a level of 0 would divide coins by nothing.
    """
    for name, rows in scenarios.items():
        if skew is None and any(row.vol in SKEWS for row in rows):
            message = f"scenarios.{name}: has a scenario that turns the smile; give its numbers in [skew]"
            raise ValueError(message)
        levels = [level for row in rows for level in _levels(row, scenario_range)]
        if rules.pnl_currency == "coin" and min(levels, default=1.0) <= 0:
            message = f"scenarios.{name}: P&L in coins needs spot above 0, found a level of {min(levels):g}"
            raise ValueError(message)


def _levels(row: ScenarioRow, scenario_range: Number) -> list[float]:
    """Every spot level that a row stands for."""
    if row.spot is not None:
        return list(row.spot.values())
    return [1 + (row.move or 0.0) * value for value in scenario_range.values()]


def names_in_weights(scenarios: Scenarios, parameters: Collection[str]) -> set[str]:
    """Parameters that weights name.

    Raises:
      ValueError: a weight is no expression, or names something unknown.
    """
    used: set[str] = set()
    for name, rows in scenarios.items():
        for index, row in enumerate(rows):
            with placed(f"scenarios.{name}.{index}.weight"):
                expression = row.weight_expression(parameters)
            used |= names_in(expression) if expression is not None else set()  # type: ignore[arg-type]
    return used
