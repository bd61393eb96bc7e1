"""The limited process that meets hostile files, and what is counted of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

from tests.security.child import CPU_SECONDS

ROOT = Path(__file__).parents[2]
SURVIVED = {0, 3, 5}
CHUNK = 100


class Outcome(NamedTuple):
    """How an attempt at a path ended: exit code, what was said or read, processor's seconds, peak memory, signal."""

    code: int
    words: str
    seconds: float
    peak: int = 0
    signal: int = 0


@dataclass
class Limited:
    """Attempts in the limited process."""

    stdin: IO[str]
    stdout: IO[str]
    counts: Counter[str] = field(default_factory=Counter)

    def attempts(self, op: str, paths: Sequence[Path]) -> list[Outcome]:
        """How every path ends; whatever ends the process instead is an outcome with code -1."""
        found: list[Outcome] = []
        while len(found) < len(paths):
            batch = paths[len(found) : len(found) + CHUNK]
            answer = self._ask({"op": op, "paths": list(map(str, batch))})
            found += [Outcome(*each, answer["peak"], 0) for each in answer["outcomes"]]
            if len(answer["outcomes"]) < len(batch):
                found.append(Outcome(-1, "the process ended", answer["seconds"], answer["peak"], answer["signal"]))
        self.counts.update(f"{op}: exit {each.code}" for each in found)
        return found

    def attempt(self, op: str, path: Path) -> Outcome:
        return self.attempts(op, [path])[0]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.stdin.write(json.dumps(request) + "\n")
        self.stdin.flush()
        answer: dict[str, Any] = json.loads(self.stdout.readline())
        return answer


def assert_survived(outcomes: Sequence[Outcome]) -> None:
    """No signal, nothing unexpected, nothing slow."""
    odd = [(number, each) for number, each in enumerate(outcomes) if each.code not in SURVIVED]
    assert not odd, f"{len(odd)} of {len(outcomes)}: {odd[:5]}"
    assert max(each.seconds for each in outcomes) < CPU_SECONDS


@pytest.fixture(scope="session")
def limited(request: pytest.FixtureRequest) -> Iterator[Limited]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    command = [sys.executable, "-m", "tests.security.child"]
    env = {"PYTHONPATH": paths, "PATH": "/usr/bin:/bin", "NO_COLOR": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdin is not None
    assert process.stdout is not None
    found = Limited(process.stdin, process.stdout)
    request.config.stash.setdefault(_COUNTS, found.counts)
    yield found
    process.stdin.close()
    try:
        process.wait(CPU_SECONDS)
    except subprocess.TimeoutExpired:  # the tests were interrupted in the middle of an attempt
        process.kill()
        process.wait()
    process.stdout.close()


_COUNTS = pytest.StashKey[Counter[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says how many hostile files were met, and how they ended."""
    counts = config.stash.get(_COUNTS, None)
    if counts:
        ends = ", ".join(f"{what}: {count:,}" for what, count in sorted(counts.items()))
        terminalreporter.write_line(f"hostile files: {counts.total():,} attempts; {ends}")
