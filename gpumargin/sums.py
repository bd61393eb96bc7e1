"""Exact sums of the balances of every asset, whatever their type, over rows that arrive in parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import encoded, flat

_LOW = np.int64(0xFFFFFFFF)
_MANTISSA = 53
_MOST_GROUPS = 1 << 20
_EXACT_ROWS = 1 << 20  # so many numbers of 32 bits add up in float64 without rounding


@dataclass
class BalanceSums:
    """Sum of the balances of each asset without any rounding; null and infinite amounts are left out."""

    by_asset: defaultdict[str | int, Fraction] = field(default_factory=lambda: defaultdict(Fraction))

    def add(self, balances: pa.Table) -> None:
        """Takes the next rows."""
        if not balances.num_rows:
            return
        codes, assets = encoded(balances["asset"])
        words, amounts = assets.to_pylist(), flat(balances["amount"])
        for code, total in _sums(codes, amounts).items():
            self.by_asset[words[code]] += total
        for code in np.flatnonzero(np.bincount(codes[codes >= 0])).tolist():
            self.by_asset[words[code]] += 0


def exact_sum(values: np.ndarray) -> int:
    """Sum of int64 values as a Python integer, whatever its size (numpy would wrap around)."""
    return int((values >> 32).sum()) * (1 << 32) + int((values & _LOW).sum())


def group_sums(groups: np.ndarray, values: np.ndarray, count: int) -> list[int]:
    """Sums of int64 values by group as Python integers, exact whatever their size.

    Args:
      groups: `[n]` which of the `count` groups each value belongs to.
      values: `[n]` int64.
      count: number of groups.
    """
    high, low = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for start in range(0, len(values), _EXACT_ROWS):
        rows = slice(start, start + _EXACT_ROWS)
        of, part = groups[rows], values[rows]
        high += np.bincount(of, weights=part >> 32, minlength=count).astype(np.int64)
        low += np.bincount(of, weights=part & _LOW, minlength=count).astype(np.int64)
    return [(above << 32) + below for above, below in zip(high.tolist(), low.tolist(), strict=True)]


def float_sums(codes: np.ndarray, values: np.ndarray) -> dict[int, Fraction]:
    """Exact sums of floats by code: whole mantissas added up by code and exponent.

    Args:
      codes: `[n]`, negative = not counted.
      values: `[n]`; those that are not finite are not counted.
    """
    is_counted = np.isfinite(values) & (codes >= 0) & (values != 0)
    if not is_counted.any():
        return {}
    mantissas, exponents = np.frexp(values[is_counted])
    least = int(exponents.min())
    span = int(exponents.max()) - least + 1
    keys, groups = _places(codes[is_counted] * np.int64(span) + (exponents - least))
    whole = (mantissas * 2.0**_MANTISSA).astype(np.int64)
    found: dict[int, Fraction] = defaultdict(Fraction)
    for key, total in zip(keys, group_sums(groups, whole, len(keys)), strict=True):
        if total:
            found[key // span] += Fraction(total) * Fraction(2) ** (key % span + least - _MANTISSA)
    return found


def _places(keys: np.ndarray) -> tuple[Sequence[int], np.ndarray]:
    """Possible keys, and the place of every one among them; sorted only where there are too many to count through."""
    most = int(keys.max()) + 1
    if most <= _MOST_GROUPS:
        return range(most), keys
    distinct, places = np.unique(keys, return_inverse=True)
    return distinct.tolist(), places


def _sums(codes: np.ndarray, amounts: pa.Array) -> Mapping[int, Fraction]:
    if pa.types.is_floating(amounts.type):
        return float_sums(codes, np.asarray(amounts.cast(pa.float64()).fill_null(0.0)))
    return _decimal_sums(codes, amounts)


def _decimal_sums(codes: np.ndarray, amounts: pa.Array) -> dict[int, Fraction]:
    """Integers and decimals: sums in 76 digits."""
    scale = amounts.type.scale if pa.types.is_decimal(amounts.type) else 0
    table = pa.table({"code": codes, "amount": amounts.cast(pa.decimal256(76, scale))})
    found = table.filter(pc.greater_equal(table["code"], 0)).group_by("code").aggregate([("amount", "sum")])
    totals = zip(found["code"].to_pylist(), found["amount_sum"].to_pylist(), strict=True)
    return {code: Fraction(total) for code, total in totals if total is not None}
