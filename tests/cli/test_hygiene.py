"""Claims about what may reach a terminal or a spreadsheet, and about the process the command line sets up."""

from __future__ import annotations

import csv
import gc
import io
import os
import platform
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING

import polars as pl
import pytest

from gpumargin.cli.options import Device, parse_overrides, parse_size, parse_time
from gpumargin.cli.process import compile_cache, keep_objects, prepare_process, usable_cores
from gpumargin.cli.render import clean, csv_text
from gpumargin.cli.tables import print_table
from gpumargin.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07x",
    "\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\",
    "\x9b2Jcleared",
    "a\u202eb",
    "line\nbreak\r\x08",
    "\x1bPq#device\x1b\\string",
    "\ud800half",
    "\u2028two",
    "[bold]markup[/bold]",
)

SETTINGS = (
    "ARROW_DEFAULT_MEMORY_POOL",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_ENABLE_COMPILATION_CACHE",
    "JAX_ENABLE_X64",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES",
    "JAX_PLATFORMS",
    "TF_CPP_MIN_LOG_LEVEL",
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_cleaned_text_is_printable(text: str) -> None:
    assert clean(text).isprintable()


def test_cleaning_keeps_honest_text() -> None:
    assert clean("Ünïcode 東京 acct-17 [x] 🙂") == "Ünïcode 東京 acct-17 [x] 🙂"


def test_a_title_that_an_id_would_set_is_gone_with_its_words() -> None:
    assert clean("a\x1b]0;evil\x07b") == "ab"


def test_tables_print_no_control_character_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    honest = [text for text in HOSTILE if text.isascii() or "\ud800" not in text]
    print_table(pl.DataFrame({"account_id": honest, "equity": [1.0] * len(honest)}), title="\x1b[31mtitle")
    shown = capsys.readouterr().out
    assert all(character == "\n" or character.isprintable() for character in shown)
    assert "[bold]markup[/bold]" in shown


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@x", "\tx", "\rx", "\0x", "\x1b[0m=cmd()"])
def test_csv_text_is_never_a_formula(text: str) -> None:
    rows = list(csv.reader(io.StringIO(csv_text(pl.DataFrame({"account_id": [text], "equity": [-1.5]})))))
    assert rows[1][0].startswith("'")
    assert rows[1][1] == "-1.5"


@pytest.mark.parametrize(
    ("text", "size"), [("4GiB", 4 << 30), ("500 MB", 500_000_000), ("1.5k", 1500), ("1000", 1000), ("2gib", 2 << 30)]
)
def test_sizes_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_time_without_a_zone_is_utc() -> None:
    zones = ("2026-03-05T08:00:00Z", "2026-03-05T08:00:00", "2026-03-05T09:00:00+01:00")
    assert {parse_time(text).isoformat() for text in zones} == {"2026-03-05T08:00:00+00:00"}


def test_overrides_are_toml_values() -> None:
    settings = ["a.b=1.5", "c = 'x=y'", "d=[1, 2]", "e=true"]
    assert parse_overrides(settings) == {"a.b": 1.5, "c": "x=y", "d": [1, 2], "e": True}
    with pytest.raises(UsageError, match="TOML"):
        parse_overrides(["a=word"])


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that has not loaded JAX, with a home of its own; gives the cache's home."""
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    for name in SETTINGS:
        monkeypatch.setenv(name, "")  # so that it is put back even if the test sets it
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_every_core_becomes_a_device_unless_the_user_chose(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
    prepare_process()
    expected = f"--xla_other=1 --xla_force_host_platform_device_count={usable_cores()}"
    assert os.environ["XLA_FLAGS"] == expected
    prepare_process()
    assert os.environ["XLA_FLAGS"] == expected


def test_a_gpu_run_makes_no_host_devices(fresh: Path) -> None:
    prepare_process(Device.GPU)
    assert "XLA_FLAGS" not in os.environ


def test_the_cache_belongs_to_its_owner_alone(fresh: Path) -> None:
    cache = compile_cache()
    assert cache.refusal == ""
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_others_may_write_to_is_refused_aloud(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compile_cache().folder.chmod(0o777)
    prepare_process()
    assert "others may write" in " ".join(capsys.readouterr().err.split())
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "0"


def test_a_cache_that_is_a_link_is_refused(fresh: Path) -> None:
    (fresh / "elsewhere").mkdir()
    (fresh / "gpumargin").mkdir(mode=0o700)
    (fresh / "gpumargin" / "jax").symlink_to(fresh / "elsewhere")
    assert compile_cache().is_suspicious


def test_without_a_writable_home_there_is_no_cache_and_no_noise(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = fresh / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    prepare_process()
    assert capsys.readouterr().err == ""
    assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "0"


def test_the_cache_forgets_what_was_used_longest_ago(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpumargin.cli.process._CACHE_BYTES", 25)
    folder = compile_cache().folder
    for age, name in enumerate(("new", "middle", "old")):
        (folder / name).write_bytes(b"x" * 10)
        os.utime(folder / name, (1_000_000 - age, 1_000_000))
    prepare_process()
    assert {path.name for path in folder.iterdir()} == {"new", "middle"}


ONE_HEAP = """
import resource
from gpumargin.cli.process import prepare_process
prepare_process()
import numpy as np
import pyarrow as pa
def faults(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def arrays():
    for _ in range(10):
        np.full(6_000_000, 1.5)
def tables():
    for _ in range(10):
        pa.repeat(1.5, 6_000_000)
first = faults(arrays) + faults(tables)
print(pa.default_memory_pool().backend_name, first, faults(arrays), faults(tables))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not that of GNU")
def test_memory_that_one_library_freed_is_had_by_another_without_the_system_clearing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    command = [sys.executable, "-c", ONE_HEAP]
    pool, first, *later = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()  # noqa: S603
    assert pool == "system"
    assert int(first) > 100
    assert all(int(count) < 20 for count in later)


class _Knot:
    """Refers to itself: only the garbage collector can take it."""

    def __init__(self) -> None:
        self.own = self


def test_objects_that_stay_are_passed_over_and_garbage_goes_before() -> None:
    early, late = weakref.ref(_Knot()), None
    try:
        keep_objects()
        assert early() is None
        assert gc.get_freeze_count() > 10_000
        late = weakref.ref(_Knot())
        gc.collect()
        assert late() is None
    finally:
        gc.unfreeze()
