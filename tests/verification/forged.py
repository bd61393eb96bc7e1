"""Run folders changed after they were published, by the careless and by forgers who make every hash fit again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from gpumargin.digests import table_digest
from gpumargin.publish import CHECKSUMS, file_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Edit = Callable[[pl.DataFrame], pl.DataFrame]
    Forgery = Callable[[Path], None]

HASHED = ("accounts", "units", "positions")


def files_of(folder: Path, name: str) -> list[Path]:
    """Files of a table in row order."""
    inner = folder / name
    return sorted(inner.glob("*.parquet")) if inner.is_dir() else [folder / f"{name}.parquet"]


def table_of(folder: Path, name: str) -> pa.Table:
    """A whole table."""
    return pa.concat_tables(
        [pq.read_table(path) for path in files_of(folder, name)], promote_options="default"
    ).unify_dictionaries()


def edited(folder: Path, name: str, edit: Edit) -> None:
    """Rewrites a table, as one file, with its schema as it was."""
    table, (first, *others) = table_of(folder, name), files_of(folder, name)
    frame = edit(pl.DataFrame(pl.from_arrow(table)))
    schema = pa.schema([table.schema.field(column) for column in frame.columns], metadata=table.schema.metadata)
    pq.write_table(frame.to_arrow().cast(schema), first, write_page_checksum=True)
    for path in others:
        path.unlink()


def rewritten(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrites a JSON file."""
    path = folder / f"{name}.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def sealed(folder: Path) -> None:
    """Makes the hashes of values, the row counts and the checksums of a changed run fit again."""
    tables = {name: table_of(folder, name) for name in HASHED if (folder / name).is_dir()}
    digests = {name: table_digest(table) for name, table in tables.items()}
    rows = {name: table.num_rows for name, table in tables.items()}
    rewritten(folder, "manifest", lambda document: document.update(results=digests))
    rewritten(folder, "summary", lambda document: document["rows"].update(written=rows))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != CHECKSUMS]
    inside = [path for path in files if "solvency" not in path.relative_to(folder).parts]
    lines = [f"{file_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in inside]
    (folder / CHECKSUMS).write_text("".join(lines), "utf-8")


def set_to(column: str, value: object, row: int = 0) -> Edit:
    """One cell of a table replaced; the value may be made of the one that is there."""

    def edit(frame: pl.DataFrame) -> pl.DataFrame:
        cells = frame[column].to_list()
        cells[row] = value(cells[row]) if callable(value) else value
        return frame.with_columns(pl.Series(column, cells, dtype=frame.schema[column]))

    return edit


def more(column: str, amount: float, row: int = 0) -> Edit:
    """An amount added to one cell."""
    return set_to(column, lambda value: value + amount, row)


def swapped(column: str, *rows: int) -> Edit:
    """Two cells of a column in each other's place."""

    def edit(frame: pl.DataFrame) -> pl.DataFrame:
        cells = frame[column].to_list()
        cells[rows[0]], cells[rows[1]] = cells[rows[1]], cells[rows[0]]
        return frame.with_columns(pl.Series(column, cells, dtype=frame.schema[column]))

    return edit


def together(*edits: Edit) -> Edit:
    """Several edits of one table."""

    def edit(frame: pl.DataFrame) -> pl.DataFrame:
        for each in edits:
            frame = each(frame)
        return frame

    return edit


def in_table(name: str, edit: Edit) -> Forgery:
    """An edit of a table."""
    return lambda folder: edited(folder, name, edit)


def in_json(name: str, change: Callable[[dict[str, Any]], None]) -> Forgery:
    """A change of a JSON file."""
    return lambda folder: rewritten(folder, name, change)


def all_of(*forgeries: Forgery) -> Forgery:
    """Several changes of one run."""

    def forge(folder: Path) -> None:
        for each in forgeries:
            each(folder)

    return forge
