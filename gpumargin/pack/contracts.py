"""Contracts in canonical order, at the prices of a market."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpumargin.pack.assets import asset_prices, asset_values, collateral_prices, settlement_columns
from gpumargin.pack.columns import Ints
from gpumargin.pack.instruments import Listed, base_contracts, blank_contracts, listed_contracts, unit_market
from gpumargin.pack.joins import MarketRows
from gpumargin.pack.ordering import BaseLegs, Ordering
from gpumargin_kernels import records


@dataclass(frozen=True)
class ContractSet:
    """Contracts in canonical order, with the market they are priced against.

    The order is that of `ordering`. The last row is padding, worth nothing and belonging to no group.
    """

    contracts: records.Contracts  # [M + 1] numpy
    market: records.UnitMarket  # [U] numpy
    assets: records.Assets  # [C] numpy
    units: tuple[str, ...]  # [U]
    asset_ids: tuple[str, ...]  # [C]
    ids: pa.Array  # [M] instrument id, the asset's id for base rows
    kinds: np.ndarray  # [M] words
    expiry: Ints  # [M] microseconds since 1970, NO_EXPIRY if none
    is_listed: np.ndarray  # [M] bool, False for base rows
    base_contract: np.ndarray  # [C] int, index of the asset's base contract, -1 if it is not a leg
    settlement: np.ndarray | None = None  # [J] int, assets into whose balances P&L settles; None = it does not
    order: Ordering | None = None  # what of it may be taken over at another market

    @property
    def padding(self) -> int:
        """Index of the padding contract."""
        return int(self.expiry.size)


def _mapped(function: Callable[..., np.ndarray], first: Any, *others: Any) -> Any:
    """A record of the form of the first whose fields are `function` of the records' fields; None stays None."""
    if first is None:
        return None
    if isinstance(first, dict):
        return {name: function(first[name], *(other[name] for other in others)) for name in first}
    if not isinstance(first, tuple):
        return function(first, *others)
    return type(first)(*(_mapped(function, *fields) for fields in zip(first, *others, strict=True)))


def _ordered(order: Ordering, *parts: records.Contracts) -> records.Contracts:
    """Listed, base and padding contracts in canonical order, with their groups.

    Without the column that a book without digital options does not need: it shapes the program.
    """
    place = np.append(order.place, len(order.place))
    joined: records.Contracts = _mapped(lambda *columns: np.concatenate(columns)[place], *parts)
    padding = parts[-1]
    return joined._replace(
        unit=np.append(order.unit, padding.unit),
        expiry_group=np.append(order.expiry_group, padding.expiry_group),
        strike_group=np.append(order.strike_group, padding.strike_group),
        is_digital=joined.is_digital if np.any(joined.is_digital) else None,
    )


def padded_contracts(contracts: records.Contracts, rows: int) -> records.Contracts:
    """Contracts whose last row, padding worth nothing, is repeated until there are at least `rows`."""
    missing = max(rows - len(contracts.unit), 0)
    padded: records.Contracts = _mapped(lambda c: np.concatenate([c, np.repeat(c[-1:], missing, axis=0)]), contracts)
    return padded


def contract_set(
    tables: Mapping[str, pa.Table],
    rows: MarketRows,
    as_of: int,
    *,
    kinds: Collection[str],
    accounting: str,
    base_legs: BaseLegs,
    dollar_at_par: bool = False,
    inputs: Mapping[str, str] | None = None,
    asset_columns: Mapping[str, str] | None = None,
    settles: bool = False,
    before: Ordering | None = None,
) -> ContractSet:
    """Contracts, unit market and asset prices of a checked book.

    Args:
      tables: the book's tables in canonical types.
      rows: where marks and forwards of its instruments stand.
      as_of: microseconds since 1970.
      kinds: kinds of contract that the model margins; others are left out.
      accounting: asset in which money is counted.
      base_legs: whether a balance in a unit's own asset becomes a leg of the unit; "every" = so does one in any asset
        but the accounting asset, of a unit of its own where no contract has that underlying; or the assets that move
        with each unit, at the price that collateral is valued at.
      inputs: columns of `marks`, confidences of `forwards`, terms of `instruments` that the model names, by that name.
      dollar_at_par: whether charges on spot take a dollar for one accounting unit, whatever that is worth.
      asset_columns: columns of the book by asset, `table.column`, that the model names, by that name.
      settles: whether P&L joins the balances of the assets that contracts settle in.
      before: the order at another market, with the same other arguments; taken over if it is that of this one.

    Returns:
      `ContractSet`; instruments whose market data is missing carry NaN and must not be held.
    """
    price = asset_prices(tables["prices"], "price")
    assets = tuple(sorted(price))
    own = before
    if own is None or not own.is_of(tables["instruments"], rows, assets):
        own = Ordering.of(Listed.of(tables["instruments"], rows, kinds), assets, accounting, base_legs)
    base_price = collateral_prices(tables["prices"]) if isinstance(base_legs, Mapping) else price
    contracts = _ordered(
        own,
        listed_contracts(tables, own.listed, as_of, price=price, accounting=accounting, inputs=inputs or {}),
        base_contracts(own.held, price=base_price, accounting=accounting, inputs=inputs or {}),
        blank_contracts(1, inputs or {}),
    )
    settlement, paid_in = None, own.paid_in
    if settles:
        settlement, column = settlement_columns(paid_in, own.unit, len(own.units), price, accounting)
        contracts = contracts._replace(settlement_column=column)
    dollar = 1.0 if dollar_at_par else price[accounting]
    return ContractSet(
        contracts=contracts,
        market=unit_market(tables, own.listed, units=own.units, price=price, dollar=dollar),
        assets=asset_values(tables, assets, accounting, asset_columns or {}, settlement),
        units=own.units,
        asset_ids=assets,
        ids=own.ids,
        kinds=own.kinds,
        expiry=own.expiry,
        is_listed=own.is_listed,
        base_contract=own.base_contract,
        settlement=np.searchsorted(assets, np.unique(paid_in[paid_in != ""])) if settles else None,
        order=own,
    )
