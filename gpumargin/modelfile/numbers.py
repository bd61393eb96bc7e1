"""Numbers as model files write them: plain, or by name with a default."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
