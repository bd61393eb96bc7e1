"""What one model's run folder and its book say of every contract: values of one long contract, unit by unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from gpumargin.explain.charges import CONTRACT_VALUES
from gpumargin.explain.market import Market, account_legs, account_market, base_assets
from gpumargin.explain.sources import AccountSources
from gpumargin.explain.unit import UnitSide
from gpumargin.modelfile import ModelFile
from gpumargin.verification.figures import Array

_BLANK = {"entry_price": pl.lit(None, pl.Float64), "unsettled": pl.lit(0.0)}


@dataclass(frozen=True)
class UnitContracts:
    """Contracts of one risk unit, `[M]`, in the order in which legs are summed.

    Attributes:
      side: what `explain` knows of one long contract of each.
      first: place of the first one among all contracts.
    """

    side: UnitSide
    first: int
    _values: dict[str, Array] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """The underlying."""
        return self.side.unit

    def values(self, name: str) -> Array:
        """What expressions may name of one long contract, `[M]`."""
        if name not in self._values:
            self._values[name] = np.asarray(CONTRACT_VALUES[name](self.side), np.float64)
        return self._values[name]

    def column(self, name: str) -> Array:
        """A column of the contracts as floats, nulls NaN, `[M]`."""
        if f".{name}" not in self._values:
            self._values[f".{name}"] = self.side.column(name)
        return self._values[f".{name}"]

    @cached_property
    def is_option(self) -> Array:
        """Which are options, `[M]`."""
        return self.side.is_kind("option")

    @cached_property
    def is_base(self) -> Array:
        """Which are the unit's own assets, `[M]`."""
        return self.side.is_kind("base")

    @cached_property
    def settlement(self) -> list[str | None]:
        """Asset in which each settles, `[M]`; None for the unit's own assets."""
        return list(self.side.legs["settlement"])

    @cached_property
    def expiry_group(self) -> Array:
        """Code of each one's expiry, `[M]`; a contract without one is alone."""
        return _codes(self.side.expiries(), self.side.legs.height)

    @cached_property
    def strike_group(self) -> Array:
        """Code of each option's expiry, strike and payoff, `[M]`; -1 for all others."""
        return _codes(self.side.strikes(), self.side.legs.height)

    def chosen(self, kinds: Sequence[str]) -> Array:
        """Which are of kinds that a charge looks at, `[M]`."""
        is_call = self.side.is_call
        known = {kind: self.side.is_kind(kind) for kind in ("option", "future", "perpetual", "base")}
        known |= {"call": known["option"] & is_call, "put": known["option"] & ~is_call}
        return np.any([known[kind] for kind in kinds], axis=0)


def _codes(groups: Mapping[Any, Array], size: int) -> Array:
    found = np.full(size, -1, np.int64)
    for code, members in enumerate(groups.values()):
        found[members] = code
    return found


@dataclass(frozen=True)
class Contracts:
    """All contracts of one model's run.

    Attributes:
      sources: the model, the run's tables and the book's market.
      market: prices and confidences.
      frame: every contract with what the book says of it, `[M]`.
      units: the same by risk unit, one after the other.
    """

    sources: AccountSources
    market: Market
    frame: pl.DataFrame
    units: list[UnitContracts]

    @property
    def file(self) -> ModelFile:
        """The model."""
        return self.sources.file


def model_contracts(
    file: ModelFile,
    tables: Mapping[str, pl.DataFrame],
    market_tables: Mapping[str, pl.DataFrame],
    manifest: Mapping[str, Any],
) -> Contracts:
    """Every contract of a model, as the legs of an account that holds one of each.

    Args:
      file: the model.
      tables: `instruments` and `scenarios` of the run.
      market_tables: of the book, ids as text.
      manifest: of the run.
    """
    sources = AccountSources({}, None, file, tables["instruments"], tables["scenarios"], market_tables, manifest)
    listed = tables["instruments"].filter(pl.col("kind") != "base")["instrument_id"].cast(pl.String)
    positions = pl.DataFrame({"instrument_id": listed}).with_columns(quantity=pl.lit(1.0), **_BLANK)
    assets = pl.DataFrame({"asset": sorted(base_assets(sources))}, schema={"asset": pl.String})
    balances = assets.with_columns(amount=pl.lit(1.0), is_collateral=pl.lit(True))
    sources = AccountSources(
        {}, None, file, tables["instruments"], tables["scenarios"],
        {**market_tables, "positions": positions, "balances": balances}, manifest,
    )  # fmt: skip
    market = account_market(sources)
    frame = account_legs(sources, market).with_columns(pl.col("unit").cast(pl.String))
    names = frame["unit"].unique(maintain_order=True).to_list()
    frame = pl.concat([frame.filter(pl.col("unit") == name) for name in names]) if names else frame
    units, first = [], 0
    for name in names:
        own = frame.filter(pl.col("unit") == name)
        units.append(UnitContracts(_side(sources, market, name, own), first))
        first += own.height
    return Contracts(sources, market, frame, units)


def _side(sources: AccountSources, market: Market, unit: str, legs: pl.DataFrame) -> UnitSide:
    file, scenarios = sources.file, sources.scenarios
    own = scenarios.filter(pl.col("unit") == unit).sort("column") if "unit" in scenarios.columns else scenarios
    return UnitSide(unit, legs, _risk_arrays(legs), own, market, {}, file.parameters, file.shared_names(), file.tables)


def _risk_arrays(legs: pl.DataFrame) -> Array:
    """P&L of one contract in each scenario column, `[M, S]`; a model without scenarios has no risk array."""
    if "scenario_pnl" not in legs.columns or not legs.height:
        return np.zeros((legs.height, 0))
    values = legs["scenario_pnl"].explode().cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return values.reshape(legs.height, -1)
