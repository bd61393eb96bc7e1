"""Claims about the hashes that may come with a book: what they list is read as it was sent, or not at all."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from gpumargin.tables import read_book
from tests.books import tiny_book, write_book
from tests.security.conftest import Limited
from tests.ways import unreadable


def _listed_book(folder: Path) -> Path:
    book = write_book(folder, tiny_book())
    write_book(book / "orders", {"part-0": _orders()})
    _list(book)
    return book


def _orders() -> object:
    import polars as pl

    row = {"account_id": "alice", "order_id": "1", "instrument_id": "BTC-PERP", "side": "buy", "quantity": 1.0}
    return pl.DataFrame([row | {"price": 60_000.0}])


def _list(book: Path) -> None:
    files = sorted(book.rglob("*.parquet"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(book)}\n" for path in files]
    (book / "SHA256SUMS").write_text("".join(lines))


def test_a_book_that_is_what_was_sent_is_read(tmp_path: Path) -> None:
    assert read_book(_listed_book(tmp_path)).num_rows("orders") == 1


def test_a_file_that_is_not_what_was_sent_is_refused(tmp_path: Path) -> None:
    book = _listed_book(tmp_path)
    write_book(book / "orders", {"part-0": _orders()[:0]})  # type: ignore[index]
    failures = unreadable(book)
    assert failures.select("code", "table", "file").rows() == [("GM119", "orders", "orders/part-0.parquet")]
    assert "SHA-256" in failures["message"][0]


def test_a_file_that_nobody_listed_and_a_listed_one_that_is_gone_are_refused(tmp_path: Path) -> None:
    book = _listed_book(tmp_path)
    (book / "orders" / "part-0.parquet").rename(book / "orders" / "part-1.parquet")
    assert set(unreadable(book)["file"]) == {"orders/part-0.parquet", "orders/part-1.parquet"}


@pytest.mark.parametrize("content", [b"no hash", b"\xff\xfe", b"0" * 64 + b"  \n"])
def test_hashes_that_are_none_are_refused(content: bytes, tmp_path: Path) -> None:
    (_listed_book(tmp_path) / "SHA256SUMS").write_bytes(content)
    assert "SHA256SUMS" in unreadable(tmp_path)["file"].to_list()


def test_names_that_lead_elsewhere_are_not_opened(tmp_path: Path) -> None:
    book = _listed_book(tmp_path / "book")
    with (book / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  ../../etc/passwd\n{'0' * 64}  /dev/zero\n{'0' * 64}  notes.txt\n")
    assert read_book(book).num_rows("orders") == 1


@pytest.mark.parametrize("flips", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_flipped_bit_of_a_listed_file_is_seen_wherever_it_is(
    flips: int, limited: Limited, tmp_path: Path
) -> None:
    draw, books = random.Random(flips), []  # noqa: S311
    for number in range(flips):
        books.append(_listed_book(tmp_path / str(number)))
        path = draw.choice(sorted(books[-1].rglob("*.parquet")))
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
    outcomes = limited.attempts("check", books)
    assert {each.code for each in outcomes} == {3}
    assert all("SHA-256" in each.words for each in outcomes)
