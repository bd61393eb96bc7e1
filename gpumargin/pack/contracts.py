"""Instruments, marks, forwards and prices as the arrays of the contract stage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import (
    MICROSECONDS_PER_YEAR,
    Floats,
    Ints,
    encoded,
    flags,
    flat,
    floats,
    instants,
    positions_in,
    texts,
)
from gpumargin_kernels import records
from gpumargin_kernels.svi import SviSlice

NO_EXPIRY = -1
_SVI = ("svi_a", "svi_b", "svi_rho", "svi_m", "svi_sigma", "svi_forward", "svi_years")
USD = "USD"


@dataclass(frozen=True)
class ContractSet:
    """Contracts in canonical order, with the market they are priced against.

    Canonical order is unit, expiry (base asset and perpetual first), strike, type, id: the order in which legs are
    summed. The last row is padding, worth nothing and belonging to no group.
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

    @property
    def padding(self) -> int:
        """Index of the padding contract."""
        return int(self.expiry.size)


@dataclass(frozen=True)
class _Rows:
    """Instrument rows that the model margins, in file order."""

    table: pa.Table
    underlying: np.ndarray
    kind: np.ndarray
    expiry: Ints
    is_inverse: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)


def _margined(instruments: pa.Table, kinds: Collection[str]) -> _Rows:
    chosen = np.isin(texts(instruments, "kind").astype(str), list(kinds))
    table = instruments.filter(pa.array(chosen))
    return _Rows(
        table,
        texts(table, "underlying").astype(str),
        texts(table, "kind").astype(str),
        instants(table, "expiry", NO_EXPIRY) if "expiry" in table.column_names else np.full(len(table), NO_EXPIRY),
        flags(table, "inverse", default=False),
    )


def _aligned(source: pa.Table, keys: np.ndarray, wanted: np.ndarray) -> pa.Table:
    """Rows of `source`, whose keys are unique, in the order of `wanted`; all null where a key is missing."""
    place = positions_in(pa.array(wanted, pa.string()), pa.array(keys, pa.string()))
    return source.take(pa.array(place, mask=place < 0))


def _keys(*columns: np.ndarray) -> np.ndarray:
    return np.array(["\x1f".join(map(str, row)) for row in zip(*columns, strict=True)], dtype=object)


def _forward_rows(forwards: pa.Table, rows: _Rows) -> pa.Table:
    """The forwards row of each instrument: of its quote currency, or of any if the row names none."""
    quote = texts(forwards, "quote") if "quote" in forwards.column_names else np.full(forwards.num_rows, None)
    have = (texts(forwards, "underlying"), quote, instants(forwards, "expiry", NO_EXPIRY))
    exact = _aligned(forwards, _keys(*have), _keys(rows.underlying, texts(rows.table, "quote"), rows.expiry))
    anywhere = _aligned(forwards, _keys(*have), _keys(rows.underlying, np.full(len(rows), None), rows.expiry))
    is_exact = pa.array(~np.isnan(floats(exact, "forward")))
    columns = [
        pc.if_else(is_exact, flat(exact[name]), flat(anywhere[name]))
        if pa.types.is_floating(field.type)
        else flat(exact[name])
        for name, field in zip(forwards.column_names, forwards.schema, strict=True)
    ]
    return pa.table(columns, names=forwards.column_names)


def _prices(prices: pa.Table, name: str) -> dict[str, float]:
    found = dict(zip(texts(prices, "asset").astype(str), floats(prices, name), strict=True))
    return {USD: 1.0} | found


def _lookup(values: Mapping[str, float], names: np.ndarray) -> Floats:
    return np.array([values.get(str(name), np.nan) for name in names], dtype=np.float64)


def _years(expiry: Ints, as_of: int) -> Floats:
    return np.where(expiry == NO_EXPIRY, 0, np.maximum(expiry - as_of, 0) / MICROSECONDS_PER_YEAR)


def _listed_contracts(
    tables: Mapping[str, pa.Table],
    rows: _Rows,
    as_of: int,
    price: Mapping[str, float],
    unit: np.ndarray,
    accounting: str,
) -> records.Contracts:
    """Arrays of the listed instruments, in file order, groups still unset."""
    instruments = rows.table
    marks = _aligned(
        tables["marks"],
        texts(tables["marks"], "instrument_id").astype(str),
        texts(instruments, "instrument_id").astype(str),
    )
    forwards = _forward_rows(tables["forwards"], rows)
    is_option = rows.kind == "option"
    settled = np.where((rows.expiry != NO_EXPIRY) & (rows.expiry <= as_of), floats(marks, "settlement_price"), np.nan)
    has_settled = ~np.isnan(settled)
    fixed = np.where(has_settled, settled, floats(forwards, "forward_fixed", 0.0))
    variable = np.where(has_settled, 0.0, floats(forwards, "forward") - fixed)
    confidence = np.minimum.reduce([floats(forwards, f"{feed}_confidence", 1.0) for feed in ("forward", "rate", "vol")])
    mark = np.where(has_settled, np.where(is_option, np.nan, settled), floats(marks, "mark_price"))
    zero = np.zeros(len(rows), np.int32)
    return records.Contracts(
        unit=unit.astype(np.int32),
        expiry_group=zero,
        strike_group=zero,
        is_option=is_option,
        is_call=texts(instruments, "option_type").astype(str) == "call",
        is_perpetual=rows.kind == "perpetual",
        is_base=np.zeros(len(rows), bool),
        is_inverse=rows.is_inverse,
        size=floats(instruments, "contract_size", 1.0),
        strike=np.where(is_option, floats(instruments, "strike"), 0.0),
        forward_fixed=np.where(is_option, fixed, 0.0),
        forward_variable=np.where(is_option, variable, 0.0),
        rate=np.where(is_option, floats(forwards, "rate", 0.0), 0.0),
        years=_years(rows.expiry, as_of),
        vol=np.where(is_option, np.where(has_settled, 0.0, floats(marks, "mark_iv")), 0.0),
        mark=mark,
        settlement_ratio=_lookup(price, texts(instruments, "settlement")) / price[accounting],
        confidence=np.where(is_option, confidence, 1.0),
        svi=SviSlice(*(floats(forwards, name) for name in _SVI)),
    )


def _blank_contracts(rows: int) -> records.Contracts:
    """Contracts that are worth nothing: base rows before they are filled in, and padding."""
    words = {"unit": np.int32, "expiry_group": np.int32, "strike_group": np.int32}

    def column(name: str) -> np.ndarray:
        kind = np.bool_ if name.startswith("is_") else words.get(name, np.float64)
        return np.zeros(rows, kind)

    blank = {name: column(name) for name in records.Contracts._fields if name != "svi"}
    return records.Contracts(**blank | {"confidence": np.ones(rows)}, svi=SviSlice(*(np.ones(rows) for _ in _SVI)))


def _base_contracts(
    units: tuple[str, ...], assets: tuple[str, ...], price: Mapping[str, float], accounting: str
) -> tuple[records.Contracts, np.ndarray]:
    """One contract per unit whose own asset can be held, and the indexes of those units."""
    held = np.array([i for i, unit in enumerate(units) if unit in assets], dtype=np.int64)
    blank = _blank_contracts(len(held))
    spot = _lookup(price, np.array(units, dtype=object)[held])
    return blank._replace(
        unit=held.astype(np.int32),
        is_base=np.ones(len(held), bool),
        size=np.ones(len(held)),
        mark=spot,
        settlement_ratio=np.full(len(held), 1.0 / price[accounting]),
    ), held


def _joined(first: records.Contracts, *others: records.Contracts) -> records.Contracts:
    def join(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in (first, *others)])

    svi = SviSlice(*(np.concatenate(parts) for parts in zip(first.svi, *(o.svi for o in others), strict=True)))
    return records.Contracts(**{name: join(name) for name in records.Contracts._fields if name != "svi"}, svi=svi)


def _reordered(contracts: records.Contracts, order: np.ndarray) -> records.Contracts:
    svi = SviSlice(*(x[order] for x in contracts.svi))
    return records.Contracts(
        **{n: getattr(contracts, n)[order] for n in records.Contracts._fields if n != "svi"}, svi=svi
    )


def _runs(*columns: np.ndarray) -> np.ndarray:
    """Number of the run that each row belongs to, where rows with equal columns are neighbours."""
    changes = np.zeros(len(columns[0]), bool)
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    return np.cumsum(changes).astype(np.int32)


def _grouped(contracts: records.Contracts, expiry: Ints) -> records.Contracts:
    """Contracts in canonical order with their groups; what has no expiry is a group of its own."""
    single = np.where(expiry == NO_EXPIRY, np.arange(len(expiry)), -1)
    expiry_group = _runs(contracts.unit, expiry, single)
    return contracts._replace(
        expiry_group=expiry_group, strike_group=_runs(expiry_group, contracts.strike, contracts.is_option)
    )


def _market(units: tuple[str, ...], prices: pa.Table, marks: pa.Table, rows: _Rows) -> records.UnitMarket:
    names = np.array(units, dtype=object)
    confidence = (
        _lookup(_prices(prices, "confidence"), names) if "confidence" in prices.column_names else np.ones(len(units))
    )
    perpetual = np.ones(len(units))
    held = _aligned(marks, texts(marks, "instrument_id").astype(str), texts(rows.table, "instrument_id").astype(str))
    of_mark = floats(held, "confidence", 1.0)
    is_perpetual = rows.kind == "perpetual"
    np.minimum.at(perpetual, np.searchsorted(names.astype(str), rows.underlying[is_perpetual]), of_mark[is_perpetual])
    return records.UnitMarket(
        _lookup(_prices(prices, "price"), names), np.where(np.isnan(confidence), 1, confidence), perpetual
    )


def contract_set(
    tables: Mapping[str, pa.Table], as_of: int, *, kinds: Collection[str], accounting: str, base_legs: bool
) -> ContractSet:
    """Contracts, unit market and asset prices of a checked book.

    Args:
      tables: the book's tables in canonical types.
      as_of: microseconds since 1970.
      kinds: kinds of contract that the model margins; others are left out.
      accounting: asset in which money is counted.
      base_legs: whether a balance in a unit's own asset becomes a leg of the unit.

    Returns:
      `ContractSet`; instruments whose market data is missing carry NaN and must not be held.
    """
    rows = _margined(tables["instruments"], kinds)
    units = tuple(sorted(set(rows.underlying)))
    price = _prices(tables["prices"], "price")
    collateral = (
        price | {k: v for k, v in _prices(tables["prices"], "collateral_price").items() if not np.isnan(v)}
        if "collateral_price" in tables["prices"].column_names
        else price
    )
    asset_ids = tuple(sorted({*encoded_words(tables["balances"], "asset"), accounting} & set(price)))
    unit = np.searchsorted(np.array(units, dtype=str), rows.underlying) if units else np.zeros(0, np.int64)
    listed = _listed_contracts(tables, rows, as_of, price, unit, accounting)
    base, base_units = _base_contracts(units if base_legs else (), asset_ids, price, accounting)

    everything = _joined(listed, base)
    ids = np.concatenate(
        [texts(rows.table, "instrument_id").astype(str), np.array(units, dtype=object)[base_units]]
    ).astype(str)
    expiry = np.concatenate([rows.expiry, np.full(len(base_units), NO_EXPIRY)])
    kind = np.concatenate([rows.kind, np.full(len(base_units), "base")])
    order = np.lexsort(
        (
            ids,
            everything.is_call,
            everything.strike,
            ~everything.is_option,
            ~everything.is_base,
            expiry,
            everything.unit,
        )
    )
    grouped = _grouped(_reordered(everything, order), expiry[order])
    padding = _blank_contracts(1)._replace(expiry_group=np.array([-1], np.int32), strike_group=np.array([-1], np.int32))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    base_contract = np.full(len(asset_ids), -1)
    for index, unit_index in enumerate(base_units):
        base_contract[asset_ids.index(units[unit_index])] = place[len(rows) + index]
    return ContractSet(
        contracts=_joined(grouped, padding),
        market=_market(units, tables["prices"], tables["marks"], rows),
        assets=records.Assets(
            _lookup(collateral, np.array(asset_ids)) / price[accounting], _lookup(price, np.array(asset_ids))
        ),
        units=units,
        asset_ids=asset_ids,
        ids=pa.array(ids[order], pa.string()),
        kinds=kind[order],
        expiry=expiry[order],
        is_listed=kind[order] != "base",
        base_contract=base_contract,
    )


def encoded_words(table: pa.Table, name: str) -> list[str]:
    """Distinct values of a column as text."""
    return [str(value) for value in encoded(table[name])[1].to_pylist()]
