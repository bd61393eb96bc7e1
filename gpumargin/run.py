"""The main job in order: check, pack, margin, report. No arithmetic of its own."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpumargin.bind import bind
from gpumargin.catalogue import MarginModel, load_model
from gpumargin.checks import require_valid, resolve_as_of
from gpumargin.device import DeviceChoice
from gpumargin.digests import ColumnDigest
from gpumargin.engine import DEFAULT_MEMORY_BUDGET, DType, Engine, Settings
from gpumargin.identity import input_digests, new_run_id, versions
from gpumargin.model_checks import require_margined, require_usable
from gpumargin.pack.columns import Bools, encoded
from gpumargin.pack.contracts import ContractSet, contract_set
from gpumargin.pack.legs import Accounts, LegBook, find_accounts, leg_book
from gpumargin.publish import RunFolder
from gpumargin.result_columns import described
from gpumargin.results import Naming, accounts_table, instruments_table, positions_table, scenarios_table, units_table
from gpumargin.runs import Run
from gpumargin.selfcheck import check_part, check_rows
from gpumargin.tables import Book
from gpumargin.totals import AccountTotals, asset_decimals, balance_totals

PART_TABLES = ("accounts", "units", "positions")
DEFAULT_TABLES = ("accounts", "units")


class Clock:
    """Seconds spent in each stage of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Options:
    """What a run does beyond its book and model.

    Attributes:
      as_of: instant of valuation; None = the newest timestamp of the book.
      settings: device, precision, memory.
      tables: result tables with a row per account, unit or leg that are made; `accounts` always is.
      book_path: where the book was read from, for the manifest.
    """

    as_of: datetime | None = None
    settings: Settings = field(default_factory=Settings)
    tables: tuple[str, ...] = DEFAULT_TABLES
    book_path: str | None = None


@dataclass(frozen=True)
class Pass:
    """One model over the accounts that it margins."""

    model: MarginModel
    contracts: ContractSet
    legs: LegBook
    engine: Engine
    naming: Naming

    @property
    def money(self) -> str:
        """The accounting asset."""
        return self.model.file.accounting_asset


@dataclass
class Progress:
    """What a run has gathered so far."""

    clock: Clock = field(default_factory=Clock)
    totals: dict[str, AccountTotals] = field(default_factory=dict)  # by accounting asset
    digests: dict[str, ColumnDigest] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


def _as_of_microseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000)


def _models(book: Book, default: MarginModel, accounts: Accounts) -> list[tuple[MarginModel, Bools]]:
    """Every model that a book's accounts name, with the accounts that it margins."""
    table = book.tables.get("accounts")
    if table is None or "model" not in table.column_names:
        return [(default, np.ones(len(accounts), bool))]
    codes, names = encoded(table["model"])
    of_account = np.full(len(accounts), -1)
    of_account[accounts.of_accounts] = codes
    found = [(default, of_account < 0)]
    found += [(load_model(str(name)), of_account == code) for code, name in enumerate(names.to_pylist())]
    return [(model, included) for model, included in found if included.any()]


def _prepared(
    book: Book, model: MarginModel, included: Bools, accounts: Accounts, instant: datetime, settings: Settings
) -> Pass:
    file = model.file
    contracts = contract_set(
        book.tables,
        _as_of_microseconds(instant),
        kinds=file.kinds,
        accounting=file.accounting_asset,
        base_legs=file.base_legs,
    )
    legs = leg_book(book.tables, accounts, contracts, included=included, keep_empty=file.unsettled_without_position)
    bound = bind(file, contracts.units, contracts.asset_ids, contracts.base_contract >= 0)
    decimals = asset_decimals(book)[file.accounting_asset]
    naming = Naming.of(file, model.label, contracts, decimals)
    return Pass(model, contracts, legs, Engine(bound, contracts, settings), naming)


def prepare(book: Book, model: MarginModel, options: Options, clock: Clock) -> list[Pass]:
    """Checks a book and packs it for every model that its accounts name.

    Raises:
      InputError: the book breaks the input contract, or lacks what a model needs; no kernel has run.
    """
    with clock.stage("check"):
        instant = resolve_as_of(book, options.as_of)
        accounts = find_accounts(book.tables)
        models = _models(book, model, accounts)
        require_valid(
            book,
            as_of=options.as_of,
            vol_limit=max(each.file.vol_limit for each, _ in models),
            tenor_limit_years=max(each.file.tenor_limit_years for each, _ in models),
        )
        for each, included in models:
            require_usable(each, book)
            require_margined(each, book, accounts, included)
    with clock.stage("pack"):
        return [_prepared(book, each, included, accounts, instant, options.settings) for each, included in models]


def _part_tables(work: Pass, wanted: tuple[str, ...], progress: Progress) -> Iterator[dict[str, pa.Table]]:
    """Result tables of one model, part by part, checked and described."""
    makers = {
        "accounts": lambda part: accounts_table(work.legs, part, work.naming),
        "units": lambda part: units_table(work.legs, part, work.naming),
        "positions": lambda part: positions_table(work.legs, part, work.contracts, work.engine.contract_risk()),
    }
    results = work.engine.run(work.legs)
    while True:
        with progress.clock.stage("margin"):
            part = next(results, None)
        if part is None:
            return
        with progress.clock.stage("tables"):
            check_part(work.legs, work.contracts, part)
            made = {name: makers[name](part) for name in PART_TABLES if name in wanted}
            yield {name: described(table, name, work.money) for name, table in made.items()}


def parts(passes: list[Pass], wanted: tuple[str, ...], progress: Progress) -> Iterator[dict[str, pa.Table]]:
    """Result tables of all accounts, part by part, while `progress` gathers totals and hashes."""
    for work in passes:
        totals = progress.totals.setdefault(work.money, AccountTotals(work.naming.decimals))
        before = totals.accounts
        for tables in _part_tables(work, ("accounts", *wanted), progress):
            with progress.clock.stage("totals"):
                totals.add(tables["accounts"])
                for name, table in tables.items():
                    progress.digests.setdefault(name, ColumnDigest()).add(table)
                    progress.rows[name] = progress.rows.get(name, 0) + table.num_rows
            yield tables
        check_rows(totals.accounts - before, len(work.legs))


def whole_tables(passes: list[Pass]) -> dict[str, pa.Table]:
    """The small tables: instruments and scenarios, of every model."""
    several = len(passes) > 1
    tables: dict[str, pa.Table] = {}
    for work in passes:
        suffix = f"-{work.model.label}" if several else ""
        instruments = instruments_table(work.contracts, work.engine.contract_risk())
        tables[f"instruments{suffix}"] = described(instruments, "instruments", work.money)
        scenarios = scenarios_table(work.model.file, work.contracts.units)
        tables[f"scenarios{suffix}"] = described(scenarios, "scenarios", work.money)
    return tables


def summary_of(book: Book, passes: list[Pass], options: Options, progress: Progress) -> dict[str, Any]:
    """The figures of a run: `summary.json`."""
    return {
        "as_of": resolve_as_of(book, options.as_of).isoformat(),
        "models": {
            work.model.label: {
                "accounts": len(work.legs),
                "accounting_asset": work.money,
                "source": work.model.file.source,
                "estimated": work.model.file.estimated_numbers(),
                "overrides": dict(work.model.overrides),
            }
            for work in passes
        },
        "by_accounting_asset": {money: totals.summary() for money, totals in progress.totals.items()},
        "balances": balance_totals(book),
        "rows": {"read": {n: t.num_rows for n, t in book.tables.items()}, "quarantined": 0, "written": progress.rows},
        "device": [str(device) for device in passes[0].engine.devices],
        "dtype": options.settings.dtype,
        "seconds": {name: round(value, 4) for name, value in progress.clock.seconds.items()},
    }


def manifest_of(book: Book, passes: list[Pass], options: Options, progress: Progress) -> dict[str, Any]:
    """What identifies a run and its result: `manifest.json`."""
    return {
        "book": options.book_path,
        "as_of": resolve_as_of(book, options.as_of).isoformat(),
        "models": {work.model.label: dict(work.model.raw) for work in passes},
        "overrides": {work.model.label: dict(work.model.overrides) for work in passes if work.model.overrides},
        "dtype": options.settings.dtype,
        "platform": passes[0].engine.devices[0].platform,
        "versions": versions(),
        "inputs": input_digests(book),
        "results": {name: digest.hexdigest() for name, digest in sorted(progress.digests.items())},
    }


def margin(
    book: Book,
    model: MarginModel | str,
    *,
    as_of: datetime | str | None = None,
    device: DeviceChoice = "auto",
    dtype: DType = "float64",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    tables: Collection[str] = DEFAULT_TABLES,
) -> Run:
    """Margin of a whole book, in memory.

    Args:
      book: from `read_book`.
      model: a model or its name; accounts whose row names another model get that one.
      as_of: instant of valuation, ISO 8601 or a datetime (naive = UTC); None = the newest timestamp of the book.
      device: `auto` = every GPU, else the CPU; `gpu` and `cpu` insist.
      dtype: precision of the kernels; statuses are meant to be decided in float64.
      memory_budget: bytes that parts in flight may take.
      tables: result tables beside `accounts`, of `units` and `positions`.

    Returns:
      `Run` with the result tables as polars frames.

    Raises:
      InputError: the book or the model breaks the input contract. ResourceError: no such device, or out of memory.
      InternalError: an identity does not hold.
    """
    chosen = model if isinstance(model, MarginModel) else load_model(model)
    instant = datetime.fromisoformat(as_of) if isinstance(as_of, str) else as_of
    options = Options(instant, Settings(device, dtype, memory_budget), tuple(tables))
    progress = Progress()
    passes = prepare(book, chosen, options, progress.clock)
    collected: dict[str, list[pa.Table]] = {}
    for made in parts(passes, options.tables, progress):
        for name, table in made.items():
            collected.setdefault(name, []).append(table)
    joined = {name: pa.concat_tables(found, promote_options="default") for name, found in collected.items()}
    return Run(
        tables={**joined, **whole_tables(passes)},
        summary=summary_of(book, passes, options, progress),
        manifest=manifest_of(book, passes, options, progress),
        book=book,
    )


def margin_to_folder(book: Book, model: MarginModel, out: Path, options: Options) -> Path:
    """Margin of a whole book, written part by part; memory does not grow with the results.

    Returns:
      The folder of the published run, `out/<run id>`; `out/latest` names it.

    Raises:
      InputError, ResourceError: nothing was published.
    """
    progress = Progress()
    passes = prepare(book, model, options, progress.clock)
    identity = {
        "inputs": input_digests(book),
        "models": {w.model.label: dict(w.model.raw) for w in passes},
        **versions(),
    }
    with RunFolder(out, new_run_id(identity)) as folder:
        for tables in parts(passes, options.tables, progress):
            with progress.clock.stage("write"):
                for name, table in tables.items():
                    folder.add_part(name, table)
        for name, table in whole_tables(passes).items():
            folder.add_table(name, table)
        return folder.publish(summary_of(book, passes, options, progress), manifest_of(book, passes, options, progress))
