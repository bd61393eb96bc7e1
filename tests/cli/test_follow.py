"""Claims about `follow`: each block once and whole, whenever the process was killed."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from gpumargin.run import margin
from gpumargin.tables import Book, read_book
from tests.blocks import Draw
from tests.books import AS_OF, tiny_book, write_book
from tests.cli.conftest import MODEL, ROOT

if TYPE_CHECKING:
    from tests.cli.conftest import Call


def block(number: int) -> dict[str, pl.DataFrame]:
    """Trades, a payment and prices of one block, the same every time."""
    draw = Draw(np.random.default_rng(number), Book(**tiny_book()))
    market = draw.market()
    later = pl.col("timestamp").dt.offset_by(f"{number}m")
    return {
        "fills": draw.fills(4),
        "transfers": draw.transfers(2),
        **{name: frame.with_columns(later) for name, frame in market.items()},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book and six blocks; names that are no numbers are passed over."""
    path = tmp_path_factory.mktemp("follow")
    write_book(path / "book", tiny_book())
    for number in range(1, 7):
        write_book(path / "blocks" / f"{number:03}", block(number))
    write_book(path / "blocks" / ".004", block(9))
    write_book(path / "blocks" / "notes", block(9))
    return path


@pytest.fixture(scope="module")
def followed(folder: Path, call: Call) -> Path:
    """Results of one process that nobody interrupted."""
    done = call("follow", folder / "book", folder / "blocks", *MODEL, "--out", folder / "out")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split() == [str(folder / "out" / f"{n:03}") for n in range(1, 7)]
    assert gc.get_freeze_count() > 10_000  # what is there after the first block is passed over from then on
    gc.unfreeze()
    return folder / "out"


def results(out: Path) -> dict[str, bytes]:
    """Every published file but the timings."""
    files = [file for file in out.glob("[0-9]*/*") if file.name != "latency.json"]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def test_a_block_has_totals_changes_and_the_time_of_every_stage(followed: Path) -> None:
    assert sorted(entry.name for entry in followed.glob("[0-9]*")) == [f"{n:03}" for n in range(1, 7)]
    totals = json.loads((followed / "001" / "totals.json").read_text())
    assert totals["as_of"] == AS_OF.replace(minute=1).isoformat()
    changes = pl.read_parquet(followed / "001" / "status_changes.parquet")
    assert changes.height == totals["status_changes"] < 5
    assert changes["before"].null_count() == 0
    seconds = json.loads((followed / "001" / "latency.json").read_text())["seconds"]
    assert {"read", "apply", "market", "margin", "tables", "write"} <= set(seconds)


def test_blocks_that_are_done_are_not_done_again(folder: Path, followed: Path, call: Call) -> None:
    before = results(followed)
    done = call("follow", folder / "book", folder / "blocks", *MODEL, "--out", followed)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    assert results(followed) == before


def test_what_is_in_the_way_is_a_usage_error(folder: Path, followed: Path, call: Call, tmp_path: Path) -> None:
    other = call("follow", folder / "book", folder / "blocks", "--model", "derive-sm", "--out", followed)
    assert (other.exit_code, "give another --out" in other.stderr.replace("\n", " ")) == (2, True)
    for name in ("7", "07"):
        write_book(tmp_path / "twice" / name, block(7))
    twice = call("follow", folder / "book", tmp_path / "twice", *MODEL, "--out", tmp_path / "out")
    assert (twice.exit_code, "two blocks of one number" in twice.stderr.replace("\n", " ")) == (2, True)


def test_a_bad_block_is_named_and_ends_the_run_after_those_before_it(folder: Path, call: Call, tmp_path: Path) -> None:
    write_book(tmp_path / "blocks" / "1", block(1))
    bad = block(2)
    bad["fills"] = bad["fills"].with_columns(instrument_id=pl.lit("BTC-NEVER"))
    write_book(tmp_path / "blocks" / "2", bad)
    done = call("follow", folder / "book", tmp_path / "blocks", *MODEL, "--out", tmp_path / "out")
    assert done.exit_code == 3
    assert "GM105" in done.stderr
    assert "BTC-NEVER" in done.stderr
    assert [entry.name for entry in (tmp_path / "out").glob("[0-9]*")] == ["1"]


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [1, 2, 100])
def test_a_process_killed_at_any_moment_goes_on_as_if_nothing_had_been(
    folder: Path, followed: Path, tmp_path: Path, checkpoint: int
) -> None:
    rng = np.random.default_rng(checkpoint)
    out = tmp_path / "out"
    arguments = ["follow", folder / "book", folder / "blocks", *MODEL, "--out", out, "--checkpoint-every", checkpoint]
    command = [sys.executable, "-m", "gpumargin", *map(str, arguments)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    environment = {**os.environ, "PYTHONPATH": paths, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    kills = 0
    for _ in range(60):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603
        _wait(process, out, float(rng.uniform(0, 0.02 * (1 + kills))))  # a quick machine is done within half a second
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
        kills += 1
    assert kills > 0
    assert results(out) == results(followed)


def _wait(process: subprocess.Popen[bytes], out: Path, longest: float) -> None:
    """Waits until one more block is published or under way, and then a moment; or until the process ends."""
    before = len(list(out.glob("[0-9]*"))) if out.is_dir() else 0
    while process.poll() is None and (len(list(out.glob("[0-9]*"))) if out.is_dir() else 0) == before:
        time.sleep(0.005)
    until = time.monotonic() + longest
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)


def test_the_last_totals_are_those_of_a_run_on_the_book_written_down(folder: Path, call: Call, tmp_path: Path) -> None:
    done = call(
        "follow",
        folder / "book",
        folder / "blocks",
        *MODEL,
        "--out",
        tmp_path,
        "--checkpoint-every",
        3,
        "--format",
        "json",
    )
    assert done.exit_code == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    book = read_book(tmp_path / ".checkpoints" / "6")
    assert margin(book, MODEL[1]).summary["by_accounting_asset"] == last["by_accounting_asset"]
