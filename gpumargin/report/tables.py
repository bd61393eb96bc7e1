"""Frames and totals as tables of text, ready for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import polars as pl

from gpumargin.printable import clean
from gpumargin.report.data import RunData


class Column(NamedTuple):
    """Heading of a column and how its cells stand."""

    name: str
    is_number: bool = False
    is_hash: bool = False


class TextTable(NamedTuple):
    """A table of text."""

    columns: list[Column]
    rows: list[list[str]]
    caption: str = ""


class Section(NamedTuple):
    """A table under its heading."""

    title: str
    table: TextTable
    note: str = ""


def exact(text: str | None) -> str:
    """A decimal number with its thousands separated, every digit kept."""
    return "-" if text is None else f"{Decimal(text):,f}"


def cell(value: object, digits: int = 2) -> str:
    """A value as text: counts and money with thousands separated, nothing hidden."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{round(value, digits) + 0.0:,.{digits}f}"  # + 0.0: no minus sign before nothing
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else clean(value)


def _digits(values: pl.Series) -> int:
    """Decimals of a column of floats: fewer, the larger its largest value."""
    largest = float(values.filter(values.is_finite()).abs().max() or 0.0) if values.dtype.is_float() else 0.0  # type: ignore[arg-type]
    return 0 if largest >= 1e6 else 2 if largest >= 100 or largest == 0 else 4


def frame_table(frame: pl.DataFrame, caption: str = "") -> TextTable:
    """A small frame as it is."""
    columns = [
        Column(clean(name).replace("_", " "), dtype.is_numeric(), name == "hash")
        for name, dtype in frame.schema.items()
    ]
    digits = [_digits(values) for values in frame.iter_columns()]
    rows = [[cell(value, places) for value, places in zip(row, digits, strict=True)] for row in frame.iter_rows()]
    return TextTable(columns, rows, caption)


def totals_table(run: RunData) -> TextTable:
    """Exact totals by accounting asset."""
    groups: Mapping[str, Any] = run.summary["by_accounting_asset"]
    names = list(dict.fromkeys(name for group in groups.values() for name in group["totals"]))
    rows = [[name.replace("_", " "), *(exact(group["totals"][name]) for group in groups.values())] for name in names]
    return TextTable([Column("exact sums"), *(Column(clean(money), is_number=True) for money in groups)], rows)


def status_table(run: RunData) -> TextTable:
    """Accounts by status."""
    groups: Mapping[str, Any] = run.summary["by_accounting_asset"]
    words = ("healthy", "margin_call", "liquidatable", "bankrupt", "unknown")
    rows = [
        [word.replace("_", " "), *(f"{group['status'].get(word, 0):,}" for group in groups.values())] for word in words
    ]
    return TextTable([Column("accounts"), *(Column(clean(money), is_number=True) for money in groups)], rows)


def scenario_table(totals: pl.DataFrame, decimals: int) -> TextTable:
    """Every scenario of one model."""
    scale = 10.0**decimals
    money = ("pnl", "losses", "uncovered", "fund_after")
    own = totals.select(
        "id",
        *(pl.col(f"{name}_minor").cast(pl.Float64).truediv(scale).alias(name) for name in money),
        "bankrupt",
        "turned_bankrupt",
        "turned_liquidatable",
        "defaults_survived",
    )
    return frame_table(own)


def identity_sections(run: RunData) -> list[Section]:
    """What identifies the run: models, versions, hashes of what went in and came out."""
    models = [
        [
            clean(label),
            clean(model["accounting_asset"]),
            f"{model['accounts']:,}",
            clean(model["source"]),
            _estimated(model),
        ]
        for label, model in run.summary["models"].items()
    ]
    heads = [Column("model"), Column("counts in"), Column("accounts", is_number=True), Column("source")]
    facts = {**run.manifest["versions"], "device": ", ".join(run.summary["device"]), "precision": run.summary["dtype"]}
    hashes = [["input", name, found["sha256"]] for name, found in run.manifest["inputs"].items()]
    hashes += [["result", name, found] for name, found in run.manifest["results"].items()]
    sections = [
        Section("Models", TextTable([*heads, Column("estimated numbers")], models)),
        Section("Computed with", TextTable([Column(""), Column("")], [[clean(k), clean(v)] for k, v in facts.items()])),
    ]
    columns = [Column(""), Column("table"), Column("SHA-256 of its values", is_hash=True)]
    return [*sections, Section("Hashes", TextTable(columns, [list(map(clean, row)) for row in hashes]))]


def _estimated(model: Mapping[str, Any]) -> str:
    found: Sequence[str] = model["estimated"]
    return f"{len(found)} numbers" if found else "none"
