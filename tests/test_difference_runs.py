"""Claims about the runs that a difference is of: folders, models, streamed books, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpumargin import diff
from gpumargin.catalogue import load_model
from gpumargin.difference.outcome import Step, outcome_of
from gpumargin.difference.side import open_side
from gpumargin.errors import GpumarginError, InputError, InternalError, UsageError
from gpumargin.prepare import Options
from gpumargin.run import margin_to_folder
from gpumargin.tables import read_book
from tests.books import AS_OF, tiny_book, with_cell, write_book
from tests.differences import (
    LATER,
    MOVES,
    Tables,
    effects,
    effects_found,
    made_elsewhere,
    moved,
    require_adds_up,
    run_of,
)

if TYPE_CHECKING:
    from gpumargin.runs import Run

EVERYTHING = [move for moves in MOVES.values() for move in moves]


def in_folder(place: Path, tables: Tables, model: str = "derive-pm1", as_of: object = AS_OF, **options: Any) -> Path:
    """The folder of a run of a book that stands beside it."""
    book = write_book(place / "book", tables)
    chosen = Options(as_of=as_of, book_path=str(book), **options)  # type: ignore[arg-type]
    return margin_to_folder(read_book(book), load_model(model), place / "runs", chosen)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with two runs, `a` and `b`, and their books, which no test may change."""
    place = tmp_path_factory.mktemp("pair")
    in_folder(place / "a", tiny_book())
    in_folder(place / "b", moved(*EVERYTHING), as_of=LATER)
    return place


@pytest.fixture
def copied(pair: Path, tmp_path: Path) -> Path:
    """A copy of it, to be tampered with; the runs name the books of the copy."""
    place = shutil.copytree(pair, tmp_path / "pair")
    for manifest in place.glob("*/runs/*/manifest.json"):
        content = json.loads(manifest.read_text("utf-8"))
        content["book"] = str(manifest.parents[2] / "book")
        manifest.write_text(json.dumps(content), "utf-8")
    return place


def runs(place: Path) -> tuple[Path, Path]:
    return place / "a" / "runs", place / "b" / "runs"


def rewritten(place: Path, run: str, table: str, column: str) -> None:
    """Writes a table of a book again with one number changed."""
    tables = {"a": tiny_book(), "b": moved(*EVERYTHING)}[run]
    cell = tables[table][column][0]
    write_book(place / run / "book", {table: with_cell(tables, table, row=0, column=column, value=cell * 1.5)[table]})


@pytest.mark.slow
def test_folders_differ_as_runs_in_memory_do(pair: Path) -> None:
    before, after = run_of(tiny_book()), run_of(moved(*EVERYTHING), as_of=LATER)
    found = diff(*runs(pair))
    require_adds_up(found, before, after)
    for other in (diff(before, after), diff(runs(pair)[0], after), diff(before, runs(pair)[1])):
        assert other.accounts.equals(found.accounts)
        assert other.totals.equals(found.totals)
        assert other.crossings.equals(found.crossings)


def test_a_folder_does_not_differ_from_itself(pair: Path) -> None:
    assert diff(runs(pair)[0], runs(pair)[0] / "latest").accounts.is_empty()


@pytest.mark.slow
def test_a_book_that_is_streamed_gives_the_same(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = diff(*runs(pair))
    monkeypatch.setattr("gpumargin.tables.stream._ROW_BYTES", dict.fromkeys(("positions", "balances"), 10**6))
    monkeypatch.setattr("gpumargin.tables.stream.read_book", None)
    streamed = diff(*runs(pair), memory_budget=16 * 10**6)
    assert streamed.accounts.equals(found.accounts)


@pytest.mark.parametrize("run", ["a", "b"])
@pytest.mark.parametrize(("table", "column"), [("prices", "price"), ("marks", "mark_iv")])
def test_a_market_that_was_changed_since_is_named(copied: Path, run: str, table: str, column: str) -> None:
    rewritten(copied, run, table, column)
    with pytest.raises(InputError, match=rf"GM119 {table}: RUN_{run.upper()}'s book .* another table '{table}'"):
        diff(*runs(copied))


@pytest.mark.parametrize(("table", "column"), [("positions", "quantity"), ("balances", "amount")])
def test_positions_and_balances_that_were_changed_since_are_named(copied: Path, table: str, column: str) -> None:
    rewritten(copied, "b", table, column)
    with pytest.raises(InputError, match=rf"GM119 {table}: RUN_B's book"):
        diff(*runs(copied))


def test_what_the_first_run_held_is_taken_from_its_results_and_not_read_again(pair: Path, copied: Path) -> None:
    rewritten(copied, "a", "positions", "quantity")
    assert diff(*runs(copied)).accounts.equals(diff(*runs(pair)).accounts)


def test_a_book_that_has_gone_is_named(copied: Path) -> None:
    (copied / "a" / "book").rename(copied / "elsewhere")
    with pytest.raises(UsageError, match=r"RUN_A .* was made from the book .* not there now"):
        diff(*runs(copied))


def test_a_written_run_of_tables_in_memory_says_that_it_has_no_book(pair: Path, tmp_path: Path) -> None:
    folder = run_of(tiny_book()).write(tmp_path)
    with pytest.raises(UsageError, match=r"RUN_A .* names no book"):
        diff(folder, runs(pair)[1])


def test_accounts_that_are_not_those_published_are_refused(copied: Path) -> None:
    path = min((copied / "a" / "runs").glob("*/accounts/*.parquet"))
    table = pq.read_table(path)
    equity = pa.array([value + 1 for value in table["equity_minor"].to_pylist()])
    place = table.column_names.index("equity_minor")
    pq.write_table(table.set_column(place, table.schema.field(place), equity), path)
    with pytest.raises(InternalError, match="GM202: the accounts in"):
        diff(*runs(copied))


def test_a_torn_result_is_refused(copied: Path) -> None:
    path = min((copied / "b" / "runs").glob("*/accounts/*.parquet"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"part-00000.* cannot be read"):
        diff(*runs(copied))


def test_a_folder_without_accounts_is_refused(copied: Path) -> None:
    (folder,) = (copied / "b" / "runs").glob("*/accounts")
    shutil.rmtree(folder)
    with pytest.raises(InternalError, match="GM202"):
        diff(*runs(copied))


def with_bad_rows(tables: Tables) -> dict[str, pl.DataFrame]:
    """The book with a position that is no number (bob's) and a mark (alice's far call) that is none."""
    broken = with_cell(tables, "positions", row=4, column="quantity", value=float("nan"))
    return with_cell(broken, "marks", row=2, column="mark_iv", value=float("inf"))


@pytest.mark.slow
def test_accounts_in_doubt_have_no_effects_and_the_others_those_that_they_would_have(tmp_path: Path) -> None:
    def at(name: str, tables: Tables, when: object) -> Path:
        return in_folder(tmp_path / name, tables, as_of=when, on_bad_rows="quarantine")

    whole = diff(run_of(tiny_book()), run_of(moved(*EVERYTHING), as_of=LATER))
    good, bad = at("good", tiny_book(), AS_OF), at("bad", with_bad_rows(moved(*EVERYTHING)), LATER)
    found = diff(good, bad)
    doubtful = pl.col("account_id").is_in(["alice", "bob"])
    assert found.accounts.filter(~doubtful).equals(whole.accounts.filter(~doubtful))
    lost = found.accounts.filter(doubtful)
    assert lost.select("status_before", "status").rows() == [("healthy", "unknown")] * 2
    assert lost["equity_change_minor"].null_count() == 2
    for name in ("equity", "initial_margin"):
        amounts = dict(found.totals.select("effect", pl.col(name).map_elements(Decimal, pl.Object)).iter_rows())
        assert amounts.pop("after") == sum(amounts.values())
        assert amounts["unknown"] != 0
    assert found.crossed["account_id"].to_list()[:2] == ["alice", "bob"]
    cured = diff(at("worse", with_bad_rows(tiny_book()), AS_OF), at("well", moved(*EVERYTHING), LATER))
    assert cured.accounts.filter(~doubtful).equals(whole.accounts.filter(~doubtful))
    assert set(cured.accounts.filter(doubtful)["status_before"]) == {"unknown"}


def test_a_manifest_of_another_time_is_refused(copied: Path) -> None:
    (path,) = (copied / "a" / "runs").glob("*/manifest.json")
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({name: content[name] for name in content if name != "inputs"}), "utf-8")
    with pytest.raises(UsageError, match=r"the manifest of RUN_A .* has no inputs; run the book again"):
        diff(*runs(copied))
    label = next(iter(content["models"]))
    content["models"][label]["margin"] = {}
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(UsageError, match=rf"the model '{label}' of a run is not valid"):
        diff(*runs(copied))


def test_the_older_run_comes_first(pair: Path) -> None:
    with pytest.raises(UsageError, match="before RUN_A at 2026-03-07"):
        diff(*reversed(runs(pair)))


def test_money_that_is_counted_in_another_asset_is_refused() -> None:
    dollars = load_model("derive-pm1").replace({"accounting_asset": "ETH"})
    with pytest.raises(UsageError, match=r"'alice' the first, count money in USDC in RUN_A .* and in ETH in RUN_B"):
        diff(run_of(tiny_book()), run_of(tiny_book(), dollars))


def test_other_minor_units_are_refused() -> None:
    with pytest.raises(UsageError, match="USDC has 6 decimals in the book of RUN_A and 2 in that of RUN_B"):
        diff(run_of(tiny_book()), run_of(with_cell(tiny_book(), "assets", row=0, column="decimals", value=2)))


def perpetuals(tables: Tables) -> dict[str, pl.DataFrame]:
    """The book without options."""
    kept = pl.col("instrument_id").str.ends_with("PERP")
    return {**tables, **{name: tables[name].filter(kept) for name in ("instruments", "marks", "positions")}}


@pytest.mark.slow
def test_what_the_first_models_cannot_margin_is_said(start: Run) -> None:
    before = run_of(perpetuals(tiny_book()), "hyperliquid")
    after = run_of(moved(EVERYTHING[0]), load_model("derive-pm1").replace({"accounting_asset": "USDC"}))
    with pytest.raises(GpumarginError, match="RUN_B holds in the market of RUN_A cannot be margined"):
        diff(before, after)


@pytest.mark.slow
def test_ids_may_be_numbers(start: Run) -> None:
    def numbered(tables: Tables) -> dict[str, pl.DataFrame]:
        names = {"alice": 11, "bob": 12, "carol": 13, "dave": 14}
        number = pl.col("account_id").replace_strict(names, return_dtype=pl.Int64)
        return {**tables, **{name: tables[name].with_columns(number) for name in ("positions", "balances")}}

    before, after = run_of(numbered(tiny_book())), run_of(numbered(moved(*EVERYTHING)), as_of=LATER)
    named = diff(start, run_of(moved(*EVERYTHING), as_of=LATER))
    found = diff(before, after)
    assert found.accounts["account_id"].to_list() == ["11", "12", "13", "14", "14"][: found.accounts.height]
    assert found.accounts.drop("account_id").equals(named.accounts.drop("account_id"))


@pytest.fixture(scope="module")
def start() -> Run:
    return run_of(tiny_book())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "cut"),
    [
        ("derive-pm2", dict),
        ("deribit-pm", dict),
        ("correlated-pm", dict),
        ("paradex-cross", dict),
        ("hyperliquid", perpetuals),
        ("dydx-v4", perpetuals),
    ],
)
def test_effects_add_up_under_every_kind_of_model(model: str, cut: object) -> None:
    before, after = run_of(cut(tiny_book()), model), run_of(cut(moved(*EVERYTHING)), model, LATER)  # type: ignore[operator]
    found = diff(made_elsewhere(before), after)
    require_adds_up(found, before, after)
    assert {"position", "price"} <= effects_found(found) <= {"position", "time", "price", "vol"}


def test_an_account_whose_number_is_not_known_is_left_out_of_the_effects_and_counted(start: Run) -> None:
    first, second = open_side(start, "RUN_A"), open_side(run_of(moved(EVERYTHING[0])), "RUN_B")
    bob = pl.col("account_id") == "bob"
    lost = second.accounts.with_columns(pl.when(bob).then(None).otherwise("equity").alias("equity"))
    second = replace(second, accounts=lost)
    found = outcome_of(first, second, [Step("position", second.accounts)])
    totals = {effect: Decimal(equity) for effect, equity in found.totals.select("effect", "equity").iter_rows()}
    before = first.accounts.filter(bob)["equity"][0]
    assert totals["unknown"] == -Decimal(before).scaleb(-6)
    assert totals["before"] + totals["position"] + totals["unknown"] == totals["after"]
    row = found.accounts.filter(bob).row(0, named=True)
    assert (row["equity_change_minor"], row["equity_position_minor"]) == (None, None)
    assert row["initial_margin_change_minor"] == row["initial_margin_position_minor"] != 0


def test_later_by_a_moment_is_a_time_effect_of_next_to_nothing(start: Run) -> None:
    found = diff(start, run_of(tiny_book(), as_of=AS_OF + timedelta(microseconds=1)))
    assert effects_found(found) <= {"time"}
    assert all(abs(n) <= 100 for n in effects(found, "alice").values())
