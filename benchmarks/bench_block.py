"""A whole block of three models against fused numba kernels that do the same, and against the plain leg stage.

Book: `generate` with 1,000,000 accounts and 11 positions each (seed 1, two coins), made once in a temporary folder, or
`--book`. Per model, in one process and in turn, medians of 15 turns: the plain leg stage on the standard workload (33
scenarios), gpumargin's whole block through `ResidentBook.recalculate` with every mark, price and forward moved, its
contract stage alone, the fused kernel, which begins at the priced contract table, and `apply` of 10,000 fills.
Usage: python benchmarks/bench_block.py [--accounts N] [--book DIR] [--models A,B] [--repeats N] [--save NAME]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    f" --xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"
)
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]

from gpumargin.cli.process import keep_memory, keep_objects

# As `gpumargin follow` does: before there are threads; and like it `keep_objects` once all is compiled.
keep_memory(is_resident=True)

import jax
import numpy as np
import polars as pl

import gpumargin as gm
from benchmarks.bench_leg_stage import ours, plain_tally
from benchmarks.block_check import require_equal
from benchmarks.block_deribit import BLOCKS
from benchmarks.harness import REPEATS, alternating, machine, save
from benchmarks.opponents import worst_pnl_numba
from benchmarks.workload import STANDARD, Legs, make_legs
from gpumargin.clock import Clock
from gpumargin.prepare import Options, prepare
from gpumargin.synth import generate_book
from gpumargin.tables import Book

FILLS = 10_000
MOVES = (1.01, 0.99)  # what every mark, price and forward is multiplied by, turn by turn
Frames = dict[str, pl.DataFrame]


def moved(book: Book, factor: float) -> Frames:
    """Marks, prices and forwards of a book, every level multiplied."""
    levels = {"marks": ("mark_price", "mark_iv"), "prices": ("price",), "forwards": ("forward", "forward_fixed")}
    frames = {name: pl.DataFrame(pl.from_arrow(book.tables[name])) for name in levels}
    return {
        name: frame.with_columns(pl.col(*[c for c in levels[name] if c in frame.columns]) * factor)
        for name, frame in frames.items()
    }


def some_fills(book: Book) -> pl.DataFrame:
    """Fills of accounts that hold something, in what they hold, a lot more or less at the mark."""
    rng = np.random.default_rng(1)
    positions = book.tables["positions"]
    rows = positions.take(np.sort(rng.choice(positions.num_rows, min(FILLS, positions.num_rows), replace=False)))
    names = [name for name in ("account_id", "pool", "instrument_id") if name in rows.column_names]
    frame = pl.DataFrame(pl.from_arrow(rows.select([*names, "entry_price"])))
    side = pl.Series("quantity", rng.choice([-0.1, 0.1], frame.height))
    return frame.with_columns(side, pl.col("entry_price").fill_null(1.0).alias("price")).drop("entry_price")


class Blocks(NamedTuple):
    """What is timed of one model."""

    work: dict[str, Callable[[], object]]
    stages: list[dict[str, float]]  # of every recalculation
    accounts: int
    legs: int


def blocks_of(book: Book, name: str, legs: Legs) -> Blocks:
    """Everything ready to run; answers are compared before.

    Raises:
      SystemExit: the fused kernel disagrees.
    """
    (work,) = prepare(book, gm.load_model(name), Options(), Clock())
    fused, results = BLOCKS[name](work, is_whole=False), list(work.engine.run(work.legs))
    before = fused()
    for block in (before, BLOCKS[name](work)()):
        require_equal(work, results, block)
    live = gm.ResidentBook(book, gm.load_model(name))
    frames, stages, turn = [moved(book, factor) for factor in MOVES], [], iter(range(1 << 30))

    def recalculated() -> object:
        change = live.recalculate(**frames[next(turn) % len(frames)])
        stages.append(dict(change.seconds))
        return change

    def priced() -> object:
        with jax.enable_x64(True):
            return jax.block_until_ready(work.engine._price(work.contracts))

    fills = some_fills(book)

    def applied() -> object:
        live.apply(fills=fills)
        return jax.block_until_ready([lane.store.parts.groups for lane in live.lanes])

    return Blocks(
        {
            "plain leg stage": ours(legs, plain_tally(legs)),
            "plain leg stage, numba": lambda: worst_pnl_numba(legs),
            "block": recalculated,
            "contract stage": priced,
            "legs and accounts, numba": lambda: np.flatnonzero(fused().status != before.status),
            "fills": applied,
        },
        stages,
        len(work.legs),
        len(work.legs.contract),
    )


def measure(book: Book, name: str, legs: Legs, repeats: int) -> dict[str, Any]:
    """Figures of one model."""
    with jax.enable_x64(True):
        blocks = blocks_of(book, name, legs)
        seconds = alternating(blocks.work, repeats, ready=keep_objects)
    stages = blocks.stages[-repeats:]
    return {
        "accounts": blocks.accounts,
        "legs": blocks.legs,
        "fills": FILLS,
        "seconds": seconds,
        "stages": {stage: statistics.median(s[stage] for s in stages) for stage in stages[0]},
    }


def show(name: str, found: dict[str, Any]) -> None:
    """Prints one model's figures and ratios."""
    print(f"{name}: {found['accounts']:,} accounts, {found['legs']:,} legs")
    medians = {what: figures["median"] for what, figures in found["seconds"].items()}
    for what, median in medians.items():
        print(f"  {what:28s} median {median:.4f} s  min {found['seconds'][what]['min']:.4f} s")
    for stage, median in found["stages"].items():
        print(f"    of the block: {stage:12s} {median:.4f} s")
    whole = medians["legs and accounts, numba"] + medians["contract stage"]
    print(f"  block / plain leg stage = {medians['block'] / medians['plain leg stage']:.2f}")
    print(f"  block / (numba + our contract stage) = {medians['block'] / whole:.2f}")


def book_at(folder: Path | None, accounts: int) -> Book:
    """The book: from a folder, or generated once and kept in the temporary folder of this machine."""
    if folder is None:
        folder = Path(tempfile.gettempdir()) / f"gpumargin-bench-{accounts}"
        if not (folder / "funds.parquet").exists():
            generate_book(folder, accounts=accounts, positions_per_account=11.0, underlyings=2, seed=1)
    return gm.read_book(folder)


def main() -> None:
    """Measures every model and prints seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=STANDARD["accounts"])
    parser.add_argument("--book", type=Path, help="folder of a generated book; else one is made")
    parser.add_argument("--models", default=",".join(BLOCKS), help="names, with commas between")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--save", help="name under benchmarks/results")
    options = parser.parse_args()
    book = book_at(options.book, options.accounts)
    legs = make_legs(**STANDARD | {"accounts": options.accounts})
    report: dict[str, Any] = {"machine": machine(), "repeats": options.repeats, "dtype": "float64", "models": {}}
    for name in options.models.split(","):
        report["models"][name] = found = measure(book, name, legs, options.repeats)
        show(name, found)
    if options.save:
        print(save(options.save, report))


if __name__ == "__main__":
    main()
