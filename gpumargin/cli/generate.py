"""Verbs that make books: `generate` and `import`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpumargin.cli.options import Settle
from gpumargin.cli.render import say

if TYPE_CHECKING:
    from gpumargin.importers.deribit import ImportSummary


def generate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.", show_default=False)],
    *,
    accounts: Annotated[int, typer.Option("--accounts", metavar="N", help="Number of accounts, at least 2.")] = 1000,
    positions_per_account: Annotated[
        float, typer.Option("--positions-per-account", metavar="X", help="Mean number of positions, at most 100.")
    ] = 6.0,
    underlyings: Annotated[int, typer.Option("--underlyings", metavar="U", help="Number of coins, 1 to 16.")] = 2,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="The same seed gives the same files.")] = 7,
    market: Annotated[
        Path | None,
        typer.Option(
            "--market",
            metavar="BOOK",
            help="Take instruments, prices and open interest from this book instead of making them up.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Permute the rows of positions and balances.")] = False,
) -> None:
    """Make a synthetic book of any size; prints its folder."""
    from gpumargin.synth import generate_book

    made = generate_book(
        folder,
        accounts=accounts,
        positions_per_account=positions_per_account,
        underlyings=underlyings,
        seed=seed,
        market=market,
        shuffle=shuffle,
    )
    say(
        f"{made.margin_accounts:,} margin accounts of {made.accounts:,} accounts, {made.positions:,} positions in "
        f"{made.traded:,} of {made.instruments:,} instruments"
    )
    say(f"kinds of trader: {_counts(made.archetypes)}")
    typer.echo(str(made.folder))


def deribit_chain(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Parquet file of chain snapshots.", exists=True, show_default=False)
    ],
    *,
    snapshot: Annotated[
        str, typer.Option("--snapshot", metavar="NAME", help="Name of the snapshot, or its time.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="BOOK", help="New or empty folder.", file_okay=False, show_default=False)
    ],
    settle: Annotated[
        Settle,
        typer.Option("--as", help="inverse: as listed, paid in coin; linear-usdc: the same contracts paid in USDC."),
    ] = Settle.INVERSE,
) -> None:
    """Turn one snapshot of a Deribit option chain into a book without accounts; prints its folder."""
    from gpumargin.importers.deribit import import_deribit_chain

    found = import_deribit_chain(file, snapshot=snapshot, out=out, settle=settle.value)
    _tell_import(found)
    typer.echo(str(found.out))


def _tell_import(found: ImportSummary) -> None:
    say(f"snapshot {found.snapshot} of {found.timestamp:%Y-%m-%d %H:%M} UTC, {found.settle}")
    say(f"contracts: {_counts(found.contracts)}, in {found.expiries.height} expiries")
    by_spread = found.expiries.sort("spread", descending=True)
    widest, middle = by_spread.row(0, named=True), by_spread.row(by_spread.height // 2, named=True)
    say(
        f"forwards: the median of each expiry's underlyings; these spread by {middle['spread']:.3%} "
        f"of it in the middle, by {widest['spread']:.3%} at most ({widest['currency']} {widest['expiry']:%Y-%m-%d})"
    )
    for row in found.left_out.iter_rows(named=True):
        say(f"left out: {row['rows']:,} {row['currency']} rows: {row['reason']}", style="yellow")
    for assumption in found.assumptions:
        say(f"assumed: {assumption}", style="yellow")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())
