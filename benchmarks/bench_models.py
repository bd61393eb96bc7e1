"""Margin stage (leg stage and account stage) of every shipped model over one generated book.

Every model gets the part of the book that it margins. Answers are found finite before anything is timed.
Usage: python benchmarks/bench_models.py [--accounts N] [--models A,B,C] [--repeats N] [--save NAME]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    f" --xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"
)
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.harness import REPEATS, alternating, machine, save
from gpumargin.catalogue import load_model, model_dates
from gpumargin.clock import Clock
from gpumargin.device import ACCOUNT_AXIS, account_mesh
from gpumargin.engine import MAX_ACCOUNTS_PER_SHARD
from gpumargin.pack.buckets import make_plan, pack_shard
from gpumargin.prepare import Options, Pass, prepare
from gpumargin.tables import read_book
from tests.whole_book import Tables, accepted, whole_book

ACCOUNTS = 100_000


class Stage(NamedTuple):
    """The margin stage of one model, its book packed and placed: what runs it, and how much it margins."""

    run: Callable[[], Any]
    accounts: int
    legs: int


def prepared(name: str, book: Tables) -> Pass:
    """One model over the accounts that it margins."""
    model = load_model(name)
    (work,) = prepare(read_book(**accepted(book, model.file)), model, Options(), Clock())
    return work


def stage_of(work: Pass) -> Stage:
    """All of a book as one part, so that nothing but the program is timed.

    Raises:
      SystemExit: an answer is not finite.
    """
    engine, contracts = work.engine, work.contracts
    plan = make_plan(work.legs, MAX_ACCOUNTS_PER_SHARD, len(engine.devices))
    if len(plan.parts) > 1:
        message = f"expected at most {MAX_ACCOUNTS_PER_SHARD:,} accounts per device, found more; ask for fewer"
        raise SystemExit(message)
    shards = [pack_shard(work.legs, contracts, plan.shape, shard) for shard in plan.parts[0]]
    rows = NamedSharding(account_mesh(engine.devices), PartitionSpec(ACCOUNT_AXIS))
    with jax.enable_x64(True):
        block = jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *shards), rows)

    def run() -> Any:
        with jax.enable_x64(True):
            held = engine.table, engine._market, engine._assets, engine._model, block, engine._zero
            return jax.block_until_ready(engine._program(*held))

    check_finite(work.model.label, run().accounts.margin)
    return Stage(run, len(work.legs), len(work.legs.contract))


def check_finite(label: str, margins: Any) -> None:
    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(margins)):
        message = f"{label}: expected finite margins, found others; nothing was timed"
        raise SystemExit(message)


def measure(names: list[str], accounts: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of each model, all in turn."""
    with tempfile.TemporaryDirectory() as folder:
        book = whole_book(Path(folder) / "book", accounts=accounts)
    stages = {name: stage_of(prepared(name, book)) for name in names}
    seconds = alternating({name: stage.run for name, stage in stages.items()}, repeats)
    return {name: {**seconds[name], "accounts": s.accounts, "legs": s.legs} for name, s in stages.items()}


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    parser.add_argument("--models", help="names, with commas between; all without it")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--save", help="name under benchmarks/results")
    options = parser.parse_args()
    names = options.models.split(",") if options.models else list(model_dates())
    report: dict[str, Any] = {"machine": machine(), "accounts": options.accounts, "dtype": "float64"}
    report["models"] = measure(names, options.accounts, options.repeats)
    print("| model | accounts | legs | median, ms | min, ms | accounts, millions per s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, found in report["models"].items():
        rate = found["accounts"] / found["median"] / 1e6
        times = f"{found['median'] * 1e3:.1f} | {found['min'] * 1e3:.1f}"
        print(f"| {name} | {found['accounts']:,} | {found['legs']:,} | {times} | {rate:.2f} |")
    if options.save:
        print(save(options.save, report))


if __name__ == "__main__":
    main()
