"""Hashes that came with a folder of files: a text `SHA256SUMS` as `sha256sum` writes it, held against the files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpumargin.errors import RefusedError
from gpumargin.files.reading import named, opened

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(\S.*)")
_LARGEST = 1 << 24


def refuse_other_contents(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Files whose contents are not those that the folder's `SHA256SUMS` says; none where there is no such text.

    Args:
      folder: of the files.
      names: of the files that are going to be read, relative to it; all must be listed.

    Yields:
      Name of a file, and what is wrong with it. Files that are listed and not going to be read are not opened; those
      that end like a table must be there.
    """
    path = folder / SUMS
    if not path.is_symlink() and not path.exists():
        return
    try:
        listed = _listed(path)
    except RefusedError as error:
        yield SUMS, str(error)
        return
    for name in names:
        if name not in listed:
            yield name, f"is not in {SUMS}"
        elif (found := _sha256(folder / name)) != listed[name]:
            yield name, f"has the SHA-256 {found}, {SUMS} says {listed[name]}"
    for name in listed:
        if name not in names and name.endswith((".parquet", ".arrow")):
            yield name, f"is in {SUMS}, and no such table is in the folder"


def _listed(path: Path) -> dict[str, str]:
    with named(path), opened(path) as (file, state):
        if state.size > _LARGEST:
            message = f"{state.size:,} bytes, at most {_LARGEST:,} are read"
            raise RefusedError(message)
        lines = file.read().decode("utf-8").splitlines()
        found = [_LINE.fullmatch(line) for line in lines if line.strip()]
        if None in found:
            message = f"line {found.index(None) + 1} is no line of sha256sum"
            raise RefusedError(message)
    return {match[2]: match[1] for match in found if match}


def _sha256(path: Path) -> str:
    """Of a file; the reason in its place where it cannot be read, which no hash equals."""
    try:
        with named(path), opened(path) as (file, _):
            return hashlib.file_digest(file, "sha256").hexdigest()
    except RefusedError as error:
        return str(error)
