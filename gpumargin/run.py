"""The main job in order: open the book, margin its parts, publish. No arithmetic of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.checks.policy import OnBadRows
from gpumargin.clock import Clock
from gpumargin.conservation import Conservation
from gpumargin.device import DeviceChoice
from gpumargin.engine import DEFAULT_MEMORY_BUDGET, DType, Settings
from gpumargin.identity import new_run_id
from gpumargin.origin import HashedBook, origin_of, require_room, stamps_below
from gpumargin.pipeline import Keep, margin_parts
from gpumargin.prepare import DEFAULT_TABLES, Market, Options, usable_book
from gpumargin.progress import Progress
from gpumargin.publish import Note, RunFolder, silent
from gpumargin.rejects import fate_of
from gpumargin.result_columns import described
from gpumargin.results import instruments_table, scenarios_table
from gpumargin.runs import Run
from gpumargin.summary import identity_of, manifest_of, summary_of
from gpumargin.tables import FIRST, Book, Parts, Start, WholeBook, open_book


def owner_tables(progress: Progress) -> Iterator[pa.Table]:
    """Sums by owner, if the book names owners: rows for each owner and accounting asset, asset by asset."""
    for money, totals in progress.owners.items():
        for table in totals.tables(money):
            yield described(table, "owners", money).replace_schema_metadata()


def reject_tables(market: Market, progress: Progress) -> Iterator[pa.Table]:
    """Rows in quarantine, a record for each rule that one broke; no table at all where bad rows end the run."""
    for table in progress.rejects.tables() if market.options.on_bad_rows == "quarantine" else ():
        yield described(table, "quarantine", "").replace_schema_metadata()


def whole_tables(market: Market, progress: Progress) -> dict[str, pa.Table]:
    """The small tables: open interest; instruments and scenarios, of every model."""
    several = len(market.priced) > 1
    interest = progress.interest.table()
    tables = {"open_interest": described(interest, "open_interest", "").replace_schema_metadata()}
    for work in market.priced.values():
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
    on_bad_rows: OnBadRows = "fail",
    closed_book: bool = False,
    max_age: timedelta | None = None,
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
      on_bad_rows: `fail`: a row that breaks the contract ends the run; `quarantine`: rows that a run may go on without
        are taken out and listed in `Run.quarantine`, and the margin accounts that they leave in doubt are `unknown`,
        every amount null.
      closed_book: whether a contract whose longs and shorts differ is an error.
      max_age: how old marks in use, forwards and prices may be at `as_of`; None = any age.

    Returns:
      `Run` with the result tables as polars frames; its `book` is what was used.

    Raises:
      InputError: the book or the model breaks the input contract. ResourceError: no such device, or out of memory.
      InternalError: an identity does not hold.
    """
    chosen = model if isinstance(model, MarginModel) else load_model(model)
    instant = datetime.fromisoformat(as_of) if isinstance(as_of, str) else as_of
    options = Options(
        instant,
        Settings(device, dtype, memory_budget),
        tuple(tables),
        on_bad_rows=on_bad_rows,
        max_age=max_age,
        closed_book=closed_book,
    )
    source = WholeBook(book)
    progress = Progress(Conservation(source))
    market = Market(book, chosen, options, progress.clock)
    collected: dict[str, list[pa.Table]] = {}
    with TemporaryDirectory(prefix="gpumargin-") as scratch:
        keep: Keep = lambda name, table: collected.setdefault(name, []).append(table)  # noqa: E731
        _begin(market, progress, Path(scratch))
        margin_parts(source, market, progress, Path(scratch), keep)
        for name, found in (("owners", owner_tables(progress)), ("quarantine", reject_tables(market, progress))):
            for table in found:
                keep(name, table)
    joined = {name: pa.concat_tables(found, promote_options="default") for name, found in collected.items()}
    return Run(
        tables=joined | whole_tables(market, progress),
        summary=summary_of(source, market, progress),
        manifest=manifest_of(identity_of(source, market, progress), progress),
        book=usable_book(book, chosen, options),
    )


def margin_to_folder(
    book: Book | Parts,
    model: MarginModel,
    out: Path,
    options: Options,
    *,
    clock: Clock | None = None,
    files: HashedBook | None = None,
    resumes: bool = False,
    note: Note = silent,
) -> Path:
    """Margin of a whole book, written part by part; memory grows neither with the results nor with the parts.

    Args:
      book: from `read_book` or `open_book`.
      model: for accounts whose row names no other.
      out: folder of runs.
      options: as-of, device, tables, where the book came from.
      clock: one that has timed the reading already.
      files: of the book, looked at before it was read; None = a run that cannot be resumed, and hashes values instead.
      resumes: whether to go on with an unfinished run of the same files and parameters.
      note: told what somebody may want to know.

    Returns:
      The folder of the published run, `out/<run id>`; `out/latest` names it.

    Raises:
      InputError: nothing was published.
      ResourceError: nothing was published; finished parts are kept for whoever resumes.
    """
    source: Parts = WholeBook(book) if isinstance(book, Book) else book
    clock = clock or Clock()
    with clock.stage("hash"):
        digests = None if files is None else files.digests
    progress = Progress(Conservation(source), clock, files=digests)
    market = Market(source.head, model, options, clock)
    origin = None if digests is None else origin_of(market, digests)
    with RunFolder(out, origin, resumes=resumes, note=note) as folder:
        if folder.published is not None:
            folder.point()
            return folder.published
        require_room(out, source, market.options)
        start = _taken_up(folder, market, progress)
        margin_parts(
            source, market, progress, folder.scratch, folder.add_part, finished=folder.finish_part, start=start
        )
        for name, table in whole_tables(market, progress).items():
            folder.add_table(name, table)
        folder.add_rows("owners", owner_tables(progress))
        folder.add_rows("quarantine", reject_tables(market, progress))
        if files is not None:
            files.require_unchanged()
        identity = identity_of(source, market, progress)
        summary, manifest = summary_of(source, market, progress), manifest_of(identity, progress)
        return folder.publish(new_run_id(identity), summary, manifest)


def _begin(market: Market, progress: Progress, scratch: Path) -> None:
    """Takes what became of the rows of the market, before those of accounts."""
    progress.rejects.add(fate_of(market.head, market.checks.rejected_market, is_market=True), scratch)


def _taken_up(folder: RunFolder, market: Market, progress: Progress) -> Start:
    """Where to go on behind the parts that an unfinished run has finished."""
    _begin(market, progress, folder.scratch)
    market.checks.keep_ids_in(folder.scratch / "ids")
    if not folder.finished:
        return FIRST
    parts = len(folder.finished)
    last = folder.record(parts - 1)
    progress.take_up(last)
    market.take_up(last.state["market"])
    del last  # one record at a time: they may be large
    for record in map(folder.record, range(parts)):
        market.checks.take_up_part(record.table("ids"))
        progress.take_up_part(record, folder.scratch)
    return Start(parts, progress.rows_read)


def margin_folder(
    path: Path, model: MarginModel, out: Path, options: Options, *, resumes: bool = False, note: Note = silent
) -> Path:
    """Margin of a book in a folder, read part by part where it is large beside the memory budget.

    Args:
      path: folder of the book.
      model: as in `margin_to_folder`.
      out: likewise.
      options: likewise.
      resumes: likewise.
      note: likewise.

    Returns:
      The folder of the published run.

    Raises:
      InputError: nothing was published.
      ResourceError: nothing was published; finished parts are kept for whoever resumes.
    """
    clock, before = Clock(), stamps_below(path)
    with clock.stage("read"):
        source = open_book(path, memory=options.settings.memory_budget)
    files = HashedBook(path, {name: before.get(name) for own in source.files.values() for name in sorted(own)})
    return margin_to_folder(source, model, out, options, clock=clock, files=files, resumes=resumes, note=note)
