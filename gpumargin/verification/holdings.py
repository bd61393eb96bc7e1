"""Rows of a book that belong to the accounts of one model, as arrays in the order of the accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from gpumargin.modelfile import DEFAULT
from gpumargin.modelfile.balances import ORDER_NAMES
from gpumargin.verification.contracts import Contracts
from gpumargin.verification.figures import Array

ORDER_WORDS = ("buys", "sells", "orders", "buys_value", "sells_value", "order_loss")
_LEG = {"quantity": pl.Float64, "entry_price": pl.Float64, "unsettled": pl.Float64}
Frames = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Holdings:
    """What some accounts hold and set.

    Attributes:
      accounts: how many there are, A.
      legs: account, contract (place in `Contracts.frame`), quantity, entry_price, unsettled, words of open orders;
        by account, then contract.
      balances: account, asset, amount, is_collateral, words of open spot orders; by asset, then account.
      settings: numbers that accounts set: account, name, subject, value.
      emode: category of each account, `[A]`, null for none.
    """

    accounts: int
    legs: pl.DataFrame
    balances: pl.DataFrame
    settings: pl.DataFrame
    emode: pl.Series

    def setting(self, contracts: Contracts, name: str, subject: str | None) -> Array:
        """One number that accounts may set, `[A]`: their own for the subject, else their own, else the model's."""
        usual = contracts.file.settable[name]
        found = np.full(self.accounts, usual.get(subject or DEFAULT, usual[DEFAULT]))
        own = self.settings.filter(pl.col("name") == name)
        for rows in (own.filter(pl.col("subject").is_null()), own.filter(pl.col("subject") == (subject or ""))):
            found[rows["account"].to_numpy()] = rows["value"].to_numpy()
        return found

    def part(self, first: int, stop: int) -> Holdings:
        """The accounts `first` to `stop`, counted from 0."""

        def own(frame: pl.DataFrame) -> pl.DataFrame:
            inside = frame.filter(pl.col("account").is_between(first, stop, closed="left"))
            return inside.with_columns(pl.col("account") - first)

        low, high = np.searchsorted(self.legs["account"].to_numpy(), [first, stop])
        rows = self.legs[low:high].with_columns(pl.col("account") - first)
        frames = (rows, own(self.balances), own(self.settings))
        return Holdings(stop - first, *frames, self.emode[first:stop])


def holdings(contracts: Contracts, rows: Frames, accounts: int) -> Holdings:
    """Holdings from rows of the book.

    Args:
      contracts: of the model.
      rows: rows of the tables of accounts, each with its `account`, 0 to A - 1; ids as text.
      accounts: A.
    """
    wanted, empty = contracts.file.balance_inputs, pl.Series([None] * accounts, dtype=pl.String)
    settings = rows.get("account_parameters", pl.DataFrame(schema=_SETTINGS))
    if "subject" not in settings.columns:
        settings = settings.with_columns(subject=pl.lit(None, pl.String))
    return Holdings(
        accounts,
        _legs(contracts, rows),
        _balances(contracts, rows, has_orders=bool({*wanted} & {*ORDER_NAMES})),
        settings.select(*_SETTINGS),
        _emode(rows["accounts"], accounts) if "emode" in rows.get("accounts", pl.DataFrame()).columns else empty,
    )


_SETTINGS = {"account": pl.Int64, "name": pl.String, "subject": pl.String, "value": pl.Float64}


def _emode(frame: pl.DataFrame, accounts: int) -> pl.Series:
    every = pl.DataFrame({"account": pl.int_range(accounts, dtype=pl.Int64, eager=True)})
    own = frame.select("account", pl.col("emode").cast(pl.String))
    return every.join(own, on="account", how="left", maintain_order="left")["emode"]


def _places(contracts: Contracts, *, base: bool) -> pl.DataFrame:
    """Place of every contract by its id, or of every unit's own asset."""
    frame = contracts.frame.select("instrument_id", "is_base").with_row_index("contract")
    return frame.filter(pl.col("is_base") == base).select("instrument_id", pl.col("contract").cast(pl.Int64))


def _legs(contracts: Contracts, rows: Frames) -> pl.DataFrame:
    """Positions that count, balances in a unit's own asset, and contracts with open orders alone."""
    places = _places(contracts, base=False)
    positions = rows["positions"]
    if "entry_price" not in positions.columns:
        positions = positions.with_columns(entry_price=pl.lit(None, pl.Float64))
    counts = pl.col("quantity") != 0
    if contracts.file.unsettled_without_position:
        counts |= pl.col("unsettled") != 0
    held = positions.filter(counts).join(places, on="instrument_id", how="inner").select("account", "contract", *_LEG)
    orders = _orders(contracts, rows, places)
    if orders is not None:
        held = held.join(orders, on=["account", "contract"], how="full", coalesce=True)
        zero = [name for name in held.columns if name not in ("account", "contract", "entry_price")]
        held = held.with_columns(pl.col(zero).fill_null(0.0))
    base = _base_legs(contracts, rows).select("account", "contract", *(pl.col(n).cast(t) for n, t in _LEG.items()))
    every = pl.concat([held, base], how="diagonal")
    words = [name for name in every.columns if name in ORDER_WORDS]
    return every.with_columns(pl.col(words).fill_null(0.0)).sort("account", "contract")


def _base_legs(contracts: Contracts, rows: Frames) -> pl.DataFrame:
    places = _places(contracts, base=True).rename({"instrument_id": "asset"})
    counts = (pl.col("amount") != 0) & (pl.col("is_collateral") | (pl.col("amount") < 0))
    held = rows["balances"].filter(counts).join(places, on="asset", how="inner")
    return held.with_columns(quantity=pl.col("amount"), entry_price=pl.lit(None, pl.Float64), unsettled=pl.lit(0.0))


def _orders(contracts: Contracts, rows: Frames, places: pl.DataFrame) -> pl.DataFrame | None:
    """Open orders by account and contract: to buy and to sell, how many, money at the limits, loss against the mark."""
    if "orders" not in rows or not {*contracts.file.leg_inputs} & {*ORDER_WORDS}:
        return None
    marks = contracts.frame.with_row_index("contract").select(pl.col("contract").cast(pl.Int64), "mark")
    known = rows["orders"].join(places, on="instrument_id", how="inner").join(marks, on="contract", how="left")
    is_buy, size, limit = pl.col("side").cast(pl.String) == "buy", pl.col("quantity"), pl.col("price")
    buys, sells = pl.when(is_buy).then(size).otherwise(0.0), pl.when(is_buy).then(0.0).otherwise(size)
    above = pl.when(is_buy).then(limit - pl.col("mark")).otherwise(pl.col("mark") - limit)
    return known.group_by("account", "contract").agg(
        buys=buys.sum(),
        sells=sells.sum(),
        orders=pl.len().cast(pl.Float64),
        buys_value=(buys * limit).sum(),
        sells_value=(sells * limit).sum(),
        order_loss=(above.clip(lower_bound=0.0) * size).sum(),
    )


def _balances(contracts: Contracts, rows: Frames, *, has_orders: bool) -> pl.DataFrame:
    """Balances, and empty ones in assets that open spot orders are in."""
    held = rows["balances"].select("account", "asset", "amount", "is_collateral")
    if has_orders and "orders" in rows:
        orders = _spot_orders(contracts, rows)
        held = held.join(orders, on=["account", "asset"], how="full", coalesce=True).with_columns(
            pl.col("amount").fill_null(0.0), pl.col("is_collateral").fill_null(value=True)
        )
    return held.sort("asset", "account")


def _spot_orders(contracts: Contracts, rows: Frames) -> pl.DataFrame:
    """Open spot orders by account and asset, as `modelfile.balances.ORDER_NAMES` says."""
    book, market = contracts.sources.book, contracts.market
    listed = book["instruments"].filter(pl.col("kind").cast(pl.String) == "spot")
    terms = listed.select("instrument_id", pl.col("underlying").alias("asset"), "quote", "contract_size")
    size, limit = pl.col("quantity") * pl.col("contract_size"), pl.col("price")
    is_buy = pl.col("side").cast(pl.String) == "buy"
    quote = pl.col("quote").last().replace_strict(market.collateral, default=float("nan"), return_dtype=pl.Float64)
    return (
        rows["orders"]
        .join(terms, on="instrument_id", how="inner")
        .group_by("account", "asset", maintain_order=True)
        .agg(
            bids=size.filter(is_buy).sum(),
            asks=size.filter(~is_buy).sum(),
            orders=pl.len().cast(pl.Float64),
            bids_value=(size * limit).filter(is_buy).sum(),
            best_bid=limit.filter(is_buy).max().fill_null(0.0),
            best_ask=limit.filter(~is_buy).min().fill_null(0.0),
            order_quote=quote / market.accounting,
        )
    )
