"""What a model file says of balances: what of each counts, overrides by category, and charges on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from gpumargin.expressions import names_in, parse_expression, substituted
from gpumargin.modelfile.numbers import DEFAULT, NAME, Brackets, NotNegativeNumber, Number, Share, Strict, placed

if TYPE_CHECKING:
    from gpumargin_kernels.expression import Expression

# What expressions of one balance may name of it and of its account.
BALANCE_NAMES = {
    "amount": "signed units of the asset",
    "value": "amount at the collateral price",
    "is_collateral": "1 if the balance may serve as collateral, else 0",
    "spot_confidence": "least confidence of the index prices of the account's units, 1 without any",
}
# Open spot orders of the account in the asset.
ORDER_NAMES = {
    "bids": "units of the asset that open spot orders would buy",
    "asks": "units that they would sell",
    "orders": "number of open spot orders",
    "bids_value": "open bids at their limits, quote currency",
    "best_bid": "highest limit of the bids, quote currency; 0 without",
    "best_ask": "lowest limit of the asks, quote currency; 0 without",
    "order_quote": "price of the quote currency of the orders; 0 without orders",
}
SETTLED = "settled"  # all P&L of the account that joins balances, accounting asset
# Columns of the book by asset, as `table.column`; a model that names one needs it. Prices are in the accounting asset.
ASSET_NAMES = {
    "price": "prices.price",
    "twap": "prices.twap",
    "collateral_price": "prices.collateral_price",
    "emode_price": "prices.emode_price",
    "confidence": "prices.confidence",
    "collateral_confidence": "prices.collateral_confidence",
    "total_deposits": "assets.total_deposits",
    "total_borrows": "assets.total_borrows",
}
# What expressions of an account may name of it, beside numbers.
ACCOUNT_NAMES = {
    "equity": "equity",
    "unrealised_pnl": "P&L not yet in the balance",
    "option_value": "value of its options",
}
Name = Annotated[str, Field(pattern=NAME)]


class BalanceNames(NamedTuple):
    """What a model names for all expressions of balances."""

    settable: Collection[str] = ()
    formulas: Mapping[str, str] = {}
    sums: Collection[str] = ()  # over all balances of the account, see `[balances]`


class ParsedRule(NamedTuple):
    """What counts of a positive and of a negative balance, and what is required for it besides; None = nothing."""

    asset: Expression
    liability: Expression
    owed: Expression | None = None

    def expressions(self) -> list[Expression]:
        """The expressions that there are."""
        return [expression for expression in self if expression is not None]


def with_formulas(
    text: str, formulas: Mapping[str, str], known: Collection[str], tables: Collection[str] = ()
) -> Expression:
    """An expression in which formulas are replaced by what they say; a formula may name those before it.

    A formula that names what is not known here belongs to other places and is no name here.

    Raises:
      ValueError: an expression that is none, or an unknown name.
    """
    found: dict[str, Expression] = {}
    for name, formula in formulas.items():
        try:
            found[name] = substituted(parse_expression(formula, {*known, *found}, tables), found)
        except ValueError:
            continue
    return substituted(parse_expression(text, {*known, *found}, tables), found)


def _check_numbers(names: Collection[str]) -> None:
    """Raises where two numbers or sums have one name, or that of something else."""
    known = [*names, *BALANCE_NAMES, *ORDER_NAMES, *ASSET_NAMES]
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        message = f"{twice} name two things"
        raise ValueError(message)


class CollateralTable(Strict):
    """What of a balance supports margin: shares of its value by asset, or an expression of it.

    `assets` and a number as `liability` stand for the expressions `value * assets` and `value * liability`; `base` is
    the share for assets held as legs of a unit. `owed` is required beside what counts, where debt is required.
    """

    assets: Share | None = None
    asset: str | None = None
    liability: NotNegativeNumber | str = {DEFAULT: 1.0}
    owed: str | None = None
    base: Annotated[float, Field(ge=0, le=1)] | None = None
    numbers: dict[Name, Number] = {}
    tables: dict[Name, Brackets] = {}

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if (self.assets is None) == (self.asset is None):
            message = "give either assets, shares by asset, or asset, an expression"
            raise ValueError(message)
        if self.base is not None and self.assets is None:
            message = "base is a share beside assets; in an expression give it as a number by asset"
            raise ValueError(message)
        _check_numbers([*self.leaves(), *self.tables])
        return self

    def leaves(self) -> dict[str, dict[str, float]]:
        """Every number by asset, by the name that expressions use."""
        short = {"assets": self.assets, "liability": self.liability}
        return {name: value for name, value in short.items() if isinstance(value, dict)} | self.numbers

    def parsed(self, shared: BalanceNames) -> ParsedRule:
        """The expressions.

        Args:
          shared: what the model names for all expressions of balances.

        Raises:
          ValueError: an expression that is none, or an unknown name.
        """
        known = {*BALANCE_NAMES, *ORDER_NAMES, *ASSET_NAMES, *self.leaves(), *shared.settable, *shared.sums, SETTLED}
        liability = self.liability if isinstance(self.liability, str) else "value * liability"
        texts = {"asset": self.asset or "value * assets", "liability": liability, "owed": self.owed}
        found: dict[str, Expression] = {}
        for name, text in texts.items():
            if text is not None:
                with placed(name):
                    found[name] = with_formulas(text, shared.formulas, known, self.tables)
        used = set().union(*map(names_in, found.values()))
        for name in sorted({*self.numbers, *self.tables} - used):
            place = "numbers" if name in self.numbers else "tables"
            message = f"{place}.{name}: named by none of {', '.join(found)}"
            raise ValueError(message)
        return ParsedRule(**found)


class Category(Strict):
    """Numbers that accounts of one category (`accounts.emode`) have for some assets instead of the usual ones."""

    assets: list[str]
    numbers: dict[str, dict[str, float]] = {}  # by margin type


class ParsedCharge(NamedTuple):
    """The expressions of a charge on balances."""

    each: dict[str, Expression]
    amount: Expression


class BalanceChargeTable(Strict):
    """An expression of sums over the balances of an account; `each` names what is summed of every balance but 0."""

    each: dict[Name, str] = Field(min_length=1)
    amount: str | None = None
    numbers: dict[Name, Number] = {}
    tables: dict[Name, Brackets] = {}

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if self.amount is None and len(self.each) != 1:
            message = "amount is missing; only a single expression under each can stand for it"
            raise ValueError(message)
        _check_numbers([*self.each, *self.numbers, *self.tables])
        return self

    @property
    def amount_text(self) -> str:
        """The amount, or the name of the only sum."""
        return self.amount if self.amount is not None else next(iter(self.each))

    @property
    def is_sum(self) -> bool:
        """Whether it is one sum as it stands, which rules of collateral may name."""
        return self.amount is None

    def parsed(self, scalars: Collection[str], formulas: Mapping[str, str]) -> ParsedCharge:
        """The expressions; the amount names the sums, values of the account and `scalars`.

        Raises:
          ValueError: an expression that is none, or an unknown name.
        """
        known = {*BALANCE_NAMES, *ORDER_NAMES, *ASSET_NAMES, *self.numbers}
        each: dict[str, Expression] = {}
        for name, text in self.each.items():
            with placed(f"each.{name}"):
                each[name] = with_formulas(text, formulas, known, self.tables)
        with placed("amount"):
            return ParsedCharge(each, parse_expression(self.amount_text, {*self.each, *ACCOUNT_NAMES, *scalars}))
