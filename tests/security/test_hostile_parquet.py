"""Claims about Parquet files made to harm: refused, or read right; never a crash, never long, never much memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpumargin.files import read_footer, read_parquet
from gpumargin.files.footers import MAX_CHUNKS, MAX_COLUMNS
from tests.books import tiny_book, write_book
from tests.security import parquet_forger as forger
from tests.security.conftest import Limited, assert_survived
from tests.security.thrift import Struct

MOST_BYTES = 1 << 30


def _write(path: Path, table: pa.Table, **options: object) -> Path:
    pq.write_table(table, path, **{"compression": "zstd", "write_page_checksum": True} | options)
    return path


def _small(path: Path) -> Path:
    """Three prices; ids as a dictionary, numbers plain."""
    return _write(path, tiny_book()["prices"].to_arrow(), use_dictionary=["asset"])


def _metas(change: Callable[[Struct], None]) -> Callable[[Path], None]:
    """A change to what the footer says of every column."""

    def forge(path: Path) -> None:
        forger.forge(path, lambda footer: [change(meta) for meta in forger.column_metas(footer)] and None)

    return forge


def _set(field: int, value: int) -> Callable[[Struct], None]:
    return lambda record: forger.put(record, field, value)


def _group_rows(value: int) -> Callable[[Path], None]:
    return lambda path: forger.forge(path, lambda f: forger.put(forger.groups(f)[0], forger.GROUP_ROWS, value))


def _every_count(value: int) -> Callable[[Path], None]:
    """Rows of the file, of its group and of its columns agree on what is not there."""

    def change(footer: Struct) -> None:
        forger.put(footer, forger.NUM_ROWS, value)
        forger.put(forger.groups(footer)[0], forger.GROUP_ROWS, value)
        for meta in forger.column_metas(footer):
            forger.put(meta, forger.NUM_VALUES, value)

    return lambda path: forger.forge(path, change)


def _page(field: int, value: int, column: int = 0) -> Callable[[Path], None]:
    return lambda path: forger.forge_page(path, _set(field, value), column)


def _page_values(value: int, column: int = 0) -> Callable[[Path], None]:
    return lambda path: forger.forge_page(path, lambda head: forger.put(head[forger.DATA_PAGE][1], 1, value), column)


def _flip_in_page(path: Path) -> None:
    data, column = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(0).column(1)
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes(bytes(data))


def _made(make: Callable[[], bytes]) -> Callable[[Path], None]:
    """Other content, made when it is written: some takes seconds."""
    return lambda path: path.write_bytes(make()) and None


def _replace(content: bytes) -> Callable[[Path], None]:
    return _made(lambda: content)


def _magic(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4] + b"PARE")


def _footer_length(length: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:-8] + length.to_bytes(4, "little") + b"PAR1") and None


HUGE, NEGATIVE = 2**62, -(2**40)
FORGERIES: dict[str, Callable[[Path], None]] = {
    **{f"num-values-{n}": _metas(_set(forger.NUM_VALUES, n)) for n in (-1, 0, 2, 4, 10**9, HUGE, NEGATIVE)},
    **{f"group-rows-{n}": _group_rows(n) for n in (-1, 0, 2, 4, 10**9, HUGE)},
    **{f"every-count-{n}": _every_count(n) for n in (-3, 0, 2, 4, 10**6, 10**12, HUGE)},
    **{
        f"file-rows-{n}": lambda path, n=n: forger.forge(path, _set(forger.NUM_ROWS, n))
        for n in (-1, 0, 10**12, NEGATIVE)
    },
    **{f"data-offset-{n}": _metas(_set(forger.DATA_OFFSET, n)) for n in (-5, 0, 1, 10**6, HUGE, NEGATIVE)},
    **{f"compressed-size-{n}": _metas(_set(forger.COMPRESSED, n)) for n in (-1, 0, 5, 10**7, HUGE, NEGATIVE)},
    **{f"uncompressed-size-{n}": _metas(_set(forger.UNCOMPRESSED, n)) for n in (-1, 0, HUGE, NEGATIVE)},
    **{f"page-size-{n}": _page(forger.PAGE_UNCOMPRESSED, n, 1) for n in (-1, 0, 3, 2**31 - 1)},
    **{f"page-compressed-{n}": _page(forger.PAGE_COMPRESSED, n, 1) for n in (-1, 0, 3, 2**31 - 1)},
    **{f"page-values-{n}": _page_values(n, 1) for n in (-1, 0, 2, 4, 2**31 - 1)},
    **{f"words-page-values-{n}": _page_values(n) for n in (-1, 0, 2, 4, 2**31 - 1)},
    "page-checksum": _page(forger.PAGE_CRC, 1, 1),
    "flipped-bit-in-page": _flip_in_page,
    "encrypted-magic": _magic,
    **{f"footer-length-{n}": _footer_length(n) for n in (0, 1, 2**20, 2**31 - 1, 2**32 - 1)},
    "empty": _replace(b""),
    "magic-alone": _replace(b"PAR1PAR1"),
    "noise": _replace(random.Random(1).randbytes(4096)),  # noqa: S311
    "noise-between-magic": _replace(b"PAR1" + random.Random(2).randbytes(500) + b"\x64\0\0\0PAR1"),  # noqa: S311
    "wide": _made(partial(forger.wide, 100_000)),
    "deep": _made(partial(forger.deep, 20_000)),
    "deep-but-legal": _made(partial(forger.deep, 90)),
}
HARMLESS = {
    # the truth, or nothing that anybody reads
    "uncompressed-size-0",
    "uncompressed-size--1",
    f"uncompressed-size-{NEGATIVE}",
}


def test_forged_footers_and_headers_are_refused(limited: Limited, tmp_path: Path) -> None:
    truth = limited.attempt("tables", _small(tmp_path / "prices.parquet")).words
    paths = {}
    for name, forge in FORGERIES.items():
        paths[name] = _small(tmp_path / f"prices.{name}.parquet")
        forge(paths[name])
    outcomes = dict(zip(paths, limited.attempts("tables", list(paths.values())), strict=True))
    assert_survived(list(outcomes.values()))
    assert {name for name, each in outcomes.items() if each.code == 0 and each.words == truth} <= HARMLESS
    assert not {name: each for name, each in outcomes.items() if each.code == 0 and each.words != truth}
    assert len(outcomes) == len(FORGERIES) >= 60


def _repeated(rows: int, account: str = "a") -> pa.Table:
    """Positions that all say the same."""
    values = {"account_id": account, "instrument_id": "BTC-PERP", "quantity": 1.0}
    return pa.table({name: pa.repeat(pa.scalar(value), rows) for name, value in values.items()})


def _run_length(path: Path) -> None:
    """A few kilobytes of one value over and over, 200 million times: 5 GB decoded."""
    _write(path, _repeated(2_000_000), row_group_size=2_000_000)
    _stretch(path, 100)


def _stretch(path: Path, times: int) -> None:
    """The pages of a file over and over, each with a row group of its own, as an honest writer would leave them."""
    data, footer = path.read_bytes(), forger.footer_of(path)
    end = max(forger.chunk_end(meta) for meta in forger.column_metas(footer))
    pages = data[4:end]
    kind, found = footer[forger.ROW_GROUPS][1]
    moved = [forger.moved(group, number * len(pages)) for number in range(times) for group in found]
    forger.put(footer, forger.ROW_GROUPS, (kind, moved))
    forger.put(footer, forger.NUM_ROWS, footer[forger.NUM_ROWS][1] * times)
    path.write_bytes(forger.with_footer(forger.MAGIC + pages * times, footer))


def _shared_pages(path: Path) -> None:
    """Row groups that all point at the same pages: half a megabyte that decodes to 40 GB."""
    _write(path, _repeated(1_000_000))
    forger.forge(path, forger.repeat_groups(1_700))


def _dictionary(path: Path) -> None:
    """One word of 80 MB, ten thousand times."""
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), ["a" * 80_000_000])
    _write(path, _repeated(10_000).set_column(0, "account_id", words))


def _zstd(path: Path) -> None:
    """Words without a dictionary, 300 MB that pack into a few kilobytes."""
    _write(path, _repeated(300, account="a" * 1_000_000), use_dictionary=False)


def _zstd_hidden(path: Path) -> None:
    """The same, and a footer that hides it."""
    _zstd(path)
    _metas(_set(forger.UNCOMPRESSED, 1000))(path)


def _many_groups(path: Path) -> None:
    _write(path, _repeated(1))
    forger.forge(path, forger.repeat_groups(MAX_CHUNKS // 3 + 1))


def _most_groups(path: Path) -> None:
    """As many as are read, on the same pages."""
    _write(path, _repeated(1))
    forger.forge(path, forger.repeat_groups(MAX_CHUNKS // 3))


def _many_columns(path: Path) -> None:
    _write(path, pa.table({f"c{number}": pa.array([1.0]) for number in range(MAX_COLUMNS + 1)}))


BOMBS = {
    "run-length": _run_length,
    "shared-pages": _shared_pages,
    "dictionary": _dictionary,
    "zstd": _zstd,
    "zstd-hidden": _zstd_hidden,
    "row-groups": _many_groups,
    "columns": _many_columns,
}

QUICK = {"run-length", "zstd-hidden", "columns"}


@pytest.mark.parametrize(
    "bomb", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in BOMBS]
)
def test_a_bomb_is_refused_in_bounded_memory(bomb: str, limited: Limited, tmp_path: Path) -> None:
    book = write_book(tmp_path, tiny_book())
    BOMBS[bomb](book / "positions.parquet")
    assert (book / "positions.parquet").stat().st_size < 12 << 20
    outcomes = [limited.attempt("check", book)]
    if bomb != "run-length":  # which is no more than a large book to whoever reads it part by part
        outcomes.append(limited.attempt("stream", book))
    assert_survived(outcomes)
    assert {each.code for each in outcomes} == {3}
    assert all("positions.parquet" in each.words for each in outcomes)
    assert max(each.peak for each in outcomes) < MOST_BYTES


def test_a_file_of_one_value_over_and_over_streams_in_bounded_memory(limited: Limited, tmp_path: Path) -> None:
    book = write_book(tmp_path, tiny_book())
    _write(book / "positions.parquet", _repeated(200_000))
    _stretch(book / "positions.parquet", 30)
    outcome = limited.attempt("large-stream", book)
    assert_survived([outcome])
    assert (outcome.code, outcome.words) == (0, str(30 * 200_000))
    assert outcome.peak < MOST_BYTES


@pytest.mark.slow
def test_as_many_row_groups_as_are_read_at_all_take_seconds(limited: Limited, tmp_path: Path) -> None:
    _most_groups(write_book(tmp_path, tiny_book()) / "positions.parquet")
    outcome = limited.attempt("check", tmp_path)
    assert_survived([outcome])
    assert "lie over each other" in outcome.words


@pytest.mark.slow
def test_a_million_row_groups_are_refused_before_they_are_parsed(limited: Limited, tmp_path: Path) -> None:
    book = write_book(tmp_path, tiny_book())
    _write(book / "positions.parquet", _repeated(1))
    forger.forge(book / "positions.parquet", forger.repeat_groups(1_000_000))
    outcome = limited.attempt("check", book)
    assert_survived([outcome])
    assert "bytes of footer" in outcome.words


def test_every_truncation_of_a_file_is_refused(limited: Limited, tmp_path: Path) -> None:
    whole = _small(tmp_path / "prices.parquet").read_bytes()
    paths = [tmp_path / f"prices.{length}.parquet" for length in range(len(whole))]
    for length, path in enumerate(paths):
        path.write_bytes(whole[:length])
    outcomes = limited.attempts("tables", paths)
    assert_survived(outcomes)
    assert {each.code for each in outcomes} == {3}
    assert len(outcomes) == len(whole) > 1000


@pytest.mark.parametrize("flips", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_refused_or_harmless(flips: int, limited: Limited, tmp_path: Path) -> None:
    """Inside pages all are refused. A footer has no checksum: of flips there a few may change what a file says."""
    path = _small(tmp_path / "prices.parquet")
    whole, draw = path.read_bytes(), random.Random(flips)  # noqa: S311
    truth, bodies = limited.attempt("tables", path), forger.page_bodies(path)
    places = [(draw.randrange(len(whole)), draw.randrange(8)) for _ in range(flips)]
    paths = [tmp_path / f"prices.{number}.parquet" for number in range(flips)]
    for target, (at, bit) in zip(paths, places, strict=True):
        target.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
    outcomes = limited.attempts("tables", paths)
    assert truth.code == 0
    assert_survived(outcomes)
    inside = [any(at in body for body in bodies) for at, _ in places]
    assert sum(inside) > flips // 50
    assert {each.code for each, is_inside in zip(outcomes, inside, strict=True) if is_inside} == {3}
    wrong = [place for place, each in zip(places, outcomes, strict=True) if not each.code and each.words != truth.words]
    limited.counts.update({f"{flips} flips: inside pages": sum(inside), f"{flips} flips: read, wrong": len(wrong)})
    assert len(wrong) <= flips // 100, wrong


def test_every_byte_of_a_page_that_is_flipped_is_refused(limited: Limited, tmp_path: Path) -> None:
    path = _small(tmp_path / "prices.parquet")
    whole, places = path.read_bytes(), [at for body in forger.page_bodies(path) for at in body]
    paths = [tmp_path / f"prices.{at}.parquet" for at in places]
    for at, target in zip(places, paths, strict=True):
        target.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
    outcomes = limited.attempts("tables", paths)
    assert_survived(outcomes)
    assert {each.code for each in outcomes} == {3}
    assert len(places) > 40


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("version", ["1.0", "2.6"])
@pytest.mark.parametrize("page_version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_what_honest_writers_write_is_read(
    rows: int, version: str, page_version: str, compression: str, tmp_path: Path
) -> None:
    table = tiny_book()["prices"].to_arrow()[:rows]
    path, options = tmp_path / "prices.parquet", {"version": version, "data_page_version": page_version}
    pq.write_table(table, path, compression=compression, **options)
    assert read_parquet(read_footer(path)).num_rows == rows
    tiny_book()["prices"][:rows].write_parquet(path, compression="uncompressed" if compression == "none" else "zstd")
    assert read_parquet(read_footer(path)).num_rows == rows


def test_a_row_group_without_rows_among_others_is_read(tmp_path: Path) -> None:
    table = tiny_book()["prices"].to_arrow()
    with pq.ParquetWriter(tmp_path / "prices.parquet", table.schema) as writer:
        for part in (table[:0], table, table[:0]):
            writer.write_table(part)
    assert read_parquet(read_footer(tmp_path / "prices.parquet")).num_rows == 3
