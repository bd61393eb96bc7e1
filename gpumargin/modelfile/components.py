"""Components of a model file, one class per kind."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, Field, model_validator

from gpumargin.expressions import names_in, parse_expression
from gpumargin.modelfile.names import CONTRACT_NAMES, GROUP_NAMES, MARK_NAMES, POSITION_NAMES, TERM_NAMES, UNIT_NAMES
from gpumargin.modelfile.numbers import NAME, Brackets, Number, Strict

if TYPE_CHECKING:
    from gpumargin_kernels.expression import Expression


class Discount(Strict):
    """Share of a net long expiry's shocked value that counts: static * exp(-years (rate multiplier + addend))."""

    static: Number
    rate_multiplier: Number
    rate_addend: Number


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
    """Largest loss of a unit over a scenario set, expiries optionally discounted when their net value is positive."""

    kind: Literal["scenario_loss"]
    scenarios: str
    discount: Discount | None = None

    def leaves(self) -> dict[str, dict[str, float]]:
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
        of_contract = {*CONTRACT_NAMES, *MARK_NAMES, *TERM_NAMES, *UNIT_NAMES, *numbers}
        of_position = of_contract | {*POSITION_NAMES, *shared.settable}
        of_group = {*self.sums(), *UNIT_NAMES, *numbers, *(GROUP_NAMES.get(self.level) or of_position)}
        of_row = {*(self.each or self.sums()), *UNIT_NAMES, *numbers, *earlier}
        each = self._parsed_each(of_group, tables)
        used = set().union(*map(names_in, each.values())) - set(each)
        own = _position_sums(used - set(self.sums()), shared.settable) if self.level == "position" else {}
        sums = {name: (word, parse_expression(text, of_contract)) for name, (word, text) in self.sums().items()} | own
        amount = parse_expression(self.amount_text, of_row, tables)
        return ParsedCharge(sums, sorted(used - set(sums)), each, amount)

    def _parsed_each(self, known: Collection[str], tables: Collection[str]) -> dict[str, Expression]:
        """The expressions of a group; later ones may name earlier ones."""
        each: dict[str, Expression] = {}
        for name, text in self.each.items():
            each[name] = parse_expression(text, {*known, *each}, tables)
        return each


def _position_sums(used: Collection[str], settable: Collection[str]) -> dict[str, tuple[str, Expression]]:
    """What a position says of itself, as sums over its one leg."""
    known = POSITION_SUMS | {name: (name, 1.0) for name in settable}
    return {name: own for name, own in known.items() if name in used}


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


ComponentTable = Annotated[
    ScenarioLoss | ExpiryLoss | ChargeTable | PriceShortfall | Largest,
    Field(discriminator="kind"),
]
