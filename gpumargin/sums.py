"""Exact sums of the balances of every asset, whatever their type, over rows that arrive in parts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import encoded, flat

_LOW = np.int64(0xFFFFFFFF)
_MANTISSA = 53
_EXPONENTS, _LEAST = 2200, 1100  # more than float64 has; its least is above -1100


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
        sums = _float_sums if pa.types.is_floating(amounts.type) else _whole_sums
        for code, total in sums(codes, amounts):
            self.by_asset[words[code]] += total
        for code in np.unique(codes[codes >= 0]).tolist():
            self.by_asset[words[code]] += 0


def exact_sum(values: np.ndarray) -> int:
    """Sum of int64 values as a Python integer, whatever its size (numpy would wrap around)."""
    return int((values >> 32).sum()) * (1 << 32) + int((values & _LOW).sum())


def _float_sums(codes: np.ndarray, amounts: pa.Array) -> list[tuple[int, Fraction]]:
    """Whole mantissas added up by asset and exponent."""
    values = np.asarray(amounts.cast(pa.float64()).fill_null(0.0))
    is_counted = np.isfinite(values) & (codes >= 0) & (values != 0)
    mantissas, exponents = np.frexp(values[is_counted])
    whole = (mantissas * 2.0**_MANTISSA).astype(np.int64)
    groups, group = np.unique(codes[is_counted] * np.int64(_EXPONENTS) + exponents + _LEAST, return_inverse=True)
    order = np.argsort(group.astype(np.uint16 if len(groups) < 1 << 16 else np.int64), kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(groups)))
    sums = [(np.add.reduceat(half, starts) if len(starts) else half).tolist() for half in _halves(whole[order])]
    return [
        (key // _EXPONENTS, Fraction((high << 32) + low) * Fraction(2) ** (key % _EXPONENTS - _LEAST - _MANTISSA))
        for key, high, low in zip(groups.tolist(), *sums, strict=True)
    ]


def _halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values >> 32, values & _LOW


def _whole_sums(codes: np.ndarray, amounts: pa.Array) -> list[tuple[int, Fraction]]:
    """Integers and decimals: sums in 76 digits."""
    scale = amounts.type.scale if pa.types.is_decimal(amounts.type) else 0
    table = pa.table({"code": codes, "amount": amounts.cast(pa.decimal256(76, scale))})
    found = table.filter(pc.greater_equal(table["code"], 0)).group_by("code").aggregate([("amount", "sum")])
    totals = zip(found["code"].to_pylist(), found["amount_sum"].to_pylist(), strict=True)
    return [(code, Fraction(total)) for code, total in totals if total is not None]
