"""Open orders of each leg: how much they would buy and sell, at what prices, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gpumargin.pack.columns import Floats, Ints, floats, strings

ORDER_INPUTS = ("buys", "sells", "orders", "buys_value", "sells_value", "order_loss")


@dataclass(frozen=True)
class OpenOrders:
    """Orders added up by account and contract or asset, ascending.

    Attributes:
      key: `[N]` account * stride + contract.
      stride: one more than the largest contract index.
      totals: `[N]` each: contracts to buy and to sell, number of orders; contracts times quote currency: buys and
        sells at their limits, and what fills at the limits would lose against the mark, gains counted as nothing.
    """

    key: Ints
    stride: int
    totals: dict[str, Floats]

    @staticmethod
    def of(orders: pa.Table, account: Ints, place: np.ndarray, mark: Floats, size: Floats | float = 1.0) -> OpenOrders:
        """Orders by what they are in; those in nothing that counts here are left out.

        Args:
          orders: the book's table.
          account: `[rows]` account of each order.
          place: `[rows]` index of the contract, or of the asset, that each order is in; negative = left out.
          mark: in quote currency, of every contract or asset.
          size: `[rows]` what one unit of the order's quantity is counted as.
        """
        known = np.flatnonzero(place >= 0)
        stride = len(mark) + 1
        key, group = np.unique(account[known] * np.int64(stride) + place[known], return_inverse=True)
        quantity, is_buy = (floats(orders, "quantity") * size)[known], strings(orders, "side")[known] == "buy"
        buys, sells, limit = quantity * is_buy, quantity * ~is_buy, floats(orders, "price")[known]
        above = limit - mark[place[known]]

        def total(weights: Floats) -> Floats:
            return np.bincount(group.ravel(), weights=weights, minlength=len(key))

        sides = {"buys": buys, "sells": sells, "orders": np.ones(len(known))}
        sides |= {"buys_value": buys * limit, "sells_value": sells * limit}
        sides["order_loss"] = buys * np.maximum(above, 0) + sells * np.maximum(-above, 0)
        best_bid, best_ask = np.zeros(len(key)), np.full(len(key), np.inf)
        np.maximum.at(best_bid, group.ravel(), np.where(is_buy, limit, 0.0))
        np.minimum.at(best_ask, group.ravel(), np.where(is_buy, np.inf, limit))
        best = {"best_bid": best_bid, "best_ask": np.where(np.isinf(best_ask), 0.0, best_ask)}
        return OpenOrders(key, stride, {name: total(weights) for name, weights in sides.items()} | best)

    def without_leg(self, account: Ints, contract: np.ndarray) -> tuple[Ints, np.ndarray]:
        """Account and contract of the orders for which there is no leg."""
        rest = self.key[~np.isin(self.key, account * np.int64(self.stride) + contract)]
        return rest // self.stride, (rest % self.stride).astype(np.int32)

    def of_legs(self, account: Ints, contract: np.ndarray, name: str) -> Floats:
        """One of the totals for each leg, 0 where it has no orders, `[legs]`."""
        key = account * np.int64(self.stride) + contract
        place = np.minimum(np.searchsorted(self.key, key), max(len(self.key) - 1, 0))
        found = self.key[place] == key if len(self.key) else np.zeros(len(key), bool)
        return np.where(found, self.totals[name][place] if len(self.key) else 0.0, 0.0)
