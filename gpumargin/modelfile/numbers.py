"""Numbers as model files write them: plain, or by name with a default."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

DEFAULT = "default"


def _by_name(value: object) -> object:
    """A bare number stands for the default of every unit or asset."""
    return {DEFAULT: value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class Strict(BaseModel):
    """A table that knows its keys: any other is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# A number, or a table of numbers by unit (or asset) with a default for the unlisted.
Number = Annotated[dict[str, float], BeforeValidator(_by_name)]


NotNegativeNumber = Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(_by_name)]
PositiveNumber = Annotated[dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_by_name)]
Share = Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], BeforeValidator(_by_name)]


def _bare_table(value: object) -> object:
    """A bare list of brackets stands for the default of every unit or asset."""
    return {DEFAULT: value} if isinstance(value, list) else value


def _ascending(table: list[tuple[float, float]]) -> list[tuple[float, float]]:
    bounds = [upper for upper, _ in table]
    if not table or any(a >= b for a, b in pairwise([0.0, *bounds])) or not all(math.isfinite(r) for _, r in table):
        message = "brackets are [upper bound, rate], bounds above 0 and ascending, the last may be inf"
        raise ValueError(message)
    return table


Bound = Annotated[float, Field(allow_inf_nan=True)]
# Brackets of a rate by unit or asset, [upper bound, rate] each.
Brackets = Annotated[
    dict[str, Annotated[list[tuple[Bound, float]], AfterValidator(_ascending)]], BeforeValidator(_bare_table)
]
NAME = r"^[a-z_][a-z0-9_]*$"  # of a value that expressions name
