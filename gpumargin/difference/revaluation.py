"""One margin of the whole book of a run in a market that may be another's: a step of the chain."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pyarrow as pa
import pyarrow.types as pat

from gpumargin.catalogue import MarginModel
from gpumargin.difference.figures import KEYS, account_figures
from gpumargin.difference.side import Side, policy_of
from gpumargin.engine import Settings
from gpumargin.errors import InputError
from gpumargin.pipeline import margin_parts
from gpumargin.prepare import Market, Options
from gpumargin.progress import Progress
from gpumargin.schema import ACCOUNTS
from gpumargin.tables import CUT_TABLES, FIRST, Book, Parts, Start
from gpumargin.tables.canonical import canonical_column
from gpumargin.tables.parts import IN_MEMORY
from gpumargin.tables.stream import Seen
from gpumargin.totals import asset_decimals

_UNUSED = ("owner_id", "model")
_LIMITS = ("vol_limit", "tenor_limit_years")


@dataclass(frozen=True)
class Hybrid:
    """What one step values.

    Attributes:
      side: the run whose accounts these are.
      market: market tables, in canonical types.
      as_of: instant of valuation.
      models: by label.
      labels: account_id, pool and model (label) of every account.
      words: what it is, for messages.
    """

    side: Side
    market: Mapping[str, pa.Table]
    as_of: datetime
    models: Mapping[str, MarginModel]
    labels: pl.DataFrame
    words: str


@dataclass(frozen=True)
class _InMarket:
    """A book part by part, its market replaced, and its accounts under given models instead of those they name.

    Attributes:
      labels: account_id, pool and model of all accounts; None = all have the default model.
    """

    source: Parts
    market: Mapping[str, pa.Table]
    labels: pl.DataFrame | None

    @property
    def head(self) -> Book:
        return self._replaced(self.source.head)

    @property
    def files(self) -> Mapping[str, Mapping[str, int]]:
        own = {name: files for name, files in self.source.files.items() if name not in self.market}
        return own | {name: {IN_MEMORY: table.num_rows} for name, table in self.market.items()}

    def parts(self, seen: Seen, scratch: Path, start: Start = FIRST) -> Iterator[Book]:
        def see(name: str, table: pa.Table) -> None:
            if name not in self.market:
                seen(name, table)

        for name, table in self.market.items() if not start.part else ():
            seen(name, table)
        for book in self.source.parts(see, scratch, start):
            yield self._replaced(book)

    def _replaced(self, book: Book) -> Book:
        tables = {**book.tables, **self.market}
        kept = {name: book.sources[name] for name in book.tables if name not in self.market}
        if self.labels is not None:
            tables["accounts"] = _labelled(book, self.labels)
            kept.pop("accounts", None)
        elif "accounts" in tables:
            unused = [name for name in _UNUSED if name in tables["accounts"].column_names]
            tables["accounts"] = tables["accounts"].drop_columns(unused)
        return Book(tables, kept)


def _labelled(book: Book, labels: pl.DataFrame) -> pa.Table:
    """A row for each account with its model, and its category where it has one."""
    frame = labels.select(*KEYS, "model")
    if "accounts" in book.tables and "emode" in book.tables["accounts"].column_names:
        own = book.frame("accounts").select(pl.col(*KEYS, "emode").cast(pl.String))
        frame = frame.join(own, on=list(KEYS), how="left", maintain_order="left")
    has_numbers = {name: pat.is_integer(book.tables["balances"].schema.field(name).type) for name in KEYS}
    frame = frame.with_columns(pl.col(name).cast(pl.Int64) for name, is_number in has_numbers.items() if is_number)
    return pa.table(
        {
            name: canonical_column(pa.chunked_array([frame[name].to_arrow()]), ACCOUNTS.by_name[name])
            for name in frame.columns
        }
    )


def revalued(hybrid: Hybrid, settings: Settings) -> pl.DataFrame:
    """Margins the accounts of a run in another market, or under other models.

    Args:
      hybrid: what is valued.
      settings: device, precision, memory.

    Returns:
      `account_figures` of every account.

    Raises:
      InputError: GM119, positions or balances are not what the run read; or the models cannot margin this, the message
        says what.
    """
    used = hybrid.labels["model"].unique().sort().to_list()
    models = {label: _unlimited(hybrid.models[label]) for label in used}
    one = len(used) == 1
    parts = hybrid.side.open_parts(settings.memory_budget if one else sys.maxsize)
    source = _InMarket(parts, hybrid.market, None if one else hybrid.labels)
    progress = Progress(files={} if hybrid.side.hashes_files else None)  # files are hashed by the side, not again here
    try:
        options = Options(hybrid.as_of, settings, tables=(), on_bad_rows=policy_of(hybrid.side.manifest), models=models)
        figures = _margined(source, options, progress)
    except InputError as error:
        _require_unchanged(hybrid.side, progress)
        message = f"{hybrid.words} cannot be margined: {error}"
        raise InputError(message, error.failures) from error
    _require_unchanged(hybrid.side, progress)
    return figures


def _unlimited(model: MarginModel) -> MarginModel:
    """The model without limits of vol and tenor: the runs have judged their inputs, filled vols need none."""
    return replace(model, file=model.file.model_copy(update=dict.fromkeys(_LIMITS, math.inf)))


def _require_unchanged(side: Side, progress: Progress) -> None:
    found = {name: digest.hexdigest() for name, digest in progress.inputs.items()}
    side.require_unchanged(found, CUT_TABLES)


def _margined(source: Parts, options: Options, progress: Progress) -> pl.DataFrame:
    models = options.models
    market = Market(source.head, next(iter(models.values())), options, progress.clock)
    digits = asset_decimals(source.head)
    found: list[pl.DataFrame] = []

    def keep(_: str, accounts: pa.Table) -> None:
        if accounts.num_rows:
            asset = models[str(accounts["model"][0])].file.accounting_asset
            found.append(account_figures(accounts, digits[asset]))

    with TemporaryDirectory(prefix="gpumargin-") as scratch:
        margin_parts(source, market, progress, Path(scratch), keep)
    return pl.concat(found)
