"""Value and Greeks of every contract of a market: no accounts, and of a model only what contracts are stated in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.bind import without_scenarios
from gpumargin.catalogue import MarginModel
from gpumargin.checks import require_valid, resolve_as_of
from gpumargin.engine import Engine, Settings
from gpumargin.errors import UsageError
from gpumargin.filling import fill_market
from gpumargin.frames import microseconds
from gpumargin.model_checks import require_priceable
from gpumargin.pack.contracts import ContractSet, contract_set
from gpumargin.pack.filled import with_filled
from gpumargin.result_columns import MARKET_UNITS, described
from gpumargin.results import instruments_table
from gpumargin.schema import USD
from gpumargin.tables import Book

Units = Literal["raw", "market"]


@dataclass(frozen=True)
class Statement:
    """What contracts are stated in.

    Attributes:
      money: the accounting asset.
      kinds: kinds of contract that are listed.
      vol_limit: highest vol, decimal per square root of a year, and
      tenor_limit_years: longest time to expiry that are not taken for an error of unit.
    """

    money: str = USD
    kinds: Collection[str] = ("future", "option", "perpetual")
    vol_limit: float = 5.0
    tenor_limit_years: float = 10.0

    @staticmethod
    def of(model: MarginModel) -> Statement:
        """As a model states its contracts."""
        file = model.file
        return Statement(file.accounting_asset, file.kinds, file.vol_limit, file.tenor_limit_years)


def market_greeks(
    book: Book,
    *,
    statement: Statement | None = None,
    as_of: datetime | None = None,
    units: Units = "raw",
    underlying: str | None = None,
) -> pa.Table:
    """Value, vol and Greeks of one long contract of each instrument, in canonical order.

    Args:
      book: from `read_market` or `read_book`; positions and balances are not looked at.
      statement: accounting asset and kinds of contract; None = USD and every kind.
      as_of: instant of valuation; None = the newest timestamp of the book.
      units: `raw` = per 1.00 and per year; `market` = as `result_columns.MARKET_UNITS` says.
      underlying: only contracts on this one; None = all.

    Returns:
      Table with the columns of a run's `instruments` but for the risk array, unit, sign and meaning in the metadata of
      every field. Null where the market does not say what a contract's number needs.

    Raises:
      InputError: the market breaks the input contract, or has terms that are not priced. UsageError: no contract is on
        this underlying.
    """
    stated = statement or Statement()
    require_valid(book, as_of=as_of, vol_limit=stated.vol_limit, tenor_limit_years=stated.tenor_limit_years)
    require_priceable(book, stated.money)
    instant = resolve_as_of(book, as_of)
    contracts = contract_set(
        book.tables,
        book.market_rows,
        microseconds(instant),
        kinds=stated.kinds,
        accounting=stated.money,
        base_legs=False,
    )
    filled = fill_market(book, instant, device="auto", vol_limit=stated.vol_limit).filled
    contracts = contracts if filled is None else with_filled(contracts, filled)
    engine = Engine(without_scenarios(len(contracts.units)), contracts, Settings())
    table = instruments_table(contracts, engine.contract_risk())
    chosen = table if underlying is None else table.filter(_is_on(contracts, underlying))
    name = "instruments" if units == "raw" else "market_instruments"
    return described(chosen if units == "raw" else _in_market_units(chosen), name, stated.money)


def _is_on(contracts: ContractSet, underlying: str) -> pa.Array:
    if underlying not in contracts.units:
        message = f"no contract on underlying {underlying!r}; there are: {', '.join(contracts.units)}"
        raise UsageError(message)
    unit = contracts.contracts.unit[: contracts.padding]
    return pa.array(np.asarray(unit == contracts.units.index(underlying)))


def _in_market_units(table: pa.Table) -> pa.Table:
    for name, divisor in MARKET_UNITS.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pc.divide(table[name], divisor))
    return table
