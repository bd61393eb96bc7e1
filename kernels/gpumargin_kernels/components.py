"""The vocabulary of margin models: each kind of component is two functions.

`tallies` says, once per contract, what to add up over legs; `charge` turns a unit row's sums into a requirement. A new
kind is one more entry of `KINDS`; a new venue needs none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._least import least_column
from gpumargin_kernels.charge import charge_amount, charge_tallies
from gpumargin_kernels.contract_values import ContractSide
from gpumargin_kernels.expression import evaluate
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.model import Component, Model
from gpumargin_kernels.records import Assets, Tally, UnitMarket


class RowSide(NamedTuple):
    """What `charge` may look at."""

    sums: tuple[Array, ...]  # [R, J] per tally of the component
    unit: Array  # [R]
    market: UnitMarket  # [R]
    weight: Leaf  # [R, S]
    numbers: dict[str, Leaf]  # [R], the component's and the model's; tables [R, T, 2]
    assets: Assets  # [C]
    charges: dict[str, "Charge"]  # of the components before this one
    one: Array | float = 1.0  # [] run-time one, see `evaluate`


class Charge(NamedTuple):
    """What a component requires of each unit row."""

    amount: Leaf  # [R], a requirement or loss, positive
    worst: Leaf | None = None  # [R] int32 scenario column, or number of scenarios + index of a component
    pnl: Leaf | None = None  # [R, S] P&L that counted in each scenario of its set


class Kind(NamedTuple):
    """The two halves of a component."""

    tallies: Callable[[Component, Model, ContractSide], tuple[Tally, ...]]
    charge: Callable[[Component, Model, RowSide], Charge]


def _discounted_pnl(sums: dict[str, Array], terms: Array, one: Array) -> Array:
    """P&L of an expiry whose net shocked value is discounted by its sign: pnl + (d - 1) * value."""
    pnl, value = sums["net"][:, :-1], sums["net"][:, -1:]
    shocked = pnl + value
    return pnl + jnp.where(shocked > 0, terms[:, :1], terms[:, 1:]) * shocked * one


@dataclass(frozen=True)
class _TurnedExpiry:
    """Closes an expiry whose smile turns in some columns: either turn may come, so each expiry loses by its own."""

    skew: tuple[int, ...]  # columns within the set
    has_discount: bool

    def __call__(self, sums: dict[str, Array], terms: Array, one: Array) -> Array:
        pnl = _discounted_pnl(sums, terms, one) if self.has_discount else sums["net"]
        turns = jnp.array([column in self.skew for column in range(pnl.shape[1])])
        return jnp.where(turns[None, :], -jnp.abs(pnl), pnl)


def _discount_terms(model: Model, side: ContractSide) -> Array:
    """What a positive and a negative net value of each contract's expiry counts beyond 1, `[M, 2]`; 0 for no option."""
    contracts, numbers = side.contracts, side.numbers
    rate = jnp.maximum(contracts.rate, 0)
    yearly = rate * numbers["rate_multiplier"] + numbers["rate_addend"]
    positive = numbers["static"] * jnp.exp(-contracts.years * yearly) - 1
    negative = jnp.zeros_like(positive)
    if "negative_static" in numbers:
        grown = rate * numbers["negative_rate_multiplier"] + numbers["negative_rate_addend"]
        # A debt is never marked up beyond its undiscounted price.
        most = jnp.exp(contracts.years * rate) if model.rules.is_discounted else 1
        negative = jnp.minimum(most, numbers["negative_static"] * jnp.exp(contracts.years * grown)) - 1
    return jnp.stack([jnp.where(contracts.is_option, side_, 0) for side_ in (positive, negative)], axis=1)


def _scenario_tallies(component: Component, model: Model, side: ContractSide) -> tuple[Tally, ...]:
    columns = model.columns(component.choice("scenarios"))
    pnl = side.risk.scenario_pnl[:, columns]
    has_discount = bool(component.choice("has_discount"))
    skew = tuple(column - columns.start for column in model.rules.skew if columns.start <= column < columns.stop)
    if not has_discount and not skew:
        return (Tally(columns={"net": pnl}, terms=pnl[:, :0]),)
    close = _TurnedExpiry(skew, has_discount) if skew else _discounted_pnl
    if not has_discount:
        return (Tally(columns={"net": pnl}, terms=pnl[:, :0], level="expiry", close=close),)
    with_value = jnp.concatenate([pnl, side.risk.value[:, None]], axis=1)
    return (Tally(columns={"net": with_value}, terms=_discount_terms(model, side), level="expiry", close=close),)


def _processed(component: Component, model: Model, row: RowSide, pnl: Array) -> Array:
    """P&L of each row and scenario, `[R, S]`, as the component's `post` expression turns it."""
    post = component.choice("post")
    if post is None:
        return pnl
    columns = model.columns(component.choice("scenarios"))
    numbers = {name: value[:, None] for name, value in row.numbers.items() if name != "accounting" and value.ndim == 1}
    values = numbers | {
        "pnl": pnl * row.one,
        "move": model.spot[row.unit][:, columns] - 1,
        "spot": row.market.spot[:, None],
    }
    if "accounting" in row.numbers:
        values["dollar"] = 1 / row.assets.price[row.numbers["accounting"]][:, None]
    return jnp.broadcast_to(evaluate(post, values, row.one), pnl.shape)  # type: ignore[arg-type]


def _scenario_loss(component: Component, model: Model, row: RowSide) -> Charge:
    """Largest loss over a scenario set; negative if every scenario gains. The first of equals is the worst."""
    columns = model.columns(component.choice("scenarios"))
    pnl = _processed(component, model, row, row.sums[0] * row.weight[:, columns])
    least, worst = least_column(pnl)
    # Of 0 and -0 either may come out as the least, by the order in which a compiler folds them: no loss is plain 0.
    return Charge(jnp.where(least == 0, 0, -least), worst + columns.start, pnl)


def _scenario_mean(component: Component, model: Model, row: RowSide) -> Charge:
    """Mean loss of an earlier component over some of its scenarios: chosen ones, or the worst and its counterpart."""
    of = str(component.choice("of"))
    pnl = row.charges[of].pnl
    assert pnl is not None  # noqa: S101  the file's schema requires a component with scenarios
    members = jnp.array(component.choice("members"), jnp.int32)
    if component.choice("which") == "unmoved":
        total = sum(pnl[:, int(column)] for column in component.choice("members"))  # type: ignore[attr-defined]
        return Charge(-total * (1 / members.shape[0]))
    del model
    _, worst = least_column(pnl)
    pair = members[worst]
    rows = jnp.arange(pnl.shape[0])
    return Charge(-(pnl[rows, worst] + pnl[rows, pair]) / 2)


def _worst_of_expiry(sums: dict[str, Array], terms: Array, one: Array) -> Array:
    del one
    return jnp.minimum(jnp.min(sums["net"], axis=1, keepdims=True), 0) * terms


def _expiry_tallies(component: Component, model: Model, side: ContractSide) -> tuple[Tally, ...]:
    is_option = side.contracts.is_option[:, None]
    pnl = side.risk.scenario_pnl[:, model.columns(component.choice("scenarios"))]
    factor = side.numbers["addend"] + side.numbers["multiplier"] * side.contracts.years
    columns = {"net": jnp.where(is_option, pnl, 0)}
    return (Tally(columns=columns, terms=factor[:, None], level="expiry", close=_worst_of_expiry),)


def _expiry_loss(component: Component, model: Model, row: RowSide) -> Charge:
    """Sum over expiries of each one's own worst option loss in a small scenario set, scaled by tenor."""
    del component, model
    return Charge(-row.sums[0][:, 0])


def _charge_tallies(component: Component, model: Model, side: ContractSide) -> tuple[Tally, ...]:
    del model
    return charge_tallies(component, side)


def _charge(component: Component, model: Model, row: RowSide) -> Charge:
    """Sums over groups of legs, and expressions of them."""
    known = {name: jnp.asarray(value) for name, value in row.market._asdict().items()}
    known |= {name: jnp.asarray(values) for name, values in row.numbers.items()}
    known |= {name: jnp.asarray(charge.amount) for name, charge in row.charges.items()}
    del model
    return Charge(charge_amount(component, row.sums[0], known, row.one))


def _shortfall_charge(component: Component, model: Model, row: RowSide) -> Charge:
    """Factor * max(0, threshold - price of an asset): how far it has lost its peg."""
    del component, model
    price = row.assets.price[row.numbers["asset"]]
    return Charge(jnp.maximum(row.numbers["threshold"] - price, 0) * row.numbers["factor"])


def _largest(component: Component, model: Model, row: RowSide) -> Charge:
    """Largest of several components, and the worst scenario of the one that binds; the first of equals binds."""
    first_code = model.columns_total()
    names = [c.name for c in model.components]
    amount: Array | None = None
    worst = jnp.zeros(row.market.spot.shape, jnp.int32)
    for name in component.choice("of"):  # type: ignore[attr-defined]
        charge = row.charges[name]
        own = jnp.full_like(worst, first_code + names.index(name)) if charge.worst is None else charge.worst
        binds = charge.amount > amount if amount is not None else jnp.ones_like(worst, bool)
        amount = charge.amount if amount is None else jnp.maximum(amount, charge.amount)
        worst = jnp.where(binds, own, worst)
    assert amount is not None  # noqa: S101  the file's schema requires at least one name
    return Charge(amount, worst)


def _no_tallies(component: Component, model: Model, side: ContractSide) -> tuple[Tally, ...]:
    del component, model, side
    return ()


KINDS: dict[str, Kind] = {
    "scenario_loss": Kind(_scenario_tallies, _scenario_loss),
    "scenario_mean": Kind(_no_tallies, _scenario_mean),
    "expiry_loss": Kind(_expiry_tallies, _expiry_loss),
    "charge": Kind(_charge_tallies, _charge),
    "price_shortfall": Kind(_no_tallies, _shortfall_charge),
    "largest": Kind(_no_tallies, _largest),
}
