"""Claims about `--on-bad-rows quarantine` on the command line: what ends with which code, and what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from tests.books import tiny_book, with_cell, write_book
from tests.cli.conftest import MODEL
from tests.faults import NAN

if TYPE_CHECKING:
    from tests.cli.conftest import Call

QUARANTINE = ("--on-bad-rows", "quarantine")


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book in which rows of carol, and all of dave's isolated pool, are bad."""
    book = with_cell(tiny_book(), "positions", row=8, column="quantity", value=NAN)
    book = with_cell(book, "positions", row=9, column="instrument_id", value="SOL-PERP")
    book = with_cell(book, "balances", row=7, column="amount", value=None)
    return write_book(tmp_path_factory.mktemp("spoilt") / "book", book)


@pytest.fixture(scope="module")
def run(call: Call, spoilt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of it that alarms were asked of."""
    out = tmp_path_factory.mktemp("runs")
    done = call("run", spoilt, *MODEL, "--out", out, *QUARANTINE, "--fail-on-insolvent")
    assert done.exit_code == 1
    assert "3 rows were not used (GM102 1, GM103 1, GM105 1)" in " ".join(done.stderr.split())
    return Path(done.stdout.strip())


def test_bad_rows_end_a_run_unless_it_is_told_otherwise(call: Call, spoilt: Path, tmp_path: Path) -> None:
    assert call("run", spoilt, *MODEL, "--out", tmp_path).exit_code == 3
    assert not list(tmp_path.iterdir())


def test_the_run_publishes_its_quarantine(run: Path) -> None:
    records = pl.read_parquet(run / "quarantine.parquet")
    found = records.select("table", "file", "row", "code", "column", "value").rows()
    assert found == [
        ("positions", "positions.parquet", 8, "GM103", "quantity", "nan"),
        ("balances", "balances.parquet", 7, "GM102", "amount", "null"),
        ("positions", "positions.parquet", 9, "GM105", "instrument_id", "SOL-PERP"),
    ]
    rows = json.loads((run / "summary.json").read_text())["rows"]
    assert rows["files"]["positions"] == {"positions.parquet": {"read": 10, "used": 8, "quarantined": 2}}
    assert json.loads((run / "manifest.json").read_text())["on_bad_rows"] == "quarantine"


def test_check_says_what_would_be_taken_out(call: Call, spoilt: Path) -> None:
    assert call("check", spoilt).exit_code == 3
    done = call("check", spoilt, *QUARANTINE, "--format", "json")
    assert done.exit_code == 0
    assert [(record["code"], record["row"]) for record in json.loads(done.stdout)] == [
        ("GM103", 8),
        ("GM102", 7),
        ("GM105", 9),
    ]
    assert "unknown accounts: 2" in done.stderr


def test_an_unknown_account_is_shown_without_amounts_and_not_explained(call: Call, run: Path) -> None:
    rows = json.loads(call("top", run, "--by", "equity", "-n", "9", "--format", "json").stdout)
    unknown = [row for row in rows if row["status"] == "unknown"]
    assert [row["account_id"] for row in unknown] == ["carol", "dave"]
    assert all(row["equity"] is None and row["maintenance_excess"] is None for row in unknown)
    done = call("explain", run, "--account", "carol")
    assert done.exit_code == 2
    assert "quarantine" in done.stderr


@pytest.mark.slow
def test_compare_goes_on_without_the_rows(call: Call, spoilt: Path) -> None:
    assert call("compare", spoilt, "--models", "derive-pm1,derive-sm").exit_code == 3
    done = call("compare", spoilt, "--models", "derive-pm1,derive-sm", *QUARANTINE, "--format", "json")
    rows = json.loads(done.stdout)
    assert {row["account_id"] for row in rows if row["status"] == "unknown"} == {"carol", "dave"}
    assert all(row["maintenance_margin"] is None for row in rows if row["status"] == "unknown")


def test_a_snapshot_commits_to_those_who_are_known(call: Call, spoilt: Path, tmp_path: Path) -> None:
    done = call("snapshot", spoilt, *MODEL, "--out", tmp_path, *QUARANTINE)
    assert done.exit_code == 0
    solvency = Path(done.stdout.strip()) / "solvency"
    figures = json.loads((solvency / "solvency.json").read_text())
    assert (figures["accounts"], figures["not_committed"]) == (5, 2)
    assert pl.read_parquet(solvency / "leaves.parquet").height == 3
