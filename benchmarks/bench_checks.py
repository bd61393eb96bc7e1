"""What checking costs: a whole run from Parquet with its checks, hashes and sums, against one without them.

And against one that does not read back what it wrote either, which is the price of durability rather than of checks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]

MODEL = "derive-pm1"
# Stages of the run's own clock that find errors and make no number that gets published.
STAGES = ("check", "hash", "conserve", "self-check")
# The same work by where it is called.
SILENCED = (
    "gpumargin.digests.ColumnDigest.add",
    "gpumargin.publish.files.table_digest",
    "gpumargin.conservation.Conservation.read",
    "gpumargin.conservation.Conservation.used",
    "gpumargin.conservation.Conservation.packed",
    "gpumargin.conservation.Conservation.require_used",
    "gpumargin.conservation.Conservation.require_packed",
    "gpumargin.pipeline.check_part",
)


def main() -> None:
    """Times runs of one book with and without checks in turn, and saves the result if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--books", type=Path, default=Path(tempfile.gettempdir()) / "gpumargin-books")
    parser.add_argument("--save", metavar="NAME", help="writes benchmarks/results/NAME.json")
    given = parser.parse_args()
    case = measured(book_of(given.books, given.accounts), given.repeats)
    print(json.dumps(case, indent=2))
    if given.save:
        from benchmarks.harness import machine, save

        save(given.save, {"machine": machine(), "model": MODEL, **case})


def book_of(folder: Path, accounts: int) -> Path:
    """The generated book, made if it is not there."""
    from gpumargin.synth import generate_book

    path = folder / f"{accounts}"
    if not path.exists():
        generate_book(path, accounts=accounts, positions_per_account=11, underlyings=3, seed=1)
    return path


@contextmanager
def nothing_checked(*, reads_back: bool) -> Iterator[None]:
    """Runs inside look at nothing and hash no values; their numbers are the same."""
    from gpumargin import disk
    from gpumargin.checks import Sifted

    write = disk.write_new
    with ExitStack() as stack:
        for name in SILENCED:
            stack.enter_context(patch(name, lambda *_: ""))
        stack.enter_context(patch("gpumargin.checks.BookChecks.part", lambda _, book: Sifted(book)))
        stack.enter_context(patch("gpumargin.origin.file_digest", lambda _: ""))
        if not reads_back:
            stack.enter_context(patch("gpumargin.disk.write_new", lambda path, content, _=None: write(path, content)))
        yield


def measured(book: Path, repeats: int) -> dict[str, Any]:
    """Seconds of every kind of run, in turn after one that compiles, and of each stage that checks.

    Each turn begins with another kind, for a machine that others use is faster at one time than at another.
    """
    from gpumargin.cli.process import prepare_process

    prepare_process()
    kinds = {
        "with checks": nullcontext,
        "without": lambda: nothing_checked(reads_back=True),
        "without, nothing read back": lambda: nothing_checked(reads_back=False),
    }
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="bench-checks-", dir=book.parent) as scratch:
        out = Path(scratch)
        timed(book, out)
        for turn in range(repeats):
            for kind in [*kinds][turn % len(kinds) :] + [*kinds][: turn % len(kinds)]:
                with kinds[kind]():
                    runs[kind].append(timed(book, out))
    checked = runs["with checks"]
    stages = {name: statistics.median(run["stages"][name] for run in checked) for name in checked[0]["stages"]}
    spent, at_work = sum(stages[name] for name in STAGES), sum(stages.values()) - stages["total"]
    return {
        "accounts": checked[0]["accounts"],
        "seconds of every repeat": {kind: [run["seconds"] for run in own] for kind, own in runs.items()},
        "CPU seconds of every repeat": {kind: [run["cpu"] for run in own] for kind, own in runs.items()},
        "share of the end-to-end time": {kind: share_above(runs, kind, "seconds") for kind in kinds},
        "share of the CPU time": {kind: share_above(runs, kind, "cpu") for kind in kinds},
        "stages at work, s": stages,
        "share of all stages' work": spent / at_work,
    }


def share_above(runs: dict[str, list[dict[str, Any]]], kind: str, name: str) -> float:
    """How much of what a run with checks takes one of this kind does not: median over turns, runs of one together."""
    pairs = zip(runs[kind], runs["with checks"], strict=True)
    return statistics.median(1 - one[name] / checked[name] for one, checked in pairs)


def timed(book: Path, out: Path) -> dict[str, Any]:
    """One run from Parquet to a published folder, which is removed."""
    import shutil

    from gpumargin.catalogue import load_model
    from gpumargin.prepare import Options
    from gpumargin.run import margin_folder
    from gpumargin.runs import run_json

    start, cpu = time.perf_counter(), time.process_time()
    run = margin_folder(book, load_model(MODEL), out, Options())
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    summary = run_json(run, "summary")
    shutil.rmtree(run)
    accounts = sum(model["accounts"] for model in summary["models"].values())
    return {"seconds": seconds, "cpu": used, "stages": summary["seconds"], "accounts": accounts}


if __name__ == "__main__":
    main()
