"""Components of a model file, one class per kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from gpumargin.modelfile.numbers import NotNegativeNumber, Number, Strict


class Discount(Strict):
    """Share of a net long expiry's shocked value that counts: static * exp(-years (rate multiplier + addend))."""

    static: Number
    rate_multiplier: Number
    rate_addend: Number


class _Component(Strict):
    """Fields holding numbers become leaves of the compiled model, all others its static choices."""

    def numbers(self) -> dict[str, dict[str, float]]:
        """Numbers by name, each with a default and exceptions by unit."""
        return {name: value for name, value in self if isinstance(value, dict)}

    def choices(self) -> dict[str, object]:
        """What shapes the program."""
        return {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self
            if name != "kind" and not isinstance(value, (dict, BaseModel))
        }


class ScenarioLoss(_Component):
    """Largest loss of a unit over a scenario set, expiries optionally discounted when their net value is positive."""

    kind: Literal["scenario_loss"]
    scenarios: str
    discount: Discount | None = None

    def numbers(self) -> dict[str, dict[str, float]]:
        """The discount's numbers."""
        return {} if self.discount is None else dict(self.discount)

    def choices(self) -> dict[str, object]:
        """The scenario set, and whether there is a discount."""
        return {"scenarios": self.scenarios, "has_discount": self.discount is not None}


class ExpiryLoss(_Component):
    """Sum over expiries of each one's own worst option loss, times addend + multiplier * years."""

    kind: Literal["expiry_loss"]
    scenarios: str
    addend: Number
    multiplier: Number


class SizeCharge(_Component):
    """Rate * spot * size of all legs of one sort, longs and shorts alike."""

    kind: Literal["size_charge"]
    legs: Literal["perpetual", "base", "option"]
    rate: NotNegativeNumber


class NetShortCharge(_Component):
    """Rate * spot * options short after netting calls and puts of one strike and expiry."""

    kind: Literal["net_short_charge"]
    rate: NotNegativeNumber


class ConfidenceCharge(_Component):
    """Rate * spot * (1 - confidence) * size where a price feed's confidence is below the threshold."""

    kind: Literal["confidence_charge"]
    threshold: Number
    rate: NotNegativeNumber


class PriceShortfall(_Component):
    """Factor * max(0, threshold - price of an asset), a pure number: how far an asset has lost its peg."""

    kind: Literal["price_shortfall"]
    asset: str
    threshold: Number
    factor: Number


class Largest(_Component):
    """The largest of earlier components; of equals the first named binds."""

    kind: Literal["largest"]
    of: list[str] = Field(min_length=1)


class SpreadLeg(Strict):
    """One unit of a spread between units."""

    unit: str
    ratio: Annotated[float, Field(gt=0)]  # net delta of this unit in one spread
    side: Literal[1, -1]  # legs of different sign offset each other


class Spread(Strict):
    """Units whose deltas offset each other in fixed proportions."""

    legs: list[SpreadLeg] = Field(min_length=2)
    rate: Annotated[float, Field(ge=0, le=1)]


class SpreadCredit(_Component):
    """Share of price risk given back for deltas that offset other units', spreads formed in the order of the list.

    `delta` and `price_risk` are expressions over earlier components and `spot`; price risk per unit of delta is at most
    `cap` * spot.
    """

    kind: Literal["spread_credit"]
    delta: str
    price_risk: str
    cap: NotNegativeNumber
    spreads: list[Spread] = Field(min_length=1)

    def inputs(self) -> dict[str, str]:
        """Expressions by the word of the kind that they answer."""
        return {"delta": self.delta, "price_risk": self.price_risk}

    def choices(self) -> dict[str, object]:
        """None: the expressions are read when the model is bound."""
        return {}


ComponentTable = Annotated[
    ScenarioLoss
    | ExpiryLoss
    | SizeCharge
    | NetShortCharge
    | ConfidenceCharge
    | PriceShortfall
    | Largest
    | SpreadCredit,
    Field(discriminator="kind"),
]
