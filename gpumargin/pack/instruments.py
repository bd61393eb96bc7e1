"""Instruments joined with their marks, forwards and prices, as arrays in file order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gpumargin.pack.columns import (
    MICROSECONDS_PER_YEAR,
    Floats,
    Ints,
    flags,
    floats,
    instants,
    is_one_of,
    numbers_of,
    strings,
)
from gpumargin.pack.joins import MarketRows
from gpumargin.schema import MARKS, USD
from gpumargin_kernels import records
from gpumargin_kernels.svi import SviSlice

NO_EXPIRY = -1
_SVI = ("svi_a", "svi_b", "svi_rho", "svi_m", "svi_sigma", "svi_forward", "svi_years")
_FEEDS = ("forward_confidence", "rate_confidence", "vol_confidence")
_NO_GROUP = -1
QUOTE_TWAP = "quote_twap"  # the input that is no column of marks or instruments


@dataclass(frozen=True)
class Listed:
    """Instruments that a model margins, in file order.

    Attributes:
      table: their rows.
      marks: the mark of each, null where it has none.
      forwards: the forwards row of each one's underlying, quote currency and expiry, likewise.
      ids: `[M]`, like `underlying` and `kind`.
      underlying: of each.
      kind: of each.
      expiry: `[M]` microseconds since 1970, `NO_EXPIRY` if it has none.
    """

    table: pa.Table
    marks: pa.Table
    forwards: pa.Table
    ids: np.ndarray
    underlying: np.ndarray
    kind: np.ndarray
    expiry: Ints

    @staticmethod
    def of(tables: Mapping[str, pa.Table], rows: MarketRows, kinds: Collection[str]) -> Listed:
        """The instruments of the given kinds."""
        instruments = tables["instruments"]
        is_own = is_one_of(instruments, "kind", kinds)
        table = instruments.filter(pa.array(is_own))
        has_expiry = "expiry" in table.column_names
        return Listed(
            table,
            _taken(tables["marks"], rows.marks[is_own]),
            _taken(tables["forwards"], rows.forwards[is_own]),
            strings(table, "instrument_id"),
            strings(table, "underlying"),
            strings(table, "kind"),
            instants(table, "expiry", NO_EXPIRY) if has_expiry else np.full(table.num_rows, NO_EXPIRY),
        )


def _taken(source: pa.Table, row: Ints) -> pa.Table:
    """Rows of a table; all null where there is none, -1."""
    return source.take(pa.array(row, mask=row < 0))


def _lookup(values: Mapping[str, float], names: Collection[str]) -> Floats:
    known = {name: values.get(str(name), np.nan) for name in set(names)}
    return np.fromiter(map(known.__getitem__, names), np.float64, len(names))


def listed_contracts(
    tables: Mapping[str, pa.Table],
    listed: Listed,
    as_of: int,
    *,
    units: tuple[str, ...],
    price: Mapping[str, float],
    accounting: str,
    inputs: Mapping[str, str],
) -> records.Contracts:
    """Contracts of the listed instruments, `[M]` in file order, groups still unset.

    What has expired is priced at its settlement price, which no shock moves.
    """
    marks, forwards = listed.marks, listed.forwards
    has_expired = (listed.expiry != NO_EXPIRY) & (listed.expiry <= as_of)
    settled = np.where(has_expired, floats(marks, "settlement_price"), np.nan)
    is_settled, is_option = ~np.isnan(settled), listed.kind == "option"
    fixed = np.where(is_settled, settled, floats(forwards, "forward_fixed", 0.0))
    variable = np.where(is_settled, 0.0, floats(forwards, "forward") - fixed)
    final = np.where(is_option, np.nan, settled)
    blank = blank_contracts(len(listed.ids), inputs)
    return blank._replace(
        inputs={name: _input(tables, listed, column, price[accounting]) for name, column in inputs.items()},
        quote_ratio=numbers_of(listed.table, "quote", price) / price[accounting],
        unit=np.searchsorted(np.array(units, dtype=str), listed.underlying).astype(np.int32),
        is_option=is_option,
        is_call=strings(listed.table, "option_type") == "call",
        is_perpetual=listed.kind == "perpetual",
        is_inverse=flags(listed.table, "inverse", default=False),
        size=floats(listed.table, "contract_size", 1.0),
        strike=np.where(is_option, floats(listed.table, "strike"), 0.0),
        forward_fixed=np.where(is_option, fixed, 0.0),
        forward_variable=np.where(is_option, variable, 0.0),
        rate=np.where(is_option, floats(forwards, "rate", 0.0), 0.0),
        years=np.where(listed.expiry == NO_EXPIRY, 0, np.maximum(listed.expiry - as_of, 0) / MICROSECONDS_PER_YEAR),
        vol=np.where(is_option & ~is_settled, floats(marks, "mark_iv"), 0.0),
        mark=np.where(is_settled, final, floats(marks, "mark_price")),
        settlement_ratio=numbers_of(listed.table, "settlement", price) / price[accounting],
        confidence=np.where(is_option, _least_confidence(forwards), 1.0),
        svi=SviSlice(*(floats(forwards, name) for name in _SVI)),
        is_digital=is_option & (strings(listed.table, "payoff") == "digital"),
    )


def _input(tables: Mapping[str, pa.Table], listed: Listed, column: str, accounting: float) -> Floats:
    """A column that the model names.

    Of marks, NaN where null; of forwards, the confidence of an option's expiry; of instruments, 0 where one has none;
    or a price of the quote currency.
    """
    if column in _FEEDS:
        feed = floats(listed.forwards, column, 1.0)
        return np.where(listed.kind == "option", feed, 1.0)
    if column in MARKS.by_name:
        return floats(listed.marks, column)
    if column == QUOTE_TWAP:
        prices = tables["prices"]
        twap = dict(zip(strings(prices, "asset"), floats(prices, "twap").tolist(), strict=True))
        return numbers_of(listed.table, "quote", {USD: 1.0} | twap) / accounting
    return floats(listed.table, column, 0.0)


def _least_confidence(forwards: pa.Table) -> Floats:
    feeds = [floats(forwards, feed, 1.0) for feed in _FEEDS]
    return np.minimum(np.minimum(*feeds[:2]), feeds[2])


def blank_contracts(rows: int, inputs: Collection[str] = ()) -> records.Contracts:
    """Contracts that are worth nothing and belong to no group: what others are made from, and padding."""
    codes = {"unit": 0, "expiry_group": _NO_GROUP, "strike_group": _NO_GROUP}

    def column(name: str) -> np.ndarray:
        if name in codes:
            return np.full(rows, codes[name], np.int32)
        return np.zeros(rows, bool) if name.startswith("is_") else np.full(rows, float(name == "confidence"))

    svi = SviSlice(*(np.ones(rows) for _ in _SVI))
    plain = [name for name in records.Contracts._fields if name not in {"svi", "inputs"}]
    return records.Contracts(
        **{name: column(name) for name in plain},
        svi=svi,
        inputs={name: np.full(rows, 1.0 if name in _FEEDS else np.nan) for name in inputs},
    )


def base_contracts(
    held: Mapping[str, str],
    *,
    units: tuple[str, ...],
    price: Mapping[str, float],
    accounting: str,
    inputs: Collection[str],
) -> records.Contracts:
    """One contract per asset of `held`, which says what unit it moves with: one unit of the asset, held as balance."""
    blank = blank_contracts(len(held), inputs)
    return blank._replace(
        unit=np.array([units.index(unit) for unit in held.values()], np.int32),
        is_base=np.ones(len(held), bool),
        size=np.ones(len(held)),
        mark=_lookup(price, held),
        settlement_ratio=np.full(len(held), 1.0 / price[accounting]),
        quote_ratio=np.full(len(held), 1.0 / price[accounting]),
    )


def unit_market(
    tables: Mapping[str, pa.Table], listed: Listed, *, units: tuple[str, ...], price: Mapping[str, float], dollar: float
) -> records.UnitMarket:
    """Index price, in accounting units of `dollar` USD, and confidences of every unit, `[U]`."""
    prices = tables["prices"]
    confidence = dict(zip(strings(prices, "asset"), floats(prices, "confidence", 1.0).tolist(), strict=True))
    perpetual = np.ones(len(units))
    is_perpetual = listed.kind == "perpetual"
    of_mark = floats(listed.marks, "confidence", 1.0)[is_perpetual]
    np.minimum.at(perpetual, np.searchsorted(np.array(units, dtype=str), listed.underlying[is_perpetual]), of_mark)
    of_spot = np.array([confidence.get(unit, 1.0) for unit in units])
    return records.UnitMarket(
        spot=_lookup(price, units) / dollar,
        spot_confidence=of_spot,
        perpetual_confidence=perpetual,
        dollar=np.full(len(units), 1.0 / dollar),
    )
