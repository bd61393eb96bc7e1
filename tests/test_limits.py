"""Claims about the command line where the machine lacks something: real disks that are full, limits, rights."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.failing import MEMORY, small_book, visible

if TYPE_CHECKING:
    Ended = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
MOUNTS = ["unshare", "-rm"]


def can_mount() -> bool:
    command = [*MOUNTS, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, check=False).returncode == 0  # noqa: S603


needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs a mount namespace of its own: unshare -rm")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book, and a cache of compiled programs."""
    path = tmp_path_factory.mktemp("limits")
    small_book(path / "book")
    assert gpumargin(path, path / "warm").returncode == 0
    return path


def gpumargin(home: Path, out: Path, before: str = "true", *, mounts: bool = False, options: str = "") -> Ended:
    """The command `run`, after a command of the shell and in its limits; prints what is left in `out`."""
    words = f"run {home / 'book'} --model derive-pm1 --out {out} --memory-budget {MEMORY} {options}"
    script = f"{before} && {sys.executable} -m gpumargin {words}; code=$?; ls -A {out} | sed s/^/left:/; exit $code"
    command = [*(MOUNTS if mounts else []), "bash", "-c", script]
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}
    environment |= {"XDG_CACHE_HOME": str(home / "cache"), "HOME": str(home)}
    return subprocess.run(  # noqa: S603
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def left(done: Ended) -> list[str]:
    return [line.removeprefix("left:") for line in done.stdout.splitlines() if line.startswith("left:")]


def words(done: Ended) -> str:
    return " ".join(done.stderr.split())


def run_names(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


@needs_mounts
@pytest.mark.parametrize("size", [60, 120, 240])
def test_a_full_disk_ends_with_5_and_shows_no_run(home: Path, tmp_path: Path, size: int) -> None:
    done = gpumargin(home, tmp_path, f"mount -t tmpfs -o size={size}k tmpfs {tmp_path}", mounts=True)
    assert done.returncode == 5, done.stderr
    assert "No space left on device" in words(done)
    assert "nothing was published" in words(done)
    assert run_names(left(done)) == []


@needs_mounts
def test_a_disk_that_is_too_small_from_the_start_is_refused(home: Path, tmp_path: Path) -> None:
    done = gpumargin(home, tmp_path, f"mount -t tmpfs -o size=8k tmpfs {tmp_path}", mounts=True)
    assert done.returncode == 5, done.stderr
    assert left(done) == []


@needs_mounts
def test_a_place_that_may_only_be_read_ends_with_5(home: Path, tmp_path: Path) -> None:
    done = gpumargin(home, tmp_path / "runs", f"mount -t tmpfs -o ro tmpfs {tmp_path}", mounts=True)
    assert done.returncode == 5, done.stderr
    assert "Read-only file system" in words(done)


def test_files_that_may_not_grow_end_the_run_with_5_and_it_can_be_resumed(home: Path, tmp_path: Path) -> None:
    done = gpumargin(home, tmp_path, "ulimit -f 16")
    assert done.returncode == 5, done.stderr
    assert "File too large" in words(done)
    assert run_names(left(done)) == []
    done = gpumargin(home, tmp_path, options="--resume")
    assert done.returncode == 0, done.stderr
    assert left(done) == [folder.name for folder in visible(tmp_path)] + ["latest"]


@pytest.mark.parametrize("files", [16, 32, 64])
def test_few_open_files_are_enough_or_end_the_run_with_5(home: Path, tmp_path: Path, files: int) -> None:
    done = gpumargin(home, tmp_path, f"ulimit -n {files}")
    assert done.returncode in (0, 5), done.stderr
    assert bool(visible(tmp_path)) == (done.returncode == 0)
