"""One book under several models: who is asked for more, who for less, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.checks.policy import OnBadRows
from gpumargin.device import DeviceChoice
from gpumargin.errors import UsageError
from gpumargin.run import margin
from gpumargin.runs import Run
from gpumargin.schema import USD
from gpumargin.tables import Book

_KEYS = ["account_id", "pool"]
_MONEY = ("equity", "initial_margin", "maintenance_margin", "initial_excess", "maintenance_excess")
_CHANGES = ("initial_margin", "maintenance_margin")


@dataclass(frozen=True)
class Comparison:
    """A book under several models, money in the accounting asset of the first.

    Attributes:
      accounts: one row per model and margin account: account_id, pool, model, status, equity, initial and maintenance
        margin and excess; `status_before`, `<type>_margin_change`: against the first model, whose changes are 0.
      totals: one row per model: accounts by status, sums of equity and margin, `<type>_margin_change`.
      asset: what money is counted in.
    """

    accounts: pl.DataFrame
    totals: pl.DataFrame
    asset: str

    def most_changed(self, count: int) -> pl.DataFrame:
        """The rows whose maintenance margin changes most, whatever the sign."""
        ranked = self.accounts.sort(
            pl.col("maintenance_margin_change").abs(), *_KEYS, descending=[True, False, False], nulls_last=True
        )
        return ranked.head(count)


def compare_models(
    book: Book,
    models: Sequence[MarginModel | str],
    *,
    as_of: datetime | str | None = None,
    device: DeviceChoice = "auto",
    on_bad_rows: OnBadRows = "fail",
) -> Comparison:
    """Margins one book under several models, each for every account: models that `accounts` names are set aside.

    Args:
      book: from `read_book`.
      models: two or more, by name or as loaded; the first is what the others are compared with.
      as_of: instant of valuation, as for `margin`.
      device: as for `margin`.
      on_bad_rows: as for `margin`; amounts of unknown accounts are null and in no sum.

    Returns:
      `Comparison`, accounts in the order of the first model's run.

    Raises:
      UsageError: fewer than two models, or one named twice. InputError: a model cannot margin the book.
    """
    chosen = [model if isinstance(model, MarginModel) else load_model(model) for model in models]
    labels = [model.label for model in chosen]
    if len(chosen) < 2 or len(set(labels)) < len(labels):
        message = f"compare needs two different models or more, found {', '.join(labels) or 'none'}"
        raise UsageError(message)
    plain = _without_models(book)
    runs = [margin(plain, model, as_of=as_of, device=device, tables=(), on_bad_rows=on_bad_rows) for model in chosen]
    asset = chosen[0].file.accounting_asset
    rates = [_rate(book, model.file.accounting_asset, asset) for model in chosen]
    frames = [_of_run(run, model.label, rate) for run, model, rate in zip(runs, chosen, rates, strict=True)]
    accounts = pl.concat([_against(frame, frames[0]) for frame in frames])
    return Comparison(accounts, _totals(accounts), asset)


def _without_models(book: Book) -> Book:
    table = book.tables.get("accounts")
    if table is None or "model" not in table.column_names:
        return book
    return Book(**{**book.tables, "accounts": table.drop_columns(["model"])})


def _rate(book: Book, asset: str, into: str) -> float:
    """Units of one asset per unit of another, at the book's prices."""
    price = {USD: 1.0, **dict(book.frame("prices").select(pl.col("asset").cast(pl.String), "price").iter_rows())}
    return float(price[asset] / price[into])


def _of_run(run: Run, label: str, rate: float) -> pl.DataFrame:
    money = [(pl.col(name) * rate).alias(name) for name in _MONEY]
    ids = [pl.col(name).cast(pl.String) for name in (*_KEYS, "status")]
    return run.accounts.select(*ids[:2], pl.lit(label).alias("model"), ids[2], *money)


def _against(frame: pl.DataFrame, first: pl.DataFrame) -> pl.DataFrame:
    """A model's rows with the first model's status and margins beside them."""
    before = first.select(*_KEYS, *(pl.col(name).name.suffix("_before") for name in ("status", *_CHANGES)))
    joined = frame.join(before, on=_KEYS, how="left", maintain_order="left")
    changes = [(pl.col(name) - pl.col(f"{name}_before")).alias(f"{name}_change") for name in _CHANGES]
    return joined.with_columns(changes).drop(f"{name}_before" for name in _CHANGES)


def _totals(accounts: pl.DataFrame) -> pl.DataFrame:
    sums = ["equity", *_CHANGES, *(f"{name}_change" for name in _CHANGES)]
    counts = accounts.group_by("model", "status").len().pivot("status", index="model", values="len").fill_null(0)
    totals = accounts.group_by("model", maintain_order=True).agg(pl.len().alias("accounts"), pl.col(sums).sum())
    return totals.join(counts, on="model", how="left", maintain_order="left")
