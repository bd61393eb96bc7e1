"""One finished run of the tiny book, and one way to call the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from typer.testing import CliRunner

from gpumargin.cli.app import app
from tests.books import tiny_book, write_book

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer.testing import Result

ROOT = Path(__file__).parents[2]
MODEL = ("--model", "derive-pm1")


class Call(Protocol):
    """Calls the command line within this process."""

    def __call__(self, *arguments: object, columns: int = 80) -> Result: ...


def _call(*arguments: object, columns: int = 80) -> Result:
    runner = CliRunner(env={"COLUMNS": str(columns), "NO_COLOR": "1"})
    return runner.invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps the user's own cache out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def call() -> Call:
    return _call


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Calls the command line as a process of its own."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    known = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    command = [sys.executable, "-m", "gpumargin", *map(str, arguments)]
    env = {**known, "PYTHONPATH": paths, "COLUMNS": "120", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)  # noqa: S603


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_book(tmp_path_factory.mktemp("tiny") / "book", tiny_book())


@pytest.fixture(scope="session")
def runs(book: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that holds one, with the positions table."""
    out = tmp_path_factory.mktemp("cli") / "runs"
    done = _call("run", book, *MODEL, "--out", out, "--positions", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert Path(json.loads(done.stdout)["run"]).parent == out
    return out
