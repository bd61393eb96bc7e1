"""The sum of balances equals the ledger, asset by asset and exactly."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.types as pat

from gpumargin.checks.findings import Finding
from gpumargin.schema import USD
from gpumargin.tables.defaults import DEFAULT_DECIMALS, USD_DECIMALS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpumargin.checks.facts import Facts


_DIGITS = 60
"""More than a sum of 38-digit decimals over any number of rows can have."""


def ledger_findings(facts: Facts, sums: Mapping[str | int, Fraction]) -> Iterator[Finding]:
    """Assets whose balances do not add up to the ledger's total (GM120).

    Args:
      facts: of a book with its ledger; of its balances the type is looked at.
      sums: exact sum of the balances of every asset; infinite and null amounts, which other rules name, are left out.
    """
    if not facts.book.num_rows("ledger"):
        return
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


def _ledger(facts: Facts) -> list[tuple[str | int, float | int | Decimal]]:
    table = facts.book.tables["ledger"]
    return list(zip(table.column("asset").to_pylist(), table.column("total").to_pylist(), strict=True))


def _agrees(
    facts: Facts, asset: str | int, total: float | int | Decimal | None, sums: Mapping[str | int, Fraction]
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
