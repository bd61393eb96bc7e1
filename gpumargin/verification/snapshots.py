"""A solvency snapshot inside a run: its files, its figures, and the commitment made again from the accounts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.digests import table_digest
from gpumargin.files import whole_table
from gpumargin.publish import read_json
from gpumargin.solvency.commitment import FOLDER, commit, committed_columns, known_accounts
from gpumargin.solvency.tree import SumTree
from gpumargin.sums import BalanceSums
from gpumargin.tables import Book
from gpumargin.totals import asset_decimals, balance_totals
from gpumargin.verification.files import check_files
from gpumargin.verification.findings import Finding, Ledger
from gpumargin.verification.run_tables import KEYS, RunTables

_MANIFEST, _FIGURES = f"{FOLDER}/manifest.json", f"{FOLDER}/solvency.json"


def check_snapshot(ledger: Ledger, run: RunTables, accounts: pl.DataFrame, secret: bytes | None) -> None:
    """Everything of a snapshot that needs no book.

    Args:
      ledger: takes the checks.
      run: the run.
      accounts: its accounts.
      secret: from which the salts are derived; None = not at hand.
    """
    folder = run.folder / FOLDER
    check_files(ledger, folder, "snapshot hashes")
    manifest, figures = read_json(folder / "manifest.json"), read_json(folder / "solvency.json")
    tables = {path.stem: whole_table(path) for path in folder.glob("*.parquet")}
    _check_contents(ledger, run, manifest, tables)
    _check_figures(ledger, run, figures, accounts, tables["leaves"].num_rows)
    owned = accounts.with_columns(
        accounting_asset=pl.col("model").replace_strict(
            {label: file.accounting_asset for label, file in run.models.items()}, return_dtype=pl.String
        )
    )
    _check_leaves(ledger, manifest["commitment"], tables["leaves"], owned)
    if secret is None:
        ledger.skip("commitment", "made again from accounts and salts: no salt file; name it with --salt-file")
    else:
        _check_commitment(ledger, run, manifest["commitment"], owned, secret)


def _check_contents(
    ledger: Ledger, run: RunTables, manifest: Mapping[str, Any], tables: Mapping[str, pa.Table]
) -> None:
    """Hashes of the tables' values, of the figures and of the run's manifest, as the snapshot's manifest says."""
    stated = {name: (table["rows"], table["sha256"]) for name, table in manifest["tables"].items()}
    found = {name: (table.num_rows, table_digest(table)) for name, table in tables.items() if name != "leaves"}
    findings = [
        Finding("rows, sha256 of the values", stated.get(name), found.get(name), _file(name))
        for name in sorted({*stated, *found})
        if stated.get(name) != found.get(name)
    ]
    for key, path in (("figures_sha256", "solvency/solvency.json"), ("run_manifest_sha256", "manifest.json")):
        digest = hashlib.sha256((run.folder / path).read_bytes()).hexdigest()
        if manifest[key] != digest:
            findings.append(Finding(key, manifest[key], digest, _MANIFEST))
    count = sum(table.num_rows for table in tables.values())
    ledger.add("snapshot values", "tables and figures against its manifest.json", count, findings)


def _file(name: str) -> str:
    return f"{FOLDER}/{name}.parquet"


def _check_figures(
    ledger: Ledger, run: RunTables, figures: Mapping[str, Any], accounts: pl.DataFrame, leaves: int
) -> None:
    """Counts and totals of `solvency.json` are those of the run."""
    made: dict[str, Any] = {"accounts": accounts.height, "not_committed": accounts.height - leaves}
    stored: dict[str, Any] = {name: figures[name] for name in made}
    for money, own in run.summary["by_accounting_asset"].items():
        of_asset = figures["by_accounting_asset"].get(money, {})
        for name in ("status", "totals"):
            stored[f"by_accounting_asset.{money}.{name}"] = Counter(of_asset.get(name, {}))
            made[f"by_accounting_asset.{money}.{name}"] = Counter(own[name])
    findings = [Finding(key, stored[key], value, _FIGURES) for key, value in made.items() if stored[key] != value]
    ledger.add("snapshot figures", "counts by status and totals against the run's", len(made), findings)


def _amounts(accounts: pl.DataFrame, assets: list[str]) -> pl.DataFrame:
    """What the leaf of each known account holds, by the names of the columns."""
    of = {
        "equity": pl.col("equity_minor").clip(lower_bound=0),
        "negative_equity": -pl.col("equity_minor").clip(upper_bound=0),
    }
    of |= {name: pl.col(f"{name}_minor") for name in ("initial_margin", "maintenance_margin")}
    exprs = [
        pl.when(pl.col("accounting_asset") == column.split(" ", 1)[1])
        .then(of[column.split(" ", 1)[0]])
        .otherwise(0)
        .alias(column)
        for column in committed_columns(assets)
    ]
    return accounts.select(*KEYS, *exprs)


def _check_leaves(ledger: Ledger, header: Mapping[str, Any], leaves: pa.Table, accounts: pl.DataFrame) -> None:
    """Leaves hold the amounts of the run's accounts, and lead to the published root and sums."""
    columns = list(header["columns"])
    own = pl.DataFrame(pl.from_arrow(leaves)).with_columns(pl.col(KEYS).cast(pl.String)).with_row_index("row")
    known = known_accounts(accounts)
    made = _amounts(known, sorted(header["decimals"]))
    both = own.join(made, on=KEYS, how="full", suffix="_made", coalesce=True)
    wrong = both.filter(~pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"{c}_made")) for c in columns))
    findings = [
        Finding(c, row[c], row[f"{c}_made"], _file("leaves"), row["row"], row["account_id"], row["pool"])
        for row in wrong.head(20).iter_rows(named=True)
        for c in columns
        if row[c] != row[f"{c}_made"]
    ]
    digests = np.frombuffer(b"".join(leaves["digest"].to_pylist()), np.uint8).reshape(leaves.num_rows, 32)
    root = SumTree.of(digests, own.select(columns).to_numpy()).root
    stated = {"root": header["root"], "sums": header["sums"], "leaves": header["leaves"]}
    found = {"root": root.digest.hex(), "sums": [str(total) for total in root.sums], "leaves": leaves.num_rows}
    findings += [Finding(key, stated[key], found[key], _MANIFEST) for key in stated if stated[key] != found[key]]
    ledger.add("leaves", "amounts of the accounts; root and sums of the tree above them", leaves.num_rows, findings)


def _check_commitment(
    ledger: Ledger, run: RunTables, header: Mapping[str, Any], accounts: pl.DataFrame, secret: bytes
) -> None:
    """The commitment made from nothing but accounts and salts is the published one."""
    known = known_accounts(accounts)
    made = commit(known, header["decimals"], secret, str(run.manifest["results"]["accounts"])).header
    findings = [
        Finding(key, header.get(key), made.get(key), _MANIFEST)
        for key in sorted({*header, *made})
        if header.get(key) != made.get(key)
    ]
    ledger.add("commitment", "root made again from accounts and salts", known.height, findings)


def check_snapshot_balances(ledger: Ledger, run: RunTables, book: Book) -> None:
    """Positive and negative balances of every asset are the exact sums of the book."""
    stored = read_json(run.folder / FOLDER / "solvency.json")["by_asset"]
    decimals, balances = asset_decimals(book), book.tables["balances"]
    is_debt = pc.less(balances["amount"].cast(pa.float64()), 0)
    made: dict[str, dict[str, str]] = {}
    for word, chosen in (("equity", pc.invert(is_debt)), ("debt", is_debt)):
        sums = BalanceSums()
        sums.add(balances.filter(chosen))
        for asset, text in balance_totals(sums.by_asset, decimals).items():
            made.setdefault(asset, {})[word] = text.removeprefix("-")
    findings = [
        Finding(f"by_asset.{asset}.{word}", stored.get(asset, {}).get(word), text, _FIGURES)
        for asset, own in made.items()
        for word, text in own.items()
        if stored.get(asset, {}).get(word) != text
    ]
    ledger.add("snapshot balances", "held and owed by asset, exact sums of the book", balances.num_rows, findings)


def snapshot_folder(folder: Path) -> Path | None:
    """The snapshot of a run, if it has one."""
    found = folder / FOLDER
    return found if found.is_dir() else None
