"""Sums by id of rows that arrive in any order, in bounded memory: sorted runs on disk, merged range by range."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin import disk

_ROWS_IN_MEMORY = 1 << 19
_BATCH = 1 << 14


class _Run:
    """Rows in ascending order of their first column, in a file; read once from the front."""

    def __init__(self, path: Path, rows: pa.Table) -> None:
        disk.make_folder(path.parent)
        with disk.OutFile(path) as file, pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows.combine_chunks(), max_chunksize=_BATCH)
        self.firsts = rows.column(0).take(np.arange(0, len(rows), _BATCH)).to_pylist()
        self._path, self._next, self._rest = path, 0, rows.schema.empty_table()

    def up_to(self, bound: str | int | None) -> pa.Table:
        """The next rows whose id is at most `bound` (None = all)."""
        stop = len(self.firsts) if bound is None else bisect_right(self.firsts, bound)
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_file(file) as reader:
            batches = [reader.get_batch(i) for i in range(self._next, stop)]
        self._next = max(self._next, stop)
        rows = pa.concat_tables([self._rest, pa.Table.from_batches(batches, self._rest.schema)])
        count = len(rows) if bound is None else pc.sum(pc.less_equal(rows.column(0), bound), min_count=0).as_py()
        self._rest = rows.slice(count)
        return rows.slice(0, count)


@dataclass
class Merging:
    """Rows whose first column is an id, to be combined by it.

    Attributes:
      combine: makes one row for each id of many, in ascending order of ids.
      scratch: folder for runs; whoever made it removes it.
    """

    combine: Callable[[pa.Table], pa.Table]
    scratch: Path
    _waiting: list[pa.Table] = field(default_factory=list)
    _runs: list[_Run] = field(default_factory=list)

    def add(self, rows: pa.Table) -> None:
        """Takes more rows; what does not stay in memory goes to disk."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) > _ROWS_IN_MEMORY:
            self._runs.append(_Run(self.scratch / f"run-{id(self)}-{len(self._runs):05d}.arrow", self._combined()))
            self._waiting.clear()

    def _combined(self) -> pa.Table:
        return self.combine(pa.concat_tables(self._waiting))

    def tables(self) -> Iterator[pa.Table]:
        """A row for each id, ascending, in tables of bounded size."""
        last = [self._combined()] if self._waiting else []
        if not self._runs:
            yield from last
            return
        runs = [*self._runs, *(_Run(self.scratch / f"run-{id(self)}-last.arrow", rows) for rows in last)]
        for bound in [*sorted(first for run in runs for first in run.firsts)[len(runs) :: len(runs)], None]:
            rows = pa.concat_tables([run.up_to(bound) for run in runs])
            if len(rows):
                yield self.combine(rows)
