"""Unit rows and what they require, alone and with the other units of their account."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import take
from gpumargin_kernels.aggregation import HeldUnits, account_margins, cross_charge, cross_components
from gpumargin_kernels.expression import evaluate
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.model import Model
from gpumargin_kernels.records import Buckets, UnitMarket, UnitSlots


class MoneyGreeks(NamedTuple):
    """Greeks of a row in money.

    Delta for +100 % of spot, gamma = change of delta for +1 %, per cent, vega per vol point, theta per calendar day.
    """

    delta: Leaf
    gamma: Leaf
    vega: Leaf
    theta: Leaf


class UnitRows(NamedTuple):
    """Result per unit row, `[R]` each.

    Where health alone is asked for, the worst scenario, its loss and the Greeks are None, and there are no charges
    unless something reads them.
    """

    unit: Leaf  # int32
    charges: dict[str, Leaf]  # by component
    worst_scenario: Leaf  # int32 code, see `Charge`
    worst_loss: Leaf
    margin: dict[str, Leaf]  # by margin type
    option_value: Leaf
    option_columns: Leaf  # [R, J] by settlement asset; J = 0 unless units settle into balances
    greeks: MoneyGreeks | None
    pnl: dict[str, Leaf]  # [R, S] by component, where the aggregation reads it; not part of the result


def _is_plain(model: Model) -> bool:
    """Whether an account requires the sum of what its units require."""
    return model.aggregation.kind == "sum" and not model.aggregation.margins


def reads_charges(model: Model) -> bool:
    """Whether amounts of components are read again once the rows of units are finished."""
    return bool(cross_components(model) or model.account.counted) or not _is_plain(model)


def requirements(model: Model, charges: dict[str, Leaf], unit: Leaf, one: Array) -> dict[str, Leaf]:
    """Requirement of each unit row by margin type; later types may use earlier ones; `one` as in `evaluate`."""
    values = take(model.parameters, jnp.asarray(unit)) | charges
    for name, expression in model.margins:
        values[name] = jnp.broadcast_to(evaluate(expression, values, one), unit.shape)
    return {name: values[name] for name, _ in model.margins}


def _held(units: UnitRows, slots: UnitSlots) -> HeldUnits:
    """Unit rows of each account side by side, amounts 0 in padded slots."""

    def spread(of_rows: Array) -> Array:
        is_held = slots.is_held if of_rows.ndim == 1 else slots.is_held[:, :, None]
        return jnp.where(is_held, of_rows[slots.row], 0)

    sides = (jax.tree.map(spread, part) for part in (units.margin, units.charges, units.pnl))
    return HeldUnits(units.unit[slots.row], slots.is_held, *sides)


def across_units(
    units: UnitRows, model: Model, market: UnitMarket, buckets: Buckets[UnitSlots], zero: Array
) -> UnitRows:
    """Unit rows with the components that look at all units of an account, and the requirements that follow."""
    charges = dict(units.charges)
    for component in cross_components(model):
        amount = jnp.broadcast_to(zero, units.unit.shape)
        for slots in buckets.buckets:
            held = _held(units._replace(charges=charges), slots)
            found = cross_charge(component, model, held, jnp.asarray(market.spot), zero)
            row = jnp.where(slots.is_held, slots.row, units.unit.shape[0])  # padding falls outside and is dropped
            amount = amount.at[row].set(found, mode="drop")
        charges[component.name] = amount
    ordered = {c.name: charges[c.name] for c in model.components}
    return units._replace(charges=ordered, margin=requirements(model, ordered, units.unit, zero + 1))


def account_margins_of(
    model: Model, units: UnitRows, slots: UnitSlots, sums: dict[str, Array], zero: Array
) -> dict[str, Array]:
    """Requirement of each account by margin type, as the model aggregates its units; `sums` are their plain sums."""
    return sums if _is_plain(model) else account_margins(model, _held(units, slots), zero)
