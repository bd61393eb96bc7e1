"""What was checked, and every place where something did not hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

CHECK_COLUMNS = {"check": pl.String, "covered": pl.String, "count": pl.Int64, "failed": pl.Int64, "result": pl.String}
FINDING_COLUMNS = {
    "check": pl.String,
    "file": pl.String,
    "row": pl.Int64,
    "account_id": pl.String,
    "pool": pl.String,
    "column": pl.String,
    "stored": pl.String,
    "recomputed": pl.String,
}
MOST_ALIKE = 20
OK, FAILED, NOT_DONE = "ok", "failed", "not done"
# Checks that say that a book is not what the run read: the input is at fault, not the run.
BOOK = "book"


@dataclass(frozen=True)
class Finding:
    """One place where something does not hold; `row` counts from 0 within `file`."""

    column: str
    stored: Any
    recomputed: Any
    file: str = ""
    row: int | None = None
    account_id: str | None = None
    pool: str | None = None


@dataclass
class Ledger:
    """Checks in the order in which they were made, and their findings."""

    checks: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, check: str, covered: str, count: int, findings: list[Finding], failed: int | None = None) -> bool:
        """Notes a check that was made.

        Args:
          check: its name.
          covered: what it looked at.
          count: how many of these.
          findings: the first places where it does not hold.
          failed: how many there are, where not all of them are given.

        Returns:
          Whether it holds.
        """
        number = len(findings) if failed is None else failed
        result = FAILED if number else OK
        self.checks.append({"check": check, "covered": covered, "count": count, "failed": number, "result": result})
        self.findings += [{"check": check, **_as_text(finding)} for finding in findings[: MOST_ALIKE * 5]]
        return not number

    @property
    def holds(self) -> bool:
        """Whether everything did so far."""
        return all(check["result"] != FAILED for check in self.checks)

    def skip(self, check: str, why: str) -> None:
        """Notes a check that could not be made; a run with one is not verified as a whole."""
        self.checks.append({"check": check, "covered": why, "count": 0, "failed": 0, "result": NOT_DONE})


def _as_text(finding: Finding) -> dict[str, Any]:
    def shown(value: Any) -> str:
        return repr(value) if isinstance(value, float) else "null" if value is None else str(value)

    return {**vars(finding), "stored": shown(finding.stored), "recomputed": shown(finding.recomputed)}


@dataclass(frozen=True)
class Verification:
    """What became of checking a run.

    Attributes:
      checks: polars frame: check, covered, count, failed, result (`ok`, `failed`, `not done`).
      findings: polars frame: check, file, row, account_id, pool, column, stored, recomputed; the first of each kind.
      seed: of the sample of accounts that was recomputed; None if all were.
    """

    checks: pl.DataFrame
    findings: pl.DataFrame
    seed: int | None

    @property
    def ok(self) -> bool:
        """Whether nothing failed; checks that could not be made are not failures."""
        return not (self.checks["result"] == FAILED).any()

    @property
    def exit_code(self) -> int:
        """What `gpumargin verify` ends with: 0; 3 where only the book is not that of the run; 4."""
        failed = set(self.checks.filter(pl.col("result") == FAILED)["check"])
        unread = set(self.checks.filter(pl.col("result") == NOT_DONE)["check"])
        return 4 if failed - {BOOK} else 3 if failed or BOOK in unread else 0

    @property
    def is_complete(self) -> bool:
        """Whether every check was made."""
        return not (self.checks["result"] == NOT_DONE).any()


def verification(ledger: Ledger, seed: int | None) -> Verification:
    """The ledger as frames."""
    checks = pl.DataFrame(ledger.checks, schema=CHECK_COLUMNS)
    return Verification(checks, pl.DataFrame(ledger.findings, schema=FINDING_COLUMNS), seed)
