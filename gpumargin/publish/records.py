"""Records of the finished parts of a run in the making: what they wrote, with hashes, and how to go on behind them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gpumargin.publish.files import Written, put_bytes

_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


@dataclass(frozen=True)
class Record:
    """A finished part.

    Attributes:
      files: every file of results that it wrote, by its path within the run.
      state: what was gathered up to and with it, as JSON has it.
      packed: likewise, tables by name as texts; `table` unpacks one.
    """

    files: Mapping[str, Written]
    state: Mapping[str, Any]
    packed: Mapping[str, str]

    def table(self, name: str) -> pa.Table:
        """One of its tables."""
        with pa.ipc.open_stream(base64.b64decode(self.packed[name])) as reader:
            return reader.read_all()


def packed(table: pa.Table) -> str:
    """A table as text."""
    sink = pa.BufferOutputStream()
    plain = table.unify_dictionaries().combine_chunks()
    with pa.ipc.new_stream(sink, plain.schema, options=_COMPRESSED) as writer:
        writer.write_table(plain)
    return base64.b64encode(sink.getvalue()).decode()


def record_path(folder: Path, number: int) -> Path:
    """Where the record of a part is."""
    return folder / f"{number:05d}.json"


def write_record(folder: Path, number: int, record: Record) -> None:
    """Writes the record of a part, whole or not at all; the first line is the hash of the rest.

    Raises:
      OSError: it cannot be written.
    """
    content = {
        "part": number,
        "files": {name: written._asdict() for name, written in record.files.items()},
        "state": record.state,
        "packed": record.packed,
    }
    text = json.dumps(content).encode()
    put_bytes(record_path(folder, number), hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def read_record(folder: Path, number: int) -> Record | None:
    """The record of a part; None where there is none that is whole."""
    try:
        said, _, text = record_path(folder, number).read_bytes().partition(b"\n")
    except OSError:
        return None
    if said != hashlib.sha256(text).hexdigest().encode():
        return None
    content = json.loads(text)
    if content["part"] != number:
        return None
    files = {name: Written(**written) for name, written in content["files"].items()}
    return Record(files, content["state"], content["packed"])


def _is_whole(path: Path, written: Written) -> bool:
    """Whether a file is what it was when its record was written."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == written.sha256
    except OSError:
        return False


def whole_parts(folder: Path, results: Path) -> list[Mapping[str, Written]]:
    """Files of the parts from the first on whose records and files are there and unchanged.

    Args:
      folder: of records.
      results: of the files that they name.
    """
    found: list[Mapping[str, Written]] = []
    while (record := read_record(folder, len(found))) is not None:
        if not all(_is_whole(results / name, written) for name, written in record.files.items()):
            break
        found.append(record.files)
    return found


def count_records(folder: Path) -> int:
    """How many records there are, whole or not."""
    return len(list(folder.glob("?????.json")))
