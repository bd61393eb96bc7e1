"""A correlated portfolio margin in USD: scan each underlying, then join the units by a correlation matrix.

`params`:
    range: {default, <unit>: ...}: the move that 1.0 of a scenario stands for, per unit.
    scenarios: [{move, vol, weight}]: spot times 1 + move * range; vol up, none, down as in PM1; weight scales the P&L.
    vol_shock: range_up, range_down, short_term_power, long_term_power, dte_floor_days, as in PM1.
    naked_option_rate: share of the underlying's USD price per unit of uncovered short option.
    im_factor: initial over maintenance margin of a unit.
    correlation: {units: [name], matrix: [[...]]}, symmetric with ones on its diagonal; other units simply add.
    collateral: {initial | maintenance: {weights: {asset: w}, default_weight, liability_weight}}.

Balances are never legs: they carry weights but no shock. Readings of our own: a positive balance that is not collateral
weighs nothing; a settled contract (expired, settlement price known) does not move, but the coin that an inverse option
pays does.
"""

import math
from collections.abc import Mapping
from typing import Any

from tests.oracle.book import (
    MARGIN_TYPES,
    Account,
    Holding,
    Market,
    Row,
    Tables,
    account_row,
    naked_size,
    read_accounts,
    unit_money,
)
from tests.oracle.contract import ScenarioCache

MODEL = "correlated-pm"
ACCOUNTING = "USD"
Params = Mapping[str, Any]


def margin_book(tables: Tables, params: Params, *, as_of_seconds: float) -> dict[str, list[Row]]:
    """Accounts and units of a book under the correlated model, in USD.

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
        held = sorted(account.holdings_by_unit().items())
        rows = [unit_row(account, name, holdings, market, params, cache) for name, holdings in held]
        margins = {kind: joined_margin(rows, f"{kind}_margin", params["correlation"]) for kind in MARGIN_TYPES}
        collateral = {kind: collateral_value(account, market, params["collateral"][kind]) for kind in MARGIN_TYPES}
        row = account_row(account, market, rows, margins=margins, collateral=collateral)
        accounts.append(row | {"model": MODEL, "worst_loss": sum(unit["scan"] for unit in rows)})
        units.extend(rows)
    return {"accounts": accounts, "units": units}


def joined_margin(rows: list[Row], column: str, correlation: Mapping[str, Any]) -> float:
    """Root of m'Rm over the units of the table, plus the margins of the others."""
    margin_by_unit: dict[Any, Any] = {row["unit"]: row[column] for row in rows}
    listed = correlation["units"]
    square = 0.0
    for i, first in enumerate(listed):
        for j, second in enumerate(listed):
            pair = margin_by_unit.get(first, 0.0) * margin_by_unit.get(second, 0.0)
            square += correlation["matrix"][i][j] * pair
    others = sum(margin for unit, margin in margin_by_unit.items() if unit not in listed)
    return float(math.sqrt(max(square, 0.0)) + others)


def collateral_value(account: Account, market: Market, terms: Mapping[str, Any]) -> float:
    """Balances in USD after weights; a debt counts times the liability weight."""
    total = 0.0
    for balance in account.balances:
        value = balance.amount * market.ratio(balance.asset)
        if balance.amount < 0.0:
            total += value * terms["liability_weight"]
        elif balance.is_collateral:
            total += value * terms["weights"].get(balance.asset, terms["default_weight"])
    return total


def worst_scenario(name: str, holdings: list[Holding], params: Params, cache: ScenarioCache) -> tuple[float, str]:
    """Smallest weighted P&L of a unit and the first scenario that has it."""
    move_range = params["range"].get(name, params["range"]["default"])
    worst, worst_id = math.inf, ""
    for scenario in params["scenarios"]:
        move, rule = 1.0 + scenario["move"] * move_range, scenario["vol"]
        pnl = sum(holding.quantity * cache.pnl(holding.contract, move=move, rule=rule) for holding in holdings)
        if scenario["weight"] * pnl < worst:
            worst, worst_id = scenario["weight"] * pnl, f"{scenario['move']:+g}/{rule}"
    return worst, worst_id


def unit_row(
    account: Account, name: str, holdings: list[Holding], market: Market, params: Params, cache: ScenarioCache
) -> Row:
    """One row of `units`, all requirements positive."""
    pnl, scenario_id = worst_scenario(name, holdings, params, cache)
    scan = max(0.0, -pnl)
    naked = params["naked_option_rate"] * market.ratio(name) * naked_size(holdings)
    row: Row = {
        "account_id": account.account_id,
        "pool": account.pool,
        "unit": name,
        "scan": scan,
        "naked_options": naked,
        "maintenance_margin": scan + naked,
        "initial_margin": params["im_factor"] * (scan + naked),
        "worst_scenario": scenario_id,
    }
    return row | unit_money(holdings, cache)
