"""The verb `check`: the input contract alone, without a kernel or a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gpumargin.cli.options import AsOfOption, BadRowsOption, BookArgument, FormatOption, MaxAgeOption, OnBadRows
from gpumargin.cli.render import Format, clean, emit, say
from gpumargin.errors import InputError

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from gpumargin.checks import Sifting


def check(
    book: BookArgument,
    *,
    as_of: AsOfOption = None,
    max_age: MaxAgeOption = None,
    on_bad_rows: BadRowsOption = OnBadRows.FAIL,
    form: FormatOption = Format.TABLE,
) -> None:
    """Check a book against the input contract; ends with 3 if a run of it would."""
    found, size = _sifted(book, as_of, max_age, on_bad_rows)
    for row in found.warnings.iter_rows(named=True):
        say(clean(f"odd: {row['code']} {row['file'] or row['table']}: {row['message']}"), style="yellow")
    listed = found.rejected if found.failures.is_empty() else found.failures
    if listed.is_empty():
        say(f"ok: the book keeps the contract: {size}", style="green")
    if form is not Format.TABLE:
        emit(listed, form)
    elif not listed.is_empty():
        from gpumargin.cli.failures import show_failures

        show_failures(listed, is_error=False)
    if not found.failures.is_empty():
        raise typer.Exit(InputError.exit_code)
    if not found.rejected.is_empty():
        say(f"a run with --on-bad-rows quarantine goes on without these; unknown accounts: {found.unknown:,}")


def _sifted(
    book: Path, as_of: datetime | None, max_age: timedelta | None, on_bad_rows: OnBadRows
) -> tuple[Sifting, str]:
    """What reading finds, else what checking finds, and how much there is in the book."""
    import polars as pl

    from gpumargin.checks import Sifting, sift_book
    from gpumargin.tables import read_book

    try:
        read = read_book(book)
    except InputError as error:
        return Sifting(error.failures, pl.DataFrame(), 0, pl.DataFrame()), ""
    rows = ", ".join(f"{table.num_rows:,} {name}" for name, table in read.tables.items() if table.num_rows)
    return sift_book(read, on_bad_rows.value, as_of=as_of, max_age=max_age), rows
