"""Unit, sign and meaning of every result column, carried in the Parquet field metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa


class Meaning(NamedTuple):
    """What a column says. `{money}` in a unit stands for the run's accounting asset."""

    unit: str
    sign: str
    text: str


_ID = Meaning("", "", "identifier")
_SIGNED = "positive = in the account's favour"
_REQUIRED = "positive = required"
_LOSS = "positive = loss"
_MONEY = "{money}"

_COMMON = {
    "account_id": Meaning("", "", "account, as in the book"),
    "pool": Meaning("", "", "collateral pool; pools never net"),
    "option_value": Meaning(_MONEY, _SIGNED, "market value of options whose premium was paid upfront"),
    "unrealised_pnl": Meaning(_MONEY, _SIGNED, "P&L not yet in the balance, cash due included"),
    "worst_scenario": Meaning("", "", "id of the scenario, or name of the component, that binds"),
    "worst_loss": Meaning(_MONEY, _LOSS, "loss of the binding scenario or component"),
    "delta": Meaning(_MONEY, "signed", "change of value for spot +100 %, linear"),
    "gamma": Meaning(_MONEY, "signed", "change of delta for spot +1 %, per cent"),
    "vega": Meaning(f"{_MONEY} per vol point", "signed", "change of value for vol +0.01"),
    "theta": Meaning(f"{_MONEY} per calendar day", "signed", "change of value as a day passes, forward held"),
}
_ACCOUNTS = _COMMON | {
    "model": Meaning("", "", "margin model and date of its parameters"),
    "status": Meaning("", "", "healthy, margin_call, liquidatable, bankrupt or unknown"),
    "equity": Meaning(_MONEY, _SIGNED, "balances at full value + unrealised_pnl + option_value"),
    "health": Meaning("ratio", "below 1 = liquidatable", "maintenance_balance / maintenance_margin; null if that is 0"),
    "num_positions": Meaning("count", "", "positions other than 0"),
}
_MARGIN_TYPE = {
    "collateral_value": Meaning(_MONEY, _SIGNED, "balances after haircuts"),
    "balance": Meaning(_MONEY, _SIGNED, "collateral value + P&L and option value that count"),
    "margin": Meaning(_MONEY, _REQUIRED, "requirement"),
    "excess": Meaning(_MONEY, "positive = healthy", "balance - requirement"),
    "minor": Meaning("minor units of {money}", "", "the same, rounded once against the account"),
}
_INSTRUMENTS = {
    "instrument_id": _ID,
    "kind": Meaning("", "", "option, future, perpetual, or base for a unit's own asset"),
    "unit": Meaning("", "", "risk unit"),
    "expiry": Meaning("UTC", "", "expiry"),
    "strike": Meaning("quote currency", "", "strike price"),
    "forward": Meaning("quote currency", "", "forward price of the expiry"),
    "years": Meaning("years of 365 days", "", "time to expiry"),
    "contract_size": Meaning("units of underlying", "", "size of one contract; inverse future, digital option: quote"),
    "model": _ACCOUNTS["model"],
    "value": Meaning(_MONEY, "signed", "value of one long contract"),
    "implied_vol": Meaning("decimal per sqrt-year", "", "vol the contract was priced with"),
    "delta": Meaning(f"{_MONEY} per 1.00 of forward", "signed", "first derivative to the forward"),
    "gamma": Meaning(f"{_MONEY} per 1.00 of forward, twice", "signed", "second derivative to the forward"),
    "vega": Meaning(f"{_MONEY} per 1.00 of vol", "signed", "derivative to vol"),
    "theta": Meaning(f"{_MONEY} per year", "signed", "derivative to calendar time, forward held"),
    "rho": Meaning(
        f"{_MONEY} per 1.00 of rate",
        "signed",
        "derivative of Black-76 to the discount rate, forward held: -years * model value",
    ),
    "vanna": Meaning(f"{_MONEY} per 1.00 of forward and of vol", "signed", "derivative of vega to the forward"),
    "volga": Meaning(f"{_MONEY} per 1.00 of vol, twice", "signed", "derivative of vega to vol"),
    "composite_delta": Meaning("units of underlying", "signed", "delta averaged over the model's price points"),
    "scenario_pnl": Meaning(_MONEY, "positive = gain", "P&L of one long contract per scenario column, before weights"),
}
_POINT = "vol point"
_MARKET_INSTRUMENTS = _INSTRUMENTS | {
    "vega": Meaning(f"{_MONEY} per {_POINT}", "signed", "change of value for vol +0.01, linear"),
    "theta": Meaning(f"{_MONEY} per calendar day", "signed", "change of value as a day passes, forward held"),
    "rho": Meaning(f"{_MONEY} per 1 % of rate", "signed", "Black-76, forward held: change of value for rate +0.01"),
    "vanna": Meaning(f"{_MONEY} per 1.00 of forward and {_POINT}", "signed", "change of delta for vol +0.01"),
    "volga": Meaning(f"{_MONEY} per {_POINT}, twice", "signed", "change of vega (per vol point) for vol +0.01"),
}
MARKET_UNITS = {"vega": 1e2, "theta": 365.0, "rho": 1e2, "vanna": 1e2, "volga": 1e4}
"""What Greeks per 1.00 and per year are divided by for market units; delta and gamma stay per 1.00 of forward."""

_SCENARIOS = {
    "id": Meaning("", "", "id of the scenario, as in worst_scenario"),
    "column": Meaning("index", "", "place in scenario_pnl"),
    "set": Meaning("", "", "scenario set of the model file"),
    "unit": Meaning("", "", "risk unit"),
    "spot_move": Meaning("fraction", "signed", "relative move of spot and of the variable part of forwards"),
    "vol_rule": Meaning("", "", "up, none or down, by the model's vol shock"),
    "weight": Meaning("fraction", "", "share of the scenario's P&L that counts"),
    "dampening": Meaning("fraction", "", "further factor on the scenario's P&L"),
    "model": _ACCOUNTS["model"],
}
_POSITIONS = {
    **{name: _COMMON[name] for name in ("account_id", "pool", "unrealised_pnl", "delta", "gamma", "vega", "theta")},
    "instrument_id": _ID,
    "quantity": Meaning("contracts", "positive = long", "position"),
    "value": Meaning(_MONEY, "signed", "market value of options; notional of other contracts"),
}
_UNITS = _COMMON | {"unit": Meaning("", "", "risk unit")}
_OWNERS = {
    "owner_id": _ID,
    "accounting_asset": Meaning("", "", "asset in which the sums are counted"),
    "status": Meaning("", "", "the worst of its margin accounts"),
    "num_accounts": Meaning("count", "", "margin accounts of the owner"),
}
_OPEN_INTEREST = {
    "instrument_id": _ID,
    "long": Meaning("contracts", "positive", "what the accounts that are long hold together"),
    "short": Meaning("contracts", "positive", "what the accounts that are short owe together"),
    "difference": Meaning("contracts", "positive = more longs", "long less short; 0 in a closed book"),
}
_MINOR_MONEY = f"minor units of {_MONEY}"
_SCENARIO_TOTALS = {
    **{name: _SCENARIOS[name] for name in ("id", "column", "set", "vol_rule", "weight", "model")},
    "spot_move_from": Meaning("fraction", "signed", "relative move of spot, the least of the units"),
    "spot_move_to": Meaning("fraction", "signed", "relative move of spot, the greatest of the units"),
    "pnl_minor": Meaning(_MINOR_MONEY, "positive = gain", "P&L of all accounts"),
    "losses_minor": Meaning(_MINOR_MONEY, "negative = loss", "P&L of the accounts that lose"),
    "turned_bankrupt": Meaning("count", "", "accounts whose equity turns negative"),
    "bankrupt": Meaning("count", "", "accounts whose equity is negative after the scenario"),
    "uncovered_minor": Meaning(_MINOR_MONEY, _LOSS, "negative equity after the scenario, all of it"),
    "cover1_minor": Meaning(
        _MINOR_MONEY, _LOSS, "negative equity of the owner, or account without one, that owes most"
    ),
    "cover2_minor": Meaning(_MINOR_MONEY, _LOSS, "the same of the two that owe most"),
    "turned_liquidatable": Meaning("count", "", "accounts that lose more than their maintenance excess"),
    "liquidatable_notional": Meaning(_MONEY, "", "notional of the positions of these accounts, long and short added"),
    "fund_after_minor": Meaning(_MINOR_MONEY, "", "what the insurance funds have left after paying what is uncovered"),
    "beyond_fund_minor": Meaning(_MINOR_MONEY, _LOSS, "uncovered amount beyond the funds"),
    "defaults_survived": Meaning("count", "", "how many of the largest deficits at once the funds cover"),
}
_CONCENTRATION = {
    "kind": Meaning("", "", "account, owner or instrument"),
    "accounting_asset": _OWNERS["accounting_asset"],
    "rank": Meaning("", "", "place by amount, 1 = largest"),
    "id": _ID,
    "pool": _COMMON["pool"],
    "amount": Meaning(_MONEY, "", "maintenance margin of an account or owner; notional held of an instrument"),
    "share": Meaning("fraction", "", "share of the sum over all of the kind"),
}
_ASSET_TOTALS = {
    "asset": _ID,
    "model": _ACCOUNTS["model"],
    "amount": Meaning("units of the asset", "", "sum of positive balances"),
    "debt": Meaning("units of the asset", _LOSS, "sum of negative balances"),
    "price": Meaning(f"{_MONEY} per unit", "", "price as collateral"),
    "value": Meaning(_MONEY, "", "positive balances at full value"),
    "debt_value": Meaning(_MONEY, _LOSS, "negative balances at full value"),
}
_STRESSED_ACCOUNTS = {
    **{name: _ACCOUNTS[name] for name in ("account_id", "pool", "status", "model")},
    "scenario": _SCENARIOS["id"],
    "equity_minor": Meaning(_MINOR_MONEY, _SIGNED, "equity now, rounded down"),
    "stressed_equity_minor": Meaning(_MINOR_MONEY, _SIGNED, "equity after the scenario"),
}
_QUARANTINE = {
    "table": Meaning("", "", "table of the book"),
    "file": Meaning("", "", "file of the book"),
    "row": Meaning("index", "from 0", "row of the file"),
    "code": Meaning("", "", "code of the rule that was broken, by this row or by the one that it stands on"),
    "column": Meaning("", "", "column to blame"),
    "value": Meaning("", "", "what stands there"),
    "message": Meaning("", "", "what was expected, and what to do"),
}
_LEAVES = {
    **{name: _COMMON[name] for name in ("account_id", "pool")},
    "digest": Meaning("", "", "SHA-256 of the leaf"),
}
_LEAF_AMOUNT = Meaning("minor units", "never negative", "amount of the accounting asset named, as committed")
_DIFFERENCE = {
    **{name: _COMMON[name] for name in ("account_id", "pool")},
    "accounting_asset": Meaning("", "", "asset in which the account's money is counted"),
    "decimals": Meaning("count", "", "decimals of its minor unit"),
    "model_before": Meaning("", "", "margin model in the first run; null where it does not have the account"),
    "model": Meaning("", "", "margin model in the second run; null likewise"),
    "status_before": Meaning("", "", "status in the first run; absent where it does not have the account"),
    "status": Meaning("", "", "status in the second run; absent likewise"),
}
TABLES: Mapping[str, Mapping[str, Meaning]] = {
    "accounts": _ACCOUNTS,
    "units": _UNITS,
    "owners": _OWNERS,
    "open_interest": _OPEN_INTEREST,
    "positions": _POSITIONS,
    "instruments": _INSTRUMENTS,
    "market_instruments": _MARKET_INSTRUMENTS,
    "scenarios": _SCENARIOS,
    "scenario_totals": _SCENARIO_TOTALS,
    "stressed_accounts": _STRESSED_ACCOUNTS,
    "concentration": _CONCENTRATION,
    "asset_totals": _ASSET_TOTALS,
    "leaves": _LEAVES,
    "difference": _DIFFERENCE,
    "quarantine": _QUARANTINE,
}
_COMPONENT = Meaning(_MONEY, _REQUIRED, "component of the model, named as in its file")
_OTHERWISE = {
    "leaves": _LEAF_AMOUNT,
    "difference": Meaning(_MINOR_MONEY, "positive = grew", "figure, its change, or the effect that it names on it"),
    "asset_totals": Meaning(_MONEY, _SIGNED, "positive balances after the haircuts of the margin type that it names"),
}


def _meaning(table: str, column: str) -> Meaning:
    known = TABLES[table].get(column)
    if known is not None:
        return known
    if table in _OTHERWISE:
        return _OTHERWISE[table]
    by_type = [meaning for suffix, meaning in _MARGIN_TYPE.items() if column.endswith(f"_{suffix}")]
    return by_type[0] if by_type else _COMPONENT


def _fields(schema: pa.Schema, table: str, money: str) -> Iterator[pa.Field]:
    for field in schema:
        meaning = _meaning(table, field.name)
        unit = meaning.unit.replace(_MONEY, money)
        yield field.with_metadata({"unit": unit, "sign": meaning.sign, "meaning": meaning.text})


def described(table: pa.Table, name: str, money: str) -> pa.Table:
    """The table with unit, sign and meaning in the metadata of every field.

    Args:
      table: a result table.
      name: one of `TABLES`.
      money: the accounting asset.
    """
    return table.cast(pa.schema(_fields(table.schema, name, money), metadata={"accounting_asset": money}))
