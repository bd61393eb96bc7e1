"""Records of the finished parts of a run in the making: what they wrote, with hashes, and how to go on behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from gpumargin.publish.files import Written, put_bytes

_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True)
class Record:
    """A finished part.

    Attributes:
      files: every file of results that it wrote, by its path within the run.
      state: what was gathered up to and with it, as JSON has it.
      packed: likewise, tables by name as bytes; `table` unpacks one.
    """

    files: Mapping[str, Written]
    state: Mapping[str, Any]
    packed: Mapping[str, bytes]

    def table(self, name: str) -> pa.Table:
        """One of its tables."""
        with pa.ipc.open_stream(self.packed[name]) as reader:
            return reader.read_all()


def packed(table: pa.Table) -> bytes:
    """A table as bytes."""
    sink = pa.BufferOutputStream()
    plain = table.unify_dictionaries().combine_chunks()
    with pa.ipc.new_stream(sink, plain.schema, options=_COMPRESSED) as writer:
        writer.write_table(plain)
    return bytes(sink.getvalue())


def record_path(folder: Path, number: int) -> Path:
    """Where the record of a part is."""
    return folder / f"{number:05d}.record"


def write_record(folder: Path, number: int, record: Record) -> None:
    """Writes the record of a part, whole or not at all: the hash of the rest, a line of JSON, the packed tables.

    Raises:
      OSError: it cannot be written.
    """
    content = {
        "part": number,
        "files": {name: written._asdict() for name, written in record.files.items()},
        "state": record.state,
        "packed": {name: len(table) for name, table in record.packed.items()},
    }
    rest = b"".join([json.dumps(content).encode(), b"\n", *record.packed.values()])
    put_bytes(record_path(folder, number), hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)


def read_record(folder: Path, number: int) -> Record | None:
    """The record of a part; None where there is none that is whole."""
    try:
        said, _, rest = record_path(folder, number).read_bytes().partition(b"\n")
    except OSError:
        return None
    if said != hashlib.sha256(rest).hexdigest().encode():
        return None
    text, _, tables = rest.partition(b"\n")
    content = json.loads(text)
    if content["part"] != number:
        return None
    files = {name: Written(**written) for name, written in content["files"].items()}
    places = pairwise(accumulate(content["packed"].values(), initial=0))
    packed = {name: tables[start:stop] for name, (start, stop) in zip(content["packed"], places, strict=True)}
    return Record(files, content["state"], packed)


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
    return len(list(folder.glob("?????.record")))
