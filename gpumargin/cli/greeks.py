"""The verb `greeks`: what every contract of a market is worth and how it moves."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpumargin.cli.options import AsOfOption, BookArgument, FormatOption
from gpumargin.cli.process import prepare_process
from gpumargin.cli.render import Format, emit, emit_arrow, say

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

_SHOWN = (
    "instrument_id",
    "value",
    "implied_vol",
    "delta",
    "gamma",
    "vega",
    "theta",
    "rho",
    "vanna",
    "volga",
)


class Units(StrEnum):
    """What Greeks are per."""

    RAW = "raw"
    MARKET = "market"


_MEANING = {
    Units.RAW: "per 1.00 of forward, of vol and of rate, and per year",
    Units.MARKET: "per 1.00 of forward, per vol point, per calendar day and per 1 % of rate",
}


def greeks(
    book: BookArgument,
    *,
    units: Annotated[
        Units,
        typer.Option(
            "--units",
            help="raw: per 1.00 and per year. market: vega and vanna per vol point, volga per vol point twice, "
            "theta per calendar day, rho per 1 % of rate. Delta and gamma are per 1.00 of forward in both.",
        ),
    ] = Units.RAW,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME[@DATE]",
            help="State contracts as this model does: its accounting asset, its kinds of contract.",
            show_default="USD, every kind",
        ),
    ] = None,
    as_of: AsOfOption = None,
    underlying: Annotated[
        str | None, typer.Option("--underlying", metavar="X", help="Only contracts on X.", show_default=False)
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Value, vol and Greeks of one long contract of each instrument; needs no positions, balances or model."""
    prepare_process()
    table = _table(book, units, model, as_of, underlying)
    _explain(table, units)
    if form is Format.ARROW:
        emit_arrow(table)
    else:
        _print(table, form)


def _table(book: Path, units: Units, model: str | None, as_of: datetime | None, underlying: str | None) -> pa.Table:
    from gpumargin.catalogue import load_model
    from gpumargin.greeks import Statement, market_greeks
    from gpumargin.tables import read_market

    statement = None if model is None else Statement.of(load_model(model))
    read = read_market(book)
    return market_greeks(read, statement=statement, as_of=as_of, units=units.value, underlying=underlying)


def _explain(table: pa.Table, units: Units) -> None:
    money = table.schema.metadata[b"accounting_asset"].decode()
    say(f"{table.num_rows:,} contracts, one long of each, in {money}; Greeks {_MEANING[units]}")
    unpriced = table["vega"].null_count
    if unpriced:
        say(f"note: {unpriced:,} have no Greeks: the market lacks their forward, vol or price", style="yellow")


def _print(table: pa.Table, form: Format) -> None:
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(table)).with_columns(pl.col(pl.Categorical).cast(pl.String))
    emit(frame.select(_SHOWN) if form is Format.TABLE else frame, form)
