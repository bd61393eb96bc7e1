"""`follow`: end of block, block after block."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpumargin.cli.options import AsOfOption, BookArgument, Device, DType, parse_overrides
from gpumargin.cli.process import keep_objects, prepare_process
from gpumargin.cli.render import say

if TYPE_CHECKING:
    from gpumargin.resident.follow import Finished

DEFAULT_OUT = Path("blocks-out")


class Lines(StrEnum):
    """What a finished block says on stdout."""

    TABLE = "table"
    JSON = "json"


def follow(
    book: BookArgument,
    blocks: Annotated[
        Path,
        typer.Argument(
            metavar="BLOCKS",
            help="Folder of blocks, BLOCKS/<number>/ each, with any of fills, transfers, settlements, orders, "
            "accounts, instruments, marks, prices, forwards.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ],
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="NAME[@DATE]", help="A built-in model, or a path to a .toml file.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of results; made if missing.", file_okay=False)
    ] = DEFAULT_OUT,
    as_of: AsOfOption = None,
    device: Annotated[Device, typer.Option("--device", help="auto takes every GPU, else the CPU.")] = Device.AUTO,
    dtype: Annotated[DType, typer.Option("--dtype", help="Precision.")] = DType.FLOAT64,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Change a number of the model; repeatable.", show_default=False
        ),
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option("--checkpoint-every", metavar="N", help="Write the book down after so many blocks.", min=1)
    ] = 100,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for further blocks; end with Ctrl-C.")] = False,
    form: Annotated[
        Lines, typer.Option("--format", help="table: the folder of each block; json: its totals, one line each.")
    ] = Lines.TABLE,
) -> None:
    """Margin a book again after every block of fills, transfers and prices; goes on where it was ended."""
    overrides = parse_overrides(settings or [])
    prepare_process(device, is_resident=True)
    from gpumargin.catalogue import load_model
    from gpumargin.engine import Settings
    from gpumargin.resident.follow import Following
    from gpumargin.resident.follow import follow as blocks_of

    computing = Settings(device.value, dtype.value)
    chosen = load_model(model).replace(overrides)
    work = Following(book, blocks, out, chosen, as_of, computing, checkpoint_every)
    count = 0
    for finished in blocks_of(work, watch=watch):
        _report(finished, form)
        count += 1
        if count == 1:
            keep_objects()
    say(f"{count:,} blocks done; results in {out}" if count else f"no block to do; results in {out}")


def _report(finished: Finished, form: Lines) -> None:
    """A line for people on stderr, one for programs on stdout."""
    counts = [group["status"] for group in finished.totals["by_accounting_asset"].values()]
    words = {word: sum(count.get(word, 0) for count in counts) for word in ("liquidatable", "bankrupt", "unknown")}
    said = ", ".join(f"{word} {n:,}" for word, n in words.items())
    say(f"block {finished.name}: {finished.totals['status_changes']:,} accounts changed status; {said}")
    line = str(finished.folder) if form is Lines.TABLE else json.dumps(dict(finished.totals))
    typer.echo(line)
