"""Claims about runs with bad rows in quarantine: who is unknown, that nobody else notices, and that rows add up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from gpumargin import rejects
from gpumargin.catalogue import load_model
from gpumargin.checks import quarantine
from gpumargin.engine import Settings
from gpumargin.errors import InputError, InternalError, ResourceError, UsageError
from gpumargin.prepare import Options
from gpumargin.publish import RunFolder
from gpumargin.run import margin, margin_folder
from gpumargin.synth import generate_book
from gpumargin.tables import BookFiles, open_book, read_book
from tests.books import tiny_book, with_cell, with_row
from tests.faults import INF, NAN, cell, chain, copied, row
from tests.sampled import rest_slow

if TYPE_CHECKING:
    from pathlib import Path

    from gpumargin.runs import Run

MODEL = "derive-pm1"
SMALL = 3 << 18
KEYS = ["account_id", "pool"]


def quarantined(tables: dict[str, pl.DataFrame], **options: Any) -> Run:
    return margin(read_book(**tables), MODEL, on_bad_rows="quarantine", **options)


def states(run: Run) -> dict[tuple[str, str], str]:
    return {(r["account_id"], r["pool"]): r["status"] for r in run.accounts.iter_rows(named=True)}


def unknown(run: Run) -> set[str]:
    return {
        account if pool == "cross" else f"{account}/{pool}"
        for (account, pool), s in states(run).items()
        if s == "unknown"
    }


@pytest.fixture(scope="module")
def good() -> Run:
    return margin(read_book(**tiny_book()), MODEL)


BAD_ROWS = {
    "a position": (cell("positions", 8, "quantity", NAN), {"carol"}),
    "the only position": (cell("positions", 9, "instrument_id", "SOL-PERP"), {"dave/isolated-1"}),
    "every row": (
        chain(cell("positions", 9, "quantity", INF), cell("balances", 7, "amount", None)),
        {"dave/isolated-1"},
    ),
    "a balance": (cell("balances", 0, "asset", "DOGE"), {"alice"}),
    "an order": (
        row("orders", account_id="bob", order_id="1", instrument_id="BTC-PERP", side="up", quantity=1.0, price=1.0),
        {"bob"},
    ),
    "an order of nobody": (
        row("orders", account_id="eve", order_id="1", instrument_id="BTC-PERP", side="buy", quantity=1.0, price=1.0),
        {"eve"},
    ),
    "a row of accounts": (row("accounts", account_id="bob", owner_id="o\u202e"), {"bob"}),
    "a mark": (cell("marks", 5, "mark_price", -1.0), {"alice", "carol"}),
    "a vol": (cell("marks", 3, "mark_iv", 75.0), {"bob"}),
    "a contract": (cell("instruments", 0, "contract_size", 0.0), {"bob"}),
    "a forward": (cell("forwards", 3, "forward", NAN), {"alice"}),
    "a price": (cell("prices", 1, "price", -1.0), {"alice", "bob", "carol"}),
    "decimals of an asset": (cell("assets", 2, "decimals", 19), {"alice", "bob", "carol", "dave/isolated-1"}),
    "an unheld mark": (row("marks", instrument_id="SOL-PERP", mark_price=1.0), set()),
}


FAST = ("every row", "a row of accounts", "a mark", "a forward", "a price")


@pytest.mark.parametrize("name", rest_slow([*BAD_ROWS], FAST))
def test_who_is_touched_is_unknown_and_everybody_else_has_the_same_bits(name: str, good: Run) -> None:
    edit, touched = BAD_ROWS[name]
    run = quarantined(edit(tiny_book()))
    assert unknown(run) == touched
    known = run.accounts.filter(pl.col("status").cast(pl.String) != "unknown")
    theirs = good.accounts.join(known.select(KEYS), on=KEYS, how="semi", maintain_order="left")
    assert known.equals(theirs.cast(dict(known.schema)))
    units = run.units.join(known.select(KEYS), on=KEYS, how="semi", maintain_order="left")
    assert units.equals(
        good.units.join(known.select(KEYS), on=KEYS, how="semi", maintain_order="left").cast(dict(units.schema))
    )
    rows = run.summary["rows"]
    assert rows["quarantined"] == run.quarantine.unique(["table", "file", "row"]).height
    assert sum(rows["read"].values()) == sum(rows["used"].values()) + rows["quarantined"]


def test_an_unknown_account_shows_no_amount_and_is_in_no_total() -> None:
    run = quarantined(with_cell(tiny_book(), "positions", row=2, column="quantity", value=NAN))
    alice = run.accounts.filter(account_id="alice").row(0, named=True)
    said = {name for name, value in alice.items() if value is not None}
    assert said == {"account_id", "pool", "model", "status", "num_positions"}
    assert alice["num_positions"] == 3
    minor = run.accounts["equity_minor"].drop_nulls().sum()
    assert run.summary["by_accounting_asset"]["USDC"]["totals"]["equity"] == f"{minor / 1e6:.6f}"
    assert run.summary["by_accounting_asset"]["USDC"]["status"]["unknown"] == 1


def test_the_table_says_which_row_of_which_file_and_what_to_do() -> None:
    run = quarantined(with_cell(tiny_book(), "marks", row=5, column="mark_price", value=-1.0))
    rows = run.quarantine.rows(named=True)
    assert list(rows[0]) == ["table", "file", "row", "code", "column", "value", "message"]
    own = next(r for r in rows if r["table"] == "marks")
    assert (own["row"], own["code"], own["column"], own["value"]) == (5, "GM109", "mark_price", "-1.0")
    assert own["message"] == "mark_price is -1.0, expected at least 0; give a value of at least 0"
    followers = [(r["table"], r["row"]) for r in rows if "stands on row" in r["message"]]
    assert followers == [("instruments", 5), ("positions", 2), ("positions", 7)]


def test_a_sound_book_has_an_empty_quarantine_and_the_same_results(good: Run) -> None:
    run = quarantined(tiny_book())
    assert run.manifest["results"] == good.manifest["results"]
    assert run.summary["rows"] == good.summary["rows"]
    assert run.quarantine.is_empty()
    with pytest.raises(UsageError, match="no table 'quarantine'"):
        _ = good.quarantine


def test_what_ends_a_run_ends_it_in_quarantine_too() -> None:
    bad = chain(cell("positions", 0, "quantity", NAN), copied("positions", 4))(tiny_book())
    with pytest.raises(InputError) as caught:
        quarantined(bad)
    assert set(caught.value.failures["code"]) == {"GM104"}
    with pytest.raises(InputError, match="account_id is null"):
        quarantined(with_cell(tiny_book(), "positions", row=2, column="account_id", value=None))


def test_a_ledger_counts_what_lies_in_quarantine() -> None:
    tables = with_row(tiny_book(), "ledger", asset="USDC", total=210_500.0)
    run = quarantined(with_cell(tables, "balances", row=0, column="pool", value="cro\u202ess"))
    assert unknown(run) == {"alice/cro\u202ess"}
    with pytest.raises(InputError, match="GM120"):
        quarantined(with_cell(tables, "balances", row=0, column="amount", value=NAN))


def test_an_option_whose_vol_came_from_one_in_quarantine_is_unknown_too() -> None:
    tables = with_cell(tiny_book(), "marks", row=2, column="mark_iv", value=None)
    run = quarantined(with_cell(tables, "marks", row=0, column="mark_iv", value=75.0))
    assert unknown(run) == {"alice", "bob"}
    told = run.quarantine.filter(table="instruments", code="GM107")
    assert told["value"].to_list() == ["BTC-20260626-80000-C"]


@pytest.mark.slow
def test_a_price_that_no_vol_explains_goes_where_the_kernels_find_it() -> None:
    tables = tiny_book()
    for number, price in ((3, 5_000.0), (4, None)):
        tables = with_cell(tables, "marks", row=number, column="mark_iv", value=None)
        tables = with_cell(tables, "marks", row=number, column="mark_price", value=price)
    run = quarantined(tables)
    assert unknown(run) == {"alice", "bob"}
    assert run.quarantine.filter(table="marks", code="GM107").height


def test_integer_ids_are_told_apart_too() -> None:
    tables = tiny_book()
    numbers = {"alice": 3, "bob": 1, "carol": 2, "dave": 4}
    for name in ("positions", "balances"):
        tables[name] = tables[name].with_columns(pl.col("account_id").replace_strict(numbers))
    spoilt = chain(
        cell("positions", 9, "quantity", NAN), cell("balances", 7, "amount", NAN), cell("positions", 4, "quantity", NAN)
    )
    run = quarantined(spoilt(tables))
    assert {key for key, status in states(run).items() if status == "unknown"} == {(1, "cross"), (4, "isolated-1")}


def test_a_run_explains_who_is_known_and_says_why_it_does_not_explain_others() -> None:
    run = quarantined(with_cell(tiny_book(), "positions", row=8, column="quantity", value=NAN))
    assert run.explain("alice").headline["status"] == "healthy"
    with pytest.raises(UsageError, match=r"'carol' .* is unknown.*quarantine"):
        run.explain("carol")


def test_a_row_that_is_neither_used_nor_in_quarantine_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    take_out = quarantine.without
    one_more = lambda book, gone: take_out(book, {name: [*rows, 0] for name, rows in gone.items()})  # noqa: E731
    monkeypatch.setattr(quarantine, "without", one_more)
    with pytest.raises(InternalError, match=r"GM202: of 10 rows of \(in memory\) \(positions\) 8 were used and 1"):
        quarantined(with_cell(tiny_book(), "positions", row=8, column="quantity", value=NAN))


# --- Part by part.


def spoilt(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Rows all over a generated book that break rules of every kind."""
    every, last = pl.int_range(pl.len()), frame.height - 1
    if name == "positions":
        return frame.with_columns(
            quantity=pl.when(every.is_in([3, 700, last])).then(NAN).otherwise("quantity"),
            instrument_id=pl.when(every == last - 40).then(pl.lit("NO-SUCH")).otherwise("instrument_id"),
        )
    if name == "balances":
        return frame.with_columns(
            amount=pl.when(every.is_in([0, 1, 2, 3, 100])).then(None).otherwise("amount"),
            account_id=pl.when(every.is_in([5, 300]))
            .then(pl.col("account_id").str.to_uppercase())
            .otherwise("account_id"),
        )
    if name == "accounts":
        return frame.with_columns(owner_id=pl.when(every == 50).then(pl.lit("o\u202e")).otherwise("owner_id"))
    if name == "marks":
        return frame.with_columns(mark_iv=pl.when(every == 40).then(99.0).otherwise("mark_iv"))
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spoilt book, shuffled."""
    path = tmp_path_factory.mktemp("quarantine") / "book"
    generate_book(path / "made", accounts=300, positions_per_account=7, underlyings=2, seed=5)
    book = read_book(path / "made")
    for name in book.tables:
        frame = spoilt(name, book.frame(name))
        frame.sample(fraction=1, shuffle=True, seed=3).write_parquet(path / f"{name}.parquet", row_group_size=400)
    return path


def said(run: Path) -> dict[str, Any]:
    summary, manifest = (json.loads((run / f"{name}.json").read_text()) for name in ("summary", "manifest"))
    told = {name: summary[name] for name in ("by_accounting_asset", "balances", "rows", "warnings", "filled")}
    rows = {name: pl.read_parquet(run / f"{name}.parquet").rows() for name in ("quarantine", "owners")}
    return told | {"results": manifest["results"], "inputs": manifest["inputs"], **rows}


def published(folder: Path, out: Path, memory: int, **more: Any) -> Path:
    options = Options(settings=Settings(memory_budget=memory), on_bad_rows="quarantine")
    return margin_folder(folder, load_model(MODEL), out, options, **more)


@pytest.mark.slow
def test_a_book_in_parts_has_the_quarantine_of_the_whole_book(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = published(folder, tmp_path / "whole", 4 << 30)
    assert isinstance(open_book(folder, memory=SMALL), BookFiles)
    expected = said(whole)
    assert said(published(folder, tmp_path / "parts", SMALL)) == expected
    assert {record[0] for record in expected["quarantine"]} == {
        "marks",
        "instruments",
        "positions",
        "balances",
        "accounts",
    }
    assert {record[3] for record in expected["quarantine"]} == {"GM102", "GM103", "GM105", "GM110", "GM118"}
    assert {(odd["code"], odd["table"]) for odd in expected["warnings"]} == {
        ("GM118", "accounts"),
        ("GM106", "positions"),
    }
    monkeypatch.setattr(rejects, "_IN_MEMORY", 0)  # records wait on disk
    assert said(published(folder, tmp_path / "spilled", SMALL)) == expected


@pytest.mark.slow
def test_a_resumed_run_has_the_quarantine_and_the_warnings_of_the_uninterrupted_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = said(published(folder, tmp_path / "whole", SMALL))
    finish = RunFolder.finish_part

    def broken_off(place: RunFolder, *arguments: Any) -> None:
        finish(place, *arguments)
        if len(place.finished) == 3:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish_part", broken_off)
        with pytest.raises(ResourceError, match="3 parts are finished"):
            published(folder, tmp_path / "runs", SMALL)
    notes: list[str] = []
    assert said(published(folder, tmp_path / "runs", SMALL, resumes=True, note=notes.append)) == expected
    assert "behind 3 finished parts" in notes[0]


@pytest.mark.slow
def test_those_who_lost_nothing_have_the_results_of_the_book_without_the_bad_rows(folder: Path, tmp_path: Path) -> None:
    run = published(folder, tmp_path / "runs", SMALL)
    found = pl.read_parquet(run / "accounts" / "*.parquet")
    gone = pl.read_parquet(run / "quarantine.parquet").select("table", "row").unique()
    kept = {}
    for name in read_book(folder).tables:
        frame = pl.read_parquet(folder / f"{name}.parquet").with_row_index("row").cast({"row": pl.Int64})
        kept[name] = frame.join(gone.filter(table=name), on="row", how="anti", maintain_order="left").drop("row")
    without = margin(read_book(**kept), MODEL).accounts
    known = found.filter(pl.col("status").cast(pl.String) != "unknown")
    assert 200 < known.height < found.height
    assert known.equals(
        without.join(known.select(KEYS), on=KEYS, how="semi", maintain_order="left").cast(dict(known.schema))
    )
    assert set(found.filter(pl.col("status").cast(pl.String) == "unknown")["num_positions"]) > {0}


@pytest.mark.parametrize("memory", [SMALL, 4 << 30], ids=["in parts", "whole"])
def test_what_ends_a_run_publishes_nothing(folder: Path, tmp_path: Path, memory: int) -> None:
    book = tmp_path / "book"
    book.mkdir()
    for path in folder.glob("*.parquet"):
        (book / path.name).write_bytes(path.read_bytes())
    frame = pl.read_parquet(book / "positions.parquet")
    pl.concat([frame, frame[1200:1201]]).write_parquet(book / "positions.parquet", row_group_size=400)
    with pytest.raises(InputError) as caught:
        published(book, tmp_path / "runs", memory)
    assert caught.value.failures["code"].to_list() == ["GM104"]
    assert not (tmp_path / "runs").exists()


def test_an_owner_of_an_unknown_account_is_unknown(folder: Path, tmp_path: Path) -> None:
    run = published(folder, tmp_path, 4 << 30)
    accounts = pl.read_parquet(run / "accounts" / "*.parquet").filter(pl.col("status").cast(pl.String) == "unknown")
    owned = pl.read_parquet(folder / "accounts.parquet").select(KEYS[0], "pool", "owner_id").drop_nulls()
    owners = pl.read_parquet(run / "owners.parquet").filter(
        pl.col("owner_id").is_in(accounts.join(owned, on=KEYS)["owner_id"].implode())
    )
    assert owners.height
    assert set(owners["status"].cast(pl.String)) <= {"unknown"} | {None}


def test_another_word_for_what_to_do_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="'ignore', expected one of fail, quarantine"):
        margin(read_book(**tiny_book()), MODEL, on_bad_rows="ignore")  # type: ignore[arg-type]
