"""What each component requires of one risk unit of many accounts: `explain.components` with an axis of accounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from gpumargin.explain.charges import CONTRACT_VALUES
from gpumargin.expressions import names_in, parse_expression
from gpumargin.modelfile import (
    DEFAULT,
    ChargeTable,
    Discount,
    DiscountRate,
    ExpiryLoss,
    Largest,
    PriceShortfall,
    ScenarioLoss,
    ScenarioMean,
)
from gpumargin.modelfile.scenarios import SKEWS
from gpumargin.verification.contracts import UnitContracts
from gpumargin.verification.figures import Array, Figures, evaluate, given
from gpumargin.verification.unit_rows import Charges, Groups, UnitRows


def _shares(discount: Discount, contracts: UnitContracts) -> tuple[Array, Array]:
    """Shares of a positive and of a negative shocked value of each contract's expiry that count, `[M]`."""
    side, years = contracts.side, contracts.column("years")
    rate = np.maximum(contracts.column("rate"), 0.0)

    def share(numbers: DiscountRate, sign: int) -> Array:
        yearly = rate * side.number(numbers.rate_multiplier) + side.number(numbers.rate_addend)
        return np.asarray(side.number(numbers.static) * np.exp(sign * years * yearly))

    most = np.exp(rate * years) if side.market.discounts else np.ones(len(years))
    negative = np.ones(len(years)) if discount.negative is None else np.minimum(most, share(discount.negative, 1))
    return share(discount, -1), negative


def _expiry_shares(discount: Discount | None, rows: UnitRows, groups: Groups) -> tuple[Array, Array]:
    """The same by group, of its last option; 1 without options, `[G]`."""
    one = np.ones(len(groups.row))
    if discount is None or not len(groups.row):
        return one, one
    is_option = rows.contracts.is_option[rows.contract[groups.legs]]
    place = np.where(is_option, np.arange(len(groups.legs)), -1)
    last = np.maximum.reduceat(place, groups.start)
    contract = rows.contract[groups.legs[np.maximum(last, 0)]]
    positive, negative = (np.where(last >= 0, shares[contract], 1.0) for shares in _shares(discount, rows.contracts))
    return positive, negative


def _processed(component: ScenarioLoss, rows: UnitRows, pnl: Array, columns: Array) -> Array:
    """Weighted P&L of each scenario as the component's expression turns it, `[R, S]`."""
    post = component.post_expression()
    if post is None:
        return pnl
    side = rows.contracts.side
    known = rows.numbers(component.numbers) | {"pnl": given(pnl)}
    known["move"] = given(side.scenarios["spot_move"].to_numpy()[columns][None, :])
    known |= {"spot": given(side.spot), "dollar": given(1 / side.market.dollar)}
    if "range" in names_in(post):
        known["range"] = given(side.number(side.market.ranges))
    return np.broadcast_to(evaluate(post, known).amount, pnl.shape)


def scenario_loss(component: ScenarioLoss, rows: UnitRows) -> Charges:
    """Largest loss over a scenario set, expiries discounted where the model says so."""
    side = rows.contracts.side
    columns = side.columns_of(component.scenarios)
    scenarios = side.scenarios[columns]
    weight = scenarios["weight"].to_numpy()
    groups, value = rows.groups("expiry"), rows.words["value"]
    risk = side.pnl[:, columns]
    legs = groups.legs
    pnl = groups.sum(rows.quantity[legs, None] * risk[rows.contract[legs]])
    shares = _expiry_shares(component.discount, rows, groups)
    shocked = pnl + groups.sum(value[legs])[:, None]
    share = np.where(shocked > 0, shares[0][:, None], shares[1][:, None])
    counted = pnl + (share - 1) * shocked
    turns = scenarios["vol_rule"].cast(pl.String).is_in(SKEWS).to_numpy()
    counted = np.where(turns, -np.abs(counted), counted)
    losses = -_processed(component, rows, weight * rows.by_row(groups, counted), columns)
    most = np.max(np.abs(weight * risk), axis=1, initial=0.0)
    size = np.abs(rows.quantity) * most[rows.contract] + np.abs(value) * np.max(np.abs(weight), initial=0.0)
    gross = rows.by_row(rows.by_unit, rows.by_unit.sum(size[rows.by_unit.legs]))
    worst = np.argmax(losses, axis=1)
    return Charges(Figures(_picked(losses, worst), gross), [str(i) for i in scenarios["id"]], losses, worst)


def _picked(table: Array, column: Array) -> Array:
    return np.take_along_axis(table, column[:, None], axis=1)[:, 0]


def expiry_loss(component: ExpiryLoss, rows: UnitRows) -> Charges:
    """Each expiry's own worst side of a small scenario set, times a factor that grows with its tenor."""
    side = rows.contracts.side
    groups = rows.groups("expiry", rows.contracts.is_option)
    risk = side.pnl[:, side.columns_of(component.scenarios)][rows.contract[groups.legs]]
    pnl = rows.quantity[groups.legs, None] * risk
    years = rows.contracts.column("years")[rows.contract[groups.legs[groups.start]]]
    factor = side.number(component.addend) + side.number(component.multiplier) * years
    least = groups.sum(pnl).min(axis=1, initial=np.inf)
    charge = np.where(least < 0, -least, least * 0.0) * factor
    gross = groups.sum(np.abs(pnl)).max(axis=1, initial=0.0) * factor
    return Charges(rows.figures_by_row(groups, Figures(charge, gross)))


def price_shortfall(component: PriceShortfall, rows: UnitRows) -> Charges:
    """Factor * max(0, threshold - price) of an asset: a pure number."""
    side = rows.contracts.side
    price, threshold = side.market.price.get(component.asset, np.nan), side.number(component.threshold)
    factor, same = side.number(component.factor), np.ones(len(rows))
    return Charges(
        Figures(factor * np.maximum(threshold - price, 0.0) * same, factor * (abs(threshold) + abs(price)) * same)
    )


def scenario_mean(component: ScenarioMean, rows: UnitRows) -> Charges:
    """Mean loss of an earlier component over its unmoved scenarios, or over the worst and its counterpart."""
    source, scenarios = rows.charges[component.of], rows.contracts.side.scenarios
    moves = dict(zip(scenarios["id"].cast(pl.String), scenarios["spot_move"], strict=True))
    if component.which == "unmoved":
        amount = source.losses[:, [moves[name] == 0 for name in source.ids]].mean(axis=1)
    else:
        pair = np.array([source.ids.index(_pair(name, source.ids)) for name in source.ids])
        amount = (_picked(source.losses, source.worst) + _picked(source.losses, pair[source.worst])) / 2
    return Charges(Figures(amount, source.figures.gross))


def _pair(name: str, names: list[str]) -> str:
    """The scenario that differs by the direction of vol; itself if there is none."""
    turned = name.replace("/up", "/down") if "/up" in name else name.replace("/down", "/up")
    return turned if turned in names else name


def largest(component: Largest, rows: UnitRows) -> Charges:
    """The largest of earlier components; the first of equals binds."""
    charges = {name: rows.charges[name] for name in component.of}
    amounts = np.stack([charge.figures.amount for charge in charges.values()], axis=1)
    gross = np.max([charge.figures.gross for charge in charges.values()], axis=0)
    ids = [i for name, charge in charges.items() for i in (charge.ids or [name])]
    losses = [charge.losses if charge.ids else charge.figures.amount[:, None] for charge in charges.values()]
    first = np.cumsum([0, *(block.shape[1] for block in losses)])
    worst = np.stack([charge.worst if charge.ids else np.zeros(len(rows), int) for charge in charges.values()], axis=1)
    binding = np.argmax(amounts, axis=1)
    place = first[binding] + _picked(worst, binding)
    return Charges(Figures(_picked(amounts, binding), gross), ids, np.concatenate(losses, axis=1), place)


def _lowest_payoff(rows: UnitRows, groups: Groups) -> Figures:
    """Least that the options of each group pay together at expiry, found at 0 or at one of their strikes; at most 0."""
    side, options = rows.contracts.side, rows.contracts.is_option[rows.contract[groups.legs]]
    size_of_one = np.where(side.is_digital, np.nan, rows.contracts.column("contract_size"))
    group = np.repeat(np.arange(len(groups.row)), np.diff(np.append(groups.start, len(groups.legs))))[options]
    contract = rows.contract[groups.legs[options]]
    strike, is_call = rows.contracts.values("strike")[contract], side.is_call[contract]
    size = rows.quantity[groups.legs[options]] * size_of_one[contract]
    least = np.zeros(len(groups.row))
    count = np.bincount(group, minlength=len(least))
    first = np.append(0, np.cumsum(count))
    for step in range(int(count.max(initial=0))):
        has = np.flatnonzero(count > step)
        price = np.full(len(least), np.nan)
        price[has] = strike[first[has] + step]
        above = price[group] - strike
        pays = size * np.maximum(np.where(is_call, above, -above), 0.0)
        paid = np.bincount(group, np.where(count[group] > step, pays, 0.0), len(least))
        least[has] = np.minimum(least[has], paid[has])
    at_zero = np.bincount(group, size * np.where(is_call, 0.0, strike), len(least))
    gross = 2 * np.bincount(group, np.abs(size) * strike, len(least))
    return Figures(np.minimum(least, at_zero), gross)


# What the legs of a group say together, in place of a sum over them.
_TOGETHER: Mapping[str, Callable[[UnitRows, Groups], Figures]] = {"lowest_payoff": _lowest_payoff}


def charge(component: ChargeTable, rows: UnitRows) -> Charges:
    """Sums over groups of legs, each group's expressions, and the amount they make."""
    contracts, side, file = rows.contracts, rows.contracts.side, rows.file
    earlier = {name: charges.figures for name, charges in rows.charges.items()}
    parsed = component.parsed(file.shared_names(), earlier)
    of_unit = {name: Figures(*figure) for name, figure in side.unit_values().items()}
    of_unit |= rows.numbers({**file.parameters, **component.numbers})
    tables = {n: t.get(side.unit, t[DEFAULT]) for n, t in {**file.tables, **component.tables}.items()}
    groups = rows.groups(component.level, contracts.chosen(component.legs))
    of_contract = _ContractValues(contracts, of_unit)
    values: dict[str, Figures] = {}
    for name, (word, expression) in parsed.sums.items():
        if word in _TOGETHER:
            values[name] = _TOGETHER[word](rows, groups)
            continue
        column = evaluate(expression, of_contract, tables)
        values[name] = _weighted_sum(rows, groups, word, column)
    last = rows.contract[groups.last]
    terms = {n: given(contracts.values(n)[last]) for n in parsed.terms if n in CONTRACT_VALUES}
    of_group = terms | of_unit | values  # a number of the model hides what a contract calls the same
    for name, expression in parsed.each.items():
        of_group[name] = evaluate(expression, of_group, tables)
    totals = {name: rows.figures_by_row(groups, of_group[name]) for name in parsed.each or parsed.sums}
    figures = evaluate(parsed.amount, earlier | of_unit | totals, tables)
    same = np.ones(len(rows)) if component.level != "unit" else rows.by_row(groups, np.ones(len(groups.row)))
    amount, gross = (np.where(same > 0, part, 0.0) for part in figures)
    return Charges(Figures(amount, gross))


class _ContractValues(dict[str, Figures]):
    """Values by name of each contract, made when they are looked up, and those of the unit."""

    def __init__(self, contracts: UnitContracts, of_unit: Mapping[str, Figures]) -> None:
        super().__init__(of_unit)
        self._contracts = contracts

    def __missing__(self, name: str) -> Figures:
        self[name] = given(self._contracts.values(name))
        return self[name]


def _weighted_sum(rows: UnitRows, groups: Groups, word: str, column: Figures) -> Figures:
    """Sum by group of what a word says of a leg times a column of its contract."""
    weight, contract = rows.of_word(word)[groups.legs], rows.contract[groups.legs]
    parts = (np.broadcast_to(part, (rows.contracts.side.legs.height,))[contract] for part in column)
    amount, gross = parts
    return Figures(groups.sum(weight * amount), groups.sum(np.abs(weight) * gross))


KINDS: Mapping[str, Callable[[Any, UnitRows], Charges]] = {
    "scenario_loss": scenario_loss,
    "scenario_mean": scenario_mean,
    "expiry_loss": expiry_loss,
    "charge": charge,
    "price_shortfall": price_shortfall,
    "largest": largest,
}


def with_charges(rows: UnitRows) -> UnitRows:
    """The rows with the charges of every component that needs no other unit."""
    for name, component in rows.file.components.items():
        if component.kind in KINDS:
            rows.charges[name] = KINDS[component.kind](component, rows)
    return rows


def unit_margins(rows: UnitRows) -> dict[str, Figures]:
    """Requirement of each margin type of every row; later types may use earlier ones."""
    values = rows.numbers(rows.file.parameters) | {name: charges.figures for name, charges in rows.charges.items()}
    for name, text in rows.file.margin.items():
        figures = evaluate(parse_expression(text, values), values)
        values[name] = Figures(*(np.broadcast_to(part, (len(rows),)) for part in figures))
    return {name: values[name] for name in rows.file.margin}
