"""What is known of one account: its rows of a run's tables, and its rows of the book that was margined.

The book's positions and balances are filtered while they are read, so that explaining one account of a large book takes
neither the memory nor the time of loading it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.types as pat

from gpumargin.errors import RefusedError, UsageError
from gpumargin.files import checked_dataset, whole_table
from gpumargin.modelfile import ModelFile
from gpumargin.runs import Run, book_folder, open_run, run_json
from gpumargin.schema import TABLES
from gpumargin.tables import read_book

_MARKET = ("instruments", "marks", "forwards", "prices")
_OWN = ("positions", "balances")
_EVERY_OWN = (*_OWN, "orders", "accounts", "account_parameters")
_ASSETS = "assets"
_SUFFIXES = (".parquet", ".arrow")
_MOST_CANDIDATES = 5_000


@dataclass(frozen=True)
class AccountSources:
    """Everything that the explanation of one margin account rests on.

    Attributes:
      account: its row of the accounts table.
      units: its rows of the units table; None if the run was made without that table.
      file: the model that margined it, overrides included.
      instruments: contracts of the run with their risk arrays, in the order in which legs are summed.
      scenarios: scenarios of the model, by unit.
      book: positions, balances and accounts row of this margin account, and the whole market tables; `accounts` and
        `assets` only if the book has them; ids as text, amounts as floats.
      manifest: the run's.
    """

    account: Mapping[str, Any]
    units: pl.DataFrame | None
    file: ModelFile
    instruments: pl.DataFrame
    scenarios: pl.DataFrame
    book: Mapping[str, pl.DataFrame]
    manifest: Mapping[str, Any]


class _Results(Protocol):
    """A run, wherever it is."""

    @property
    def manifest(self) -> Mapping[str, Any]: ...

    def dataset(self, name: str) -> ds.Dataset | None:
        """A result table, None if the run does not have it."""

    def book(self, account: str) -> Mapping[str, pa.Table]:
        """Tables of the book in canonical types, positions and balances of one account id only."""


@dataclass(frozen=True)
class _InMemory:
    run: Run

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self.run.manifest

    def dataset(self, name: str) -> ds.Dataset | None:
        return ds.dataset(self.run.tables[name]) if name in self.run.tables else None

    def book(self, account: str) -> Mapping[str, pa.Table]:
        tables = self.run.book.tables
        own = {name: _of_account(ds.dataset(tables[name]), account) for name in _EVERY_OWN if name in tables}
        return {name: tables[name] for name in (*_MARKET, _ASSETS) if name in tables} | own


@dataclass(frozen=True)
class _InFolder:
    folder: Path

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        return run_json(self.folder, "manifest")

    def dataset(self, name: str) -> ds.Dataset | None:
        files = _files(self.folder, name)
        return _dataset(files) if files else None

    def book(self, account: str) -> Mapping[str, pa.Table]:
        folder = book_folder(self.manifest, f"run {str(self.folder)!r}", "use Run.explain there")
        given: dict[str, Any] = {name: _market_path(folder, name) for name in _MARKET}
        given |= {_ASSETS: _market_path(folder, _ASSETS)} if _files(folder, _ASSETS) else {}
        wanted = [name for name in _EVERY_OWN if name in _OWN or _files(folder, name)]
        given |= {name: _own_rows(folder, name, account) for name in wanted}
        return read_book(None, extra_columns="ignore", **given).tables


def _files(folder: Path, name: str) -> list[Path]:
    """Files of a table in one of its forms: `NAME.parquet`, `NAME.arrow`, or those in the folder `NAME`."""
    inner = folder / name
    if inner.is_dir():
        return sorted(p for p in inner.iterdir() if p.suffix in _SUFFIXES and not p.name.startswith("."))
    return [path for suffix in _SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]


def _dataset(files: list[Path]) -> ds.Dataset:
    try:
        return ds.dataset(whole_table(files[0])) if files[0].suffix == ".arrow" else checked_dataset(files)
    except RefusedError as error:
        message = f"{error}; restore the file, or run again"
        raise UsageError(message) from error


def _market_path(folder: Path, name: str) -> Path:
    files = _files(folder, name)
    if not files:
        message = f"the book {str(folder)!r} has no table {name!r} any more; restore it, or run again"
        raise UsageError(message)
    return files[0] if len(files) == 1 else folder / name


def _own_rows(folder: Path, name: str, account: str) -> pa.Table:
    """Rows of one account id; file by file, for files may differ in types that mean the same."""
    _market_path(folder, name)
    pieces = [_of_account(_dataset([file]), account) for file in _files(folder, name)]
    return pa.concat_tables(pieces, promote_options="permissive")


def _of_account(dataset: ds.Dataset, account: str) -> pa.Table:
    """Rows of one account id, compared as text, columns of the contract or of a result only; words as plain text."""
    found = dataset.to_table(filter=pc.field("account_id").cast(pa.string()) == account)
    return _plain(found)


def _plain(table: pa.Table) -> pa.Table:
    columns = [c.cast(c.type.value_type) if pat.is_dictionary(c.type) else c for c in table.columns]
    return pa.table(columns, names=table.column_names)


def _frame(table: pa.Table) -> pl.DataFrame:
    return cast("pl.DataFrame", pl.from_arrow(_plain(table)))


def book_frame(name: str, table: pa.Table) -> pl.DataFrame:
    """A table of the book with ids as text and amounts as floats, whatever types they came in."""
    types = {"id": pl.String, "amount": pl.Float64}
    casts = {
        c: types[TABLES[name].by_name[c].kind] for c in table.column_names if TABLES[name].by_name[c].kind in types
    }
    return _frame(table).with_columns(pl.col(c).cast(dtype) for c, dtype in casts.items())


def _account_row(results: _Results, account: str, pool: str) -> dict[str, Any]:
    accounts = results.dataset("accounts")
    rows = pl.DataFrame() if accounts is None else _frame(_of_account(accounts, account))
    pools = rows["pool"].cast(pl.String).to_list() if rows.height else []
    if pool in pools:
        return _known(rows.row(pools.index(pool), named=True))
    if pools:
        message = f"account {account!r} has no pool {pool!r}; its pools: {', '.join(sorted(pools))}"
        raise UsageError(message)
    message = f"no account {account!r} in this run" + _hint(accounts, account)
    raise UsageError(message)


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """The row, unless it says that the account's rows were not all used."""
    if row["equity"] is None:
        message = (
            f"the state of account {row['account_id']!r} (pool {row['pool']}) is unknown, there are no numbers to "
            "explain: rows of it, or of what it holds, are in the run's table quarantine; correct them and run again"
        )
        raise UsageError(message)
    return row


def _hint(accounts: ds.Dataset | None, account: str) -> str:
    """Close matches, searched among the ids that begin or end most like what was asked for: one slip leaves one end."""
    if accounts is None:
        return ""
    ids = _frame(accounts.to_table(columns=["account_id"]))["account_id"].cast(pl.String).unique(maintain_order=True)
    lengths = range(len(account), 0, -1)
    alike = [
        _first_hits(ids.filter(ids.str.starts_with(account[:n])) for n in lengths),
        _first_hits(ids.filter(ids.str.ends_with(account[-n:])) for n in lengths),
    ]
    similar = get_close_matches(account, dict.fromkeys(pl.concat(alike)), n=30)
    close = sorted(similar, key=lambda other: -sum(map(str.__eq__, account, other)))[:3]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else f"; it has {len(ids):,} account ids"


def _first_hits(found: Iterator[pl.Series]) -> pl.Series:
    return next((ids.head(_MOST_CANDIDATES) for ids in found if len(ids)), pl.Series(dtype=pl.String))


def _unit_rows(results: _Results, account: str, pool: str) -> pl.DataFrame | None:
    units = results.dataset("units")
    return None if units is None else _frame(_of_account(units, account)).filter(pl.col("pool").cast(pl.String) == pool)


def _of_model(results: _Results, name: str, label: str) -> pl.DataFrame:
    """The instruments or scenarios table of one model; a run of several models has one for each."""
    own = results.dataset(f"{name}-{label}")
    found = results.dataset(name) if own is None else own
    if found is None:
        message = f"this run has no table {name!r} for the model {label!r}; its folder is not complete, run again"
        raise UsageError(message)
    return _frame(found.to_table())


def account_sources(run: Path | str | Run, account: str, pool: str) -> AccountSources:
    """Reads what concerns one margin account.

    Args:
      run: a run in memory, or the path of a run folder, of a folder of runs or of its `latest`.
      account: account id as text.
      pool: pool of the margin account.

    Raises:
      UsageError: no such run, account or pool, the book is not where the run found it, or the account is unknown.
    """
    results: _Results = _InMemory(run) if isinstance(run, Run) else _InFolder(open_run(run))
    row = _account_row(results, account, pool)
    label = str(row["model"])
    tables = {name: book_frame(name, table) for name, table in results.book(account).items()}
    own = {name: tables[name].filter(pl.col("pool") == pool) for name in _EVERY_OWN if name in tables}
    return AccountSources(
        account=row,
        units=_unit_rows(results, account, pool),
        file=ModelFile.model_validate(dict(results.manifest["models"][label])),
        instruments=_of_model(results, "instruments", label),
        scenarios=_of_model(results, "scenarios", label),
        book=tables | own,
        manifest=results.manifest,
    )
