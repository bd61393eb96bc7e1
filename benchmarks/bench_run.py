"""A whole run, Parquet in and run folder out, against the time polars needs to read the same and write the same."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]

MODEL = "derive-pm1"
INPUTS = ("positions", "balances", "accounts")
RESULTS = ("accounts", "units")
GIB = 1 << 30


def main() -> None:
    """Times one book in one order with one memory budget, and adds the case to a file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--shuffle", action="store_true", help="rows of accounts in random order")
    parser.add_argument("--budget", type=float, default=4.0, help="GiB")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--books", type=Path, default=Path(tempfile.gettempdir()) / "gpumargin-books")
    parser.add_argument("--save", metavar="NAME", help="adds the case to benchmarks/results/NAME.json")
    parser.add_argument(
        "--alone",
        action="store_true",
        help="one run of ours, loading of programs included: of a book polars cannot hold",
    )
    parser.add_argument("--child", nargs=3, metavar=("WHAT", "BOOK", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        what, book, out = given.child
        work = {"gpumargin": partial(_margined, runs=1 if given.alone else 2), "polars": _copied}[what]
        print(json.dumps(work(Path(book), Path(out), int(given.budget * GIB))))
        return
    book = _book(given.books, given.accounts, shuffle=given.shuffle)
    case = alone(book, given.budget) if given.alone else measured(book, given.budget, given.repeats)
    order = "shuffled" if given.shuffle else "sorted"
    name = f"{given.accounts} accounts, {order}, {given.budget:g} GiB{', alone' * given.alone}"
    print(json.dumps({name: case}, indent=2))
    if given.save:
        _add(given.save, name, case)


def _book(folder: Path, accounts: int, *, shuffle: bool) -> Path:
    """The generated book, made if it is not there."""
    from gpumargin.synth import generate_book

    path = folder / f"{accounts}{'-shuffled' * shuffle}"
    if not path.exists():
        generate_book(path, accounts=accounts, positions_per_account=11, underlyings=3, seed=1, shuffle=shuffle)
    return path


def measured(book: Path, budget: float, repeats: int) -> dict[str, Any]:
    """Both opponents in turn, each in a process of its own, after a run that fills the compile cache."""
    with tempfile.TemporaryDirectory(prefix="bench-run-", dir=book.parent) as scratch:
        out = Path(scratch)
        _child("gpumargin", book, out, budget)
        turns = [(_child("gpumargin", book, out, budget), _child("polars", book, out, budget)) for _ in range(repeats)]
    ours, theirs = zip(*turns, strict=True)
    copying = statistics.median(run["read"] + run["write"] for run in theirs)
    case = _case(ours, budget)
    return case | {
        "polars reads and writes, s": copying,
        "polars, s of every repeat": [{"read": run["read"], "write": run["write"]} for run in theirs],
        "gpumargin / polars": case["gpumargin, s"] / copying,
    }


def alone(book: Path, budget: float) -> dict[str, Any]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-run-", dir=book.parent) as scratch:
        return _case([_child("gpumargin", book, Path(scratch), budget, "--alone")], budget)


def _case(ours: Sequence[dict[str, Any]], budget: float) -> dict[str, Any]:
    seconds = statistics.median(run["seconds"] for run in ours)
    return {
        "gpumargin, s": seconds,
        "gpumargin, s of every repeat": [run["seconds"] for run in ours],
        "gpumargin, s more in a process that traces and loads compiled programs": [
            run["first"] for run in ours if "first" in run
        ],
        "stages at work, s": ours[-1]["stages"],
        "us per account": 1e6 * seconds / ours[-1]["accounts"],
        "peak above idle, GiB": max(run["peak"] for run in ours) / GIB,
        "peak above idle / budget": max(run["peak"] for run in ours) / GIB / budget,
        "parts": ours[-1]["parts"],
        "accounts": ours[-1]["accounts"],
        "results": ours[-1]["results"],
    }


def _child(what: str, book: Path, out: Path, budget: float, *more: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--budget", str(budget), *more, "--child", what, str(book), str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _margined(book: Path, out: Path, budget: int, runs: int) -> dict[str, Any]:
    """Runs in one process: the first traces its programs and loads what was compiled, the last is what counts."""
    from gpumargin.cli.process import prepare_process

    prepare_process()
    import jax

    from gpumargin.catalogue import load_model
    from gpumargin.engine import Settings
    from gpumargin.prepare import Options
    from gpumargin.run import margin_folder
    from gpumargin.runs import run_json

    jax.devices()
    idle = _peak()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        run = margin_folder(book, load_model(MODEL), out, Options(settings=Settings(memory_budget=budget)))
        seconds.append(time.perf_counter() - start)
    summary = run_json(run, "summary")
    return {
        "seconds": seconds[-1],
        **({"first": seconds[0] - seconds[-1]} if runs > 1 else {}),
        "stages": summary["seconds"],
        "peak": _peak() - idle,
        "accounts": sum(model["accounts"] for model in summary["models"].values()),
        "parts": len(list((run / "accounts").iterdir())),
        "results": run_json(run, "manifest")["results"],
    }


def _copied(book: Path, out: Path, _: int) -> dict[str, float]:
    """Polars reads the tables of accounts and writes the results of the newest run, which lie ready in memory."""
    import polars as pl

    from gpumargin.runs import open_run, run_table

    run = open_run(out)
    results = {name: run_table(run, name).collect() for name in (*RESULTS, "owners")}
    start = time.perf_counter()
    read = [pl.read_parquet(_files(book, name)) for name in INPUTS]
    middle = time.perf_counter()
    del read
    with tempfile.TemporaryDirectory(dir=out) as folder:
        begin = time.perf_counter()
        for name, table in results.items():
            table.write_parquet(Path(folder) / f"{name}.parquet")
        end = time.perf_counter()
    return {"read": middle - start, "write": end - begin}


def _files(book: Path, table: str) -> list[Path]:
    folder = book / table
    return sorted(folder.iterdir()) if folder.is_dir() else [book / f"{table}.parquet"]


def _peak() -> int:
    """Most memory that this program has held, bytes; `ru_maxrss` begins with what its parent held at the fork."""
    status = Path("/proc/self/status").read_text("ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def _add(name: str, case: str, content: dict[str, Any]) -> None:
    from benchmarks.harness import machine, save

    path = Path(__file__).parent / "results" / f"{name}.json"
    cases = json.loads(path.read_text("utf-8"))["cases"] if path.exists() else {}
    save(name, {"machine": machine(), "model": MODEL, "cases": cases | {case: content}})


if __name__ == "__main__":
    main()
