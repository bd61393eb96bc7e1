"""Margin from end to end, for one part of a book: contract stage, leg stage, account stage. The composition only.

contract_stage   price every contract once; what each component adds up per leg     M x columns
leg_stage        run the legs of every unit row through the tallies                  N legs, the hot loop
account_stage    units to accounts, collateral, health                               A accounts
"""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import barrier, in_chunks, in_row_order, take
from gpumargin_kernels.account import (
    AccountRows,
    AccountUnits,
    account_stage,
    account_units,
    by_column,
    cash_sums,
    with_counted,
)
from gpumargin_kernels.aggregation import cross_components
from gpumargin_kernels.collateral import AccountSide, CollateralValue, collateral_value
from gpumargin_kernels.components import KINDS, Charge, RowSide
from gpumargin_kernels.contract_values import ContractSide
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.model import Model
from gpumargin_kernels.payoff import with_payoffs
from gpumargin_kernels.records import Assets, Balances, Book, Buckets, Contracts, Legs, Settlement, Tally, UnitMarket
from gpumargin_kernels.scenario import ContractRisk, contract_risk
from gpumargin_kernels.steps import RowStep, RowSteps, row_steps
from gpumargin_kernels.tally import RowPlan, RowStage, row_stage
from gpumargin_kernels.units import MoneyGreeks, UnitRows, across_units, reads_charges, requirements


class ContractTable(NamedTuple):
    """What the leg stage gathers from: the contract stage's result."""

    contracts: Contracts
    risk: ContractRisk
    value: Tally  # of options; then, if units settle, by settlement asset
    greeks: Tally  # in money
    tallies: dict[str, tuple[Tally, ...]]  # by component


class PartResult(NamedTuple):
    """Everything computed for one part of the book.

    Returned whole wherever XLA sums the legs: what is also returned changes how it contracts the products around it
    (see `barrier`).
    """

    units: UnitRows
    unit_unrealised_pnl: Leaf  # [R]
    accounts: AccountRows


def _plain(block: Array) -> Tally:
    """What is added up over the legs of a row, times their quantity."""
    return Tally(columns={"net": block}, terms=block[:, :0])


def _value_columns(contracts: Contracts, risk: ContractRisk, settlement: Settlement | None) -> Tally:
    """Option value of one long contract, `[M, 1]`; then, if they settle, the same by column."""
    value = jnp.asarray(risk.value)[:, None]
    if settlement is None:
        return _plain(value)
    return _plain(jnp.concatenate([value, jnp.where(by_column(settlement, contracts), value, 0)], axis=1))


def _greek_columns(contracts: Contracts, risk: ContractRisk) -> Tally:
    """Money Greeks of one long contract, `[M, 4]`."""
    forward, greeks = contracts.forward_variable, risk.greeks
    columns = [
        greeks.delta * forward + risk.exposure,
        greeks.gamma * forward * forward * 1e-4,
        greeks.vega / 100,
        greeks.theta / 365,
    ]
    return _plain(jnp.stack(columns, axis=1))


def _own_numbers(model: Model, component: str) -> dict[str, Leaf]:
    """Parameters of the model and numbers of one component, `[U]` each."""
    return model.parameters | model.numbers.get(component, {})


class _ContractColumns(NamedTuple):
    """What is computed of contracts, `[M]` each."""

    risk: ContractRisk
    value: Tally
    greeks: Tally
    tallies: dict[str, tuple[Tally, ...]]


def _contract_columns(
    market: UnitMarket, model: Model, settlement: Settlement | None, contracts: Contracts
) -> _ContractColumns:
    """The contract stage for one chunk of contracts."""
    # The barriers keep one number's products out of another's sums, so that every chunk contracts alike.
    own_market = take(market, contracts.unit)
    risk = barrier(contract_risk(contracts, model, own_market.spot))

    def side(name: str) -> ContractSide:
        return ContractSide(contracts, risk, own_market, take(_own_numbers(model, name), contracts.unit))

    tallies = {c.name: KINDS[c.kind].tallies(c, model, side(c.name)) for c in model.components if c.kind in KINDS}
    value = _value_columns(contracts, risk, settlement)
    return barrier(_ContractColumns(risk, value, _greek_columns(contracts, risk), tallies))


def contract_stage(
    contracts: Contracts,
    market: UnitMarket,
    model: Model,
    settlement: Settlement | None = None,
    *,
    chunk: int | None = None,
) -> ContractTable:
    """Prices every contract once and tabulates what each component adds up over legs.

    Args:
      contracts: `[M]`, ending in padding: size 0, so that everything it yields is 0.
      market: `[U]`.
      model: bound to the units of the book.
      settlement: where contracts settle, if that is to be known of their option value.
      chunk: contracts priced together; None = all of them (GPU). M must be a multiple, or at most one chunk.

    Returns:
      `ContractTable`, `[M, K]` per tally. Memory: about 8 (3 S + 20) bytes per contract; what arises on the way is
      held for one chunk only.
    """
    columns = in_chunks(partial(_contract_columns, market, model, settlement), contracts, chunk)
    return ContractTable(contracts, *columns)


def _charges(
    model: Model, sums: dict[str, tuple[Array, ...]], unit: Array, market: UnitMarket, assets: Assets, one: Array
) -> dict[str, Charge]:
    """Every component of every row; amounts times `one`, so that no product among them is fused with a sum."""
    charges: dict[str, Charge] = {}
    for component in model.components:
        if component.kind not in KINDS:
            continue
        row = RowSide(
            sums=sums[component.name],
            market=take(market, unit),
            unit=unit,
            weight=model.weight[unit],
            numbers=take(_own_numbers(model, component.name), unit),
            assets=assets,
            charges=charges,
            one=one,
        )
        charge = KINDS[component.kind].charge(component, model, row)
        charges[component.name] = charge._replace(amount=charge.amount * one)
    return charges


class _Shared(NamedTuple):
    """What unit rows look up."""

    market: UnitMarket  # [U]
    assets: Assets  # [C]
    model: Model


def _unit_rows(
    counts: tuple[tuple[str, int], ...], shared: _Shared, sums: tuple[Array, ...], unit: Array, one: Array
) -> UnitRows:
    """Unit rows of their sums, `[R]`: value, as many tallies of each component as `counts` says, Greeks if wanted."""
    market, assets, model = shared
    value, *rest = sums
    queue = iter(rest)
    own = {name: tuple(next(queue) for _ in range(count)) for name, count in counts}
    charges = _charges(model, own, unit, market, assets, one)
    amounts = {name: charge.amount for name, charge in charges.items()}
    no_worst = jnp.full(unit.shape, -1, jnp.int32)
    binding = next((c for c in reversed(charges.values()) if c.worst is not None), Charge(value[:, 0] * 0, no_worst))
    greeks = next(queue, None)
    return UnitRows(
        unit=unit,
        charges=amounts,
        worst_scenario=no_worst if binding.worst is None else binding.worst,
        worst_loss=binding.amount,
        margin={} if cross_components(model) else requirements(model, amounts, unit, one),
        option_value=value[:, 0],
        option_columns=value[:, 1:],
        greeks=None if greeks is None else MoneyGreeks(*(greeks[:, i] for i in range(4))),
        pnl={name: charges[name].pnl for name in model.aggregation.scenario_inputs},
    )


def _unit_health(
    counts: tuple[tuple[str, int], ...], shared: _Shared, sums: tuple[Array, ...], unit: Array, one: Array
) -> UnitRows:
    """Unit rows without what only explains them."""
    rows = _unit_rows(counts, shared, sums, unit, one)
    charges = rows.charges if reads_charges(shared.model) else {}
    return rows._replace(charges=charges, worst_scenario=None, worst_loss=None)


def leg_stage(
    table: ContractTable,
    market: UnitMarket,
    assets: Assets,
    model: Model,
    legs: Buckets[Legs],
    zero: Array,
    *,
    chunk: int | None,
    rows: RowStage = row_stage,
    is_whole: bool = True,
) -> UnitRows:
    """Every component and margin type of every unit row.

    Args:
      table: from `contract_stage`.
      market: `[U]`.
      assets: `[C]`.
      model: bound to the units of the book.
      legs: buckets of `[R_b, L_b]`.
      zero: `[]` run-time zero, see `leg_sums`.
      chunk: rows handled together; None = all rows of a bucket (GPU). Every R_b must be a multiple.
      rows: what sums over the legs of rows; others than `row_stage` must give its bits.
      is_whole: False = only what health follows from; `UnitRows` says what is left out. Where XLA sums the legs, that
        may change the last bits of the rest (see `barrier`).

    Returns:
      `UnitRows`, `[R]` in the order of `legs.place`.
    """
    greeks = (table.greeks,) if is_whole else ()
    tallies = (table.value, *(tally for own in table.tallies.values() for tally in own), *greeks)
    buckets = tuple(with_payoffs(b, table.contracts, tallies, zero, chunk=chunk) for b in legs.buckets)
    counts = tuple((name, len(own)) for name, own in table.tallies.items())
    finish = partial(_unit_rows if is_whole else _unit_health, counts)
    units = jnp.shape(market.spot)[0]
    plan = RowPlan(tallies, table.contracts, finish, _Shared(market, assets, model), units)
    found: UnitRows = rows(plan, buckets, zero, chunk)
    return in_row_order([found], legs.place)


Found = dict[str, Any]  # by step


def _collateral(assets: Assets, model: Model, found: Found, balances: Balances, zero: Array) -> CollateralValue:
    units: AccountUnits = found["units"]
    settled = units.sums.counted if model.account.settles else {}
    side = AccountSide({"spot_confidence": units.spot_confidence}, settled)
    return collateral_value(assets, model.account, side, balances, zero)


def _accounts(model: Model, found: Found, settings: dict[str, Leaf], zero: Array, *, is_whole: bool) -> AccountRows:
    read = found["units"]._replace(spot_confidence=None)  # what the barrier holds is computed, used or not
    units, collateral = barrier((read, found["collateral"]))
    return account_stage(model.account, units, collateral, settings, zero + 1, is_whole=is_whole)


def part_margin(
    table: ContractTable,
    market: UnitMarket,
    assets: Assets,
    model: Model,
    book: Book,
    zero: Array,
    *,
    chunk: int | None,
    rows: RowStage = row_stage,
    steps: RowSteps = row_steps,
    is_whole: bool = True,
) -> PartResult:
    """Margin and health of every account of one part of the book.

    Args:
      table: from `contract_stage`.
      market: `[U]`.
      assets: `[C]`.
      model: bound to the units and assets of the book.
      book: whole accounts in padded buckets.
      zero: `[]` run-time zero, see `leg_sums`.
      chunk: see `leg_stage`, like `rows` and `is_whole`.
      rows: what sums over the legs of rows.
      steps: what goes through the rows of accounts.
      is_whole: whether what explains the numbers is wanted too.

    Returns:
      `PartResult`; padded rows hold zeros and status healthy, to be cut off by their count.
    """
    units = leg_stage(table, market, assets, model, book.legs, zero, chunk=chunk, rows=rows, is_whole=is_whole)
    return margin_of_rows(table, market, assets, model, book, units, zero, steps=steps, is_whole=is_whole)


def margin_of_rows(
    table: ContractTable,
    market: UnitMarket,
    assets: Assets,
    model: Model,
    book: Book,
    units: UnitRows,
    zero: Array,
    *,
    steps: RowSteps = row_steps,
    is_whole: bool = True,
) -> PartResult:
    """What follows the leg stage: cash, units to accounts, collateral, health.

    Args:
      table: from `contract_stage`.
      market: `[U]`.
      assets: `[C]`.
      model: bound to the units and assets of the book.
      book: whole accounts in padded buckets; its legs are not read.
      units: from `leg_stage`.
      zero: `[]` run-time zero, see `leg_sums`.
      steps: what goes through the rows; others than `row_steps` must give its bits.
      is_whole: as in `part_margin`.

    Returns:
      `PartResult`.
    """
    settlement = assets.settlement
    # By bucket and not as a step: their rows are fewer than those of units and lie in the order they are read.
    cash = [cash_sums(table.contracts, legs, settlement, zero) for legs in book.cash_legs.buckets]
    units, pnl = barrier((units, in_row_order(cash, book.cash_legs.place)))
    if cross_components(model):
        units = barrier(across_units(units, model, market, book.unit_slots, zero))
    counted = with_counted(model, units, pnl, settlement, zero + 1)
    of_accounts = (
        RowStep("units", account_units, (model, counted, market), book.unit_slots),
        RowStep(
            "collateral", _collateral, (assets, model), book.balances, tuple(b.account for b in book.balances.buckets)
        ),
        RowStep("accounts", partial(_accounts, is_whole=is_whole), (model,), Buckets((book.settings,), None)),
    )
    return PartResult(units._replace(pnl={}), pnl.total, steps(of_accounts, zero))
