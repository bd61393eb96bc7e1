"""Claims about the verb `diff`."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet as pq
import pytest

from gpumargin.difference import EFFECTS
from tests.books import tiny_book, with_cell, write_book
from tests.cli.conftest import MODEL
from tests.differences import MOVES, scaled

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Call

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def later(call: Call, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that holds one of a day later, with other positions, prices, vols and a stricter model."""
    tables = tiny_book()
    for move in (scaled("positions", "quantity", 1.5), *MOVES["price"], *MOVES["vol"]):
        tables = move(tables)
    stamped = {name: tables[name].with_columns(pl.col("timestamp") + DAY) for name in ("marks", "forwards", "prices")}
    place = tmp_path_factory.mktemp("later")
    book = write_book(place / "book", {**tables, **stamped})
    done = call("run", book, *MODEL, "--set", "parameters.im_factor=1.4", "--out", place / "runs")
    assert done.exit_code == 0, done.stderr
    return place / "runs"


def test_totals_crossings_and_who_crossed_are_shown(call: Call, runs: Path, later: Path) -> None:
    done = call("diff", runs, later)
    assert done.exit_code == 0, done.stderr
    assert "4 of 5 accounts changed, 1 crossed a line; money in USDC" in done.stderr
    assert "as of 2026-03-06 08:00:00 UTC" in done.stderr
    words = done.stdout.split()
    for word in ("before", "position", "time", "price", "vol", "parameter", "after", "carol"):
        assert word in words
    assert not {"software", "unknown", "bob", "dave"} & set(words)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_nobody_is_listed_where_nothing_changed(call: Call, runs: Path) -> None:
    done = call("diff", runs, runs)
    assert done.exit_code == 0, done.stderr
    assert "0 of 5 accounts changed, 0 crossed a line" in done.stderr
    assert "alice" not in done.stdout


def test_json_adds_up_to_the_last_digit(call: Call, runs: Path, later: Path) -> None:
    done = call("diff", runs, later, "--format", "json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    amounts = {row["effect"]: Decimal(row["initial_margin"]) for row in found["totals"]}
    assert amounts.pop("after") == sum(amounts.values())
    assert sum(row["accounts"] for row in found["crossings"]) == 5
    assert [row["account_id"] for row in found["crossed"]] == ["carol"]


def test_every_account_that_changed_is_written_and_given_as_csv(
    call: Call, runs: Path, later: Path, tmp_path: Path
) -> None:
    done = call("diff", runs, later, "--out", tmp_path / "out", "-n", "0")
    assert done.exit_code == 0, done.stderr
    written = pl.read_parquet(tmp_path / "out" / "accounts.parquet")
    assert written.select("account_id", "pool").rows() == [
        ("alice", "cross"),
        ("bob", "cross"),
        ("carol", "cross"),
        ("dave", "isolated-1"),
    ]
    fields = pq.read_schema(tmp_path / "out" / "accounts.parquet")
    assert fields.field("equity_price_minor").metadata[b"unit"] == b"minor units of USDC"
    assert all(b"meaning" in field.metadata for field in fields)
    change = sum(written[f"equity_{effect}_minor"] for effect in EFFECTS)
    assert isinstance(change, pl.Series)
    assert change.to_list() == written["equity_change_minor"].to_list()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{name}.parquet" for name in ("accounts", "totals", "crossings")
    }
    text = call("diff", runs, later, "--format", "csv").stdout
    assert text.splitlines()[0] == ",".join(written.columns)
    assert len(text.splitlines()) == 1 + written.height


def test_a_book_that_changed_since_ends_with_3_and_says_what_to_do(call: Call, later: Path, tmp_path: Path) -> None:
    book = write_book(tmp_path / "book", tiny_book())
    assert call("run", book, *MODEL, "--out", tmp_path / "runs").exit_code == 0
    write_book(book, with_cell(tiny_book(), "prices", row=1, column="price", value=1.0))
    done = call("diff", tmp_path / "runs", later, columns=200)
    assert (done.exit_code, done.stdout) == (3, "")
    for word in ("GM119", "prices", "RUN_A", "folder each"):
        assert word in done.stderr


def test_balances_that_changed_since_are_known_by_the_bytes_of_their_file(
    call: Call, runs: Path, tmp_path: Path
) -> None:
    traded = with_cell(tiny_book(), "positions", row=0, column="quantity", value=0.5)
    moved = with_cell(traded, "prices", row=1, column="price", value=99_000.0)
    book = write_book(tmp_path / "book", moved)
    assert call("run", book, *MODEL, "--out", tmp_path / "runs").exit_code == 0
    assert call("diff", runs, tmp_path / "runs").exit_code == 0
    write_book(book, with_cell(moved, "balances", row=0, column="amount", value=1.0))
    done = call("diff", runs, tmp_path / "runs", columns=200)
    assert done.exit_code == 3
    assert "GM119" in done.stderr
    assert "balances" in done.stderr


@pytest.mark.parametrize("order", [("later", "runs"), ("runs", "nowhere")])
def test_runs_that_cannot_be_compared_end_with_2(
    call: Call, runs: Path, later: Path, tmp_path: Path, order: tuple[str, str]
) -> None:
    places = {"runs": runs, "later": later, "nowhere": tmp_path / "nowhere"}
    done = call("diff", *(places[name] for name in order))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "swap them" in done.stderr or "no run in" in done.stderr


def test_an_id_is_text_and_no_formula_or_markup(call: Call, tmp_path: Path) -> None:
    odd = "=HYPERLINK([bold red]x)"

    def run(name: str, factor: float) -> Path:
        tables = scaled("balances", "amount", factor)(tiny_book())
        renamed = pl.col("account_id").replace({"carol": odd})
        tables |= {table: tables[table].with_columns(renamed) for table in ("positions", "balances")}
        book = write_book(tmp_path / name, tables)
        assert call("run", book, *MODEL, "--out", tmp_path / f"{name}-runs").exit_code == 0
        return tmp_path / f"{name}-runs"

    pair = run("a", 1.0), run("b", 0.1)
    assert odd in call("diff", *pair, columns=200).stdout
    assert f"'{odd}" in call("diff", *pair, "--format", "csv").stdout
