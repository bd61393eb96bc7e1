"""Claims about Arrow files made to harm: refused, or read right; never a crash, never long, never much memory."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest

from gpumargin.errors import RefusedError
from gpumargin.files import read_arrow, reading
from gpumargin.files.arrow import unpacked_bytes
from tests.books import tiny_book, write_book
from tests.security.conftest import Limited, Outcome, assert_survived

MOST_BYTES = 1 << 30
HOSTILE_WORDS = (-1, 0, 1, 7, 2**31 - 1, 2**31, 2**62, -(2**40))


def _write(path: Path, table: pa.Table, compression: str | None = None) -> Path:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return path


def _prices(*, is_coded: bool) -> pa.Table:
    table = tiny_book()["prices"].to_arrow()
    names = table["asset"].cast(pa.string())
    return table.set_column(0, "asset", names.dictionary_encode() if is_coded else names)


SHAPES = {
    "words": (_prices(is_coded=False), None),
    "codes": (_prices(is_coded=True), None),
    "zstd": (_prices(is_coded=False), "zstd"),
    "lz4": (_prices(is_coded=True), "lz4"),
}


def _told(limited: Limited, what: str, truth: Outcome, outcomes: list[Outcome]) -> None:
    """Nothing crashed; how many were read as something else is counted, for Arrow files have no checksums."""
    assert_survived(outcomes)
    assert max(each.peak for each in outcomes) < MOST_BYTES
    changed = sum(each.code == 0 and each.words != truth.words for each in outcomes)
    limited.counts.update({f"{what}: read as other values": changed})


@pytest.mark.parametrize("shape", ["words", pytest.param("codes", marks=pytest.mark.slow), "zstd"])
def test_every_truncation_of_an_arrow_file_is_refused(shape: str, limited: Limited, tmp_path: Path) -> None:
    whole = _write(tmp_path / "prices.arrow", *SHAPES[shape]).read_bytes()
    paths = [tmp_path / f"prices.{length}.arrow" for length in range(len(whole))]
    for length, path in enumerate(paths):
        path.write_bytes(whole[:length])
    outcomes = limited.attempts("tables", paths)
    assert_survived(outcomes)
    assert {each.code for each in outcomes} == {3}
    assert len(outcomes) > 800


def _words(whole: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Every aligned word of 4 and of 8 bytes in turn as a hostile number."""
    for width, form in ((8, "<q"), (4, "<i")):
        for at in range(8, len(whole) - width, width):
            for value in HOSTILE_WORDS:
                if -(2 ** (8 * width - 1)) <= value < 2 ** (8 * width - 1):
                    yield at, value, whole[:at] + struct.pack(form, value) + whole[at + width :]


@pytest.mark.parametrize("every", [16, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_number_in_an_arrow_file_is_trusted(shape: str, every: int, limited: Limited, tmp_path: Path) -> None:
    """Lengths, offsets, counts, codes and places of blocks among them, huge and negative."""
    path = _write(tmp_path / "prices.arrow", *SHAPES[shape])
    paths: list[Path] = []
    for at, value, forged in islice(_words(path.read_bytes()), 0, None, every):
        paths.append(tmp_path / f"prices.{len(paths)}-{at}-{value}.arrow")
        paths[-1].write_bytes(forged)
    outcomes = limited.attempts("tables", paths)
    _told(limited, f"arrow numbers, {shape}", limited.attempt("tables", path), outcomes)
    assert len(paths) > 1500 // every


@pytest.mark.parametrize("flips", [60, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_flipped_bit_of_an_arrow_file_ends_no_process(
    shape: str, flips: int, limited: Limited, tmp_path: Path
) -> None:
    path, draw = _write(tmp_path / "prices.arrow", *SHAPES[shape]), random.Random(flips)  # noqa: S311
    whole, paths = path.read_bytes(), [tmp_path / f"prices.{number}.arrow" for number in range(flips)]
    for target in paths:
        at = draw.randrange(len(whole))
        target.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
    outcomes = limited.attempts("tables", paths)
    _told(limited, f"{flips} arrow flips, {shape}", limited.attempt("tables", path), outcomes)


def _codes(indices: list[int]) -> pa.Table:
    words = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), ["USDC", "BTC"], safe=False)
    return pa.table({"asset": words, "price": [1.0] * len(indices)})


TRUE_OFFSETS = (0, 4, 7)
BAD_OFFSETS = {
    "beyond": (0, 4, 2**30),
    "negative": (0, -4, 7),
    "backwards": (0, 7, 4),
    "first-negative": (-100, 4, 7),
    "all-beyond": (2**30, 2**30, 2**30 + 1),
    "most-negative": (0, -(2**31), 7),
}
BAD_TABLES = {
    "code-beyond": _codes([0, 9]),
    "code-negative": _codes([0, -1]),
    "code-most-negative": _codes([0, -(2**31)]),
    "not-utf8": pa.table({"asset": pa.array([b"\xff\xfe"]).view(pa.string()), "price": [1.0]}),
}


def _bad_offsets(folder: Path) -> Iterator[Path]:
    """Files of two words whose places in the text are said to be others."""
    for name, offsets in BAD_OFFSETS.items():
        path = _write(folder / f"prices.offset-{name}.arrow", pa.table({"asset": ["USDC", "BTC"], "price": [1.0, 2.0]}))
        whole, true = path.read_bytes(), struct.pack("<3i", *TRUE_OFFSETS)
        assert whole.count(true) == 1
        path.write_bytes(whole.replace(true, struct.pack("<3i", *offsets)))
        yield path


def test_bad_offsets_and_codes_are_refused(limited: Limited, tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"prices.{name}.arrow", table) for name, table in BAD_TABLES.items()]
    paths += _bad_offsets(tmp_path)
    outcomes = limited.attempts("tables", paths)
    assert_survived(outcomes)
    assert {each.code for each in outcomes} == {3}
    assert len(outcomes) == 10


def _repeated(rows: int) -> pa.Table:
    """Positions that all say the same."""
    code = pa.repeat(pa.scalar(0, pa.int32()), rows)
    words = [pa.DictionaryArray.from_arrays(code, [word]) for word in ("a", "b")]
    return pa.table({"account_id": words[0], "instrument_id": words[1], "quantity": pa.repeat(1.0, rows)})


@pytest.mark.parametrize("batches", [1, 6])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_compressed_arrow_bomb_is_refused_before_it_is_unpacked(
    compression: str, batches: int, limited: Limited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, table = tmp_path / "positions.arrow", _repeated(3_000_000)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        for _ in range(batches):
            writer.write_table(table)
    assert path.stat().st_size < 2 << 20
    with pa.OSFile(str(path)) as file:
        unpacked = unpacked_bytes(file.read_at, path.stat().st_size)
    assert 0 <= unpacked - batches * 3_000_000 * 16 < 1000
    monkeypatch.setattr(reading, "usable_memory", lambda: batches * 3_000_000 * 16 - 1)
    monkeypatch.setattr(reading, "_batches", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(RefusedError, match="bytes"):
        read_arrow(path)


@pytest.mark.slow
def test_a_large_arrow_bomb_is_refused_in_bounded_memory(limited: Limited, tmp_path: Path) -> None:
    book = write_book(tmp_path, tiny_book())
    (book / "positions.parquet").unlink()
    _write(book / "positions.arrow", _repeated(30_000_000), "zstd")
    outcome = limited.attempt("check", book)
    assert_survived([outcome])
    assert outcome.code == 3
    assert outcome.peak < 2 * MOST_BYTES


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("is_old", [False, True])
def test_what_honest_writers_of_arrow_write_is_read(compression: str | None, is_old: bool, tmp_path: Path) -> None:
    path, table = tmp_path / "prices.arrow", _prices(is_coded=True)
    options = pa.ipc.IpcWriteOptions(compression=compression, use_legacy_format=is_old)
    for parts in ([], [table], [table[:0], table, table]):
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
            for part in parts:
                writer.write_table(part)
        assert read_arrow(path)[1].num_rows == sum(part.num_rows for part in parts)
    if not is_old:
        tiny_book()["prices"].write_ipc(path, compression=compression or "uncompressed")
        assert read_arrow(path)[1].num_rows == 3
