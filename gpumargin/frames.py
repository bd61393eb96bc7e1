"""Polars frames: rows of one beside those of another, and moments to compare columns with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import numpy as np


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = pl.Datetime("us", "UTC")


def microseconds(moment: datetime) -> int:
    """A moment with a zone, counted since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def instant(moment: datetime | None) -> pl.Expr:
    """A moment with a zone as columns of time have it; polars makes one of a `datetime` by a query of its own."""
    if moment is None:
        return pl.lit(None, _TIME)
    return pl.lit(microseconds(moment), pl.Int64).cast(_TIME)


def beside(frame: pl.DataFrame, other: pl.DataFrame, row: np.ndarray) -> pl.DataFrame:
    """A frame with the columns of another at the right: what `join` gives on a key whose rows are known.

    Args:
      frame: `[rows]`.
      other: any number of rows.
      row: `[rows]` int64, which of them belongs beside each; -1 = none, which gives null.
    """
    numbers = pl.Series(row, dtype=pl.Int64)
    numbers = numbers.set(numbers < 0, None)
    return frame.hstack(other.select(pl.all().gather(numbers)))  # all in one query: each costs as much as a few columns
