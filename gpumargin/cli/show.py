"""Verbs that read a run: `show` and `top`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpumargin.cli.options import FormatOption, RunArgument, find_run
from gpumargin.cli.render import Format, emit, say
from gpumargin.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

SHARED_POOL = "cross"
_KEYS = ("account_id", "pool")
_SHOWN = ("status", "equity", "maintenance_margin", "maintenance_excess", "health")
_EXPOSURES = ("delta", "gamma", "vega", "theta")
# Columns of which more is worse; of all others but exposures, less is.
_WORSE_HIGH = ("_margin", "_margin_minor", "_loss", "num_positions")


def show(run: RunArgument, *, form: FormatOption = Format.TABLE) -> None:
    """The summary of a run."""
    import polars as pl

    from gpumargin.cli.summary import print_summary
    from gpumargin.runs import run_json

    folder = find_run(run)
    if form is Format.TABLE:
        print_summary(folder)
        return
    document = {"run_id": folder.name, "run": str(folder), **run_json(folder, "summary")}
    frame = pl.DataFrame(list(_flat(document, "")), schema=["name", "value"], orient="row")
    emit(frame, form, document=document)


def _flat(value: Any, path: str) -> list[tuple[str, str]]:
    """Dotted names and values of a document, as text."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _flat(inner, f"{path}.{key}".lstrip("."))]
    if isinstance(value, list):
        return [(path, ", ".join(map(str, value)))]
    return [(path, str(value))]


def top(
    run: RunArgument,
    *,
    by: Annotated[str, typer.Option("--by", metavar="COLUMN", help="Column to rank by.")] = "maintenance_excess",
    count: Annotated[int, typer.Option("-n", metavar="N", min=1, help="Number of accounts.")] = 10,
    form: FormatOption = Format.TABLE,
) -> None:
    """The worst accounts of a run: lowest excess, health or equity, highest margin or loss, largest exposure."""
    worst = worst_accounts(find_run(run), by=by, count=count)
    if form is not Format.TABLE:
        emit(worst, form)
        return
    say(f"{worst.height:,} accounts, {_order(by)} {by.replace('_', ' ')} first")
    keys = _KEYS if (worst["pool"] != SHARED_POOL).any() else _KEYS[:1]
    emit(worst.select(list(dict.fromkeys((*keys, *_SHOWN, by)))), form, keys=len(keys))


def worst_accounts(folder: Path, *, by: str, count: int) -> pl.DataFrame:
    """The first `count` accounts of a run in order of one column, worst first.

    A value that is not a number is an alarm and comes first; one that is missing (health without a requirement) last.

    Raises:
      UsageError: no such column, or not one of numbers; the message lists those there are.
    """
    import polars as pl

    from gpumargin.runs import run_table

    accounts = run_table(folder, "accounts")
    schema = accounts.collect_schema()
    numeric = [name for name, dtype in schema.items() if dtype.is_numeric()]
    if by not in numeric:
        message = f"--by: no column of numbers {by!r} in the accounts table; there are: {', '.join(numeric)}"
        raise UsageError(message)
    order = _order(by)
    value = pl.col(by).abs() if order == "largest" else pl.col(by)
    is_odd = pl.col(by).is_nan() if schema[by].is_float() else pl.lit(value=False)
    ranked = accounts.sort(
        [is_odd.fill_null(value=False), value, *map(pl.col, _KEYS)],
        descending=[True, order != "lowest", False, False],
        nulls_last=True,
    )
    words = [name for name, dtype in schema.items() if isinstance(dtype, (pl.Categorical, pl.Enum))]
    return ranked.head(count).with_columns(pl.col(words).cast(pl.String)).collect()


def _order(column: str) -> str:
    """Which end of a column is the worst: lowest, highest, or largest whatever the sign."""
    if column in _EXPOSURES:
        return "largest"
    return "highest" if column.endswith(_WORSE_HIGH) else "lowest"
