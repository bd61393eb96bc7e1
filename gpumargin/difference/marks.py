"""Mark prices on the way from one market to another: settlements, and options marked off their model price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

import polars as pl
import pyarrow as pa

from gpumargin.greeks import Statement, market_greeks
from gpumargin.schema import USD
from gpumargin.tables import Book

Frames = Mapping[str, pl.DataFrame]
_TIME = pl.Datetime("us", "UTC")
_FORWARD = ("underlying", "quote", "expiry")
# The runs have judged their vols and tenors, each by the limits of its own models.
_ANY = Statement(vol_limit=math.inf, tenor_limit_years=math.inf)


def _listed(frames: Frames) -> pl.DataFrame:
    """Every instrument with its mark; `forward` is that of its expiry."""
    forwards = frames["forwards"].select(*_FORWARD, "forward")
    instruments = frames["instruments"].join(forwards, on=list(_FORWARD), how="left", maintain_order="left")
    return instruments.join(frames["marks"], on="instrument_id", how="left", maintain_order="left")


def settled_marks(frames: Frames, settlements: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    """Marks with a settlement price for all that expires between two instants: what the market says of it before.

    Args:
      frames: the market, prices as they were at `start`.
      settlements: marks with the settlement prices as they came to be, on the same rows.
      start: the earlier instant.
      end: the later one.

    Returns:
      `marks`; of what expires after `start` and not after `end` the settlement price is the forward of an option and
      the mark of a future, and as it came to be where the market does not say.
    """
    expiry, marks = pl.col("expiry"), frames["marks"]
    listed = _listed(frames).with_columns(settlements["settlement_price"].alias("final"))
    expires = (expiry > pl.lit(start).cast(_TIME)) & (expiry <= pl.lit(end).cast(_TIME))
    said = pl.when(pl.col("kind") == "option").then("forward").otherwise("mark_price")
    own = pl.when(expires).then(pl.coalesce("settlement_price", said, "final")).otherwise("settlement_price")
    return marks.with_columns(listed.select(own.alias("settlement_price"))["settlement_price"])


def marked_options(frames: Frames, as_of: datetime) -> pl.Series:
    """Which rows of marks are of a live option with a price of its own."""
    is_marked = (pl.col("kind") == "option") & (pl.col("expiry") > as_of) & pl.col("mark_price").is_not_null()
    return _listed(frames).select(is_marked.alias("marked"))["marked"]


def model_prices(tables: Mapping[str, pa.Table], as_of: datetime) -> pl.Series:
    """What the model price of every instrument is, per unit of underlying as its mark price; NaN where there is none.

    Args:
      tables: a market whose options have no mark prices.
      as_of: instant of valuation.
    """
    book = Book(tables)
    greeks = market_greeks(book, statement=_ANY, as_of=as_of).select(["instrument_id", "value"])
    found = pl.DataFrame(pl.from_arrow(greeks))
    price = {USD: 1.0, **dict(book.frame("prices").select(pl.col("asset").cast(pl.String), "price").iter_rows())}
    terms = book.frame("instruments").select(pl.col("instrument_id", "settlement").cast(pl.String), "contract_size")
    joined = terms.join(found, on="instrument_id", how="left", maintain_order="left")
    paid = pl.col("settlement").replace_strict(price, default=None, return_dtype=pl.Float64)
    value = pl.col("value") / (pl.col("contract_size") * paid)
    return joined.select(value.fill_null(math.nan).alias("model_price"))["model_price"]


def without_option_marks(frames: Frames) -> dict[str, pl.DataFrame]:
    """The market with options priced from their vols alone."""
    kind = _listed(frames)["kind"]
    bare = frames["marks"].with_columns(pl.when(kind != "option").then("mark_price").alias("mark_price"))
    return {**frames, "marks": bare}


def moved_marks(frames: Frames, marked: pl.Series, change: pl.Series) -> dict[str, pl.DataFrame]:
    """The market with the marks of options moved by the change of their model prices, never below 0."""
    moved = pl.max_horizontal(pl.col("mark_price") + change.fill_nan(0.0), 0.0)
    marks = frames["marks"].with_columns(pl.when(marked).then(moved).otherwise("mark_price").alias("mark_price"))
    return {**frames, "marks": marks}
