"""Where the tables of a book come from: files of a folder, paths, frames; found and loaded, not yet judged.

A part is one file or one in-memory table. Files are opened with pyarrow only: polars does not verify page checksums and
aborts the process when memory runs out, which nothing can catch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import polars as pl
import pyarrow as pa

from gpumargin.errors import RefusedError
from gpumargin.failures import Failure
from gpumargin.files import (
    SUMS,
    is_inside,
    read_arrow,
    read_footer,
    read_parquet,
    refuse_other_contents,
    refuse_outside,
)
from gpumargin.schema import TABLES, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

TableLike: TypeAlias = pl.DataFrame | pl.LazyFrame | pa.Table | pa.RecordBatch | str | Path
IN_MEMORY = "(in memory)"


@dataclass(frozen=True, slots=True)
class Raw:
    """Contents of one part: every column name found, and the data of the contract's columns alone."""

    names: tuple[str, ...]
    data: pa.Table


@dataclass(frozen=True, slots=True)
class Part:
    """One file or object that holds rows of a table, and how to load it; `file` is what failure rows call it.

    `path` is that of the file, None for an object.
    """

    table: str
    file: str
    load: Callable[[], Raw]
    path: Path | None = None


def folder_parts(
    folder: Path, failures: list[Failure], specs: Mapping[str, Table] = TABLES
) -> dict[str, list[list[Part]]]:
    """Every form in which each table stands in a book folder: a file is a form of one part, a subfolder one of several.

    Hidden files, files with another ending and subfolders that are not named like a table are passed over. A Parquet or
    Arrow file with an unknown name is a failure, for it is more likely a misspelt table than a note; so is a folder,
    pipe or device with the name of a file. Where the folder has a `SHA256SUMS`, its files must be what that says.
    """
    found: dict[str, list[list[Part]]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and entry.name in specs:
            found.setdefault(entry.name, []).append(_parts_of(entry, specs[entry.name], root=folder))
        elif entry.suffix in _LOADERS:
            if entry.stem in specs:
                found.setdefault(entry.stem, []).append([_file_part(entry, specs[entry.stem], root=folder)])
            else:
                failures.append(unknown_table(entry.stem, entry.name, specs))
    failures += _other_contents(folder, [part for forms in found.values() for form in forms for part in form])
    return found


def _other_contents(folder: Path, parts: list[Part]) -> Iterator[Failure]:
    """Failures of the hashes that came with the folder; a part that leads out of it is refused when it is loaded."""
    tables = {part.file: part.table for part in parts if part.path is not None and is_inside(part.path, folder)}
    remedy = f"restore the file from where it came, or remove {SUMS} if the change was meant"
    for name, fault in refuse_other_contents(folder, [*tables]):
        yield Failure("GM119", tables.get(name, ""), name, None, "", "", fault, remedy)


def given_parts(spec: Table, value: TableLike) -> list[Part]:
    """Parts of a table handed in as a frame, an Arrow table, or the path of a file or of a folder of files."""
    if not isinstance(value, str | Path):
        return [Part(spec.name, IN_MEMORY, partial(_load_object, spec, value))]
    path = Path(value)
    return _parts_of(path, spec, root=None) if path.is_dir() else [_file_part(path, spec, root=None)]


def load_part(part: Part, failures: list[Failure]) -> Raw | None:
    """Contents of a part, or None and a GM119 failure with the reason."""
    try:
        return part.load()
    except MemoryError:
        raise
    except (OSError, UnicodeDecodeError, RefusedError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        code, column = (error.code, error.column) if isinstance(error, RefusedError) else ("GM119", "")
        reason = " ".join(str(error).split())
        remedy = "write the file again, or restore it from where it came"
        failures.append(Failure(code, part.table, part.file, None, column, "", f"cannot be read: {reason}", remedy))
        return None


def unknown_table(name: str, file: str, specs: Mapping[str, Table] = TABLES) -> Failure:
    """Failure for a name that no table of a book, or of a block, has."""
    message = f"{name!r} is not a table of a {'book' if specs is TABLES else 'block'}"
    return Failure("GM101", name, file, None, "", name, message, f"use one of {', '.join(specs)}, or move it away")


def repeated_names(names: Iterable[str]) -> list[str]:
    """Column names that stand more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _parts_of(folder: Path, table: Table, *, root: Path | None) -> list[Part]:
    files = sorted(path for path in folder.iterdir() if path.suffix in _LOADERS and not path.name.startswith("."))
    return [_file_part(path, table, root=root) for path in files]


def _file_part(path: Path, table: Table, *, root: Path | None) -> Part:
    label = path.relative_to(root).as_posix() if root else str(path)
    return Part(table.name, label, partial(_load_file, path, table, root), path)


def _load_file(path: Path, table: Table, root: Path | None) -> Raw:
    if root is not None:
        refuse_outside(path, root)
    if path.suffix not in _LOADERS:
        message = f"the name must end in {' or '.join(_LOADERS)}, found {path.name!r}"
        raise RefusedError(message)
    return _LOADERS[path.suffix](path, table)


def _load_parquet(path: Path, spec: Table) -> Raw:
    footer = read_footer(path, partial(known_names, spec=spec))
    return Raw(tuple(footer.schema.names), read_parquet(footer))


def _load_arrow(path: Path, spec: Table) -> Raw:
    return Raw(*read_arrow(path, partial(known_names, spec=spec)))


def _load_object(table: Table, value: pl.DataFrame | pl.LazyFrame | pa.Table | pa.RecordBatch) -> Raw:
    return _select(_as_arrow(value), table)


def _as_arrow(value: object) -> pa.Table:
    if isinstance(value, pl.LazyFrame):
        value = value.collect()
    if isinstance(value, pl.DataFrame):
        return value.to_arrow()
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    if isinstance(value, pa.Table):
        return value
    message = f"expected a polars frame, an Arrow table or a path, found {type(value).__name__}"
    raise RefusedError(message)


def _select(table: pa.Table, spec: Table) -> Raw:
    data = table.select(known_names(table.column_names, spec))
    data.validate(full=True)
    return Raw(tuple(table.column_names), data)


def known_names(names: Iterable[str], spec: Table) -> list[str]:
    """Names of the contract's columns among these, those left out that stand more than once."""
    names = list(names)
    repeated = set(repeated_names(names))
    return [name for name in names if name in spec.by_name and name not in repeated]


_LOADERS: dict[str, Callable[[Path, Table], Raw]] = {".parquet": _load_parquet, ".arrow": _load_arrow}
