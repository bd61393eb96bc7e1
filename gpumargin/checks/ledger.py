"""The sum of balances equals the ledger, asset by asset and exactly."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from gpumargin.checks.findings import Finding
from gpumargin.schema import USD
from gpumargin.tables.defaults import DEFAULT_DECIMALS, USD_DECIMALS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpumargin.checks.facts import Facts


_DIGITS = 60
"""More than a sum of 38-digit decimals over any number of rows can have."""


def ledger_findings(facts: Facts) -> Iterator[Finding]:
    """Assets whose balances do not add up to the ledger's total (GM120)."""
    if not facts.book.num_rows("ledger"):
        return
    sums = balance_sums(facts)
    wrong = [row for row, (asset, total) in enumerate(_ledger(facts)) if not _agrees(facts, asset, total, sums)]
    if wrong:
        totals, is_exact = _ledger(facts), not _has_float_balances(facts)

        def message(position: int) -> str:
            asset, total = totals[wrong[position]]
            found = sums.get(asset, Fraction(0))
            return f"ledger total of {asset} is {total}, its balances sum to {_as_written(found, is_exact=is_exact)}"

        remedy = "find the missing or doubled balance, or correct the ledger"
        rows = np.array(wrong, np.int64)
        yield Finding(code="GM120", table="ledger", column="total", rows=rows, message=message, remedy=remedy)


def balance_sums(facts: Facts) -> dict[str | int, Fraction]:
    """Exact sum of the balances of every asset; infinite and null amounts, which other rules name, are left out."""
    coded = facts.coded("balances", "asset")
    amounts = facts.book.tables["balances"].column("amount")
    order = np.argsort(coded.codes, kind="stable")
    starts = np.searchsorted(coded.codes[order], np.arange(len(coded.words) + 1))
    words = coded.words.to_pylist()
    return {
        word: exact_sum(amounts.take(pa.array(order[starts[code] : starts[code + 1]])))
        for code, word in enumerate(words)
    }


def exact_sum(amounts: pa.ChunkedArray) -> Fraction:
    """Exact sum of integers or decimals; of floats the sum rounded once, as if it had been exact until then."""
    values = amounts.drop_null()
    if pat.is_decimal(values.type):
        scale = 10**values.type.scale
        return Fraction(sum(_unscaled(chunk) for chunk in values.chunks), scale)
    if pat.is_integer(values.type):
        return Fraction(sum(values.to_pylist()))
    floats = values.to_numpy()
    return Fraction(math.fsum(floats[np.isfinite(floats)]))


def _unscaled(chunk: pa.Array) -> int:
    """Exact sum of a decimal128 chunk in units of its last digit: the two halves of its numbers as Python integers."""
    halves = np.frombuffer(chunk.buffers()[1], np.int64)[2 * chunk.offset :][: 2 * len(chunk)].reshape(-1, 2)
    low, high = halves[:, 0].view(np.uint64), halves[:, 1]
    return int(sum(low.tolist()) + (sum(high.tolist()) << 64))


def _ledger(facts: Facts) -> list[tuple[str | int, float | int | Decimal]]:
    table = facts.book.tables["ledger"]
    return list(zip(table.column("asset").to_pylist(), table.column("total").to_pylist(), strict=True))


def _agrees(
    facts: Facts, asset: str | int, total: float | int | Decimal | None, sums: dict[str | int, Fraction]
) -> bool:
    if total is None or (isinstance(total, float) and not math.isfinite(total)):
        return True  # GM102 or GM103 names it
    error = abs(sums.get(asset, Fraction(0)) - Fraction(total))
    is_exact = not (isinstance(total, float) or _has_float_balances(facts))
    return error == 0 if is_exact else error * 2 * 10 ** _decimals(facts, asset) <= 1


def _has_float_balances(facts: Facts) -> bool:
    return bool(pat.is_floating(facts.book.tables["balances"].schema.field("amount").type))


def _decimals(facts: Facts, asset: str | int) -> int:
    table = facts.book.tables.get("assets")
    listed = (
        {}
        if table is None
        else dict(zip(*(table.column(name).to_pylist() for name in ("asset", "decimals")), strict=True))
    )
    return int(listed.get(asset, USD_DECIMALS if asset == USD else DEFAULT_DECIMALS))


def _as_written(value: Fraction, *, is_exact: bool) -> str:
    """A sum the way a file would hold it: all digits of a decimal, the shortest text of a float."""
    if not is_exact:
        return repr(float(value))
    with localcontext(prec=_DIGITS):
        return f"{Decimal(value.numerator) / Decimal(value.denominator):f}"
