"""What a run says of itself: the figures of `summary.json`, the identity of `manifest.json`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from gpumargin.clock import Clock
from gpumargin.digests import combined_digest
from gpumargin.engine import Engine
from gpumargin.grades import estimated_numbers
from gpumargin.identity import versions
from gpumargin.prepare import Market
from gpumargin.progress import Progress
from gpumargin.tables import Book, Parts
from gpumargin.totals import asset_decimals, balance_totals


def _mark_times(book: Book) -> dict[str, str | None]:
    """Oldest and newest timestamp of the marks."""
    marks = book.tables["marks"]
    if "timestamp" not in marks.column_names:
        return {"oldest": None, "newest": None}
    ends: dict[str, datetime | None] = pc.min_max(marks["timestamp"]).as_py()
    return {name: ends[end].isoformat() if ends[end] else None for name, end in (("oldest", "min"), ("newest", "max"))}  # type: ignore[union-attr]


def summary_of(source: Parts, market: Market, progress: Progress) -> dict[str, Any]:
    """The figures of a run: `summary.json`."""
    return {
        "as_of": market.instant.isoformat(),
        "marks": _mark_times(market.head),
        "models": {
            label: {
                "accounts": progress.accounts[label],
                "accounting_asset": work.money,
                "source": work.model.file.source,
                "estimated": estimated_numbers(work.model),
                "overrides": dict(work.model.overrides),
            }
            for label, work in market.priced.items()
        },
        "by_accounting_asset": {money: totals.summary() for money, totals in progress.totals.items()},
        "balances": balance_totals(market.checks.sums.by_asset, asset_decimals(market.head)),
        "open_interest": progress.interest.summary(),
        "rows": progress.rejects.summary(source.files) | {"written": dict(progress.rows)},
        "warnings": _warnings(market),
        "filled": market.filling.summary,
        "device": [str(device) for device in _engine(market).devices],
        "leg_loop": _engine(market).leg_loop.name,
        "dtype": market.options.settings.dtype,
        "seconds": _seconds(progress.clock),
    }


def _warnings(market: Market) -> list[dict[str, Any]]:
    """What is odd in the book and was used all the same, the first of each kind, which says how many there are."""
    found = market.checks.warnings()
    kinds = found.unique(["code", "table", "column"], keep="first", maintain_order=True)
    return kinds.select("code", "table", "file", "row", "column", "message", "remedy").to_dicts()


def _seconds(clock: Clock) -> dict[str, float]:
    return {name: round(seconds, 4) for name, seconds in (clock.seconds | {"total": clock.total()}).items()}


def _engine(market: Market) -> Engine:
    return next(iter(market.priced.values())).engine


def identity_of(source: Parts, market: Market, progress: Progress) -> dict[str, Any]:
    """What decides the numbers of a run: inputs, models, versions, precision; known once every part was read."""
    models = [work.model for work in market.priced.values()]
    return {
        "book": market.options.book_path,
        "as_of": market.instant.isoformat(),
        "models": {model.label: dict(model.raw) for model in models},
        "overrides": {model.label: dict(model.overrides) for model in models if model.overrides},
        "dtype": market.options.settings.dtype,
        "on_bad_rows": market.options.on_bad_rows,
        "platform": _engine(market).devices[0].platform,
        "versions": versions(),
        "inputs": {
            name: {"rows": sum(files.values()), "files": dict(files)} | progress.input_hash(name, files)
            for name, files in sorted(source.files.items())
        },
    }


def manifest_of(identity: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The identity of a run and the hashes of its result: `manifest.json`."""
    found: dict[str, dict[str, str]] = {}
    for (name, model), digest in sorted(progress.results.items()):
        found.setdefault(name, {})[model] = digest.hexdigest()
    return identity | {"results": {name: combined_digest(of_model) for name, of_model in found.items()}}
