"""Exact totals of a run: integers over minor units, decimals over balances."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import encoded, flat, floats, texts
from gpumargin.tables import Book

_DIGITS = 100  # more than any total has: decimal arithmetic must not round it
_LOW = np.int64(0xFFFFFFFF)
_MINOR = ("equity_minor", "initial_margin_minor", "maintenance_margin_minor")


def exact_sum(values: np.ndarray) -> int:
    """Sum of int64 values as a Python integer, whatever its size (numpy would wrap around)."""
    return int((values >> 32).sum()) * (1 << 32) + int((values & _LOW).sum())


def decimal_text(minor: int, decimals: int) -> str:
    """Minor units as a decimal number, every digit kept."""
    with localcontext(prec=_DIGITS):
        return format(Decimal(minor).scaleb(-decimals), "f")


@dataclass
class AccountTotals:
    """Sums over accounts that arrive in parts."""

    decimals: int
    accounts: int = 0
    status: Counter[str] = field(default_factory=Counter)
    minor: Counter[str] = field(default_factory=Counter)

    def add(self, accounts: pa.Table) -> None:
        """Takes the next accounts."""
        self.accounts += accounts.num_rows
        counted = pc.value_counts(flat(accounts["status"]).cast(pa.string()))
        self.status.update({row["values"]: row["counts"] for row in counted.to_pylist()})
        columns = {name: np.asarray(pc.fill_null(flat(accounts[name]), 0)) for name in _MINOR}
        for name, values in columns.items():
            self.minor[name] += exact_sum(values)
        self.minor["negative_equity_minor"] += exact_sum(np.minimum(columns["equity_minor"], 0))

    def summary(self) -> dict[str, Any]:
        """Counts and exact totals as decimal strings in the accounting asset."""
        names = (*_MINOR, "negative_equity_minor")
        return {
            "accounts": self.accounts,
            "status": dict(self.status),
            "totals": {n.removesuffix("_minor"): decimal_text(self.minor[n], self.decimals) for n in names},
        }


def _exact_floats(values: np.ndarray) -> Fraction:
    """Sum of finite float64 values without rounding: whole mantissas, added up exponent by exponent."""
    mantissas, exponents = np.frexp(values)
    whole = (mantissas * 2.0**53).astype(np.int64)
    sums = {int(e): exact_sum(whole[exponents == e]) for e in np.unique(exponents)}
    return sum((Fraction(total) * Fraction(2) ** (e - 53) for e, total in sums.items()), Fraction())


def _exact(array: pa.Array) -> Fraction:
    if pa.types.is_floating(array.type):
        return _exact_floats(np.asarray(array.drop_null().cast(pa.float64())))
    wide = array.cast(pa.decimal256(76, array.type.scale if pa.types.is_decimal(array.type) else 0))
    total = pc.sum(wide).as_py()
    return Fraction(total or 0)


def asset_decimals(book: Book) -> defaultdict[str, int]:
    """Decimals of an asset's minor unit: as the assets table says, else 2 for USD and 8 for all others."""
    found: defaultdict[str, int] = defaultdict(lambda: 8, USD=2)
    table = book.tables.get("assets")
    if table is not None:
        names, digits = texts(table, "asset"), floats(table, "decimals")
        found.update({str(n): int(d) for n, d in zip(names, digits, strict=True) if not np.isnan(d)})
    return found


def balance_totals(book: Book) -> dict[str, str]:
    """Exact sum of the balances of every asset, rounded once to the asset's decimals, as decimal strings."""
    balances, decimals = book.tables["balances"], asset_decimals(book)
    codes, assets = encoded(balances["asset"])
    amounts = flat(balances["amount"])
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(assets) + 1))
    totals: dict[str, str] = {}
    for index, asset in enumerate(map(str, assets.to_pylist())):
        rows = pa.array(order[bounds[index] : bounds[index + 1]])
        totals[asset] = decimal_text(round(_exact(amounts.take(rows)) * 10 ** decimals[asset]), decimals[asset])
    return dict(sorted(totals.items()))
