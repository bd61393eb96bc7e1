"""The solvency snapshot of a published run: figures, tables and commitment in a folder of their own, `RUN/solvency`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from gpumargin.digests import table_digest
from gpumargin.errors import InternalError
from gpumargin.publish import StagedFolder
from gpumargin.result_columns import described
from gpumargin.solvency.assets import asset_totals, exact_totals
from gpumargin.solvency.commitment import FOLDER, Commitment, commit, known_accounts
from gpumargin.solvency.concentration import concentration
from gpumargin.solvency.cover import fund_total, scenario_totals, stressed_accounts, worst_scenario
from gpumargin.solvency.sources import Sources, read_sources
from gpumargin.solvency.stress import APPROXIMATIONS, contract_notional, scenario_count, stress_legs, stressed
from gpumargin.tables import Book
from gpumargin.totals import decimal_text

_NOT_CLAIMED = (
    "that every liability of the venue is in the book",
    "that the venue holds reserves",
    "that the margin of the model is enough",
)


@dataclass
class _Made:
    """Tables, with the accounting asset of their money, and figures by model and by accounting asset."""

    tables: dict[str, list[tuple[str, pl.DataFrame]]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    notional: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    concentration: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, money: str, frame: pl.DataFrame) -> None:
        self.tables.setdefault(name, []).append((money, frame))


def write_snapshot(run: Path, book: Book, master: bytes) -> Path:
    """Makes the solvency snapshot of a run and publishes it inside the run's folder by one rename.

    Args:
      run: folder of a published run.
      book: the book that it margined.
      master: secret from which the salts of the commitment are derived; it is not written.

    Returns:
      The folder `RUN/solvency`.

    Raises:
      InternalError: a sum does not agree with the run; no snapshot was published. ResourceError: it cannot be written,
        or is there already.
    """
    sources = read_sources(run, book)
    made = _Made()
    for label in sources.labels:
        _add_model(made, sources, label)
    for money, found in made.notional.items():
        contracts = pl.concat(found).group_by("id", maintain_order=True).agg(pl.col("amount").sum())
        rows, made.concentration[money] = concentration(sources, money, contracts)
        made.add("concentration", money, rows)
    known = known_accounts(sources.accounts)
    commitment = commit(known, sources.decimals, master, str(sources.manifest["results"]["accounts"]))
    _check_totals(sources, commitment)
    return _publish(sources, made, commitment)


def _add_model(made: _Made, sources: Sources, label: str) -> None:
    """Stress and assets of one model's accounts."""
    money, scenarios = sources.money(label), sources.table("scenarios", label)
    legs = stress_legs(sources, label, scenarios)
    made.notional.setdefault(money, []).append(contract_notional(legs))
    assets, checks = asset_totals(sources, label)
    made.add("asset_totals", money, assets.with_columns(model=pl.lit(label)))
    figures: dict[str, Any] = {"accounting_asset": money, "collateral_value": checks, "stress": None}
    if scenario_count(scenarios):
        found, fund = stressed(sources, label, legs), fund_total(sources, money)
        totals, worst = scenario_totals(scenarios, found, sources.groups, fund), worst_scenario(found)
        made.add("scenario_totals", money, totals.with_columns(model=pl.lit(label)))
        accounts = stressed_accounts(sources, found, totals["id"].to_list())
        made.add("stressed_accounts", money, accounts.with_columns(model=pl.lit(label)))
        figures["stress"] = _stress_figures(totals.row(worst, named=True), fund, sources.decimals[money])
        figures["stress"]["accounts_left_out"] = found.left_out
    made.models[label] = figures


def _stress_figures(worst: Mapping[str, Any], fund: int | None, decimals: int) -> dict[str, Any]:
    """The worst scenario in words and exact amounts."""
    amounts = {name: value for name, value in worst.items() if name.endswith("_minor")}
    counts = ("bankrupt", "turned_bankrupt", "turned_liquidatable", "defaults_survived")
    return {
        "funds": _text(fund, decimals),
        "worst": {"scenario": worst["id"]}
        | {name.removesuffix("_minor"): _text(value, decimals) for name, value in amounts.items()}
        | {name: worst[name] for name in counts},
    }


def _text(minor: int | None, decimals: int) -> str | None:
    return None if minor is None else decimal_text(minor, decimals)


def _check_totals(sources: Sources, commitment: Commitment) -> None:
    """The sums of the root must be those of the run's summary, to the last unit.

    Raises:
      InternalError: GM202.
    """
    sums = dict(zip(commitment.header["columns"], map(int, commitment.header["sums"]), strict=True))
    for money, decimals in sources.decimals.items():
        own = {
            name: sums[f"{name} {money}"]
            for name in ("equity", "negative_equity", "initial_margin", "maintenance_margin")
        }
        own |= {"equity": own["equity"] - own["negative_equity"], "negative_equity": -own["negative_equity"]}
        found = {name: decimal_text(total, decimals) for name, total in own.items()}
        expected = sources.summary["by_accounting_asset"][money]["totals"]
        if found != expected:
            message = f"GM202: the commitment sums to {found}, the run to {expected}; no snapshot was published"
            raise InternalError(message)


def _identity(sources: Sources) -> dict[str, Any]:
    """Which run and book a snapshot is of."""
    text = (sources.folder / "manifest.json").read_bytes()
    return {
        "run_id": sources.folder.name,
        "run_manifest_sha256": hashlib.sha256(text).hexdigest(),
        "as_of": sources.manifest["as_of"],
    }


def _figures(sources: Sources, made: _Made, unknown: int) -> dict[str, Any]:
    """Everything in `solvency.json`."""
    statuses = {
        money: dict(sorted(Counter(own["status"].to_list()).items()))
        for (money,), own in sources.accounts.group_by("accounting_asset")
    }
    return {
        **_identity(sources),
        "accounts": sources.accounts.height,
        "not_committed": unknown,
        "by_accounting_asset": {
            money: {
                "status": statuses[money],
                "totals": sources.summary["by_accounting_asset"][money]["totals"],
                "herfindahl": made.concentration[money],
            }
            for money in sources.decimals
        },
        "by_asset": exact_totals(sources),
        "by_model": made.models,
        "approximations": list(APPROXIMATIONS),
        "not_claimed": list(_NOT_CLAIMED),
    }


def _tables(made: _Made, leaves: pa.Table) -> dict[str, pa.Table]:
    """Arrow tables with their metadata; where several assets count money, the unit says so."""
    tables = {"leaves": described(leaves, "leaves", "")}
    for name, frames in made.tables.items():
        joined = pl.concat([frame for _, frame in frames], how="diagonal_relaxed").to_arrow()
        assets = sorted({money for money, _ in frames})
        tables[name] = described(_plain(joined), name, " or ".join(assets))
    return tables


def _plain(table: pa.Table) -> pa.Table:
    """With text as Arrow's own strings, which every reader knows."""
    types = [
        pa.string() if pa.types.is_large_string(f.type) or pa.types.is_string_view(f.type) else f.type
        for f in table.schema
    ]
    return table.cast(pa.schema(list(zip(table.column_names, types, strict=True))))


def _publish(sources: Sources, made: _Made, commitment: Commitment) -> Path:
    tables = _tables(made, commitment.leaves)
    figures = _figures(sources, made, sources.accounts.height - commitment.leaves.num_rows)
    text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
    manifest = {
        **_identity(sources),
        "figures_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "commitment": dict(commitment.header),
        "tables": {
            name: {"rows": table.num_rows, "sha256": table_digest(table)}
            for name, table in sorted(tables.items())
            if name != "leaves"
        },
    }
    with StagedFolder(sources.folder, FOLDER, mends=True) as folder:
        for name, table in tables.items():
            folder.add_table(name, table)
        folder.add_text("solvency.json", text)
        folder.add_json("manifest.json", manifest)
        folder.add_checksums()
        return folder.reveal()
