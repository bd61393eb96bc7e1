"""A book in files, part by part: its market whole, the tables of its accounts cut by ranges of account ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from gpumargin.errors import RefusedError
from gpumargin.files import is_inside
from gpumargin.lanes import side_by_side
from gpumargin.schema import TABLES
from gpumargin.tables.book import Book, Source, read_book, read_forms, table_forms
from gpumargin.tables.canonical import canonical_column, with_one_dictionary
from gpumargin.tables.feed import Feed, Piece, Room
from gpumargin.tables.ranges import account_ranges
from gpumargin.tables.rowgroups import RowGroup, read_column, row_groups, schema_part

if TYPE_CHECKING:
    from pathlib import Path

    from gpumargin.failures import Failure
    from gpumargin.tables.parts import Part

CUT_TABLES = ("positions", "balances", "accounts", "account_parameters", "orders")
"""Tables whose rows belong to one account each."""

Seen = Callable[[str, pa.Table], None]
_ROW_BYTES = {"positions": 400, "balances": 400, "accounts": 1500, "account_parameters": 300, "orders": 400}
"""What a row takes in one part, results of its account included, while that is read, computed or written: estimates."""
_IN_FLIGHT = 6
"""Parts that a budget is to hold: one read and packed, one computed, one written, and room for as many again for
compiled programs and memory that is free but not given back: an estimate, tested on books that are small for it."""
_WORDS = {"positions": "instrument_id", "orders": "instrument_id", "accounts": "model"}
"""Columns whose words the market is checked and models are looked up for before any account is."""


class Start(NamedTuple):
    """Where a book is gone on with that was read before.

    Attributes:
      part: number of the next part.
      rows: of every table, those that were seen.
    """

    part: int
    rows: Mapping[str, int]


FIRST = Start(0, {})


class Parts(Protocol):
    """A book whose accounts come part by part."""

    @property
    def head(self) -> Book:
        """All of the market; of tables of accounts at least a row for every instrument and every model in use."""

    @property
    def files(self) -> Mapping[str, Mapping[str, int]]:
        """Rows of every file of every table."""

    def parts(self, seen: Seen, scratch: Path, start: Start = FIRST) -> Iterator[Book]:
        """The book in parts by ascending account ids: the whole market, and all rows of some accounts.

        Args:
          seen: called with all rows of every table of accounts in the order of their files, and with the market.
          scratch: folder for rows that wait for their part; made when needed, the caller removes it.
          start: where to go on; what was seen by then is not seen again.
        """


@dataclass(frozen=True)
class WholeBook:
    """A book in memory as a single part."""

    head: Book

    @property
    def files(self) -> Mapping[str, Mapping[str, int]]:
        """Rows of every file of every table."""
        return {name: _rows_by_file(sources) for name, sources in self.head.sources.items()}

    def parts(self, seen: Seen, scratch: Path, start: Start = FIRST) -> Iterator[Book]:  # noqa: ARG002
        """The book itself."""
        if start.part:
            return
        for name, table in self.head.tables.items():
            seen(name, table)
        yield self.head


def _rows_by_file(sources: tuple[Source, ...]) -> dict[str, int]:
    return {source.file: source.rows for source in sources}


@dataclass(frozen=True)
class BookFiles:
    """A folder of Parquet files as a stream of parts.

    Attributes:
      market: its small tables whole, the tables of accounts without rows.
      groups: row groups of every table of accounts.
      number: how many parts are wanted.
      room: bytes that rows may take while they wait for their part.
    """

    market: Book
    groups: Mapping[str, list[RowGroup]]
    number: int
    room: int
    head: Book = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", self._head())

    @property
    def files(self) -> Mapping[str, Mapping[str, int]]:
        """Rows of every file of every table."""
        found = {name: _rows_by_file(sources) for name, sources in self.market.sources.items()}
        for name, groups in self.groups.items():
            found[name] = {group.part.file: 0 for group in groups}
            for group in groups:
                found[name][group.part.file] += group.rows
        return found

    def num_rows(self, table: str) -> int:
        """Rows of a table of accounts."""
        return sum(group.rows for group in self.groups[table])

    def parts(self, seen: Seen, scratch: Path, start: Start = FIRST) -> Iterator[Book]:
        """See `Parts`. Files whose accounts are in order are read once, as parts need them; all others before.

        Raises:
          InputError: GM119, GM101 or GM118: rows of a file cannot be read.
        """
        for name, table in self.market.tables.items():
            if name not in self.groups and not start.part:
                seen(name, table)
        longest = max(self.groups, key=self.num_rows)
        ranges = account_ranges(self.groups[longest], self.number)
        room = Room(self.room, scratch)
        feeds = {
            name: Feed(groups, self.market.tables[name], ranges, room, seen, start.part, start.rows.get(name, 0))
            for name, groups in self.groups.items()
        }
        for number in range(start.part, len(ranges)):
            yield self._part({name: feed.part(number) for name, feed in feeds.items()})

    def _part(self, pieces: Mapping[str, list[Piece]]) -> Book:
        tables = {name: table for name, table in self.market.tables.items() if name not in self.groups}
        sources = {name: self.market.sources[name] for name in tables}
        for name, found in pieces.items():
            if found or TABLES[name].required:
                tables[name] = _joined(self.market.tables[name], [piece.table for piece in found])
                sources[name] = tuple(piece.source for piece in found)
        return Book(tables, sources)

    def _head(self) -> Book:
        tables = {name: table for name, table in self.market.tables.items() if name not in self.groups}
        for name, groups in self.groups.items():
            like, wanted = self.market.tables[name], _WORDS.get(name)
            has_column = wanted is not None and wanted in like.column_names
            words = _used_words(groups, wanted) if has_column and wanted else None
            tables[name] = _stand_in(like, wanted, words) if self.num_rows(name) else like
        return Book(tables, {name: self.market.sources[name] for name in tables if name not in self.groups})


def _joined(like: pa.Table, tables: list[pa.Table]) -> pa.Table:
    """One table with one dictionary per column; the words of a dictionary that Parquet hands out are distinct."""
    return pa.concat_tables(tables).unify_dictionaries() if tables else like


def _used_words(groups: list[RowGroup], column: str) -> pa.Array:
    """Distinct values of a column over all its rows."""
    spec = TABLES[groups[0].part.table].by_name[column]

    def words(group: RowGroup) -> pa.Array | None:
        values = read_column(group, column)
        return None if values is None else _words_of(values)

    found = [own for own in side_by_side(words, groups) if own is not None]
    chunks = pa.chunked_array(found) if found else pa.chunked_array([pa.nulls(0, pa.string())])
    return canonical_column(pa.chunked_array([chunks.unique().drop_null()]), spec)


def _words_of(column: pa.ChunkedArray) -> pa.Array:
    if not pat.is_dictionary(column.type):
        return column.unique()
    used = [
        chunk.dictionary.take(pa.array(np.flatnonzero(np.bincount(np.asarray(chunk.indices.drop_null())))))
        for chunk in column.chunks
    ]
    return pa.chunked_array(used, column.type.value_type).unique()


def _stand_in(like: pa.Table, column: str | None, words: pa.ChunkedArray | None) -> pa.Table:
    """A row for each word of a column, or one row; the other columns are null."""
    rows = 1 if words is None or not len(words) else len(words)
    columns = {field.name: pa.chunked_array([pa.nulls(rows, field.type)]) for field in like.schema}
    if column is not None and words is not None and len(words):
        columns[column] = with_one_dictionary(pa.table({column: words})).column(column)
    return pa.table(columns)


def open_book(path: Path, *, memory: int) -> Parts:
    """A book in a folder: in memory where it is small beside `memory` bytes, else as a stream of parts.

    Args:
      path: folder as `read_book` takes it.
      memory: bytes that all parts in flight may take.

    Raises:
      InputError: as `read_book`; of files that are streamed, what their columns say.
    """
    failures: list[Failure] = []
    forms = table_forms(path, {}, failures)
    found = None if failures else _streamable({n: forms[n] for n in CUT_TABLES if n in forms}, path.resolve())
    if found is None:
        return WholeBook(read_book(path))
    need = sum(_ROW_BYTES[name] * group.rows for name, groups in found.items() for group in groups)
    number = -(-need * _IN_FLIGHT // memory)
    if number <= 1:
        return WholeBook(read_book(path))
    empty = {name: [schema_part(part) for part in forms[name]] for name in found}
    return BookFiles(read_forms(forms | empty, "error", failures, kept=tuple(found)), found, number, memory // 4)


def _streamable(forms: Mapping[str, list[Part]], root: Path) -> dict[str, list[RowGroup]] | None:
    """Row groups of the tables of accounts that have rows; None where some are not in readable Parquet files."""
    if not all(_is_parquet(part, root) for parts in forms.values() for part in parts):
        return None
    try:
        found = {name: [group for part in parts for group in row_groups(part)] for name, parts in forms.items()}
    except (OSError, RefusedError, pa.ArrowException):
        return None
    return {name: groups for name, groups in found.items() if groups}


def _is_parquet(part: Part, root: Path) -> bool:
    return part.path is not None and part.path.suffix == ".parquet" and is_inside(part.path, root)
