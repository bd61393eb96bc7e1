"""A finished run: its tables, in memory or in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pyarrow as pa

from gpumargin.errors import UsageError
from gpumargin.files import is_inside, refuse_odd
from gpumargin.identity import new_run_id
from gpumargin.publish import RunFolder, resolve_run

if TYPE_CHECKING:
    from gpumargin.explain import Explanation
    from gpumargin.tables import Book

_IN_PARTS = ("accounts", "units", "positions")


def _frame(table: pa.Table) -> pl.DataFrame:
    return cast("pl.DataFrame", pl.from_arrow(table))


@dataclass(frozen=True)
class Run:
    """Margin of a book.

    Attributes:
      tables: Arrow result tables by name, unit and sign in their field metadata.
      summary: counts, exact totals, timings.
      manifest: what identifies the run.
      book: the book that was margined.
    """

    tables: Mapping[str, pa.Table]
    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]
    book: Book

    @property
    def accounts(self) -> pl.DataFrame:
        """One row per margin account."""
        return _frame(self.tables["accounts"])

    @property
    def units(self) -> pl.DataFrame:
        """One row per margin account and risk unit, a column per component."""
        return self._optional("units")

    @property
    def owners(self) -> pl.DataFrame:
        """One row per owner and accounting asset; only if the book's accounts name owners."""
        return self._optional("owners")

    @property
    def quarantine(self) -> pl.DataFrame:
        """Rows in quarantine, one record for each rule that a row broke; only if bad rows do not end the run."""
        return self._optional("quarantine")

    @property
    def positions(self) -> pl.DataFrame:
        """One row per leg; only if the run was asked for it."""
        return self._optional("positions")

    @property
    def instruments(self) -> pl.DataFrame:
        """One row per contract, with its risk array."""
        return self._optional("instruments")

    @property
    def scenarios(self) -> pl.DataFrame:
        """One row per scenario and unit."""
        return self._optional("scenarios")

    def _optional(self, name: str) -> pl.DataFrame:
        if name not in self.tables:
            message = f"this run has no table {name!r}; it has {sorted(self.tables)}"
            raise UsageError(message)
        return _frame(self.tables[name])

    def explain(self, account: str, pool: str = "cross") -> Explanation:
        """Every leg, scenario, contingency and haircut of one account, adding up to its numbers."""
        from gpumargin.explain import explain_account

        return explain_account(self, account, pool)

    def write(self, out: str | Path) -> Path:
        """Publishes the run as a folder under `out` and returns it."""
        with RunFolder(Path(out)) as folder:
            for name, table in self.tables.items():
                if name in _IN_PARTS:
                    folder.add_part(name, table)
                else:
                    folder.add_table(name, table)
            return folder.publish(new_run_id(self.manifest), self.summary, self.manifest)


def open_run(path: str | Path) -> Path:
    """The folder of a published run, of the newest run below a folder, or of `OUT/latest`.

    Raises:
      UsageError: there is none.
    """
    try:
        found = resolve_run(Path(path))
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    base = Path(path) if Path(path).is_dir() else Path(path).parent
    if not is_inside(found, base):
        message = f"{str(base / 'latest')!r} names {str(found)!r}, which is not in that folder; name the run itself"
        raise UsageError(message)
    return found


def run_table(folder: Path, name: str) -> pl.LazyFrame:
    """A result table of a run folder.

    Raises:
      RefusedError: a file of it is missing, torn, or not what a run writes.
    """
    parts = folder / name
    files = sorted(parts.glob("*.parquet")) if parts.is_dir() else [folder / f"{name}.parquet"]
    refuse_odd(files)
    return pl.scan_parquet(files, glob=False)


def run_json(folder: Path, name: str) -> dict[str, Any]:
    """`summary` or `manifest` of a run folder."""
    return cast("dict[str, Any]", json.loads((folder / f"{name}.json").read_text("utf-8")))


def as_of_of(folder: Path) -> datetime:
    """Instant at which a run was valued."""
    return datetime.fromisoformat(run_json(folder, "manifest")["as_of"])


def book_folder(manifest: Mapping[str, Any], run: str, instead: str) -> Path:
    """The folder of the book that a run was made from.

    Args:
      manifest: of the run.
      run: words for it.
      instead: what to do where the book was in memory.

    Raises:
      UsageError: the manifest names no book, or it is not there.
    """
    named = manifest["book"]
    if named is None:
        message = f"{run} names no book: it was made from tables in memory; {instead}"
        raise UsageError(message)
    if not Path(named).is_dir():
        message = (
            f"{run} was made from the book {named!r}, which is not there now; put the folder back, or call from the "
            "directory that the path is relative to"
        )
        raise UsageError(message)
    return Path(named)
