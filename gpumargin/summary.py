"""What a run says of itself: the figures of `summary.json`, the identity of `manifest.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from gpumargin.checks import resolve_as_of
from gpumargin.clock import Clock
from gpumargin.digests import ColumnDigest
from gpumargin.grades import estimated_numbers
from gpumargin.identity import input_digests, versions
from gpumargin.owners import OwnerTotals
from gpumargin.prepare import Options, Pass
from gpumargin.tables import Book
from gpumargin.totals import AccountTotals, balance_totals


@dataclass
class Progress:
    """What a run has gathered so far."""

    clock: Clock = field(default_factory=Clock)
    totals: dict[str, AccountTotals] = field(default_factory=dict)  # by accounting asset
    owners: dict[str, OwnerTotals] = field(default_factory=dict)  # by accounting asset
    digests: dict[str, ColumnDigest] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


def _mark_times(book: Book) -> dict[str, str | None]:
    """Oldest and newest timestamp of the marks."""
    marks = book.tables["marks"]
    if "timestamp" not in marks.column_names:
        return {"oldest": None, "newest": None}
    ends: dict[str, datetime | None] = pc.min_max(marks["timestamp"]).as_py()
    return {name: ends[end].isoformat() if ends[end] else None for name, end in (("oldest", "min"), ("newest", "max"))}  # type: ignore[union-attr]


def summary_of(book: Book, passes: list[Pass], options: Options, progress: Progress) -> dict[str, Any]:
    """The figures of a run: `summary.json`."""
    return {
        "as_of": resolve_as_of(book, options.as_of).isoformat(),
        "marks": _mark_times(book),
        "models": {
            work.model.label: {
                "accounts": len(work.legs),
                "accounting_asset": work.money,
                "source": work.model.file.source,
                "estimated": estimated_numbers(work.model),
                "overrides": dict(work.model.overrides),
            }
            for work in passes
        },
        "by_accounting_asset": {money: totals.summary() for money, totals in progress.totals.items()},
        "balances": balance_totals(book),
        "rows": {"read": {n: t.num_rows for n, t in book.tables.items()}, "quarantined": 0, "written": progress.rows},
        "filled": passes[0].filling.summary,
        "device": [str(device) for device in passes[0].engine.devices],
        "dtype": options.settings.dtype,
        "seconds": {name: round(value, 4) for name, value in progress.clock.seconds.items()},
    }


def identity_of(book: Book, passes: list[Pass], options: Options) -> dict[str, Any]:
    """What decides the numbers of a run: inputs, models, versions, precision. Hashes the whole book."""
    return {
        "book": options.book_path,
        "as_of": resolve_as_of(book, options.as_of).isoformat(),
        "models": {work.model.label: dict(work.model.raw) for work in passes},
        "overrides": {work.model.label: dict(work.model.overrides) for work in passes if work.model.overrides},
        "dtype": options.settings.dtype,
        "platform": passes[0].engine.devices[0].platform,
        "versions": versions(),
        "inputs": input_digests(book),
    }


def manifest_of(identity: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The identity of a run and the hashes of its result: `manifest.json`."""
    return identity | {"results": {name: digest.hexdigest() for name, digest in sorted(progress.digests.items())}}
