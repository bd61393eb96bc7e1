"""The verb `verify`: a published run held against itself and its book, without JAX or the engine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpumargin.cli.options import FormatOption, RunArgument, existing_run
from gpumargin.cli.render import Format, console, emit, emit_json, say

if TYPE_CHECKING:
    from gpumargin.verification import Verification

_MOST_SHOWN = 40


class Which(StrEnum):
    """The tables of a verification."""

    CHECKS = "checks"
    FINDINGS = "findings"


def verify(
    run: RunArgument,
    *,
    full: Annotated[bool, typer.Option("--full", help="Recompute every account, not a sample.")] = False,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", help="Accounts to recompute, drawn at random.", min=1)
    ] = 1_000,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="S", help="Seed of the draw.", min=0, show_default="a new one, printed"),
    ] = None,
    book: Annotated[
        Path | None,
        typer.Option(
            "--book",
            metavar="DIR",
            help="Where the book is now.",
            exists=True,
            file_okay=False,
            show_default="where the run names it",
        ),
    ] = None,
    salt_file: Annotated[
        Path | None,
        typer.Option(
            "--salt-file",
            metavar="FILE",
            help="Secret of the run's snapshot, to make its commitment again.",
            dir_okay=False,
            show_default="OUT/<run id>.salt if it is there",
        ),
    ] = None,
    table: Annotated[
        Which, typer.Option("--table", help="The table that csv and arrow hold.", case_sensitive=False)
    ] = Which.CHECKS,
    form: FormatOption = Format.TABLE,
) -> None:
    """Check a run: hashes, identities, exact totals, accounts recomputed from its book; ends with 4 if one fails."""
    from gpumargin.verification import verify_run

    found = verify_run(existing_run(run), full=full, sample=sample, seed=seed, book=book, salt_file=salt_file)
    if form is Format.JSON:
        frames = {"checks": found.checks.to_dicts(), "findings": found.findings.to_dicts()}
        emit_json({"ok": found.ok, "complete": found.is_complete, "seed": found.seed, **frames})
    elif form is Format.TABLE:
        _print(found)
    else:
        emit(found.findings if table is Which.FINDINGS else found.checks, form)
    _say(found)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _print(found: Verification) -> None:
    from gpumargin.cli.tables import print_table

    print_table(found.checks)
    if found.findings.height:
        print_table(found.findings.head(_MOST_SHOWN), title="what does not hold")
        if found.findings.height > _MOST_SHOWN:
            console().print(f"{found.findings.height - _MOST_SHOWN:,} more: --format csv --table findings")


def _say(found: Verification) -> None:
    results = found.checks["result"].to_list()
    failed, undone = results.count("failed"), results.count("not done")
    if failed:
        say(f"failed: {failed} of {len(results)} checks do not hold", style="bold red")
    if undone:
        say(f"not done: {undone} of {len(results)} checks could not be made; the table says why", style="yellow")
    if not failed and not undone:
        say(f"ok: {len(results)} checks hold", style="green")
    if found.seed is not None:
        say(f"the sample was drawn with --seed {found.seed}")
