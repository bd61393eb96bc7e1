"""Amounts that minor units cannot hold: digits below the asset's scale, and sizes beyond 64 bits."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.types as pat

from gpumargin.checks.findings import Finding
from gpumargin.pack.columns import flat
from gpumargin.schema import TABLES, USD

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from gpumargin.checks.facts import Facts

MOST = 2.0**62
"""Sizes from here on are refused: sums and minor units of them leave 64 bits."""

LEAST = 1e-300
"""Sizes other than 0 below this are refused: they have no inverse, and devices take the least of them for 0."""

Columns = Sequence[tuple[str, str]]  # of tables by name
_PRICES = ("mark_price", "settlement_price", "forward", "strike")


def amount_findings(facts: Facts, tables: Collection[str]) -> Iterator[Finding]:
    """Numbers too large or too small (GM117), and decimal balances finer than the `decimals` of assets (GM116)."""
    for name in tables:
        for column in TABLES[name].columns:
            if column.kind in ("number", "amount") and facts.column(name, column.name) is not None:
                yield from _odd_sizes(facts, name, column.name)
        if name == "balances":
            yield from _too_fine(facts, name, "amount")


def _odd_sizes(facts: Facts, table: str, column: str) -> Iterator[Finding]:
    low, high = ends = facts.extent(table, column)
    if ends.size < MOST and (low >= LEAST or low == high == 0):
        return
    numbers = np.abs(_floats(facts.column(table, column)))
    is_small = numbers < LEAST
    if not is_small.any() and np.max(numbers, initial=0) < MOST:
        return
    is_odd = (is_small & (numbers > 0)) | ((numbers >= MOST) & np.isfinite(numbers))
    rows = np.flatnonzero(is_odd)
    if len(rows):
        message = f"{column} is {{value}}, expected 0, or from {LEAST:g} to below 2^62 in size"
        remedy = "correct the number or its unit: sums of such numbers leave 64 bits, and so do their inverses"
        yield Finding(code="GM117", table=table, column=column, rows=rows, message=message, remedy=remedy)


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    numbers = flat(values.cast(pa.float64()))
    return np.asarray(numbers.fill_null(0.0) if numbers.null_count else numbers)


def _too_fine(facts: Facts, table: str, column: str) -> Iterator[Finding]:
    values = facts.column(table, column)
    assets = facts.book.tables.get("assets")
    if values is None or assets is None or not pat.is_decimal(values.type):
        return
    scales = dict(zip(*(assets[name].to_pylist() for name in ("asset", "decimals")), strict=True))
    coded = facts.coded(table, "asset")
    fine = [word for word in coded.words.to_pylist() if (scales.get(word) or 0) < values.type.scale and word in scales]
    candidates = coded.rows_with(np.isin(np.array(coded.words.to_pylist(), object), np.array(fine, object)))
    amounts = values.take(pa.array(candidates)).to_pylist()
    names = [coded.words[int(coded.codes[row])].as_py() for row in candidates]
    is_wrong = [a is not None and _is_finer(a, scales[name]) for a, name in zip(amounts, names, strict=True)]
    rows = candidates[np.array(is_wrong, bool)] if len(candidates) else candidates
    if len(rows):
        message = f"{column} {{value}} has more decimals than assets lists for its asset"
        remedy = "round it to the asset's minor unit, or correct decimals in assets"
        yield Finding(code="GM116", table=table, column=column, rows=rows, message=message, remedy=remedy)


def _is_finer(amount: Decimal, decimals: int) -> bool:
    exponent = amount.normalize().as_tuple().exponent
    return isinstance(exponent, int) and -exponent > decimals


def size_findings(facts: Facts) -> Iterator[Finding]:
    """Positions and balances worth 2^62 and more (GM117)."""
    prices = [(table, name) for table in ("marks", "instruments") for name in _PRICES]
    if _may_exceed(facts, [("positions", "quantity")], [("instruments", "contract_size")], prices):
        yield from _oversized(facts, "positions", "quantity", "instrument_id", _contract_values(facts))
    if _may_exceed(facts, [("balances", "amount")], [("prices", "price")]):
        yield from _oversized(facts, "balances", "amount", "asset", _asset_prices(facts))


def _may_exceed(facts: Facts, first: Columns, *others: Columns) -> bool:
    """Whether the largest of the first columns that are there, times that of each of the others or 1, may be 2^62."""
    if not any(facts.book.num_rows(table) for table, _ in first):
        return False
    most = 1.0
    for columns in (first, *others):
        most *= float(np.max([1.0, *(facts.extent(*at).size for at in columns if facts.column(*at) is not None)]))
    return not most < MOST  # a number that is not known, NaN, may be of any size


def _oversized(facts: Facts, table: str, column: str, key: str, value_of: dict[object, float]) -> Iterator[Finding]:
    coded = facts.coded(table, key)
    values = [*(value_of.get(word, 1.0) for word in coded.words.to_pylist()), 1.0]
    most = MOST / np.maximum(np.nan_to_num(np.array(values, float), nan=1.0, posinf=1.0), 1.0)
    if facts.extent(table, column).size < most.min():
        return
    numbers = np.abs(_floats(facts.column(table, column)))
    if not len(numbers) or np.max(numbers, initial=0, where=np.isfinite(numbers)) < most.min():
        return
    rows = np.flatnonzero((numbers >= most[coded.codes]) & (numbers < MOST))
    if len(rows):
        message = f"{column} {{value}} is worth 2^62 or more at its price; sums of such amounts leave 64 bits"
        remedy = "correct the number or its unit, or the price"
        yield Finding(code="GM117", table=table, column=column, rows=rows, message=message, remedy=remedy)


def _contract_values(facts: Facts) -> dict[object, float]:
    """Largest of what is said of the value of one contract, by instrument."""
    contracts, marks = (facts.book.whole_frame(table) for table in ("instruments", "marks"))
    if marks.is_empty() or contracts.is_empty():
        return {}
    joined = contracts.lazy().join(marks.lazy().unique("instrument_id", keep="first"), on="instrument_id", how="left")
    prices = [name for name in _PRICES if name in {*contracts.columns, *marks.columns}]
    largest = pl.max_horizontal(*(pl.col(name).abs() for name in prices), pl.lit(1.0))
    return dict(joined.select("instrument_id", pl.col("contract_size").abs() * largest).collect().iter_rows())


def _asset_prices(facts: Facts) -> dict[object, float]:
    return {USD: 1.0, **dict(facts.book.whole_frame("prices").select("asset", "price").iter_rows())}
