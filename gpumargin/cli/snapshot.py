"""Verbs of the solvency snapshot: `snapshot`, `prove`, `verify-proof`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpumargin.cli.options import (
    DEFAULT_RUNS,
    AsOfOption,
    BadRowsOption,
    BookArgument,
    Device,
    OnBadRows,
    OutOption,
    RunArgument,
    find_run,
    parse_overrides,
)
from gpumargin.cli.process import prepare_process
from gpumargin.cli.render import Format, emit_json, say
from gpumargin.errors import InternalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

SaltOption = Annotated[
    Path | None,
    typer.Option(
        "--salt-file",
        metavar="FILE",
        help="Secret behind the salts; made if missing. Keep it, and keep it to yourself.",
        dir_okay=False,
        show_default="OUT/<run id>.salt",
    ),
]


def snapshot(
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
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Change a number of the model; repeatable.", show_default=False
        ),
    ] = None,
    on_bad_rows: BadRowsOption = OnBadRows.FAIL,
    salt_file: SaltOption = None,
    form: Annotated[Format, typer.Option("--format", help="table: the path of the run alone.")] = Format.TABLE,
) -> None:
    """Margin a whole book and publish its solvency: totals, stress, concentration, a commitment to the accounts."""
    overrides = parse_overrides(settings or [])
    prepare_process(device)
    from gpumargin.catalogue import load_model
    from gpumargin.cli.run import report_run
    from gpumargin.clock import Clock
    from gpumargin.engine import Settings
    from gpumargin.prepare import Options, usable_book
    from gpumargin.run import margin_to_folder
    from gpumargin.solvency.salts import make_salt_file, read_salt_file
    from gpumargin.solvency.snapshot import write_snapshot
    from gpumargin.tables import read_book

    secret = read_salt_file(salt_file) if salt_file is not None and salt_file.exists() else None
    options = Options(as_of, Settings(device.value), book_path=str(book.resolve()), on_bad_rows=on_bad_rows.value)
    chosen, clock = load_model(model).replace(overrides), Clock()
    with clock.stage("read"):
        tables = read_book(book)
    folder = margin_to_folder(tables, chosen, out, options, clock=clock)
    place = salt_file or default_salt_file(folder)
    write_snapshot(folder, usable_book(tables, chosen, options), secret or make_salt_file(place))
    report_run(folder, form)
    _say_root(folder, place)


def default_salt_file(folder: Path) -> Path:
    """Where the secret of a run's snapshot is unless somebody chose: beside the run's folder, not in it."""
    return folder.with_name(f"{folder.name}.salt")


def _say_root(folder: Path, place: Path) -> None:
    commitment = _json_of(folder / "solvency" / "manifest.json")["commitment"]
    say(f"solvency   {folder / 'solvency'}")
    say(f"root       {commitment['root']} over {commitment['leaves']:,} accounts")
    say(f"salts      {place}: whoever has it can tell whose leaf is whose; without it no proof can be made")


def prove(
    run: RunArgument,
    *,
    account: Annotated[str, typer.Option("--account", metavar="ID", help="Account id.", show_default=False)],
    pool: Annotated[str, typer.Option("--pool", metavar="P", help="Collateral pool of the account.")] = "cross",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write the proof.", dir_okay=False, show_default="stdout"),
    ] = None,
    salt_file: SaltOption = None,
) -> None:
    """The proof that an account is in the commitment of a snapshot, as JSON for its holder."""
    from gpumargin.publish import write_file
    from gpumargin.solvency.commitment import inclusion_proof
    from gpumargin.solvency.salts import read_salt_file

    folder = find_run(run)
    proof = inclusion_proof(folder, account, pool, read_salt_file(salt_file or default_salt_file(folder)))
    if out is None:
        emit_json(proof)
        return
    write_file(out, f"{json.dumps(proof, indent=2)}\n".encode())
    say(f"{out}: proof of {len(proof['path'])} steps; check it with: gpumargin verify-proof {out}")


def verify_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A proof file.", exists=True, dir_okay=False)],
    *,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="MANIFEST",
            help="The published solvency/manifest.json, whose commitment must be that of the proof.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check an inclusion proof alone; ends with 4 where it does not hold."""
    from gpumargin.solvency.proof import failure

    proof = _json_of(file)
    found = failure(proof)
    if not found and against is not None and _json_of(against).get("commitment") != proof["commitment"]:
        found = f"its commitment is not the one published in {str(against)!r}"
    if found:
        message = f"{str(file)!r} does not hold: {found}"
        raise InternalError(message)
    _print_proof(proof)
    if against is None:
        say("holds; compare the root with the published one, or give --against MANIFEST")
    else:
        say("holds, and its commitment is the published one")


def _json_of(path: Path) -> Mapping[str, Any]:
    """A JSON object of a file.

    Raises:
      UsageError: it is none.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        message = f"{str(path)!r} is not a JSON document of this kind"
        raise UsageError(message)
    return found


def _print_proof(proof: Mapping[str, Any]) -> None:
    """The account's amounts beside the sums they are in."""
    from gpumargin.cli.render import clean

    said, own = proof["commitment"], proof["account"]
    typer.echo(f"account  {clean(own['account_id'])}  pool {clean(own['pool'])}")
    typer.echo(f"root     {clean(said['root'])} over {int(said['leaves']):,} accounts")
    for column, amount, total in zip(said["columns"], own["amounts"], said["sums"], strict=True):
        typer.echo(f"{clean(column):32} {int(amount):>24,} of {int(total):,} minor units")
