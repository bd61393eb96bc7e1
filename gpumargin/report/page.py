"""The page: figures, tables and checks of a run in one HTML file that loads nothing and runs nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import polars as pl

from gpumargin.printable import clean
from gpumargin.publish import write_file, write_table
from gpumargin.report import figures
from gpumargin.report.checks import Check, checks_of
from gpumargin.report.data import (
    RunData,
    health_histogram,
    liquidation_ladder,
    quantiles,
    read_run,
    stress_grid,
    utilisation_curve,
    worst_accounts,
)
from gpumargin.report.figures import Drawing
from gpumargin.report.tables import (
    Column,
    Section,
    TextTable,
    exact,
    frame_table,
    identity_sections,
    scenario_table,
    status_table,
    totals_table,
)

_DEFICITS = 20
_NO_SNAPSHOT = (
    "This run has no solvency snapshot, so the page has no stress, liquidation ladder, concentration and commitment; "
    "`gpumargin snapshot` makes a run with one."
)


class _List(NamedTuple):
    title: str
    lines: list[str]


@dataclass(frozen=True)
class Report:
    """A page and the figures on it.

    Attributes:
      html: the page.
      drawings: its figures.
      checks: what was checked of the folder.
    """

    html: str
    drawings: list[Drawing]
    checks: list[Check]

    def write(self, page: Path, folder: Path | None = None) -> None:
        """Writes the page and, into a folder, every figure as SVG and PNG with its data as Parquet.

        Raises:
          ResourceError: a file cannot be written.
        """
        write_file(page, self.html.encode())
        for drawing in self.drawings if folder is not None else ():
            place = folder / drawing.name  # type: ignore[operator]
            write_file(place.with_suffix(".svg"), drawing.svg)
            write_file(place.with_suffix(".png"), drawing.png)
            write_table(place.with_suffix(".parquet"), drawing.data.to_arrow())


def make_report(folder: Path) -> Report:
    """The report of a run folder, with whatever it has: a snapshot adds stress, concentration and the commitment."""
    run = read_run(folder)
    drawings, checks = list(_drawings(run)), checks_of(run)
    html = _template().render(
        run_id=folder.name,
        as_of=run.manifest["as_of"],
        marks=run.summary["marks"],
        totals=totals_table(run),
        statuses=status_table(run),
        checks=checks,
        notes=[] if run.solvency is not None else [_NO_SNAPSHOT],
        figures=[{**vars(drawing), "encoded": base64.b64encode(drawing.svg).decode()} for drawing in drawings],
        sections=list(_sections(run)),
        lists=_lists(run),
    )
    return Report(html, drawings, checks)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(files("gpumargin.report").joinpath("page.html").read_text("utf-8"))


def _shown(value: Any) -> Any:
    """What a page shows of a value; what the template itself made is left alone."""
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _drawings(run: RunData) -> Iterator[Drawing]:
    yield figures.health_figure(health_histogram(run.accounts), run.accounts["health"].null_count())
    yield figures.utilisation_figure(utilisation_curve(run.accounts), quantiles(run.accounts))
    totals, rows = run.solvency_table("scenario_totals"), run.solvency_table("concentration")
    several = len(run.summary["models"]) > 1
    for number, (label, own) in enumerate(_by_model(totals)):
        money = str(run.summary["models"][label]["accounting_asset"])
        suffix, of_model = (f"-{number}", f", {label}") if several else ("", "")
        grid, ladder = stress_grid(own, run.decimals(money)), liquidation_ladder(own)
        yield figures.stress_figure(grid, money, f"stress{suffix}", f"Stress by spot and vol{of_model}")
        if ladder.height:
            yield figures.ladder_figure(ladder, money, f"ladder{suffix}", f"Liquidation ladder{of_model}")
    for number, (money, group) in enumerate((run.solvency or {}).get("by_accounting_asset", {}).items()):
        if rows is not None:
            name = f"concentration-{number}" if several else "concentration"
            yield figures.concentration_figure(
                rows.filter(pl.col("accounting_asset") == money), group["herfindahl"], money, name
            )


def _by_model(totals: pl.DataFrame | None) -> list[tuple[str, pl.DataFrame]]:
    if totals is None:
        return []
    return [(str(label), own) for (label,), own in totals.group_by("model", maintain_order=True)]


def _sections(run: RunData) -> Iterator[Section]:
    for label, own in _by_model(run.solvency_table("scenario_totals")):
        money = str(run.summary["models"][label]["accounting_asset"])
        note = (
            f"{label}, amounts in {money}; bankrupt: equity negative after the scenario, of whom some are so already."
        )
        yield Section("Scenario totals", scenario_table(own, run.decimals(money)), note)
    stressed = run.solvency_table("stressed_accounts")
    if stressed is not None:
        yield from _stressed_sections(run, stressed)
    yield Section("Worst accounts", frame_table(worst_accounts(run.accounts)), "Lowest maintenance excess first.")
    if run.solvency is not None:
        yield _assets_section(run.solvency)
        yield from _collateral_sections(run)
        yield _commitment_section(run)
    yield from identity_sections(run)


def _stressed_sections(run: RunData, stressed: pl.DataFrame) -> Iterator[Section]:
    for label, own in _by_model(stressed):
        money = str(run.summary["models"][label]["accounting_asset"])
        scale = 10.0 ** run.decimals(money)
        worst = run.solvency["by_model"][label]["stress"]["worst"]["scenario"] if run.solvency else ""
        own = own.filter(pl.col("scenario") == worst).head(_DEFICITS)
        shown = own.with_columns(
            (pl.col(f"{name}_minor") / scale).alias(name) for name in ("equity", "stressed_equity")
        )
        keys = ("account_id", "pool", "status", "equity", "stressed_equity")
        note = f"{label}, scenario {worst}, amounts in {money}: the accounts that owe most after it."
        yield Section("Largest deficits in the worst scenario", frame_table(shown.select(keys)), note)


def _assets_section(solvency: Any) -> Section:
    rows = [
        [clean(asset), exact(found["equity"]), exact(found["debt"])] for asset, found in solvency["by_asset"].items()
    ]
    columns = [Column("asset"), Column("held", is_number=True), Column("owed", is_number=True)]
    return Section("Balances by asset", TextTable(columns, rows), "Exact sums in units of the asset.")


def _collateral_sections(run: RunData) -> Iterator[Section]:
    for label, own in _by_model(run.solvency_table("asset_totals")):
        money = str(run.summary["models"][label]["accounting_asset"])
        counted = [name for name in own.columns if name.startswith("haircut_value_")]
        note = (
            f"{label}, in {money}: positive balances at full value and after the haircuts of a margin type; "
            "a dash where the haircut depends on more than the asset."
        )
        yield Section("Collateral by asset", frame_table(own.select("asset", "value", *counted, "debt_value")), note)


def _commitment_section(run: RunData) -> Section:
    said = json.loads((run.folder / "solvency" / "manifest.json").read_text("utf-8"))["commitment"]
    decimals = said["decimals"]
    rows = [["root", said["root"]], ["accounts", f"{said['leaves']:,}"]]
    for column, total in zip(said["columns"], said["sums"], strict=True):
        money = column.rpartition(" ")[2]
        rows.append([clean(column), f"{int(total):,} minor units of 10^-{decimals[money]}"])
    note = "Merkle-sum tree over all accounts; `gpumargin prove` gives each holder a proof against this root."
    return Section("Commitment", TextTable([Column(""), Column("", is_hash=True)], rows), note)


def _lists(run: RunData) -> list[_List]:
    if run.solvency is None:
        return []
    return [
        _List("Approximations", list(run.solvency["approximations"])),
        _List("What this page does not say", list(run.solvency["not_claimed"])),
    ]
