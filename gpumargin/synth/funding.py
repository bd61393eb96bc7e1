"""Money: entry prices, funding due, collateral and cash, sized by a portfolio margin so that few accounts fail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from gpumargin.synth.contracts import BASIS_DOWN, BASIS_UP, SCENARIOS, Bools, Contracts, Floats, Ints
from gpumargin.synth.holdings import ARCHETYPES, BASIS, BORROWER, HOLDER, MAKER, Legs, Rows
from gpumargin.synth.market import Market

STATUSES = ("healthy", "margin_call", "liquidatable", "bankrupt")
_CHANCES = np.array([0.014, 0.0045, 0.0006])  # of the last three, among accounts that can be pushed there
_EQUITY_RANGE = np.array([(0.0, 0.0), (1.02, 1.23), (0.08, 0.97), (-0.5, -0.02)])  # in maintenance margins
_INITIAL = 1.25
_PERP_CHARGE, _COIN_CHARGE, _NAKED_CHARGE = 0.03, 0.03, 0.015
_BASIS_BASE, _BASIS_PER_YEAR = 0.5, 2.0
_COIN_CHANCE = np.array([kind.coin for kind in ARCHETYPES])
_LEVERAGED = np.array([kind.leveraged for kind in ARCHETYPES])
_SPARE_CHANCE = 0.08
_STABLES = ("USDC", "USD", "USDT")


@dataclass(frozen=True)
class Purse:
    """`B` assets a balance can be in: the settlement assets first, then coins, then a stablecoin without margin value.

    Attributes: names; `decimals` `[B]`; `coin` `[U]` column of a unit's coin, -1 for none; `spare` column, -1 for none.
    """

    names: list[str]
    decimals: Ints
    coin: Ints
    spare: int


@dataclass(frozen=True)
class Funding:
    """What one block's accounts own: per leg entry and unsettled, per margin account `[R, B]` amounts and status code.

    `requirement` is the sum of maintenance margins in USD.
    """

    entry: Floats
    unsettled: Floats
    amounts: Floats
    status: Ints
    requirement: float


@dataclass(frozen=True)
class _Risk:
    """`[R, settlements]` maintenance margin and value of all but cash."""

    margin: Floats
    value: Floats


def pack_purse(market: Market, contracts: Contracts) -> Purse:
    """`Purse` of the assets the market prices; minor units from its `assets` table, else 8 decimals, 6 for dollars."""
    coins = [name for name in dict.fromkeys(contracts.unit_coin) if name and name not in contracts.settlements]
    priced = set(market.tables["prices"]["asset"].to_list())
    spare = [name for name in _STABLES if name in priced and name not in contracts.settlements][:1]
    names = [*contracts.settlements, *coins, *spare]
    decimals = dict.fromkeys(_STABLES, 6) | _decimals(market.tables.get("assets"))
    return Purse(
        names=names,
        decimals=np.array([decimals.get(name, 8) for name in names], dtype=np.int64),
        coin=np.array([names.index(coin) if coin else -1 for coin in contracts.unit_coin], dtype=np.int64),
        spare=len(names) - 1 if spare else -1,
    )


def fund(rng: np.random.Generator, contracts: Contracts, purse: Purse, *, rows: Rows, legs: Legs) -> Funding:
    """Entries, funding due and balances of the margin accounts `rows` with the legs `legs`.

    A status is drawn for each account; cash is what brings its equity to a multiple of its maintenance margin that has
    this status. Healthy accounts other than borrowers and makers keep some cash whatever their other assets are worth.
    """
    entry = _entries(rng, contracts, legs)
    unsettled = _unsettled(rng, contracts, purse, legs)
    coins = _coins(rng, contracts, rows, legs)
    risk = _risk(contracts, legs=legs, gain=_gains(contracts, legs, entry) + unsettled, coins=coins)
    at_risk = risk.margin.sum(axis=1) > 0.0
    status = _statuses(rng, np.where(at_risk & _LEVERAGED[rows.archetype], 1.0, 0.0))
    cash = _multiples(rng, rows, status)[:, None] * risk.margin - risk.value
    cash = _with_floor(rng, contracts, rows, cash, uses=risk.margin > 0.0, exact=status > 0)
    amounts = _amounts(rng, purse, rows, cash=cash, coins=coins, healthy=status == 0)
    margin = risk.margin @ contracts.settlement_price
    return Funding(entry, unsettled, amounts, status, float(margin.sum()))


def _decimals(assets: pl.DataFrame | None) -> dict[str, int]:
    if assets is None or "decimals" not in assets.columns:
        return {}
    rows = assets.select("asset", pl.col("decimals").cast(pl.Int64)).drop_nulls()
    return dict(rows.iter_rows())


def _entries(rng: np.random.Generator, contracts: Contracts, legs: Legs) -> Floats:
    """Prices paid: futures within some per cent of the mark, premiums further off, never 0."""
    is_option = contracts.is_option[legs.contract]
    noise = np.exp(np.where(is_option, 0.25, 0.05) * rng.standard_normal(legs.lots.size))
    return np.maximum(np.round(contracts.mark[legs.contract] * noise, 6), 1e-6)


def _unsettled(rng: np.random.Generator, contracts: Contracts, purse: Purse, legs: Legs) -> Floats:
    """Funding due on futures, of the order of 0.01 % of notional, in minor units of the settlement asset."""
    due = 8e-5 * rng.standard_normal(legs.lots.size) * _money(contracts, legs)
    unit = 10.0 ** purse.decimals[contracts.unit_settlement[contracts.unit[legs.contract]]]
    return np.where(contracts.is_option[legs.contract], 0.0, np.rint(due * unit) / unit)


def _gains(contracts: Contracts, legs: Legs, entry: Floats) -> Floats:
    """Unrealised P&L of futures; premiums are paid, so options have none."""
    mark = contracts.mark[legs.contract]
    per_unit = np.where(contracts.inverse[legs.contract], 1.0 / entry - 1.0 / mark, mark - entry)
    gain = _quantity(contracts, legs) * contracts.size[legs.contract] * per_unit
    return np.where(contracts.is_option[legs.contract], 0.0, gain)


def _quantity(contracts: Contracts, legs: Legs) -> Floats:
    return legs.lots / contracts.lots_per_unit[legs.contract]


def _money(contracts: Contracts, legs: Legs) -> Floats:
    """Signed notional in the settlement asset."""
    price = contracts.settlement_price[contracts.unit_settlement]
    return legs.lots * contracts.notional[legs.contract] / price[contracts.unit[legs.contract]]


def _coins(rng: np.random.Generator, contracts: Contracts, rows: Rows, legs: Legs) -> Floats:
    """`[R, U]` coins posted: what a basis trader is short, some of the home coin for others."""
    shape = rows.account.size, len(contracts.unit_coin)
    short = np.bincount(
        legs.row * shape[1] + contracts.unit[legs.contract], -_money(contracts, legs), minlength=shape[0] * shape[1]
    ).reshape(shape)
    worth = rows.scale * np.exp(0.8 + rng.standard_normal(shape[0])) * np.where(rows.archetype == MAKER, 30.0, 1.0)
    posts = rng.random(shape[0]) < _COIN_CHANCE[rows.archetype]
    home = np.zeros(shape)
    home[np.arange(shape[0]), rows.home] = np.where(posts & ~rows.isolated, worth, 0.0)
    value = np.where((rows.archetype == BASIS)[:, None], np.maximum(short, 0.0), home)
    value[:, [not coin for coin in contracts.unit_coin]] = 0.0
    return value / contracts.unit_spot


def _risk(contracts: Contracts, *, legs: Legs, gain: Floats, coins: Floats) -> _Risk:
    """Maintenance margin as in Derive's PMRM: worst scenario or basis loss per unit, plus static charges."""
    shape = coins.shape
    pnl, basis, value = _scenario_results(contracts, legs, shape)
    money = _money(contracts, legs)
    of_unit = legs.row * shape[1] + contracts.unit[legs.contract]
    size = shape[0] * shape[1]
    worth = coins * contracts.unit_spot
    moves = np.array([move for move, _ in SCENARIOS])
    pnl += worth.reshape(-1, 1) * (moves - 1.0)
    loss = np.maximum(-np.minimum(pnl.min(axis=1), basis), 0.0)
    futures = np.where(contracts.is_option[legs.contract], 0.0, _PERP_CHARGE * np.abs(money))
    charge = np.bincount(of_unit, futures, minlength=size) + _naked(contracts, legs, money, shape)
    margin = (loss + charge).reshape(shape) + _COIN_CHARGE * worth
    value += np.bincount(of_unit, gain, minlength=size)
    join = np.eye(len(contracts.settlements))[contracts.unit_settlement]
    return _Risk(margin @ join, (value.reshape(shape) + worth) @ join)


def _scenario_results(contracts: Contracts, legs: Legs, shape: tuple[int, ...]) -> tuple[Floats, Floats, Floats]:
    """`[R * U, S]` P&L, `[R * U]` basis loss (<= 0) and option value; expiries net first, then add up to units."""
    size = shape[0] * shape[1]
    pnl, basis, value = np.zeros((size, len(SCENARIOS))), np.zeros(size), np.zeros(size)
    if not legs.lots.size:
        return pnl, basis, value
    key = legs.row * contracts.expiry_unit.size + contracts.expiry[legs.contract]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    table = contracts.value[legs.contract] * _quantity(contracts, legs)[:, None]
    net = np.add.reduceat(table, starts, axis=0)
    expiry = contracts.expiry[legs.contract[starts]]
    today = net[:, 0].copy()
    moved = np.minimum(np.minimum(net[:, BASIS_UP], net[:, BASIS_DOWN]) - today, 0.0)
    moved *= _BASIS_BASE + _BASIS_PER_YEAR * contracts.expiry_years[expiry]
    net *= np.where(net > 0.0, contracts.expiry_discount[expiry][:, None], 1.0)
    net -= today[:, None]
    of_unit = legs.row[starts] * shape[1] + contracts.expiry_unit[expiry]
    first = np.flatnonzero(np.diff(of_unit, prepend=-1))
    pnl[of_unit[first]] = np.add.reduceat(net, first, axis=0)
    basis[of_unit[first]] = np.add.reduceat(moved, first)
    value[of_unit[first]] = np.add.reduceat(today, first)
    return pnl, basis, value


def _naked(contracts: Contracts, legs: Legs, money: Floats, shape: tuple[int, ...]) -> Floats:
    """`[R * U]` charge on options short of their strike, calls and puts of one strike together."""
    is_option = contracts.is_option[legs.contract]
    row, contract, money = legs.row[is_option], legs.contract[is_option], money[is_option]
    key = row * len(contracts.ids) + contracts.strike_level[contract]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    if not starts.size:
        return np.zeros(shape[0] * shape[1])
    short = np.maximum(-np.add.reduceat(money, starts), 0.0)
    of_unit = row[starts] * shape[1] + contracts.unit[contract[starts]]
    return np.bincount(of_unit, _NAKED_CHARGE * short, minlength=shape[0] * shape[1])


def _statuses(rng: np.random.Generator, eligible: Floats) -> Ints:
    """`[R]` status codes: each unhealthy one with its chance where eligible."""
    edges = 1.0 - np.cumsum(_CHANCES[::-1])[::-1]
    drawn = np.searchsorted(edges, rng.random(eligible.size), side="right")
    return np.where(eligible > 0.0, drawn, 0)


def _multiples(rng: np.random.Generator, rows: Rows, status: Ints) -> Floats:
    """`[R]` equity wanted, in maintenance margins."""
    centre = np.select([rows.archetype == MAKER, rows.archetype == BORROWER], [-0.9, 0.3], 0.35)
    width = np.where((rows.archetype == MAKER) | (rows.archetype == BORROWER), 0.5, 0.9)
    healthy = _INITIAL + 0.05 + np.exp(centre + width * rng.standard_normal(status.size))
    low, high = _EQUITY_RANGE[status].T
    return np.where(status == 0, healthy, low + (high - low) * rng.random(status.size))


def _with_floor(
    rng: np.random.Generator, contracts: Contracts, rows: Rows, cash: Floats, *, uses: Bools, exact: Bools
) -> Floats:
    """Cash where it is needed, and never less than some in a healthy account that is no borrower or maker."""
    least = rows.scale * np.exp(-1.0 + rng.standard_normal(rows.scale.size))
    least = np.where((rows.archetype == HOLDER) & (rng.random(least.size) < 0.3), 0.0, least)
    free = exact | (rows.archetype == BORROWER) | (rows.archetype == MAKER)
    at_home = contracts.unit_settlement[rows.home][:, None] == np.arange(cash.shape[1])
    floor = np.where(at_home, least[:, None] / contracts.settlement_price, 0.0)
    held = np.where(free[:, None], cash, np.maximum(cash, floor))
    return np.where(uses | (at_home & ~free[:, None]), held, 0.0)


def _amounts(
    rng: np.random.Generator, purse: Purse, rows: Rows, *, cash: Floats, coins: Floats, healthy: Bools
) -> Floats:
    """`[R, B]` balances in whole minor units."""
    amounts = np.zeros((rows.account.size, len(purse.names)))
    amounts[:, : cash.shape[1]] = cash
    for unit, column in enumerate(purse.coin):
        if column >= 0:
            amounts[:, column] += coins[:, unit]
    if purse.spare >= 0:
        holds = healthy & (rng.random(rows.account.size) < _SPARE_CHANCE)
        amounts[:, purse.spare] = np.where(holds, rows.scale * np.exp(rng.standard_normal(holds.size)), 0.0)
    unit_size = 10.0**purse.decimals
    rounded: Floats = np.rint(amounts * unit_size) / unit_size
    return rounded
