"""From table rows to margin accounts, and from margins to account rows: what both oracle models share.

Tables are lists of row dicts, named and typed as in the contract page section 1; timestamps are datetimes in UTC.
Refused, as no oracle model covers it: futures-style premium, capped futures, per-account parameters.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import cached_property
from typing import Any

from tests.oracle.black import Svi, svi_vol
from tests.oracle.contract import Contract, ScenarioCache, entry_pnl

Row = dict[str, Any]
Tables = Mapping[str, list[Row]]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GREEKS = ("delta", "gamma", "vega", "theta")
MARGIN_TYPES = ("initial", "maintenance")
SVI_FIELDS = ("a", "b", "rho", "m", "sigma", "forward", "years")


def given(row: Row, column: str, default: Any = None) -> Any:
    """A row's value, or the default where the column is absent or null."""
    value = row.get(column)
    return default if value is None else value


def number(row: Row, column: str, default: float | None = None) -> float:
    """A row's value as a float.

    Raises:
        ValueError: absent or null without a default.
    """
    value = given(row, column, default)
    if value is None:
        message = f"expected a number in column {column!r}, found none in {row!r}: fill it in"
        raise ValueError(message)
    return float(value)


def optional(row: Row, column: str) -> float | None:
    """A row's value as a float, or None."""
    return None if row.get(column) is None else number(row, column)


def seconds_of(moment: datetime) -> float:
    """Seconds since 1970 in UTC; a datetime without zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH).total_seconds()


@dataclass(frozen=True)
class Holding:
    """One nonzero position."""

    contract: Contract
    quantity: float
    entry: float | None
    unsettled: float

    @property
    def size(self) -> float:
        """Signed size in units of underlying (quote currency for inverse futures); a payment is so much / forward."""
        forward = self.contract.fixed + self.contract.variable
        divisor = (forward or float("inf")) if self.contract.digital else 1.0
        return self.quantity * self.contract.size / divisor


@dataclass(frozen=True)
class Balance:
    """One balance; `is_collateral` is the holder's choice."""

    asset: str
    amount: float
    is_collateral: bool


@dataclass
class Account:
    """One margin account, (account_id, pool)."""

    account_id: object
    pool: str
    holdings: list[Holding] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)

    def holdings_by_unit(self) -> dict[str, list[Holding]]:
        """Nonzero positions by underlying."""
        units: dict[str, list[Holding]] = {}
        for holding in self.holdings:
            units.setdefault(holding.contract.underlying, []).append(holding)
        return units


class Market:
    """Prices and contracts of a book in one accounting unit."""

    def __init__(self, tables: Tables, *, accounting: str, as_of: float) -> None:
        self.accounting = accounting
        self.as_of = as_of
        self.prices = {str(row["asset"]): row for row in tables.get("prices", [])}
        self.assets = {str(row["asset"]): row for row in tables.get("assets") or []}
        self.instruments = {row["instrument_id"]: row for row in tables.get("instruments", [])}
        self.marks = {row["instrument_id"]: row for row in tables.get("marks", [])}
        self.forwards = {forward_key(row, row.get("quote")): row for row in tables.get("forwards", [])}
        self.contracts: dict[object, Contract] = {}

    def price(self, asset: str) -> float:
        """Price in USD; USD itself is 1 unless the table says otherwise."""
        row = self.prices.get(asset, {"price": 1.0} if asset == "USD" else None)
        if row is None:
            message = f"expected a price for asset {asset!r}, found none: add it to prices"
            raise ValueError(message)
        return number(row, "price")

    def confidence(self, asset: str) -> float:
        """Confidence of an asset's price, 1 unless given."""
        return number(self.prices.get(asset, {}), "confidence", 1.0)

    def ratio(self, asset: str) -> float:
        """Price of an asset in the accounting unit."""
        return self.price(asset) / self.price(self.accounting)

    @cached_property
    def listed(self) -> set[str]:
        """Underlyings with at least one contract other than spot."""
        return {str(row["underlying"]) for row in self.instruments.values() if row["kind"] != "spot"}

    def decimals(self) -> int:
        """Minor unit of the accounting asset."""
        default = 2 if self.accounting == "USD" else 8
        return int(number(self.assets.get(self.accounting, {}), "decimals", default))

    def contract(self, instrument_id: object) -> Contract:
        """The contract, read once."""
        if instrument_id not in self.contracts:
            self.contracts[instrument_id] = read_contract(self, self.instruments[instrument_id])
        return self.contracts[instrument_id]


def forward_key(row: Row, quote: object) -> tuple[object, ...]:
    """Key of a forwards row: underlying, quote or None, expiry in seconds."""
    return row["underlying"], quote, seconds_of(row["expiry"])


def _refuse_unmodelled(row: Row) -> None:
    """Stop at contract terms the oracle has no formula for, rather than value them wrongly."""
    unusual = [
        given(row, "payoff", "vanilla") != "vanilla" and row["kind"] != "option",
        given(row, "premium", "upfront") != "upfront",
        row.get("price_cap") is not None,
        row["kind"] not in ("option", "future", "perpetual"),
    ]
    if any(unusual):
        message = f"expected an option or linear contract with upfront premium and no cap, found {row!r}: no rule here"
        raise NotImplementedError(message)


def read_contract(market: Market, row: Row) -> Contract:
    """One contract from its instrument, mark, forward and settlement price rows."""
    _refuse_unmodelled(row)
    mark = market.marks.get(row["instrument_id"], {})
    expiry = seconds_of(row["expiry"]) if row.get("expiry") is not None else 0.0
    expired = row["kind"] != "perpetual" and expiry <= market.as_of
    settlement = optional(mark, "settlement_price") if expired else None
    common: dict[str, Any] = {
        "instrument_id": row["instrument_id"],
        "kind": str(row["kind"]),
        "underlying": str(row["underlying"]),
        "inverse": bool(given(row, "inverse", False)),
        "size": number(row, "contract_size", 1.0),
        "ratio": market.ratio(str(row["settlement"])),
        "mark": optional(mark, "mark_price"),
        "settled": settlement is not None,
    }
    if row["kind"] != "option":
        if settlement is not None:
            common["mark"] = settlement
        return Contract(**common, confidence=number(mark, "confidence", 1.0))
    common |= {
        "strike": number(row, "strike"),
        "is_call": row["option_type"] == "call",
        "digital": given(row, "payoff", "vanilla") == "digital",
        "expiry": expiry,
        "seconds": max(expiry - market.as_of, 0.0),
    }
    return Contract(**common, **_forward_terms(market, row, settlement))


def _forward_terms(market: Market, row: Row, settlement: float | None) -> dict[str, Any]:
    """Forward split, rate, vol and confidence of an option's expiry."""
    quote = given(row, "quote", "USD" if given(row, "inverse", False) else row["settlement"])
    keys = (forward_key(row, quote), forward_key(row, None))
    key = next((k for k in keys if k in market.forwards), None)
    if key is None and settlement is None:
        message = f"expected a forwards row for {keys[0]!r}, found none (option {row['instrument_id']!r}): add it"
        raise ValueError(message)
    forward: Row = market.forwards[key] if key else {}
    fixed = number(forward, "forward_fixed", 0.0) if settlement is None else settlement
    confidences = [number(forward, f"{name}_confidence", 1.0) for name in ("forward", "rate", "vol")]
    return {
        "fixed": fixed,
        "variable": number(forward, "forward") - fixed if settlement is None else 0.0,
        "rate": number(forward, "rate", 0.0),
        "confidence": min(confidences),
        "forward_key": key or keys[0],
        "vol": _vol(market, row, forward),
    }


def _vol(market: Market, row: Row, forward: Row) -> float:
    """Vol of an option: its mark's, else the expiry's SVI; an expired one needs none."""
    mark_iv = optional(market.marks.get(row["instrument_id"], {}), "mark_iv")
    if mark_iv is not None:
        return mark_iv
    if forward.get("svi_a") is not None:
        svi = Svi(**{name: number(forward, f"svi_{name}") for name in SVI_FIELDS})
        return svi_vol(svi, strike=number(row, "strike"))
    if seconds_of(row["expiry"]) <= market.as_of:
        return 0.0
    message = f"expected a mark_iv or SVI parameters for option {row['instrument_id']!r}, found neither: add one"
    raise ValueError(message)


def read_accounts(tables: Tables, market: Market, *, model: str) -> list[Account]:
    """Every margin account named in positions, balances or accounts, sorted; rows of quantity 0 are left out."""
    if tables.get("account_parameters"):
        message = "expected no account_parameters table, found one: the oracle takes one parameter set per book"
        raise NotImplementedError(message)
    accounts: dict[tuple[object, str], Account] = {}

    def account_of(row: Row) -> Account:
        key = (row["account_id"], str(given(row, "pool", "cross")))
        return accounts.setdefault(key, Account(*key))

    for row in tables.get("accounts") or []:
        account_of(row)
        if str(given(row, "model", model)).split("@")[0] != model:
            message = f"expected accounts of model {model!r}, found {row!r}: cut the book by model first"
            raise NotImplementedError(message)
    for row in tables.get("positions", []):
        account = account_of(row)
        if number(row, "quantity") != 0.0:
            account.holdings.append(_read_holding(market, row))
    for row in tables.get("balances", []):
        balance = Balance(str(row["asset"]), number(row, "amount"), bool(given(row, "is_collateral", True)))
        account_of(row).balances.append(balance)
    return [accounts[key] for key in sorted(accounts)]


def _read_holding(market: Market, row: Row) -> Holding:
    """One position row with its contract."""
    return Holding(
        contract=market.contract(row["instrument_id"]),
        quantity=number(row, "quantity"),
        entry=optional(row, "entry_price"),
        unsettled=number(row, "unsettled", 0.0),
    )


def unit_money(holdings: Iterable[Holding], cache: ScenarioCache) -> dict[str, float]:
    """option_value, unrealised_pnl and money Greeks of one unit's positions."""
    money = dict.fromkeys(("option_value", "unrealised_pnl", *GREEKS), 0.0)
    for holding in holdings:
        contract = holding.contract
        money["option_value"] += holding.quantity * cache.value(contract)
        money["unrealised_pnl"] += holding.quantity * entry_pnl(contract, entry=holding.entry)
        money["unrealised_pnl"] += holding.unsettled * contract.ratio
        for name in GREEKS:
            money[name] += holding.quantity * getattr(cache.greeks(contract), name)
    return money


def naked_size(holdings: Iterable[Holding]) -> float:
    """Short option size left after calls and puts of one strike, expiry and payoff cover each other."""
    net: dict[tuple[float, float, bool], float] = {}
    for holding in holdings:
        if holding.contract.kind == "option":
            key = (holding.contract.expiry, holding.contract.strike, holding.contract.digital)
            net[key] = net.get(key, 0.0) + holding.size
    return sum(max(0.0, -size) for size in net.values())


def status_of(row: Row) -> str:
    """Status of an account row; a number that is not finite is an alarm, never healthy."""
    equity, maintenance, initial = (number(row, c) for c in ("equity", "maintenance_excess", "initial_excess"))
    if not all(math.isfinite(x) for x in (equity, maintenance, initial)):
        return "unknown"
    if equity < 0.0:
        return "bankrupt"
    if maintenance < 0.0:
        return "liquidatable"
    return "margin_call" if initial < 0.0 else "healthy"


def _minor(value: float, decimals: int, *, up: bool) -> int | None:
    """Minor units of the exact binary value, rounded once; None where it is not finite."""
    if not math.isfinite(value):
        return None
    exact = Fraction(value) * int(10**decimals)
    return math.ceil(exact) if up else math.floor(exact)


def account_row(
    account: Account,
    market: Market,
    units: list[Row],
    *,
    margins: dict[str, float],
    collateral: dict[str, float],
    counted: dict[str, float] | None = None,
) -> Row:
    """The account's row from its units, its margins and its collateral value per margin type.

    `counted` is what else supports margin, by type: all P&L and option value where it is not given.
    """
    row: Row = {"account_id": account.account_id, "pool": account.pool}
    for name in ("option_value", "unrealised_pnl", *GREEKS):
        row[name] = sum(number(unit, name) for unit in units)
    legs = number(row, "option_value") + number(row, "unrealised_pnl")
    row["equity"] = sum(b.amount * market.ratio(b.asset) for b in account.balances) + legs
    for kind in MARGIN_TYPES:
        row[f"{kind}_collateral_value"] = collateral[kind]
        beside = legs if counted is None else counted[kind]
        row[f"{kind}_balance"] = collateral[kind] + beside
        row[f"{kind}_margin"] = margins[kind]
        row[f"{kind}_excess"] = collateral[kind] + beside - margins[kind]
        row[f"{kind}_margin_minor"] = _minor(margins[kind], market.decimals(), up=True)
    row["equity_minor"] = _minor(number(row, "equity"), market.decimals(), up=False)
    maintenance = margins["maintenance"]
    row["health"] = number(row, "maintenance_balance") / maintenance if maintenance else None
    row["worst_scenario"] = units[0]["worst_scenario"] if len(units) == 1 else None
    row["num_positions"] = len(account.holdings)
    row["status"] = status_of(row)
    return row
