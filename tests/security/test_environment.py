"""Claims about what is around a run: settings of its process, threads, secrets, the cache of programs, what ships."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from gpumargin.cli.process import compile_cache
from tests.books import tiny_book, with_cell, write_book
from tests.cli.conftest import ROOT, process

CANARY = "CANARY-7f3a9c"
SECRETS = {
    name: f"{CANARY}-{name}"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "DATABASE_PASSWORD")
}
AS_OF = ("--as-of", "2026-03-05T08:00:00Z")
MODEL = ("--model", "derive-sm")
SHIPPED = (
    r"gpumargin/([a-z_]+/)*[a-z_]+\.py",
    r"gpumargin_kernels/([a-z_]+/)*[a-z_]+\.py",
    r"gpumargin(_kernels)?/py\.typed",
    r"gpumargin/models/(README\.md|[a-z0-9-]+@\d{4}-\d{2}-\d{2}\.toml)",
    r"gpumargin/sample/(README\.md|book/[a-z_]+(/part-\d{5})?\.parquet)",
    r"gpumargin/report/page\.html",
    r"gpumargin-[0-9.]+\.dist-info/(METADATA|WHEEL|RECORD|entry_points\.txt|licenses/LICENSE)",
)
HOST = """
import os, sys, threading
import jax, numpy, polars  # the last sets a variable of its own allocator
environment, settings = dict(os.environ), dict(jax.config.values)
errors = numpy.geterr()
import gpumargin as gm
book, model = gm.read_book(sys.argv[1]), gm.load_model("derive-sm")
found = [None] * 8

def margin(number):
    found[number] = gm.margin(book, model, as_of="2026-03-05T08:00:00Z").accounts

margin(0)
threads = [threading.Thread(target=margin, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert all(each is not None and each.equals(found[0]) for each in found)
assert found[0]["equity"].dtype == gm.margin(book, model).accounts["equity"].dtype
assert jax.config.jax_enable_x64 is False
assert jax.numpy.ones(1).dtype == "float32", "the host's arrays are as they were"
assert dict(jax.config.values) == settings
assert dict(os.environ) == environment
assert numpy.geterr() == errors
print(found[0].height)
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_book(tmp_path_factory.mktemp("environment") / "book", tiny_book())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def done(book: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """One run of the command line in a home of its own, secrets in its environment."""
    arguments = ("--debug", "run", book, *MODEL, *AS_OF, "--out", home / "runs", "--format", "json")
    finished = process(*arguments, **SECRETS, XDG_CACHE_HOME=str(home / "cache"))
    assert finished.returncode == 0, finished.stderr
    return finished


@pytest.mark.slow
def test_a_host_program_keeps_its_settings_and_may_use_eight_threads(book: Path) -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    env = {"PYTHONPATH": paths, "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu", "HOME": "/nonexistent"}
    command = [sys.executable, "-c", HOST, str(book)]
    finished = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)  # noqa: S603
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) >= 5


@pytest.mark.slow
def test_a_run_is_for_its_user_alone(done: subprocess.CompletedProcess[str], home: Path) -> None:
    run = Path(json.loads(done.stdout)["run"])
    for path in (run, *run.rglob("*"), home / "runs", home / "cache" / "gpumargin" / "jax"):
        assert path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) == 0, path


@pytest.mark.slow
def test_no_secret_of_the_environment_is_written_or_said(
    done: subprocess.CompletedProcess[str], book: Path, home: Path, tmp_path: Path
) -> None:
    bad = write_book(tmp_path / "bad", with_cell(tiny_book(), "balances", row=0, column="amount", value=float("nan")))
    failed = [
        process("--debug", "run", bad, *MODEL, "--out", tmp_path / "out", **SECRETS),
        process("--debug", "run", book, "--model", "none-such", "--out", tmp_path / "out", **SECRETS),
    ]
    assert [each.returncode for each in failed] == [3, 2]
    for each in (done, *failed):
        assert CANARY not in each.stdout + each.stderr
    files = [path for folder in (home, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize("level", ["gpumargin", "gpumargin/jax"])
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_cache_that_others_could_write_to_is_not_used(
    level: str, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compile_cache().refusal == ""
    (tmp_path / level).chmod(mode)
    assert "others may write" in compile_cache().refusal
    assert compile_cache().is_suspicious


def test_a_cache_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compile_cache().refusal == ""
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert "another user" in compile_cache().refusal


def _results(finished: subprocess.CompletedProcess[str]) -> object:
    assert finished.returncode == 0, finished.stderr
    return json.loads((Path(json.loads(finished.stdout)["run"]) / "manifest.json").read_text())["results"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "folders"])
def test_a_damaged_cache_of_programs_costs_time_alone(
    damage: str, done: subprocess.CompletedProcess[str], book: Path, home: Path
) -> None:
    entries = [path for path in (home / "cache").rglob("*") if path.is_file()]
    assert entries
    for path in entries:
        content = path.read_bytes()
        path.unlink()
        if damage == "folders":
            path.mkdir()
        else:
            path.write_bytes({"cut": content[: len(content) // 2], "noise": b"x" * len(content), "empty": b""}[damage])
    arguments = ("run", book, *MODEL, *AS_OF, "--out", home / "runs", "--format", "json")
    again = process(*arguments, XDG_CACHE_HOME=str(home / "cache"))
    assert _results(again) == _results(done)
    for path in entries:
        if path.is_dir():
            path.rmdir()


@pytest.mark.slow
def test_a_home_that_cannot_be_written_to_and_settings_of_the_user_do_no_harm(
    done: subprocess.CompletedProcess[str], book: Path, home: Path
) -> None:
    arguments = ("run", book, *MODEL, *AS_OF, "--out", home / "runs", "--format", "json")
    given = {"HOME": "/proc", "XDG_CACHE_HOME": "/proc/none", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "0"}
    again = process(*arguments, **given, XLA_FLAGS="--xla_force_host_platform_device_count=1")
    assert _results(again) == _results(done)


def test_the_wheel_holds_what_is_on_the_list_and_nothing_else(tmp_path: Path) -> None:
    path = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    odd = [name for name in names if not any(re.fullmatch(form, name) for form in SHIPPED)]
    assert not odd
    assert len(names) > 200
    assert {name for name in names if name.endswith("__main__.py")} == {"gpumargin/__main__.py"}


def test_few_packages_are_needed_and_all_are_pinned_with_their_hashes() -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert len(needed) <= 12
    pins = (ROOT / "constraints.txt").read_text()
    blocks = re.split(r"\n(?=[A-Za-z])", pins)
    pinned = {re.match(r"[\w.-]+", block)[0].lower(): "--hash=sha256:" in block for block in blocks if "==" in block}  # type: ignore[index]
    assert all(pinned.values())
    assert {re.match(r"[\w.-]+", name)[0].lower() for name in needed} <= set(pinned)  # type: ignore[index]
