"""Canonical order of contracts: which there are, where each stands and what it is grouped with, at whatever price.

The order is unit, expiry (base asset and perpetual first), strike, payoff, type, id: the order in which legs are
summed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from gpumargin.pack.columns import Bools, Ints
from gpumargin.pack.instruments import NO_EXPIRY, Listed
from gpumargin.pack.joins import MarketRows

NO_UNIT = "-"  # stands in where a book lists no contract: arrays over units must not be empty
BaseLegs = bool | str | Mapping[str, Collection[str]]


@dataclass(frozen=True, eq=False)
class Ordering:
    """Contracts in canonical order.

    Attributes:
      listed: the instruments among them.
      units: `[U]`.
      asset_ids: `[C]`, ascending.
      held: assets whose balances are legs, and the unit that each is a leg of.
      place: `[M]` which of the listed instruments stands there, or, numbered on from them, which of the held assets.
      unit: `[M]` int32.
      expiry_group: `[M]` int32, what has no expiry is a group of its own.
      strike_group: `[M]` int32.
      ids: `[M]` instrument id, the asset's id for base rows.
      kinds: `[M]` words.
      expiry: `[M]` microseconds since 1970, NO_EXPIRY if none.
      paid_in: `[M]` asset that each settles in; empty for base rows.
    """

    listed: Listed
    units: tuple[str, ...]
    asset_ids: tuple[str, ...]
    held: Mapping[str, str]
    place: Ints
    unit: np.ndarray
    expiry_group: np.ndarray
    strike_group: np.ndarray
    ids: pa.Array
    kinds: np.ndarray
    expiry: Ints
    paid_in: np.ndarray

    @staticmethod
    def of(listed: Listed, assets: tuple[str, ...], accounting: str, base_legs: BaseLegs) -> Ordering:
        """The order of instruments and of the balances that are legs; arguments as of `contract_set`."""
        own_units = set(assets) - {accounting} if base_legs == "every" else set()
        units = tuple(sorted({*listed.underlying.tolist(), *own_units})) or (NO_UNIT,)
        held = _held(units, own_units or assets, base_legs)
        base = np.repeat([False, True], [len(listed.ids), len(held)])
        moves_with = np.append(listed.underlying, np.array([*held.values()], dtype=str))
        unit = np.searchsorted(np.array(units, dtype=str), moves_with).astype(np.int32)
        expiry = np.append(listed.expiry, np.full(len(held), NO_EXPIRY))
        ids = np.append(listed.ids, np.array([*held], dtype=str))
        is_option, is_call, is_digital, strike = (
            np.append(listed.terms[name], np.zeros(len(held), listed.terms[name].dtype))
            for name in ("is_option", "is_call", "is_digital", "strike")
        )
        # A future stands before the options of its expiry: what a group is closed with is read from its last contract.
        place = np.lexsort((ids, is_call, is_digital, strike, is_option, ~base, expiry, unit))
        single = np.where(expiry == NO_EXPIRY, np.arange(len(expiry)), -1)
        expiry_group = _runs(unit[place], expiry[place], single[place])
        # A digital option does not cover a vanilla one.
        strike_group = _runs(expiry_group, strike[place], is_option[place], is_digital[place])
        return Ordering(
            listed=listed,
            units=units,
            asset_ids=assets,
            held=held,
            place=place,
            unit=unit[place],
            expiry_group=expiry_group,
            strike_group=strike_group,
            ids=pa.array(ids[place], pa.string()),
            kinds=np.append(listed.kind, np.full(len(held), "base"))[place],
            expiry=expiry[place],
            paid_in=np.append(listed.settlement, np.full(len(held), ""))[place],
        )

    def is_of(self, instruments: pa.Table, rows: MarketRows, assets: tuple[str, ...]) -> bool:
        """Whether it is the order of these very instruments, with these assets."""
        return self.listed.instruments is instruments and self.listed.all_rows is rows and self.asset_ids == assets

    @cached_property
    def is_listed(self) -> Bools:
        """Which are listed, `[M]`: all but base rows."""
        return np.asarray(self.kinds != "base")

    @cached_property
    def base_contract(self) -> Ints:
        """Index of each asset's base contract, -1 if it has none, `[C]`."""
        rows = np.flatnonzero(~self.is_listed)
        found = dict(zip(self.ids.take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True))
        return np.array([found.get(asset, -1) for asset in self.asset_ids], np.int64)


def _held(units: tuple[str, ...], assets: Collection[str], base_legs: BaseLegs) -> dict[str, str]:
    """Assets whose balances are legs, and the unit that each is a leg of."""
    if not isinstance(base_legs, Mapping):
        return {unit: unit for unit in units if base_legs and unit in assets}
    return {asset: unit for unit in units for asset in base_legs.get(unit, ()) if asset in assets}


def _runs(*columns: np.ndarray) -> np.ndarray:
    """Number of the run that each row belongs to, where rows with equal columns are neighbours."""
    changes = np.zeros(len(columns[0]), bool)
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    return np.cumsum(changes).astype(np.int32)
