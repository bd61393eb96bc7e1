"""A valid book small enough to check by hand, and the few moves tests make with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

AS_OF = datetime(2026, 3, 5, 8, tzinfo=UTC)
NEAR = datetime(2026, 3, 27, 8, tzinfo=UTC)
FAR = datetime(2026, 6, 26, 8, tzinfo=UTC)
ETHER_OPTIONS = ("ETH-20260327-2000-P", "ETH-20260626-2500-C")
TIME = pl.Datetime("us", "UTC")


def instruments() -> pl.DataFrame:
    """Five options on two underlyings and two perpetuals, all linear and paid in USDC."""
    rows = [
        ("BTC-20260327-60000-P", "option", "BTC", 60_000.0, NEAR, "put"),
        ("BTC-20260327-70000-C", "option", "BTC", 70_000.0, NEAR, "call"),
        ("BTC-20260626-80000-C", "option", "BTC", 80_000.0, FAR, "call"),
        ("ETH-20260327-2000-P", "option", "ETH", 2_000.0, NEAR, "put"),
        ("ETH-20260626-2500-C", "option", "ETH", 2_500.0, FAR, "call"),
        ("BTC-PERP", "perpetual", "BTC", None, None, None),
        ("ETH-PERP", "perpetual", "ETH", None, None, None),
    ]
    columns = ("instrument_id", "kind", "underlying", "strike", "expiry", "option_type")
    schema = dict(zip(columns, (pl.String, pl.String, pl.String, pl.Float64, TIME, pl.String), strict=True))
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(settlement=pl.lit("USDC"))


def marks() -> pl.DataFrame:
    """A vol per option (two with a mark price too), a price, open interest and skew per perpetual."""
    rows = [
        ("BTC-20260327-60000-P", None, 0.62, None, None, None),
        ("BTC-20260327-70000-C", 2_400.0, 0.55, None, None, None),
        ("BTC-20260626-80000-C", None, 0.58, None, None, None),
        ("ETH-20260327-2000-P", 60.0, 0.75, None, None, None),
        ("ETH-20260626-2500-C", None, 0.72, None, None, None),
        ("BTC-PERP", 68_050.0, None, 5_200.0, 340.0, 1e-5),
        ("ETH-PERP", 2_205.0, None, 61_000.0, -1_500.0, -2e-6),
    ]
    columns = ("instrument_id", "mark_price", "mark_iv", "open_interest", "skew", "funding_rate")
    schema = {name: pl.String if name == "instrument_id" else pl.Float64 for name in columns}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(timestamp=pl.lit(AS_OF, TIME))


def forwards() -> pl.DataFrame:
    """Two expiries of each underlying, quoted in USDC."""
    rows = [
        ("BTC", "USDC", NEAR, 68_300.0, 0.04),
        ("BTC", "USDC", FAR, 69_200.0, 0.045),
        ("ETH", "USDC", NEAR, 2_212.0, 0.04),
        ("ETH", "USDC", FAR, 2_240.0, 0.045),
    ]
    schema = {"underlying": pl.String, "quote": pl.String, "expiry": TIME, "forward": pl.Float64, "rate": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(timestamp=pl.lit(AS_OF, TIME))


def prices() -> pl.DataFrame:
    """USD prices of the three assets."""
    values = {"asset": ["USDC", "BTC", "ETH"], "price": [1.0, 68_000.0, 2_200.0]}
    return pl.DataFrame(values).with_columns(timestamp=pl.lit(AS_OF, TIME))


def positions() -> pl.DataFrame:
    """alice: a hedged option book; bob: short puts; carol: long perpetuals on credit; dave: one isolated position."""
    rows = [
        ("alice", "cross", "BTC-20260327-70000-C", 10.0, None),
        ("alice", "cross", "BTC-20260626-80000-C", -10.0, None),
        ("alice", "cross", "BTC-PERP", -1.5, 67_000.0),
        ("alice", "cross", "ETH-20260626-2500-C", 25.0, None),
        ("bob", "cross", "BTC-20260327-60000-P", -4.0, None),
        ("bob", "cross", "ETH-20260327-2000-P", -30.0, None),
        ("bob", "cross", "ETH-PERP", -12.0, 2_250.0),
        ("carol", "cross", "BTC-PERP", 0.5, 70_000.0),
        ("carol", "cross", "ETH-PERP", 20.0, 2_100.0),
        ("dave", "isolated-1", "ETH-PERP", 40.0, 2_190.0),
    ]
    columns = ("account_id", "pool", "instrument_id", "quantity", "entry_price")
    schema = dict(zip(columns, (pl.String, pl.String, pl.String, pl.Float64, pl.Float64), strict=True))
    return pl.DataFrame(rows, schema=schema, orient="row")


def balances() -> pl.DataFrame:
    """Cash and coins; carol has borrowed 15,000 USDC against hers."""
    rows = [
        ("alice", "cross", "USDC", 120_000.0),
        ("alice", "cross", "BTC", 2.0),
        ("bob", "cross", "USDC", 95_000.0),
        ("carol", "cross", "USDC", -15_000.0),
        ("carol", "cross", "BTC", 0.4),
        ("carol", "cross", "ETH", 12.0),
        ("dave", "cross", "USDC", 1_000.0),
        ("dave", "isolated-1", "USDC", 9_500.0),
    ]
    schema = {"account_id": pl.String, "pool": pl.String, "asset": pl.String, "amount": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def assets() -> pl.DataFrame:
    """Minor units of the three assets."""
    return pl.DataFrame({"asset": ["USDC", "BTC", "ETH"], "decimals": [6, 8, 8]})


def tiny_book() -> dict[str, pl.DataFrame]:
    """Two underlyings, seven instruments, four accounts in five pools, three assets; valid in every rule at `AS_OF`."""
    makers = (instruments, marks, forwards, prices, assets, positions, balances)
    return {make.__name__: make() for make in makers}


def with_cell(
    book: Mapping[str, pl.DataFrame], table: str, *, row: int, column: str, value: object
) -> dict[str, pl.DataFrame]:
    """The book with one cell of one table replaced; a column that is not there yet is added (null elsewhere)."""
    frame = book[table]
    cells = frame[column].to_list() if column in frame.columns else [None] * frame.height
    cells[row] = value
    dtype = frame.schema.get(column)
    fits = dtype is not None and not (dtype.is_integer() and isinstance(value, float))
    series = pl.Series(column, cells, dtype=dtype if fits else None, strict=False)
    return {**book, table: frame.with_columns(series)}


def without_ether_vols(book: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The book without vol and price of any option on ETH: nothing says their vols, and nothing can fill them."""
    is_known = ~pl.col("instrument_id").is_in(ETHER_OPTIONS)
    said = [pl.when(is_known).then(name).alias(name) for name in ("mark_iv", "mark_price")]
    return {**book, "marks": book["marks"].with_columns(said)}


def with_row(book: Mapping[str, pl.DataFrame], table: str, **cells: object) -> dict[str, pl.DataFrame]:
    """The book with one row appended to a table; columns not named are null."""
    new = pl.DataFrame({name: [value] for name, value in cells.items()})
    old = book.get(table, new.clear())
    new = new.cast({name: dtype for name, dtype in old.schema.items() if name in cells})
    return {**book, table: pl.concat([old, new], how="diagonal")}


def write_book(folder: Path, book: Mapping[str, pl.DataFrame]) -> Path:
    """Writes every table as `NAME.parquet` with page checksums; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in book.items():
        pq.write_table(frame.to_arrow(), folder / f"{name}.parquet", write_page_checksum=True)
    return folder
