"""Run folders: written part by part under a staging name, published by one rename."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
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
    staging = path.with_name(f".staging-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_parquet(staging, table)
        staging.replace(path)
        _synced(path.parent)
    except OSError as error:
        staging.unlink(missing_ok=True)
        message = f"cannot write {str(path)!r}: {error.strerror}"
        raise ResourceError(message) from error


def _write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    _synced(path)


class StagedFolder:
    """A folder in the making; `with` removes the staging folder if it does not get published.

    Args:
      out: folder that it is to stand in; made if absent.
      name: its name there, which must not be taken.
      mends: whether staging that an interrupted process has left behind is removed first.
    """

    def __init__(self, out: Path, name: str, *, mends: bool = False) -> None:
        self.target = out / name
        self._staging = out / f".staging-{name}"
        self._mends = mends

    def __enter__(self) -> Self:
        try:
            if self._mends:
                shutil.rmtree(self._staging, ignore_errors=True)
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

    def reveal(self) -> Path:
        """Makes the folder visible, whole, by one rename.

        Returns:
          The folder.
        """
        _synced(self._staging)
        self._staging.rename(self.target)
        _synced(self.target.parent)
        return self.target


class RunFolder(StagedFolder):
    """A run in the making; `with` removes the staging folder if the run does not get published.

    Args:
      out: folder that holds runs; made if absent.
      run_id: name of the new run, which must not exist.
    """

    def __init__(self, out: Path, run_id: str) -> None:
        super().__init__(out, run_id)
        self._parts: dict[str, int] = {}

    def add_part(self, name: str, table: pa.Table) -> None:
        """Writes the next part of a table that arrives in parts: `NAME/part-00000.parquet`, ..."""
        index = self._parts.get(name, 0)
        self._parts[name] = index + 1
        folder = self._staging / name
        folder.mkdir(exist_ok=True)
        _write_parquet(folder / f"part-{index:05d}.parquet", table)

    def publish(self, summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> Path:
        """Makes the run visible: manifest last, one rename, then the pointer to the newest run.

        Returns:
          The run's folder.
        """
        self.add_json("summary.json", summary)
        self.add_json("manifest.json", manifest)
        for name in self._parts:
            _synced(self._staging / name)
        self.reveal()
        out = self.target.parent
        pointer = out / f".{_POINTER}-{os.getpid()}"
        _write_text(pointer, self.target.name + "\n")
        pointer.replace(out / _POINTER)
        _synced(out)
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
    pointer = path if path.name == _POINTER else path / _POINTER
    if pointer.is_file():
        found = pointer.parent / pointer.read_text("utf-8").strip()
        if (found / "manifest.json").is_file():
            return found
    message = f"no run in {str(path)!r}: expected a folder with manifest.json, or a folder of runs with a file 'latest'"
    raise FileNotFoundError(message)
