"""Claims about processes that are killed at any file call: nothing torn, nothing wrong, and the next one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpumargin.digests import ColumnDigest
from tests.failing import small_book, visible

if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[str], None]

ROOT = Path(__file__).parents[1]
FAST_SEEDS, SEEDS = 3, 20
NIGHTLY_SEEDS = 500
"""How many a night is for; `KILL_SEEDS` in the environment says how many a long run of the tests takes."""


def started(out: Path, cache: Path, plan: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """The program of `tests.killed` with a plan."""
    whole = {"book": None, "at": None, "after": False, "resumes": False, "year": None} | plan
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "tests.killed", str(out), json.dumps(whole)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def results(folder: Path) -> dict[str, str]:
    """Result hashes of a run, against which its files are checked."""
    hashes: dict[str, str] = json.loads((folder / "manifest.json").read_text())["results"]
    for name, expected in hashes.items():
        digest = ColumnDigest()
        for path in sorted((folder / name).glob("*.parquet")):
            digest.add(pq.ParquetFile(path, page_checksum_verification=True).read())
        assert digest.hexdigest() == expected
    return hashes


class Killings:
    """Runs killed at seeded file calls, each resumed, some killed again while they are, some by a clock set back."""

    def __init__(self, folder: Path, book: Path | None) -> None:
        self._folder, self._book = folder, None if book is None else str(book)
        whole = said(self._start(folder / "whole"))
        self._expected = results(folder / "whole" / whole["run"])
        self.calls, self._parts = whole["calls"], whole["parts"]
        self.count: Counter[str] = Counter()

    def _start(self, out: Path, **plan: Any) -> subprocess.CompletedProcess[str]:
        return started(out, self._folder / "cache", {"book": self._book} | plan)

    def _kill(self, out: Path, rng: np.random.Generator, **plan: Any) -> None:
        at, after = int(rng.integers(self.calls)), bool(rng.integers(2))
        done = self._start(out, at=at, after=after, **plan)
        if done.returncode == -signal.SIGKILL:
            self.count["kills"] += 1
        else:
            said(done)  # a resumed run may be over before that call
        for folder in visible(out):
            assert results(folder) == self._expected, "a torn or wrong run can be seen"

    def seed(self, seed: int) -> None:
        """One seed: kill, maybe kill again while going on, go on, look."""
        rng, out = np.random.default_rng(seed), self._folder / str(seed)
        self._kill(out, rng)
        if seed % 3 == 0:
            self._kill(out, rng, resumes=True)
            self.count["kills in a resumed run"] += 1
        recorded = len(list(out.glob(".staging-*/parts/?????.record")))
        is_open = any(out.glob(".staging-*/run"))  # if not, it was published before
        begun = {name for path in out.glob(".staging-*/run/accounts/*.parquet") if (name := path.name)}
        files = len(begun) * self._parts / max(1, self._files())
        year = 2001 if seed % 4 == 1 else None
        self.count["clocks set back"] += year is not None
        answer = said(self._start(out, resumes=True, year=year))
        assert results(out / answer["run"]) == self._expected
        assert (out / "latest").read_text() == f"{answer['run']}\n"
        assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
        if recorded and is_open:
            assert answer["parts"] == self._parts - recorded
        assert files - recorded <= 1, "more than one part was lost"
        self.count["parts repeated"] += int(np.ceil(max(0.0, files - recorded)))

    def _files(self) -> int:
        (whole,) = visible(self._folder / "whole")
        return len(list((whole / "accounts").glob("*.parquet")))


def test_a_run_killed_at_any_file_call_is_whole_or_not_there_and_the_next_goes_on(tmp_path: Path, tell: Tell) -> None:
    killings = Killings(tmp_path, None)
    for seed in range(FAST_SEEDS):
        killings.seed(seed)
    tell(f"{killings.calls} file calls; {dict(killings.count)}; 0 torn, 0 wrong")
    assert killings.count["kills"] >= FAST_SEEDS


def test_the_first_signal_is_an_exception_and_the_second_ends_the_process_at_once() -> None:
    code = """
import os, signal
from gpumargin.cli.signals import Stopped, stopping
with stopping():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Stopped as stopped:
        print(stopped.number, flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        print("still there", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "15\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("is_margined", [False, True], ids=["made-up tables", "a book"])
def test_many_runs_killed_at_any_file_call_all_end_in_the_same_results(
    tmp_path: Path, tell: Tell, is_margined: bool
) -> None:
    killings = Killings(tmp_path, small_book(tmp_path / "book") if is_margined else None)
    seeds = int(os.environ.get("KILL_SEEDS", SEEDS))
    for seed in range(seeds):
        killings.seed(seed)
    tell(
        f"{seeds} seeds ({NIGHTLY_SEEDS} a night), {killings.calls} file calls; {dict(killings.count)}; 0 torn, 0 wrong"
    )
    assert killings.count["kills"] >= seeds
