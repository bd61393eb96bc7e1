"""What a model file says of whole accounts: what of its units counts, and when an account is healthy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from gpumargin.errors import suggestion
from gpumargin.expressions import names_in, parse_expression, parse_predicate
from gpumargin.modelfile.balances import ACCOUNT_NAMES, BalanceChargeTable, ParsedCharge, with_formulas
from gpumargin.modelfile.numbers import DEFAULT, Strict, placed

if TYPE_CHECKING:
    from gpumargin.modelfile.file import ModelFile
    from gpumargin_kernels.expression import Expression

# What `[counted]` may name of a unit, beside its components and the parameters.
COUNTED_NAMES = ("unrealised_pnl", "option_value")
EVERYTHING = "unrealised_pnl + option_value"


class StatusTable(Strict):
    """Conditions of the statuses in place of the usual ones."""

    margin_call: str | None = None
    liquidatable: str | None = None
    bankrupt: str | None = None

    def given(self) -> dict[str, str]:
        """The conditions that the file has, by status."""
        return {status: text for status, text in self if text is not None}


class AccountExpressions(NamedTuple):
    """Every expression of a model about whole accounts."""

    counted: dict[str, Expression]  # by margin type; those that differ from everything, all where P&L settles
    charges: dict[str, ParsedCharge]
    margins: dict[str, Expression]  # by margin type; those that differ from units + debt
    statuses: dict[str, Expression]


def account_expressions(file: ModelFile) -> AccountExpressions:
    """The expressions with every name resolved.

    Raises:
      ValueError: an expression that is none, or an unknown name; the message says where.
    """
    scalars = {name for name, values in file.parameters.items() if set(values) == {DEFAULT}} | {*file.settable}
    texts = {name: file.counted.get(name, EVERYTHING) for name in file.margin} if file.pnl_settles else file.counted
    of_unit = {*COUNTED_NAMES, *file.components, *file.parameters}
    known = {*scalars, *ACCOUNT_NAMES, *file.balances}
    return AccountExpressions(
        _each("counted", texts, lambda text: with_formulas(text, file.formulas, of_unit)),
        _charges(file.balances, scalars, file.formulas),
        _margins(file, known),
        _each("status", file.status.given(), lambda text: parse_predicate(text, known | _type_names(file.margin))),
    )


def account_settings(file: ModelFile) -> dict[str, float]:
    """Numbers that accounts may set and that expressions of whole accounts name, with their defaults."""
    found = account_expressions(file)
    expressions = [*(c.amount for c in found.charges.values()), *found.margins.values(), *found.statuses.values()]
    used = set().union(*map(names_in, expressions))
    return {name: values[DEFAULT] for name, values in file.settable.items() if name in used}


def _type_names(types: Collection[str]) -> set[str]:
    return {f"{name}_{word}" for name in types for word in ("balance", "margin", "excess")}


def _each(place: str, texts: Mapping[str, str], parse: Callable[[str], Expression]) -> dict[str, Expression]:
    found: dict[str, Expression] = {}
    for name, text in texts.items():
        with placed(f"{place}.{name}"):
            found[name] = parse(text)
    return found


def _charges(
    tables: Mapping[str, BalanceChargeTable], scalars: Collection[str], formulas: Mapping[str, str]
) -> dict[str, ParsedCharge]:
    found: dict[str, ParsedCharge] = {}
    for name, table in tables.items():
        try:
            found[name] = table.parsed({*scalars, *found}, formulas)
        except ValueError as error:
            message = f"balances.{name}.{error}"
            raise ValueError(message) from None
    return found


def _margins(file: ModelFile, known: Collection[str]) -> dict[str, Expression]:
    """Requirements of the account; later types may name earlier ones."""
    names = {*known, "units", "debt"}
    found: dict[str, Expression] = {}
    for name in file.margin:
        if name in file.account:
            found |= _each("account", {name: file.account[name]}, lambda text: parse_expression(text, names))
        names.add(name)
    return found


def check_account(file: ModelFile) -> set[str]:
    """Checks all that a file says of accounts and balances.

    Returns:
      Every name that its expressions use.

    Raises:
      ValueError: the first thing that is wrong, with its place.
    """
    _check_types(file)
    found = account_expressions(file)
    _check_debt(file, found.margins)
    _check_categories(file)
    amounts = [charge.amount for charge in found.charges.values()]
    everything = [*found.counted.values(), *amounts, *found.margins.values(), *found.statuses.values()]
    used = set().union(*map(names_in, everything), *(_check_rule(file, name) for name in file.margin))
    unused = set(file.balances) - used
    if unused:
        _fail(f"balances: {sorted(unused)} are named neither by account nor by status")
    return used


def _check_rule(file: ModelFile, margin_type: str) -> set[str]:
    """Names that the rule of one margin type uses; all of its numbers are among them."""
    place = f"collateral.{margin_type}" if isinstance(file.collateral, dict) else "collateral"
    try:
        rule = file.rule_of(margin_type)
    except ValueError as error:
        message = f"{place}.{error}"
        raise ValueError(message) from None
    if rule.owed is not None and file.debt != "requirement":
        _fail(f'{place}.owed: is part of the requirement; say debt = "requirement", found {file.debt!r}')
    return set().union(*map(names_in, rule.expressions()))


def _check_debt(file: ModelFile, margins: Mapping[str, Expression]) -> None:
    """Required debt is in every requirement, by its own name or that of an earlier type."""
    with_debt = {"debt"}
    for name in file.margin:
        if name in margins and file.debt == "requirement" and not with_debt & names_in(margins[name]):
            _fail(f'account.{name}: does not name debt, which debt = "requirement" makes part of the requirement')
        with_debt.add(name)


def _check_types(file: ModelFile) -> None:
    for place in ("counted", "account"):
        for name in sorted(set(getattr(file, place)) - set(file.margin)):
            _fail(f"{place}.{name}: no margin type; they are {sorted(file.margin)}{suggestion(name, file.margin)}")


def _check_categories(file: ModelFile) -> None:
    """Categories override numbers that exist."""
    for name, category in file.categories.items():
        for margin_type, numbers in category.numbers.items():
            place = f"categories.{name}.numbers.{margin_type}"
            if margin_type not in file.margin:
                _fail(f"{place}: no such margin type; they are {sorted(file.margin)}")
            known = file.collateral_of(margin_type).leaves()
            if not set(numbers) <= set(known):
                _fail(
                    f"{place}: {sorted(set(numbers) - set(known))} are no numbers of collateral; known: {sorted(known)}"
                )


def _fail(message: str) -> None:
    raise ValueError(message)
