"""Files that others have written, opened with suspicion: judged by what they declare before anything is decoded.

Everything that reads a Parquet or Arrow file of a user does it here, with pyarrow: polars does not verify the checksums
of pages and aborts the process when memory runs out, which nothing can catch. What this cannot see is said in
SECURITY.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyarrow.types as pat

from gpumargin.errors import RefusedError
from gpumargin.files.arrow import unpacked_bytes
from gpumargin.files.footers import (
    MAX_CHUNKS,
    MAX_COLUMNS,
    Group,
    footer_length,
    parse_footer,
    refuse_many,
    refuse_pages,
)
from gpumargin.limits import usable_memory

CELL_BYTES = 48
"""Room for a cell while its table is read and judged (measured: 16 to 19 bytes read, 28 judged as well); declared sizes
are no guard, since a value that repeats declares almost nothing."""

_EXTENSION = b"ARROW:extension:name"
_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
Choose = Callable[[Sequence[str]], list[str]]


class State(NamedTuple):
    """What tells one content of a file from another without reading it."""

    device: int
    inode: int
    size: int
    changed: int


@dataclass(frozen=True)
class Footer:
    """What a Parquet file declares, found sane.

    Attributes:
      path: of the file.
      state: of the file when its footer was read.
      metadata: the footer as pyarrow reads it.
      schema: its columns as Arrow types.
      names: columns that are wanted.
      groups: its row groups.
    """

    path: Path
    state: State
    metadata: pq.FileMetaData
    schema: pa.Schema
    names: tuple[str, ...]
    groups: Sequence[Group]

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(group.rows for group in self.groups)


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path, links followed, leads to something in the folder `root`."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a circle of links
        return False


def refuse_outside(path: Path, root: Path) -> None:
    """Raises RefusedError if a path leads out of the folder `root`."""
    if not is_inside(path, root):
        what = f"it is a link to {str(path.readlink())!r}" if path.is_symlink() else "it lies"
        message = f"{what}, outside the folder {str(root)!r}"
        raise RefusedError(message)


@contextmanager
def opened(path: Path, *, expected: State | None = None) -> Iterator[tuple[pa.NativeFile, State]]:
    """A regular file open for reading, and its state.

    Raises:
      RefusedError: not a regular file, not in the `expected` state, or it changed while it was open.
    """
    before = _state(path.stat())
    if expected is not None and before != expected:
        raise RefusedError(_CHANGED)
    with pa.OSFile(str(path)) as file:
        yield file, before
        # both: the file that was read may have been changed, or another one put in its place
        if not before == _state(os.fstat(file.fileno())) == _state(path.stat()):
            raise RefusedError(_CHANGED)


_CHANGED = "it changed while it was read; wait until whoever writes it has finished"


def _state(found: os.stat_result) -> State:
    if not stat.S_ISREG(found.st_mode):
        message = f"it is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no regular file')}, not a file"
        raise RefusedError(message)
    return State(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def read_footer(path: Path, choose: Choose = list, *, is_plain: bool = True) -> Footer:
    """The footer of a Parquet file.

    Args:
      path: of the file.
      choose: those of its column names that are wanted.
      is_plain: whether wanted columns that are nested or of an extension type are refused.

    Raises:
      RefusedError: the file is none, is encrypted, contradicts itself, or declares more than is read of any file.
      OSError, pa.ArrowException: it cannot be read.
    """
    with opened(path) as (file, state):
        footer_length(file.read_at, state.size)
        metadata = pq.read_metadata(file)
        refuse_many("columns", metadata.num_columns, MAX_COLUMNS)
        refuse_many("columns of row groups", metadata.num_columns * metadata.num_row_groups, MAX_CHUNKS)
        groups = parse_footer(file.read_at, state.size)
        schema = metadata.schema.to_arrow_schema()
    names = choose(schema.names)
    for name in names if is_plain else ():
        refuse_type(schema.field(name))
    return Footer(path, state, metadata, schema, tuple(names), groups)


def refuse_type(field: pa.Field) -> None:
    """Raises RefusedError if a column is nested, of an extension type, which is never loaded, or in no time zone."""
    metadata: Mapping[bytes, bytes] = field.metadata or {}
    if isinstance(field.type, pa.BaseExtensionType) or _EXTENSION in metadata:
        name = metadata.get(_EXTENSION, b"").decode(errors="replace")
        message = f"column {field.name!r} is of an extension type {name!r}, which is never loaded; write a plain one"
        raise RefusedError(message, code="GM101", column=field.name)
    try:
        getattr(field.type, "tz", None)
    except UnicodeDecodeError as error:
        message = f"the time zone of column {field.name!r} is no text: {error}"
        raise RefusedError(message, code="GM101", column=field.name) from error
    inner = field.type.value_type if pat.is_dictionary(field.type) else field.type
    if pat.is_nested(inner) or pat.is_dictionary(inner) or isinstance(inner, pa.BaseExtensionType):
        message = f"column {field.name!r} is nested ({field.type}); write one plain value per row"
        raise RefusedError(message, code="GM101", column=field.name)


def refuse_giant(rows: int, *, num_columns: int, num_bytes: int = 0) -> None:
    """Raises RefusedError if so many rows, or so many bytes of text, may not fit into the memory of this process."""
    needed, held = max(rows * num_columns * CELL_BYTES, num_bytes), usable_memory()
    if rows < 0 or needed > held > 0:
        message = f"its {rows:,} rows may take {needed:,} bytes, this process may use {held:,}"
        raise RefusedError(message)


def read_parquet(footer: Footer, names: Sequence[str] | None = None, *, group: int | None = None) -> pa.Table:
    """Rows of a file or of one of its row groups, words as dictionaries, checksums of pages verified where it has them.

    Args:
      footer: of the file, which must not have changed since.
      names: columns, all that were wanted if None.
      group: number of the row group.

    Raises:
      RefusedError: the rows may not fit into memory, or there are others than the footer says.
      OSError, pa.ArrowException: it cannot be read.
    """
    wanted = footer.names if names is None else names
    groups = footer.groups if group is None else [footer.groups[group]]
    rows = sum(group.rows for group in groups)
    refuse_giant(rows, num_columns=len(wanted), num_bytes=_bytes(groups, wanted))
    if not wanted:
        return footer.schema.empty_table().select([])
    table = without_metadata(_decoded(footer, list(wanted), group))
    if table.num_rows != rows:
        message = f"it holds {table.num_rows:,} rows, its footer says {rows:,}"
        raise RefusedError(message)
    return table


def _bytes(groups: Sequence[Group], names: Collection[str]) -> int:
    """Bytes before compression."""
    return sum(chunk.uncompressed for group in groups for name, chunk in group.chunks.items() if name in names)


def _decoded(footer: Footer, names: list[str], group: int | None) -> pa.Table:
    words = [name for name in names if _is_text(footer.schema.field(name).type)]
    options = {"metadata": footer.metadata, "read_dictionary": words, "page_checksum_verification": True}
    with opened(footer.path, expected=footer.state) as (file, _):
        for each in footer.groups if group is None else [footer.groups[group]]:
            refuse_pages(file.read_at, each, names)
        with pq.ParquetFile(file, **options) as reader:
            return reader.read(columns=names) if group is None else reader.read_row_group(group, columns=names)


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pat.is_string(dtype.value_type if pat.is_dictionary(dtype) else dtype))


def read_arrow(path: Path, choose: Choose = list) -> tuple[tuple[str, ...], pa.Table]:
    """Column names of an Arrow IPC file, and its rows in those that are wanted, every offset and code in them checked.

    Raises:
      RefusedError: it holds too much, or wanted columns are nested or of an extension type.
      OSError, pa.ArrowException: it cannot be read.
    """
    with opened(path) as (file, state):
        refuse_giant(0, num_columns=0, num_bytes=max(state.size, unpacked_bytes(file.read_at, state.size)))
        probe = pa.ipc.open_file(file)
        refuse_many("columns", len(probe.schema), MAX_COLUMNS)
        refuse_many("columns of batches", len(probe.schema) * probe.num_record_batches, MAX_CHUNKS)
        names, schema = tuple(probe.schema.names), probe.schema
        wanted = [schema.get_field_index(name) for name in choose(names)]
        for index in wanted:
            refuse_type(schema.field(index))
        # asked for no fields, the reader gives all of them
        table = without_metadata(_batches(file, sorted(wanted))) if wanted else schema.empty_table().select([])
    return names, table


def without_metadata(table: pa.Table) -> pa.Table:
    """The table without what its file says of its columns: words damaged there end polars, not the reading."""
    return pa.table(table.columns, names=table.column_names)


def _batches(file: pa.NativeFile, wanted: list[int]) -> pa.Table:
    """The batches of a file one after the other, until they take more memory than there is."""
    with pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=wanted)) as reader:
        found, rows, size = [], 0, 0
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate(full=True)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            refuse_giant(rows, num_columns=len(wanted), num_bytes=size)
            found.append(batch)
        return pa.Table.from_batches(found, reader.schema)


def refuse_odd(paths: Sequence[Path]) -> None:
    """Raises RefusedError if a Parquet file cannot be read, or declares what no file of a run or of a venue does.

    Meant for what others go on to read; nested columns may stand in it.
    """
    for path in paths:
        with named(path):
            footer = read_footer(path, is_plain=False)
            refuse_giant(footer.rows, num_columns=1, num_bytes=_bytes(footer.groups, footer.names))


def checked_dataset(paths: Sequence[Path]) -> ds.Dataset:
    """Parquet files as a dataset that verifies the checksums of pages, after `refuse_odd`.

    Raises:
      RefusedError: as there.
    """
    refuse_odd(paths)
    return ds.dataset([str(path) for path in paths], format=_FORMAT)


def whole_table(path: Path) -> pa.Table:
    """All of one Parquet or Arrow file, for tables that are not of a book being margined.

    Raises:
      RefusedError: it cannot be read.
    """
    with named(path):
        return read_arrow(path)[1] if path.suffix == ".arrow" else read_parquet(read_footer(path, is_plain=False))


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Whatever keeps a file from being read becomes a RefusedError that names it."""
    try:
        yield
    except MemoryError:
        raise
    except (OSError, UnicodeDecodeError, pa.ArrowException, RefusedError) as error:
        message = f"{str(path)!r} cannot be read: {' '.join(str(error).split())}"
        raise RefusedError(message) from error
