"""All checks of a published run, in order: bytes, values, identities, and accounts recomputed from the book."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from gpumargin.errors import RefusedError, UsageError
from gpumargin.explain.account import TOLERANCE
from gpumargin.publish import CHECKSUMS, read_json
from gpumargin.runs import open_run
from gpumargin.solvency.commitment import FOLDER
from gpumargin.solvency.salts import read_salt_file
from gpumargin.verification.accounts import check_recomputation
from gpumargin.verification.books import (
    BookFrames,
    check_accounts,
    check_balance_totals,
    check_decimals,
    check_equity,
    check_owners,
    open_book_of,
)
from gpumargin.verification.figures import Array
from gpumargin.verification.files import check_files
from gpumargin.verification.findings import Finding, Ledger, Verification, verification
from gpumargin.verification.identities import check_identities, check_keys, check_units
from gpumargin.verification.models import check_models, check_scenarios, read_models
from gpumargin.verification.quarantine import check_quarantine
from gpumargin.verification.run_tables import RunTables, check_values, read_parts
from gpumargin.verification.sample import new_seed, sample_of
from gpumargin.verification.snapshots import check_snapshot, check_snapshot_balances, snapshot_folder
from gpumargin.verification.totals import check_summary, stated_decimals

DEFAULT_SAMPLE = 1_000
# What reading or computing on a damaged file may end with.
_DAMAGE = (
    ArithmeticError, AttributeError, LookupError, MemoryError, OSError, TypeError, ValueError,
    RefusedError, pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException,
)  # fmt: skip


def verify_run(
    run: str | Path,
    *,
    full: bool = False,
    sample: int = DEFAULT_SAMPLE,
    seed: int | None = None,
    book: str | Path | None = None,
    salt_file: str | Path | None = None,
) -> Verification:
    """Checks a published run against itself and against its book, without the engine and without JAX.

    Args:
      run: a run folder, a folder of runs or its `latest`.
      full: whether every account is recomputed.
      sample: how many are otherwise, drawn at random.
      seed: of the draw; None = a new one, told in the result.
      book: where the book is now, if not where the run names it.
      salt_file: secret of the run's solvency snapshot; None = the one beside the run, if it is there.

    Returns:
      `Verification`: a row for every check, a row for every place where one does not hold.

    Raises:
      UsageError: no such run, or no such salt file.
    """
    if sample < 1:
        message = f"a sample of {sample} accounts proves nothing; give at least 1"
        raise UsageError(message)
    folder, ledger = _folder_of(Path(run)), Ledger()
    seed = None if full else new_seed() if seed is None else seed
    secret = _secret(folder, salt_file)
    is_whole = check_files(ledger, folder, apart=FOLDER)
    try:
        _check_contents(ledger, folder, book=book, secret=secret, sample=None if full else sample, seed=seed)
    except _DAMAGE as error:
        if is_whole and ledger.holds:
            raise
        ledger.skip("all further checks", f"the damage keeps them from being made: {type(error).__name__}: {error}")
    return verification(ledger, seed)


def _folder_of(path: Path) -> Path:
    """The folder of a run; one that has lost its manifest is one too."""
    return path if (path / CHECKSUMS).is_file() else open_run(path)


def _secret(folder: Path, named: str | Path | None) -> bytes | None:
    usual = folder.with_name(f"{folder.name}.salt")
    if named is None:
        return read_salt_file(usual) if usual.is_file() and snapshot_folder(folder) else None
    return read_salt_file(Path(named))


def _check_contents(
    ledger: Ledger,
    folder: Path,
    *,
    book: str | Path | None,
    secret: bytes | None,
    sample: int | None,
    seed: int | None,
) -> None:
    run = _read(ledger, folder)
    if run is None:
        return
    accounts = run.frame("accounts", placed=True).with_columns(pl.col("account_id", "pool").cast(pl.String))
    check_values(ledger, run)
    check_models(ledger, run)
    check_scenarios(ledger, run)
    _check_rows(ledger, run, accounts)
    if snapshot_folder(folder):
        check_snapshot(ledger, run, accounts, secret)
    _check_against_book(ledger, run, accounts, Path(book) if book else None, sample, seed)


def _read(ledger: Ledger, folder: Path) -> RunTables | None:
    """The run, read; None where nothing can be said of it."""
    findings: list[Finding] = []
    texts: dict[str, dict[str, Any]] = {}
    for name in ("manifest", "summary"):
        try:
            texts[name] = read_json(folder / f"{name}.json")
        except (OSError, ValueError) as error:
            findings.append(Finding("", "JSON", f"cannot be read: {error}", f"{name}.json"))
    parts = read_parts(folder, findings)
    models = read_models(texts["manifest"], findings) if "manifest" in texts else {}
    rows = sum(part.num_rows for of_table in parts.values() for part in of_table.values())
    findings += [Finding("", "a table", "is missing", name) for name in ("accounts",) if name not in parts]
    is_sound = ledger.add("tables", "every Parquet page against its checksum, JSON, model files", rows, findings)
    return RunTables(folder, texts["manifest"], texts["summary"], models, parts) if is_sound else None


def _check_rows(ledger: Ledger, run: RunTables, accounts: pl.DataFrame) -> None:
    """What the run's tables say of each other."""
    tolerance = TOLERANCE[str(run.manifest["dtype"])]
    check_keys(ledger, accounts)
    for label, file in run.models.items():
        own = accounts.filter(pl.col("model") == label)
        digits = stated_decimals(run.summary, file.accounting_asset)
        check_identities(ledger, file, own, digits, str(run.manifest["dtype"]), label)
    if "units" in run.parts:
        units = run.frame("units", placed=True).with_columns(pl.col("account_id", "pool").cast(pl.String))
        check_units(ledger, accounts, units, tolerance)
    check_summary(ledger, run, accounts)


def _check_against_book(
    ledger: Ledger, run: RunTables, accounts: pl.DataFrame, named: Path | None, sample: int | None, seed: int | None
) -> None:
    """What the run's tables say of the book."""
    book = open_book_of(ledger, run, named)
    if book is None:
        ledger.skip("recomputation", "needs the book that was margined")
        return
    used = check_quarantine(ledger, run, book, accounts)
    if not check_accounts(ledger, BookFrames(book, accounts), accounts):
        ledger.skip("recomputation", "needs the accounts of the book")
        return
    frames = BookFrames(used.book, accounts)
    money = {label: file.accounting_asset for label, file in run.models.items()}
    decimals = {asset: stated_decimals(run.summary, asset) for asset in run.summary["by_accounting_asset"]}
    check_decimals(ledger, decimals, used.book)
    check_balance_totals(ledger, run, book, used.book)
    _check_equities(ledger, run, frames, accounts, used.in_doubt)
    if "owners" in run.parts:
        check_owners(ledger, run, frames, accounts, money, decimals)
    if snapshot_folder(run.folder):
        check_snapshot_balances(ledger, run, used.book)
    chosen = sample_of(accounts.height, accounts.height if sample is None else sample, seed or 0)
    every = len(chosen) == accounts.height
    how = f"all {len(chosen):,} accounts" if every else f"{len(chosen):,} accounts of {accounts.height:,}, seed {seed}"
    check_recomputation(ledger, run, frames, accounts.with_columns(in_doubt=pl.Series(used.in_doubt)), chosen, how)


def _check_equities(
    ledger: Ledger, run: RunTables, frames: BookFrames, accounts: pl.DataFrame, in_doubt: Array
) -> None:
    prices = collateral_prices(frames.market["prices"])
    rows = frames.rows(names=["balances"])["balances"]
    tolerance = TOLERANCE[str(run.manifest["dtype"])]
    for label, file in run.models.items():
        chosen = ((accounts["model"] == label).to_numpy() & ~in_doubt).nonzero()[0]
        place = pl.DataFrame({"account": chosen}).with_row_index("place").with_columns(pl.col("place").cast(pl.Int64))
        own = rows.join(place, on="account", how="inner").with_columns(account=pl.col("place"))
        price = own["asset"].replace_strict(prices, default=float("nan"), return_dtype=pl.Float64)
        unit = prices_of(frames.market["prices"])[file.accounting_asset]
        check_equity(ledger, price / unit, own, accounts[chosen], tolerance, label)


def prices_of(table: pl.DataFrame) -> Mapping[str, float]:
    """Index price by asset, USD."""
    return {"USD": 1.0} | dict(table.select("asset", "price").drop_nulls().iter_rows())


def collateral_prices(table: pl.DataFrame) -> Mapping[str, float]:
    """Price as collateral by asset, USD."""
    own = dict(table.select("asset", "collateral_price").drop_nulls().iter_rows())
    return {**prices_of(table), **own}
