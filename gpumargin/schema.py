"""The tables a book is made of, column by column, as data.

Everything that reads, checks, generates or documents a book is driven by `TABLES`; a new column is a new line here and
nothing else. The tables a run writes are in `result_columns`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

Kind = Literal["id", "enum", "number", "amount", "integer", "flag", "time"]

ID = pa.dictionary(pa.int32(), pa.string())
TIME = pa.timestamp("us", tz="UTC")
USD = "USD"
MAX_ID_LENGTH = 256

CANONICAL: dict[Kind, tuple[pa.DataType, ...]] = {
    "id": (ID, pa.int64()),
    "enum": (ID,),
    "number": (pa.float64(),),
    "amount": (pa.float64(), pa.int64(), pa.decimal128(38, 0)),
    "integer": (pa.int64(),),
    "flag": (pa.bool_(),),
    "time": (TIME,),
}
"""The types a column has inside a `Book`; the first is the usual one. A decimal keeps its own precision and scale."""

ACCEPTED: dict[Kind, str] = {
    "id": "a string, an integer, a dictionary or a categorical",
    "enum": "a string, a dictionary or a categorical",
    "number": "float64, float32, an integer or a decimal",
    "amount": "float64, float32, an integer or a decimal of at most 38 digits",
    "integer": "an integer",
    "flag": "a boolean",
    "time": "a timestamp (s, ms, us or ns; without a zone it is read as UTC)",
}
"""What a caller may hand in, in the words of the error message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Allowed values of a number, both ends included unless `above` (then `low` itself is refused)."""

    low: float = float("-inf")
    high: float = float("inf")
    above: bool = False
    code: str
    remedy: str

    def holds(self, ends: tuple[float, float]) -> bool:
        """Whether all numbers between these two are allowed; NaN is not."""
        low, high = ends
        return (low > self.low if self.above else low >= self.low) and high <= self.high

    def __str__(self) -> str:
        """The range in words, as error messages give it."""
        if self.high == float("inf"):
            return f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return f"between {self.low:g} and {self.high:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the contract.

    It is required (present, no nulls), defaulted (may be absent, nulls are filled) or optional (may be absent or null).

    Attributes:
      name: column name.
      kind: family of types it may arrive in; `CANONICAL` says what it becomes.
      unit: unit of its numbers, empty for ids and choices.
      meaning: one line for documentation.
      optional: may be absent, and null where present.
      default: constant that fills an absent column and every null.
      derived: rule, in words, that fills an absent column and every null from other columns (`tables` carries it out).
      allowed: range of its numbers.
      choices: allowed words of an enum.
    """

    name: str
    kind: Kind
    meaning: str
    unit: str = ""
    optional: bool = False
    default: str | float | bool | None = None
    derived: str = ""
    allowed: Range | None = None
    choices: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether a table without this column is refused."""
        return not (self.optional or self.derived or self.default is not None)

    @property
    def arrow_type(self) -> pa.DataType:
        """Type that an absent column gets when it is filled."""
        return CANONICAL[self.kind][0]


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the contract: its columns in published order, its key, and whether a book must have it."""

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    required: bool = False
    by_name: dict[str, Column] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {column.name: column for column in self.columns})


NOT_NEGATIVE = Range(low=0.0, code="GM109", remedy="give a value of at least 0")
POSITIVE_PRICE = Range(low=0.0, above=True, code="GM109", remedy="give a positive price")
POSITIVE_SIZE = Range(low=0.0, above=True, code="GM112", remedy="give a positive size; the sign belongs to quantity")
VOL = Range(low=0.0, code="GM110", remedy="give a decimal vol per square root of a year, 0.65 for 65 %")
CORRELATION = Range(low=-1.0, high=1.0, code="GM110", remedy="give the SVI slope correlation as a decimal")
POSITIVE_TIME = Range(low=0.0, above=True, code="GM111", remedy="give years, seconds / (365 * 86400)")
CONFIDENCE = Range(low=0.0, high=1.0, code="GM113", remedy="give a decimal fraction, 0.97 for 97 %")
DECIMALS = Range(low=0, high=18, code="GM116", remedy="give the number of decimals of the asset's minor unit")


def _id(name: str, meaning: str, *, optional: bool = False, default: str | None = None, derived: str = "") -> Column:
    return Column(name=name, kind="id", meaning=meaning, optional=optional, default=default, derived=derived)


def _enum(
    name: str, choices: tuple[str, ...], meaning: str, *, optional: bool = False, default: str | None = None
) -> Column:
    return Column(name=name, kind="enum", meaning=meaning, choices=choices, optional=optional, default=default)


def _number(
    name: str,
    unit: str,
    meaning: str,
    *,
    allowed: Range | None = None,
    optional: bool = False,
    default: float | None = None,
    derived: str = "",
) -> Column:
    rest = {"allowed": allowed, "optional": optional, "default": default, "derived": derived}
    return Column(name=name, kind="number", unit=unit, meaning=meaning, **rest)  # type: ignore[arg-type]


def _time(name: str, meaning: str, *, optional: bool = False) -> Column:
    return Column(name=name, kind="time", unit="UTC", meaning=meaning, optional=optional)


def _confidence(name: str, meaning: str, *, derived: str = "") -> Column:
    default = None if derived else 1.0
    return _number(name, "fraction", meaning, allowed=CONFIDENCE, default=default, derived=derived)


def _amount(name: str, meaning: str) -> Column:
    return Column(name=name, kind="amount", unit="asset", meaning=meaning)


ACCOUNT = _id("account_id", "account; with pool it names a margin account")
POOL = _id("pool", "pool of margin; pools never net", default="cross")
INSTRUMENT = _id("instrument_id", "contract, a row of instruments")
STAMP = _time("timestamp", "when the value was true", optional=True)
DERIVED_QUOTE = "the settlement asset; USD where inverse"
DERIVED_FORWARD_QUOTE = "the one quote of the underlying's instruments; null where they have several"
DERIVED_DECIMALS = "8; 2 for USD"

INSTRUMENTS = Table(
    "instruments",
    ("instrument_id",),
    (
        INSTRUMENT,
        _enum("kind", ("option", "future", "perpetual", "spot"), "family of contract; spot only for orders"),
        _id("underlying", "asset whose price drives the contract"),
        _id("settlement", "asset in which profit and loss is paid"),
        _id("quote", "currency of strike, mark and forward", derived=DERIVED_QUOTE),
        Column(name="inverse", kind="flag", meaning="paid in coin, sized or struck in quote", default=False),
        _number(
            "contract_size",
            "per contract",
            "underlying (inverse future, digital: quote) in one",
            allowed=POSITIVE_SIZE,
            default=1.0,
        ),
        _number("strike", "quote", "strike of an option", allowed=NOT_NEGATIVE, optional=True),
        _time("expiry", "last instant of an option or future", optional=True),
        _enum("option_type", ("call", "put"), "side of an option", optional=True),
        _enum("payoff", ("vanilla", "digital"), "form of the payoff of an option", default="vanilla"),
        _enum("premium", ("upfront", "futures_style"), "when the price of an option is paid", default="upfront"),
        _number("price_cap", "quote", "highest price of a capped future", allowed=NOT_NEGATIVE, optional=True),
    ),
    required=True,
)

MARKS = Table(
    "marks",
    ("instrument_id",),
    (
        INSTRUMENT,
        _number("mark_price", "quote", "fair price; option: null = from mark_iv", allowed=NOT_NEGATIVE, optional=True),
        _number("mark_iv", "per sqrt-year", "implied vol, decimal", allowed=VOL, optional=True),
        _number("delta", "per 1 of spot", "the venue's own delta", optional=True),
        _number("settlement_price", "quote", "price of an expired contract", allowed=NOT_NEGATIVE, optional=True),
        _number("open_interest", "contracts", "contracts outstanding", allowed=NOT_NEGATIVE, optional=True),
        _number("skew", "contracts", "longs minus shorts open at the venue", optional=True),
        _number("funding_rate", "per hour", "funding paid by longs", optional=True),
        _confidence("confidence", "confidence of the venue's own mark of a perpetual"),
        STAMP,
    ),
    required=True,
)

FORWARDS = Table(
    "forwards",
    ("underlying", "quote", "expiry"),
    (
        _id("underlying", "asset"),
        _id("quote", "currency of the forward", derived=DERIVED_FORWARD_QUOTE),
        _time("expiry", "delivery"),
        _number("forward", "quote", "fair delivery price", allowed=NOT_NEGATIVE),
        _number("rate", "per year", "discount rate, continuous", default=0.0),
        _number("forward_fixed", "quote", "part known from an average, in forward", allowed=NOT_NEGATIVE, default=0.0),
        _confidence("forward_confidence", "confidence of forward"),
        _confidence("rate_confidence", "confidence of rate"),
        _confidence("vol_confidence", "confidence of the vols of this expiry"),
        _number("svi_a", "total variance", "SVI level", optional=True),
        _number("svi_b", "total variance", "SVI slope", allowed=VOL, optional=True),
        _number("svi_rho", "fraction", "SVI skew", allowed=CORRELATION, optional=True),
        _number("svi_m", "log moneyness", "SVI centre", optional=True),
        _number("svi_sigma", "log moneyness", "SVI width", allowed=VOL, optional=True),
        _number("svi_forward", "quote", "forward the SVI was fitted on", allowed=POSITIVE_PRICE, optional=True),
        _number("svi_years", "years", "time the SVI was fitted for", allowed=POSITIVE_TIME, optional=True),
        STAMP,
    ),
    required=True,
)

PRICES = Table(
    "prices",
    ("asset",),
    (
        _id("asset", "asset"),
        _number("price", "USD", "index price of one unit", allowed=NOT_NEGATIVE),
        _number("twap", "USD", "time-weighted average price", allowed=NOT_NEGATIVE, optional=True),
        _confidence("confidence", "confidence of price"),
        _number("collateral_price", "USD", "price used for collateral", allowed=NOT_NEGATIVE, derived="price"),
        _confidence("collateral_confidence", "confidence of collateral_price", derived="confidence"),
        _number("emode_price", "USD", "price inside an efficiency mode", allowed=NOT_NEGATIVE, optional=True),
        STAMP,
    ),
    required=True,
)

ASSETS = Table(
    "assets",
    ("asset",),
    (
        _id("asset", "asset"),
        Column(
            name="decimals",
            kind="integer",
            meaning="minor unit of published money",
            derived=DERIVED_DECIMALS,
            allowed=DECIMALS,
        ),
        _number("total_deposits", "asset", "deposits of the whole lending pool", allowed=NOT_NEGATIVE, optional=True),
        _number("total_borrows", "asset", "borrows of the whole lending pool", allowed=NOT_NEGATIVE, optional=True),
    ),
)

POSITIONS = Table(
    "positions",
    ("account_id", "pool", "instrument_id"),
    (
        ACCOUNT,
        POOL,
        INSTRUMENT,
        _number("quantity", "contracts", "signed, long positive"),
        _number("entry_price", "quote", "average entry; null = settled", allowed=NOT_NEGATIVE, optional=True),
        _number("unsettled", "settlement asset", "cash due and not yet in the balance", default=0.0),
    ),
    required=True,
)

BALANCES = Table(
    "balances",
    ("account_id", "pool", "asset"),
    (
        ACCOUNT,
        POOL,
        _id("asset", "asset"),
        _amount("amount", "signed, negative = borrowed"),
        Column(name="is_collateral", kind="flag", meaning="counts towards margin", default=True),
    ),
    required=True,
)

ACCOUNTS = Table(
    "accounts",
    ("account_id", "pool"),
    (
        ACCOUNT,
        POOL,
        _id("owner_id", "groups accounts in reports, never nets", optional=True),
        _id("model", "model of this margin account", optional=True),
        _id("emode", "efficiency mode of a lending account", optional=True),
    ),
)

ACCOUNT_PARAMETERS = Table(
    "account_parameters",
    ("account_id", "pool", "subject", "name"),
    (
        ACCOUNT,
        POOL,
        _id("subject", "underlying or asset the number is of", optional=True),
        _id("name", "number of the model that is overridden"),
        _number("value", "as the model", "value for this margin account"),
    ),
)

ORDERS = Table(
    "orders",
    ("account_id", "pool", "order_id"),
    (
        ACCOUNT,
        POOL,
        _id("order_id", "order, unique in its margin account"),
        INSTRUMENT,
        _enum("side", ("buy", "sell"), "side of the order"),
        _number("quantity", "contracts", "open size", allowed=NOT_NEGATIVE),
        _number("price", "quote", "limit price", allowed=NOT_NEGATIVE),
    ),
)

FUNDS = Table("funds", ("name",), (_id("name", "fund"), _id("asset", "asset"), _amount("amount", "size of the fund")))
LEDGER = Table("ledger", ("asset",), (_id("asset", "asset"), _amount("total", "what its balances sum to")))

MARKET_TABLES = (INSTRUMENTS, MARKS, FORWARDS, PRICES, ASSETS)
ACCOUNT_TABLES = (POSITIONS, BALANCES, ACCOUNTS, ACCOUNT_PARAMETERS, ORDERS, FUNDS, LEDGER)

TABLES: dict[str, Table] = {table.name: table for table in (*MARKET_TABLES, *ACCOUNT_TABLES)}
"""Every table of a book by name."""
