"""Data to stdout as table, JSON, CSV or Arrow; talk to stderr. Nothing from a book reaches the terminal raw."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gpumargin.printable import clean as clean

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    from rich.console import Console

_FORMULA = tuple("=+-@\t\r\0")
STATUS_STYLES = {
    "healthy": "green",
    "margin_call": "yellow",
    "liquidatable": "red",
    "bankrupt": "bold red",
    "unknown": "bold magenta",
}


class Format(StrEnum):
    """Forms in which reading verbs give their data."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"


def console(*, is_error: bool = False) -> Console:
    """A rich console on stdout or stderr that takes text literally; NO_COLOR is honoured."""
    from rich.console import Console

    file = sys.stderr if is_error else sys.stdout
    return Console(file=file, markup=False, highlight=False, emoji=False)


def say(text: str, *, style: str | None = None) -> None:
    """Prints talk to stderr; `style` is for the word before the first colon, or for all where there is none."""
    from rich.text import Text

    shown = Text("\n".join(clean(line) for line in text.split("\n")))
    if style:
        shown.stylize(style, 0, shown.plain.find(":") + 1 or len(shown))
    console(is_error=True).print(shown, soft_wrap=True)


def emit(frame: pl.DataFrame, form: Format, *, document: object = None, keys: int = 1) -> None:
    """Prints a frame to stdout.

    Args:
      frame: rows to print.
      form: table, JSON (a list of objects), CSV with a header, or an Arrow IPC stream.
      document: what JSON prints in place of the rows.
      keys: leading columns that are repeated where a table is too wide for the screen and goes on below.
    """
    if form is Format.JSON:
        emit_json(frame.to_dicts() if document is None else document)
    elif form is Format.CSV:
        sys.stdout.write(csv_text(frame))
    elif form is Format.ARROW:
        emit_arrow(frame.to_arrow())
    else:
        from gpumargin.cli.tables import print_table

        print_table(frame, keys=keys)


def emit_json(document: object) -> None:
    """Prints JSON in ASCII, so that no character of a book acts on a terminal; NaN and infinity become null."""
    sys.stdout.write(json.dumps(_plain(document), indent=2, allow_nan=False, default=str) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def csv_text(frame: pl.DataFrame) -> str:
    """CSV with a header; text that a spreadsheet would take for a formula gets a leading apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_csv_cell, frame.columns))
    writer.writerows(map(_csv_cell, row) for row in frame.iter_rows())
    return out.getvalue()


def _csv_cell(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return json.dumps(_plain(value))
    if isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if value.startswith(_FORMULA) or text.startswith(_FORMULA) else text


def emit_arrow(table: pa.Table) -> None:
    """Writes an Arrow IPC stream to stdout, values and metadata as they are."""
    import pyarrow as pa

    with pa.ipc.new_stream(sys.stdout.buffer, table.schema) as stream:
        stream.write_table(table)
