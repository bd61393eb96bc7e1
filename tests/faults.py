"""Faults of a book as data: an edit of the valid one, and the failure it must give."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from tests.books import AS_OF, FAR, NEAR, with_cell, with_row

if TYPE_CHECKING:
    from collections.abc import Callable

    Tables = dict[str, pl.DataFrame]
    Edit = Callable[[Tables], Tables]

SVI = {
    "svi_a": 0.01,
    "svi_b": 0.1,
    "svi_rho": -0.2,
    "svi_m": 0.0,
    "svi_sigma": 0.2,
    "svi_forward": 2_000.0,
    "svi_years": 0.1,
}


@dataclass(frozen=True)
class Fault:
    """An edit of the valid book and the first failure it must give; `row` counts within the whole table.

    `policy` is what becomes of the row in a run that puts bad rows into quarantine: Q, it is taken out; F, it ends the
    run all the same; W, it is counted and used.
    """

    name: str
    edit: Edit
    code: str
    table: str
    row: int | None
    column: str
    options: dict[str, Any] = field(default_factory=dict)
    policy: str = "Q"


def cell(table: str, row: int, column: str, value: object) -> Edit:
    """One cell replaced."""
    return lambda book: with_cell(book, table, row=row, column=column, value=value)


def row(table: str, **cells: object) -> Edit:
    """One row appended."""
    return lambda book: with_row(book, table, **cells)


def copied(table: str, number: int) -> Edit:
    """One row repeated at the end."""
    return lambda book: {**book, table: pl.concat([book[table], book[table][number]])}


def without(table: str, column: str, value: object) -> Edit:
    """Rows with one value of a column left out."""
    return lambda book: {**book, table: book[table].filter(pl.col(column) != value)}


def each(table: str, **values: object) -> Edit:
    """The same values in every row."""
    return lambda book: {**book, table: book[table].with_columns(**{name: pl.lit(v) for name, v in values.items()})}


def chain(*edits: Edit) -> Edit:
    """Several edits, one after the other."""

    def edit(book: Tables) -> Tables:
        for step in edits:
            book = step(book)
        return book

    return edit


def cell_fault(code: str, table: str, number: int, column: str, value: object, policy: str = "Q") -> Fault:
    """A fault that one bad cell makes and that is reported at that cell."""
    name = f"{table}-{column}-{value if value != '' else 'empty'}"
    return Fault(ascii(name)[1:41], cell(table, number, column, value), code, table, number, column, policy=policy)


inverse_perpetual = chain(
    cell("instruments", 5, "inverse", True), each("instruments", quote="USDC"), each("instruments", settlement="BTC")
)
no_vol_of_bitcoin = chain(
    *(cell("marks", number, "mark_iv", None) for number in range(3)), cell("marks", 1, "mark_price", None)
)
TOO_FAR = datetime(2037, 1, 1, tzinfo=UTC)
NAN, INF = float("nan"), float("inf")
ORDER = {"account_id": "bob", "order_id": "1", "side": "buy", "quantity": 1.0, "price": 1.0}

FAULTS = [
    cell_fault("GM102", "positions", 7, "quantity", None),
    cell_fault("GM102", "positions", 2, "account_id", None, "F"),
    cell_fault("GM102", "instruments", 3, "kind", None),
    cell_fault("GM102", "forwards", 0, "forward", None),
    cell_fault("GM102", "forwards", 2, "svi_a", 0.02),
    cell_fault("GM103", "positions", 8, "quantity", NAN),
    cell_fault("GM103", "positions", 2, "entry_price", INF),
    cell_fault("GM103", "balances", 6, "amount", -INF),
    cell_fault("GM103", "marks", 1, "mark_iv", NAN),
    cell_fault("GM103", "prices", 1, "confidence", INF),
    Fault("position-twice", copied("positions", 4), "GM104", "positions", 10, "instrument_id", policy="F"),
    Fault("instrument-twice", copied("instruments", 0), "GM104", "instruments", 7, "instrument_id", policy="F"),
    Fault("forward-twice", copied("forwards", 3), "GM104", "forwards", 4, "expiry", policy="F"),
    Fault("price-twice", copied("prices", 0), "GM104", "prices", 3, "asset", policy="F"),
    cell_fault("GM105", "positions", 9, "instrument_id", "SOL-PERP"),
    Fault(
        "mark-of-unlisted", row("marks", instrument_id="SOL-PERP", mark_price=1.0), "GM105", "marks", 7, "instrument_id"
    ),
    Fault("order-of-unlisted", row("orders", instrument_id="SOL-PERP", **ORDER), "GM105", "orders", 0, "instrument_id"),
    cell_fault("GM105", "balances", 5, "asset", "DOGE"),
    Fault("fund-of-unpriced", row("funds", name="insurance", asset="DOGE", amount=1.0), "GM105", "funds", 0, "asset"),
    cell_fault("GM105", "instruments", 6, "underlying", "DOGE"),
    cell_fault("GM105", "instruments", 6, "settlement", "USDT"),
    Fault(
        "parameter-of-unknown-pool",
        row("account_parameters", account_id="bob", pool="isolated-1", name="im", value=1.0),
        "GM106",
        "account_parameters",
        0,
        "account_id",
    ),
    Fault(
        "parameter-of-unknown",
        row("account_parameters", account_id="eve", name="im", value=1.0),
        "GM106",
        "account_parameters",
        0,
        "account_id",
    ),
    Fault(
        "order-of-unknown",
        row("orders", instrument_id="BTC-PERP", **{**ORDER, "account_id": "eve"}),
        "GM106",
        "orders",
        0,
        "account_id",
    ),
    Fault("mark-missing", without("marks", "instrument_id", "ETH-PERP"), "GM107", "instruments", 6, "instrument_id"),
    cell_fault("GM107", "marks", 5, "mark_price", None),
    Fault("no-vol-of-its-underlying", no_vol_of_bitcoin, "GM107", "marks", 0, "mark_iv"),
    Fault(
        "no-mark-and-no-vol-of-its-underlying",
        chain(no_vol_of_bitcoin, without("marks", "instrument_id", "BTC-20260327-60000-P")),
        "GM107",
        "instruments",
        0,
        "instrument_id",
    ),
    Fault("forward-missing", without("forwards", "expiry", FAR), "GM107", "instruments", 2, "expiry"),
    Fault(
        "mark-of-the-future", lambda book: book, "GM108", "marks", 0, "timestamp", {"as_of": AS_OF - timedelta(1)}, "F"
    ),
    cell_fault("GM109", "prices", 1, "price", -1.0),
    cell_fault("GM109", "instruments", 1, "strike", -70_000.0),
    cell_fault("GM109", "forwards", 3, "forward", -0.01),
    cell_fault("GM109", "marks", 6, "mark_price", -1e-9),
    cell_fault("GM109", "positions", 6, "entry_price", -2_250.0),
    Fault(
        "dead-accounting-asset", cell("prices", 0, "price", 0.0), "GM109", "prices", 0, "price", {"accounting": "USDC"}
    ),
    Fault(
        "inverse-mark-zero",
        chain(inverse_perpetual, cell("marks", 5, "mark_price", 0.0)),
        "GM109",
        "marks",
        5,
        "mark_price",
    ),
    Fault(
        "inverse-entry-zero",
        chain(inverse_perpetual, cell("positions", 7, "entry_price", 0.0)),
        "GM109",
        "positions",
        7,
        "entry_price",
    ),
    cell_fault("GM110", "marks", 3, "mark_iv", -0.75),
    cell_fault("GM110", "marks", 3, "mark_iv", 75.0),
    Fault("svi-slope-negative", each("forwards", **{**SVI, "svi_b": -0.1}), "GM110", "forwards", 0, "svi_b"),
    Fault("expired", lambda book: book, "GM111", "instruments", 0, "expiry", {"as_of": NEAR}),
    Fault(
        "expiry-in-ten-years",
        chain(cell("instruments", 4, "expiry", TOO_FAR), cell("forwards", 3, "expiry", TOO_FAR)),
        "GM111",
        "instruments",
        4,
        "expiry",
    ),
    Fault("svi-time-in-days", each("forwards", **{**SVI, "svi_years": 22.0}), "GM111", "forwards", 0, "svi_years"),
    cell_fault("GM112", "instruments", 2, "option_type", "C"),
    cell_fault("GM112", "instruments", 2, "option_type", None),
    cell_fault("GM112", "instruments", 2, "strike", None),
    cell_fault("GM112", "instruments", 2, "expiry", None),
    cell_fault("GM112", "instruments", 5, "kind", "perp"),
    cell_fault("GM112", "instruments", 5, "kind", "spot"),
    cell_fault("GM112", "instruments", 0, "contract_size", 0.0),
    cell_fault("GM112", "instruments", 0, "contract_size", -1.0),
    Fault("kind-without-margin", lambda book: book, "GM112", "instruments", 0, "kind", {"kinds": ["perpetual"]}),
    Fault(
        "order-side", row("orders", instrument_id="BTC-PERP", **{**ORDER, "side": "BUY"}), "GM112", "orders", 0, "side"
    ),
    cell_fault("GM113", "prices", 2, "confidence", 1.01),
    cell_fault("GM113", "forwards", 1, "vol_confidence", -0.1),
    cell_fault("GM116", "assets", 1, "decimals", 19),
    cell_fault("GM116", "assets", 1, "decimals", -1),
    cell_fault("GM118", "balances", 3, "account_id", "x" * 257),
    cell_fault("GM118", "balances", 3, "account_id", ""),
    cell_fault("GM118", "balances", 3, "account_id", "car\u202eol"),
    cell_fault("GM118", "balances", 3, "account_id", "carol\n"),
    Fault("ledger", row("ledger", asset="USDC", total=210_500.01), "GM120", "ledger", 0, "total", policy="F"),
]
