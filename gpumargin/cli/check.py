"""The verb `check`: the input contract alone, without a kernel or a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gpumargin.cli.options import AsOfOption, BookArgument, FormatOption
from gpumargin.cli.render import Format, emit, say
from gpumargin.errors import InputError

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl


def check(book: BookArgument, *, as_of: AsOfOption = None, form: FormatOption = Format.TABLE) -> None:
    """Check a book against the input contract; ends with 3 if it breaks it."""
    failures, size = _failures(book, as_of)
    if failures.is_empty():
        say(f"ok: the book keeps the contract: {size}", style="green")
    if form is not Format.TABLE:
        emit(failures, form)
    elif not failures.is_empty():
        from gpumargin.cli.failures import show_failures

        show_failures(failures, is_error=False)
    if not failures.is_empty():
        raise typer.Exit(InputError.exit_code)


def _failures(book: Path, as_of: datetime | None) -> tuple[pl.DataFrame, str]:
    """Failures of reading, else of checking, and how much there is in the book."""
    from gpumargin.checks import check_book
    from gpumargin.tables import read_book

    try:
        read = read_book(book)
    except InputError as error:
        return error.failures, ""
    rows = ", ".join(f"{table.num_rows:,} {name}" for name, table in read.tables.items() if table.num_rows)
    return check_book(read, as_of=as_of), rows
