"""What a model file says of whole accounts: what balances count."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gpumargin.modelfile.numbers import DEFAULT, NotNegativeNumber, Share, Strict


class CollateralTable(Strict):
    """Weights of balances: share of value that counts, by asset; `base` for assets held as legs of a unit."""

    assets: Share
    liability: NotNegativeNumber = {DEFAULT: 1.0}
    base: Annotated[float, Field(ge=0, le=1)] | None = None
