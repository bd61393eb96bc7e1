"""Run folders: written part by part under a staging name, published by one rename."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from gpumargin.errors import ResourceError

_POINTER = "latest"


def _synced(path: Path) -> None:
    """Forces a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(_strict(content), indent=2, default=str, allow_nan=False) + "\n"


def _strict(value: Any) -> Any:
    """The same with texts where JSON has no number: an open end of a bracket table is `"inf"`."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    _synced(path)


def write_table(path: Path, table: pa.Table) -> None:
    """Writes one Parquet file, whole or not at all; folders are made if absent.

    Raises:
      ResourceError: it cannot be written.
    """
    _write_whole(path, lambda staging: _write_parquet(staging, table))


def write_file(path: Path, content: bytes) -> None:
    """Writes one file, whole or not at all; folders are made if absent.

    Raises:
      ResourceError: it cannot be written.
    """
    _write_whole(path, lambda staging: _write_bytes(staging, content))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _synced(path)


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Writes under a staging name, then renames."""
    staging = path.with_name(f".staging-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(staging)
        staging.replace(path)
        _synced(path.parent)
    except OSError as error:
        staging.unlink(missing_ok=True)
        message = f"cannot write {str(path)!r}: {error.strerror}"
        raise ResourceError(message) from error


def _write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, **_writing(table.schema))
    _synced(path)


def _writing(schema: pa.Schema) -> dict[str, Any]:
    """Options of Parquet. Numbers of results rarely repeat: a dictionary of them takes time and saves nothing."""
    words = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    return {"compression": "zstd", "use_dictionary": words, "write_page_checksum": True}


class _Staging:
    """A folder in the making; `with` makes it and removes it if it has not been renamed by then."""

    def __init__(self, staging: Path) -> None:
        self._staging = staging

    def __enter__(self) -> Self:
        try:
            self._staging.mkdir(parents=True)
        except OSError as error:
            message = f"cannot make the folder {str(self._staging)!r}: {error.strerror}"
            raise ResourceError(message) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)
        if isinstance(error, OSError):
            message = f"cannot write {str(self._staging)!r}: {error.strerror}; nothing was published"
            raise ResourceError(message) from error

    def add_table(self, name: str, table: pa.Table) -> None:
        """Writes a whole small table: `NAME.parquet`."""
        _write_parquet(self._staging / f"{name}.parquet", table)

    def add_text(self, name: str, text: str) -> None:
        """Writes a text file."""
        _write_text(self._staging / name, text)

    def add_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file."""
        self.add_text(name, _json(content))


class StagedFolder(_Staging):
    """A folder in the making; `with` removes the staging folder if it does not get published.

    Args:
      out: folder that it is to stand in; made if absent.
      name: its name there, which must not be taken.
      mends: whether staging that an interrupted process has left behind is removed first.
    """

    def __init__(self, out: Path, name: str, *, mends: bool = False) -> None:
        super().__init__(out / f".staging-{name}")
        self.target = out / name
        self._mends = mends

    def __enter__(self) -> Self:
        if self._mends:
            shutil.rmtree(self._staging, ignore_errors=True)
        return super().__enter__()

    def reveal(self) -> Path:
        """Makes the folder visible, whole, by one rename.

        Returns:
          The folder.
        """
        _synced(self._staging)
        self._staging.rename(self.target)
        _synced(self.target.parent)
        return self.target


class RunFolder(_Staging):
    """A run in the making; `with` removes the staging folder if the run does not get published.

    Args:
      out: folder that holds runs; made if absent.

    Attributes:
      scratch: folder for what is needed while the run is made; whoever needs it makes it, leaving removes it.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(out / f".staging-{os.getpid()}-{secrets.token_hex(4)}")
        self._out = out
        self.scratch = self._staging.with_name(f"{self._staging.name}-scratch")
        self._parts: dict[str, int] = {}
        self._is_new = False

    def __enter__(self) -> Self:
        self._is_new = not self._out.exists()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        try:
            super().__exit__(kind, error, trace)
        finally:
            if self._is_new and kind is not None:
                with suppress(OSError):  # another run is in it by now
                    self._out.rmdir()

    def add_part(self, name: str, table: pa.Table) -> Path:
        """Writes the next part of a table that arrives in parts: `NAME/part-00000.parquet`, ...

        Returns:
          The file.
        """
        index = self._parts.get(name, 0)
        self._parts[name] = index + 1
        folder = self._staging / name
        folder.mkdir(exist_ok=True)
        path = folder / f"part-{index:05d}.parquet"
        _write_parquet(path, table)
        return path

    def add_rows(self, name: str, tables: Iterator[pa.Table]) -> None:
        """Writes `NAME.parquet` from tables that follow one another; nothing where there are none."""
        first = next(tables, None)
        if first is None:
            return
        path = self._staging / f"{name}.parquet"
        with pq.ParquetWriter(path, first.schema, **_writing(first.schema)) as writer:
            writer.write_table(first)
            for table in tables:
                writer.write_table(table)
        _synced(path)

    def publish(self, run_id: str, summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> Path:
        """Makes the run visible: manifest last, one rename, then the pointer to the newest run.

        Args:
          run_id: name of the new run, which must not exist.
          summary: content of `summary.json`.
          manifest: content of `manifest.json`.

        Returns:
          The run's folder.
        """
        self.add_json("summary.json", summary)
        self.add_json("manifest.json", manifest)
        for name in self._parts:
            _synced(self._staging / name)
        _synced(self._staging)
        target = self._out / run_id
        if target.exists():
            message = f"a run {str(target)!r} is there already; nothing was published"
            raise ResourceError(message)
        self._staging.rename(target)
        pointer = self._out / f".{_POINTER}-{os.getpid()}"
        _write_text(pointer, f"{run_id}\n")
        pointer.replace(self._out / _POINTER)
        _synced(self._out)
        return target


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
    pointer = path if path.name == _POINTER else path / _POINTER
    if pointer.is_file():
        found = pointer.parent / pointer.read_text("utf-8").strip()
        if (found / "manifest.json").is_file():
            return found
    message = f"no run in {str(path)!r}: expected a folder with manifest.json, or a folder of runs with a file 'latest'"
    raise FileNotFoundError(message)
