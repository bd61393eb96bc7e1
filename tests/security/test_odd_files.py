"""Claims about what only looks like a table: links out, pipes, devices, folders, secrets, types that run code."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from gpumargin.errors import InputError, RefusedError
from gpumargin.files import read_footer, read_parquet
from gpumargin.files import reading as files
from gpumargin.tables import open_book, read_book
from tests.books import tiny_book, write_book
from tests.security.conftest import Limited, assert_survived
from tests.ways import unreadable


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()
    pq.write_table(tiny_book()["prices"].to_arrow(), path / "part-0.parquet")


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may not be long
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _link_out(path: Path) -> None:
    outside = path.parent.parent / f"outside{path.suffix}"
    pq.write_table(tiny_book()["prices"].to_arrow(), outside)
    path.symlink_to(outside)


def _link_up(path: Path) -> None:
    _link_out(path)
    path.unlink()
    path.symlink_to(Path("..") / f"outside{path.suffix}")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def _link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere.parquet")


ODD = [_pipe, _device, _folder, _socket, _link_out, _link_up, _link_to_itself, _link_to_nothing]


@pytest.mark.parametrize("suffix", [".parquet", pytest.param(".arrow", marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", ODD)
def test_what_is_no_file_of_the_book_is_refused(
    make: Callable[[Path], None], suffix: str, limited: Limited, tmp_path: Path
) -> None:
    book = write_book(tmp_path / "book", tiny_book())
    (book / "prices.parquet").unlink()
    make(book / f"prices{suffix}")
    outcome = limited.attempt("check", book)
    assert_survived([outcome])
    assert outcome.code == 3
    assert f"GM119 prices{suffix}" in outcome.words


@pytest.mark.parametrize("make", [_pipe, _link_out, *(pytest.param(each, marks=pytest.mark.slow) for each in ODD[1:4])])
def test_a_table_in_parts_is_as_careful(make: Callable[[Path], None], limited: Limited, tmp_path: Path) -> None:
    book = write_book(tmp_path / "book", tiny_book())
    (book / "positions").mkdir()
    shutil.move(book / "positions.parquet", book / "positions" / "a.parquet")
    make(book / "positions" / "b.parquet")
    outcomes = [limited.attempt(op, book) for op in ("check", "stream")]
    assert_survived(outcomes)
    assert {each.code for each in outcomes} == {3}
    assert all("positions/b.parquet" in each.words for each in outcomes)


def test_a_folder_named_like_a_file_of_an_optional_table_is_not_passed_over(tmp_path: Path) -> None:
    book = write_book(tmp_path, tiny_book())
    _folder(book / "orders.parquet")
    assert unreadable(book).select("code", "file").rows() == [("GM119", "orders.parquet")]


def _stamped(dtype: pa.DataType, name: bytes) -> pa.Table:
    """Prices whose second column says that it is of an extension type, the payload a pickle that makes a file."""
    payload = b"cos\nsystem\n(S'touch CANARY'\ntR."
    field = pa.field("price", dtype, metadata={b"ARROW:extension:name": name, b"ARROW:extension:metadata": payload})
    schema = pa.schema([pa.field("asset", pa.string()), field])
    return pa.Table.from_arrays([pa.array(["USDC"]), pa.array([1], dtype)], schema=schema)


@pytest.mark.parametrize("name", [b"arrow.py_extension_type", b"arrow.opaque", b"anything"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_an_extension_type_is_refused_and_its_payload_never_loaded(
    suffix: str, name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"prices{suffix}"
    table = _stamped(pa.float64(), name)
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    failures = unreadable(prices=path, **{k: v for k, v in tiny_book().items() if k != "prices"})
    if name != b"arrow.opaque":  # whose own words pyarrow reads, and finds torn
        assert failures.select("code", "column").rows() == [("GM101", "price")]
        assert "never loaded" in failures["message"][0]
    assert not (tmp_path / "CANARY").exists()


class _Extension(pa.ExtensionType):  # type: ignore[misc]
    """A type that tells when it is made from bytes of a file."""

    loaded = 0

    def __init__(self) -> None:
        super().__init__(pa.float64(), "tests.loud")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> _Extension:
        cls.loaded += 1
        return cls()


def test_a_registered_extension_type_is_refused_too(tmp_path: Path) -> None:
    pa.register_extension_type(_Extension())
    try:
        column = pa.ExtensionArray.from_storage(_Extension(), pa.array([1.0]))
        pq.write_table(pa.table({"asset": ["USDC"], "price": column}), tmp_path / "prices.parquet")
        failures = unreadable(prices=tmp_path / "prices.parquet")
    finally:
        pa.unregister_extension_type("tests.loud")
    assert ("GM101", "price") in failures.select("code", "column").rows()


NESTED = {
    "list": pa.array([[1.0]]),
    "struct": pa.array([{"a": 1.0}]),
    "map": pa.array([[("a", 1.0)]], pa.map_(pa.string(), pa.float64())),
    "list-of-structs": pa.array([[{"a": [1.0]}]]),
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_nested_column_is_refused_before_it_is_decoded(
    suffix: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, table = tmp_path / f"prices{suffix}", pa.table({"asset": ["USDC"], "price": NESTED[kind]})
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    monkeypatch.setattr(files, "_decoded", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(files, "_batches", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError) as caught:
        read_book(prices=path)
    assert ("GM101", "price") in caught.value.failures.select("code", "column").rows()


class _Keys(pe.KmsClient):  # type: ignore[misc]
    """Keys wrapped in nothing."""

    def __init__(self, _: pe.KmsConnectionConfig) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, wrapped: bytes, _: str) -> bytes:
        return base64.b64decode(wrapped)


@pytest.mark.parametrize("is_plain", [False, True])
def test_an_encrypted_file_is_refused_whether_or_not_its_footer_is_too(
    is_plain: bool, limited: Limited, tmp_path: Path
) -> None:
    book = write_book(tmp_path, tiny_book())
    settings = pe.EncryptionConfiguration("footer", column_keys={"price": ["price"]}, plaintext_footer=is_plain)
    properties = pe.CryptoFactory(_Keys).file_encryption_properties(pe.KmsConnectionConfig(), settings)
    table = tiny_book()["prices"].to_arrow()
    with pq.ParquetWriter(book / "prices.parquet", table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    outcome = limited.attempt("check", book)
    assert_survived([outcome])
    assert outcome.code == 3
    assert "encrypt" in outcome.words


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def _rewrite(path: Path) -> None:
    os.utime(path, ns=(0, 0))  # so that the clock's grain cannot hide the change
    path.write_bytes(path.read_bytes())


def _swap(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    other.replace(path)


def _vanish(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [_grow, _rewrite, _swap, _vanish])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    suffix: str, change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, table = tmp_path / f"prices{suffix}", tiny_book()["prices"].to_arrow()
    if suffix == ".parquet":
        pq.write_table(table, path)
        true, name = pq.ParquetFile.read, "read"
        monkeypatch.setattr(pq.ParquetFile, name, lambda self, **k: (true(self, **k), change(path))[0])
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        batches = files._batches
        monkeypatch.setattr(files, "_batches", lambda *given: (batches(*given), change(path))[0])
    failures = unreadable(**{**tiny_book(), "prices": path})
    assert failures["code"].to_list() == ["GM119"]
    assert str(path) in failures["file"][0]


def test_a_file_that_changes_between_its_parts_is_refused(tmp_path: Path) -> None:
    book = write_book(tmp_path / "book", tiny_book())
    rows = tiny_book()["positions"].sort("account_id").to_arrow()
    pq.write_table(rows, book / "positions.parquet", row_group_size=1)
    parts = open_book(book, memory=5_000).parts(lambda *_: None, tmp_path / "scratch")
    next(parts)
    _rewrite(book / "positions.parquet")
    with pytest.raises((InputError, RefusedError), match="changed while it was read"):
        list(parts)


def test_a_footer_is_not_used_for_another_content(tmp_path: Path) -> None:
    path = tmp_path / "prices.parquet"
    pq.write_table(tiny_book()["prices"].to_arrow(), path)
    footer = read_footer(path)
    _rewrite(path)
    with pytest.raises(RefusedError, match="changed"):
        read_parquet(footer)


def test_a_file_of_a_few_bytes_that_says_it_is_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prices.arrow").write_bytes(b"ARROW1\0\0" + struct.pack("<i", 2**31 - 1) + b"ARROW1")
    failures = unreadable(prices=tmp_path / "prices.arrow")
    assert "GM119" in failures["code"].to_list()
