"""Numbers as model files write them: plain, or by name with a default."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

DEFAULT = "default"


def _by_name(value: object) -> object:
    """A bare number stands for the default of every unit or asset."""
    return {DEFAULT: value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Puts a place of the file before the message of what is wrong there."""
    try:
        yield
    except ValueError as error:
        message = f"{place}: {error}"
        raise ValueError(message) from None


def _has_default(values: dict[str, Any]) -> dict[str, Any]:
    if DEFAULT not in values:
        message = f"needs a {DEFAULT!r} for every name that it does not list, found only {sorted(values)}"
        raise ValueError(message)
    return values


class Strict(BaseModel):
    """A table that knows its keys and takes no text for a number: any other is an error, as is one not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
OfOne = Annotated[float, Field(ge=0, le=1)]
Multiple = Annotated[float, Field(ge=0, le=10)]  # more is an error of units, as it is of a vol shock
Shock = Annotated[float, Field(le=10)]
_Filled = AfterValidator(_has_default)
# A number, or a table of numbers by unit (or asset) with a default for the unlisted.
Number = Annotated[
    dict[str, float], BeforeValidator(_by_name, json_schema_input_type=float | dict[str, float]), _Filled
]
NotNegativeNumber = Annotated[
    dict[str, NotNegative],
    BeforeValidator(_by_name, json_schema_input_type=NotNegative | dict[str, NotNegative]),
    _Filled,
]
PositiveNumber = Annotated[
    dict[str, Positive], BeforeValidator(_by_name, json_schema_input_type=Positive | dict[str, Positive]), _Filled
]
Share = Annotated[dict[str, OfOne], BeforeValidator(_by_name, json_schema_input_type=OfOne | dict[str, OfOne]), _Filled]
MultipleNumber = Annotated[
    dict[str, Multiple], BeforeValidator(_by_name, json_schema_input_type=Multiple | dict[str, Multiple]), _Filled
]
ShockNumber = Annotated[
    dict[str, Shock], BeforeValidator(_by_name, json_schema_input_type=Shock | dict[str, Shock]), _Filled
]


def _bare_table(value: object) -> object:
    """A bare list of brackets stands for the default of every unit or asset."""
    return {DEFAULT: value} if isinstance(value, list) else value


def _ascending(table: list[tuple[float, float]]) -> list[tuple[float, float]]:
    bounds = [upper for upper, _ in table]
    if not table or any(a >= b for a, b in pairwise([0.0, *bounds])) or not all(math.isfinite(r) for _, r in table):
        message = (
            "brackets are [upper bound, rate], bounds above 0 and ascending, the last may be inf; "
            f"found {[list(bracket) for bracket in table]}"
        )
        raise ValueError(message)
    return table


Bound = Annotated[float, Field(allow_inf_nan=True, strict=False)]  # JSON has no infinity: there it is the text "inf"
Table = Annotated[list[Annotated[tuple[Bound, float], Field(strict=False)]], AfterValidator(_ascending)]
# Brackets of a rate by unit or asset, [upper bound, rate] each.
Brackets = Annotated[
    dict[str, Table], BeforeValidator(_bare_table, json_schema_input_type=Table | dict[str, Table]), _Filled
]
NAME = r"^[a-z_][a-z0-9_]*$"  # of a value that expressions name
Word = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]  # of a component, a parameter, a margin type
