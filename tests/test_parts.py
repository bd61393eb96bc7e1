"""Claims about files that are not what a book needs: each is refused by name."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpumargin.tables import read_book
from tests.books import tiny_book, write_book
from tests.ways import unreadable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("name", ["foo.parquet", "position.arrow"])
def test_a_file_that_is_no_table_is_unreadable(name: str, tmp_path: Path) -> None:
    write_book(tmp_path, tiny_book())
    shutil.copy(tmp_path / "prices.parquet", tmp_path / name)
    failures = unreadable(tmp_path)
    assert failures.select("code", "file").row(0) == ("GM101", name)
    assert "not a table of a book" in failures["message"][0]


def test_a_name_that_is_no_table_is_unreadable() -> None:
    assert unreadable(**tiny_book(), trades=tiny_book()["prices"])["table"].to_list() == ["trades"]


def test_two_forms_of_one_table_are_unreadable(tmp_path: Path) -> None:
    write_book(tmp_path, tiny_book())
    (tmp_path / "prices").mkdir()
    shutil.copy(tmp_path / "prices.parquet", tmp_path / "prices" / "a.parquet")
    assert "2 forms" in unreadable(tmp_path)["message"][0]
    assert (
        "2 forms" in unreadable(write_book(tmp_path / "other", tiny_book()), marks=tiny_book()["marks"])["message"][0]
    )


def test_parts_of_different_types_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "positions").mkdir()
    tables = tiny_book()
    positions = tables.pop("positions").with_columns(account_id=pl.col("account_id"))
    positions[:5].write_parquet(tmp_path / "positions" / "a.parquet")
    positions[5:].with_columns(account_id=pl.lit(7)).write_parquet(tmp_path / "positions" / "b.parquet")
    failures = unreadable(write_book(tmp_path, tables))
    assert failures.select("code", "file", "column").row(0) == ("GM101", "positions/b.parquet", "account_id")


def test_a_folder_of_parts_without_files_is_unreadable(tmp_path: Path) -> None:
    write_book(tmp_path, tiny_book())
    (tmp_path / "orders").mkdir()
    assert unreadable(tmp_path).select("table", "file").row(0) == ("orders", "orders/")


def test_a_path_that_is_no_folder_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "found nothing" in unreadable(tmp_path / "nowhere")["message"][0]
    assert "found a file" in unreadable(tmp_path / "file")["message"][0]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _flip_a_bit_in_a_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    offset = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    data[offset + 40] ^= 1
    path.write_bytes(bytes(data))


def _no_parquet(path: Path) -> None:
    path.write_text("account_id,quantity")


def _link_out(path: Path) -> None:
    outside = path.parent.parent / "outside.parquet"
    shutil.move(path, outside)
    path.symlink_to(outside)


@pytest.mark.parametrize("damage", [_truncate, _flip_a_bit_in_a_page, _no_parquet, _link_out])
def test_a_damaged_or_foreign_file_is_refused_by_name(damage: Callable[[Path], None], tmp_path: Path) -> None:
    book = write_book(tmp_path / "book", tiny_book())
    damage(book / "positions.parquet")
    failures = unreadable(book)
    assert failures.select("code", "table", "file").rows() == [("GM119", "positions", "positions.parquet")]
    assert "cannot be read" in failures["message"][0]


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    book = write_book(tmp_path, tiny_book())
    (book / "store").mkdir()
    shutil.move(book / "prices.parquet", book / "store" / "prices.parquet")
    (book / "prices.parquet").symlink_to(book / "store" / "prices.parquet")
    assert read_book(book).num_rows("prices") == 3


def test_an_arrow_file_with_a_code_outside_its_dictionary_is_unreadable(tmp_path: Path) -> None:
    book = write_book(tmp_path, tiny_book())
    (book / "prices.parquet").unlink()
    rogue = pa.DictionaryArray.from_arrays(pa.array([0, 1, 9]), ["USDC", "BTC"], safe=False)
    table = pa.table({"asset": rogue, "price": [1.0, 68_000.0, 2_200.0]})
    with pa.OSFile(str(book / "prices.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert unreadable(book)["code"].to_list() == ["GM119"]


def test_a_file_with_more_rows_than_memory_holds_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = write_book(tmp_path, tiny_book())
    monkeypatch.setattr(os, "sysconf", lambda _: 10)
    assert set(unreadable(book)["code"]) == {"GM119"}


def test_text_that_is_not_utf8_is_unreadable() -> None:
    buffers = [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    bad = pa.DictionaryArray.from_arrays(pa.array([0]), pa.Array.from_buffers(pa.string(), 1, buffers))
    failures = unreadable(**{**tiny_book(), "prices": pa.table({"asset": bad, "price": [1.0]})})
    assert failures["table"].to_list() == ["prices"]
    assert "UTF8" in failures["message"][0]


def test_an_integer_that_a_float_cannot_hold_is_unreadable() -> None:
    big = tiny_book()["positions"].with_columns(quantity=pl.lit(2**53 + 1))
    assert unreadable(**{**tiny_book(), "positions": big})["column"].to_list() == ["quantity"]


def test_a_time_beyond_the_calendar_is_refused_as_another_unit() -> None:
    far = tiny_book()["instruments"].with_columns(
        expiry=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)).dt.epoch("ns").cast(pl.Datetime("us"))
    )
    assert "another unit" in unreadable(**{**tiny_book(), "instruments": far})["message"][0]


def test_an_object_of_another_library_is_unreadable() -> None:
    assert "found dict" in unreadable(**{**tiny_book(), "prices": {"asset": ["BTC"]}})["message"][0]
