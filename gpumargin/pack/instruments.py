"""Instruments joined with their marks, forwards and prices, as arrays in file order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pyarrow as pa

from gpumargin.pack.columns import (
    MICROSECONDS_PER_YEAR,
    Bools,
    Floats,
    Ints,
    flags,
    floats,
    instants,
    is_one_of,
    numbers_of,
    strings,
)
from gpumargin.pack.joins import MarketRows, floats_at
from gpumargin.schema import MARKS, USD
from gpumargin_kernels import records
from gpumargin_kernels.svi import SviSlice

NO_EXPIRY = -1
_SVI = ("svi_a", "svi_b", "svi_rho", "svi_m", "svi_sigma", "svi_forward", "svi_years")
_FEEDS = ("forward_confidence", "rate_confidence", "vol_confidence")
_NO_GROUP = -1
QUOTE_TWAP = "quote_twap"  # the input that is no column of marks or instruments


@dataclass(frozen=True, eq=False)
class Listed:
    """Instruments that a model margins, in file order.

    Attributes:
      instruments: all that there are.
      all_rows: of the marks and forwards of all.
      table: the rows of those that it margins, `[M]`.
      rows: of their marks and forwards.
      ids: `[M]`, like `underlying` and `kind`.
      underlying: of each.
      kind: of each.
      expiry: `[M]` microseconds since 1970, `NO_EXPIRY` if it has none.
    """

    instruments: pa.Table
    all_rows: MarketRows
    table: pa.Table
    rows: MarketRows
    ids: np.ndarray
    underlying: np.ndarray
    kind: np.ndarray
    expiry: Ints

    @staticmethod
    def of(instruments: pa.Table, rows: MarketRows, kinds: Collection[str]) -> Listed:
        """The instruments of the given kinds; `rows` of all of them."""
        is_own = is_one_of(instruments, "kind", kinds)
        table = instruments.filter(pa.array(is_own))
        has_expiry = "expiry" in table.column_names
        return Listed(
            instruments,
            rows,
            table,
            MarketRows(*(row[is_own] for row in rows)),
            strings(table, "instrument_id"),
            strings(table, "underlying"),
            strings(table, "kind"),
            instants(table, "expiry", NO_EXPIRY) if has_expiry else np.full(table.num_rows, NO_EXPIRY),
        )

    @cached_property
    def is_option(self) -> Bools:
        """Which are options, `[M]`."""
        return np.asarray(self.kind == "option")

    @cached_property
    def settlement(self) -> np.ndarray:
        """Asset that each settles in, `[M]`."""
        return strings(self.table, "settlement")

    @cached_property
    def terms(self) -> dict[str, np.ndarray]:
        """Columns of contracts that no price is asked for, `[M]` each."""
        return {
            "is_option": self.is_option,
            "is_call": strings(self.table, "option_type") == "call",
            "is_perpetual": self.kind == "perpetual",
            "is_inverse": flags(self.table, "inverse", default=False),
            "is_digital": self.is_option & (strings(self.table, "payoff") == "digital"),
            "size": floats(self.table, "contract_size", 1.0),
            "strike": np.where(self.is_option, floats(self.table, "strike"), 0.0),
        }


def _lookup(values: Mapping[str, float], names: Collection[str]) -> Floats:
    known = {name: values.get(str(name), np.nan) for name in set(names)}
    return np.fromiter(map(known.__getitem__, names), np.float64, len(names))


def listed_contracts(
    tables: Mapping[str, pa.Table],
    listed: Listed,
    as_of: int,
    *,
    price: Mapping[str, float],
    accounting: str,
    inputs: Mapping[str, str],
) -> records.Contracts:
    """Contracts of the listed instruments, `[M]` in file order, unit and groups still unset.

    What has expired is priced at its settlement price, which no shock moves.
    """
    mark = partial(floats_at, tables["marks"], listed.rows.marks)
    forward = partial(floats_at, tables["forwards"], listed.rows.forwards)
    has_expired = (listed.expiry != NO_EXPIRY) & (listed.expiry <= as_of)
    settled = np.where(has_expired, mark("settlement_price"), np.nan)
    is_settled, is_option = ~np.isnan(settled), listed.is_option
    fixed = np.where(is_settled, settled, forward("forward_fixed", 0.0))
    variable = np.where(is_settled, 0.0, forward("forward") - fixed)
    final = np.where(is_option, np.nan, settled)
    blank = blank_contracts(len(listed.ids), inputs)
    return blank._replace(
        inputs={name: _input(tables, listed, column, price[accounting]) for name, column in inputs.items()},
        quote_ratio=numbers_of(listed.table, "quote", price) / price[accounting],
        **listed.terms,
        forward_fixed=np.where(is_option, fixed, 0.0),
        forward_variable=np.where(is_option, variable, 0.0),
        rate=np.where(is_option, forward("rate", 0.0), 0.0),
        years=np.where(listed.expiry == NO_EXPIRY, 0, np.maximum(listed.expiry - as_of, 0) / MICROSECONDS_PER_YEAR),
        vol=np.where(is_option & ~is_settled, mark("mark_iv"), 0.0),
        mark=np.where(is_settled, final, mark("mark_price")),
        settlement_ratio=numbers_of(listed.table, "settlement", price) / price[accounting],
        confidence=np.where(is_option, np.minimum.reduce([forward(feed, 1.0) for feed in _FEEDS]), 1.0),
        svi=SviSlice(*map(forward, _SVI)),
    )


def _input(tables: Mapping[str, pa.Table], listed: Listed, column: str, accounting: float) -> Floats:
    """A column that the model names.

    Of marks, NaN where null; of forwards, the confidence of an option's expiry; of instruments, 0 where one has none;
    or a price of the quote currency.
    """
    if column in _FEEDS:
        feed = floats_at(tables["forwards"], listed.rows.forwards, column, 1.0)
        return np.where(listed.is_option, feed, 1.0)
    if column in MARKS.by_name:
        return floats_at(tables["marks"], listed.rows.marks, column)
    if column == QUOTE_TWAP:
        prices = tables["prices"]
        twap = dict(zip(strings(prices, "asset"), floats(prices, "twap").tolist(), strict=True))
        return numbers_of(listed.table, "quote", {USD: 1.0} | twap) / accounting
    return floats(listed.table, column, 0.0)


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
    held: Collection[str],
    *,
    price: Mapping[str, float],
    accounting: str,
    inputs: Collection[str],
) -> records.Contracts:
    """One contract per asset of `held`: one unit of the asset, held as balance; unit and groups still unset."""
    blank = blank_contracts(len(held), inputs)
    return blank._replace(
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
    is_perpetual = listed.terms["is_perpetual"]
    of_mark = floats_at(tables["marks"], listed.rows.marks, "confidence", 1.0)[is_perpetual]
    np.minimum.at(perpetual, np.searchsorted(np.array(units, dtype=str), listed.underlying[is_perpetual]), of_mark)
    of_spot = np.array([confidence.get(unit, 1.0) for unit in units])
    return records.UnitMarket(
        spot=_lookup(price, units) / dollar,
        spot_confidence=of_spot,
        perpetual_confidence=perpetual,
        dollar=np.full(len(units), 1.0 / dollar),
    )
