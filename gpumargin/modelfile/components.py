"""Components of a model file, one class per kind."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, Field, model_validator

from gpumargin.expressions import names_in, parse_expression
from gpumargin.modelfile.names import (
    CONTRACT_NAMES,
    EXPIRY_NAMES,
    FEED_NAMES,
    GROUP_NAMES,
    MARK_NAMES,
    POSITION_NAMES,
    QUOTE_NAMES,
    TERM_NAMES,
    UNIT_NAMES,
)
from gpumargin.modelfile.numbers import NAME, Brackets, NotNegativeNumber, Number, Strict, placed

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


Expressions = dict[Annotated[str, Field(pattern=NAME)], str]
LegKind = Literal["option", "call", "put", "future", "perpetual", "base"]
# What of a leg multiplies the columns of a sum; the words of the kernels' tallies.
SUM_WORDS = ("net", "gross", "long", "short")
# What a position may name of itself: a word of its leg, and what of the contract multiplies it.
_MONEY: Expression = ("*", "size", "quote")
POSITION_SUMS: dict[str, tuple[str, Expression]] = {
    "quantity": ("net", "size"),
    "buys": ("buys", "size"),
    "sells": ("sells", "size"),
    **{name: (name, _MONEY) for name in ("buys_value", "sells_value", "order_loss")},
    **{name: (name, 1.0) for name in ("entry", "orders")},
}


class SharedNames(NamedTuple):
    """What a model names for all of its components."""

    parameters: Collection[str] = ()
    settable: Collection[str] = ()  # numbers that accounts may set, named like what a position says of itself
    tables: Collection[str] = ()


class ParsedCharge(NamedTuple):
    """The expressions of a charge."""

    sums: dict[str, tuple[str, Expression]]  # word and expression of the contract by name
    terms: list[str]  # what `each` names of the contract and the component
    each: dict[str, Expression]
    amount: Expression

    def names(self) -> set[str]:
        """Every name that an expression uses."""
        expressions = [*(e for _, e in self.sums.values()), *self.each.values(), self.amount]
        return set().union(*map(names_in, expressions))


class ChargeTable(_Component):
    """Sums over groups of legs, expressions of each group's sums, and one expression of it all.

    `net`, `gross`, `long` and `short` name sums of signed quantity, of its size, of longs and of shorts (as positive
    numbers), times an expression of the contract. At level `unit` the amount names those sums. At the other levels
    `each` names expressions of a group's sums; the amount names their totals, and if there is only one, is it.
    """

    kind: Literal["charge"]
    legs: list[LegKind] = Field(min_length=1)
    level: Literal["position", "strike", "expiry", "unit"] = "unit"
    net: Expressions = {}
    gross: Expressions = {}
    long: Expressions = {}
    short: Expressions = {}
    each: Expressions = {}
    amount: str | None = None
    numbers: dict[str, Number] = {}
    tables: dict[str, Brackets] = {}

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if (self.level == "unit") == bool(self.each):
            message = "each belongs to the levels position, strike and expiry, which cannot do without it"
            raise ValueError(message)
        if self.amount is None and len(self.each) != 1:
            message = "amount is missing; only a single expression under each can stand for it"
            raise ValueError(message)
        names = [*self.sums(), *self.each, *self.numbers, *self.tables]
        if len(set(names)) < len(names):
            message = f"{sorted({n for n in names if names.count(n) > 1})} name two things"
            raise ValueError(message)
        return self

    def sums(self) -> dict[str, tuple[str, str]]:
        """Word and expression of every sum by its name."""
        return {name: (word, text) for word in SUM_WORDS for name, text in getattr(self, word).items()}

    @property
    def amount_text(self) -> str:
        """The amount, or the name of the only expression under each."""
        return self.amount if self.amount is not None else next(iter(self.each))

    def leaves(self) -> dict[str, dict[str, float]]:
        """The component's own numbers."""
        return dict(self.numbers)

    def parsed(self, shared: SharedNames, earlier: Collection[str]) -> ParsedCharge:
        """The expressions, with every name resolved.

        Args:
          shared: what the model names for all of its components.
          earlier: components that stand before this one.

        Raises:
          ValueError: an expression that is none, or an unknown name; the message says where and lists the known.
        """
        numbers, tables = {*self.numbers, *shared.parameters}, {*self.tables, *shared.tables}
        of_expiry = {*EXPIRY_NAMES} if self.level == "expiry" and "option" in self.legs else set()
        of_contract = {*CONTRACT_NAMES, *MARK_NAMES, *FEED_NAMES, *TERM_NAMES, *QUOTE_NAMES, *UNIT_NAMES, *numbers}
        of_position = of_contract | {*POSITION_NAMES, *shared.settable}
        of_group = {*self.sums(), *UNIT_NAMES, *numbers, *(GROUP_NAMES.get(self.level) or of_position), *of_expiry}
        of_row = {*(self.each or self.sums()), *UNIT_NAMES, *numbers, *earlier}
        each = self._parsed_each(of_group, tables)
        used = set().union(*map(names_in, each.values())) - set(each)
        unsummed = used - set(self.sums())
        own = (
            _position_sums(unsummed, shared.settable)
            if self.level == "position"
            else _expiry_sums(unsummed & of_expiry)
        )
        sums = self._parsed_sums(of_contract) | own
        with placed("amount"):
            amount = parse_expression(self.amount_text, of_row, tables)
        return ParsedCharge(sums, sorted(used - set(sums)), each, amount)

    def _parsed_sums(self, known: Collection[str]) -> dict[str, tuple[str, Expression]]:
        """Word and parsed expression of every sum that the file names."""
        sums: dict[str, tuple[str, Expression]] = {}
        for name, (word, text) in self.sums().items():
            with placed(f"{word}.{name}"):
                sums[name] = (word, parse_expression(text, known))
        return sums

    def _parsed_each(self, known: Collection[str], tables: Collection[str]) -> dict[str, Expression]:
        """The expressions of a group; later ones may name earlier ones."""
        each: dict[str, Expression] = {}
        for name, text in self.each.items():
            with placed(f"each.{name}"):
                each[name] = parse_expression(text, {*known, *each}, tables)
        return each


def _position_sums(used: Collection[str], settable: Collection[str]) -> dict[str, tuple[str, Expression]]:
    """What a position says of itself, as sums over its one leg."""
    known = POSITION_SUMS | {name: (name, 1.0) for name in settable}
    return {name: own for name, own in known.items() if name in used}


def _expiry_sums(used: Collection[str]) -> dict[str, tuple[str, Expression]]:
    """What the options of an expiry say together: inputs that the leg stage makes, once for each expiry."""
    return {name: (name, 1.0) for name in sorted(used)}


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
    ScenarioLoss | ExpiryLoss | ChargeTable | PriceShortfall | Largest | ScenarioMean | SpreadCredit,
    Field(discriminator="kind"),
]
