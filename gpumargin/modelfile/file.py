"""A whole model file, checked key by key."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from gpumargin.errors import suggestion
from gpumargin.expressions import names_in, parse_expression
from gpumargin.modelfile.account import StatusTable, account_expressions, check_account
from gpumargin.modelfile.aggregation import Aggregation, PlainSum, check_aggregation
from gpumargin.modelfile.balances import (
    ACCOUNT_NAMES,
    ASSET_NAMES,
    ORDER_NAMES,
    BalanceChargeTable,
    BalanceNames,
    Category,
    CollateralTable,
    Name,
    ParsedRule,
)
from gpumargin.modelfile.components import (
    SUM_WORDS,
    ChargeTable,
    ComponentTable,
    Largest,
    ParsedCharge,
    ScenarioLoss,
    ScenarioMean,
    SharedNames,
    SpreadCredit,
)
from gpumargin.modelfile.names import (
    CONTRACT_NAMES,
    EXPIRY_NAMES,
    FEED_NAMES,
    MARK_COLUMNS,
    MARK_NAMES,
    POSITION_NAMES,
    QUOTE_NAMES,
    TERM_NAMES,
    UNIT_NAMES,
)
from gpumargin.modelfile.numbers import DEFAULT, NAME, Brackets, Number, Strict, Word, placed
from gpumargin.modelfile.scenarios import (
    CompositeDeltaTable,
    ScenarioRow,
    ScenarioRulesTable,
    SkewTable,
    VolShockTable,
    check_rows,
    names_in_weights,
    unmoved,
)

Grade = Literal["verified", "published", "inferred", "estimated"]
ContractKind = Literal["option", "future", "perpetual"]
# Columns of the units table that no component may be called.
_RESERVED = {
    "account_id", "delta", "gamma", "option_value", "pool", "theta", "unit", "unrealised_pnl", "vega", "worst_loss",
    "worst_scenario",
}  # fmt: skip
# Columns of the accounts table that no charge on balances may be called.
_ACCOUNT_COLUMNS = _RESERVED | {
    "debt", "health", "model", "num_positions", "owner_id", "status", "units",
}  # fmt: skip

_POSITION = {*CONTRACT_NAMES, *MARK_NAMES, *TERM_NAMES, *QUOTE_NAMES, *UNIT_NAMES, *POSITION_NAMES}


class Provenance(Strict):
    """How far each number can be trusted; keys are dotted paths, a path covers everything below it."""

    default: Grade
    verified: list[str] = []
    published: list[str] = []
    inferred: list[str] = []
    estimated: list[str] = []


def _extent(value: object) -> str:
    """Whether `[collateral]` is one table for all margin types, or one for each."""
    own = set(CollateralTable.model_fields)
    inner = list(value.values()) if isinstance(value, dict) and not own & set(value) else []
    are_tables = [isinstance(v, CollateralTable) or (isinstance(v, dict) and bool(own & set(v))) for v in inner]
    return "by type" if any(are_tables) else "one"


# Told apart before they are read, so that a message is about the form that was meant.
Collateral = Annotated[
    Annotated[CollateralTable, Tag("one")] | Annotated[dict[str, CollateralTable], Tag("by type")],
    Discriminator(_extent),
]


class ModelFile(Strict):
    """A margin model: components, how they combine, what balances count, and where every number comes from."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    effective: Annotated[date, Field(strict=False)]  # a text in the manifest of a run
    title: str
    source: str
    accounting_asset: str
    kinds: list[ContractKind]
    requires: list[str] = []
    base_legs: bool | Literal["every"] | dict[str, list[str]] = False
    unsettled_without_position: bool = True
    dollar_at_par: bool = False
    discounted_marks: bool = False
    vol_limit: float = 5.0
    tenor_limit_years: float = 10.0
    scenario_range: Number = {DEFAULT: 1.0}
    scenarios: dict[str, list[ScenarioRow]] = {}
    scenario_rules: ScenarioRulesTable = ScenarioRulesTable()
    vol_shock: VolShockTable = VolShockTable()
    skew: SkewTable | None = None
    composite_delta: CompositeDeltaTable | None = None
    components: dict[Word, ComponentTable] = {}
    parameters: dict[Word, Number] = {}
    settable: dict[Annotated[str, Field(pattern=NAME)], Number] = {}
    tables: dict[Annotated[str, Field(pattern=NAME)], Brackets] = {}
    formulas: dict[Name, str] = {}
    margin: dict[Word, str]
    aggregation: Aggregation = PlainSum()
    collateral: Collateral
    categories: dict[str, Category] = {}
    debt: Literal["balance", "requirement"] = "balance"
    pnl_settles: bool = False
    counted: dict[str, str] = {}
    balances: dict[Name, BalanceChargeTable] = {}
    account: dict[str, str] = {}
    status: StatusTable = StatusTable()
    provenance: Provenance

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        _check_components(self)
        _check_names(self)
        with_scenarios = [name for name, c in self.components.items() if isinstance(c, ScenarioLoss)]
        check_aggregation(self.aggregation, self.components, self.margin, with_scenarios=with_scenarios)
        _check_base_legs(self)
        check_rows(self.scenarios, self.skew, self.scenario_rules, self.scenario_range)
        return self

    @cached_property
    def charges(self) -> dict[str, ParsedCharge]:
        """Every component of kind `charge` with its expressions resolved, by name."""
        earlier: list[str] = []
        found = {}
        for name, component in self.components.items():
            if isinstance(component, ChargeTable):
                found[name] = component.parsed(self.shared_names(), earlier)
            earlier.append(name)
        return found

    def shared_names(self) -> SharedNames:
        """What every charge may name of the model."""
        return SharedNames(self.parameters, self.settable, self.tables)

    @cached_property
    def leg_inputs(self) -> tuple[str, ...]:
        """What charges name of a position beside its contract and quantity: inputs of the leg stage."""
        words = {word for charge in self.charges.values() for word, _ in charge.sums.values()}
        return tuple(sorted(words - {*SUM_WORDS, *EXPIRY_NAMES}))

    @cached_property
    def market_inputs(self) -> dict[str, str]:
        """Columns of the book by contract that charges name, by that name.

        Of `marks`, `forwards` and `instruments`, and prices of the quote currency.
        """
        named = set[str]().union(*(charge.names() for charge in self.charges.values()))
        same = (*FEED_NAMES, *TERM_NAMES, *QUOTE_NAMES)
        columns = MARK_COLUMNS | dict(zip(same, same, strict=True))
        return {name: column for name, column in columns.items() if name in named}

    @cached_property
    def term_inputs(self) -> tuple[str, ...]:
        """Those of them that are columns of `instruments`, or prices of the quote currency."""
        return tuple(name for name in (*TERM_NAMES, *QUOTE_NAMES) if name in self.market_inputs)

    def _balance_names(self) -> BalanceNames:
        sums = [name for name, table in self.balances.items() if table.is_sum]
        return BalanceNames(self.settable, self.formulas, sums)

    def summed(self) -> tuple[str, ...]:
        """Charges on balances that rules of collateral name."""
        named = set().union(*(names_in(e) for name in self.margin for e in self.rule_of(name).expressions()))
        return tuple(name for name in self.balances if name in named)

    def rule_of(self, margin_type: str) -> ParsedRule:
        """What counts of balances for one margin type, every name resolved."""
        return self.collateral_of(margin_type).parsed(self._balance_names())

    @cached_property
    def balance_inputs(self) -> tuple[str, ...]:
        """What rules name of an account's orders and settings: inputs of balances."""
        return tuple(sorted(self._named_of_balances & {*ORDER_NAMES, *self.settable}))

    @cached_property
    def asset_columns(self) -> dict[str, str]:
        """Columns of the book by asset, `table.column`, that expressions of balances name, by that name."""
        return {name: column for name, column in ASSET_NAMES.items() if name in self._named_of_balances}

    @cached_property
    def _named_of_balances(self) -> set[str]:
        expressions = [e for name in self.margin for e in self.rule_of(name).expressions()]
        expressions += [e for charge in account_expressions(self).charges.values() for e in charge.each.values()]
        return set[str]().union(*map(names_in, expressions))

    def collateral_of(self, margin_type: str) -> CollateralTable:
        """Weights of one margin type; one table may serve all types."""
        return self.collateral if isinstance(self.collateral, CollateralTable) else self.collateral[margin_type]


def _fail(message: str) -> None:
    raise ValueError(message)


def _check_names(model: ModelFile) -> None:
    """Margin types exist and name only what is known where they stand; every name means one thing and is used."""
    _check_unique(model)
    missing = {"initial", "maintenance"} - set(model.margin)
    if missing:
        _fail(f"margin: missing {sorted(missing)}; initial and maintenance are always needed")
    known = set(model.components) | set(model.parameters)
    used: set[str] = set()
    for name, text in model.margin.items():
        with placed(f"margin.{name}"):
            used |= names_in(parse_expression(text, known))
        known.add(name)
    used |= names_in_weights(model.scenarios, model.parameters)
    used |= set().union(*(charge.names() for charge in model.charges.values()))
    if set(model.tables) - used:
        _fail(f"tables: {sorted(set(model.tables) - used)} are named by no charge")
    if "composite_delta" in used and model.composite_delta is None:
        _fail("components: an expression names composite_delta; give its price points in [composite_delta]")
    if isinstance(model.collateral, dict) and set(model.collateral) != set(model.margin):
        _fail(f"collateral: has tables for {sorted(model.collateral)}, margin types are {sorted(model.margin)}")
    used |= check_account(model)
    if set(model.settable) - used or set(model.settable) & {*model.parameters, *_POSITION, *ACCOUNT_NAMES}:
        _fail(f"settable: {sorted(model.settable)} must be named by charges or account and mean nothing else there")
    for name in sorted(set(model.parameters) - used):
        _fail(f"parameters.{name}: named by no expression; they name {sorted(used)}{suggestion(name, used)}")


def _check_unique(model: ModelFile) -> None:
    """Names that become columns or meet in expressions mean one thing."""
    numbers = {*model.parameters, *model.margin}
    taken = {
        "components": {*numbers, *_RESERVED},
        "balances": {*numbers, *model.components, *ACCOUNT_NAMES, *_ACCOUNT_COLUMNS},
    }
    for place, names in taken.items():
        for name in sorted(names & set(getattr(model, place))):
            _fail(f"{place}.{name}: the name means something else already; not to be used: {sorted(names)}")


def _check_components(model: ModelFile) -> None:
    """Components refer to scenario sets and to components that stand before them."""
    earlier: list[str] = []
    for name, component in model.components.items():
        wanted = getattr(component, "scenarios", None)
        if wanted is not None and not model.scenarios.get(wanted):
            _fail(f"components.{name}.scenarios: no scenario set {wanted!r}; known: {sorted(model.scenarios)}")
        if isinstance(component, ScenarioLoss):
            _check_post(name, component)
        if isinstance(component, Largest):
            unknown = [other for other in component.of if other not in earlier]
            if unknown:
                _fail(f"components.{name}.of: {unknown} do not stand before it; known here: {earlier}")
        if isinstance(component, ChargeTable):
            _check_charge(name, component, model, earlier)
        if isinstance(component, ScenarioMean):
            _check_mean(model, name, component, earlier)
        if isinstance(component, SpreadCredit):
            for word, text in component.inputs().items():
                with placed(f"components.{name}.{word}"):
                    parse_expression(text, {*earlier, "spot"})
        earlier.append(name)


def _check_mean(model: ModelFile, name: str, component: ScenarioMean, earlier: list[str]) -> None:
    """It follows a component with scenarios, of which some leave spot unmoved if it asks for these."""
    source = model.components.get(component.of)
    if component.of not in earlier or not isinstance(source, ScenarioLoss):
        _fail(f"components.{name}.of: {component.of!r} is no component of kind scenario_loss before it")
    elif component.which == "unmoved" and not unmoved(model.scenarios[source.scenarios]):
        _fail(f"components.{name}.which: no scenario of {source.scenarios!r} leaves spot where it is")


def _check_post(name: str, component: ScenarioLoss) -> None:
    with placed(f"components.{name}.post"):
        component.post_expression()


def _check_base_legs(model: ModelFile) -> None:
    """An asset is a leg of one unit at most."""
    if not isinstance(model.base_legs, dict):
        return
    assets = [asset for listed in model.base_legs.values() for asset in listed]
    twice = sorted({asset for asset in assets if assets.count(asset) > 1})
    if twice:
        _fail(f"base_legs: {twice} stand more than once; an asset moves with one unit")


def _check_charge(name: str, charge: ChargeTable, model: ModelFile, earlier: Collection[str]) -> None:
    try:
        charge.parsed(model.shared_names(), earlier)
    except ValueError as error:
        _fail(f"components.{name}.{error}")
