"""One of the two runs: what it published, and the market of its book, which must be as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.catalogue import MarginModel
from gpumargin.checks import BookChecks
from gpumargin.checks.policy import OnBadRows
from gpumargin.difference.figures import account_figures
from gpumargin.digests import ColumnDigest, combined_digest, table_digest
from gpumargin.errors import InternalError, RefusedError, UsageError
from gpumargin.failures import Failure, failure_frame, input_error
from gpumargin.files import whole_table
from gpumargin.modelfile import ModelFile
from gpumargin.publish import digest_of_files
from gpumargin.runs import Run, book_folder, open_run, run_json
from gpumargin.schema import MARKET_TABLES
from gpumargin.tables import Book, Parts, WholeBook, open_book, read_market
from gpumargin.totals import asset_decimals

_MARKET = tuple(table.name for table in MARKET_TABLES)
_OPTION = ("instrument_id", "implied_vol", "forward")
_KEYS = {"as_of", "book", "dtype", "inputs", "models", "overrides", "platform", "results", "versions"}
_REMEDY = "put the table back as it was, or run the book again; books that are to be compared need a folder each"


@dataclass(frozen=True)
class Side:
    """A finished run and where its book is.

    Attributes:
      name: what messages call it.
      manifest: the run's.
      models: those that margined it, overrides included, by label.
      market: market tables of its book, in canonical types.
      accounts: `account_figures` of all its accounts.
      options: instrument_id (text), implied_vol and forward of every option that it priced, filled ones included.
      open_parts: the whole book for a memory budget in bytes.
    """

    name: str
    manifest: Mapping[str, Any]
    models: Mapping[str, MarginModel]
    market: Book
    accounts: pl.DataFrame
    options: pl.DataFrame
    open_parts: Callable[[int], Parts]

    @property
    def as_of(self) -> datetime:
        """Instant of valuation."""
        return datetime.fromisoformat(str(self.manifest["as_of"]))

    @property
    def software(self) -> dict[str, Any]:
        """What else than inputs decides a number: versions, precision, platform."""
        return {name: self.manifest[name] for name in ("versions", "dtype", "platform")}

    def sha256(self, table: str) -> str | None:
        """Hash of a table of the book as the run read it; None where the book did not have it."""
        found = self.manifest["inputs"].get(table)
        return None if found is None else str(found["sha256"])

    @property
    def hashes_files(self) -> bool:
        """Whether the run hashed the files of the large tables of its book instead of their values."""
        return any(table.get("of") == "files" for table in self.manifest["inputs"].values())

    def _found(self, table: str, digests: Mapping[str, str]) -> str | None:
        """Hash of a table as it is now, of the same kind as the run's."""
        said = self.manifest["inputs"].get(table)
        if said is None or said.get("of", "values") == "values":
            return digests.get(table)
        try:
            return digest_of_files(Path(self.manifest["book"]), said["files"])
        except OSError:
            return None

    def decimals(self, asset: str) -> int:
        """Decimals of an asset's minor unit."""
        return asset_decimals(self.market)[asset]

    def asset(self, label: str) -> str:
        """Accounting asset of one of its models."""
        return self.models[label].file.accounting_asset

    def require_unchanged(self, digests: Mapping[str, str], tables: tuple[str, ...]) -> None:
        """Checks that tables of the book are what the run read.

        Raises:
          InputError: GM119, for each table that is not.
        """
        if self.manifest["book"] is None:  # it is in memory, without the rows that the run had in quarantine
            return
        changed = [name for name in tables if self._found(name, digests) != self.sha256(name)]
        if changed:
            where = f"{self.name}'s book {str(self.manifest['book'])!r}"
            said = {name: f"{where} has another table {name!r} than at the time of the run" for name in changed}
            failures = [Failure("GM119", name, name, None, "", "", said[name], _REMEDY) for name in changed]
            raise input_error(failure_frame(failures))


def open_side(run: Run | Path | str, name: str) -> Side:
    """Opens one of the two runs.

    Args:
      run: in memory, or the path of a run folder, of a folder of runs or of its `latest`.
      name: what messages call it.

    Raises:
      UsageError: no such run, it names no book, or the book is not there. InputError: GM119, the market of the book has
        changed since; or it can no longer be read. InternalError: GM202, the accounts are not those that were
        published.
    """
    if isinstance(run, Run):
        return _side(name, run.manifest, _in_memory(run), run.tables, lambda _: WholeBook(run.book))
    folder = open_run(run)
    manifest = run_json(folder, "manifest")
    absent = sorted(_KEYS - manifest.keys())
    if absent:
        message = f"the manifest of {name} ({str(folder)!r}) has no {', '.join(absent)}; run the book again"
        raise UsageError(message)
    book = book_folder(manifest, f"{name} ({str(folder)!r})", "give gpumargin.diff the run itself")
    market = read_market(book)
    side = _side(
        name,
        manifest,
        (market, _published(folder, manifest)),
        _Tables(folder),
        lambda memory: open_book(book, memory=memory),
    )
    side.require_unchanged({n: table_digest(table) for n, table in market.tables.items()}, _MARKET)
    return side


class _Tables(dict[str, pa.Table]):
    """Small result tables of a folder, read when asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, name: str) -> pa.Table:
        return _read(self._folder / f"{name}.parquet")


def _side(
    name: str,
    manifest: Mapping[str, Any],
    book_and_accounts: tuple[Book, Iterable[pa.Table]],
    tables: Mapping[str, pa.Table],
    open_parts: Callable[[int], Parts],
) -> Side:
    given, accounts = book_and_accounts
    models = {label: _model(raw, manifest, label) for label, raw in manifest["models"].items()}
    market = _usable(given, manifest, models)
    digits = asset_decimals(market)
    figures = [account_figures(t, digits[models[_label(t)].file.accounting_asset]) for t in accounts if t.num_rows]
    several = len(models) > 1
    priced = [_options(tables[f"instruments-{label}" if several else "instruments"]) for label in models]
    options = pl.concat(priced).unique("instrument_id", keep="first", maintain_order=True)
    return Side(name, manifest, models, market, pl.concat(figures), options, open_parts)


def _model(raw: Mapping[str, Any], manifest: Mapping[str, Any], label: str) -> MarginModel:
    try:
        file = ModelFile.model_validate(dict(raw))
    except ValueError as error:
        first = str(error).splitlines()[0]
        message = (
            f"the model {label!r} of a run is not valid to this version of gpumargin ({first}); run the book again"
        )
        raise UsageError(message) from None
    return MarginModel(file, dict(raw), manifest["overrides"].get(label, {}))


def _usable(market: Book, manifest: Mapping[str, Any], models: Mapping[str, MarginModel]) -> Book:
    """A market without the rows that the run had in quarantine."""
    if policy_of(manifest) == "fail":
        return market
    files = [model.file for model in models.values()]
    return BookChecks(
        market,
        "quarantine",
        as_of=datetime.fromisoformat(manifest["as_of"]),
        vol_limit=max(file.vol_limit for file in files),
        tenor_limit_years=max(file.tenor_limit_years for file in files),
    ).head


def policy_of(manifest: Mapping[str, Any]) -> OnBadRows:
    """What a run did with bad rows."""
    return "quarantine" if manifest.get("on_bad_rows") == "quarantine" else "fail"


def _label(accounts: pa.Table) -> str:
    return str(accounts["model"][0].as_py())


def _options(instruments: pa.Table) -> pl.DataFrame:
    chosen = instruments.select(["kind", *_OPTION])
    frame = pl.DataFrame(pl.from_arrow(chosen)).filter(pl.col("kind").cast(pl.String) == "option")
    return frame.select(pl.col("instrument_id").cast(pl.String), *_OPTION[1:])


def _in_memory(run: Run) -> tuple[Book, Iterable[pa.Table]]:
    tables, accounts = run.book.tables, run.tables["accounts"]
    market = Book({name: tables[name] for name in _MARKET if name in tables})
    return market, [accounts.filter(pc.equal(accounts["model"], label)) for label in run.manifest["models"]]


def _published(folder: Path, manifest: Mapping[str, Any]) -> Iterator[pa.Table]:
    """The accounts of a run folder, part by part, each of one model; checked against their hash at the end."""
    digests: dict[str, ColumnDigest] = {}
    for path in sorted((folder / "accounts").glob("*.parquet")):
        table = _read(path)
        if table.num_rows:
            digests.setdefault(_label(table), ColumnDigest()).add(table)
            yield table
    found = {label: digest.hexdigest() for label, digest in sorted(digests.items())}
    if not found or combined_digest(found) != manifest["results"].get("accounts"):
        message = f"GM202: the accounts in {str(folder)!r} are not those that its manifest names; run it again"
        raise InternalError(message)


def _read(path: Path) -> pa.Table:
    try:
        return whole_table(path)
    except RefusedError as error:
        message = f"{error}; restore the file, or run again"
        raise UsageError(message) from error
