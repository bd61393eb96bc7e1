"""What a model file says of whole accounts: how units combine, and what balances count."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gpumargin.modelfile.numbers import DEFAULT, NotNegativeNumber, Share, Strict


class Aggregation(Strict):
    """How the requirements of an account's units combine: their sum, or sqrt(m' R m) over the listed units."""

    kind: Literal["sum", "correlated"] = "sum"
    units: list[str] = []
    correlation: list[list[float]] = []


class CollateralTable(Strict):
    """Weights of balances: share of value that counts, by asset; `base` for assets held as legs of a unit."""

    assets: Share
    liability: NotNegativeNumber = {DEFAULT: 1.0}
    base: Annotated[float, Field(ge=0, le=1)] | None = None
