"""The vocabulary of margin models: each kind of component is two functions.

`tallies` says, once per contract, what to add up over legs; `charge` turns a unit row's sums into a requirement. A new
kind is one more entry of `KINDS`; a new venue needs none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._safe import safe_divide
from gpumargin_kernels.expression import evaluate
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.model import Component, Model
from gpumargin_kernels.records import Assets, Contracts, Tally, UnitMarket
from gpumargin_kernels.scenario import ContractRisk


class ContractSide(NamedTuple):
    """What `tallies` may look at."""

    contracts: Contracts  # [M]
    risk: ContractRisk  # [M]
    market: UnitMarket  # [M], of each contract's unit
    numbers: dict[str, Leaf]  # [M], the component's numbers for each contract's unit


class RowSide(NamedTuple):
    """What `charge` may look at."""

    sums: tuple[Array, ...]  # [R, J] per tally of the component
    unit: Array  # [R]
    market: UnitMarket  # [R]
    weight: Leaf  # [R, S]
    numbers: dict[str, Leaf]  # [R]
    assets: Assets  # [C]
    charges: dict[str, "Charge"]  # of the components before this one


class Charge(NamedTuple):
    """What a component requires of each unit row."""

    amount: Leaf  # [R], a requirement or loss, positive
    worst: Leaf | None = None  # [R] int32 scenario column, or number of scenarios + index of a component
    pnl: Leaf | None = None  # [R, S] P&L that counted in each scenario of its set


class Kind(NamedTuple):
    """The two halves of a component."""

    tallies: Callable[[Component, Model, ContractSide], tuple[Tally, ...]]
    charge: Callable[[Component, Model, RowSide], Charge]


def _underlying_size(contracts: Contracts) -> Array:
    """Units of the underlying in one contract, `[M]`; the size of an inverse future is an amount of quote currency."""
    is_amount = contracts.is_inverse & ~contracts.is_option
    return jnp.where(is_amount, safe_divide(contracts.size, contracts.mark, 0), contracts.size)


def _unit_tally(*columns: Array, is_absolute: bool = False) -> Tally:
    block = jnp.stack(columns, axis=1)
    return Tally(columns=block, terms=block[:, :0], is_absolute=is_absolute)


def _discounted_pnl(sums: Array, terms: Array, one: Array) -> Array:
    """P&L of an expiry whose net shocked value is discounted by its sign: pnl + (d - 1) * value."""
    pnl, value = sums[:, :-1], sums[:, -1:]
    shocked = pnl + value
    return pnl + jnp.where(shocked > 0, terms[:, :1], terms[:, 1:]) * shocked * one


@dataclass(frozen=True)
class _TurnedExpiry:
    """Closes an expiry whose smile turns in some columns: either turn may come, so each expiry loses by its own."""

    skew: tuple[int, ...]  # columns within the set
    has_discount: bool

    def __call__(self, sums: Array, terms: Array, one: Array) -> Array:
        pnl = _discounted_pnl(sums, terms, one) if self.has_discount else sums
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
        return (Tally(columns=pnl, terms=pnl[:, :0]),)
    close = _TurnedExpiry(skew, has_discount) if skew else _discounted_pnl
    if not has_discount:
        return (Tally(columns=pnl, terms=pnl[:, :0], level="expiry", close=close),)
    with_value = jnp.concatenate([pnl, side.risk.value[:, None]], axis=1)
    return (Tally(columns=with_value, terms=_discount_terms(model, side), level="expiry", close=close),)


def _processed(component: Component, model: Model, row: RowSide, pnl: Array) -> Array:
    """P&L of each row and scenario, `[R, S]`, as the component's `post` expression turns it."""
    post = component.choice("post")
    if post is None:
        return pnl
    columns = model.columns(component.choice("scenarios"))
    numbers = {name: value[:, None] for name, value in row.numbers.items() if name != "accounting"}
    values = numbers | {"pnl": pnl, "move": model.spot[row.unit][:, columns] - 1, "spot": row.market.spot[:, None]}
    if "accounting" in row.numbers:
        values["dollar"] = 1 / row.assets.price[row.numbers["accounting"]][:, None]
    return jnp.broadcast_to(evaluate(post, values), pnl.shape)  # type: ignore[arg-type]


def _scenario_loss(component: Component, model: Model, row: RowSide) -> Charge:
    """Largest loss over a scenario set; negative if every scenario gains. The first of equals is the worst."""
    columns = model.columns(component.choice("scenarios"))
    pnl = _processed(component, model, row, row.sums[0] * row.weight[:, columns])
    worst = jnp.argmin(pnl, axis=1).astype(jnp.int32)
    return Charge(-jnp.min(pnl, axis=1), worst + columns.start, pnl)


def _scenario_mean(component: Component, model: Model, row: RowSide) -> Charge:
    """Mean loss of an earlier component over some of its scenarios: chosen ones, or the worst and its counterpart."""
    of = str(component.choice("of"))
    pnl = row.charges[of].pnl
    assert pnl is not None  # noqa: S101  the file's schema requires a component with scenarios
    members = jnp.array(component.choice("members"), jnp.int32)
    if component.choice("which") == "unmoved":
        total = sum(pnl[:, int(column)] for column in component.choice("members"))  # type: ignore[attr-defined]
        return Charge(-total / members.shape[0])
    del model
    worst = jnp.argmin(pnl, axis=1)
    pair = members[worst]
    rows = jnp.arange(pnl.shape[0])
    return Charge(-(pnl[rows, worst] + pnl[rows, pair]) / 2)


def _worst_of_expiry(sums: Array, terms: Array, one: Array) -> Array:
    del one
    return jnp.minimum(jnp.min(sums, axis=1, keepdims=True), 0) * terms


def _expiry_tallies(component: Component, model: Model, side: ContractSide) -> tuple[Tally, ...]:
    is_option = side.contracts.is_option[:, None]
    pnl = side.risk.scenario_pnl[:, model.columns(component.choice("scenarios"))]
    factor = side.numbers["addend"] + side.numbers["multiplier"] * side.contracts.years
    return (Tally(columns=jnp.where(is_option, pnl, 0), terms=factor[:, None], level="expiry", close=_worst_of_expiry),)


def _expiry_loss(component: Component, model: Model, row: RowSide) -> Charge:
    """Sum over expiries of each one's own worst option loss in a small scenario set, scaled by tenor."""
    del component, model
    return Charge(-row.sums[0][:, 0])


def _leg_mask(component: Component, contracts: Contracts) -> Array:
    masks: dict[str, Array] = {
        "perpetual": contracts.is_perpetual,
        "base": contracts.is_base,
        "option": contracts.is_option,
    }
    return masks[str(component.choice("legs"))]


def _size_tallies(component: Component, model: Model, side: ContractSide) -> tuple[Tally, ...]:
    del model
    size = jnp.where(_leg_mask(component, side.contracts), _underlying_size(side.contracts), 0)
    return (_unit_tally(size, is_absolute=True),)


def _size_charge(component: Component, model: Model, row: RowSide) -> Charge:
    """Rate * spot * size of the legs of one sort, longs and shorts alike."""
    del component, model
    return Charge(row.sums[0][:, 0] * row.market.spot * row.numbers["rate"])


def _net_short(sums: Array, terms: Array, one: Array) -> Array:
    del terms, one
    return jnp.maximum(-sums, 0)


def _net_short_tallies(component: Component, model: Model, side: ContractSide) -> tuple[Tally, ...]:
    del component, model
    size = jnp.where(side.contracts.is_option, side.contracts.size, 0)[:, None]
    return (Tally(columns=size, terms=size[:, :0], level="strike", close=_net_short),)


def _confidence_gap(confidence: Array, threshold: Array) -> Array:
    return jnp.where(confidence < threshold, 1 - confidence, 0)


def _confidence_tallies(component: Component, model: Model, side: ContractSide) -> tuple[Tally, ...]:
    del component, model
    contracts, market = side.contracts, side.market
    without = jnp.minimum(contracts.confidence, market.spot_confidence)
    together = jnp.minimum(without, market.perpetual_confidence)
    threshold = side.numbers["threshold"]
    size = _underlying_size(contracts)
    held = jnp.where(contracts.is_perpetual, size, 0)
    return (
        _unit_tally(
            size * _confidence_gap(without, threshold),
            size * _confidence_gap(together, threshold),
            held,
            is_absolute=True,
        ),
    )


def _confidence_charge(component: Component, model: Model, row: RowSide) -> Charge:
    """Rate * spot * (1 - confidence) * size where a feed's confidence is below its threshold.

    The perpetual's feed counts only in rows that hold the perpetual.
    """
    del component, model
    without, together, perpetuals = (row.sums[0][:, i] for i in range(3))
    size = jnp.where(perpetuals > 0, together, without)
    return Charge(size * row.market.spot * row.numbers["rate"])


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
    "size_charge": Kind(_size_tallies, _size_charge),
    "net_short_charge": Kind(_net_short_tallies, _size_charge),
    "confidence_charge": Kind(_confidence_tallies, _confidence_charge),
    "price_shortfall": Kind(_no_tallies, _shortfall_charge),
    "largest": Kind(_no_tallies, _largest),
}
