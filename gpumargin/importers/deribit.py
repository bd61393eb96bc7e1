"""One snapshot of a Deribit option chain as a book folder: instruments, marks, forwards, prices, assets.

The file is Parquet, one row per option and snapshot, in the columns a collector of Deribit's public book summaries
writes (`CHAIN_COLUMNS`). Measured on a file of 206 such snapshots and relied on here: prices are in coin, strikes,
underlyings and the index in USD, `implied_volatility` is a decimal, open interest counts contracts of one coin, and
every expiry ends at 08:00 UTC. Price, IV and underlying of a row come from one call; the file's `delta` and `vega`
were fetched minutes later, so they are not carried over: compute them from the IV.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl

from gpumargin.errors import InputError, UsageError
from gpumargin.failures import failure_frame
from gpumargin.importers._chain import CHAIN_COLUMNS, chain_failure, find_snapshot, scan_chain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

__all__ = ["ASSUMPTIONS", "CHAIN_COLUMNS", "ImportSummary", "Settle", "import_deribit_chain"]

Settle = Literal["inverse", "linear-usdc"]

_DECIMALS = {"USD": 2, "USDC": 6}
_COIN_DECIMALS = 8
# A book without positions is one without rows: so that it can be checked and priced as it stands.
_NO_HOLDINGS: Mapping[str, Mapping[str, type[pl.DataType]]] = {
    "positions": {"account_id": pl.String, "instrument_id": pl.String, "quantity": pl.Float64},
    "balances": {"account_id": pl.String, "asset": pl.String, "amount": pl.Float64},
}
ASSUMPTIONS = ("1 USDC = 1 USD: the chain carries no price of USDC",)


class _Style(NamedTuple):
    """How the contracts of one currency are written down; `settlement` None means the currency itself."""

    settlement: str | None
    quote: str
    inverse: bool
    infix: str
    keeps_mark: bool


_STYLES: Mapping[str, _Style] = {
    "inverse": _Style(settlement=None, quote="USD", inverse=True, infix="", keeps_mark=True),
    "linear-usdc": _Style(settlement="USDC", quote="USDC", inverse=False, infix="_USDC", keeps_mark=False),
}


def _usable(column: str) -> pl.Expr:
    return pl.col(column).is_finite().fill_null(value=False)


def _is_coin_settled_name() -> pl.Expr:
    """Whether the name is BTC-... for BTC; BTC_USDC-... would be another contract, settled otherwise."""
    prefix = pl.concat_str("currency", pl.lit("-"))
    return pl.col("instrument_name").str.starts_with(prefix).fill_null(value=False)


# First reason that holds is the one counted. NaN compares false in none of these: `_usable` is asked first.
_REASONS: Mapping[str, pl.Expr] = {
    "not named CURRENCY-..., or strike, expiry or option type missing or unreadable": (
        ~_is_coin_settled_name()
        | ~_usable("strike")
        | pl.col("expiry_datetime").is_null()
        | ~pl.col("option_type").is_in(["call", "put"]).fill_null(value=False)
    ),
    "contract listed twice: first row kept": ~pl.col("instrument_name").is_first_distinct(),
    "implied volatility missing, negative or not finite": (
        ~_usable("implied_volatility") | (pl.col("implied_volatility") < 0)
    ),
    "expired at the snapshot time": pl.col("expiry_datetime") <= pl.col("timestamp"),
    "no underlying price above zero in the expiry": pl.col("forward").is_null(),
    "no index price above zero for the currency": pl.col("index").is_null(),
}


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """What an import wrote and what it left out.

    Attributes:
      out: the book folder.
      snapshot: name of the snapshot as the file spells it.
      timestamp: start of the snapshot's collection, UTC; the timestamp of every mark, forward and price.
      settle: `inverse` or `linear-usdc`.
      contracts: number of instruments written per currency.
      expiries: one row per currency and expiry: `currency`, `expiry`, `contracts` (written), `forward` (median of the
        underlyings its rows carry, USD), `num_underlyings` (how many different ones), `spread` ((max - min) / median).
      left_out: one row per currency and reason: `currency`, `reason`, `rows`; empty where every row was written.
      assumptions: prices that are not in the file but are in the book.
    """

    out: Path
    snapshot: str
    timestamp: datetime
    settle: str
    contracts: Mapping[str, int]
    expiries: pl.DataFrame
    left_out: pl.DataFrame
    assumptions: tuple[str, ...] = ASSUMPTIONS


def import_deribit_chain(file: Path, *, snapshot: str, out: Path, settle: Settle) -> ImportSummary:
    """Writes one snapshot of a chain file as a book folder and reports what it holds.

    `inverse` keeps the contracts as they are listed: settled in coin, strike and forward in USD, one coin each, mark
    price in coin as published. `linear-usdc` restates the same contracts as USDC-settled ones of one coin, named
    `BTC_USDC-...`, and leaves `mark_price` null on purpose, so that they are priced from `mark_iv` and the forward:
    the coin mark times an underlying is the less exact number, because the mark is rounded to 4 to 8 decimals of a
    coin and the underlying moves by up to 0.4 % between the rows of one expiry.

    One forward per expiry, the median of the underlyings its rows carry; index price per currency likewise. A row is
    left out only for a reason counted in the summary: an unreadable key, a second row of the same contract, no usable
    IV, expired at the timestamp, no underlying in its whole expiry, no index in its whole currency. A row without
    mark price stays (its IV prices it), and so does one without open interest (null).

    Args:
      file: Parquet file with at least the columns `CHAIN_COLUMNS`; others are ignored.
      snapshot: the value of `snapshot_file`, with or without `.csv`, or an ISO time (UTC unless it says otherwise),
        matched to the minute against the snapshots' timestamps.
      out: the folder to write; created, or empty.
      settle: `inverse` or `linear-usdc`.

    Returns:
      The summary. Tables: instruments, marks, forwards (rate 0), prices (coins, USD, USDC), assets; positions and
      balances without rows.

    Raises:
      UsageError: unknown `settle`, no such file, `out` not empty, no or more than one matching snapshot (the message
        lists the nearest five).
      InputError: columns are missing, or no row of the snapshot can be written.
    """
    style = _style(settle)
    _require_empty(out)
    chain = scan_chain(file)
    name, timestamp = find_snapshot(chain, snapshot, file=file)
    rows = _judge(chain.filter(pl.col("snapshot_file") == name).collect(), timestamp)
    kept = rows.filter(pl.col("reason").is_null())
    left_out = _count_left_out(rows)
    if kept.is_empty():
        raise _nothing_to_write(left_out, file=file, name=name)
    _write(_tables(kept, style, timestamp), out)
    return ImportSummary(
        out=out,
        snapshot=name,
        timestamp=timestamp,
        settle=settle,
        contracts=dict(kept.group_by("currency").len().sort("currency").iter_rows()),
        expiries=_expiry_table(kept),
        left_out=left_out,
    )


def _style(settle: str) -> _Style:
    if settle not in _STYLES:
        message = f"settle must be one of {', '.join(_STYLES)}; found {settle!r}"
        raise UsageError(message)
    return _STYLES[settle]


def _require_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"the book is written to a new or empty folder; {str(out)!r} is not one: name another, or clear it"
        raise UsageError(message)


def _judge(rows: pl.DataFrame, timestamp: datetime) -> pl.DataFrame:
    """Adds `forward` and `index` (medians) with the spread of the underlyings, and `reason` (null = written)."""
    real = pl.col("underlying").filter(_usable("underlying") & (pl.col("underlying") > 0))
    index = pl.col("index_price").filter(_usable("index_price") & (pl.col("index_price") > 0))
    expiry = ["currency", "expiry_datetime"]
    with_prices = rows.with_columns(
        timestamp=pl.lit(timestamp),
        forward=real.median().over(expiry),
        num_underlyings=real.n_unique().over(expiry),
        spread=((real.max() - real.min()) / real.median()).over(expiry),
        index=index.median().over("currency"),
    )
    chosen = [pl.when(condition).then(pl.lit(reason)) for reason, condition in _REASONS.items()]
    return with_prices.with_columns(reason=pl.coalesce(chosen)).sort(
        "currency", "expiry_datetime", "strike", "option_type", "instrument_name", nulls_last=True
    )


def _count_left_out(rows: pl.DataFrame) -> pl.DataFrame:
    refused = rows.filter(pl.col("reason").is_not_null())
    return refused.group_by("currency", "reason").agg(rows=pl.len().cast(pl.Int64)).sort("currency", "reason")


def _expiry_table(kept: pl.DataFrame) -> pl.DataFrame:
    same_in_group = [pl.col(column).first() for column in ("forward", "num_underlyings", "spread")]
    by_expiry = kept.group_by("currency", pl.col("expiry_datetime").alias("expiry"))
    return by_expiry.agg(pl.len().cast(pl.Int64).alias("contracts"), *same_in_group).sort("currency", "expiry")


def _tables(kept: pl.DataFrame, style: _Style, timestamp: datetime) -> dict[str, pl.DataFrame]:
    """The tables of the book, rows in the order of their keys."""
    stamp = pl.lit(timestamp, dtype=pl.Datetime("us", "UTC")).alias("timestamp")
    name = pl.col("instrument_name").str.slice(pl.col("currency").str.len_chars())
    instrument_id = pl.concat_str("currency", pl.lit(style.infix), name).alias("instrument_id")
    prices = _price_table(kept)
    return {
        "instruments": kept.select(instrument_id, *_instrument_columns(style)),
        "marks": kept.select(instrument_id, *_mark_columns(style), stamp),
        "forwards": _expiry_table(kept).select(*_forward_columns(style), stamp),
        "prices": prices.with_columns(stamp),
        "assets": prices.select("asset", _decimals()),
        **{table: pl.DataFrame(schema=columns) for table, columns in _NO_HOLDINGS.items()},
    }


def _price_table(kept: pl.DataFrame) -> pl.DataFrame:
    """Index of every currency written, then the two units of account at 1."""
    coins = kept.group_by(pl.col("currency").alias("asset")).agg(pl.col("index").first().alias("price")).sort("asset")
    units = pl.DataFrame({"asset": list(_DECIMALS), "price": [1.0] * len(_DECIMALS)})
    return pl.concat([coins, units])


def _decimals() -> pl.Expr:
    known = pl.col("asset").replace_strict(_DECIMALS, default=_COIN_DECIMALS, return_dtype=pl.Int64)
    return known.alias("decimals")


def _instrument_columns(style: _Style) -> list[pl.Expr]:
    settlement = pl.lit(style.settlement) if style.settlement else pl.col("currency")
    return [
        pl.lit("option").alias("kind"),
        pl.col("currency").alias("underlying"),
        settlement.alias("settlement"),
        pl.lit(style.quote).alias("quote"),
        pl.lit(style.inverse).alias("inverse"),
        pl.lit(1.0).alias("contract_size"),
        pl.col("strike"),
        pl.col("expiry_datetime").alias("expiry"),
        pl.col("option_type"),
    ]


def _forward_columns(style: _Style) -> list[pl.Expr]:
    return [
        pl.col("currency").alias("underlying"),
        pl.lit(style.quote).alias("quote"),
        pl.col("expiry"),
        pl.col("forward"),
        pl.lit(0.0).alias("rate"),
    ]


def _mark_columns(style: _Style) -> list[pl.Expr]:
    mark = pl.when(_usable("mark_price")).then("mark_price") if style.keeps_mark else pl.lit(None, dtype=pl.Float64)
    return [
        mark.alias("mark_price"),
        pl.col("implied_volatility").alias("mark_iv"),
        pl.when(_usable("open_interest")).then("open_interest").alias("open_interest"),
    ]


def _write(tables: Mapping[str, pl.DataFrame], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.write_parquet(out / f"{name}.parquet")


def _nothing_to_write(left_out: pl.DataFrame, *, file: Path, name: str) -> InputError:
    message = f"no row of snapshot {name!r} of {str(file)!r} can be written: see the failures for the reasons"
    remedy = "choose another snapshot"
    failures = [
        chain_failure(
            "GM102", file=file, column="currency", value=currency, message=f"{rows} rows: {why}", remedy=remedy
        )
        for currency, why, rows in left_out.iter_rows()
    ]
    return InputError(message, failure_frame(failures))
