"""What a solvency snapshot is made of: the accounts of a published run, and the book that was margined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa

from gpumargin.errors import InternalError
from gpumargin.modelfile import ModelFile
from gpumargin.pack.accounts import Accounts, account_owners, find_accounts
from gpumargin.pack.assets import asset_prices, collateral_prices
from gpumargin.pack.columns import Bools, Ints
from gpumargin.runs import run_json, run_table
from gpumargin.tables import Book
from gpumargin.totals import asset_decimals

_KEYS = ("account_id", "pool")
_READ = (
    *_KEYS, "model", "status", "equity", "maintenance_margin", "maintenance_excess",
    "equity_minor", "initial_margin_minor", "maintenance_margin_minor",
)  # fmt: skip


@dataclass(frozen=True)
class Sources:
    """A run folder with its book.

    Attributes:
      folder: the run.
      book: what it margined.
      accounts: rows of the run in the order of `index`, with their accounting_asset.
      index: margin accounts of the book, and which one each of its rows belongs to.
      summary: of the run.
      manifest: of the run.
      decimals: of the minor unit of every accounting asset.
    """

    folder: Path
    book: Book
    accounts: pl.DataFrame
    index: Accounts
    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]
    decimals: Mapping[str, int]

    @property
    def labels(self) -> list[str]:
        """Models of the run, `name@date`."""
        return list(self.summary["models"])

    @property
    def groups(self) -> Ints:
        """Accounts that default together, `[A]`: those of one owner; an account without one is by itself."""
        owner, ids = account_owners(self.book.tables, self.index)
        alone = np.arange(len(self.index))
        return alone if owner is None or ids is None else np.where(owner < 0, len(ids) + alone, owner)

    def file(self, label: str) -> ModelFile:
        """A model as the run had it, overrides included."""
        return ModelFile.model_validate(dict(self.manifest["models"][label]))

    def included(self, label: str) -> Bools:
        """Accounts that a model margins, `[A]`."""
        return cast("Bools", (self.accounts["model"] == label).to_numpy())

    def table(self, name: str, label: str) -> pl.DataFrame:
        """Instruments or scenarios of one model."""
        own = f"{name}-{label}"
        return run_table(self.folder, own if (self.folder / f"{own}.parquet").is_file() else name).collect()

    def money(self, label: str) -> str:
        """Accounting asset of a model."""
        return str(self.summary["models"][label]["accounting_asset"])

    def price(self, asset: str, money: str, *, as_collateral: bool = False) -> float:
        """Price of an asset in an accounting asset; NaN where the book has none."""
        table = self.book.tables["prices"]
        usd = asset_prices(table, "price")
        own = collateral_prices(table) if as_collateral else usd
        return own.get(asset, np.nan) / usd[money]


def read_sources(folder: Path, book: Book) -> Sources:
    """Reads the accounts of a run and finds them in its book.

    Raises:
      InternalError: GM202, the book does not have the accounts that the run has.
    """
    summary, manifest = run_json(folder, "summary"), run_json(folder, "manifest")
    assets = {label: model["accounting_asset"] for label, model in summary["models"].items()}
    words = [pl.col(name).cast(pl.String) for name in ("pool", "model", "status")]
    accounts = run_table(folder, "accounts").select(_READ).with_columns(words).sort(_KEYS).collect()
    accounts = accounts.with_columns(accounting_asset=pl.col("model").replace_strict(assets, return_dtype=pl.String))
    index = find_accounts(book.tables)
    keys = accounts.select(pl.col(_KEYS).cast(pl.String)).to_arrow()
    known = (index.account_ids.cast(pa.string()), index.pools.cast(pa.string()))
    if any(
        not keys[name].combine_chunks().cast(pa.string()).equals(own) for name, own in zip(_KEYS, known, strict=True)
    ):
        message = f"GM202: the accounts of run {str(folder)!r} are not those of its book; no snapshot was published"
        raise InternalError(message)
    decimals = asset_decimals(book)
    return Sources(
        folder, book, accounts, index, summary, manifest, {a: decimals[a] for a in sorted(set(assets.values()))}
    )
