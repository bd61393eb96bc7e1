"""Instruments as rules ask for them: their cells, those of their marks and forwards, and what is made of them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from gpumargin.fill import MISSING, live_options
from gpumargin.frames import microseconds
from gpumargin.pack.columns import flags, instants, is_one_of, positions_in
from gpumargin.pack.joins import are_complete, floats_at, has_values
from gpumargin.schema import USD

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from gpumargin.checks.facts import Facts, Limits
    from gpumargin.pack.columns import Bools, Floats, Ints


class Contracts:
    """What is known of the instruments of a book, `[instruments]` each; null is True of no question but `is_null`.

    Args:
      facts: of a book.
      limits: the instant at which contracts expire; without one, none has.
    """

    def __init__(self, facts: Facts, limits: Limits) -> None:
        self._facts, self._limits = facts, limits
        self._instruments = facts.book.tables["instruments"]
        at = facts.book.market_rows
        self.rows: dict[str, Ints] = {
            "instruments": np.arange(self._instruments.num_rows),
            "marks": at.marks,
            "forwards": at.forwards,
        }

    def is_word(self, column: str, *words: str) -> Bools:
        """Whether a column of instruments holds one of some words."""
        return is_one_of(self._instruments, column, words)

    def is_set(self, column: str) -> Bools:
        """A flag of instruments."""
        return flags(self._instruments, column, default=False)

    def is_null(self, table: str, column: str) -> Bools:
        """Whether a cell is null; those of a mark or forward that there is not are."""
        return np.asarray(~has_values(self._facts.book.tables[table], column)[self.rows[table]])

    def numbers(self, table: str, column: str) -> Floats:
        """Numbers of a column, NaN for null."""
        return floats_at(self._facts.book.tables[table], self.rows[table], column)

    @cached_property
    def is_option(self) -> Bools:
        """Which are options."""
        return self.is_word("kind", "option")

    @cached_property
    def is_held(self) -> Bools:
        """Which a position is in."""
        return self._is_named_in("positions")

    @cached_property
    def is_used(self) -> Bools:
        """Which a position or an order is in, spot left out."""
        is_margined = ~self.is_word("kind", "spot") & ~self.is_null("instruments", "kind")
        return np.asarray(is_margined & (self.is_held | self._is_named_in("orders")))

    @cached_property
    def is_live(self) -> Bools:
        """Which are used and have not expired."""
        return np.asarray(self.is_used & ~self.is_expired)

    @cached_property
    def is_expired(self) -> Bools:
        """Which have expired."""
        return np.asarray(self.seconds_left <= 0)

    @cached_property
    def seconds_left(self) -> Floats:
        """Seconds until expiry, NaN where there is none or no instant is known."""
        if self._limits.as_of is None or "expiry" not in self._instruments.column_names:
            return np.full(self._instruments.num_rows, np.nan)
        left = (instants(self._instruments, "expiry", 0) - microseconds(self._limits.as_of)) / 1e6
        return np.where(self.is_null("instruments", "expiry"), np.nan, left)

    def is_unpriced(self, column: str) -> Bools:
        """Whether a column names an asset that does not stand in prices."""
        priced = map(str, self._facts.coded("prices", "asset").used_words().to_pylist())
        return np.asarray(~self.is_word(column, USD, *priced) & ~self.is_null("instruments", column))

    def cannot_fill(self, column: str) -> Bools:
        """Live options whose `forward` or `vol` is not given, and for which the plan of filling finds none."""
        if self._plan is None:
            return np.zeros(self._instruments.num_rows, bool)
        return self._is_among(self._plan.filter(self._plan[column] == MISSING)["instrument_id"].to_arrow())

    def _is_named_in(self, table: str) -> Bools:
        if not self._facts.book.num_rows(table):
            return np.zeros(self._instruments.num_rows, bool)
        return self._is_among(self._facts.coded(table, "instrument_id").used_words())

    def _is_among(self, ids: pa.Array) -> Bools:
        own = self._facts.coded("instruments", "instrument_id")
        return np.asarray(np.append(positions_in(own.words, ids) >= 0, False)[own.codes])

    @cached_property
    def _plan(self) -> pl.DataFrame | None:
        """The plan of filling, which is only made where an option lacks something."""
        book, as_of = self._facts.book, self._limits.as_of
        if as_of is None or are_complete(book.tables, book.market_rows):
            return None
        return live_options(book, as_of).unique("instrument_id", keep="first")
