"""Components of a model file, one class per kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field

from gpumargin.expressions import names_in, parse_expression
from gpumargin.modelfile.numbers import NotNegativeNumber, Number, Strict

if TYPE_CHECKING:
    from gpumargin_kernels.expression import Expression


# What `post` may name besides the component's own numbers.
POST_NAMES = ("pnl", "move", "range", "spot", "dollar")


class DiscountRate(Strict):
    """Share static * exp(-years (max(rate, 0) * rate_multiplier + rate_addend)); of negatives static * exp(+...)."""

    static: Number
    rate_multiplier: Number
    rate_addend: Number


class Discount(DiscountRate):
    """Share of an expiry's net shocked value that counts: of a positive one and, where given, of a negative one."""

    negative: DiscountRate | None = None

    def leaves(self) -> dict[str, dict[str, float]]:
        """Numbers of both sides by name."""
        own = {name: value for name, value in self if isinstance(value, dict)}
        return own | {f"negative_{name}": value for name, value in self.negative or ()}


class _Component(Strict):
    """Fields holding numbers become leaves of the compiled model, all others its static choices."""

    def leaves(self) -> dict[str, dict[str, float]]:
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
    """Largest loss of a unit over a scenario set.

    Expiries are optionally discounted by the sign of their net value; `post` is an expression that turns the P&L of
    each scenario before the least is taken.
    """

    kind: Literal["scenario_loss"]
    scenarios: str
    discount: Discount | None = None
    post: str | None = None
    numbers: dict[str, Number] = {}

    def leaves(self) -> dict[str, dict[str, float]]:
        """The discount's numbers and those of `post`."""
        return ({} if self.discount is None else self.discount.leaves()) | self.numbers

    def choices(self) -> dict[str, object]:
        """The scenario set, whether there is a discount, and the expression of each scenario's P&L."""
        return {
            "scenarios": self.scenarios,
            "has_discount": self.discount is not None,
            "post": self.post_expression(),
        }

    def post_expression(self) -> Expression | None:
        """The parsed `post`, None if there is none.

        Raises:
          ValueError: it is no expression, a name is unknown, unused or stands for two things.
        """
        if self.post is None and not self.numbers:
            return None
        discount = {} if self.discount is None else self.discount.leaves()
        twice = set(self.numbers) & {*POST_NAMES, *discount}
        expression = parse_expression(self.post or "pnl", {*POST_NAMES, *self.numbers})
        unused = set(self.numbers) - names_in(expression)
        if twice or unused:
            message = f"numbers {sorted(twice | unused)} are not used by it, or name something else already"
            raise ValueError(message)
        return expression


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


class ScenarioMean(_Component):
    """Mean loss of an earlier component over the scenarios that leave spot unmoved, or over its worst and its pair.

    The pair of a scenario differs from it by the direction of vol alone; a scenario without one is its own.
    """

    kind: Literal["scenario_mean"]
    of: str
    which: Literal["unmoved", "worst_and_pair"]


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
    | ScenarioMean
    | SpreadCredit,
    Field(discriminator="kind"),
]
