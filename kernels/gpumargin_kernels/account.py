"""The account stage: unit rows brought together, what of them counts, and the expressions of whole accounts."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import Record, repeat, take
from gpumargin_kernels._safe import safe_divide
from gpumargin_kernels.collateral import CollateralValue
from gpumargin_kernels.expression import evaluate
from gpumargin_kernels.health import Health, account_health
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.model import AccountModel, Model
from gpumargin_kernels.records import CashLegs, Contracts, Settlement, UnitMarket, UnitSlots
from gpumargin_kernels.units import MoneyGreeks, UnitRows, account_margins_of


class AccountRows(NamedTuple):
    """Result per account, `[A]` each; where health alone is asked for, only `equity`, `margin` and most of `health`."""

    equity: Leaf
    unrealised_pnl: Leaf
    option_value: Leaf
    collateral_value: dict[str, Leaf]
    balance: dict[str, Leaf]
    margin: dict[str, Leaf]
    charges: dict[str, Leaf]  # by charge on balances
    health: Health
    worst_scenario: Leaf  # int32 code of the account's only unit, -1 if it has none or several
    worst_loss: Leaf
    greeks: MoneyGreeks | None


class CashSums(NamedTuple):
    """P&L not yet in the balance, accounting unit."""

    total: Leaf  # [R]
    columns: Leaf  # [R, J] by settlement asset; J = 0 unless units settle into balances


def _columns(settlement: Settlement) -> Array:
    return jnp.arange(settlement.ratio.shape[0], dtype=jnp.int32)[None]


def by_column(settlement: Settlement, contracts: Contracts) -> Array:
    """True in the column that each contract settles in, `[M, J]`."""
    column = jnp.asarray(contracts.settlement_column)[:, None]
    return column == _columns(settlement)


def cash_sums(contracts: Contracts, legs: CashLegs, settlement: Settlement | None, zero: Array) -> CashSums:
    """P&L of futures and perpetuals not yet in the balance, unsettled cash included.

    Args:
      contracts: `[M]`.
      legs: `[R, L]`.
      settlement: columns by which it is wanted as well; None = none.
      zero: `[]` run-time zero, see `leg_sums`.
    """

    def add_slot(slot: Array, sums: CashSums) -> CashSums:
        contract, entry = legs.contract[:, slot], legs.entry[:, slot]
        own = take(contracts, contract)
        is_open = ~jnp.isnan(entry)
        safe_entry = jnp.where(is_open, entry, own.mark)
        linear = own.mark - safe_entry
        inverse = safe_divide(own.mark - safe_entry, own.mark * safe_entry, 0)
        gain = jnp.where(is_open, jnp.where(own.is_inverse, inverse, linear), 0)
        cash: Array = legs.quantity[:, slot] * own.size * gain * one + legs.unsettled[:, slot]
        money = cash * own.settlement_ratio * one
        if settlement is None:
            return CashSums(jnp.add(sums.total, money), sums.columns)
        more = jnp.where(by_column(settlement, own), money[:, None], 0)
        return CashSums(jnp.add(sums.total, money), sums.columns + more)

    one, rows = zero + 1, legs.contract.shape[0]
    columns = 0 if settlement is None else settlement.ratio.shape[0]
    start = CashSums(jnp.broadcast_to(zero, (rows,)), jnp.broadcast_to(zero, (rows, columns)))
    return repeat(legs.contract.shape[1], add_slot, start)


class CountedUnits(NamedTuple):
    """Unit rows with what counts of each towards the balance."""

    rows: UnitRows
    pnl: Leaf  # [R]
    counted: dict[str, Leaf]  # [R], or [R, J] where units settle, by margin type; only the types with an expression


def with_counted(
    model: Model, rows: UnitRows, pnl: CashSums, settlement: Settlement | None, one: Array
) -> CountedUnits:
    """Evaluates what counts of every unit row.

    Expressions name `unrealised_pnl`, `option_value`, parameters and components of the unit. Where units settle, an
    expression is evaluated for each settlement asset with the P&L and the option value in it, and components stand in
    the column that the unit settles in. `one` as in `evaluate`.
    """
    own = take(model.parameters, rows.unit) | rows.charges
    if settlement is None:
        values = own | {"unrealised_pnl": pnl.total, "option_value": rows.option_value}
        shape = rows.unit.shape
    else:
        is_own = settlement.of_unit[rows.unit][:, None] == _columns(settlement)
        values = {name: x[:, None] for name, x in take(model.parameters, rows.unit).items()}
        values |= {name: jnp.where(is_own, x[:, None], 0) for name, x in rows.charges.items()}
        values |= {"unrealised_pnl": pnl.columns, "option_value": rows.option_columns}
        shape = pnl.columns.shape
    found = {name: jnp.broadcast_to(evaluate(e, values, one), shape) for name, e in model.account.counted}
    return CountedUnits(rows, pnl.total, found)


class UnitSums(NamedTuple):
    """Sums over the units of each account, `[A]` each."""

    option_value: Leaf
    unrealised_pnl: Leaf
    worst_loss: Leaf
    greeks: MoneyGreeks | None
    counted: dict[str, Leaf]  # as in `CountedUnits`


class AccountUnits(NamedTuple):
    """Units of each account brought together, `[A]` each."""

    sums: UnitSums
    margin: dict[str, Leaf]  # by margin type, aggregated as the model says
    worst_scenario: Leaf
    spot_confidence: Leaf  # least of its units, 1 without any


def account_units(
    model: Model, units: CountedUnits, market: UnitMarket, _: Any, slots: UnitSlots, zero: Array
) -> AccountUnits:
    """Units of each account of a bucket brought together: a `RowStep` with none before it."""
    rows = units.rows
    source = UnitSums(rows.option_value, units.pnl, rows.worst_loss, rows.greeks, units.counted), rows.margin

    def add_slot(slot: Array, state: tuple[Record, Array]) -> tuple[Record, Array]:
        sums, confidence = state
        row, is_held = slots.row[:, slot], slots.is_held[:, slot]

        def held(x: Array) -> Array:
            return jnp.where(is_held.reshape(-1, *[1] * (x.ndim - 1)), x[row], 0)

        own = jnp.where(is_held, market.spot_confidence[rows.unit[row]], 1)
        more = cast("Record", jax.tree.map(jnp.add, sums, jax.tree.map(held, source)))
        return more, jnp.minimum(confidence, own)

    count = slots.row.shape[:1]
    start = jax.tree.map(lambda x: jnp.broadcast_to(zero, (*count, *x.shape[1:])), source)
    (sums, margin), confidence = repeat(slots.row.shape[1], add_slot, (start, jnp.broadcast_to(zero + 1, count)))
    together = account_margins_of(model, rows, slots, margin, zero)
    return AccountUnits(sums, together, _only_worst(rows, slots), confidence)


def _only_worst(rows: UnitRows, slots: UnitSlots) -> Array | None:
    """Worst scenario of each account's only unit, `[A]`."""
    if rows.worst_scenario is None:
        return None
    is_single = jnp.sum(slots.is_held, axis=1) == 1
    return jnp.where(is_single, rows.worst_scenario[slots.row[:, 0]], -1)


def _balances(model: AccountModel, units: AccountUnits, collateral: CollateralValue) -> dict[str, Array]:
    """Margin balance by margin type: collateral value and what counts of P&L and options, unless that has settled."""
    if model.settles:
        return collateral.weighted
    floating = units.sums.unrealised_pnl + units.sums.option_value
    counted = {name: units.sums.counted.get(name, floating) for name in collateral.weighted}
    return {name: value + counted[name] for name, value in collateral.weighted.items()}


def _charges(
    model: AccountModel, values: dict[str, Array], collateral: CollateralValue, one: Array
) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for charge in model.charges:
        amount = evaluate(charge.amount, values | found | collateral.parts[charge.name], one)
        found[charge.name] = jnp.broadcast_to(amount, collateral.full.shape)
    return found


def _margins(
    model: AccountModel, values: dict[str, Array], units: AccountUnits, debt: dict[str, Array], one: Array
) -> dict[str, Array]:
    """Requirement of the account by margin type; later types may use earlier ones."""
    expressions = dict(model.margins)
    found: dict[str, Array] = {}
    for name, _ in model.rules:  # in the order of the file, which a dictionary that JAX returns does not keep
        of_units = units.margin[name]
        if name in expressions:
            own = {"units": of_units, "debt": debt.get(name, jnp.zeros_like(of_units))}
            amount = evaluate(expressions[name], values | found | own, one)
            found[name] = jnp.broadcast_to(amount, of_units.shape)
        else:
            found[name] = of_units + debt[name] if debt else of_units
    return found


def account_stage(
    model: AccountModel,
    units: AccountUnits,
    collateral: CollateralValue,
    settings: dict[str, Leaf],
    one: Array,
    *,
    is_whole: bool = True,
) -> AccountRows:
    """Equity, balances, requirements and health of every account, `[A]` each.

    Args:
      model: expressions of accounts.
      units: units of each account together.
      collateral: what its balances count.
      settings: numbers that accounts set for themselves.
      one: `[]` run-time one, see `evaluate`.
      is_whole: False = only equity, requirements, excess and status.
    """
    sums = units.sums
    floating = sums.unrealised_pnl + sums.option_value
    equity = collateral.full + floating
    balance = _balances(model, units, collateral)
    values = {name: jnp.broadcast_to(x, equity.shape) for name, x in model.scalars.items()} | settings
    values |= {"equity": equity, "unrealised_pnl": sums.unrealised_pnl, "option_value": sums.option_value}
    charges = _charges(model, values, collateral, one)
    margin = _margins(model, values | charges, units, collateral.debt, one)
    health = account_health(equity, balance, margin, dict(model.statuses), values | charges, one)
    if not is_whole:
        return AccountRows(equity, None, None, {}, {}, margin, {}, health._replace(ratio=None), None, None, None)
    return AccountRows(
        equity=equity,
        unrealised_pnl=sums.unrealised_pnl,
        option_value=sums.option_value,
        collateral_value=collateral.weighted,
        balance=balance,
        margin=margin,
        charges=charges,
        health=health,
        worst_scenario=units.worst_scenario,
        worst_loss=sums.worst_loss,
        greeks=sums.greeks,
    )
