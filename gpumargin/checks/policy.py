"""What becomes of a row that breaks a rule: the run ends, the row goes into quarantine, or it is counted only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gpumargin.schema import TABLES

if TYPE_CHECKING:
    from gpumargin.checks.findings import Finding

OnBadRows = Literal["fail", "quarantine"]
ON_BAD_ROWS: tuple[OnBadRows, ...] = ("fail", "quarantine")

QUARANTINED = frozenset(
    ["GM102", "GM103", "GM105", "GM106", "GM107", "GM109", "GM110", "GM111", "GM112", "GM113", "GM116", "GM118"]
)
"""Codes whose rows a run may go on without; every other code ends it."""

_NOT_SPARED = ("ledger",)
"""Tables that a run cannot do without a row of: a ledger with fewer rows would prove less in silence."""


def ends_run(finding: Finding) -> bool:
    """Whether a finding ends a run that puts bad rows into quarantine.

    So do rules of other codes; findings about a table as a whole; and a null in a column of a table's key, for nobody
    can say which account or contract such a row belongs to, and so whose numbers it leaves in doubt.
    """
    is_nobodys = finding.code == "GM102" and finding.column in TABLES[finding.table].key
    is_spared = finding.code in QUARANTINED and len(finding.rows) > 0 and finding.table not in _NOT_SPARED
    return is_nobodys or not is_spared
