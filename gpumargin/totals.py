"""Exact totals of a run: integers over minor units, decimals over balances."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.errors import InternalError
from gpumargin.pack.columns import flat, floats, texts
from gpumargin.sums import exact_sum
from gpumargin.tables import Book

_DIGITS = 100  # more than any total has: decimal arithmetic must not round it
_EPSILON = 2.0**-52
_MINOR = ("equity_minor", "initial_margin_minor", "maintenance_margin_minor")


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

    def amount(self, name: str) -> Decimal:
        """A total as the summary states it."""
        return Decimal(decimal_text(self.minor[name], self.decimals))

    def summary(self) -> dict[str, Any]:
        """Counts and exact totals as decimal strings in the accounting asset."""
        names = (*_MINOR, "negative_equity_minor")
        return {
            "accounts": self.accounts,
            "status": dict(self.status),
            "totals": {n.removesuffix("_minor"): decimal_text(self.minor[n], self.decimals) for n in names},
        }


@dataclass
class Approximate:
    """The sum of account equities as they are, before they are rounded to minor units."""

    accounts: int = 0
    total: float = 0.0
    gross: float = 0.0

    def add(self, accounts: pa.Table) -> None:
        """Takes the next accounts; what is not finite counts as nothing, as it does in minor units."""
        equity = np.asarray(flat(accounts["equity"]))
        equity = equity[np.isfinite(equity)]
        self.accounts += accounts.num_rows
        self.total += float(equity.sum())
        self.gross += float(np.abs(equity).sum())


def require_total(asset: str, totals: AccountTotals, equity: Approximate) -> None:
    """The total of a summary is the sum of account equities within one minor unit for each account, each rounded down.

    Raises:
      InternalError: GM202.
    """
    stated, room = float(totals.amount("equity_minor")), equity.gross * equity.accounts * _EPSILON
    most = equity.total + room
    least = equity.total - room - equity.accounts * 10.0**-totals.decimals
    if not (least <= stated <= most and totals.accounts == equity.accounts == sum(totals.status.values())):
        message = (
            f"GM202: equity of {totals.accounts:,} accounts adds up to {stated!r} {asset} in minor units and to "
            f"{equity.total!r} over {equity.accounts:,} accounts before rounding; nothing was published"
        )
        raise InternalError(message)


def asset_decimals(book: Book) -> defaultdict[str, int]:
    """Decimals of an asset's minor unit: as the assets table says, else 2 for USD and 8 for all others."""
    found: defaultdict[str, int] = defaultdict(lambda: 8, USD=2)
    table = book.tables.get("assets")
    if table is not None:
        names, digits = texts(table, "asset"), floats(table, "decimals")
        found.update({str(n): int(d) for n, d in zip(names, digits, strict=True) if not np.isnan(d)})
    return found


def balance_totals(sums: Mapping[str | int, Fraction], decimals: Mapping[str, int]) -> dict[str, str]:
    """Exact sum of the balances of every asset, rounded once to the asset's decimals, as decimal strings."""
    totals: dict[str, str] = {}
    for asset, total in sums.items():
        digits = decimals[str(asset)]
        totals[str(asset)] = decimal_text(round(total * 10**digits), digits)
    return dict(sorted(totals.items()))
