"""Books that lack marks or forwards, and how a run of one is compared with that of the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

import gpumargin as gm
from gpumargin.run import margin
from gpumargin.tables import read_book
from tests.books import FAR, NEAR
from tests.smiles import MIDDLE, STEPS, name_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

MODEL = "correlated-pm"
Tables = dict[str, pl.DataFrame]
MARGINS = ("equity", "initial_margin", "maintenance_margin")
MONEY = (*MARGINS, "delta", "gamma", "vega", "theta")
# A price fixes its vol to an ulp of the price over vega, here below 1e-11; parity its forward to an ulp or two.
EXACT = 1e-9


def run_of(tables: Tables, **options: Any) -> gm.Run:
    return margin(read_book(**tables), MODEL, **options)


def failures_of(tables: Tables) -> list[dict[str, Any]]:
    with pytest.raises(gm.InputError) as caught:
        run_of(tables)
    return caught.value.failures.to_dicts()


def named(underlying: str, expiry: datetime, *steps: int) -> list[str]:
    return [name_of(underlying, expiry, step, side) for step in steps for side in ("call", "put")]


def without_marks(tables: Tables, names: Collection[str], *columns: str) -> Tables:
    """The book with some cells of some marks null."""
    is_named = pl.col("instrument_id").is_in(list(names))
    nulls = [pl.when(~is_named).then(pl.col(column)).alias(column) for column in columns]
    return {**tables, "marks": tables["marks"].with_columns(nulls)}


def without_forwards(tables: Tables, underlying: str, *expiries: datetime) -> Tables:
    is_gone = (pl.col("underlying") == underlying) & pl.col("expiry").is_in(list(expiries))
    return {**tables, "forwards": tables["forwards"].filter(~is_gone)}


def with_mark(tables: Tables, name: str, **cells: float | None) -> Tables:
    is_named = pl.col("instrument_id") == name
    changed = [
        pl.when(is_named).then(pl.lit(x, pl.Float64)).otherwise(column).alias(column) for column, x in cells.items()
    ]
    return {**tables, "marks": tables["marks"].with_columns(changed)}


def without_positions(tables: Tables, names: Collection[str]) -> Tables:
    return {**tables, "positions": tables["positions"].filter(~pl.col("instrument_id").is_in(list(names)))}


def vol_errors(run: gm.Run, whole: gm.Run, names: Collection[str]) -> np.ndarray:
    both = run.instruments.join(whole.instruments, on="instrument_id", suffix="_whole")
    chosen = both.filter(pl.col("instrument_id").is_in(list(names)))
    return np.abs((chosen["implied_vol"] - chosen["implied_vol_whole"]).to_numpy())


def assert_same_money(run: gm.Run, whole: gm.Run, within: float, names: Collection[str] = MONEY) -> None:
    """Amounts of every account, relative to the largest of their kind: sums may cancel to nearly nothing."""
    for name in names:
        found, expected = run.accounts[name].to_numpy(), whole.accounts[name].to_numpy()
        np.testing.assert_allclose(found, expected, rtol=within, atol=within * np.abs(expected).max(), err_msg=name)


ALL = [name for expiry in (NEAR, MIDDLE, FAR) for name in named("BTC", expiry, *STEPS) + named("ETH", expiry, *STEPS)]
DEEP = name_of("BTC", NEAR, -4, "call")
