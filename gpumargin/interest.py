"""Open interest: what all accounts together are long and short of every contract, exactly."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gpumargin.pack.columns import Floats
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.legs import LegBook
from gpumargin.sums import float_sums, group_sums
from gpumargin.totals import decimal_text

DECIMALS = 8
"""Decimals to which every position is rounded before it is added up: long 0.1 and 0.2, short 0.3 is nothing."""
_LARGEST = 2.0**62
_ROWS = 1 << 20


class Sides(NamedTuple):
    """What is held of one contract, in 10^-8 contracts, both at least 0."""

    long: int
    short: int

    @property
    def difference(self) -> int:
        """Long less short."""
        return self.long - self.short


@dataclass
class OpenInterest:
    """Open interest over accounts that arrive in parts."""

    long: Counter[str | int] = field(default_factory=Counter)
    short: Counter[str | int] = field(default_factory=Counter)
    value: dict[str | int, float] = field(default_factory=dict)  # of one contract, accounting asset

    def add(self, book: LegBook, contracts: ContractSet, values: Floats) -> None:
        """Takes the next accounts; `values` `[M]` is what one long contract is worth."""
        held = np.flatnonzero(contracts.is_listed)
        ids = contracts.ids.take(pa.array(held)).to_pylist()
        sums = _by_side(book, contracts.padding + 1)
        for place, name in zip(held.tolist(), ids, strict=True):
            self.long[name] += sums[2 * place]
            self.short[name] -= sums[2 * place + 1]
            self.value.setdefault(name, float(values[place]))

    def laid_aside(self) -> list[list[Any]]:
        """A list for each contract, as JSON has it."""
        return [[name, self.long[name], self.short[name], self.value[name]] for name in self.long]

    def take_up(self, state: list[list[Any]]) -> None:
        """Takes what was laid aside."""
        for name, long, short, value in state:
            self.long[name], self.short[name], self.value[name] = long, short, value

    def sides(self) -> dict[str | int, Sides]:
        """Both sides of every contract that somebody holds, by its id, ascending."""
        held = sorted(name for name in self.long if self.long[name] or self.short[name])
        return {name: Sides(self.long[name], self.short[name]) for name in held}

    def unbalanced(self) -> dict[str | int, Sides]:
        """Contracts whose longs and shorts differ, the difference that is worth most first."""
        open_ones = {name: sides for name, sides in self.sides().items() if sides.difference}
        return dict(sorted(open_ones.items(), key=lambda item: -abs(item[1].difference * self.value[item[0]])))

    def summary(self) -> dict[str, Any]:
        """How many contracts are held and how many do not sum to zero, and the one whose difference is worth most."""
        unbalanced = self.unbalanced()
        largest = next(iter(unbalanced.items()), None)
        return {
            "contracts": len(self.sides()),
            "unbalanced": len(unbalanced),
            "largest": None if largest is None else {"instrument_id": largest[0]} | texts_of(largest[1]),
        }

    def table(self) -> pa.Table:
        """One row per contract that somebody holds, ascending."""
        sides = self.sides()
        columns = {name: [getattr(each, name) for each in sides.values()] for name in ("long", "short", "difference")}
        kind = pa.decimal128(38, DECIMALS)
        exact = {name: pa.array([Decimal(n).scaleb(-DECIMALS) for n in found], kind) for name, found in columns.items()}
        return pa.table({"instrument_id": pa.array([str(name) for name in sides], pa.string()), **exact})


def texts_of(sides: Sides) -> dict[str, str]:
    """Both sides and their difference as decimal strings, in contracts."""
    return {name: decimal_text(getattr(sides, name), DECIMALS) for name in ("long", "short", "difference")}


def _by_side(book: LegBook, contracts: int) -> list[int]:
    """Longs, then shorts, which are negative, of every contract."""
    totals = [0] * (2 * contracts)
    for start in range(0, len(book.contract), _ROWS):
        rows = slice(start, start + _ROWS)
        quantity = np.rint(book.quantity[rows] * 10.0**DECIMALS)
        group = 2 * book.contract[rows].astype(np.int64) + (quantity < 0)
        totals = [total + more for total, more in zip(totals, _sums(group, quantity, len(totals)), strict=True)]
    return totals


def _sums(group: np.ndarray, whole: Floats, count: int) -> list[int]:
    """Sums by group of floats without fractions; what int64 cannot hold is added up the slow way."""
    if float(np.abs(whole).max()) < _LARGEST:
        return group_sums(group, whole.astype(np.int64), count)
    found = float_sums(group, whole)
    return [int(found.get(place, 0)) for place in range(count)]
