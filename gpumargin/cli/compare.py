"""The verb `compare`: one book under several models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpumargin.cli.options import AsOfOption, BadRowsOption, BookArgument, Device, FormatOption, OnBadRows
from gpumargin.cli.process import prepare_process
from gpumargin.cli.render import Format, emit, say

_SHOWN = ("account_id", "pool", "model", "status_before", "status", "maintenance_margin", "maintenance_margin_change")


def compare(
    book: BookArgument,
    *,
    models: Annotated[
        str,
        typer.Option(
            "--models",
            metavar="A,B,...",
            help="Two models or more, as for run; the others are compared with the first.",
            show_default=False,
        ),
    ],
    as_of: AsOfOption = None,
    device: Annotated[Device, typer.Option("--device", help="auto takes every GPU, else the CPU.")] = Device.AUTO,
    on_bad_rows: BadRowsOption = OnBadRows.FAIL,
    count: Annotated[int, typer.Option("-n", metavar="N", min=0, help="Accounts shown, most changed first.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write accounts.parquet and totals.parquet here."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Margin one book under several models: totals, and the accounts that change most."""
    prepare_process(device)
    from gpumargin.compare import compare_models
    from gpumargin.publish import write_table
    from gpumargin.tables import read_book

    names = [name.strip() for name in models.split(",") if name.strip()]
    found = compare_models(read_book(book), names, as_of=as_of, device=device.value, on_bad_rows=on_bad_rows.value)
    if out is not None:
        write_table(out / "accounts.parquet", found.accounts.to_arrow())
        write_table(out / "totals.parquet", found.totals.to_arrow())
        say(f"every account under every model: {out / 'accounts.parquet'}")
    if form is not Format.TABLE:
        emit(found.accounts, form)
        return
    say(f"{found.totals['accounts'][0]:,} accounts, money in {found.asset}, changes against {found.totals['model'][0]}")
    emit(found.totals, form)
    if count:
        emit(found.most_changed(count).select(_SHOWN), form, keys=3)
