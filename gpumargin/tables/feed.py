"""The rows of one table part by part: row groups read in order, what belongs to later parts kept or spilled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from gpumargin import disk
from gpumargin.failures import Failure, failure_frame, input_error
from gpumargin.tables.book import Source
from gpumargin.tables.ranges import cut
from gpumargin.tables.rowgroups import read_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gpumargin.tables.ranges import Ranges
    from gpumargin.tables.rowgroups import RowGroup

_ROW = "row in file"


class Piece(NamedTuple):
    """Rows of one file that belong to one part."""

    table: pa.Table
    source: Source


@dataclass
class Room:
    """Memory that rows of later parts may take, shared by the tables of a book; what does not fit goes to disk."""

    left: int
    folder: Path

    def take(self, size: int) -> bool:
        """Whether there is room for `size` more bytes, which is then taken."""
        if size > self.left:
            return False
        self.left -= size
        return True


@dataclass
class Waiting:
    """Rows of one part of one table that were read before the part's turn."""

    path: Path
    pieces: list[Piece] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)  # of the spilled rows, without their numbers
    file: disk.OutFile | None = None
    writer: pa.ipc.RecordBatchStreamWriter | None = None
    held: int = 0

    def add(self, piece: Piece, room: Room) -> None:
        """Keeps rows in memory or, once one piece did not fit, writes them to disk."""
        size = piece.table.nbytes
        if self.writer is None and room.take(size):
            self.held += size
            self.pieces.append(piece)
        else:
            self._spill(piece)

    def _spill(self, piece: Piece) -> None:
        table, source = piece
        numbers = np.arange(source.first, source.first + source.rows) if source.index is None else source.index
        table = table.append_column(_ROW, pa.array(numbers.astype(np.int64))).combine_chunks()
        if self.writer is None:
            disk.make_folder(self.path.parent)
            self.file = disk.OutFile(self.path)
            self.writer = pa.ipc.new_stream(self.file, table.schema)
        self.writer.write_table(table)
        self.sources.append(source)

    def taken(self, room: Room) -> list[Piece]:
        """All rows in the order they came, and their room given back."""
        room.left += self.held
        return [*self.pieces, *self._read_back()]

    def _read_back(self) -> list[Piece]:
        if self.writer is None or self.file is None:
            return []
        self.writer.close()
        self.file.close()
        with pa.OSFile(str(self.path)) as file, pa.ipc.open_stream(file) as reader:
            batches = list(reader)
        disk.remove(self.path)
        return [_spilled(batch, source) for batch, source in zip(batches, self.sources, strict=True)]


def _spilled(batch: pa.RecordBatch, source: Source) -> Piece:
    table = pa.Table.from_batches([batch])
    numbers = np.asarray(table.column(_ROW).combine_chunks())
    return Piece(table.drop_columns([_ROW]), Source(source.file, source.rows, index=numbers))


class Feed:
    """One table of a book, part by part.

    Args:
      groups: its row groups in order.
      like: a table with the columns that its rows get.
      ranges: the parts.
      room: where rows wait.
      seen: called with the rows of every row group, in order.
      start: the first part that is wanted; rows of those before are passed over.
      seen_rows: rows that `seen` has been called with by whoever read those parts: whole row groups.
    """

    def __init__(
        self,
        groups: Sequence[RowGroup],
        like: pa.Table,
        ranges: Ranges,
        room: Room,
        seen: Callable[[str, pa.Table], None],
        start: int = 0,
        seen_rows: int = 0,
    ) -> None:
        self._groups, self._like, self._ranges, self._room, self._seen = groups, like, ranges, room, seen
        self._earliest = [0 if group.low is None else ranges.of_id(group.low) for group in groups]
        self._start = start
        self._old = int(np.searchsorted(np.cumsum([group.rows for group in groups]), seen_rows, side="right"))
        self._read = 0
        self._waiting: dict[int, Waiting] = {}

    def part(self, number: int) -> list[Piece]:
        """Rows of one part; parts are asked for in ascending order.

        Raises:
          InputError: GM119, a file cannot be read, or what it says of its account ids is not true.
        """
        needed = [i for i, earliest in enumerate(self._earliest) if earliest <= number]
        now: list[Piece] = self._taken(number)
        for index in range(self._read, max(needed, default=-1) + 1):
            if not self._is_over(index):
                now += self._load(index, number)
        self._read = max(self._read, max(needed, default=-1) + 1)
        return now

    def _is_over(self, index: int) -> bool:
        """Whether all rows of a row group are known to belong to parts before the first that is wanted."""
        high = self._groups[index].high
        return index < self._old and high is not None and self._ranges.of_id(high) < self._start

    def _taken(self, number: int) -> list[Piece]:
        waiting = self._waiting.pop(number, None)
        return [] if waiting is None else waiting.taken(self._room)

    def _load(self, index: int, number: int) -> list[Piece]:
        """Rows of a row group that belong to part `number`; those of later parts wait."""
        group, is_new = self._groups[index], index >= self._old
        table, source = read_group(group, self._like)
        if is_new:
            self._seen(group.part.table, table)
        now: list[Piece] = []
        for part, rows, taken in cut(table, self._ranges):
            at = None if taken is None else source.first + taken
            piece = Piece(rows, Source(source.file, rows.num_rows, source.first, at))
            if part < self._start and not is_new:
                continue
            if part < number:
                raise _untrue(group)
            if part == number:
                now.append(piece)
            else:
                self._wait(part, piece, group.part.table)
        return now

    def _wait(self, part: int, piece: Piece, table: str) -> None:
        if part not in self._waiting:
            self._waiting[part] = Waiting(self._room.folder / f"{table}-{part:05d}.arrows")
        self._waiting[part].add(piece, self._room)


def _untrue(group: RowGroup) -> Exception:
    message = f"the statistics of row group {group.index} say account ids from {group.low!r}, and it holds smaller ones"
    remedy = "write the file again, or without statistics"
    failure = Failure("GM119", group.part.table, group.part.file, None, "account_id", "", message, remedy)
    return input_error(failure_frame([failure]))
