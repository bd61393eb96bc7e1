"""Scenario sets and vol shocks of a model file."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from gpumargin.modelfile.numbers import DEFAULT, Number, PositiveNumber, Strict


class ScenarioRow(Strict):
    """One joint move: of spot, as a level (`spot`) or in multiples of the unit's range (`move`), and of vol."""

    spot: Number | None = None
    move: float | None = None
    vol: Literal["up", "none", "down"] = "none"
    weight: Number = {DEFAULT: 1.0}

    @model_validator(mode="after")
    def _has_one_move(self) -> Self:
        if (self.spot is None) == (self.move is None):
            message = "a scenario has either spot (a level, 1.18 = +18 %) or move (a multiple of scenario_range)"
            raise ValueError(message)
        return self

    @property
    def label(self) -> str:
        """Id of the scenario in results, for example `1.18/up` or `-1/none`."""
        size = f"{self.move:+g}" if self.spot is None else f"{self.spot[DEFAULT]:g}"
        return f"{size}/{self.vol}"


class VolShockTable(Strict):
    """Vol multipliers: 1 + up g and max(0, 1 - down g), g = (pivot_days / max(days, floor_days)) ** power."""

    up: Number = {DEFAULT: 0.0}
    down: Number = {DEFAULT: 0.0}
    short_power: Number = {DEFAULT: 0.0}
    long_power: Number = {DEFAULT: 0.0}
    pivot_days: PositiveNumber = {DEFAULT: 30.0}
    floor_days: PositiveNumber = {DEFAULT: 1.0}
