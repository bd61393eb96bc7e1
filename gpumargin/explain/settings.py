"""What an account sets for itself and has in open spot orders, by asset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import polars as pl

from gpumargin.explain.sources import AccountSources
from gpumargin.modelfile import DEFAULT
from gpumargin.modelfile.balances import ORDER_NAMES


class Prices(Protocol):
    """Prices by asset in USD."""

    @property
    def collateral(self) -> Mapping[str, float]:
        """Price as collateral by asset."""

    @property
    def accounting(self) -> float:
        """Price of the accounting asset."""


def own_settings(sources: AccountSources) -> dict[tuple[str, str | None], float]:
    """Numbers that the account sets, by name and subject; None for all subjects."""
    table = sources.book.get("account_parameters")
    if table is None or table.height == 0:
        return {}
    subjects = table["subject"].cast(pl.String) if "subject" in table.columns else [None] * table.height
    return {
        (str(name), subject): float(value)
        for name, subject, value in zip(table["name"], subjects, table["value"], strict=True)
    }


def setting(sources: AccountSources, name: str, subject: str) -> float:
    """One number that accounts may set: the account's own for the subject, else its own, else the model's."""
    own, usual = own_settings(sources), sources.file.settable[name]
    return own.get((name, subject), own.get((name, None), usual.get(subject, usual[DEFAULT])))


def _spot_orders(sources: AccountSources) -> pl.DataFrame:
    """Open spot orders of the account with the asset that they are in."""
    if "orders" not in sources.book or not {*sources.file.balance_inputs} & {*ORDER_NAMES}:
        return pl.DataFrame(schema={"underlying": pl.String})
    listed = sources.book["instruments"].filter(pl.col("kind").cast(pl.String) == "spot")
    terms = listed.select("instrument_id", pl.col("underlying").cast(pl.String), "quote", "contract_size")
    return sources.book["orders"].join(terms, on="instrument_id", how="inner")


def ordered_assets(sources: AccountSources) -> set[str]:
    """Assets with open spot orders, where the model looks at them."""
    return set(_spot_orders(sources)["underlying"])


def balance_inputs(sources: AccountSources, market: Prices, asset: str) -> dict[str, float]:
    """Orders and settings that the model names of a balance."""
    wanted = sources.file.balance_inputs
    orders = _spot_orders(sources)
    own = orders.filter(pl.col("underlying") == asset)
    found = dict.fromkeys(ORDER_NAMES, 0.0)
    if own.height:
        size, is_buy = own["quantity"] * own["contract_size"], own["side"].cast(pl.String) == "buy"
        found = {
            "bids": float(size.filter(is_buy).sum()),
            "asks": float(size.filter(~is_buy).sum()),
            "orders": float(own.height),
            "bids_value": float((size * own["price"]).filter(is_buy).sum()),
            "best_bid": float(own["price"].filter(is_buy).max() or 0.0),  # type: ignore[arg-type]
            "best_ask": float(own["price"].filter(~is_buy).min() or 0.0),  # type: ignore[arg-type]
            "order_quote": market.collateral.get(str(own["quote"][-1]), math.nan) / market.accounting,
        }
    return {name: found[name] if name in found else setting(sources, name, asset) for name in wanted}
