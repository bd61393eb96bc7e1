"""Derive's PMRM ("PM1") for whole books, one loop per account, unit, expiry and scenario.

`params` has the shape of the reference cases (see `params.py`): scenarios [{spot, vol}], vol_shock, im_factor,
discount {static, rate_mult, rate_add}, forward_contingency {spot_up, spot_down, add, mult}, contingency
{peg_threshold, peg_factor, conf_threshold, conf_scale, base, perp, option}. Contingency notionals use the underlying's
USD price as it is; only base balances are divided by the price of USDC. Source: reference page sections 1, 2, 4, 7, 8.

Readings of our own: a unit's base balance is a leg only while it is collateral; a negative one is charged by its
absolute size; expiries are told apart by forwards row; only linear options and perpetuals have a rule.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.oracle.book import Account, Holding, Market, Row, Tables, account_row, naked_size, read_accounts, unit_money
from tests.oracle.contract import ScenarioCache

MODEL = "derive-pm1"
ACCOUNTING = "USDC"
Params = Mapping[str, Any]


@dataclass(frozen=True)
class Expiry:
    """The option legs of one expiry, with its value, time and confidence."""

    legs: list[Holding]
    value: float
    years: float
    rate: float
    confidence: float

    @property
    def size(self) -> float:
        """Absolute size over all legs, long and short."""
        return sum(abs(leg.size) for leg in self.legs)


@dataclass(frozen=True)
class Unit:
    """One underlying of one account: spot in USD, base amount, base value and perpetuals in USDC, expiries."""

    name: str
    spot: float
    spot_confidence: float
    base: float
    base_value: float
    perps: list[Holding]
    options: list[Holding]
    expiries: list[Expiry]

    @property
    def perp_size(self) -> float:
        """Absolute size over the perpetuals held."""
        return sum(abs(perp.size) for perp in self.perps)

    @property
    def confidence(self) -> float:
        """Confidence that every part of the unit shares: spot, and each perpetual held."""
        return min([self.spot_confidence, *(perp.contract.confidence for perp in self.perps)])


def margin_book(tables: Tables, params: Params, *, as_of_seconds: float) -> dict[str, list[Row]]:
    """Accounts and units of a book under PM1, in USDC.

    Args:
        tables: contract tables as lists of row dicts.
        params: see the module.
        as_of_seconds: seconds since 1970 in UTC.

    Returns:
        `accounts` sorted by (account_id, pool) and `units` sorted by (account_id, pool, unit).

    Raises:
        ValueError: a number the model needs is missing.
        NotImplementedError: a contract the model has no rule for.
    """
    market = Market(tables, accounting=ACCOUNTING, as_of=as_of_seconds)
    cache = ScenarioCache(vol_shock=params["vol_shock"])
    accounts: list[Row] = []
    units: list[Row] = []
    for account in read_accounts(tables, market, model=MODEL):
        rows = [unit_row(account, unit, market, params, cache) for unit in account_units(account, market, cache)]
        margins = {kind: sum(row[f"{kind}_margin"] for row in rows) for kind in ("initial", "maintenance")}
        collateral = dict.fromkeys(("initial", "maintenance"), collateral_value(account, market))
        row = account_row(account, market, rows, margins=margins, collateral=collateral)
        accounts.append(row | {"model": MODEL, "worst_loss": sum(unit["loss"] for unit in rows)})
        units.extend(rows)
    return {"accounts": accounts, "units": units}


def collateral_value(account: Account, market: Market) -> float:
    """USDC and base balances in full; other assets count nothing, but a debt in them counts in full."""
    eligible = market.listed | {ACCOUNTING}
    total = 0.0
    for balance in account.balances:
        counts = balance.is_collateral and balance.asset in eligible
        if counts or balance.amount < 0.0:
            total += balance.amount * market.ratio(balance.asset)
    return total


def account_units(account: Account, market: Market, cache: ScenarioCache) -> list[Unit]:
    """The account's units: every underlying with a nonzero position or a nonzero base balance."""
    bases: dict[str, float] = {}
    for balance in account.balances:
        if balance.asset in market.listed and (balance.is_collateral or balance.amount < 0.0):
            bases[balance.asset] = bases.get(balance.asset, 0.0) + balance.amount
    held = account.holdings_by_unit()
    names = sorted(set(held) | {asset for asset, amount in bases.items() if amount != 0.0})
    return [read_unit(name, held.get(name, []), bases.get(name, 0.0), market, cache) for name in names]


def read_unit(name: str, holdings: list[Holding], base: float, market: Market, cache: ScenarioCache) -> Unit:
    """One unit's positions by what they are."""
    for holding in holdings:
        if holding.contract.inverse or holding.contract.kind == "future":
            message = f"expected linear options and perpetuals, found {holding.contract!r}: PM1 has no rule for it"
            raise NotImplementedError(message)
    options = [holding for holding in holdings if holding.contract.kind == "option"]
    perps = [holding for holding in holdings if holding.contract.kind == "perpetual"]
    return Unit(
        name=name,
        spot=market.price(name),
        spot_confidence=market.confidence(name),
        base=base,
        base_value=base * market.ratio(name),
        perps=perps,
        options=options,
        expiries=read_expiries(options, cache),
    )


def read_expiries(options: list[Holding], cache: ScenarioCache) -> list[Expiry]:
    """Option legs grouped by the forwards row they are priced from."""
    legs_by_key: dict[tuple[object, ...], list[Holding]] = {}
    for leg in options:
        legs_by_key.setdefault(leg.contract.forward_key, []).append(leg)
    return [
        Expiry(
            legs=legs,
            value=sum(leg.quantity * cache.value(leg.contract) for leg in legs),
            years=legs[0].contract.years,
            rate=legs[0].contract.rate,
            confidence=legs[0].contract.confidence,
        )
        for legs in legs_by_key.values()
    ]


def static_discount(expiry: Expiry, discount: Mapping[str, float]) -> float:
    """Factor on a positive shocked value of the expiry; a negative rate counts as 0."""
    rate = max(expiry.rate, 0.0) * discount["rate_mult"] + discount["rate_add"]
    return discount["static"] * math.exp(-expiry.years * rate)


def expiry_pnl(expiry: Expiry, cache: ScenarioCache, *, move: float, rule: str) -> float:
    """Undiscounted P&L of an expiry's legs under one shock."""
    return sum(leg.quantity * cache.pnl(leg.contract, move=move, rule=rule) for leg in expiry.legs)


def unit_pnl(unit: Unit, params: Params, cache: ScenarioCache, *, move: float, rule: str) -> float:
    """P&L of a unit in one scenario: discounted expiries, undiscounted perpetuals and base."""
    total = unit.base_value * (move - 1.0)
    for perp in unit.perps:
        total += perp.quantity * cache.pnl(perp.contract, move=move, rule=rule)
    for expiry in unit.expiries:
        pnl = expiry_pnl(expiry, cache, move=move, rule=rule)
        shocked = expiry.value + pnl
        total += pnl - (1.0 - static_discount(expiry, params["discount"])) * max(shocked, 0.0)
    return total


def worst_scenario(unit: Unit, params: Params, cache: ScenarioCache) -> tuple[float, str]:
    """Smallest P&L over the scenarios and the first scenario that has it."""
    worst, worst_id = math.inf, ""
    for scenario in params["scenarios"]:
        move, rule = scenario["spot"], scenario["vol"]
        pnl = unit_pnl(unit, params, cache, move=move, rule=rule)
        if pnl < worst:
            worst, worst_id = pnl, f"{move:g}/{rule}"
    return worst, worst_id


def basis_loss(unit: Unit, params: Params, cache: ScenarioCache) -> float:
    """Forward contingency, >= 0: each expiry's worse side of a parallel move, growing with time, never netted."""
    contingency = params["forward_contingency"]
    total = 0.0
    for expiry in unit.expiries:
        up = expiry_pnl(expiry, cache, move=contingency["spot_up"], rule="none")
        down = expiry_pnl(expiry, cache, move=contingency["spot_down"], rule="none")
        total -= min(up, down, 0.0) * (contingency["add"] + contingency["mult"] * expiry.years)
    return total


def oracle_contingency(unit: Unit, contingency: Mapping[str, float]) -> float:
    """Charge for prices of low confidence, >= 0: perpetuals and base on the shared one, each expiry on its smallest."""

    def charge(confidence: float, size: float) -> float:
        if confidence >= contingency["conf_threshold"]:
            return 0.0
        return (1.0 - confidence) * float(contingency["conf_scale"]) * size * unit.spot

    total = charge(unit.confidence, unit.perp_size + abs(unit.base))
    for expiry in unit.expiries:
        total += charge(min(unit.confidence, expiry.confidence), expiry.size)
    return total


def unit_row(account: Account, unit: Unit, market: Market, params: Params, cache: ScenarioCache) -> Row:
    """One row of `units`: every part of the margin, all requirements positive."""
    contingency = params["contingency"]
    pnl, scenario_id = worst_scenario(unit, params, cache)
    basis = basis_loss(unit, params, cache)
    row: dict[str, Any] = {
        "account_id": account.account_id,
        "pool": account.pool,
        "unit": unit.name,
        "scan": -pnl,
        "basis": basis,
        "loss": max(basis, -pnl),
        "worst_scenario": "basis" if basis >= -pnl else scenario_id,
        "perp": unit.spot * unit.perp_size * contingency["perp"],
        "base": unit.spot * abs(unit.base) * contingency["base"],
        "naked_options": unit.spot * naked_size(unit.options) * contingency["option"],
        "oracle": oracle_contingency(unit, contingency),
        "peg": max(0.0, contingency["peg_threshold"] - market.price(ACCOUNTING)) * contingency["peg_factor"],
    }
    row["maintenance_margin"] = row["loss"] + row["perp"] + row["base"] + row["naked_options"]
    row["initial_margin"] = row["maintenance_margin"] * (params["im_factor"] + row["peg"]) + row["oracle"]
    row |= unit_money([*unit.options, *unit.perps], cache)
    row["delta"] += unit.base_value
    return row
