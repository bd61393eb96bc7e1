"""Polars frames: rows of one beside those of another, and instants to compare columns with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = pl.Datetime("us", "UTC")


def instant(moment: datetime | None) -> pl.Expr:
    """A moment with a zone as columns of time have it; polars makes one of a `datetime` by a query of its own."""
    if moment is None:
        return pl.lit(None, _TIME)
    return pl.lit((moment - _EPOCH) // timedelta(microseconds=1), pl.Int64).cast(_TIME)


def beside(
    frame: pl.DataFrame, other: pl.DataFrame, row: np.ndarray, key: Collection[str] = (), suffix: str = ""
) -> pl.DataFrame:
    """A frame with columns of another at the right: what `join` gives on a key whose rows are known.

    Args:
      frame: `[rows]`.
      other: any number of rows.
      row: `[rows]` int64, which of them belongs beside each; -1 = none, which gives null.
      key: columns of `other` that are left out.
      suffix: behind the names of columns that both have.
    """
    numbers = pl.Series(row, dtype=pl.Int64)
    numbers = numbers.set(numbers < 0, None)
    taken = other.select(pl.exclude(key).gather(numbers))  # all in one query: each costs as much as a few columns
    return frame.hstack(taken.rename({name: name + suffix for name in taken.columns if name in frame.columns}))
