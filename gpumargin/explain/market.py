"""Prices and legs of one account: its positions joined with what the run and the book say of their contracts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from gpumargin.explain.settings import setting
from gpumargin.explain.sources import AccountSources
from gpumargin.frames import instant
from gpumargin.modelfile.names import MARK_COLUMNS, TERM_NAMES
from gpumargin.schema import USD

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
_FEEDS = ("forward_confidence", "rate_confidence", "vol_confidence")


@dataclass(frozen=True)
class Market:
    """Prices of assets, USD, and confidence of feeds, 0 to 1.

    Attributes:
      price: index price by asset.
      collateral: price as collateral by asset.
      confidence: confidence of the index price by asset.
      perpetual_confidence: least confidence of the marks of a unit's perpetuals, for units that have one.
      twap: time-weighted price by asset, where there is one.
      accounting: price of the accounting asset.
      dollar: price at which charges on spot are turned into the accounting asset; 1 if the model takes it at par.
      ranges: the model's scenario_range by unit.
      discounts: whether the model discounts the value of options.
    """

    price: Mapping[str, float]
    collateral: Mapping[str, float]
    confidence: Mapping[str, float]
    perpetual_confidence: Mapping[str, float]
    twap: Mapping[str, float]
    accounting: float
    dollar: float
    ranges: Mapping[str, float]
    discounts: bool


def _column(frame: pl.DataFrame, key: str, value: str) -> dict[str, float]:
    return {str(k): float(v) for k, v in frame.select(key, value).drop_nulls().iter_rows()}


def account_market(sources: AccountSources) -> Market:
    """Prices and confidences, defaults of the contract filled in."""
    prices, book = sources.book["prices"], sources.book
    perpetuals = book["instruments"].filter(pl.col("kind") == "perpetual").join(book["marks"], on="instrument_id")
    least = perpetuals.group_by("underlying").agg(pl.col("confidence").min())
    price = {USD: 1.0} | _column(prices, "asset", "price")
    return Market(
        price=price,
        collateral=price | _column(prices, "asset", "collateral_price"),
        confidence=_column(prices, "asset", "confidence"),
        perpetual_confidence=_column(least, "underlying", "confidence"),
        twap={USD: 1.0} | _column(_optional(prices, "twap"), "asset", "twap"),
        accounting=price[sources.file.accounting_asset],
        dollar=1.0 if sources.file.dollar_at_par else price[sources.file.accounting_asset],
        ranges=sources.file.scenario_range,
        discounts=sources.file.discounted_marks,
    )


def base_assets(sources: AccountSources) -> set[str]:
    """Assets whose balances are legs of a unit."""
    if not sources.file.base_legs:
        return set()
    return set(sources.instruments.filter(pl.col("kind") == "base")["instrument_id"])


def _positions(sources: AccountSources) -> pl.DataFrame:
    """Positions that count, without those of size 0 where the model leaves them out."""
    found = sources.book["positions"]
    keeps_cash = sources.file.unsettled_without_position
    if "entry_price" not in found.columns:
        found = found.with_columns(entry_price=pl.lit(None, pl.Float64))
    counts = (pl.col("quantity") != 0) | (pl.lit(keeps_cash) & (pl.col("unsettled") != 0))
    return found.filter(counts).select("instrument_id", "quantity", "entry_price", "unsettled", is_base=pl.lit(False))


def _orders(sources: AccountSources) -> pl.DataFrame:
    """Open orders by instrument: contracts to buy and to sell, how many, money at the limits, loss against the mark."""
    names = ("buys", "sells", "orders", "buys_value", "sells_value", "order_loss")
    if "orders" not in sources.book or not {*sources.file.leg_inputs} & {*names}:
        return pl.DataFrame(schema={"instrument_id": pl.String, **dict.fromkeys(names, pl.Float64)})
    listed = _optional(sources.book["instruments"], "expiry")
    terms = listed.select("instrument_id", "kind", pl.col("expiry").cast(pl.Datetime("us", "UTC")))
    orders = sources.book["orders"].with_columns(pl.col("instrument_id").cast(pl.String), entry_price=pl.lit(None))
    marked = _with_marks(sources, orders.join(terms, on="instrument_id", how="left"))
    is_buy, size, limit = pl.col("side").cast(pl.String) == "buy", pl.col("quantity"), pl.col("price")
    buys, sells = pl.when(is_buy).then(size).otherwise(0.0), pl.when(is_buy).then(0.0).otherwise(size)
    above = limit - pl.col("mark")
    loss = pl.when(is_buy).then(above).otherwise(-above).clip(lower_bound=0.0) * size
    sums = [buys.sum(), sells.sum(), pl.len().cast(pl.Float64), (buys * limit).sum(), (sells * limit).sum(), loss.sum()]
    return marked.group_by("instrument_id").agg(s.alias(n) for n, s in zip(names, sums, strict=True))


def _with_orders(sources: AccountSources, held: pl.DataFrame) -> pl.DataFrame:
    """Adds the orders of each leg; instruments with orders but no position become legs of quantity 0."""
    orders = _orders(sources)
    blank = {"quantity": 0.0, "unsettled": 0.0, "is_base": False}
    extra = orders.filter(~pl.col("instrument_id").is_in(held.filter(~pl.col("is_base"))["instrument_id"].implode()))
    empty = extra.select("instrument_id").with_columns(pl.lit(v).alias(k) for k, v in blank.items())
    every = pl.concat([held, empty.with_columns(entry_price=pl.lit(None, pl.Float64)).select(held.columns)])
    joined = every.join(orders, on="instrument_id", how="left", maintain_order="left")
    none = pl.col("is_base")
    return joined.with_columns(
        pl.when(none).then(0.0).otherwise(pl.col(name)).fill_null(0.0).alias(name) for name in orders.columns[1:]
    )


def _base_legs(sources: AccountSources) -> pl.DataFrame:
    held = (
        pl.col("asset").is_in(sorted(base_assets(sources)))
        & (pl.col("amount") != 0)
        & (pl.col("is_collateral") | (pl.col("amount") < 0))
    )
    return (
        sources.book["balances"]
        .filter(held)
        .select(
            pl.col("asset").alias("instrument_id"),
            pl.col("amount").alias("quantity"),
            entry_price=pl.lit(None, pl.Float64),
            unsettled=pl.lit(0.0),
            is_base=pl.lit(True),
        )
    )


def _with_feeds(sources: AccountSources, legs: pl.DataFrame) -> pl.DataFrame:
    """Adds the rate and the least feed confidence of each option's expiry, in its quote currency."""
    keys = ["underlying", "quote", "expiry"]
    feeds = sources.book["forwards"].select(*keys, "rate", *_FEEDS, confidence=pl.min_horizontal(*_FEEDS))
    joined = legs.join(feeds, on=keys, how="left", maintain_order="left")
    is_option = pl.col("kind") == "option"
    return joined.with_columns(
        pl.when(is_option).then(pl.col("rate").fill_null(0.0)).otherwise(0.0).alias("rate"),
        *(pl.when(is_option).then(pl.col(c).fill_null(1.0)).otherwise(1.0).alias(c) for c in ("confidence", *_FEEDS)),
    )


def _optional(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    absent = [name for name in names if name not in frame.columns]
    return frame.with_columns(pl.lit(None, pl.Float64).alias(name) for name in absent)


def _with_marks(sources: AccountSources, legs: pl.DataFrame) -> pl.DataFrame:
    """Adds `mark`, the price that P&L runs to: of an expired contract its settlement price, once there is one."""
    marks = _optional(sources.book["marks"], "mark_price", "settlement_price", *MARK_COLUMNS.values())
    as_of = datetime.fromisoformat(str(sources.manifest["as_of"]))
    named = [pl.col(column).alias(f"{column}_of_mark") for column in MARK_COLUMNS.values()]
    joined = legs.join(
        marks.select("instrument_id", "mark_price", "settlement_price", *named),
        on="instrument_id",
        how="left",
        maintain_order="left",
    )
    has_expired = pl.col("expiry").is_not_null() & (pl.col("expiry") <= instant(as_of))
    settled = pl.when(has_expired).then(pl.col("settlement_price"))
    is_option = pl.col("kind") == "option"
    premium = pl.when(settled.is_null()).then(pl.col("mark_price")).fill_null(0.0)
    marked = joined.with_columns(
        mark=pl.coalesce(settled, "mark_price"), usual_entry=pl.when(is_option).then(premium).otherwise(None)
    ).drop("mark_price", "settlement_price")
    return marked.with_columns(entry=pl.coalesce("entry_price", "usual_entry", "mark")).drop("usual_entry")


def account_legs(sources: AccountSources, market: Market) -> pl.DataFrame:
    """One row per leg, base assets included, in the order in which a run adds them up.

    Returns:
      Frame with unit, expiry, strike, kind, instrument_id, quantity (contracts), contract_size, value (of the position,
      options only), unrealised_pnl and its gross size, years, forward, payoff, rate, confidence and scenario_pnl (of
      one contract).
    """
    held = _with_orders(sources, pl.concat([_positions(sources), _base_legs(sources)]))
    contracts = sources.instruments.with_row_index("order").with_columns(is_base=pl.col("kind") == "base")
    listed = _optional(sources.book["instruments"], "option_type", *TERM_NAMES).select(
        "instrument_id",
        "underlying",
        "settlement",
        "quote",
        "inverse",
        "option_type",
        pl.col("payoff").cast(pl.String),
        *(pl.col(name).fill_null(0.0) for name in TERM_NAMES),
    )
    legs = (
        held.join(contracts, on=["instrument_id", "is_base"], how="inner")
        .join(listed.with_columns(is_base=pl.lit(False)), on=["instrument_id", "is_base"], how="left")
        .sort("order")
    )
    marked = _with_own_prices(_with_marks(sources, _with_feeds(sources, legs)), market)
    return _with_settings(sources, _with_money(marked, market))


def _with_settings(sources: AccountSources, legs: pl.DataFrame) -> pl.DataFrame:
    """Adds the numbers that the account may set: its own for the unit, else its own, else the model's."""
    for name in sources.file.settable:
        found = {unit: setting(sources, name, str(unit)) for unit in legs["unit"].unique()}
        legs = legs.with_columns(
            pl.col("unit").cast(pl.String).replace_strict(found, return_dtype=pl.Float64).alias(name)
        )
    return legs


def _of_quote(legs: pl.DataFrame, by_asset: Mapping[str, float]) -> pl.Series:
    return legs["quote"].replace_strict(by_asset, default=None, return_dtype=pl.Float64)


def _with_own_prices(legs: pl.DataFrame, market: Market) -> pl.DataFrame:
    """Base assets with their index price for a mark."""
    own = legs["instrument_id"].replace_strict(market.price, default=None, return_dtype=pl.Float64)
    return legs.with_columns(mark=pl.when("is_base").then(own).otherwise("mark"))


def _with_money(legs: pl.DataFrame, market: Market) -> pl.DataFrame:
    """Adds value and P&L of the position in the accounting asset."""
    ratio = legs["settlement"].replace_strict(market.price, default=None, return_dtype=pl.Float64) / market.accounting
    quote = legs["quote"].replace_strict(market.price, default=None, return_dtype=pl.Float64).fill_null(1.0)
    priced = legs.with_columns(
        ratio=ratio.fill_null(float("nan")),
        quote_ratio=quote / market.accounting,
        quote_twap=_of_quote(legs, market.twap) / market.accounting,
        contract_value=pl.col("value"),
    )
    is_option = pl.col("kind") == "option"
    has_pnl = ~is_option & ~pl.col("is_base") & pl.col("entry_price").is_not_null()
    start = pl.when("inverse").then(1 / pl.col("entry_price")).otherwise(pl.col("mark"))
    end = pl.when("inverse").then(1 / pl.col("mark")).otherwise(pl.col("entry_price"))
    size = pl.col("quantity") * pl.col("contract_size")

    def cash(gain: pl.Expr, due: pl.Expr) -> pl.Expr:
        money = (pl.when(has_pnl).then(gain).otherwise(0.0) + due) * pl.col("ratio")
        return pl.when("is_base").then(0.0).otherwise(money)

    return priced.with_columns(
        value=pl.when(is_option).then(pl.col("quantity") * pl.col("value").fill_null(float("nan"))).otherwise(0.0),
        unrealised_pnl=cash(size * (start - end), pl.col("unsettled")),
        gross_pnl=cash(size.abs() * (start.abs() + end.abs()), pl.col("unsettled").abs()),
    )
