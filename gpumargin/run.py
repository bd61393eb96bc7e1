"""The main job in order: check, pack, margin, report. No arithmetic of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.clock import Clock
from gpumargin.device import DeviceChoice
from gpumargin.digests import ColumnDigest
from gpumargin.engine import DEFAULT_MEMORY_BUDGET, DType, Settings
from gpumargin.identity import new_run_id
from gpumargin.owners import OwnerTotals
from gpumargin.prepare import DEFAULT_TABLES, Options, Pass, prepare
from gpumargin.publish import RunFolder
from gpumargin.result_columns import described
from gpumargin.results import accounts_table, instruments_table, positions_table, scenarios_table, units_table
from gpumargin.runs import Run
from gpumargin.selfcheck import check_part, check_rows
from gpumargin.summary import Progress, identity_of, manifest_of, summary_of
from gpumargin.tables import Book
from gpumargin.totals import AccountTotals

PART_TABLES = ("accounts", "units", "positions")


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
                _add_owners(work, tables["accounts"], totals.accounts - before, progress)
                totals.add(tables["accounts"])
                for name, table in tables.items():
                    progress.digests.setdefault(name, ColumnDigest()).add(table)
                    progress.rows[name] = progress.rows.get(name, 0) + table.num_rows
            yield tables
        check_rows(totals.accounts - before, len(work.legs))


def _add_owners(work: Pass, accounts: pa.Table, first: int, progress: Progress) -> None:
    """Adds a part's accounts, the first of which is `first` of its model's, to the sums of their owners."""
    legs = work.legs
    if legs.owner is None or legs.owner_ids is None:
        return
    known = progress.owners.setdefault(work.money, OwnerTotals(legs.owner_ids, work.naming.decimals))
    known.add(accounts, legs.owner[first : first + accounts.num_rows])


def owner_tables(progress: Progress) -> dict[str, pa.Table]:
    """Sums by owner, if the book names owners; a row for each owner and accounting asset."""
    made = [described(totals.table(money), "owners", money) for money, totals in progress.owners.items()]
    return {"owners": pa.concat_tables([table.replace_schema_metadata() for table in made])} if made else {}


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
        tables={**joined, **whole_tables(passes), **owner_tables(progress)},
        summary=summary_of(book, passes, options, progress),
        manifest=manifest_of(identity_of(book, passes, options), progress),
        book=book,
    )


def margin_to_folder(
    book: Book, model: MarginModel, out: Path, options: Options, *, clock: Clock | None = None
) -> Path:
    """Margin of a whole book, written part by part; memory does not grow with the results.

    Args:
      book: from `read_book`.
      model: for accounts whose row names no other.
      out: folder of runs.
      options: as-of, device, tables, where the book came from.
      clock: one that has timed the reading already.

    Returns:
      The folder of the published run, `out/<run id>`; `out/latest` names it.

    Raises:
      InputError, ResourceError: nothing was published.
    """
    progress = Progress(clock or Clock())
    passes = prepare(book, model, options, progress.clock)
    with progress.clock.stage("hash"):
        identity = identity_of(book, passes, options)
    with RunFolder(out, new_run_id(identity)) as folder:
        for tables in parts(passes, options.tables, progress):
            with progress.clock.stage("write"):
                for name, table in tables.items():
                    folder.add_part(name, table)
        for name, table in (whole_tables(passes) | owner_tables(progress)).items():
            folder.add_table(name, table)
        return folder.publish(summary_of(book, passes, options, progress), manifest_of(identity, progress))
