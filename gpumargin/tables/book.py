"""Books: the tables of the contract in canonical types, and where each row came from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.types as pat

from gpumargin.failures import Failure, failure_frame, input_error
from gpumargin.pack.joins import MarketRows, market_rows
from gpumargin.schema import MARKET_TABLES, TABLES, Table
from gpumargin.tables.canonical import ColumnMismatchError, canonical_column, with_one_dictionary
from gpumargin.tables.defaults import fill_constants, fill_derived
from gpumargin.tables.parts import (
    IN_MEMORY,
    Part,
    Raw,
    folder_parts,
    given_parts,
    load_part,
    repeated_names,
    unknown_table,
)

if TYPE_CHECKING:
    from gpumargin.tables.parts import TableLike

ExtraColumns = Literal["error", "ignore"]
NO_FILE = "(added)"
"""Source of rows that no file holds."""
_FORM_REMEDY = "keep one: NAME.parquet, a folder NAME/ of Parquet files, NAME.arrow, or a frame"


@dataclass(frozen=True, slots=True)
class Source:
    """Consecutive rows of a table that came from one file.

    Attributes:
      file: relative to the book's folder.
      rows: how many rows.
      first: number in the file of the first one; the others follow it, unless `index` says otherwise.
      index: `[rows]` number in the file of every row, where they do not stand there one after the other.
    """

    file: str
    rows: int
    first: int = 0
    index: np.ndarray | None = None

    def row_in_file(self, row: int) -> int:
        """Number in the file of one of these rows."""
        return self.first + row if self.index is None else int(self.index[row])


@dataclass(frozen=True, init=False)
class Book:
    """The tables of one snapshot, typed but not yet judged (`gpumargin.checks` does that).

    Attributes:
      tables: Arrow tables by name, only those that were given; every column in its canonical type (`schema.CANONICAL`),
        defaults filled, optional columns possibly absent.
      sources: for each table its files in row order.
    """

    tables: Mapping[str, pa.Table]
    sources: Mapping[str, tuple[Source, ...]]

    def __init__(
        self,
        tables: Mapping[str, pa.Table] | None = None,
        sources: Mapping[str, tuple[Source, ...]] | None = None,
        *,
        extra_columns: ExtraColumns = "error",
        **given: TableLike | None,
    ) -> None:
        """Takes canonical tables as they are, or, by name, anything `read_book` takes."""
        if tables is None:
            read = read_book(None, extra_columns=extra_columns, **given)
            tables, sources = read.tables, read.sources
        known = sources or {}
        located = {name: known.get(name, (Source(IN_MEMORY, table.num_rows),)) for name, table in tables.items()}
        object.__setattr__(self, "tables", dict(tables))
        object.__setattr__(self, "sources", located)

    def num_rows(self, table: str) -> int:
        """Number of rows of a table, 0 where it was not given."""
        return int(self.tables[table].num_rows) if table in self.tables else 0

    @cached_property
    def market_rows(self) -> MarketRows:
        """Where the mark and the forward of each instrument stand; of a book with the tables of a market."""
        return market_rows(self.tables)

    def locate(self, table: str, row: int) -> tuple[str, int]:
        """File of a table's row and the row's number in that file, both counted from 0."""
        for source in self.sources[table]:
            if row < source.rows:
                return source.file, source.row_in_file(row)
            row -= source.rows
        message = f"table {table!r} has {self.num_rows(table)} rows"
        raise IndexError(message)

    def frame(self, table: str) -> pl.DataFrame:
        """Polars copy of a table with ids as plain strings; meant for small tables, positions can be large."""
        return _frame(self.tables[table])

    def whole_frame(self, table: str) -> pl.DataFrame:
        """`frame` with every column of the contract, absent ones null."""
        found = self.tables[table]
        absent = [column for column in TABLES[table].columns if column.name not in found.column_names]
        columns = [*found.columns, *(pa.nulls(found.num_rows, column.arrow_type) for column in absent)]
        names = [*found.column_names, *(column.name for column in absent)]
        return _frame(pa.Table.from_arrays(columns, names))


def _frame(table: pa.Table) -> pl.DataFrame:
    plain = [col.cast(pa.string()) if pat.is_dictionary(col.type) else col for col in table.columns]
    return pl.DataFrame(pl.from_arrow(pa.table(plain, names=table.column_names)))


def read_book(
    path: str | Path | None = None, *, extra_columns: ExtraColumns = "error", **tables: TableLike | None
) -> Book:
    """Reads a book from a folder, from objects, or from both.

    Args:
      path: folder of `NAME.parquet`, `NAME/*.parquet` (sorted by file name) or `NAME.arrow`, one form per table.
      extra_columns: `ignore` skips columns that the contract does not know.
      **tables: further tables by name: polars frames, Arrow tables or record batches, paths of a file or a folder.

    Returns:
      The book in canonical types with the contract's defaults filled in. Optional tables without rows count as absent.

    Raises:
      InputError: missing tables, unreadable files, unknown, missing or wrongly typed columns; all of them at once.
    """
    failures: list[Failure] = []
    return read_forms(table_forms(path, tables, failures), extra_columns, failures)


def read_market(path: str | Path) -> Book:
    """Reads what a book says of the market; positions and balances may be missing and are left out.

    Args:
      path: folder of a book, of which `schema.MARKET_TABLES` are read.

    Raises:
      InputError: as `read_book`.
    """
    failures: list[Failure] = []
    market = {table.name for table in MARKET_TABLES}
    forms = {name: parts for name, parts in table_forms(path, {}, failures).items() if name in market}
    return read_forms(forms, "error", failures, wanted=market)


def read_tables(specs: Mapping[str, Table], tables: Mapping[str, TableLike | None], path: Path | None = None) -> Book:
    """Reads tables that are no whole book: what a block changes of one.

    Args:
      specs: tables that there may be, by name.
      tables: by name, in the forms that `read_book` takes.
      path: folder of further ones.

    Returns:
      The tables that were given, in canonical types, constant defaults filled in; what is derived from other tables
      stays null.

    Raises:
      InputError: unreadable files, unknown, missing or wrongly typed columns; all of them at once.
    """
    failures: list[Failure] = []
    forms = {name: [given_parts(specs[name], value)] for name, value in tables.items() if value is not None}
    for name, found in (folder_parts(path, failures, specs) if path is not None else {}).items():
        forms.setdefault(name, []).extend(found)
    failures += [_several_forms(name, found) for name, found in forms.items() if len(found) > 1]
    read = {name: _read_table(specs[name], found[0], "error", failures) for name, found in forms.items()}
    if failures:
        raise input_error(failure_frame(failures))
    kept = {name: found for name, found in read.items() if found is not None}
    return Book({name: table for name, (table, _) in kept.items()}, {name: s for name, (_, s) in kept.items()})


def read_forms(
    forms: Mapping[str, list[Part]],
    extra_columns: ExtraColumns,
    failures: list[Failure],
    *,
    wanted: Collection[str] = TABLES.keys(),
    kept: Collection[str] = (),
) -> Book:
    """The book of these tables; those that are required and `wanted` must be among them.

    Optional tables without rows count as absent, unless they are to be `kept`.

    Raises:
      InputError: `failures` so far, and those of reading.
    """
    read = {name: _read_table(TABLES[name], parts, extra_columns, failures) for name, parts in forms.items()}
    failures += [_missing_table(name) for name in TABLES if _is_missing(name, forms, wanted)]
    if failures:
        raise input_error(failure_frame(failures))
    given = {
        name: found
        for name, found in read.items()
        if found and (found[0].num_rows or TABLES[name].required or name in kept)
    }
    filled = fill_derived({name: table for name, (table, _) in given.items()})
    return Book(filled, {name: sources for name, (_, sources) in given.items()})


def _is_missing(name: str, forms: Mapping[str, list[Part]], wanted: Collection[str]) -> bool:
    return TABLES[name].required and name in wanted and name not in forms


def table_forms(
    path: str | Path | None, tables: Mapping[str, TableLike | None], failures: list[Failure]
) -> dict[str, list[Part]]:
    """The parts of every table that a folder and objects hold; what is wrong with their names joins `failures`."""
    forms = _folder_forms(Path(path), failures) if path is not None else {}
    for name, value in tables.items():
        if name not in TABLES:
            failures.append(unknown_table(name, IN_MEMORY))
        elif value is not None:
            forms.setdefault(name, []).append(given_parts(TABLES[name], value))
    failures += [_several_forms(name, found) for name, found in forms.items() if len(found) > 1]
    failures += [_no_files(name) for name, found in forms.items() if not found[0]]
    return {name: found[0] for name, found in forms.items()}


def _folder_forms(folder: Path, failures: list[Failure]) -> dict[str, list[list[Part]]]:
    if folder.is_dir():
        return folder_parts(folder, failures)
    message = f"expected a folder of tables at {str(folder)!r}, found {'a file' if folder.exists() else 'nothing'}"
    failures.append(Failure("GM119", "", str(folder), None, "", "", message, "give the folder that holds the tables"))
    return {}


def _several_forms(name: str, forms: list[list[Part]]) -> Failure:
    files = [form[0].file if form else f"{name}/" for form in forms]
    message = f"table {name!r} is there in {len(forms)} forms: {', '.join(files)}"
    return Failure("GM101", name, files[-1], None, "", "", message, _FORM_REMEDY)


def _no_files(name: str) -> Failure:
    message = f"the folder of table {name!r} holds no .parquet file"
    return Failure("GM101", name, f"{name}/", None, "", "", message, "add its files or remove the folder")


def _missing_table(name: str) -> Failure:
    message = f"table {name!r} is missing"
    return Failure("GM101", name, "", None, "", "", message, f"add {name}.parquet to the book, with no rows if need be")


def _read_table(
    spec: Table, parts: list[Part], extra_columns: ExtraColumns, failures: list[Failure]
) -> tuple[pa.Table, tuple[Source, ...]] | None:
    """One table from its parts, or None when a failure keeps its parts from being joined."""
    before = len(failures)
    loaded = [(part, raw) for part in parts if (raw := load_part(part, failures)) is not None]
    for part, raw in loaded:
        failures += _name_failures(spec, part, raw, extra_columns)
    pieces = [typed_table(spec, part, raw, failures) for part, raw in loaded]
    failures += _type_conflicts(spec, [part for part, _ in loaded], pieces)
    if len(failures) > before or not pieces:
        return None
    joined = with_one_dictionary(pa.concat_tables(pieces, promote_options="default"))
    sources = tuple(Source(part.file, piece.num_rows) for (part, _), piece in zip(loaded, pieces, strict=True))
    return fill_constants(spec, joined), sources


def _name_failures(spec: Table, part: Part, raw: Raw, extra_columns: ExtraColumns) -> list[Failure]:
    extra = [name for name in dict.fromkeys(raw.names) if name not in spec.by_name and extra_columns == "error"]
    known = ", ".join(spec.by_name)
    found = [
        *((name, "is not in the contract", f"remove it, or ignore extra columns; known: {known}") for name in extra),
        *((name, "stands more than once", "keep one of them") for name in repeated_names(raw.names)),
        *(
            (column.name, "is missing", f"add it: {column.meaning}")
            for column in spec.columns
            if column.required and column.name not in raw.names
        ),
    ]
    return [
        Failure("GM101", spec.name, part.file, None, name, "", f"column {name!r} {fault}", remedy)
        for name, fault, remedy in found
    ]


def typed_table(spec: Table, part: Part, raw: Raw, failures: list[Failure]) -> pa.Table:
    """What was loaded in canonical types; columns that cannot be are left out and join `failures`."""
    columns = {}
    for name in raw.data.column_names:
        try:
            columns[name] = canonical_column(raw.data.column(name), spec.by_name[name])
        except ColumnMismatchError as error:
            remedy = "write the column in one of the accepted types"
            failures.append(Failure(error.code, spec.name, part.file, None, name, "", str(error), remedy))
    ordered = {column.name: columns[column.name] for column in spec.columns if column.name in columns}
    return pa.table(ordered) if ordered else raw.data.select([])


def _type_conflicts(spec: Table, parts: list[Part], pieces: list[pa.Table]) -> list[Failure]:
    failures: list[Failure] = []
    for name in spec.by_name if len(parts) > 1 else ():
        typed = [
            (part, piece.schema.field(name).type)
            for part, piece in zip(parts, pieces, strict=True)
            if name in piece.column_names
        ]
        odd = [(part, dtype) for part, dtype in typed if dtype != typed[0][1]]
        for part, dtype in odd:
            message = f"column {name!r} is {dtype} here and {typed[0][1]} in {typed[0][0].file}"
            code = "GM116" if pat.is_decimal(dtype) and pat.is_decimal(typed[0][1]) else "GM101"
            failures.append(Failure(code, spec.name, part.file, None, name, "", message, "write all files alike"))
    return failures
