"""The catalogue of bad inputs: how to spoil the tiny book, and the code, table, row, column and policy it must give."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from tests.books import AS_OF
from tests.faults import FAULTS, INF, NAN, ORDER, SVI, Fault, cell, cell_fault, chain, copied, each, row

if TYPE_CHECKING:
    from tests.faults import Edit, Tables

HUGE, TINY = 1e300, 5e-324
LATER = AS_OF + timedelta(seconds=1)

orders = row("orders", instrument_id="BTC-PERP", pool="cross", **ORDER)
parameters = row("account_parameters", account_id="bob", pool="cross", subject=None, name="im", value=1.0)
owners = chain(*(row("accounts", account_id=who, pool="cross", owner_id="o1") for who in ("alice", "bob")))
funds = row("funds", name="insurance", asset="USDC", amount=1e6)
ledger = row("ledger", asset="USDC", total=210_500.0)
smiles = each("forwards", **SVI)


def added(code: str, first: Edit, table: str, column: str, value: object, *, at: int = 0, policy: str = "Q") -> Fault:
    """A bad cell of a table or column that the tiny book has only once `first` has added it."""
    name = f"{table}-{column}-{value if value != '' else 'empty'}"
    return Fault(
        ascii(name)[1:41], chain(first, cell(table, at, column, value)), code, table, at, column, policy=policy
    )


def twice(table: str, column: str, first: Edit, number: int, at: int) -> Fault:
    """A row that stands there a second time."""
    return Fault(f"{table}-twice", chain(first, copied(table, number)), "GM104", table, at, column, policy="F")


def odd(name: str, edit: Edit, code: str, table: str, number: int | None, column: str) -> Fault:
    """Something that is told and used."""
    return Fault(name, edit, code, table, number, column, policy="W")


def without_last_balance(book: Tables) -> Tables:
    return {**book, "balances": book["balances"][:7]}


def cells(code: str, number: int, value: object, *columns: str, policy: str = "Q") -> list[Fault]:
    """The same value in one row of several columns, `table.column`."""
    split = (column.split(".") for column in columns)
    return [cell_fault(code, table, number, column, value, policy) for table, column in split]


def future(table: str, number: int) -> Fault:
    """A value of a second after the snapshot."""
    edit = cell(table, number, "timestamp", LATER)
    return Fault(f"{table}-of-the-future", edit, "GM108", table, number, "timestamp", {"as_of": AS_OF}, "F")


def stale(table: str, number: int) -> Fault:
    """A value of an hour before the snapshot, where a quarter of one is allowed."""
    edit = cell(table, number, "timestamp", AS_OF - timedelta(hours=1))
    options = {"max_age": timedelta(minutes=15)}
    return Fault(f"stale-{table}", edit, "GM108", table, number, "timestamp", options, "F")


def same(book: Tables) -> Tables:
    return book


def decimal_amounts(text: str) -> Edit:
    """Balances as decimals of 12 digits after the point, the first of them this."""

    def edit(book: Tables) -> Tables:
        exact = book["balances"]["amount"].cast(pl.Decimal(38, 12)).to_list()
        values = pl.Series("amount", [text, *map(str, exact[1:])]).str.to_decimal(scale=12).cast(pl.Decimal(38, 12))
        return {**book, "balances": book["balances"].with_columns(values)}

    return edit


MORE = [
    # nothing where something must be; in a key it ends every run, for nobody knows whose the row is
    *cells("GM102", 1, None, "positions.instrument_id", "balances.account_id", "balances.asset", policy="F"),
    *cells("GM102", 1, None, "forwards.underlying", "forwards.expiry", "prices.asset", policy="F"),
    *cells("GM102", 1, None, "marks.instrument_id", "instruments.instrument_id", policy="F"),
    *cells("GM102", 1, None, "balances.amount", "prices.price", "instruments.underlying", "instruments.settlement"),
    added("GM102", orders, "orders", "side", None),
    added("GM102", orders, "orders", "quantity", None),
    added("GM102", orders, "orders", "order_id", None, policy="F"),
    added("GM102", parameters, "account_parameters", "value", None),
    added("GM102", parameters, "account_parameters", "name", None, policy="F"),
    added("GM102", owners, "accounts", "account_id", None, policy="F"),
    added("GM102", funds, "funds", "amount", None),
    added("GM102", funds, "funds", "name", None, policy="F"),
    added("GM102", ledger, "ledger", "total", None, policy="F"),
    # numbers that are none
    cell_fault("GM103", "marks", 6, "mark_price", NAN),
    cell_fault("GM103", "marks", 6, "open_interest", INF),
    cell_fault("GM103", "marks", 6, "funding_rate", -INF),
    cell_fault("GM103", "forwards", 0, "forward", NAN),
    cell_fault("GM103", "forwards", 3, "rate", INF),
    cell_fault("GM103", "prices", 0, "price", NAN),
    cell_fault("GM103", "prices", 2, "twap", NAN),
    cell_fault("GM103", "balances", 0, "amount", NAN),
    cell_fault("GM103", "balances", 7, "amount", INF),
    cell_fault("GM103", "instruments", 3, "strike", NAN),
    cell_fault("GM103", "instruments", 3, "contract_size", INF),
    cell_fault("GM103", "positions", 9, "unsettled", NAN),
    cell_fault("GM103", "positions", 0, "quantity", -INF),
    cell_fault("GM103", "assets", 0, "total_deposits", INF),
    added("GM103", smiles, "forwards", "svi_a", NAN),
    added("GM103", parameters, "account_parameters", "value", INF),
    added("GM103", orders, "orders", "price", NAN),
    added("GM103", ledger, "ledger", "total", INF, policy="F"),
    # one key, two rows
    twice("balances", "asset", same, 3, 8),
    twice("marks", "instrument_id", same, 6, 7),
    twice("assets", "asset", same, 1, 3),
    twice("accounts", "pool", owners, 0, 2),
    twice("orders", "order_id", orders, 0, 1),
    twice("account_parameters", "name", parameters, 0, 1),
    twice("funds", "name", funds, 0, 1),
    twice("ledger", "asset", ledger, 0, 1),
    # ids that stand nowhere: first row, last row, a number as text, the length of the table
    cell_fault("GM105", "positions", 0, "instrument_id", "BTC-PERP "),
    cell_fault("GM105", "positions", 9, "instrument_id", "-1"),
    cell_fault("GM105", "positions", 4, "instrument_id", "7"),
    cell_fault("GM105", "positions", 4, "instrument_id", "btc-perp"),
    cell_fault("GM105", "balances", 0, "asset", "usdc"),
    cell_fault("GM105", "balances", 7, "asset", "../../etc/passwd"),
    cell_fault("GM105", "instruments", 0, "underlying", "=cmd|'/c calc'!A1"),
    cell_fault("GM105", "instruments", 5, "settlement", "<script>alert(1)</script>"),
    # values of the future
    future("prices", 1),
    future("forwards", 2),
    stale("prices", 2),
    stale("forwards", 0),
    stale("marks", 6),
    # prices below nothing
    *cells("GM109", 2, -1e-9, "prices.twap", "prices.collateral_price", "prices.emode_price", "instruments.price_cap"),
    *cells("GM109", 2, -1e-9, "marks.settlement_price", "marks.open_interest", "forwards.forward_fixed"),
    cell_fault("GM109", "assets", 1, "total_borrows", -1.0),
    added("GM109", orders, "orders", "price", -1.0),
    added("GM109", orders, "orders", "quantity", -1.0),
    added("GM109", smiles, "forwards", "svi_forward", 0.0),
    # vols and times in other units
    cell_fault("GM110", "marks", 0, "mark_iv", -1e-12),
    cell_fault("GM110", "marks", 4, "mark_iv", 5.000001),
    added("GM110", smiles, "forwards", "svi_rho", 1.01),
    added("GM110", smiles, "forwards", "svi_sigma", -0.1),
    added("GM111", smiles, "forwards", "svi_years", 0.0),
    cell_fault("GM111", "instruments", 1, "expiry", AS_OF),
    cell_fault("GM111", "instruments", 1, "expiry", datetime(1970, 1, 21, tzinfo=UTC)),
    # words that are none
    *(cell_fault("GM112", "instruments", 4, "option_type", word) for word in ("", "c", "CALL", "2")),
    cell_fault("GM112", "instruments", 4, "payoff", "binary"),
    cell_fault("GM112", "instruments", 4, "premium", "later"),
    cell_fault("GM112", "instruments", 6, "kind", "\x1b[31mperpetual"),
    cell_fault("GM112", "instruments", 6, "contract_size", -1e-12),
    added("GM112", orders, "orders", "side", ""),
    # shares beyond a whole
    cell_fault("GM113", "prices", 1, "collateral_confidence", -0.01),
    cell_fault("GM113", "prices", 1, "confidence", 97.0),
    cell_fault("GM113", "forwards", 0, "rate_confidence", 1.000001),
    cell_fault("GM113", "forwards", 0, "forward_confidence", -1.0),
    cell_fault("GM113", "marks", 5, "confidence", 2.0),
    # digits and sizes that minor units cannot hold
    cell_fault("GM116", "assets", 0, "decimals", 2**31),
    Fault("finer-than-the-asset", decimal_amounts("120000.0000001"), "GM116", "balances", 0, "amount"),
    *cells("GM117", 1, HUGE, "positions.quantity", "balances.amount", "marks.mark_price", "prices.price", policy="F"),
    *cells("GM117", 1, HUGE, "forwards.forward", "instruments.strike", "instruments.contract_size", policy="F"),
    *cells("GM117", 1, HUGE, "assets.total_deposits", policy="F"),
    *cells("GM117", 1, TINY, "positions.quantity", "balances.amount", "marks.mark_price", "prices.price", policy="F"),
    *cells("GM117", 1, -HUGE, "positions.quantity", "forwards.rate", policy="F"),
    *cells("GM117", 1, 2.0**62, "positions.quantity", policy="F"),
    *cells("GM117", 1, -(2.0**63), "balances.amount", policy="F"),
    cell_fault("GM117", "positions", 2, "quantity", 1e15, "F"),
    cell_fault("GM117", "balances", 1, "amount", 1e14, "F"),
    added("GM117", funds, "funds", "amount", HUGE, policy="F"),
    # ids that are not what they look like
    *(
        cell_fault("GM118", "balances", 6, "account_id", word)
        for word in ("dave\x00", "da\u200bve", "\ufeffdave", "\x1b[2Jdave", "x" * 1_000_000, "dave\r", "\u2066dave")
    ),
    cell_fault("GM118", "balances", 7, "pool", "isolated\t1"),
    cell_fault("GM118", "balances", 7, "pool", ""),
    cell_fault("GM118", "positions", 9, "pool", "\u202eisolated-1"),
    added("GM118", owners, "accounts", "owner_id", "o\u202e1"),
    added("GM118", owners, "accounts", "emode", "e\n"),
    added("GM118", orders, "orders", "order_id", "\u200e1"),
    added("GM118", funds, "funds", "name", ""),
]

WARNINGS = [
    odd("no-balance", without_last_balance, "GM106", "positions", 9, "account_id"),
    odd("price-above-its-forward", cell("marks", 1, "mark_price", 90_000.0), "GM109", "marks", 1, "mark_price"),
    odd(
        "price-below-intrinsic",
        chain(cell("instruments", 1, "strike", 60_000.0), cell("marks", 1, "mark_price", 8_000.0)),
        "GM109",
        "marks",
        1,
        "mark_price",
    ),
    odd("twin-by-case", cell("balances", 6, "account_id", "Dave"), "GM118", "accounts", None, "account_id"),
    odd("twin-by-width", cell("balances", 6, "account_id", "\uff44ave"), "GM118", "accounts", None, "account_id"),
    odd("asset-twin", row("prices", asset="usdc", price=1.0), "GM118", "prices", None, "asset"),
    odd(
        "contract-twin",
        row("instruments", instrument_id="btc-perp", kind="perpetual", underlying="BTC", settlement="USDC"),
        "GM118",
        "instruments",
        None,
        "instrument_id",
    ),
]
CASES = [*FAULTS, *MORE, *WARNINGS]
"""Every case; those that reading already refuses are in `UNREADABLE`."""


def with_column(table: str, **columns: pl.Expr) -> Edit:
    """Columns replaced or added."""
    return lambda book: {**book, table: book[table].with_columns(**columns)}


def dropped(table: str, column: str) -> Edit:
    """The table without a column."""
    return lambda book: {**book, table: book[table].drop(column)}


FINE = pl.lit("0.1").str.to_decimal(scale=19)
UNREADABLE: dict[str, tuple[Edit, str, str, str]] = {
    "missing-table": (lambda book: {n: f for n, f in book.items() if n != "prices"}, "GM101", "prices", ""),
    "missing-column": (dropped("balances", "amount"), "GM101", "balances", "amount"),
    "extra-column": (with_column("positions", qty=pl.lit(1.0)), "GM101", "positions", "qty"),
    "number-as-text": (with_column("balances", amount=pl.lit("1e5")), "GM101", "balances", "amount"),
    "number-with-commas": (with_column("positions", quantity=pl.lit("1,000")), "GM101", "positions", "quantity"),
    "number-in-a-list": (with_column("marks", mark_iv=pl.concat_list("mark_iv")), "GM101", "marks", "mark_iv"),
    "record-for-an-id": (with_column("positions", account_id=pl.struct("pool")), "GM101", "positions", "account_id"),
    "id-as-float": (with_column("positions", account_id=pl.lit(1.5)), "GM101", "positions", "account_id"),
    "flag-as-number": (with_column("instruments", inverse=pl.lit(2)), "GM101", "instruments", "inverse"),
    "flag-as-word": (with_column("balances", is_collateral=pl.lit("yes")), "GM101", "balances", "is_collateral"),
    "time-as-number": (with_column("instruments", expiry=pl.lit(20_600)), "GM101", "instruments", "expiry"),
    "date-for-a-time": (with_column("forwards", expiry=pl.col("expiry").dt.date()), "GM101", "forwards", "expiry"),
    "decimals-as-float": (with_column("assets", decimals=pl.lit(6.0)), "GM101", "assets", "decimals"),
    "nineteen-decimals": (with_column("balances", amount=FINE), "GM116", "balances", "amount"),
    "time-of-another-age": (
        with_column("prices", timestamp=pl.lit(9_000_000_000_000_000_000).cast(pl.Datetime("us", "UTC"))),
        "GM101",
        "prices",
        "timestamp",
    ),
}
"""What no row can be blamed for: it ends every run while the book is read."""
