"""An existing book as the market of a synthetic one: its tables, found, read and copied as they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl

from gpumargin.errors import UsageError
from gpumargin.files import named, refuse_outside, whole_table
from gpumargin.synth.market import Market

_REQUIRED = ("instruments", "marks", "forwards", "prices")
COPIED = (*_REQUIRED, "assets")
_LOTS_PER_UNIT = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)


def read_market(book: Path) -> Market:
    """The contract tables of the folder `book`; popularity and lot size follow from the open interest.

    Raises:
      UsageError: no such folder, a table missing from it, or no open interest anywhere in its marks.
    """
    if not book.is_dir():
        message = f"expected market to be the folder of a book, found none at {str(book)!r}; check the path"
        raise UsageError(message)
    tables = {name: _read(book, name) for name in _REQUIRED}
    marks = tables["marks"]
    if "open_interest" not in marks.columns or not (marks["open_interest"].fill_null(0.0) > 0.0).any():
        message = f"expected open_interest in marks of {str(book)!r}, found none above 0; choose a book that has it"
        raise UsageError(message)
    return Market(tables, _trade(tables["instruments"], marks))


def copy_market(book: Path, folder: Path) -> None:
    """Copies the contract tables of `book` into `folder`, byte for byte and in the form they have."""
    for name in COPIED:
        for path in (book / f"{name}.parquet", book / f"{name}.arrow"):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        if (book / name).is_dir():
            shutil.copytree(book / name, folder / name)


def _read(book: Path, name: str) -> pl.DataFrame:
    """One table in any of the three forms of a book; ids as they are, categories as strings."""
    inside = sorted((book / name).glob("*.parquet")) if (book / name).is_dir() else []
    files = [path for path in (book / f"{name}.parquet", book / f"{name}.arrow") if path.is_file()][:1] or inside
    if not files:
        message = f"expected {name}.parquet, {name}.arrow or {name}/ in {str(book)!r}, found none; add the table"
        raise UsageError(message)
    frame = pl.concat([_frame(path, book) for path in files])
    return frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String), pl.col(pl.Decimal).cast(pl.Float64))


def _frame(path: Path, book: Path) -> pl.DataFrame:
    with named(path):
        refuse_outside(path, book)
    return cast("pl.DataFrame", pl.from_arrow(whole_table(path)))


def _trade(instruments: pl.DataFrame, marks: pl.DataFrame) -> pl.DataFrame:
    """Per contract: open contracts, and the coarsest decimal lot that all open interest of its kind is made of."""
    open_interest = marks.select("instrument_id", pl.col("open_interest").fill_null(0.0).cast(pl.Float64))
    rows = instruments.select("instrument_id", "kind", "underlying").join(open_interest, on="instrument_id", how="left")
    rows = rows.with_columns(pl.col("open_interest").fill_null(0.0))
    groups = rows.group_by("kind", "underlying").agg("open_interest")
    lots = groups.with_columns(
        lots_per_unit=pl.col("open_interest").map_elements(_lots_per_unit, return_dtype=pl.Int64)
    ).drop("open_interest")
    return rows.join(lots, on=("kind", "underlying")).select("instrument_id", "open_interest", "lots_per_unit")


def _lots_per_unit(open_interest: pl.Series) -> int:
    """Lots in one contract: the smallest power of ten that makes every open interest whole."""
    values = open_interest.to_numpy()
    for lots in _LOTS_PER_UNIT:
        scaled = values * lots
        if np.all(np.abs(scaled - np.rint(scaled)) <= 1e-6 * np.maximum(1.0, 1e-3 * scaled)):
            return lots
    return _LOTS_PER_UNIT[-1]
