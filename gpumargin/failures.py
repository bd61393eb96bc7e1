"""Failures of the input contract: one record per offending cell, gathered in a frame that errors carry."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import polars as pl

from gpumargin.errors import FAILURE_COLUMNS, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

FAILURE_SCHEMA = {name: pl.Int64 if name == "row" else pl.String for name in FAILURE_COLUMNS}
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Failure:
    """One offending cell, column, table or file; `row` counts from 0 within `file`, None where no row is to blame."""

    code: str
    table: str
    file: str
    row: int | None
    column: str
    value: str
    message: str
    remedy: str


def failure_frame(failures: Iterable[Failure]) -> pl.DataFrame:
    """Polars frame with the columns `errors.FAILURE_COLUMNS`, one row per failure, in the order given."""
    return pl.DataFrame([astuple(failure) for failure in failures], schema=FAILURE_SCHEMA, orient="row")


def input_error(frame: pl.DataFrame) -> InputError:
    """Error for a frame of failures; its message names the first few and says how many more the frame holds."""
    lines = [_line(row) for row in frame.head(_SHOWN).iter_rows(named=True)]
    rest = frame.height - len(lines)
    head = "the input breaks the contract:" if frame.height != 1 else "the input breaks the contract at one place:"
    tail = [f"  and {rest:,} more, in the failures table of this error"] if rest > 0 else []
    return InputError("\n".join([head, *lines, *tail]), frame)


def _line(row: dict[str, object]) -> str:
    where = row["file"] or row["table"]
    at = f", row {row['row']:,}" if row["row"] is not None else ""
    return f"  {row['code']} {where}{at}: {row['message']}; {row['remedy']}"
