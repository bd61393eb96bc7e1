"""One hash over everything that must not change it: repeats, threads, chunks, orders, files, devices, resumed runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from gpumargin.tables import read_book
from tests.failing import CUT, MEMORY, small_book

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
DEVICES, REPEATS = (1, 2, 8), 3
MEMORIES = (MEMORY // 2, MEMORY, 2 * MEMORY, MEMORY * 2 // 3, MEMORY * 4 // 5, 1 << 32)
ORDERS: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "sorted": lambda frame: frame,
    "reversed": lambda frame: frame.reverse(),
    "shuffled": lambda frame: frame.sample(fraction=1, shuffle=True, seed=3),
    "shuffled otherwise": lambda frame: frame.sample(fraction=1, shuffle=True, seed=4),
}


def thirds(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """Three pieces, one after the other."""
    cuts = [frame.height * i // 3 for i in range(4)]
    return [frame[start:stop] for start, stop in pairwise(cuts)]


SPLITS: dict[str, Callable[[pl.DataFrame], list[pl.DataFrame]]] = {
    "one file": lambda frame: [frame],
    "three files one after the other": thirds,
    "every third row": lambda frame: [frame.gather_every(3, i) for i in range(3)],
}
SURROUNDINGS = (
    {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"},
    {"PYTHONHASHSEED": "2", "TZ": "America/St_Johns", "LC_ALL": "C.UTF-8"},
    {"PYTHONHASHSEED": "3", "TZ": "UTC", "LC_ALL": "tr_TR.UTF-8"},
)


def thread_counts() -> list[int]:
    """One, two and all."""
    return [1, 2, len(os.sched_getaffinity(0))]


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One book in every order and split, by name."""
    folder = tmp_path_factory.mktemp("one-hash")
    plain = small_book(folder / "plain")
    tables = read_book(plain)
    for order, ordered in ORDERS.items():
        for split, cut in SPLITS.items():
            book = shutil.copytree(plain, folder / f"{order}, {split}")
            for name in CUT:
                (book / f"{name}.parquet").unlink()
                (book / name).mkdir()
                for number, frame in enumerate(cut(ordered(tables.frame(name)))):
                    pq.write_table(frame.to_arrow(), book / name / f"{number}.parquet", row_group_size=30)
    return folder


def ways(turn: int) -> list[tuple[str, int, bool]]:
    """Every pair of order and memory budget; splits and resumed runs take turns, so that all meet in three turns."""
    orders, splits = list(ORDERS), list(SPLITS)
    return [
        (f"{orders[i]}, {splits[(i + k + turn) % 3]}", memory, (i + k + turn) % 2 == 0)
        for i in range(len(orders))
        for k, memory in enumerate(MEMORIES)
    ]


def margined(books: Path, out: Path, devices: int, threads: int, turn: int) -> list[dict[str, Any]]:
    plan = {"threads": threads, "ways": ways(turn)}
    environment = (
        os.environ
        | SURROUNDINGS[turn % 3]
        | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}",
            "JAX_ENABLE_X64": "1",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "POLARS_MAX_THREADS": str(threads),
        }
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "tests.many_ways", str(books), str(out), json.dumps(plan)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, umask=0o077 if turn % 2 else 0o022,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_one_hash_over_repeats_threads_chunks_orders_files_devices_and_resumed_runs(
    books: Path, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    found = []
    children = [(devices, threads) for devices in DEVICES for threads in thread_counts()]
    for turn, (devices, threads) in enumerate(children):
        found += margined(books, tmp_path / str(turn), devices, threads, turn)
    found += [way for turn in range(REPEATS - 1) for way in margined(books, tmp_path / f"again-{turn}", 1, 1, 0)]
    hashes = {json.dumps(way["results"], sort_keys=True) for way in found}
    resumed = sum(way["resumed"] for way in found)
    parts = sorted({way["parts"] for way in found})
    processes = len(children) + REPEATS - 1
    tell(
        f"{len(found)} runs in {processes} processes, {resumed} resumed, {parts} files of accounts: {len(hashes)} hash"
    )
    assert len(hashes) == 1
    assert resumed > len(found) // 4
