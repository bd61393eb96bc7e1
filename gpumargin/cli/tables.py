"""Frames as tables on a terminal: numbers are never cut; a table too wide for the screen goes on below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import polars as pl
from rich import box
from rich.table import Table
from rich.text import Text

from gpumargin.cli.render import STATUS_STYLES, clean, console

_GAP = 2  # padding and rule between columns
_HEADER = 11  # a header may be this wide before it is broken at an underscore
_WIDEST_TEXT = 44  # what a column of text asks for at most; it may get less, and is then folded
_UNFOLDED_TEXT = 40  # text up to here, ids for example, stays on one line


class _Column(NamedTuple):
    """A column ready to print: header broken into lines, cells as text."""

    header: str
    cells: list[str]
    is_number: bool
    is_status: bool

    @property
    def widest(self) -> int:
        return max(map(len, [*self.header.split("\n"), *self.cells]))

    @property
    def is_whole(self) -> bool:
        return self.is_number or self.widest <= _UNFOLDED_TEXT

    @property
    def width(self) -> int:
        return self.widest if self.is_whole else min(self.widest, _WIDEST_TEXT)


def print_table(frame: pl.DataFrame, *, keys: int = 1, title: str = "") -> None:
    """Prints a frame to stdout, in several tables one below the other where it is wider than the screen."""
    target = console()
    columns = [_column(frame[name]) for name in frame.columns]
    for number, block in enumerate(_blocks(columns, keys=keys, width=target.width)):
        target.width = max(target.width, sum(column.width + _GAP for column in block if column.is_whole))
        target.print(_table(block, title=clean(title) if number == 0 else ""))
        target.print()


def _blocks(columns: Sequence[_Column], *, keys: int, width: int) -> Iterator[list[_Column]]:
    """Columns in groups that fit, each behind the key columns."""
    head, rest = list(columns[:keys]), list(columns[keys:])
    taken = sum(column.width + _GAP for column in head)
    while True:
        block, used = list(head), taken
        while rest and (used + rest[0].width <= width or len(block) == len(head)):
            used += rest[0].width + _GAP
            block.append(rest.pop(0))
        yield block
        if not rest:
            return


def _table(columns: Sequence[_Column], *, title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.title, table.title_justify, table.title_style = title or None, "left", "bold"
    for column in columns:
        table.add_column(
            Text(column.header),
            justify="right" if column.is_number else "left",
            no_wrap=column.is_whole,
            overflow="fold",
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(_cell(column, text) for column, text in zip(columns, row, strict=True)))
    return table


def _cell(column: _Column, text: str) -> Text:
    return Text(text, style=STATUS_STYLES.get(text, "") if column.is_status else "")


def _column(values: pl.Series) -> _Column:
    digits = _digits(values) if values.dtype.is_float() else 0
    cells = [shown(value, digits=digits) for value in values.to_list()]
    is_number = values.dtype.is_numeric()
    widest = max([_HEADER, *map(len, cells)])
    return _Column(_broken(clean(values.name), widest), cells, is_number, values.name == "status")


def _broken(name: str, width: int) -> str:
    """A header in lines of at most `width` where its underscores allow."""
    lines = [""]
    for part in name.replace("_", "_\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _digits(values: pl.Series) -> int:
    """Decimals of a column of floats: enough for its largest value."""
    largest = values.filter(values.is_finite()).abs().max()
    size = float(largest) if isinstance(largest, (int, float)) else 0.0
    return 2 if size >= 100 or size == 0 else 4 if size >= 0.01 else 8


def shown(value: object, *, digits: int = 2) -> str:
    """A value as text: thousands separated, nulls as a dash, UTC times to the second."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:z,.{digits}f}"  # what rounds to 0 has no sign
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return clean(value)
