"""Claims about the catalogue of bad inputs: a case is stopped before a kernel and named, or taken out and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from gpumargin import filling, prepare
from gpumargin.checks import BookChecks, check_book, resolve_as_of, sift_book
from gpumargin.errors import FAILURE_COLUMNS, InputError
from gpumargin.rejects import Rejects, fate_of
from gpumargin.run import margin
from gpumargin.tables import NO_FILE, Book, WholeBook, read_book
from tests.bad_inputs import CASES, UNREADABLE
from tests.books import tiny_book
from tests.ways import WAYS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults import Fault, Tables

ALL_WAYS = ("parquet-files", "folder-of-parts", "arrow-files", "polars-frames", "arrow-tables")
MODEL = "derive-pm1"
BROKEN = [case for case in CASES if case.policy != "W"]
ODD = [case for case in CASES if case.policy == "W"]


def named(cases: list[Fault]) -> list[Any]:
    return [pytest.param(case, id=f"{case.code}-{case.name}") for case in cases]


def marked(cases: list[Fault]) -> list[tuple[Fault, Any]]:
    """Cases and their marks: slow where the same code stood for the same table before."""
    seen = [(case.code, case.table) for case in cases]
    return [(case, pytest.mark.slow if seen[n] in seen[:n] else []) for n, case in enumerate(cases)]


def one_of_each(cases: list[Fault]) -> list[Any]:
    return [pytest.param(case, id=f"{case.code}-{case.name}", marks=marks) for case, marks in marked(cases)]


def by_turns(cases: list[Fault]) -> list[Any]:
    """Every case in every way; one of them, in turns, for those who have little time."""
    return [
        pytest.param(case, way, id=f"{case.code}-{case.name}-{way}", marks=pytest.mark.slow if (n + k) % 5 else marks)
        for n, (case, marks) in enumerate(marked(cases))
        for k, way in enumerate(ALL_WAYS)
    ]


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would be computed fails the test instead."""

    def reached(*_: object, **__: object) -> None:
        pytest.fail("a kernel was reached")

    monkeypatch.setattr(prepare, "Engine", reached)
    monkeypatch.setattr(filling, "computed", reached)


def place(way: str, table: str, number: int | None, tables: Tables) -> tuple[str, int | None]:
    """File and row in it, where a way of writing the tables puts a row."""
    if number is None:
        return "", None
    half = tables[table].height // 2
    if way == "folder-of-parts":
        return f"{table}/part-{int(number >= half)}.parquet", number - half * (number >= half)
    files = {"parquet-files": f"{table}.parquet", "arrow-files": f"{table}.arrow"}
    return files.get(way, "(in memory)"), number


def refused(book: Book, case: Fault) -> pl.DataFrame:
    """Failures of a run; of the checks alone where a case asks for what the model, or only the last part, decides."""
    if case.options.keys() - {"as_of", "max_age"} or case.code == "GM120":
        return check_book(book, **case.options)
    with pytest.raises(InputError) as caught:
        margin(book, MODEL, **case.options)
    assert caught.value.exit_code == 3
    return caught.value.failures


def test_the_catalogue_is_large_and_has_every_code_that_a_row_can_break() -> None:
    codes = {case.code for case in CASES} | {code for _, code, _, _ in UNREADABLE.values()}
    print(f"\n{len(CASES)} cases and {len(UNREADABLE)} that cannot be read, of {len(codes)} codes")  # noqa: T201
    assert len(CASES) + len(UNREADABLE) >= 180
    # GM114 and GM115 are about model files, GM119 about files
    assert codes == {f"GM{n}" for n in range(101, 121)} - {"GM114", "GM115", "GM119"}


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize(("case", "way"), by_turns(BROKEN))
def test_a_case_ends_a_run_before_any_kernel_and_is_named(case: Fault, way: str, tmp_path: Path) -> None:
    tables = case.edit(tiny_book())
    failures = refused(WAYS[way](tables, tmp_path), case)
    assert tuple(failures.columns) == FAILURE_COLUMNS
    file, number = place(way, case.table, case.row, tables)
    found = failures.filter(code=case.code, table=case.table, file=file, column=case.column)
    assert number in found["row"].to_list(), failures.rows()
    assert all(len(text) > 5 for column in ("message", "remedy") for text in failures[column])
    value = tables[case.table][case.column][case.row] if case.column in tables[case.table].columns else None
    shown = found.filter(row=number)["value"][0]
    assert shown == "null" if value is None else bool(shown) == bool(str(value))
    assert all(text.isprintable() and len(text) <= 600 for text in failures["message"])


def whose(tables: Tables, table: str, row: int) -> set[tuple[str, str]]:
    """Margin accounts that a row of the tiny book is of, or that hold something that depends on it."""
    spoilt = tables[table].row(row, named=True)
    if "account_id" in spoilt:
        return {(spoilt["account_id"], spoilt.get("pool") or ("cross" if spoilt.get("pool") is None else ""))}
    contracts = tables["instruments"]
    if table in ("instruments", "marks"):
        ids = [spoilt["instrument_id"]]
    elif table == "forwards":
        ids = contracts.filter(underlying=spoilt["underlying"], expiry=spoilt["expiry"])["instrument_id"].to_list()
    elif table in ("prices", "assets"):
        asset = spoilt["asset"]
        depends = (pl.col("underlying") == asset) | (pl.col("settlement") == asset)
        ids = contracts.filter(depends)["instrument_id"].to_list()
    else:
        return set()
    held = [
        tables[name].filter(pl.col("instrument_id").is_in(ids)) for name in ("positions", "orders") if name in tables
    ]
    if table in ("prices", "assets"):
        held.append(tables["balances"].filter(asset=spoilt["asset"]))
    return {(r["account_id"], r.get("pool") or "cross") for frame in held for r in frame.iter_rows(named=True)}


def table_row(case: Fault, failures: pl.DataFrame) -> set[tuple[str, int]]:
    return {(r["table"], r["row"]) for r in failures.iter_rows(named=True) if r["row"] is not None} | {
        (case.table, int(case.row or 0))
    }


@pytest.mark.parametrize("case", one_of_each([case for case in BROKEN if case.policy == "Q"]))
def test_quarantine_takes_out_the_row_and_leaves_a_sound_book(case: Fault, tmp_path: Path) -> None:
    tables = case.edit(tiny_book())
    book = Book(**tables)
    checks, counted = BookChecks(book, "quarantine", **case.options), Rejects()
    part = checks.part(book)
    assert checks.finished().is_empty()
    rejected = checks.rejected_market if part.rejected is None else pl.concat([checks.rejected_market, part.rejected])
    own = rejected.filter(table=case.table, row=case.row, code=case.code, column=case.column)
    assert own.height == 1, rejected.rows()
    as_of = resolve_as_of(part.book, case.options.get("as_of"))
    left = check_book(part.book, **{**case.options, "as_of": as_of})
    # an account of which nothing is left keeps its name, whatever that is
    assert left.filter(pl.col("file") != NO_FILE).is_empty(), left.rows()
    counted.add(fate_of(part.book, checks.rejected_market, is_market=True), tmp_path)
    counted.add(fate_of(part.book, part.rejected, is_market=False), tmp_path)
    rows = counted.summary(WholeBook(book).files)
    assert sum(rows["used"].values()) + rows["quarantined"] == sum(rows["read"].values())
    assert rows["quarantined"] == rejected.unique(("table", "file", "row")).height
    blamed = table_row(case, check_book(book, max_examples=None, **case.options))
    expected = set().union(*(whose(tables, *row) for row in blamed))
    assert set(() if part.unknown is None else part.unknown.rows()) == expected


@pytest.mark.parametrize("case", named([case for case in BROKEN if case.policy == "F"]))
def test_quarantine_spares_no_run_what_ends_it(case: Fault) -> None:
    failures = check_book(Book(**case.edit(tiny_book())), "quarantine", **case.options)
    assert (case.code, case.table, case.row, case.column) in failures.select("code", "table", "row", "column").rows()


@pytest.mark.parametrize(("case", "way"), by_turns(ODD))
def test_what_is_odd_is_told_and_used(case: Fault, way: str, tmp_path: Path) -> None:
    tables = case.edit(tiny_book())
    book = WAYS[way](tables, tmp_path)
    found = sift_book(book, "fail", **case.options)
    assert found.failures.is_empty()
    file, number = place(way, case.table, case.row, tables)
    told = found.warnings.select("code", "table", "file", "row", "column").rows()
    assert told == [(case.code, case.table, file, number, case.column)]


def test_the_tiny_book_is_not_odd() -> None:
    assert sift_book(Book(**tiny_book())).warnings.is_empty()


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_refused_with_table_and_column(name: str, way: str, tmp_path: Path) -> None:
    edit, code, table, column = UNREADABLE[name]
    with pytest.raises(InputError) as caught:
        WAYS[way](edit(tiny_book()), tmp_path)
    assert {(code, table, column)} <= set(caught.value.failures.select("code", "table", "column").rows())
    assert all(caught.value.failures["remedy"].str.len_chars() > 5)


def test_decimals_of_two_scales_in_the_files_of_a_table_are_refused(tmp_path: Path) -> None:
    book = tiny_book()
    amounts = [book["balances"].cast({"amount": pl.Decimal(38, scale)}) for scale in (6, 9)]
    (tmp_path / "balances").mkdir()
    for k, frame in enumerate(amounts):
        frame[4 * k : 4 * k + 4].write_parquet(tmp_path / "balances" / f"{k}.parquet")
    rest = {name: frame for name, frame in book.items() if name != "balances"}
    with pytest.raises(InputError) as caught:
        read_book(**rest, balances=tmp_path / "balances")
    assert caught.value.failures.select("code", "column").rows() == [("GM116", "amount")]
