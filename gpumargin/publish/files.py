"""Files and folders that appear whole or not at all: written under a staging name, published by one rename."""

from __future__ import annotations

import errno
import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from gpumargin import disk
from gpumargin.digests import ColumnDigest, files_digest, table_digest
from gpumargin.errors import ResourceError
from gpumargin.lanes import ahead, lane

POINTER = "latest"
CHECKSUMS = "SHA256SUMS"
"""Every file of a published folder with its SHA-256, as `sha256sum --check` reads it."""

_WHOLE = {pa.float64(): pa.int64(), pa.float32(): pa.int32()}


class Written(NamedTuple):
    """A table in a file.

    Attributes:
      rows: how many.
      sha256: hash of the file.
    """

    rows: int
    sha256: str


def json_text(content: Mapping[str, Any]) -> str:
    """JSON with texts where it has no number: an open end of a bracket table is `"inf"`."""
    return json.dumps(_strict(content), indent=2, default=str, allow_nan=False) + "\n"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_files(folder: Path, names: Collection[str]) -> str:
    """One hash of some files of a folder.

    Raises:
      OSError: one is not there, or no file: a device could be read for ever.
    """
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(errno.ENOENT, "no such file", str(folder / absent[0]))
    return files_digest({name: file_digest(folder / name) for name in names})


def put_checksums(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Writes the hash of every file that is there so far, for whoever asks later whether a byte has changed.

    Args:
      folder: to be published.
      known: hashes by path within it, of files that need not be read again.
    """
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    found = known or {}
    lines = (f"{found.get(name) or file_digest(folder / name)}  {name}\n" for name in files)
    put_bytes(folder / CHECKSUMS, "".join(lines).encode())


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_table(path: Path, table: pa.Table) -> None:
    """Writes one Parquet file, whole or not at all; folders are made if absent.

    Raises:
      ResourceError: it cannot be written.
    """
    _write_alone(path, lambda: put_table(path, table))


def write_file(path: Path, content: bytes) -> None:
    """Writes one file, whole or not at all; folders are made if absent.

    Raises:
      ResourceError: it cannot be written.
    """
    _write_alone(path, lambda: put_bytes(path, content))


def _write_alone(path: Path, write: Callable[[], object]) -> None:
    try:
        disk.make_folder(path.parent)
        write()
        disk.sync_folder(path.parent)
    except OSError as error:
        message = f"cannot write {str(path)!r}: {words(error)}"
        raise ResourceError(message) from error


def words(error: OSError) -> str:
    """What the system says of an error."""
    return error.strerror or str(error)


def put_bytes(path: Path, content: bytes) -> None:
    """Writes one file, whole or not at all, in a folder that is there."""
    disk.write_new(path, lambda file: file.write(content))


def _is_same(found: pa.ChunkedArray, wanted: pa.ChunkedArray) -> bool:
    """Whether two columns are the same to the bit; False may also mean that only a hash can tell."""
    return bool(found.type == wanted.type and _bits(found).equals(_bits(wanted)))


def _bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Fractions as whole numbers of the same bits: as numbers 0 equals -0, and NaN is unlike itself."""
    if column.type not in _WHOLE:
        return column
    return pa.chunked_array([chunk.view(_WHOLE[column.type]) for chunk in column.chunks], _WHOLE[column.type])


def put_table(path: Path, table: pa.Table) -> Written:
    """Writes a Parquet file, whole or not at all, in a folder that is there, and reads it back before it gets its name.

    Raises:
      OSError: it cannot be written, or does not read back as the table.
    """

    def check(staged: Path) -> None:
        with _reading(staged) as file:
            found = file.read()
        if found.column_names != table.column_names:
            raise _altered(path)
        unlike = [name for name in table.column_names if not _is_same(found[name], table[name])]
        if unlike and table_digest(found.select(unlike)) != table_digest(table.select(unlike)):
            raise _altered(path)

    sha256 = disk.write_new(path, lambda file: file.write(_parquet(table)), check)
    return Written(table.num_rows, sha256)


def _parquet(table: pa.Table) -> pa.Buffer:
    """A Parquet file in memory: written page by page to a file of Python, each would wait for other threads' Python."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_writing(table.schema))
    return sink.getvalue()


def put_tables(path: Path, tables: Iterator[pa.Table]) -> Written | None:
    """Writes tables that follow one another to one file, likewise; nothing where there are none."""
    first = next(tables, None)
    if first is None:
        return None
    digest = ColumnDigest()

    def write(file: disk.OutFile) -> None:
        with (
            closing(ahead(tables)) as rest,
            pq.ParquetWriter(file, first.schema, **_writing(first.schema)) as writer,
            lane() as hashing,
        ):
            for table in chain([first], rest):
                hashing.do(digest.add, table)
                writer.write_table(table)

    def check(staged: Path) -> None:
        found = ColumnDigest()
        with _reading(staged) as file, closing(ahead(file.iter_batches())) as batches:
            for batch in batches:
                found.add(pa.Table.from_batches([batch]))
        if digest.rows and found.hexdigest() != digest.hexdigest():
            raise _altered(path)

    sha256 = disk.write_new(path, write, check)
    return Written(digest.rows, sha256)


def _reading(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True)


def _altered(path: Path) -> OSError:
    return OSError(errno.EIO, "what was written does not read back the same", str(path))


def _writing(schema: pa.Schema) -> dict[str, Any]:
    """Options of Parquet.

    Numbers of results rarely repeat: a dictionary of them takes time and saves nothing. Beside zstd, lz4 takes a third
    less time to write and 40 % less to read back, for files a seventh larger (measured).
    """
    words = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    return {"compression": "lz4", "use_dictionary": words, "write_page_checksum": True}


class StagedFolder:
    """A folder in the making; `with` makes it under a staging name and removes it if it has not been revealed by then.

    Args:
      out: folder that it is to stand in; made if absent.
      name: its name there, which must not be taken.
      mends: whether staging that an interrupted process has left behind is removed first.
    """

    def __init__(self, out: Path, name: str, *, mends: bool = False) -> None:
        self._staging = out / f".staging-{name}"
        self.target = out / name
        self._mends = mends

    def __enter__(self) -> Self:
        if self._mends:
            disk.remove_tree(self._staging)
        try:
            disk.make_folder(self.target.parent)
            self._staging.mkdir(mode=0o700)
        except OSError as error:
            message = f"cannot make the folder {str(self._staging)!r}: {words(error)}"
            raise ResourceError(message) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        disk.remove_tree(self._staging)
        if isinstance(error, OSError):
            message = f"cannot write {str(self._staging)!r}: {words(error)}; nothing was published"
            raise ResourceError(message) from error

    def add_table(self, name: str, table: pa.Table) -> None:
        """Writes a whole small table: `NAME.parquet`."""
        put_table(self._staging / f"{name}.parquet", table)

    def add_text(self, name: str, text: str) -> None:
        """Writes a text file."""
        put_bytes(self._staging / name, text.encode())

    def add_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file."""
        self.add_text(name, json_text(content))

    def add_checksums(self) -> None:
        """Writes the hash of every file that is there so far."""
        put_checksums(self._staging)

    def reveal(self) -> Path:
        """Makes the folder visible, whole, by one rename.

        Returns:
          The folder.
        """
        disk.sync_folder(self._staging)
        disk.rename(self._staging, self.target)
        disk.sync_folder(self.target.parent)
        return self.target


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that this package has written."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def resolve_run(path: Path) -> Path:
    """The folder of a run: itself, the newest in a folder of runs, or `OUT/latest`.

    Raises:
      FileNotFoundError: no published run there.
    """
    if (path / "manifest.json").is_file():
        return path
    pointer = path if path.name == POINTER else path / POINTER
    if pointer.is_file():
        found = pointer.parent / pointer.read_text("utf-8").strip()
        if (found / "manifest.json").is_file():
            return found
    message = f"no run in {str(path)!r}: expected a folder with manifest.json, or a folder of runs with a file 'latest'"
    raise FileNotFoundError(message)
