"""The verb `explain`: where the number of one account comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpumargin.cli.options import FormatOption, RunArgument, find_run
from gpumargin.cli.process import prepare_process
from gpumargin.cli.render import Format, clean, console, emit, emit_json, say
from gpumargin.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpumargin.explain import Explanation


def explain(
    run: RunArgument,
    *,
    account: Annotated[str, typer.Option("--account", metavar="ID", help="Account id.", show_default=False)],
    pool: Annotated[str, typer.Option("--pool", metavar="P", help="Collateral pool of the account.")] = "cross",
    table: Annotated[
        str | None,
        typer.Option("--table", metavar="TITLE", help="Only this table; csv and arrow hold one, the first by default."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Every leg, scenario and haircut of one account, adding up to its margin."""
    prepare_process()
    from gpumargin.explain import explain_account

    explanation = explain_account(find_run(run), account, pool)
    chosen = [_known(explanation, table)] if table else list(explanation.tables)
    if form is Format.JSON:
        tables = {title: explanation.tables[title].to_dicts() for title in chosen}
        emit_json({"headline": dict(explanation.headline), "tables": tables})
    elif form is Format.TABLE:
        _print_headline(explanation.headline)
        _print_tables(explanation, chosen)
    else:
        _emit_one(explanation, chosen, form)


def _known(explanation: Explanation, title: str) -> str:
    if title not in explanation.tables:
        message = f"--table: no table {title!r}; there are: {', '.join(explanation.tables)}"
        raise UsageError(message)
    return title


def _print_headline(headline: Mapping[str, object]) -> None:
    from rich.table import Table

    from gpumargin.cli.tables import shown

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in headline.items():
        grid.add_row(clean(name).replace("_", " "), shown(value))
    console().print(grid)
    console().print()


def _print_tables(explanation: Explanation, titles: list[str]) -> None:
    from gpumargin.cli.tables import print_table

    for title in titles:
        print_table(explanation.tables[title], title=title)


def _emit_one(explanation: Explanation, titles: list[str], form: Format) -> None:
    """CSV and Arrow hold a single table."""
    emit(explanation.tables[titles[0]], form)
    if len(titles) > 1:
        say(f"note: {form.value} holds one table, here {titles[0]!r}; choose with --table: {', '.join(titles)}")
