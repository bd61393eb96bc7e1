"""Verbs that margin a book: `run` and `demo`."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpumargin.cli.options import (
    DEFAULT_RUNS,
    AsOfOption,
    BadRowsOption,
    BookArgument,
    Device,
    DType,
    MaxAgeOption,
    OnBadRows,
    OutOption,
    parse_overrides,
    parse_size,
)
from gpumargin.cli.process import prepare_process
from gpumargin.cli.render import Format, clean, console, emit, say

if TYPE_CHECKING:
    from gpumargin.catalogue import MarginModel
    from gpumargin.prepare import Options

DEMO_MODEL = "derive-pm1"
_ALARMS = ("liquidatable", "bankrupt", "unknown")


def run(
    book: BookArgument,
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="NAME[@DATE]", help="A built-in model, or a path to a .toml file.", show_default=False
        ),
    ],
    as_of: AsOfOption = None,
    out: OutOption = DEFAULT_RUNS,
    device: Annotated[Device, typer.Option("--device", help="auto takes every GPU, else the CPU.")] = Device.AUTO,
    dtype: Annotated[DType, typer.Option("--dtype", help="Precision.")] = DType.FLOAT64,
    on_bad_rows: BadRowsOption = OnBadRows.FAIL,
    max_age: MaxAgeOption = None,
    memory_budget: Annotated[
        str, typer.Option("--memory-budget", metavar="SIZE", help="Memory that parts in flight may take.")
    ] = "4GiB",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Change a number of the model; repeatable.", show_default=False
        ),
    ] = None,
    units: Annotated[bool, typer.Option("--units/--no-units", help="Write the table of risk units.")] = True,
    positions: Annotated[bool, typer.Option("--positions", help="Write the table of positions too.")] = False,
    closed_book: Annotated[
        bool, typer.Option("--closed-book", help="A contract whose longs and shorts differ ends the run.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an unfinished run of the same book and parameters, if there is one."),
    ] = False,
    fail_on_insolvent: Annotated[
        bool,
        typer.Option("--fail-on-insolvent", help="End with 1 if an account is liquidatable, bankrupt or unknown."),
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="table: the path of the run alone.")] = Format.TABLE,
) -> None:
    """Margin a whole book; prints the folder of the run, and its summary to stderr."""
    overrides, budget = parse_overrides(settings or []), parse_size(memory_budget)
    prepare_process(device)
    from gpumargin.catalogue import load_model
    from gpumargin.engine import Settings
    from gpumargin.prepare import Options

    tables = ("accounts", *["units"] * units, *["positions"] * positions)
    options = Options(
        as_of,
        Settings(device.value, dtype.value, budget),
        tables,
        str(book.resolve()),
        on_bad_rows.value,
        max_age,
        closed_book=closed_book,
    )
    folder = _margin(book, load_model(model).replace(overrides), out, options, resumes=resume)
    report_run(folder, form)
    if fail_on_insolvent and _alarms(folder):
        raise typer.Exit(1)


def demo(*, out: OutOption = DEFAULT_RUNS) -> None:
    """Margin the sample book that ships with the package; prints the folder of the run."""
    prepare_process()
    from gpumargin.catalogue import load_model
    from gpumargin.prepare import Options
    from gpumargin.sample import sample_path

    book = sample_path()
    folder = _margin(book, load_model(DEMO_MODEL), out, Options(book_path=str(book)))
    report_run(folder, Format.TABLE)
    _suggest(folder)


def _margin(book: Path, model: MarginModel, out: Path, options: Options, *, resumes: bool = False) -> Path:
    """Reads a book and publishes its run; a spinner says so where somebody watches."""
    from gpumargin.run import margin_folder

    screen = console(is_error=True)
    doing = f"{model.label}: margin of {book.name}"
    with screen.status(clean(doing)) if screen.is_terminal else nullcontext():
        return margin_folder(book, model, out, options, resumes=resumes, note=_note)


def _note(text: str) -> None:
    say(f"note: {text}", style="yellow")


def report_run(folder: Path, form: Format) -> None:
    """The summary to stderr, the run's place to stdout."""
    import polars as pl

    from gpumargin.cli.summary import print_summary

    print_summary(folder, is_error=True)
    if form is Format.TABLE:
        typer.echo(str(folder))
        return
    answer = {"run_id": folder.name, "run": str(folder)}
    emit(pl.DataFrame([answer]), form, document=answer)


def _alarms(folder: Path) -> int:
    """Accounts that are under water or whose state is not known."""
    from gpumargin.runs import run_json

    groups = run_json(folder, "summary")["by_accounting_asset"].values()
    return sum(group["status"].get(status, 0) for group in groups for status in _ALARMS)


def _suggest(folder: Path) -> None:
    """Three commands to go on with, on the worst account of the run."""
    from gpumargin.cli.show import SHARED_POOL, worst_accounts

    worst = worst_accounts(folder, by="maintenance_excess", count=1).row(0, named=True)
    run_path = shlex.quote(str(folder))
    pool = "" if worst["pool"] == SHARED_POOL else f" --pool {shlex.quote(worst['pool'])}"
    say("\nnext:")
    say(f"  gpumargin show {run_path}")
    say(f"  gpumargin top {run_path} --by maintenance_excess -n 10")
    say(f"  gpumargin explain {run_path} --account {shlex.quote(worst['account_id'])}{pool}")
