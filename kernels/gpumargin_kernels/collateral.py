"""Balances of accounts: what they are worth, what of that supports margin, and what is charged on them.

Expressions of one balance may name `amount`, `value` (at the collateral price), `is_collateral` (1 or 0), the columns
of `Assets`, inputs of the balance, values of the account (`AccountSide`), and the numbers and bracket tables of their
margin type or charge.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import repeat, take
from gpumargin_kernels.expression import Expression, evaluate
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.model import AccountModel, BalanceCharge, BalanceRule
from gpumargin_kernels.records import Assets, Balances


class CollateralValue(NamedTuple):
    """Sums over the balances of each account, accounting unit."""

    full: Leaf  # [A] at full market value, borrowed balances negative
    weighted: dict[str, Leaf]  # [A] by margin type, what counts; without debt where that is required
    debt: dict[str, Leaf]  # [A] by margin type, what counts of liabilities, positive; empty unless debt is required
    parts: dict[str, dict[str, Leaf]]  # by charge, [A] sums by name


class AccountSide(NamedTuple):
    """What an expression of one balance may name of its account, `[A]` as the balances stand."""

    values: dict[str, Leaf]
    settled: dict[str, Leaf]  # [A, J] by margin type, accounting unit; empty unless units settle into balances


def _share(expression: Expression) -> Expression | None:
    """The x of an expression `value * x`."""
    if isinstance(expression, tuple) and expression[:2] == ("*", "value"):
        return expression[2]
    return None


def _counted(rule: BalanceRule, values: dict[str, Array], counts: Array, one: Array) -> Array:
    """What counts of a balance, negative for a liability.

    Rules of the form value * share choose the share first, so that a haircut is one product whatever the sign.
    """
    is_debt = values["amount"] < 0
    asset_share, liability_share = _share(rule.asset), _share(rule.liability)
    if asset_share is None or liability_share is None:
        asset = jnp.where(counts, evaluate(rule.asset, values, one), 0)
        return jnp.where(is_debt, evaluate(rule.liability, values, one), asset)
    share = jnp.where(counts, evaluate(asset_share, values, one), 0)
    return values["value"] * jnp.where(is_debt, evaluate(liability_share, values, one), share) * one


class _Slot(NamedTuple):
    """One balance of every account of a bucket, `[A]` each."""

    asset: Array
    amount: Array
    is_collateral: Array
    row: Array  # of the numbers by asset, category included
    settlement: Array | None
    shared: dict[str, Array]  # values by name that do not depend on the amount

    @staticmethod
    def of(balances: Balances, assets: Assets, own: AccountSide, slot: Array, one: Array) -> "_Slot":
        asset, counts = balances.asset[:, slot], balances.is_collateral[:, slot]
        return _Slot(
            asset,
            balances.amount[:, slot],
            counts,
            asset if balances.category is None else balances.category * assets.ratio.shape[0] + asset,
            None if balances.settlement is None else balances.settlement[:, slot],
            take(assets.columns, asset)
            | own.values
            | {"is_collateral": jnp.where(counts, one, 0)}
            | {name: values[:, slot] for name, values in (balances.inputs or {}).items()},
        )

    def values(self, assets: Assets, amount: Array, one: Array) -> dict[str, Array]:
        return self.shared | {"amount": amount, "value": amount * assets.ratio[self.asset] * one}

    def settled(self, assets: Assets, money: Array) -> Array:
        """Amount with what the account's units settle into it; `money` is `[A, J]`."""
        if self.settlement is None or assets.settlement is None:
            return self.amount
        column = jnp.maximum(self.settlement, 0)
        joining = jnp.take_along_axis(money, column[:, None], axis=1)[:, 0] / assets.settlement.ratio[column]
        return self.amount + jnp.where(self.settlement < 0, 0, joining)


def collateral_value(
    assets: Assets, model: AccountModel, side: AccountSide, balances: Balances, zero: Array
) -> CollateralValue:
    """Balances of each account at full value, after the model's rules, and summed for its charges on balances.

    A positive balance counts as its rule says, and nothing if it is not collateral; a borrowed one counts as its own
    rule says, always.

    Args:
      assets: `[C]` prices.
      model: rules and numbers by asset.
      side: what accounts bring to their balances.
      balances: `[A, L]`.
      zero: `[]` run-time zero that starts the sums (see `leg_sums`).

    Returns:
      `CollateralValue`. Charges sum over balances other than 0.

    Source: the common form of Aave v3, Compound v3, Mango v4 and Drift v2 weights and of the tiers of OKX, Bybit and
    Binance; haircut = 1 - weight.
    """
    nothing = jnp.broadcast_to(zero, balances.amount.shape[:1])
    one = zero + 1
    own = side._replace(values=side.values | _sums_before(balances, assets, model, side, zero))

    def add_slot(index: Array, sums: CollateralValue) -> CollateralValue:
        slot = _Slot.of(balances, assets, own, index, one)
        plain = slot.values(assets, slot.amount, one)
        parts = {c.name: _parts(c, plain | take(model.charge_numbers[c.name], slot.asset), one) for c in model.charges}
        counted: dict[str, Array] = {}
        owed: dict[str, Array] = {}
        for name, rule in model.rules:
            values = slot.values(assets, slot.settled(assets, own.settled[name]), one) if model.settles else plain
            values = values | take(model.numbers[name], slot.row) | _settled_money(own, name, nothing)
            counted[name] = _counted(rule, values, slot.is_collateral, one)
            if rule.owed is not None:
                owed[name] = jnp.where(_is_empty(values), 0, evaluate(rule.owed, values, one))
        return _added(sums, plain["value"], counted, owed, parts)

    types = [name for name, _ in model.rules]
    start = CollateralValue(
        nothing,
        dict.fromkeys(types, nothing),
        dict.fromkeys(types if model.is_debt_required else (), nothing),
        {charge.name: {name: nothing for name, _ in charge.each} for charge in model.charges},
    )
    return repeat(balances.amount.shape[1], add_slot, start)


def _settled_money(own: AccountSide, margin_type: str, nothing: Array) -> dict[str, Array]:
    """All P&L of an account that joins balances, accounting unit."""
    columns = own.settled.get(margin_type)
    if columns is None:
        return {"settled": nothing}
    return {"settled": sum((columns[:, j] for j in range(columns.shape[1])), nothing)}


def _sums_before(
    balances: Balances, assets: Assets, model: AccountModel, own: AccountSide, zero: Array
) -> dict[str, Array]:
    """Sums over the balances of each account that rules name, `[A]` by charge."""
    charges = [charge for charge in model.charges if charge.name in model.summed]
    if not charges:
        return {}
    one = zero + 1

    def add_slot(index: Array, sums: dict[str, Array]) -> dict[str, Array]:
        slot = _Slot.of(balances, assets, own, index, one)
        plain = slot.values(assets, slot.amount, one)
        more = {c.name: _parts(c, plain | take(model.charge_numbers[c.name], slot.asset), one) for c in charges}
        return {name: sums[name] + next(iter(parts.values())) for name, parts in more.items()}

    nothing = jnp.broadcast_to(zero, balances.amount.shape[:1])
    return repeat(balances.amount.shape[1], add_slot, {charge.name: nothing for charge in charges})


def _parts(charge: BalanceCharge, values: dict[str, Array], one: Array) -> dict[str, Array]:
    """What one balance adds to the sums of a charge: nothing where it is 0, so that padding never counts."""
    is_empty = _is_empty(values)
    return {name: jnp.where(is_empty, 0, evaluate(expression, values, one)) for name, expression in charge.each}


def _is_empty(values: dict[str, Array]) -> Array:
    """True for a balance of 0 without open orders, and for padding."""
    is_empty: Array = values["amount"] == 0
    return is_empty & (values["orders"] == 0) if "orders" in values else is_empty


def _added(
    sums: CollateralValue,
    value: Array,
    counted: dict[str, Array],
    owed: dict[str, Array],
    parts: dict[str, dict[str, Array]],
) -> CollateralValue:
    if sums.debt:
        weighted = {name: sums.weighted[name] + jnp.maximum(more, 0) for name, more in counted.items()}
    else:
        weighted = {name: sums.weighted[name] + more for name, more in counted.items()}
    return CollateralValue(
        full=sums.full + value,
        weighted=weighted,
        debt={name: total - jnp.minimum(counted[name], 0) + owed.get(name, 0) for name, total in sums.debt.items()},
        parts={c: {name: total + parts[c][name] for name, total in held.items()} for c, held in sums.parts.items()},
    )
