"""What a model file may say: the schema of the TOML files under `models/`, checked key by key."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gpumargin.expressions import names_in, parse_expression

Grade = Literal["verified", "published", "inferred", "estimated"]
ContractKind = Literal["option", "future", "perpetual"]
DEFAULT = "default"
# Columns of the units table that no component may be called.
_RESERVED = {
    "account_id", "delta", "gamma", "option_value", "pool", "theta", "unit", "unrealised_pnl", "vega", "worst_loss",
    "worst_scenario",
}  # fmt: skip


def _by_name(value: object) -> object:
    """A bare number stands for the default of every unit or asset."""
    return {DEFAULT: value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# A number, or a table of numbers by unit (or asset) with a default for the unlisted.
Number = Annotated[dict[str, float], BeforeValidator(_by_name)]


NotNegativeNumber = Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(_by_name)]
PositiveNumber = Annotated[dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_by_name)]
Share = Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], BeforeValidator(_by_name)]


class ScenarioRow(_Strict):
    """One joint move: of spot, as a level (`spot`) or in multiples of the unit's range (`move`), and of vol."""

    spot: Number | None = None
    move: float | None = None
    vol: Literal["up", "none", "down"] = "none"
    weight: Number = {DEFAULT: 1.0}

    @model_validator(mode="after")
    def _has_one_move(self) -> Self:
        if (self.spot is None) == (self.move is None):
            message = "a scenario has either spot (a level, 1.18 = +18 %) or move (a multiple of scenario_range)"
            raise ValueError(message)
        return self

    @property
    def label(self) -> str:
        """Id of the scenario in results, for example `1.18/up` or `-1/none`."""
        size = f"{self.move:+g}" if self.spot is None else f"{self.spot[DEFAULT]:g}"
        return f"{size}/{self.vol}"


class VolShockTable(_Strict):
    """Vol multipliers: 1 + up g and max(0, 1 - down g), g = (pivot_days / max(days, floor_days)) ** power."""

    up: Number = {DEFAULT: 0.0}
    down: Number = {DEFAULT: 0.0}
    short_power: Number = {DEFAULT: 0.0}
    long_power: Number = {DEFAULT: 0.0}
    pivot_days: PositiveNumber = {DEFAULT: 30.0}
    floor_days: PositiveNumber = {DEFAULT: 1.0}


class Discount(_Strict):
    """Share of a net long expiry's shocked value that counts: static * exp(-years (rate multiplier + addend))."""

    static: Number
    rate_multiplier: Number
    rate_addend: Number


class _Component(_Strict):
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


ComponentTable = Annotated[
    ScenarioLoss | ExpiryLoss | SizeCharge | NetShortCharge | ConfidenceCharge | PriceShortfall | Largest,
    Field(discriminator="kind"),
]


class Aggregation(_Strict):
    """How the requirements of an account's units combine: their sum, or sqrt(m' R m) over the listed units."""

    kind: Literal["sum", "correlated"] = "sum"
    units: list[str] = []
    correlation: list[list[float]] = []


class CollateralTable(_Strict):
    """Weights of balances: share of value that counts, by asset; `base` for assets held as legs of a unit."""

    assets: Share
    liability: NotNegativeNumber = {DEFAULT: 1.0}
    base: Annotated[float, Field(ge=0, le=1)] | None = None


class Provenance(_Strict):
    """How far each number can be trusted; keys are dotted paths, a path covers everything below it."""

    default: Grade
    verified: list[str] = []
    published: list[str] = []
    inferred: list[str] = []
    estimated: list[str] = []


class ModelFile(_Strict):
    """A margin model: components, how they combine, what balances count, and where every number comes from."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    effective: date
    title: str
    source: str
    accounting_asset: str
    kinds: list[ContractKind] = Field(min_length=1)
    requires: list[str] = []
    base_legs: bool = False
    unsettled_without_position: bool = True
    dollar_at_par: bool = False
    vol_limit: float = 5.0
    tenor_limit_years: float = 10.0
    scenario_range: Number = {DEFAULT: 1.0}
    scenarios: dict[str, list[ScenarioRow]] = {}
    vol_shock: VolShockTable = VolShockTable()
    components: dict[str, ComponentTable]
    parameters: dict[str, Number] = {}
    margin: dict[str, str]
    aggregation: Aggregation = Aggregation()
    collateral: CollateralTable | dict[str, CollateralTable]
    provenance: Provenance

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        _check_names(self)
        _check_components(self)
        _check_defaults(self.model_dump(), "")
        return self

    def estimated_numbers(self) -> list[str]:
        """Dotted paths of the numbers that rest on an estimate; `all` if every number does."""
        return ["all"] if self.provenance.default == "estimated" else sorted(self.provenance.estimated)

    def collateral_of(self, margin_type: str) -> CollateralTable:
        """Weights of one margin type; one table may serve all types."""
        return self.collateral if isinstance(self.collateral, CollateralTable) else self.collateral[margin_type]


def _fail(message: str) -> None:
    raise ValueError(message)


def _check_names(model: ModelFile) -> None:
    """Margin types exist and name only what is known where they stand; every name means one thing and is used."""
    twice = set(model.components) & {*model.parameters, *model.margin}
    if twice or set(model.components) & _RESERVED:
        _fail(f"components: {sorted(twice | set(model.components) & _RESERVED)} name something else already")
    missing = {"initial", "maintenance"} - set(model.margin)
    if missing:
        _fail(f"margin: missing {sorted(missing)}; initial and maintenance are always needed")
    known = set(model.components) | set(model.parameters)
    used: set[str] = set()
    for name, text in model.margin.items():
        used |= names_in(parse_expression(text, known))
        known.add(name)
    if set(model.parameters) - used:
        _fail(f"parameters: {sorted(set(model.parameters) - used)} are not used by margin; it uses {sorted(used)}")
    if isinstance(model.collateral, dict) and set(model.collateral) != set(model.margin):
        _fail(f"collateral: has tables for {sorted(model.collateral)}, margin types are {sorted(model.margin)}")


def _check_components(model: ModelFile) -> None:
    """Components refer to scenario sets and to components that stand before them."""
    earlier: list[str] = []
    for name, component in model.components.items():
        wanted = getattr(component, "scenarios", None)
        if wanted is not None and not model.scenarios.get(wanted):
            _fail(f"components.{name}.scenarios: no scenario set {wanted!r}; known: {sorted(model.scenarios)}")
        if isinstance(component, Largest):
            unknown = [other for other in component.of if other not in earlier]
            if unknown:
                _fail(f"components.{name}.of: {unknown} do not stand before it; known here: {earlier}")
        earlier.append(name)


def _check_defaults(tree: object, path: str) -> None:
    """Every table of numbers by name has a default."""
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        here = f"{path}.{key}".lstrip(".")
        is_numbers = isinstance(value, dict) and bool(value) and all(isinstance(v, float) for v in value.values())
        if is_numbers and DEFAULT not in value:
            _fail(f"{here}: a table of numbers by name needs a {DEFAULT!r}, found only {sorted(value)}")
        _check_defaults(value, here)
