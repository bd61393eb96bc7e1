"""The book that a run names: that it is the one that was margined, and its rows by account."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gpumargin.digests import table_digest
from gpumargin.errors import InputError
from gpumargin.explain.sources import book_frame
from gpumargin.publish import digest_of_files
from gpumargin.sums import BalanceSums
from gpumargin.tables import CUT_TABLES, Book, read_book
from gpumargin.totals import asset_decimals, balance_totals
from gpumargin.verification.comparison import Comparison, Where, floats
from gpumargin.verification.figures import Figures
from gpumargin.verification.findings import BOOK, Finding, Ledger
from gpumargin.verification.run_tables import KEYS, RunTables

_ORDER = ("healthy", "margin_call", "liquidatable", "bankrupt", "unknown")


def open_book_of(ledger: Ledger, run: RunTables, named: Path | None) -> Book | None:
    """The book of a run, its rows and values held against the manifest; None where there is none to go on with.

    Args:
      ledger: takes the check.
      run: the run.
      named: folder to take in place of the one that the manifest names.
    """
    place = named or (Path(run.manifest["book"]) if run.manifest["book"] else None)
    if place is None:
        ledger.skip(BOOK, "the run was made from tables in memory; give the folder of the same book with --book")
        return None
    try:
        book = read_book(place)
    except InputError as error:
        findings = [Finding("", "a book", str(error), str(place))]
        ledger.add(BOOK, f"{place}: cannot be read; put it back, or name it with --book", 0, findings)
        return None
    findings = list(_changes(run.manifest, book, place))
    rows = sum(table.num_rows for table in book.tables.values())
    is_same = ledger.add(BOOK, f"rows and values of {place} against manifest.json", rows, findings)
    return book if is_same else None


def _changes(manifest: Mapping[str, Any], book: Book, place: Path) -> Iterator[Finding]:
    """Tables that the run read otherwise than they are now."""
    inputs = manifest["inputs"]
    for name in sorted({*inputs, *book.tables}):
        if name not in book.tables or name not in inputs:
            stored, now = ("there" if name in side else "not there" for side in (inputs, book.tables))
            yield Finding("table", stored, now, name)
            continue
        read, now_read = inputs[name]["files"], {source.file: source.rows for source in book.sources[name]}
        if manifest["book"] is None:  # rows that came from memory had no files
            read, now_read = ({name: sum(rows.values())} for rows in (read, now_read))
        for file in sorted({*read, *now_read}):
            if read.get(file) != now_read.get(file):
                yield Finding("rows read of the file", read.get(file), now_read.get(file), file)
        kind, stored = inputs[name].get("of", "values"), inputs[name]["sha256"]
        digest = (
            table_digest(book.tables[name])
            if kind == "values"
            else digest_of_files(place, [x.file for x in book.sources[name]])
        )
        if digest != stored:
            yield Finding(f"sha256 of the {kind}", stored, digest, name)


class BookFrames:
    """Tables of a book as frames, ids as text and amounts as floats; those of accounts with the row of each account.

    Args:
      book: the book.
      accounts: account_id and pool of the run's accounts, in the order of its rows.
    """

    def __init__(self, book: Book, accounts: pl.DataFrame) -> None:
        self._book = book
        self._keys = accounts.select(KEYS).with_row_index("account").with_columns(pl.col("account").cast(pl.Int64))
        self.market = {n: book_frame(n, table) for n, table in book.tables.items() if n not in CUT_TABLES}

    def rows(self, chosen: np.ndarray | None = None, names: Collection[str] = CUT_TABLES) -> dict[str, pl.DataFrame]:
        """Rows of tables of accounts that there are, `account` counted from 0 among the chosen ones."""
        keys = self._keys if chosen is None else self._keys[chosen].with_columns(account=pl.int_range(len(chosen)))
        return {
            name: book_frame(name, self._book.tables[name]).join(keys, on=KEYS, how="inner", maintain_order="left")
            for name in names
            if name in self._book.tables
        }

    def strangers(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Accounts of the book that the run does not have, and of the run that the book does not have."""
        parts = [
            book_frame(name, self._book.tables[name].select(KEYS)).unique()
            for name in CUT_TABLES
            if name in self._book.tables
        ]
        named = pl.concat(parts).unique()
        return named.join(self._keys, on=KEYS, how="anti"), self._keys.join(named, on=KEYS, how="anti")


def check_accounts(ledger: Ledger, frames: BookFrames, accounts: pl.DataFrame) -> bool:
    """Every account of the book has a row, and no other has."""
    missing, extra = frames.strangers()
    findings = [
        Finding("account_id", "no row", "a row", "accounts", None, account, pool)
        for account, pool in missing.select(KEYS).sort(KEYS).head(20).iter_rows()
    ]
    findings += [
        Finding("account_id", "a row", "not in the book", **Where(accounts).place(row))
        for row in extra["account"].head(20)
    ]
    failed = missing.height + extra.height
    return ledger.add("accounts of the book", "one row for each, none for others", accounts.height, findings, failed)


def check_equity(
    ledger: Ledger, prices: pl.Series, balances: pl.DataFrame, accounts: pl.DataFrame, tolerance: float, label: str
) -> None:
    """Equity of every account of one model: balances at full value, P&L and option value.

    Args:
      ledger: takes the check.
      prices: of the asset of each balance, in the accounting asset.
      balances: rows of the book, `account` counted from 0 among `accounts`.
      accounts: rows of the run.
      tolerance: what rounding may do, relative to what was added up.
      label: of the model.
    """
    value = balances["amount"].to_numpy() * prices.to_numpy()
    held = [np.bincount(balances["account"].to_numpy(), part, accounts.height) for part in (value, np.abs(value))]
    pnl, options = floats(accounts, "unrealised_pnl"), floats(accounts, "option_value")
    found = Comparison(tolerance)
    figures = Figures(held[0] + pnl + options, held[1] + np.abs(pnl) + np.abs(options))
    found.column("equity", floats(accounts, "equity"), figures, Where(accounts))
    found.add_to(ledger, "equity", f"accounts of {label}: balances at full value, P&L, option value")


def check_balance_totals(ledger: Ledger, run: RunTables, book: Book, used: Book) -> None:
    """Balances by asset in the summary are the exact sums of all rows that were read.

    Args:
      ledger: takes the check.
      run: the run.
      book: all rows.
      used: those that are not in quarantine, which say the decimals of assets.
    """
    sums = BalanceSums()
    sums.add(book.tables["balances"])
    made, stored = balance_totals(sums.by_asset, asset_decimals(used)), run.summary["balances"]
    findings = [
        Finding(f"balances.{asset}", stored.get(asset), made.get(asset), "summary.json")
        for asset in sorted({*stored, *made})
        if stored.get(asset) != made.get(asset)
    ]
    ledger.add("balances", "exact sums by asset", book.num_rows("balances"), findings)


def check_decimals(ledger: Ledger, stated: Mapping[str, int], book: Book) -> None:
    """Totals are written with the decimals that the book gives the accounting assets."""
    made = asset_decimals(book)
    findings = [
        Finding(f"decimals of {asset}", digits, made[asset], "summary.json")
        for asset, digits in stated.items()
        if digits != made[asset]
    ]
    ledger.add("minor units", "decimals of the accounting assets", len(stated), findings)


def check_owners(
    ledger: Ledger,
    run: RunTables,
    frames: BookFrames,
    accounts: pl.DataFrame,
    money: Mapping[str, str],
    decimals: Mapping[str, int],
) -> None:
    """Sums by owner and accounting asset: whole minor units, the worst status, null where an account is unknown."""
    stored = run.frame("owners", placed=True).with_columns(
        pl.col("owner_id", "accounting_asset", "status").cast(pl.String)
    )
    owner = (
        frames.rows(names=["accounts"])["accounts"].select("account", pl.col("owner_id").cast(pl.String)).drop_nulls()
    )
    asset = pl.col("model").replace_strict(money, return_dtype=pl.String)
    rows = accounts.with_row_index("account").with_columns(pl.col("account").cast(pl.Int64), accounting_asset=asset)
    digits = pl.col("accounting_asset").replace_strict(decimals, return_dtype=pl.Int64)
    scale = pl.lit(10.0).pow(digits)
    summed = [c for c in stored.columns if c.endswith("_minor")]
    minor = [
        (pl.col(c) if c in accounts.columns else (pl.col(c.removesuffix("_minor")) * scale).floor().cast(pl.Int64))
        .fill_null(0)
        .alias(c)
        for c in summed
    ]
    status = pl.col("status").replace_strict({word: i for i, word in enumerate(_ORDER)}, return_dtype=pl.Int64)
    made = (
        rows.with_columns(*minor, code=status)
        .join(owner, on="account", how="inner")
        .group_by("owner_id", "accounting_asset")
        .agg(pl.col("code").max(), pl.len().alias("num_accounts").cast(pl.Int64), *(pl.col(c).sum() for c in summed))
        .with_columns(status=pl.col("code").replace_strict(dict(enumerate(_ORDER)), return_dtype=pl.String))
        .with_columns(pl.when(pl.col("status") == "unknown").then(None).otherwise(pl.col(c)).alias(c) for c in summed)
    )
    both = stored.join(made, on=["owner_id", "accounting_asset"], how="full", suffix="_made", coalesce=True).sort(
        "file", "row", nulls_last=True
    )
    found = Comparison(0.0)
    where = Where(both.with_columns(account_id=pl.col("owner_id"), pool=pl.lit(None, pl.String)))
    for column in ("status", "num_accounts", *summed):
        found.words(column, both[column].to_list(), both[f"{column}_made"].to_list(), where)
    found.add_to(ledger, "owners", "sums by owner and accounting asset")
