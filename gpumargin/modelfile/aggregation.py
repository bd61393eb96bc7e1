"""What a model file says of units together: how their requirements become the account's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gpumargin.expressions import parse_expression
from gpumargin.modelfile.numbers import Strict, placed

ShareOfOne = Annotated[float, Field(ge=0, le=1)]
CorrelationNumber = Annotated[float, Field(ge=-1, le=1)]


class _Aggregation(Strict):
    """What every kind may have: account expressions by margin type, and the numbers that they name."""

    outputs: ClassVar[tuple[str, ...]] = ()  # amounts that the kind gives to account expressions
    needs_margin: ClassVar[bool] = False  # True: without account expressions the kind has no requirement

    margin: dict[str, str] = {}
    numbers: dict[str, float] = {}

    def inputs(self) -> dict[str, str]:
        """Component that feeds each input of the kind."""
        return {}


class PlainSum(_Aggregation):
    """Requirements of units are added."""

    kind: Literal["sum"] = "sum"


class Correlated(_Aggregation):
    """sqrt(m' R m) over the listed units by margin type; others are added in full."""

    kind: Literal["correlated"]
    units: list[str] = []
    correlation: list[list[float]] = []


class Covariance(_Aggregation):
    """sqrt(E' A E) over the listed units by margin type, E signed; any other unit adds sqrt(other_variance) |E|."""

    kind: Literal["covariance"]
    units: list[str] = []
    covariance: list[list[float]] = []
    other_variance: Annotated[float, Field(ge=0)]


class RiskBucket(Strict):
    """Risk units that are weighted alike and offset each other more than the rest."""

    units: list[str] = []
    others: bool = False  # True: the bucket of units that no bucket lists
    alone: bool = False  # True: added in full, no offset to other buckets
    curvature: bool = True
    correlation: CorrelationNumber
    weight: Annotated[float, Field(ge=0)]  # per cent
    threshold: Annotated[float, Field(gt=0)]
    vega_weight: Annotated[float, Field(ge=0)]
    vega_threshold: Annotated[float, Field(gt=0)]


class Sensitivities(_Aggregation):
    """Delta, vega and curvature margin of units in buckets, by a variance-covariance form."""

    outputs: ClassVar[tuple[str, ...]] = ("delta_margin", "vega_margin", "curvature_margin")
    needs_margin: ClassVar[bool] = True

    kind: Literal["sensitivities"]
    delta: str
    vega: str
    curvature: str
    horizon_days: Annotated[float, Field(gt=0)] = 14.0
    vol_ratio: Annotated[float, Field(ge=0)] = 1.0
    buckets: dict[str, RiskBucket] = Field(min_length=1)
    across: list[list[float]]

    def inputs(self) -> dict[str, str]:
        """Components of the three layers."""
        return {"delta": self.delta, "vega": self.vega, "curvature": self.curvature}


class OffsetGroup(Strict):
    """Units whose gains offset each other's losses to a share."""

    units: list[str] = Field(min_length=1)
    within: ShareOfOne


class Offset(_Aggregation):
    """Largest loss over one component's scenarios, a gain of one group offsetting losses of others to a share."""

    outputs: ClassVar[tuple[str, ...]] = ("offset_loss",)
    needs_margin: ClassVar[bool] = True

    kind: Literal["offset"]
    component: str
    groups: dict[str, OffsetGroup] = {}
    between: ShareOfOne

    def inputs(self) -> dict[str, str]:
        """The component whose P&L by scenario is joined."""
        return {"component": self.component}


Aggregation = Annotated[
    PlainSum | Correlated | Covariance | Sensitivities | Offset,
    Field(discriminator="kind"),
]


def check_aggregation(
    rule: Aggregation, components: Collection[str], margin: Mapping[str, str], *, with_scenarios: Collection[str]
) -> None:
    """Checks that inputs are components, account expressions cover every margin type, and every unit has one bucket.

    Raises:
      ValueError: one of these does not hold.
    """
    unknown = [name for name in rule.inputs().values() if name not in components]
    if unknown:
        _fail(f"aggregation: {unknown} are no components; known: {sorted(components)}")
    if (rule.margin or rule.needs_margin) and set(rule.margin) != set(margin):
        _fail(f"aggregation.margin: has {sorted(rule.margin)}, margin types are {sorted(margin)}")
    known = {*components, *rule.numbers, *rule.outputs, *(() if rule.needs_margin else margin)}
    for name, text in rule.margin.items():
        with placed(f"aggregation.margin.{name}"):
            parse_expression(text, known)
        known.add(name)
    if isinstance(rule, Offset) and rule.component not in with_scenarios:
        _fail(f"aggregation.component: {rule.component!r} has no scenarios; name one of kind scenario_loss")
    if isinstance(rule, Sensitivities):
        _check_buckets(rule)


def _check_buckets(rule: Sensitivities) -> None:
    listed = [unit for bucket in rule.buckets.values() for unit in bucket.units]
    others = [name for name, bucket in rule.buckets.items() if bucket.others]
    if len(set(listed)) != len(listed):
        _fail(f"aggregation.buckets: a unit stands in two buckets; listed: {sorted(listed)}")
    if len(others) != 1:
        _fail(f"aggregation.buckets: exactly one needs others = true, for units that none lists; found {others}")


def _fail(message: str) -> None:
    raise ValueError(message)
