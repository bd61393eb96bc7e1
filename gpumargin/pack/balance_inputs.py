"""What else of a balance a model names: open spot orders in the asset, and numbers that accounts set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gpumargin.pack.accounts import Accounts
from gpumargin.pack.columns import Bools, Floats, Ints, encoded, floats, positions_in, strings, texts
from gpumargin.pack.orders import OpenOrders
from gpumargin.pack.settings import Settings, values_by_unit

# Name in the expressions of balances -> total of the orders.
SPOT_ORDERS = {
    "bids": "buys",
    "asks": "sells",
    "orders": "orders",
    "bids_value": "buys_value",
    "best_bid": "best_bid",
    "best_ask": "best_ask",
    "order_quote": "order_quote",
}
Held = tuple[Ints, np.ndarray, Floats, Bools]  # account, asset, amount, is collateral; ascending


def with_empty(held: Held, keys: Ints, assets: int) -> Held:
    """Balances and, in their places, empty ones at `keys`, account * assets + asset."""
    account, asset, amount, is_collateral = held
    order = np.argsort(np.concatenate([account * np.int64(assets) + asset, keys]), kind="stable")
    return (
        np.concatenate([account, keys // assets])[order],
        np.concatenate([asset, (keys % assets).astype(np.int32)])[order],
        np.concatenate([amount, np.zeros(len(keys))])[order],
        np.concatenate([is_collateral, np.ones(len(keys), bool)])[order],
    )


@dataclass(frozen=True)
class BalanceInputs:
    """Where the inputs of balances come from; accounts are numbered as the included ones are.

    Attributes:
      names: what the model names.
      assets: assets of the book.
      orders: open spot orders by account and asset; None if the model looks at none, or the book has none.
      settings: rows of `account_parameters`; None without that table.
    """

    names: tuple[str, ...]
    assets: Sequence[str]
    orders: OpenOrders | None
    settings: Settings | None

    @staticmethod
    def of(
        tables: Mapping[str, pa.Table],
        accounts: Accounts,
        assets: Sequence[str],
        renumbered: Ints,
        included: Bools,
        names: Collection[str],
        prices: Floats,
    ) -> BalanceInputs:
        """Orders and settings of the included accounts; `prices` of the assets are in the accounting asset."""
        orders, parameters = tables.get("orders"), tables.get("account_parameters")
        wants_orders = bool({*names} & {*SPOT_ORDERS})
        own = _spot_orders(tables["instruments"], orders, accounts.of_orders, assets, renumbered, included)
        if own is not None:
            own.totals["order_quote"] = _quote_prices(tables["instruments"], assets, prices)[own.key % own.stride]
        settings = None
        if parameters is not None and {*names} - {*SPOT_ORDERS}:
            chosen = parameters.filter(pa.array(included[accounts.of_parameters]))
            settings = Settings.of(chosen, renumbered[accounts.of_parameters[included[accounts.of_parameters]]], assets)
        return BalanceInputs(tuple(names), assets, own if wants_orders else None, settings)

    def with_rows(self, held: Held) -> Held:
        """Balances, and empty ones where an account has orders in an asset that it has no balance of."""
        if self.orders is None:
            return held
        account, asset = self.orders.without_leg(held[0], held[1])
        return with_empty(held, account * np.int64(len(self.assets)) + asset, len(self.assets))

    def columns(
        self, account: Ints, asset: np.ndarray, settable: Mapping[str, Mapping[str, float]]
    ) -> dict[str, Floats] | None:
        """Every input of every balance, `[B]`; None if the model names none."""
        if not self.names:
            return None
        found = {}
        for name in self.names:
            if name in SPOT_ORDERS:
                none = np.zeros(len(account))
                found[name] = none if self.orders is None else self.orders.of_legs(account, asset, SPOT_ORDERS[name])
            else:
                usual = values_by_unit(settable[name], self.assets)[asset]
                own = self.settings
                found[name] = usual if own is None else own.applied(name, usual, account, asset)
        return found


def _quote_prices(instruments: pa.Table, assets: Sequence[str], prices: Floats) -> Floats:
    """Price of the currency that each asset's spot orders are quoted in, `[C]`; the last where there are several."""
    known = {name: i for i, name in enumerate(assets)}
    found = np.zeros(len(assets))
    words = (texts(instruments, name) for name in ("kind", "underlying", "quote"))
    for kind, underlying, quote in zip(*words, strict=True):
        if kind == "spot" and str(underlying) in known and str(quote) in known:
            found[known[str(underlying)]] = prices[known[str(quote)]]
    return found


def _spot_orders(
    instruments: pa.Table,
    orders: pa.Table | None,
    account: Ints,
    assets: Sequence[str],
    renumbered: Ints,
    included: Bools,
) -> OpenOrders | None:
    """Orders in spot instruments by the asset that they buy or sell."""
    if orders is None:
        return None
    is_spot = strings(instruments, "kind") == "spot"
    known = {name: i for i, name in enumerate(assets)}
    asset = np.array([known.get(str(u), -1) for u in texts(instruments, "underlying")], np.int64)
    codes, values = encoded(orders["instrument_id"])
    listed = instruments["instrument_id"].combine_chunks()
    ids = listed.dictionary_decode() if isinstance(listed, pa.DictionaryArray) else listed
    row = positions_in(values, ids)[codes]
    place = np.where(is_spot[row] & included[account], asset[row], -1)
    size = floats(instruments, "contract_size", 1.0)[row]
    return OpenOrders.of(orders, renumbered[account], place, np.zeros(len(assets)), size)
