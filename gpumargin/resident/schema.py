"""The tables of a block that are no tables of a book."""

from __future__ import annotations

from gpumargin.schema import ACCOUNT, INSTRUMENT, NOT_NEGATIVE, POOL, TABLES, Column, Table

_SETTLEMENT = "settlement asset"
FILLS = Table(
    "fills",
    (),
    (
        ACCOUNT,
        POOL,
        INSTRUMENT,
        Column(name="quantity", kind="number", unit="contracts", meaning="signed, bought positive"),
        Column(name="price", kind="number", unit="quote", meaning="price of the trade", allowed=NOT_NEGATIVE),
        Column(name="fee", kind="number", unit=_SETTLEMENT, meaning="paid by the account", default=0.0),
    ),
)
TRANSFERS = Table(
    "transfers",
    (),
    (
        ACCOUNT,
        POOL,
        Column(name="asset", kind="id", meaning="asset"),
        Column(name="amount", kind="amount", unit="asset", meaning="signed, received positive"),
    ),
)
SETTLEMENTS = Table(
    "settlements",
    ("instrument_id",),
    (
        INSTRUMENT,
        Column(
            name="price",
            kind="number",
            unit="quote",
            meaning="settlement price of the underlying",
            allowed=NOT_NEGATIVE,
        ),
    ),
)
MARKET = ("marks", "prices", "forwards")
OF_BOOK = ("instruments", "accounts", "orders")
BLOCK_TABLES: dict[str, Table] = {
    **{table.name: table for table in (FILLS, TRANSFERS, SETTLEMENTS)},
    **{name: TABLES[name] for name in (*OF_BOOK, *MARKET)},
}
"""Every table of a block by name."""
