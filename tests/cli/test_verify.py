"""Claims about `gpumargin verify`: what it prints, in every format, and what it ends with."""

from __future__ import annotations

import csv
import io
import json
import shutil
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from tests.cli.test_manners import loaded_by
from tests.verification.forged import edited, more, sealed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Call

CHECKS = ["check", "covered", "count", "failed", "result"]


@pytest.fixture
def forged(runs: Path, tmp_path: Path) -> Path:
    """A copy of the run in which one account's delta was changed, and every hash made to fit."""
    (run,) = (path.parent for path in runs.glob("*/manifest.json"))
    folder = shutil.copytree(run, tmp_path / run.name)
    edited(folder, "accounts", more("delta", 5.0))
    sealed(folder)
    return folder


def test_a_run_that_holds_ends_with_0_and_names_its_seed(call: Call, runs: Path) -> None:
    done = call("verify", runs, "--seed", "12", columns=120)
    assert done.exit_code == 0
    assert "recomputation" in done.stdout
    assert "ok: " in done.stderr
    assert "--seed 12" in done.stderr


def test_a_full_run_has_no_seed(call: Call, runs: Path) -> None:
    assert "seed" not in call("verify", runs, "--full").stderr


def test_a_forged_run_ends_with_4_and_a_table_of_places(call: Call, forged: Path) -> None:
    done = call("verify", forged, columns=200)
    assert done.exit_code == 4
    for word in ("what does not hold", "sums of units", "accounts/part-00000.parquet", "alice", "delta"):
        assert word in done.stdout
    assert "failed: 2 of" in done.stderr


def test_json_holds_both_tables(call: Call, forged: Path) -> None:
    found = json.loads(call("verify", forged, "--format", "json").stdout)
    assert (found["ok"], found["complete"]) == (False, True)
    assert list(found["checks"][0]) == CHECKS
    assert {place["account_id"] for place in found["findings"]} == {"alice"}


def test_csv_and_arrow_hold_the_table_that_is_asked_for(call: Call, forged: Path) -> None:
    checks = csv.reader(io.StringIO(call("verify", forged, "--format", "csv").stdout))
    assert next(checks) == CHECKS
    with pa.ipc.open_stream(call("verify", forged, "--format", "arrow", "--table", "findings").stdout_bytes) as stream:
        assert stream.read_all()["column"].to_pylist() == ["delta", "delta"]


def test_verify_never_loads_jax_the_kernels_or_the_engine(runs: Path) -> None:
    assert not {"jax", "gpumargin_kernels", "gpumargin.engine"} & {*loaded_by("verify", str(runs))}


@pytest.mark.parametrize("arguments", [("--sample", "0"), ("--seed", "-1"), ("--book", "/no/such/book")])
def test_an_option_that_makes_no_sense_ends_with_2(call: Call, runs: Path, arguments: tuple[str, ...]) -> None:
    assert call("verify", runs, *arguments).exit_code == 2
