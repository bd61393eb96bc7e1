"""Contracts in canonical order: the order in which legs are summed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpumargin.pack.assets import asset_prices, asset_values, collateral_prices, settlement_columns
from gpumargin.pack.columns import Ints
from gpumargin.pack.instruments import NO_EXPIRY, Listed, base_contracts, blank_contracts, listed_contracts, unit_market
from gpumargin_kernels import records

NO_UNIT = "-"  # stands in where a book lists no contract: arrays over units must not be empty


@dataclass(frozen=True)
class ContractSet:
    """Contracts in canonical order, with the market they are priced against.

    Canonical order is unit, expiry (base asset and perpetual first), strike, payoff, type, id: the order in which legs
    are summed. The last row is padding, worth nothing and belonging to no group.
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


def _joined(*parts: records.Contracts) -> records.Contracts:
    joined: records.Contracts = _mapped(lambda *columns: np.concatenate(columns), *parts)
    return joined


def padded_contracts(contracts: records.Contracts, rows: int) -> records.Contracts:
    """Contracts whose last row, padding worth nothing, is repeated until there are at least `rows`."""
    missing = max(rows - len(contracts.unit), 0)
    padded: records.Contracts = _mapped(lambda c: np.concatenate([c, np.repeat(c[-1:], missing, axis=0)]), contracts)
    return padded


def _runs(*columns: np.ndarray) -> np.ndarray:
    """Number of the run that each row belongs to, where rows with equal columns are neighbours."""
    changes = np.zeros(len(columns[0]), bool)
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    return np.cumsum(changes).astype(np.int32)


def _grouped(contracts: records.Contracts, expiry: Ints) -> records.Contracts:
    """Contracts in canonical order with their groups; what has no expiry is a group of its own."""
    single = np.where(expiry == NO_EXPIRY, np.arange(len(expiry)), -1)
    group = _runs(contracts.unit, expiry, single)
    return contracts._replace(expiry_group=group, strike_group=_runs(group, contracts.strike, *_sorts(contracts)))


def _sorts(contracts: records.Contracts) -> tuple[np.ndarray, ...]:
    """What keeps contracts of one expiry and strike apart: a digital option does not cover a vanilla one."""
    return contracts.is_option, contracts.is_digital  # type: ignore[return-value]


def _without_unused(contracts: records.Contracts) -> records.Contracts:
    """Contracts without the column that a book without digital options does not need: it shapes the program."""
    return contracts if np.any(contracts.is_digital) else contracts._replace(is_digital=None)


def _canonical_order(contracts: records.Contracts, expiry: Ints, ids: np.ndarray) -> np.ndarray:
    """Permutation to unit, expiry (base asset, then perpetual first), strike, payoff, type, id.

    A future stands before the options of its expiry: what a group is closed with is read from its last contract.
    """
    is_plain, is_held = ~contracts.is_option, ~contracts.is_base
    own: tuple[Any, ...] = (ids, contracts.is_call, contracts.is_digital, contracts.strike)
    return np.lexsort((*own, ~is_plain, is_held, expiry, contracts.unit))


def _base_places(assets: tuple[str, ...], kinds: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Index of each asset's base contract, -1 if it has none."""
    found = {str(ids[i]): i for i in np.flatnonzero(kinds == "base")}
    return np.array([found.get(asset, -1) for asset in assets], np.int64)


def _held(
    units: tuple[str, ...], assets: Collection[str], *, base_legs: Mapping[str, Collection[str]] | bool | str
) -> dict[str, str]:
    """Assets whose balances are legs, and the unit that each is a leg of."""
    if not isinstance(base_legs, Mapping):
        return {unit: unit for unit in units if base_legs and unit in assets}
    return {asset: unit for unit in units for asset in base_legs.get(unit, ()) if asset in assets}


def contract_set(
    tables: Mapping[str, pa.Table],
    listed: Listed,
    as_of: int,
    *,
    accounting: str,
    base_legs: bool | str | Mapping[str, Collection[str]],
    dollar_at_par: bool = False,
    inputs: Mapping[str, str] | None = None,
    asset_columns: Mapping[str, str] | None = None,
    settles: bool = False,
) -> ContractSet:
    """Contracts, unit market and asset prices of a checked book.

    Args:
      tables: the book's tables in canonical types.
      listed: those of its instruments that the model margins.
      as_of: microseconds since 1970.
      accounting: asset in which money is counted.
      base_legs: whether a balance in a unit's own asset becomes a leg of the unit; "every" = so does one in any asset
        but the accounting asset, of a unit of its own where no contract has that underlying; or the assets that move
        with each unit, at the price that collateral is valued at.
      inputs: columns of `marks`, confidences of `forwards`, terms of `instruments` that the model names, by that name.
      dollar_at_par: whether charges on spot take a dollar for one accounting unit, whatever that is worth.
      asset_columns: columns of the book by asset, `table.column`, that the model names, by that name.
      settles: whether P&L joins the balances of the assets that contracts settle in.

    Returns:
      `ContractSet`; instruments whose market data is missing carry NaN and must not be held.
    """
    price = asset_prices(tables["prices"], "price")
    assets = tuple(sorted(price))
    own_units = set(assets) - {accounting} if base_legs == "every" else set()
    units = tuple(sorted({*listed.underlying.tolist(), *own_units})) or (NO_UNIT,)
    held = _held(units, own_units or assets, base_legs=base_legs)
    own_price = collateral_prices(tables["prices"]) if isinstance(base_legs, Mapping) else price
    contracts = _joined(
        listed_contracts(tables, listed, as_of, units=units, price=price, accounting=accounting, inputs=inputs or {}),
        base_contracts(held, units=units, price=own_price, accounting=accounting, inputs=inputs or {}),
    )
    ids = np.append(listed.ids, np.array(list(held), dtype=str))
    kind = np.append(listed.kind, np.full(len(held), "base"))
    expiry = np.concatenate([listed.expiry, np.full(len(held), NO_EXPIRY)])
    order = _canonical_order(contracts, expiry, ids)
    grouped = _without_unused(_grouped(_mapped(lambda column: column[order], contracts), expiry[order]))
    paid_in = np.append(listed.settlement, np.full(len(held), ""))[order]
    padded = _joined(grouped, blank_contracts(1, inputs or {}))
    settlement = None
    if settles:
        settlement, column = settlement_columns(paid_in, contracts.unit[order], len(units), price, accounting)
        padded = padded._replace(settlement_column=column)
    return ContractSet(
        contracts=padded,
        market=unit_market(
            tables, listed, units=units, price=price, dollar=1.0 if dollar_at_par else price[accounting]
        ),
        assets=asset_values(tables, assets, accounting, asset_columns or {}, settlement),
        units=units,
        asset_ids=assets,
        ids=pa.array(ids[order], pa.string()),
        kinds=kind[order],
        expiry=expiry[order],
        is_listed=kind[order] != "base",
        base_contract=_base_places(assets, kind[order], ids[order]),
        settlement=np.searchsorted(assets, np.unique(paid_in[paid_in != ""])) if settles else None,
    )
