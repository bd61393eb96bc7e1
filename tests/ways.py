"""Every way a book can come in, each as a function of polars tables and a scratch folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from gpumargin.errors import InputError
from gpumargin.tables import Book, read_book
from tests.books import write_book

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import polars as pl

    Way = Callable[[Mapping[str, pl.DataFrame], Path], Book]


def parquet_files(tables: Mapping[str, pl.DataFrame], folder: Path) -> Book:
    """One Parquet file per table."""
    return read_book(write_book(folder, tables))


def folder_of_parts(tables: Mapping[str, pl.DataFrame], folder: Path) -> Book:
    """Every table as a folder of two Parquet files, half of the rows each."""
    for name, frame in tables.items():
        half = frame.height // 2
        write_book(folder / name, {"part-0": frame[:half], "part-1": frame[half:]})
    return read_book(folder)


def arrow_files(tables: Mapping[str, pl.DataFrame], folder: Path) -> Book:
    """One Arrow IPC file per table."""
    for name, frame in tables.items():
        table = frame.to_arrow()
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return read_book(folder)


def polars_frames(tables: Mapping[str, pl.DataFrame], folder: Path) -> Book:
    """Polars frames by name."""
    return Book(**tables)


def lazy_frames(tables: Mapping[str, pl.DataFrame], folder: Path) -> Book:
    """Polars lazy frames by name."""
    return read_book(**{name: frame.lazy() for name, frame in tables.items()})


def arrow_tables(tables: Mapping[str, pl.DataFrame], folder: Path) -> Book:
    """Arrow tables by name."""
    return read_book(**{name: frame.to_arrow() for name, frame in tables.items()})


def record_batches(tables: Mapping[str, pl.DataFrame], folder: Path) -> Book:
    """Arrow record batches by name."""
    return read_book(**{name: frame.to_arrow().combine_chunks().to_batches()[0] for name, frame in tables.items()})


def named_paths(tables: Mapping[str, pl.DataFrame], folder: Path) -> Book:
    """Paths of single files by name."""
    write_book(folder, tables)
    return read_book(**{name: str(folder / f"{name}.parquet") for name in tables})


WAYS: dict[str, Way] = {
    way.__name__.replace("_", "-"): way
    for way in (
        parquet_files,
        folder_of_parts,
        arrow_files,
        polars_frames,
        lazy_frames,
        arrow_tables,
        record_batches,
        named_paths,
    )
}


def unreadable(*args: object, **tables: object) -> pl.DataFrame:
    """Failures of a book that cannot be read."""
    with pytest.raises(InputError) as caught:
        read_book(*args, **tables)  # type: ignore[arg-type]
    assert caught.value.exit_code == 3
    return caught.value.failures
