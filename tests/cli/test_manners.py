"""Claims about how the command line behaves whatever the verb: quick help, exit codes, one stream for data."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from gpumargin.cli.outcome import set_debug, verb
from gpumargin.errors import InputError, InternalError, ResourceError, UsageError
from gpumargin.failures import Failure, failure_frame
from gpumargin.solvency.proof import FORMAT, account_name, blinded, leaf
from tests.books import tiny_book, with_cell, write_book
from tests.cli.conftest import MODEL, ROOT, process
from tests.sampled import rest_slow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Call

VERBS = (
    "demo",
    "generate",
    "import",
    "check",
    "greeks",
    "run",
    "show",
    "top",
    "explain",
    "models",
    "diff",
    "snapshot",
    "prove",
    "verify-proof",
    "verify",
    "report",
    "doctor",
    "bench",
)
# typer itself loads pydantic (since 0.29); what counts for us is that a help text builds no model of ours with it.
HEAVY = (
    "jax", "polars", "pyarrow", "numpy", "gpumargin.modelfile", "gpumargin.tables",
    "gpumargin.engine", "gpumargin_kernels",
)  # fmt: skip
PROBE = """
import sys
from gpumargin.cli import main
try:
    main()
except SystemExit as end:
    assert end.code in (None, 0), end.code
print("loaded:", *sorted(set(sys.modules) & set({heavy!r})), file=sys.stderr)
"""


def loaded_by(*arguments: str) -> list[str]:
    """Heavy packages that a call of the command line has loaded."""
    command = [sys.executable, "-c", PROBE.format(heavy=HEAVY), *arguments]
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)  # noqa: S603
    return done.stderr.splitlines()[-1].split()[1:]


def _raising(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


def _ends_with(error: BaseException) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(verb(_raising(error)))
    done = CliRunner().invoke(app, [])
    return done.exit_code, done.stderr


@pytest.mark.parametrize("verb_name", rest_slow(["", *VERBS], ["", "run", "verify", "report"]))
def test_help_loads_nothing_heavy(verb_name: str) -> None:
    assert loaded_by(*verb_name.split(), "--help") == []


def test_check_never_loads_jax(book: Path) -> None:
    assert "jax" not in loaded_by("check", str(book))


def test_a_proof_is_checked_without_anything_heavy(tmp_path: Path) -> None:
    only = leaf(blinded(account_name("a", "cross"), bytes(16)), [5])
    account = {"account_id": "a", "pool": "cross", "salt": "00" * 16, "leaf": 0, "amounts": ["5"]}
    commitment = {"columns": ["equity USD"], "leaves": 1, "root": only.digest.hex(), "sums": ["5"]}
    file = tmp_path / "proof.json"
    file.write_text(json.dumps({"format": FORMAT, "account": account, "path": [], "commitment": commitment}))
    assert loaded_by("verify-proof", str(file)) == []


def test_models_never_loads_jax() -> None:
    assert "jax" not in loaded_by("models", "derive-pm1")


def test_help_comes_within_half_a_second() -> None:
    took = []
    for _ in range(3):
        start = time.perf_counter()
        assert process("run", "--help").returncode == 0
        took.append(time.perf_counter() - start)
    assert min(took) < 0.5 * 2, f"{took}: the limit is 0.5 s, twice that on a busy machine"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no"), 2),
        (InputError("no", failure_frame([])), 3),
        (InternalError("no"), 4),
        (ValueError("odd"), 4),
        (ResourceError("no"), 5),
        (MemoryError(), 5),
        (OSError(errno.ENOSPC, "No space left on device"), 5),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert _ends_with(error)[0] == code


def test_an_unexpected_error_is_one_line_unless_asked_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    code, words = _ends_with(KeyError("odd"))
    assert (code, len(words.splitlines())) == (4, 1)
    monkeypatch.setenv("GPUMARGIN_DEBUG", "1")
    set_debug(is_on=False)
    assert "Traceback" in _ends_with(KeyError("odd"))[1]
    monkeypatch.delenv("GPUMARGIN_DEBUG")
    set_debug(is_on=False)


def test_an_insolvent_account_ends_the_run_with_1_only_if_asked(call: Call, book: Path, tmp_path: Path) -> None:
    assert call("run", book, *MODEL, "--out", tmp_path).exit_code == 0
    done = call("run", book, *MODEL, "--out", tmp_path, "--fail-on-insolvent")
    assert done.exit_code == 1
    assert (tmp_path / "latest").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "BOOK"),
        ("run", "/no/such/book", *MODEL),
        ("run", "BOOK", "--model", "no-such-model"),
        ("run", "BOOK", *MODEL, "--set", "parameters.im_factor"),
        ("run", "BOOK", *MODEL, "--set", "parameters.im_factor=1\nx=2"),
        ("run", "BOOK", *MODEL, "--set", "parameters.no_such=1", "--set", "margin.initial='nothing'"),
        ("run", "BOOK", *MODEL, "--as-of", "yesterday"),
        ("run", "BOOK", *MODEL, "--memory-budget", "0"),
        ("run", "BOOK", *MODEL, "--on-bad-rows", "ignore"),
        ("show", "/no/such/run"),
        ("top", "RUN", "--by", "status"),
        ("top", "RUN", "-n", "0"),
        ("models", "derive-pm1@1999-01-01"),
        ("models", "derive-pm1", "--schema"),
        ("generate", "RUN"),
    ],
)
def test_a_request_that_makes_no_sense_ends_with_2(
    call: Call, book: Path, runs: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    places = {"BOOK": str(book), "RUN": str(runs)}
    done = call(*(places.get(word, word) for word in arguments))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr


def test_a_gpu_that_is_not_there_ends_with_5_and_says_so(call: Call, book: Path, tmp_path: Path) -> None:
    if "gpu" in call("doctor", "--format", "csv").stdout.split("devices,ok,")[1].splitlines()[0]:
        pytest.skip("this machine has a GPU")
    done = call("run", book, *MODEL, "--device", "gpu", "--out", tmp_path)
    assert done.exit_code == 5
    assert "JAX sees no GPU" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_bad_book_ends_with_3_and_publishes_nothing(call: Call, tmp_path: Path) -> None:
    bad = write_book(tmp_path / "bad", with_cell(tiny_book(), "balances", row=0, column="amount", value=float("nan")))
    done = call("run", bad, *MODEL, "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (3, "")
    for word in ("GM103", "balances.parquet", "row 0", "column amount"):
        assert word in done.stderr
    assert not (tmp_path / "out").exists()


def test_check_gives_failures_as_data(call: Call, tmp_path: Path) -> None:
    bad = write_book(tmp_path / "bad", with_cell(tiny_book(), "balances", row=0, column="amount", value=float("nan")))
    done = call("check", bad, "--format", "json")
    assert done.exit_code == 3
    assert [(row["code"], row["row"]) for row in json.loads(done.stdout)] == [("GM103", 0)]


def test_check_lists_what_keeps_a_book_from_being_read(call: Call, tmp_path: Path) -> None:
    book = tiny_book()
    write_book(tmp_path, {**book, "prices": book["prices"].rename({"price": "prize"})})
    done = call("check", tmp_path, "--format", "json")
    assert done.exit_code == 3
    assert {row["code"] for row in json.loads(done.stdout)} == {"GM101"}


def test_a_good_book_passes_the_check(call: Call, book: Path) -> None:
    done = call("check", book, "--format", "json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, [])


def test_a_table_of_failures_stays_short_and_shows_every_kind(call: Call, tmp_path: Path) -> None:
    book = tiny_book()
    for name, column in (("positions", "quantity"), ("balances", "amount"), ("marks", "mark_iv")):
        book[name] = book[name].with_columns(pl.lit(float("inf")).alias(column))
    done = call("check", write_book(tmp_path / "bad", book), columns=120)
    shown = [line for line in done.stdout.splitlines() if line.startswith("GM")]
    assert 3 <= len(shown) <= 20
    assert {name for name in ("positions", "balances", "marks") if f"{name}.parquet" in done.stdout} == {
        "positions",
        "balances",
        "marks",
    }


def test_a_failure_with_no_row_has_a_place_too(call: Call, tmp_path: Path) -> None:
    failure = Failure("GM101", "prices", "", None, "", "", "table is missing", "add it")
    code, words = _ends_with(InputError("the input breaks the contract:", failure_frame([failure])))
    assert code == 3
    assert "prices" in words
