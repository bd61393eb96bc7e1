"""Failures of the input contract on the screen: what, where, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumargin.cli.render import clean, console, say

if TYPE_CHECKING:
    import polars as pl
    from rich.text import Text

MOST_SHOWN = 20
_MOST_ALIKE = 3


def show_failures(failures: pl.DataFrame, *, is_error: bool) -> None:
    """Prints the first failures as a table, and how many of each code there are.

    Args:
      failures: frame with the columns `errors.FAILURE_COLUMNS`, the remedy possibly in `message` already.
      is_error: to stderr, as the reason why something ended; else to stdout, as data.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), expand=True)
    table.add_column("code", no_wrap=True, style="bold")
    table.add_column("file, row, column", overflow="fold", ratio=2)
    table.add_column("value", overflow="fold", ratio=1, min_width=12)
    table.add_column("message, remedy", overflow="fold", ratio=4)
    examples = _examples(failures)
    for row in examples.iter_rows(named=True):
        table.add_row(clean(row["code"]), _where(row), clean(row["value"]), _what(row))
    console(is_error=is_error).print(table)
    say(_counts(failures, examples.height))


def _examples(failures: pl.DataFrame) -> pl.DataFrame:
    """The first few failures of each code, table and column, so that a common one does not hide the others."""
    import polars as pl

    number = pl.int_range(pl.len()).over("code", "table", "column")
    return failures.filter(number < _MOST_ALIKE).head(MOST_SHOWN)


def _where(row: dict[str, object]) -> str:
    """File, row and column, one below the other; rows are counted from 0."""
    lines = [str(row["file"] or row["table"])]
    lines += [f"row {row['row']:,}"] if row["row"] is not None else []
    lines += [f"column {row['column']}"] if row["column"] else []
    return "\n".join(map(clean, lines))


def _what(row: dict[str, object]) -> Text:
    from rich.text import Text

    remedy = (f"\n-> {clean(row['remedy'])}", "dim") if "remedy" in row else ""
    return Text.assemble(clean(row["message"]), remedy)


def _counts(failures: pl.DataFrame, num_shown: int) -> str:
    counted = failures["code"].value_counts().sort("code")
    codes = ", ".join(f"{clean(code)}: {count:,}" for code, count in counted.iter_rows())
    shown = f"; {num_shown} of them are above" if failures.height > num_shown else ""
    return f"{failures.height:,} places listed, by code: {codes}{shown}"
