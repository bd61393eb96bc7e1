"""Claims about reading a book: every way in gives the same tables, and every fault of form is named at once."""

from __future__ import annotations

import decimal
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pytest

from gpumargin.errors import InputError
from gpumargin.schema import ID, TABLES, TIME
from gpumargin.tables import Book, Source, read_book
from gpumargin.tables.canonical import canonical_column
from tests.books import NEAR, tiny_book, write_book
from tests.ways import WAYS, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_gives_the_same_tables(way: str, tmp_path: Path) -> None:
    expected = Book(**tiny_book())
    found = WAYS[way](tiny_book(), tmp_path)
    assert found.tables.keys() == expected.tables.keys()
    for name in expected.tables:
        assert found.frame(name).equals(expected.frame(name), null_equal=True), name


def test_columns_stand_in_canonical_types_and_contract_order() -> None:
    positions = Book(**tiny_book()).tables["positions"]
    assert positions.column_names == list(TABLES["positions"].by_name)
    assert positions.schema.types == [ID, ID, ID, pa.float64(), pa.float64(), pa.float64()]
    assert Book(**tiny_book()).tables["instruments"].schema.field("expiry").type == TIME


def test_absent_columns_get_the_defaults_of_the_contract() -> None:
    tables = tiny_book()
    tables["positions"] = tables["positions"].drop("pool")
    book = Book(**tables)
    assert book.frame("positions")["pool"].unique().to_list() == ["cross"]
    instruments = book.frame("instruments")
    assert instruments.select("inverse", "contract_size", "payoff", "premium").row(0) == (
        False,
        1.0,
        "vanilla",
        "upfront",
    )
    assert book.frame("prices").select("collateral_price", "collateral_confidence").row(1) == (68_000.0, 1.0)
    assert book.frame("marks")["confidence"].unique().to_list() == [1.0]


def test_nulls_in_a_defaulted_column_are_filled_and_other_cells_kept() -> None:
    tables = tiny_book()
    tables["prices"] = tables["prices"].with_columns(confidence=pl.Series([None, 0.9, None]))
    prices = Book(**tables).frame("prices")
    assert prices["confidence"].to_list() == [1.0, 0.9, 1.0]
    assert prices["collateral_confidence"].to_list() == [1.0, 0.9, 1.0]


def test_quote_defaults_to_settlement_and_to_usd_where_inverse() -> None:
    tables = tiny_book()
    inverse = pl.col("instrument_id") == "BTC-PERP"
    tables["instruments"] = tables["instruments"].with_columns(
        inverse=inverse, settlement=pl.when(inverse).then(pl.lit("BTC")).otherwise("settlement")
    )
    quotes = dict(Book(**tables).frame("instruments").select("instrument_id", "quote").iter_rows())
    assert (quotes["BTC-PERP"], quotes["ETH-PERP"]) == ("USD", "USDC")


def test_forward_quote_defaults_to_the_one_quote_of_its_underlying() -> None:
    tables = tiny_book()
    tables["forwards"] = tables["forwards"].drop("quote")
    assert Book(**tables).frame("forwards")["quote"].to_list() == ["USDC"] * 4


def test_forward_quote_stays_null_where_the_underlying_has_two() -> None:
    tables = tiny_book()
    tables["forwards"] = tables["forwards"].drop("quote")
    tables["instruments"] = tables["instruments"].with_columns(
        quote=pl.when(pl.col("instrument_id") == "ETH-PERP").then(pl.lit("USD")).otherwise(pl.lit("USDC"))
    )
    assert Book(**tables).frame("forwards")["quote"].to_list() == ["USDC", "USDC", None, None]


def test_decimals_default_to_two_for_usd_and_eight_for_the_rest() -> None:
    assets = pl.DataFrame({"asset": ["USD", "BTC"]})
    assert Book(**{**tiny_book(), "assets": assets}).frame("assets")["decimals"].to_list() == [2, 8]


def test_balances_keep_integers_and_decimals_exact() -> None:
    amounts = [decimal.Decimal("0.1") + index for index in range(8)]
    for dtype in (pl.Decimal(30, 6), pl.Int64):
        exact = pl.Series("amount", [int(value) for value in amounts] if dtype == pl.Int64 else amounts, dtype=dtype)
        tables = {**tiny_book(), "balances": tiny_book()["balances"].with_columns(exact)}
        assert Book(**tables).tables["balances"].column("amount").to_pylist() == exact.to_list()


ID_FORMS = {
    "large-string": pa.large_string(),
    "string-view": pa.string_view(),
    "dictionary-of-large-string": pa.dictionary(pa.uint32(), pa.large_string()),
}


@pytest.mark.parametrize("form", ID_FORMS)
def test_ids_may_come_in_any_form_of_text(form: str) -> None:
    table = tiny_book()["positions"].to_arrow()
    plain = table.column("account_id").cast(pa.large_string())
    encoded = plain.dictionary_encode().cast(ID_FORMS[form]) if "dictionary" in form else plain.cast(ID_FORMS[form])
    found = Book(**{**tiny_book(), "positions": table.set_column(0, "account_id", encoded)})
    assert found.tables["positions"].column("account_id").type == ID
    assert found.frame("positions")["account_id"].to_list() == plain.to_pylist()


@pytest.mark.parametrize(
    "dtype", [pl.Categorical, pl.Enum(["alice", "bob", "carol", "dave"])], ids=["categorical", "enum"]
)
def test_ids_may_be_polars_categories(dtype: pl.DataType) -> None:
    tables = {**tiny_book(), "positions": tiny_book()["positions"].cast({"account_id": dtype})}
    assert Book(**tables).frame("positions")["account_id"].to_list()[0] == "alice"


def test_a_dictionary_with_the_same_word_twice_gets_one_code_per_word() -> None:
    table = tiny_book()["balances"].to_arrow()
    twice = pa.DictionaryArray.from_arrays(
        pa.array([0, 0, 1, 2, 2, 3, 4, 4], pa.int8()), ["USDC", "BTC", "USDC", "ETH", "USDC"]
    )
    found = Book(**{**tiny_book(), "balances": table.set_column(2, "asset", twice)}).tables["balances"].column("asset")
    assert found.chunk(0).dictionary.to_pylist() == ["USDC", "BTC", "ETH"]
    assert found.to_pylist() == twice.to_pylist()


def test_chunks_of_one_dictionary_become_one_and_those_of_another_stay_apart() -> None:
    words = [pa.array(["USDC", "BTC", "USDC"]), pa.array(["BTC", "ETH"])]
    codes = [([0, None, 2], 0), ([1], 0), ([], 0), ([1, 0], 1), ([None, 1], 1), ([2], 0)]
    chunks = [pa.DictionaryArray.from_arrays(pa.array(own, pa.int8()), words[which]) for own, which in codes]
    values = pa.chunked_array(chunks)
    found = canonical_column(values, TABLES["balances"].by_name["asset"])
    assert found.to_pylist() == values.to_pylist()
    assert [len(chunk) for chunk in found.chunks] == [4, 4, 1]
    assert [chunk.dictionary.to_pylist() for chunk in found.chunks] == [["USDC", "BTC"], ["BTC", "ETH"], ["USDC"]]


@pytest.mark.parametrize("words", [["a", "b", "b"], ["b", "a", "b"], ["a", None, "b"]], ids=str)
def test_words_of_a_dictionary_become_distinct_in_whatever_order_they_stand(words: list[str | None]) -> None:
    values = pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array([2, 1, 0, 2]), pa.array(words))])
    found = canonical_column(values, TABLES["balances"].by_name["asset"])
    kept = found.chunk(0).dictionary.to_pylist()
    assert found.to_pylist() == values.to_pylist()
    assert len(set(kept)) == len(kept)
    assert None not in kept


def test_integer_ids_stay_integers() -> None:
    numbers = pl.col("account_id").cast(pl.Categorical).to_physical().cast(pl.UInt16)
    tables = {**tiny_book(), **{name: tiny_book()[name].with_columns(numbers) for name in ("positions", "balances")}}
    assert Book(**tables).tables["positions"].schema.field("account_id").type == pa.int64()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"], ids=["naive", "utc", "tokyo"])
def test_times_of_every_unit_and_zone_are_the_same_instant(unit: str, zone: str | None) -> None:
    table = tiny_book()["instruments"].to_arrow()
    times = table.column("expiry").cast(pa.timestamp("us")).cast(pa.timestamp(unit))
    times = times if zone is None else pa.compute.assume_timezone(times, "UTC").cast(pa.timestamp(unit, zone))
    at = table.column_names.index("expiry")
    found = Book(**{**tiny_book(), "instruments": table.set_column(at, "expiry", times)})
    assert found.tables["instruments"].column("expiry")[0].as_py() == NEAR


def test_numbers_may_be_single_precision_integers_or_decimals() -> None:
    for dtype in (pl.Float32, pl.Int32, pl.Decimal(20, 4)):
        tables = {**tiny_book(), "positions": tiny_book()["positions"].with_columns(pl.col("quantity").cast(dtype))}
        assert Book(**tables).tables["positions"].schema.field("quantity").type == pa.float64()


def test_rows_of_a_folder_of_parts_are_located_in_their_file(tmp_path: Path) -> None:
    write_book(tmp_path, tiny_book())
    positions = tiny_book()["positions"]
    (tmp_path / "positions.parquet").unlink()
    (tmp_path / "positions").mkdir()
    for number, rows in enumerate((positions[:4], positions[4:])):
        rows.write_parquet(tmp_path / "positions" / f"part-{number}.parquet")
    book = read_book(tmp_path)
    assert book.sources["positions"] == (Source("positions/part-0.parquet", 4), Source("positions/part-1.parquet", 6))
    assert book.locate("positions", 5) == ("positions/part-1.parquet", 1)
    with pytest.raises(IndexError, match="10 rows"):
        book.locate("positions", 10)


def test_optional_tables_without_rows_count_as_absent_and_required_ones_stay() -> None:
    empty = pl.DataFrame(schema={"account_id": pl.String})
    book = Book(**{**tiny_book(), "accounts": empty, "positions": tiny_book()["positions"].clear()})
    assert "accounts" not in book.tables
    assert book.num_rows("positions") == 0
    assert "positions" in book.tables


def test_tables_given_by_name_join_those_of_a_folder(tmp_path: Path) -> None:
    tables = tiny_book()
    balances = tables.pop("balances")
    book = read_book(write_book(tmp_path, tables), balances=balances, accounts=None)
    assert book.num_rows("balances") == 8


def test_hidden_files_other_endings_and_other_folders_are_passed_over(tmp_path: Path) -> None:
    write_book(tmp_path, tiny_book())
    (tmp_path / ".marks.parquet").write_text("temporary")
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / "archive").mkdir()
    assert read_book(tmp_path).tables.keys() == tiny_book().keys()


def _rename(table: str, **names: str) -> Callable[[dict[str, pl.DataFrame]], dict[str, pl.DataFrame]]:
    return lambda book: {**book, table: book[table].rename(names)}


def _retype(
    table: str, **types: pl.DataType | type[pl.DataType]
) -> Callable[[dict[str, pl.DataFrame]], dict[str, pl.DataFrame]]:
    return lambda book: {
        **book,
        table: book[table].with_columns(pl.col(name).cast(kind) for name, kind in types.items()),
    }


def _nested(book: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    return {**book, "prices": book["prices"].with_columns(pl.concat_list("price").alias("price"))}


FORM_FAULTS = [
    pytest.param(_rename("positions", quantity="qty"), "positions", {"qty", "quantity"}, id="misspelt-column"),
    pytest.param(_retype("positions", quantity=pl.String), "positions", {"quantity"}, id="number-as-text"),
    pytest.param(_retype("positions", quantity=pl.Boolean), "positions", {"quantity"}, id="number-as-flag"),
    pytest.param(_retype("instruments", expiry=pl.Date), "instruments", {"expiry"}, id="time-as-date"),
    pytest.param(
        _retype("instruments", strike=pl.Int64, expiry=pl.Int64), "instruments", {"expiry"}, id="time-as-integer"
    ),
    pytest.param(_retype("prices", asset=pl.Binary), "prices", {"asset"}, id="id-as-bytes"),
    pytest.param(_nested, "prices", {"price"}, id="nested"),
    pytest.param(
        lambda book: {**book, "balances": book["balances"].drop("amount", "asset")},
        "balances",
        {"amount", "asset"},
        id="missing-columns",
    ),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("fault", "table", "columns"), FORM_FAULTS)
def test_a_fault_of_form_is_named_with_table_column_and_file(
    way: str, fault: Callable[..., dict[str, pl.DataFrame]], table: str, columns: set[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        WAYS[way](fault(tiny_book()), tmp_path)
    failures = caught.value.failures
    assert set(failures["code"]) == {"GM101"}
    assert set(failures["table"]) == {table}
    assert set(failures["column"]) == columns
    assert all(table in file or file == "(in memory)" for file in failures["file"])


def test_all_faults_of_all_tables_are_reported_at_once(tmp_path: Path) -> None:
    tables = _retype("positions", quantity=pl.String)(_rename("marks", mark_iv="iv")(tiny_book()))
    tables.pop("balances")
    failures = unreadable(write_book(tmp_path, tables))
    assert set(zip(failures["table"], failures["column"], strict=True)) == {
        ("positions", "quantity"),
        ("marks", "iv"),
        ("balances", ""),
    }


def test_extra_columns_are_skipped_when_asked_and_refused_otherwise(tmp_path: Path) -> None:
    tables = {**tiny_book(), "prices": tiny_book()["prices"].with_columns(note=pl.lit("x"))}
    write_book(tmp_path, tables)
    assert unreadable(tmp_path)["column"].to_list() == ["note"]
    assert "note" not in read_book(tmp_path, extra_columns="ignore").tables["prices"].column_names
    assert "note" not in Book(extra_columns="ignore", **tables).tables["prices"].column_names


def test_a_column_that_stands_twice_is_unreadable() -> None:
    table = tiny_book()["prices"].to_arrow()
    failures = unreadable(**{**tiny_book(), "prices": table.append_column("price", table.column("price"))})
    assert failures.select("code", "column").row(0) == ("GM101", "price")
    assert "more than once" in failures["message"][0]
