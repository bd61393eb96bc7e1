"""The verb `bench`: where the time of a run goes, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpumargin.cli.options import Device, DType
from gpumargin.cli.process import prepare_process
from gpumargin.cli.render import Format, emit, emit_json, say

if TYPE_CHECKING:
    from gpumargin.bench.job import Case


def bench(
    *,
    accounts: Annotated[int, typer.Option("--accounts", metavar="N", min=2, help="Accounts of the book.")] = 100_000,
    positions: Annotated[
        float, typer.Option("--positions-per-account", metavar="X", help="Mean number of positions.")
    ] = 11.0,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME[@DATE]", help="A built-in model, or a path to a .toml file.")
    ] = "derive-pm1",
    device: Annotated[Device, typer.Option("--device", help="auto takes every GPU, else the CPU.")] = Device.AUTO,
    dtype: Annotated[DType, typer.Option("--dtype", help="Precision.")] = DType.FLOAT64,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="The same seed gives the same book.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Turns of every stage.")] = 15,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the JSON here.", show_default="stdout")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="A.json B.json", help="Measure nothing: B's times over A's.", exists=True),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Of --compare.")] = Format.TABLE,
) -> None:
    """Time every stage of a run on a generated book, beside what the machine can do at most; JSON out."""
    if compare is not None:
        _compare(*compare, form)
        return
    prepare_process(device, is_cached=False)  # compiling is one of the things measured
    from gpumargin.bench.job import Case, measure

    case = Case(accounts, positions, 2, seed, model, device.value, dtype.value, repeats)
    found = measure(case)
    _show(case, found)
    if out is None:
        emit_json(found)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        say(f"written: {out}")


def _show(case: Case, found: dict[str, Any]) -> None:
    """Figures for people, on stderr."""
    shape, limits = found["shape"], found["limits"]
    where = f"{', '.join(found['machine']['devices'])}; load {found['machine']['load']}"
    sizes = ", ".join(f"{shape[name]:,} {name.replace('_', ' ')}" for name in ("margin_accounts", "legs", "contracts"))
    say(f"{found['case']['model']}, {case.dtype}: {sizes}; {where}")
    copy, add = limits["copy_bytes_per_s"] / 1e9, limits["multiply_add_operations_per_s"] / 1e9
    say(f"copy {copy:.1f} GB/s, multiply-adds {add:.1f} G operations/s, both measured")
    say(f"{'stage':18} {'median, s':>10} {'min, s':>10} {'GB':>8} {'G ops':>8} {'of the limit':>13}")
    for name, figures in found["stages"].items():
        line = f"{name:18} {figures['median']:10.4f} {figures['min']:10.4f}"
        if "bytes" in figures:
            line += (
                f" {figures['bytes'] / 1e9:8.3f} {figures['operations'] / 1e9:8.3f} {figures['share_of_limit']:13.1%}"
            )
        say(line)
    for name, seconds in found["compile"].items():
        say(f"compile {name:18} {seconds:10.4f}")
    say(f"digest {found['digest']}")


def _compare(first: Path, second: Path, form: Format) -> None:
    import polars as pl

    from gpumargin.bench.report import compared, read_measurement

    found = compared(read_measurement(first), read_measurement(second))
    emit(pl.DataFrame(found["stages"]), form, document=found)
    say(f"digests: {'equal' if found['digests_equal'] else 'different'}")
    if found["differences"]:
        say(f"not the same: {', '.join(found['differences'])}", style="yellow")
