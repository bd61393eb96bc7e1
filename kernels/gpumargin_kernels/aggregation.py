"""Units of an account brought together: one function per kind of aggregation, and components that look across units.

A kind takes the held units of each account side by side, `[A, L]`, and returns named amounts `[A]`: requirements by
margin type, or parts that the model's own account expressions combine.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import repeat
from gpumargin_kernels.correlation import correlated_margin
from gpumargin_kernels.expression import evaluate
from gpumargin_kernels.model import Aggregation, Component, Model
from gpumargin_kernels.offset import offset_loss
from gpumargin_kernels.sensitivity import (
    CurvatureBuckets,
    RiskBuckets,
    curvature_margin,
    layer_margin,
    vol_of_weight,
)
from gpumargin_kernels.spread_credit import spread_credit, weighted_price_risk

_PADDING = -2  # unit of a padded slot: no unit, and not the "absent" of a spread's leg


class HeldUnits(NamedTuple):
    """Units of each account side by side; amounts are 0 in padded slots."""

    unit: Array  # [A, L] int32, any unit in padded slots
    is_held: Array  # [A, L] bool
    margin: dict[str, Array]  # [A, L] by margin type
    charges: dict[str, Array]  # [A, L] by component
    pnl: dict[str, Array]  # [A, L, S] by component, for those that the aggregation reads


Amounts = dict[str, Array]
AggregationKind = Callable[[Aggregation, HeldUnits, Array], Amounts]


def _sum(amounts: Array, zero: Array) -> Array:
    start = jnp.broadcast_to(zero, amounts.shape[:1])
    return repeat(amounts.shape[1], lambda slot, total: total + amounts[:, slot], start)


def _summed(aggregation: Aggregation, held: HeldUnits, zero: Array) -> Amounts:
    """Plain sum by margin type."""
    del aggregation
    return {name: _sum(amount, zero) for name, amount in held.margin.items()}


def _correlated(aggregation: Aggregation, held: HeldUnits, zero: Array) -> Amounts:
    """sqrt(m' R m) by margin type, R with ones on its diagonal; units outside R are added in full."""
    tables = aggregation.tables
    matrix, listed = jnp.asarray(tables["matrix"]), jnp.asarray(tables["is_listed"])
    return {name: correlated_margin(amount, held.unit, matrix, listed, zero) for name, amount in held.margin.items()}


def _covariance(aggregation: Aggregation, held: HeldUnits, zero: Array) -> Amounts:
    """sqrt(E' A E) by margin type, E signed and A a covariance; units outside A add their own sqrt(variance) |E|."""
    tables = aggregation.tables
    matrix, listed = jnp.asarray(tables["matrix"]), jnp.asarray(tables["is_listed"])
    deviation = jnp.asarray(tables["other_deviation"])
    found = {}
    for name, amount in held.margin.items():
        outside = jnp.abs(amount) * deviation
        exposure = jnp.where(listed[held.unit], amount, outside)
        found[name] = correlated_margin(exposure, held.unit, matrix, listed, zero)
    return found


def _sensitivities(aggregation: Aggregation, held: HeldUnits, zero: Array) -> Amounts:
    """Delta, vega and curvature margin of one class of risk, each unit one factor."""
    tables = {name: jnp.asarray(table) for name, table in aggregation.tables.items()}
    bucket = tables["bucket"][held.unit]
    delta, vega, bend = (
        jnp.where(held.is_held, held.charges[component], 0) for component in map(aggregation.choice, _LAYERS)
    )
    points = vol_of_weight(tables["weight"], aggregation.numbers["horizon_days"])
    risk = vega * points[bucket] * aggregation.numbers["vol_ratio"]
    common = tables["correlation"], tables["across"], tables["is_alone"]

    def layer(prefix: str) -> RiskBuckets:
        return RiskBuckets(tables[f"{prefix}weight"], common[0], tables[f"{prefix}threshold"], *common[1:])

    return {
        "delta_margin": layer_margin(delta, bucket, layer(""), zero),
        "vega_margin": layer_margin(risk, bucket, layer("vega_"), zero),
        "curvature_margin": curvature_margin(
            bend * points[bucket], bucket, CurvatureBuckets(*common, tables["is_excluded"]), zero
        ),
    }


_LAYERS = ("delta", "vega", "curvature")


def _offset(aggregation: Aggregation, held: HeldUnits, zero: Array) -> Amounts:
    """Largest loss over scenarios when gains of one unit or group offset losses of others only in part."""
    tables = {name: jnp.asarray(table) for name, table in aggregation.tables.items()}
    group = jnp.where(held.is_held, tables["group"][held.unit], _PADDING)
    pnl = jnp.where(held.is_held[:, :, None], held.pnl[aggregation.choice("component")], 0)
    between = jnp.asarray(aggregation.numbers["between"])
    return {"offset_loss": offset_loss(pnl, group, tables["within"][held.unit], between, zero)}


KINDS: dict[str, AggregationKind] = {
    "sum": _summed,
    "correlated": _correlated,
    "covariance": _covariance,
    "sensitivities": _sensitivities,
    "offset": _offset,
}


def account_margins(model: Model, held: HeldUnits, zero: Array) -> Amounts:
    """Requirement of each account by margin type.

    Args:
      model: its `aggregation` says how.
      held: units of each account.
      zero: `[]` run-time zero (see `leg_sums`).

    Returns:
      `[A]` per margin type: what the kind of aggregation gives, or the model's account expressions over that, over the
      sums of components across units and over the aggregation's numbers.
    """
    aggregation = model.aggregation
    joined = KINDS[aggregation.kind](aggregation, held, zero)
    if not aggregation.margins:
        return joined
    rows = held.unit.shape[:1]
    values = {name: jnp.broadcast_to(jnp.asarray(x), rows) for name, x in aggregation.numbers.items()}
    values |= {name: _sum(held.charges[name], zero) for name in aggregation.sums}
    values |= joined
    for name, expression in aggregation.margins:
        values[name] = jnp.broadcast_to(evaluate(expression, values, zero + 1), rows)
    return {name: values[name] for name, _ in aggregation.margins}


class AcrossUnits(NamedTuple):
    """What a component that looks across units may use, `[A, L]` each, 0 in padded slots."""

    unit: Array  # int32, -2 in padded slots
    inputs: Mapping[str, Array]  # by the kind's own words, from the model's expressions
    numbers: Mapping[str, Array]  # of the component, for each slot's unit
    spot: Array


def _spread_credit(component: Component, model: Model, side: AcrossUnits, zero: Array) -> Array:
    cap = side.numbers["cap"] * side.spot
    weighted = weighted_price_risk(side.inputs["price_risk"], side.inputs["delta"], cap)
    return spread_credit(side.inputs["delta"], weighted, side.unit, model.spreads[component.name], zero)


CROSS_KINDS: dict[str, Callable[[Component, Model, AcrossUnits, Array], Array]] = {"spread_credit": _spread_credit}


def cross_components(model: Model) -> tuple[Component, ...]:
    """Components that need all units of an account."""
    return tuple(component for component in model.components if component.kind in CROSS_KINDS)


def cross_charge(component: Component, model: Model, held: HeldUnits, spot: Array, zero: Array) -> Array:
    """Amount of one such component for each held unit, `[A, L]`; 0 in padded slots.

    Args:
      component: one of `cross_components`; its `inputs` are (word of the kind, expression) pairs.
      model: bound to the units of the book.
      held: units of each account, their charges complete but for such components.
      spot: `[U]`.
      zero: `[]` run-time zero.
    """
    own = spot[held.unit]
    numbers = {name: jnp.asarray(x)[held.unit] for name, x in model.numbers.get(component.name, {}).items()}
    values = held.charges | numbers | {"spot": own}
    inputs = {
        word: jnp.where(held.is_held, jnp.broadcast_to(evaluate(expression, values, zero + 1), own.shape), 0)
        for word, expression in component.choice("inputs")  # type: ignore[attr-defined]
    }
    side = AcrossUnits(jnp.where(held.is_held, held.unit, _PADDING), inputs, numbers, own)
    return CROSS_KINDS[component.kind](component, model, side, zero)
