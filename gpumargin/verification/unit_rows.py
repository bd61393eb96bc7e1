"""Legs of one risk unit of many accounts: a row for each account that has some, sums over groups of its legs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gpumargin.explain.charges import WORDS
from gpumargin.modelfile import ModelFile
from gpumargin.verification.contracts import UnitContracts
from gpumargin.verification.figures import Array, Figures, given


class Groups(NamedTuple):
    """Runs of legs that are summed together.

    Attributes:
      legs: `[K]` the legs looked at, group after group.
      start: `[G]` where each group begins in `legs`.
      row: `[G]` unit row of each group, ascending.
    """

    legs: Array
    start: Array
    row: Array

    def sum(self, of_legs: Array) -> Array:
        """Sums by group of values of the legs looked at, `[K, ...]` to `[G, ...]`."""
        if not len(self.start):
            return np.zeros((0, *of_legs.shape[1:]))
        return np.add.reduceat(of_legs, self.start, axis=0)

    @property
    def last(self) -> Array:
        """The last leg of each group, `[G]`."""
        return self.legs[np.append(self.start[1:], len(self.legs)) - 1] if len(self.start) else self.legs[:0]


@dataclass
class Charges:
    """What a component requires of every unit row.

    Attributes:
      figures: `[R]`.
      ids: `[K]` names of what may bind; empty for components without scenarios.
      losses: `[R, K]` loss by name.
      worst: `[R]` place of the largest of them.
    """

    figures: Figures
    ids: list[str] = field(default_factory=list)
    losses: Array = field(default_factory=lambda: np.zeros((0, 0)))
    worst: Array = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class UnitRows:
    """One unit of many accounts.

    Attributes:
      contracts: of the unit.
      file: the model.
      account: `[R]` whose row it is, ascending.
      row: `[N]` row of each leg, ascending.
      contract: `[N]` place among the unit's contracts.
      words: `[N]` each, what a leg says of itself: quantity, entry, open orders, numbers that its account sets; money
        by leg as value, unrealised_pnl and gross_pnl.
      charges: of components so far, by name.
    """

    contracts: UnitContracts
    file: ModelFile
    account: Array
    row: Array
    contract: Array
    words: Mapping[str, Array]
    charges: dict[str, Charges] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.account)

    @cached_property
    def quantity(self) -> Array:
        """Signed size of each leg in contracts, `[N]`."""
        return self.words["quantity"]

    def of_word(self, word: str) -> Array:
        """What a sum's word says of each leg, `[N]`."""
        return WORDS[word](self.quantity) if word in WORDS else self.words[word]

    def groups(self, level: str, chosen: Array | None = None) -> Groups:
        """Legs by group of a level: position, strike, expiry or unit; only contracts that are `chosen`, `[M]`."""
        legs = np.arange(len(self.row)) if chosen is None else np.flatnonzero(chosen[self.contract])
        codes: Mapping[str, Any] = {
            "unit": lambda: np.zeros(len(legs), np.int64),
            "position": lambda: self.contract[legs],
            "expiry": lambda: self.contracts.expiry_group[self.contract[legs]],
            "strike": lambda: self.contracts.strike_group[self.contract[legs]],
        }
        code = codes[level]()
        if level == "strike":
            legs, code = legs[code >= 0], code[code >= 0]
        key = self.row[legs] * (self.contracts.side.legs.height + 1) + code
        if np.any(key[1:] < key[:-1]):
            order = np.argsort(key, kind="stable")
            legs, key = legs[order], key[order]
        begins = np.append(True, key[1:] != key[:-1]) if len(key) else np.zeros(0, bool)
        start = np.flatnonzero(begins)
        return Groups(legs, start, self.row[legs[start]])

    def by_row(self, groups: Groups, of_groups: Array) -> Array:
        """Sums by unit row of values of groups, `[G, ...]` to `[R, ...]`; 0 without groups."""
        found = np.zeros((len(self), *of_groups.shape[1:]))
        if len(groups.row):
            start = np.flatnonzero(np.append(True, groups.row[1:] != groups.row[:-1]))
            found[groups.row[start]] = np.add.reduceat(of_groups, start, axis=0)
        return found

    def figures_by_row(self, groups: Groups, figures: Figures) -> Figures:
        """The same of figures."""
        size = len(groups.row)
        return Figures(*(self.by_row(groups, np.broadcast_to(part, (size,))) for part in figures))

    @cached_property
    def by_unit(self) -> Groups:
        """All legs of each row."""
        return self.groups("unit")

    def money(self, word: str, gross: str | None = None, where: Array | None = None) -> Figures:
        """Sum of a kind of money over the legs of each row, of those `where` a mask of contracts says, `[R]`."""
        counts = 1.0 if where is None else where[self.contract]
        amount, size = self.words[word] * counts, np.abs(self.words[gross or word]) * counts
        return Figures(
            *(self.by_row(self.by_unit, self.by_unit.sum(part[self.by_unit.legs])) for part in (amount, size))
        )

    def numbers(self, tables: Mapping[str, Mapping[str, float]]) -> dict[str, Figures]:
        """Numbers of the unit from tables by name."""
        return {name: given(self.contracts.side.number(values)) for name, values in tables.items()}
