"""Defaults of the contract: constants, and values taken from other columns."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from gpumargin.schema import TABLES, USD, Column, Table
from gpumargin.tables.canonical import canonical_column

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_DECIMALS = 8
USD_DECIMALS = 2


def fill_constants(spec: Table, table: pa.Table) -> pa.Table:
    """The table with every column that has a constant default present and free of nulls, in contract order."""
    columns = {}
    for column in spec.columns:
        if column.default is not None:
            columns[column.name] = _filled(table, column)
        elif column.name in table.column_names:
            columns[column.name] = table.column(column.name)
    return pa.table(columns)


def fill_derived(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables with every derived column present; null where its rule has no answer, which the checks then name."""
    filled = dict(tables)
    for (name, column), rule in _RULES.items():
        if name in filled:
            filled[name] = _with_fallback(filled[name], TABLES[name], column, partial(rule, filled))
    return filled


def _filled(table: pa.Table, column: Column) -> pa.ChunkedArray:
    if column.name not in table.column_names:
        return pa.chunked_array([_repeated(column, table.num_rows)])
    values = table.column(column.name)
    if values.null_count == 0 or (pat.is_integer(values.type) and isinstance(column.default, str)):
        return values  # a word cannot fill integer ids: the nulls stay, and the checks name them
    plain = _plain(values)
    return canonical_column(plain.fill_null(pa.scalar(column.default, plain.type)), column)


def _repeated(column: Column, num_rows: int) -> pa.Array:
    if pat.is_dictionary(column.arrow_type):
        codes = pa.repeat(pa.scalar(0, pa.int32()), num_rows)
        return pa.DictionaryArray.from_arrays(codes, pa.array([column.default], pa.string()))
    return pa.repeat(pa.scalar(column.default, column.arrow_type), num_rows)


def _with_fallback(table: pa.Table, spec: Table, name: str, fallback: Callable[[], pa.ChunkedArray]) -> pa.Table:
    if name not in table.column_names:
        values = fallback()
    elif table.column(name).null_count == 0:
        return table
    else:
        values = pc.coalesce(_plain(table.column(name)), fallback())
    columns = {column: table.column(column) for column in table.column_names}
    columns[name] = canonical_column(values, spec.by_name[name])
    return pa.table({column: columns[column] for column in spec.by_name if column in columns})


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(pa.string()) if pat.is_dictionary(values.type) else values


def _usd(dtype: pa.DataType) -> pa.Scalar:
    """The word USD, or null where assets are integers and no word can name one."""
    return pa.scalar(None if pat.is_integer(dtype) else USD, dtype)


def _instrument_quote(tables: Mapping[str, pa.Table]) -> pa.ChunkedArray:
    settlement = _plain(tables["instruments"].column("settlement"))
    return pc.if_else(tables["instruments"].column("inverse"), _usd(settlement.type), settlement)


def _forward_quote(tables: Mapping[str, pa.Table]) -> pa.ChunkedArray:
    listed = pa.table({name: _plain(tables["instruments"].column(name)) for name in ("underlying", "quote")})
    quotes = listed.group_by("underlying").aggregate([("quote", "count_distinct"), ("quote", "one")])
    wanted = _plain(tables["forwards"].column("underlying"))
    at = pc.index_in(wanted, value_set=quotes.column("underlying").combine_chunks())
    single = pc.equal(quotes.column("quote_count_distinct").take(at), 1)
    # an underlying without instruments has no use for its forwards: any word will do
    quote = pc.if_else(single, quotes.column("quote_one").take(at), pa.scalar(None, listed.schema.field("quote").type))
    return pc.if_else(pc.is_null(at), _usd(quote.type), quote)


def _decimals(tables: Mapping[str, pa.Table]) -> pa.ChunkedArray:
    asset = _plain(tables["assets"].column("asset"))
    is_usd = pc.equal(asset, _usd(asset.type)).fill_null(False)
    return pc.if_else(is_usd, USD_DECIMALS, DEFAULT_DECIMALS)


_RULES: dict[tuple[str, str], Callable[[Mapping[str, pa.Table]], pa.ChunkedArray]] = {
    ("instruments", "quote"): _instrument_quote,
    ("forwards", "quote"): _forward_quote,
    ("prices", "collateral_price"): lambda tables: tables["prices"].column("price"),
    ("prices", "collateral_confidence"): lambda tables: tables["prices"].column("confidence"),
    ("assets", "decimals"): _decimals,
}
