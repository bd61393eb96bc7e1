"""The figures of an account that are compared, in whole minor units, so that changes add up to the last digit."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from gpumargin.pack.columns import flat
from gpumargin.results import minor_units

KEYS = ("account_id", "pool")
FIGURES = ("equity", "initial_margin", "maintenance_margin", "initial_excess", "maintenance_excess")


def account_figures(accounts: pa.Table, decimals: int) -> pl.DataFrame:
    """The figures of accounts of one model.

    Args:
      accounts: rows of the result table, all of one model.
      decimals: of the accounting asset.

    Returns:
      account_id, pool, model and status as text, and of each figure its int64 minor units, rounded once against the
      account as the result table does; null where the figure is not known.
    """
    words = {name: pl.Series(name, _text(accounts[name]), pl.String) for name in (*KEYS, "model", "status")}
    return pl.DataFrame({**words, **{name: _minor(accounts, name, decimals) for name in FIGURES}})


def _text(column: pa.ChunkedArray) -> pa.Array:
    return flat(column).cast(pa.string())


def _minor(accounts: pa.Table, name: str, decimals: int) -> pl.Series:
    published = f"{name}_minor"
    if published in accounts.column_names:
        return pl.Series(name, flat(accounts[published]), pl.Int64)
    return pl.Series(name, minor_units(np.asarray(flat(accounts[name])), decimals, np.floor), pl.Int64)
