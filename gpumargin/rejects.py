"""What became of every row that a run read: used, or in quarantine, counted by file and held against what was read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from gpumargin.checks.cascade import RECORDS
from gpumargin.errors import InternalError
from gpumargin.tables import CUT_TABLES, NO_FILE, Book

_IN_MEMORY = 1 << 17
_SCHEMA = pa.schema([(name, pa.int64() if dtype == pl.Int64 else pa.string()) for name, dtype in RECORDS.items()])
_ROW = ("table", "file", "row")


class Fate(NamedTuple):
    """What became of the rows of the market or of some accounts.

    Attributes:
      used: rows by table and file.
      quarantined: likewise.
      records: one for each rule that a row broke.
    """

    used: dict[str, dict[str, int]]
    quarantined: dict[str, dict[str, int]]
    records: pa.Table


def fate_of(book: Book, records: pl.DataFrame | None, *, is_market: bool) -> Fate:
    """What became of the rows of a part.

    Args:
      book: what is left of it.
      records: what was taken out, by `RECORDS`; None = nothing.
      is_market: whether the tables of the market are meant, or those of accounts.
    """
    used: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for table, sources in book.sources.items():
        if (table not in CUT_TABLES) == is_market:
            for source in sources:
                used[table][source.file] += source.rows
    found = pl.DataFrame(schema=RECORDS) if records is None else records
    quarantined: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for table, file, count in found.unique(_ROW).group_by("table", "file").len().iter_rows():
        quarantined[table][file] = count
    return Fate({table: dict(files) for table, files in used.items()}, dict(quarantined), _as_arrow(found))


def _as_arrow(records: pl.DataFrame) -> pa.Table:
    return records.to_arrow().cast(_SCHEMA)


@dataclass
class Rejects:
    """The table of rejected rows, in memory while it is small, and the rows of every file by what became of them.

    Attributes:
      by_code: records of each code; a row that breaks two rules has two.
    """

    by_code: Counter[str] = field(default_factory=Counter)
    _used: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _quarantined: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _waiting: list[pa.Table] = field(default_factory=list)
    _path: Path | None = None
    _writer: pa.ipc.RecordBatchFileWriter | None = None

    def add(self, fate: Fate, scratch: Path) -> None:
        """Takes the next part; records that memory has no room for wait in a file in `scratch`."""
        for own, counts in ((self._used, fate.used), (self._quarantined, fate.quarantined)):
            for table, files in counts.items():
                own[table].update(files)
        if fate.records.num_rows:
            self.by_code.update(fate.records["code"].to_pylist())
            self._waiting.append(fate.records)
        if sum(map(len, self._waiting)) > _IN_MEMORY:
            self._spill(scratch)

    def _spill(self, scratch: Path) -> None:
        if self._writer is None:
            scratch.mkdir(parents=True, exist_ok=True)
            self._path = scratch / f"rejects-{id(self)}.arrow"
            self._writer = pa.ipc.new_file(str(self._path), _SCHEMA)
        for table in self._waiting:
            self._writer.write_table(table.combine_chunks())
        self._waiting.clear()

    def tables(self) -> Iterator[pa.Table]:
        """All records in order, at least one table: those of the market, then those of accounts by account."""
        if self._writer is not None and self._path is not None:
            self._writer.close()
            with pa.OSFile(str(self._path)) as file, pa.ipc.open_file(file) as reader:
                for index in range(reader.num_record_batches):
                    yield pa.Table.from_batches([reader.get_batch(index)])
        yield pa.concat_tables([_SCHEMA.empty_table(), *self._waiting])

    def require(self, read: Mapping[str, Mapping[str, int]]) -> None:
        """Every row was used or is in quarantine, file by file.

        Args:
          read: rows of every file of every table, as the files themselves say.

        Raises:
          InternalError: GM202, used and quarantined rows of a file are not those that were read.
        """
        for table, files in read.items():
            for file, rows in files.items():
                self._require(table, file, rows)

    def summary(self, read: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
        """Rows read, used and in quarantine: by table and, where a table lost rows, by file.

        Args:
          read: rows of every file of every table, as the files themselves say.
        """
        return {
            "read": {table: sum(files.values()) for table, files in read.items()},
            "used": {table: self._of(self._used, table) for table in read},
            "quarantined": sum(self._of(self._quarantined, table) for table in read),
            "by_code": dict(sorted(self.by_code.items())),
            "files": {table: self._files(table, files) for table, files in read.items() if self._lost(table)},
        }

    def _lost(self, table: str) -> bool:
        return self._of(self._quarantined, table) > 0

    @staticmethod
    def _of(counts: Mapping[str, Counter[str]], table: str) -> int:
        found = counts.get(table, Counter())
        return sum(rows for file, rows in found.items() if file != NO_FILE)

    def _files(self, table: str, files: Mapping[str, int]) -> dict[str, dict[str, int]]:
        used, quarantined = self._used[table], self._quarantined[table]
        return {
            file: {"read": rows, "used": used[file], "quarantined": quarantined[file]} for file, rows in files.items()
        }

    def _require(self, table: str, file: str, read: int) -> None:
        used, quarantined = self._used[table][file], self._quarantined[table][file]
        if used + quarantined != read:
            message = (
                f"GM202: of {read:,} rows of {file} ({table}) {used:,} were used and {quarantined:,} are in "
                "quarantine; nothing was published"
            )
            raise InternalError(message)
