"""Assets by the prices and totals that a book gives for them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from gpumargin.pack.columns import Floats, Ints, floats, strings
from gpumargin.schema import USD
from gpumargin_kernels import records

_NO_PRICE = ("confidence", "collateral_confidence")  # columns of prices that are not in USD


def asset_prices(prices: pa.Table, column: str) -> dict[str, float]:
    """A price per asset; USD is worth 1 of itself."""
    return {USD: 1.0} | dict(zip(strings(prices, "asset"), floats(prices, column).tolist(), strict=True))


def collateral_prices(prices: pa.Table) -> dict[str, float]:
    """Price of each asset as collateral, which is its price where no other is given."""
    return _or_price(prices, "collateral_price", asset_prices(prices, "price"))


def asset_values(
    tables: Mapping[str, pa.Table],
    names: tuple[str, ...],
    accounting: str,
    columns: Mapping[str, str],
    settlement: records.Settlement | None,
) -> records.Assets:
    """Assets at their collateral price, which is the price where no other is given, and what else a model names.

    Args:
      tables: the book's tables in canonical types.
      names: `[C]` assets, ascending.
      accounting: asset in which money is counted.
      columns: `table.column` by the name that expressions use.
      settlement: where P&L settles.
    """
    price = asset_prices(tables["prices"], "price")
    collateral = collateral_prices(tables["prices"])
    found: dict[str, np.ndarray] = {}
    for name, path in columns.items():
        table, column = path.split(".")
        values = _column(tables[table], column, price, collateral)
        ratio = price[accounting] if table == "prices" and column not in _NO_PRICE else 1.0
        found[name] = np.array([values.get(asset, np.nan) for asset in names]) / ratio
    return records.Assets(
        ratio=np.array([collateral[name] / price[accounting] for name in names]),
        price=np.array([price[name] for name in names]),
        columns=found,
        settlement=settlement,
    )


def _or_price(prices: pa.Table, column: str, price: Mapping[str, float]) -> dict[str, float]:
    """Another price by asset, and the one given where that is null or the column is absent."""
    if column not in prices.column_names:
        return dict(price)
    other = asset_prices(prices, column)
    return {**price, **{asset: value for asset, value in other.items() if not np.isnan(value)}}


def _column(
    table: pa.Table, column: str, price: Mapping[str, float], collateral: Mapping[str, float]
) -> Mapping[str, float]:
    """A column by asset. USD is worth 1 and certain; an efficiency mode without a price of its own has the usual."""
    if column == "price":
        return price
    if column in {"collateral_price", "emode_price"}:
        return _or_price(table, column, collateral)
    usual = 1.0 if column in {"twap", *_NO_PRICE} else np.nan
    own = dict(zip(strings(table, "asset"), floats(table, column).tolist(), strict=True))
    return {USD: usual} | own


def settlement_columns(
    paid_in: np.ndarray, unit: Ints, units: int, price: Mapping[str, float], accounting: str
) -> tuple[records.Settlement, np.ndarray]:
    """Columns by asset that contracts settle in, and the column of each contract, `[M + 1]` with padding.

    Args:
      paid_in: `[M]` settlement asset of each contract, in canonical order; empty = it pays no P&L.
      unit: `[M]` its unit.
      units: number of units.
      price: USD per asset.
      accounting: asset in which money is counted.
    """
    pays = paid_in != ""
    assets = np.unique(paid_in[pays])
    column = np.where(pays, np.searchsorted(assets, paid_in), -1)
    least, most = np.full(units, len(assets)), np.full(units, -1)
    np.minimum.at(least, unit[pays], column[pays])
    np.maximum.at(most, unit[pays], column[pays])
    ratio: Floats = np.array([price[str(asset)] for asset in assets]) / price[accounting]
    of_unit = np.where(least == most, most, -1).astype(np.int32)
    settlement = records.Settlement(ratio if len(assets) else np.ones(1), of_unit)
    return settlement, np.append(column, -1).astype(np.int32)
