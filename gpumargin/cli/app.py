"""The verbs and the entry point."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from gpumargin import __version__
from gpumargin.cli import (
    bench,
    check,
    compare,
    diff,
    doctor,
    explain,
    follow,
    generate,
    greeks,
    models,
    report,
    run,
    show,
    snapshot,
    verify,
)
from gpumargin.cli.outcome import set_debug, verb

_EXIT_CODES = (
    "Exit codes: 0 fine, 1 alarm asked for, 2 usage, 3 input rejected, 4 internal check, 5 resources, "
    "130 interrupted, 143 terminated."
)
app = typer.Typer(
    name="gpumargin",
    help="Margin a whole derivatives exchange: Greeks, collateral, margin and health for every account.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
importers = typer.Typer(help="Turn a venue's own files into a book.", no_args_is_help=True)


def _show_version(is_wanted: bool) -> None:  # noqa: FBT001  a callback of typer gets its value by position
    if is_wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _globals(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an unexpected error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    set_debug(is_on=debug)


app.command("demo")(verb(run.demo))
app.command("generate")(verb(generate.generate))
app.add_typer(importers, name="import")
importers.command("deribit-chain")(verb(generate.deribit_chain))
app.command("check")(verb(check.check))
app.command("greeks")(verb(greeks.greeks))
app.command("run")(verb(run.run))
app.command("follow")(verb(follow.follow))
app.command("show")(verb(show.show))
app.command("top")(verb(show.top))
app.command("explain")(verb(explain.explain))
app.command("models")(verb(models.models))
app.command("compare")(verb(compare.compare))
app.command("diff")(verb(diff.diff))
app.command("snapshot")(verb(snapshot.snapshot))
app.command("prove")(verb(snapshot.prove))
app.command("verify-proof")(verb(snapshot.verify_proof))
app.command("verify")(verb(verify.verify))
app.command("report")(verb(report.report))
app.command("bench")(verb(bench.bench))
app.command("doctor")(verb(doctor.doctor))


@importers.callback()
def _importers() -> None:
    """Keeps the importer's name a word of the command while there is only one."""


def main() -> None:
    """Runs the command line of this process and ends it with the contract's exit code.

    What it writes is for its user alone, as the accounts of customers should be, until that user says otherwise.
    """
    os.umask(0o077)
    app()
