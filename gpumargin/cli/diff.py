"""The verb `diff`: who crossed a line between two runs, and what moved equity and margin."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpumargin.cli.options import Device, FormatOption, find_run, parse_size
from gpumargin.cli.process import prepare_process
from gpumargin.cli.render import Format, console, emit, emit_json, say
from gpumargin.cli.show import SHARED_POOL

if TYPE_CHECKING:
    import polars as pl

    from gpumargin.difference import Difference

_TOTALS = ("equity", "initial_margin", "maintenance_margin")
_RUN = "Run folder; or a folder of runs, or OUT/latest, for the newest; 'latest' alone is runs/latest."


def diff(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help=_RUN, show_default=False)],
    run_b: Annotated[
        Path, typer.Argument(metavar="RUN_B", help="Likewise, of that time or later.", show_default=False)
    ],
    *,
    count: Annotated[int, typer.Option("-n", metavar="N", min=0, help="Accounts shown that crossed a line.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write accounts.parquet, totals.parquet and crossings.parquet here."),
    ] = None,
    device: Annotated[Device, typer.Option("--device", help="auto takes every GPU, else the CPU.")] = Device.AUTO,
    memory_budget: Annotated[
        str, typer.Option("--memory-budget", metavar="SIZE", help="Memory that parts in flight may take.")
    ] = "4GiB",
    form: FormatOption = Format.TABLE,
) -> None:
    """Who crossed a line between two runs; equity and margin by position, time, price, vol and parameter effect.

    Csv and arrow give every account that changed, in whole minor units; json the totals and who crossed.
    """
    budget = parse_size(memory_budget)
    prepare_process(device)
    from gpumargin.difference import diff as difference

    folders = find_run(run_a), find_run(run_b)
    screen = console(is_error=True)
    with screen.status("revaluing") if screen.is_terminal else nullcontext():
        found = difference(*folders, device=device.value, memory_budget=budget)
    if out is not None:
        _write(found, out)
    if form is Format.JSON:
        emit_json(_document(found, folders))
    elif form is not Format.TABLE:
        emit(found.accounts, form)
    else:
        _show(found, folders, count)


def _write(found: Difference, out: Path) -> None:
    from gpumargin.publish import write_table
    from gpumargin.result_columns import described

    money = " or ".join(found.totals["accounting_asset"].unique(maintain_order=True))
    write_table(out / "accounts.parquet", described(found.accounts.to_arrow(), "difference", money))
    for name in ("totals", "crossings"):
        write_table(out / f"{name}.parquet", getattr(found, name).to_arrow())
    say(f"every account that changed: {out / 'accounts.parquet'}")


def _document(found: Difference, folders: tuple[Path, Path]) -> dict[str, Any]:
    tables = {name: getattr(found, name).to_dicts() for name in ("totals", "crossings", "crossed")}
    return {"before": folders[0].name, "after": folders[1].name, "changed": found.accounts.height, **tables}


def _show(found: Difference, folders: tuple[Path, Path], count: int) -> None:
    """Totals, the statuses before and after, and the accounts that crossed a line."""
    every, crossed = int(found.crossings["accounts"].sum()), found.crossed
    assets = found.totals["accounting_asset"].unique(maintain_order=True).to_list()
    alike = ["accounting_asset"] * (len(assets) == 1) + ["pool"] * bool((crossed["pool"] == SHARED_POOL).all())
    say(f"from {_instant(folders[0])}\nto   {_instant(folders[1])}")
    say(
        f"{found.accounts.height:,} of {every:,} accounts changed, {crossed.height:,} crossed a line; "
        f"money in {' and '.join(assets)}"
    )
    emit(_readable(found.totals).drop(alike, strict=False), Format.TABLE)
    emit(_matrix(found.crossings), Format.TABLE)
    if count and crossed.height:
        emit(_without_zeros(crossed.head(count)).drop(alike), Format.TABLE)


def _instant(folder: Path) -> str:
    from gpumargin.runs import as_of_of

    return f"{folder.name}, as of {as_of_of(folder):%Y-%m-%d %H:%M:%S} UTC"


def _readable(totals: pl.DataFrame) -> pl.DataFrame:
    """Equity and requirements as numbers, which a table aligns and rounds."""
    import polars as pl

    return totals.select("accounting_asset", "effect", pl.col(_TOTALS).cast(pl.Float64))


def _matrix(crossings: pl.DataFrame) -> pl.DataFrame:
    """A row for each status before and a column for each status after."""
    from gpumargin.difference.outcome import ABSENT, STATUSES

    wide = crossings.pivot("status", index="status_before", values="accounts").fill_null(0)
    columns = [status for status in (*STATUSES, ABSENT) if status in wide.columns]
    return wide.select("status_before", *columns)


def _without_zeros(crossed: pl.DataFrame) -> pl.DataFrame:
    """Without the effects that nobody shown has."""
    from gpumargin.difference.outcome import EFFECTS

    return crossed.drop(name for name in EFFECTS if (crossed[name] == 0).all())
