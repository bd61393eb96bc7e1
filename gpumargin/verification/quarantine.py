"""Rows that a run put into quarantine: each is a row of the book, rows add up, and whose accounts lost some."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from gpumargin.explain.sources import book_frame
from gpumargin.tables import CUT_TABLES, Book
from gpumargin.tables.rows import places, without
from gpumargin.verification.comparison import Where
from gpumargin.verification.figures import Array
from gpumargin.verification.findings import Finding, Ledger
from gpumargin.verification.run_tables import KEYS, RunTables

_ROW = ("table", "file", "row")


@dataclass(frozen=True)
class Used:
    """What a run used of its book.

    Attributes:
      book: without the rows in quarantine.
      in_doubt: `[A]` accounts that lost a row.
    """

    book: Book
    in_doubt: Array


def check_quarantine(ledger: Ledger, run: RunTables, book: Book, accounts: pl.DataFrame) -> Used:
    """Takes the rows in quarantine out of a book, and checks what the run says of them.

    Args:
      ledger: takes the check.
      run: the run.
      book: all rows that it read.
      accounts: rows of the run, with the file and row where each stands.
    """
    records = _records(run, book)
    gone = {name: _rows(book, name, records) for name in sorted(set(records["table"])) if name in book.tables}
    findings = _row_findings(run, records, gone)
    lost = _accounts_of(book, gone)
    in_doubt = accounts.select(KEYS).join(lost.with_columns(lost=True), on=KEYS, how="left", maintain_order="left")
    is_lost = in_doubt["lost"].fill_null(value=False).to_numpy()
    known = np.flatnonzero(is_lost & (accounts["status"] != "unknown").to_numpy())
    findings += [
        Finding("status", accounts["status"][int(row)], "unknown", **Where(accounts).place(int(row))) for row in known
    ]
    covered = "rows used and in quarantine are those read; who lost one is unknown"
    ledger.add("quarantine", covered, sum(map(len, gone.values())), findings)
    return Used(without(book, gone) if gone else book, is_lost)


def _records(run: RunTables, book: Book) -> pl.DataFrame:
    """Rows in quarantine; of a run from memory under the file that has the table now."""
    if "quarantine" not in run.parts:
        return pl.DataFrame(schema={"table": pl.String, "file": pl.String, "row": pl.Int64, "code": pl.String})
    records = run.frame("quarantine").select(*(pl.col(c).cast(pl.String) for c in ("table", "file", "code")), "row")
    if run.manifest["book"] is None:
        only = {name: own[0].file for name, own in book.sources.items() if len(own) == 1}
        records = records.with_columns(file=pl.col("table").replace(only))
    return records


def _rows(book: Book, name: str, records: pl.DataFrame) -> Array:
    """Numbers of the rows of a table that are in quarantine."""
    files, rows = places(book, name, np.arange(book.num_rows(name)))
    frame = pl.DataFrame({"file": pl.Series(files, dtype=pl.String), "row": rows}).with_row_index("at")
    own = records.filter(table=name).select("file", "row").unique()
    return frame.join(own, on=["file", "row"], how="semi")["at"].cast(pl.Int64).sort().to_numpy()


def _row_findings(run: RunTables, records: pl.DataFrame, gone: dict[str, Array]) -> list[Finding]:
    """Records of rows that there are not, and counts in the summary that are not those of the records."""
    stored, made = run.summary["rows"], _counts(run, records)
    findings = [
        Finding(f"rows.{key}", stored.get(key), value, "summary.json")
        for key, value in made.items()
        if stored.get(key) != value
    ]
    for name, rows in records.unique(_ROW).group_by("table").len().sort("table").iter_rows():
        if rows != len(gone.get(name, ())):
            findings.append(
                Finding("row", f"{rows} rows of {name}", f"{len(gone.get(name, ()))} of them", "quarantine")
            )
    return findings


def _counts(run: RunTables, records: pl.DataFrame) -> dict[str, Any]:
    """What `rows` of the summary says of rows used and in quarantine."""
    read = {name: table["files"] for name, table in run.manifest["inputs"].items()}
    if run.manifest["book"] is None:
        records = records.with_columns(file=pl.lit(""))
        read = {name: {"": sum(files.values())} for name, files in read.items()}
    lost: Counter[tuple[str, str]] = Counter()
    for name, file, rows in records.unique(_ROW).group_by("table", "file").len().iter_rows():
        lost[name, file] = rows
    by_file = {
        name: {f: {"read": n, "used": n - lost[name, f], "quarantined": lost[name, f]} for f, n in files.items()}
        for name, files in read.items()
    }
    found = {
        "used": {name: sum(own["used"] for own in files.values()) for name, files in by_file.items()},
        "quarantined": lost.total(),
        "by_code": dict(sorted(records["code"].value_counts().iter_rows())),
    }
    if run.manifest["book"] is None:
        return found
    touched = {name: files for name, files in by_file.items() if any(own["quarantined"] for own in files.values())}
    return found | {"files": touched}


def _accounts_of(book: Book, gone: dict[str, Array]) -> pl.DataFrame:
    """Margin accounts of rows in quarantine."""
    keys = [
        book_frame(name, book.tables[name].select(KEYS).take(rows))
        for name, rows in gone.items()
        if name in CUT_TABLES and len(rows)
    ]
    return pl.concat(keys).unique() if keys else pl.DataFrame(schema=dict.fromkeys(KEYS, pl.String))
