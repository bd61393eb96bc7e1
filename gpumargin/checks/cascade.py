"""What cannot be used because a row that it stands on is in quarantine, as links between tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.checks.facts import Facts
from gpumargin.checks.findings import shown
from gpumargin.tables import CUT_TABLES, Book
from gpumargin.tables.rows import places

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

RECORDS = {
    "table": pl.String,
    "file": pl.String,
    "row": pl.Int64,
    "code": pl.String,
    "column": pl.String,
    "value": pl.String,
    "message": pl.String,
}
"""Columns of the table of rejected rows; `row` counts from 0 within `file`."""


@dataclass(frozen=True, slots=True)
class Link:
    """Rows of `target` stand on the rows of `source` that have the same values in these columns."""

    source: str
    source_columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]


def _same(source: str, target: str, *columns: str) -> Link:
    return Link(source, columns, target, columns)


MARKET_LINKS = (
    _same("assets", "prices", "asset"),
    *(Link("prices", ("asset",), "instruments", (column,)) for column in ("underlying", "settlement", "quote")),
    _same("prices", "funds", "asset"),
    _same("forwards", "instruments", "underlying", "quote", "expiry"),
    _same("marks", "instruments", "instrument_id"),
    _same("instruments", "marks", "instrument_id"),
)
"""A contract without a sound mark, forward or price of what it depends on is no contract that could be margined."""

ACCOUNT_LINKS = (
    _same("instruments", "positions", "instrument_id"),
    _same("instruments", "orders", "instrument_id"),
    _same("prices", "balances", "asset"),
    *(_same("accounts", name, "account_id", "pool") for name in CUT_TABLES if name != "accounts"),
)
"""The last because the row of `accounts` names the model: without it nobody knows how to margin the others."""


@dataclass(frozen=True)
class Causes:
    """Rows in quarantine that others may stand on.

    Attributes:
      rows: by table their columns, and `cause` (the code), `of_file` and `of_row`.
    """

    rows: dict[str, pl.DataFrame] = field(default_factory=dict)

    def add(self, book: Book, table: str, records: pl.DataFrame) -> None:
        """Takes rows of a table by their records, of several of one row the first."""
        first = records.unique("at", keep="first", maintain_order=True)
        cause = first.select(cause="code", of_file="file", of_row="row")
        frame = pl.concat([_frame_of(book, table, first["at"].to_numpy()), cause], how="horizontal")
        known = self.rows.get(table)
        self.rows[table] = frame if known is None else pl.concat([known, frame], how="diagonal_relaxed")


def _frame_of(book: Book, table: str, rows: np.ndarray) -> pl.DataFrame:
    """Some rows as a polars frame, ids as plain strings."""
    return Book({table: book.tables[table].take(pa.array(rows))}).frame(table)


def linked(book: Book, link: Link, causes: Causes) -> pl.DataFrame:
    """Rows of the target that stand on rows in quarantine.

    Returns:
      `at` (row of the table), and the columns of `RECORDS`; one row for each, ascending.
    """
    of_source = causes.rows.get(link.source)
    if of_source is None or not book.num_rows(link.target):
        return nothing()
    keys = dict(zip(link.source_columns, link.target_columns, strict=True))
    wanted = of_source.select([*link.source_columns, "cause", "of_file", "of_row"]).rename(keys)
    rows = _candidates(book, link, wanted)
    found = _frame_of(book, link.target, rows).with_columns(pl.Series("at", rows))
    types = pl.Schema({name: found.schema[name] for name in link.target_columns})
    wanted = wanted.cast(types).unique(link.target_columns, keep="first", maintain_order=True)
    return _records(book, link, found.join(wanted, on=link.target_columns, how="inner", maintain_order="left"))


def nothing() -> pl.DataFrame:
    """No record."""
    return pl.DataFrame(schema={"at": pl.Int64, **RECORDS})


def _candidates(book: Book, link: Link, wanted: pl.DataFrame) -> np.ndarray:
    """Rows of the target whose first column has one of the wanted values."""
    coded = Facts(book).coded(link.target, link.target_columns[0])
    words = pa.array(wanted[link.target_columns[0]].cast(pl.String).to_list(), pa.string())
    is_wanted = pc.is_in(coded.words.cast(pa.string()), value_set=words)
    return coded.rows_with(is_wanted.to_numpy(zero_copy_only=False))


def _records(book: Book, link: Link, found: pl.DataFrame) -> pl.DataFrame:
    column = link.target_columns[0]
    files, numbers = places(book, link.target, found["at"].to_numpy())
    words = found[column].cast(pl.String)
    spelt = {word: shown(word) for word in words.unique().drop_nulls()}
    value = words.replace_strict(spelt, return_dtype=pl.String) if spelt else words
    cause = pl.format(
        f"{column} {{}} stands on row {{}} of {link.source} ({{}}), which is in quarantine with {{}}; correct that row",
        "value", "of_row", "of_file", "cause",
    )  # fmt: skip
    placed = found.with_columns(
        value.alias("value"), pl.Series("file", files.tolist(), dtype=pl.String), pl.Series("row", numbers)
    )
    said = {"table": pl.lit(link.target), "code": pl.col("cause"), "column": pl.lit(column), "message": cause}
    return placed.with_columns(**said).select("at", *RECORDS)


def rows_by_table(records: Mapping[str, pl.DataFrame]) -> dict[str, np.ndarray]:
    """Distinct row numbers by table."""
    return {name: frame["at"].unique().sort().to_numpy() for name, frame in records.items() if frame.height}
