"""The verb that turns a run into a page: `report`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from gpumargin.cli.options import RunArgument, find_run
from gpumargin.cli.render import say
from gpumargin.errors import InternalError, ResourceError


def report(
    run: RunArgument,
    *,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Where to write the page.", show_default="OUT/<run id>.html"),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", metavar="DIR", help="Write every figure as SVG and PNG, with its data.", show_default=False
        ),
    ] = None,
) -> None:
    """One HTML page of a run, with figures and without scripts; prints its path."""
    folder = find_run(run)
    try:
        from gpumargin.report.page import make_report
    except ModuleNotFoundError as error:
        message = f"a report needs {error.name}, which is not installed: pip install 'gpumargin[report]'"
        raise ResourceError(message) from None
    made = make_report(folder)
    page = html or folder.with_name(f"{folder.name}.html")
    made.write(page, figures)
    typer.echo(str(page))
    if figures is not None:
        say(f"{len(made.drawings)} figures in {shlex.quote(str(figures))}")
    wrong = [check.statement for check in made.checks if not check.holds]
    if wrong:
        message = f"GM202: this does not hold of {str(folder)!r}: {'; '.join(wrong)}; the page says so"
        raise InternalError(message)
