"""Unit rows, what they require, and the accounts that they make together."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import repeat, take
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
    """Result per unit row, `[R]` each."""

    unit: Leaf  # int32
    charges: dict[str, Leaf]  # by component
    worst_scenario: Leaf  # int32 code, see `Charge`
    worst_loss: Leaf
    margin: dict[str, Leaf]  # by margin type
    option_value: Leaf
    option_columns: Leaf  # [R, J] by settlement asset; J = 0 unless units settle into balances
    greeks: MoneyGreeks
    pnl: dict[str, Leaf]  # [R, S] by component, where the aggregation reads it; not part of the result


def requirements(model: Model, charges: dict[str, Leaf], unit: Leaf) -> dict[str, Leaf]:
    """Requirement of each unit row by margin type; later types may use earlier ones."""
    values = take(model.parameters, jnp.asarray(unit)) | charges
    for name, expression in model.margins:
        values[name] = jnp.broadcast_to(evaluate(expression, values), unit.shape)
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
    return units._replace(charges=ordered, margin=requirements(model, ordered, units.unit))


class CountedUnits(NamedTuple):
    """Unit rows with what counts of each towards the balance."""

    rows: UnitRows
    pnl: Leaf  # [R]
    counted: dict[str, Leaf]  # [R], or [R, J] where units settle, by margin type; only the types with an expression


class UnitSums(NamedTuple):
    """Sums over the units of each account, `[A]` each."""

    margin: dict[str, Leaf]
    option_value: Leaf
    unrealised_pnl: Leaf
    worst_loss: Leaf
    greeks: MoneyGreeks
    counted: dict[str, Leaf]  # as in `CountedUnits`


class AccountUnits(NamedTuple):
    """Units of each account brought together, `[A]` each."""

    sums: UnitSums
    margin: dict[str, Leaf]  # aggregated as the model says
    worst_scenario: Leaf
    spot_confidence: Leaf  # least of its units, 1 without any


def account_units(model: Model, units: CountedUnits, market: UnitMarket, zero: Array, slots: UnitSlots) -> AccountUnits:
    """Units of each account of a bucket brought together, `[A]`."""
    rows = units.rows
    source = UnitSums(rows.margin, rows.option_value, units.pnl, rows.worst_loss, rows.greeks, units.counted)

    def add_slot(slot: Array, sums: UnitSums) -> UnitSums:
        row, is_held = slots.row[:, slot], slots.is_held[:, slot]

        def held(x: Array) -> Array:
            return jnp.where(is_held.reshape(-1, *[1] * (x.ndim - 1)), x[row], 0)

        return cast("UnitSums", jax.tree.map(jnp.add, sums, jax.tree.map(held, source)))

    start = jax.tree.map(lambda x: jnp.broadcast_to(zero, (slots.row.shape[0], *x.shape[1:])), source)
    sums = repeat(slots.row.shape[1], add_slot, start)
    is_single = jnp.sum(slots.is_held, axis=1) == 1
    worst = jnp.where(is_single, rows.worst_scenario[slots.row[:, 0]], -1)
    is_plain = model.aggregation.kind == "sum" and not model.aggregation.margins
    margin = sums.margin if is_plain else account_margins(model, _held(rows, slots), zero)
    confidence = jnp.where(slots.is_held, market.spot_confidence[rows.unit[slots.row]], 1)
    return AccountUnits(sums, margin, worst, jnp.min(confidence, axis=1))
