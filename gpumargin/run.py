"""The main job in order: check, pack, margin, report. No arithmetic of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.checks.policy import OnBadRows
from gpumargin.clock import Clock
from gpumargin.conservation import Conservation
from gpumargin.device import DeviceChoice
from gpumargin.engine import DEFAULT_MEMORY_BUDGET, DType, EngineResult, Settings
from gpumargin.identity import new_run_id
from gpumargin.lanes import ahead, lane
from gpumargin.origin import book_files, origin_of, require_room
from gpumargin.prepare import DEFAULT_TABLES, Market, Options, Pass, usable_book
from gpumargin.progress import Progress, Read
from gpumargin.publish import Note, RunFolder
from gpumargin.rejects import Fate, fate_of
from gpumargin.result_columns import described
from gpumargin.results import accounts_table, instruments_table, positions_table, scenarios_table, units_table
from gpumargin.runs import Run
from gpumargin.selfcheck import check_part, check_rows
from gpumargin.summary import identity_of, manifest_of, summary_of
from gpumargin.tables import FIRST, Book, Parts, Start, WholeBook, open_book
from gpumargin.totals import AccountTotals, Approximate

Keep = Callable[[str, pa.Table], None]
Rest = Callable[[Mapping[str, Any], Mapping[str, pa.Table]], None]


class Packed(NamedTuple):
    """A part of a book, packed for each of its models, and what had been read and checked by then."""

    passes: list[Pass]
    fate: Fate
    read: Read
    checked: dict[str, Any]
    ids: pa.Table


def _part_tables(work: Pass, part: EngineResult, wanted: tuple[str, ...]) -> dict[str, pa.Table]:
    """Result tables of some accounts, described."""
    makers: dict[str, Callable[[], pa.Table]] = {
        "accounts": lambda: accounts_table(work.legs, part, work.naming, work.unknown),
        "units": lambda: units_table(work.legs, part, work.naming),
        "positions": lambda: positions_table(work.legs, part, work.contracts, work.engine.contract_risk()),
    }
    return {name: described(make(), name, work.money) for name, make in makers.items() if name in wanted}


def _packed(source: Parts, market: Market, progress: Progress, scratch: Path, start: Start) -> Iterator[Packed]:
    """Every part of a book, read, hashed, checked and packed."""
    books = source.parts(progress.read, scratch, start)
    while True:
        with progress.clock.stage("read"):
            book = next(books, None)
        if book is None:
            return
        sifted = market.sifted(book)
        progress.used(book, sifted.book)
        del book
        fate = fate_of(sifted.book, sifted.rejected, is_market=False)
        progress.rejects.add(fate, scratch)
        passes = market.passes(sifted)
        for work in passes:
            progress.packed(work)
        yield Packed(passes, fate, progress.read_so_far(), market.laid_aside(), market.checks.ids_of_part())
        del sifted, passes


def _nothing(*_: object) -> None:
    pass


def margin_parts(
    source: Parts,
    market: Market,
    progress: Progress,
    scratch: Path,
    keep: Keep,
    *,
    finished: Rest = _nothing,
    start: Start = FIRST,
) -> None:
    """Margins a book part by part; while one is computed, the next is packed and the results before it are kept.

    Args:
      source: the book.
      market: made of the book's head.
      progress: gathers totals and hashes.
      scratch: folder for rows that wait for their part.
      keep: takes every result table of every part, in order.
      finished: called when all of a part was kept, with what is needed to go on behind it.
      start: the part to begin with; those before are in `market` and `progress` already.

    Raises:
      InputError: the book breaks the input contract; parts may have been kept before that was seen.
      InternalError: an identity does not hold, or the books do not balance.
    """
    wanted = ("accounts", *(name for name in market.options.tables if name != "accounts"))

    def finish(work: Pass, part: EngineResult) -> None:
        with progress.clock.stage("tables"):
            tables = _part_tables(work, part, wanted)
        with progress.clock.stage("self-check"):
            check_part(work.expected, part, tables)
        with progress.clock.stage("totals"):
            _add(work, part, tables, progress, scratch)
        with progress.clock.stage("write"):
            for name, table in tables.items():
                keep(name, table)

    def lay_aside(packed: Packed) -> None:
        with progress.clock.stage("write"):
            state, tables = progress.laid_aside(packed.read, packed.fate)
            finished(state | {"market": packed.checked}, tables | {"ids": packed.ids})

    with closing(ahead(_packed(source, market, progress, scratch, start))) as parts, lane() as behind:
        for packed in parts:
            for work in packed.passes:
                _margin_pass(work, progress, lambda part, work=work: behind.do(finish, work, part))  # type: ignore[misc]
            if packed.passes:
                behind.do(lay_aside, packed)
    progress.close(market)


def _margin_pass(work: Pass, progress: Progress, take: Callable[[EngineResult], None]) -> None:
    """Margins the accounts of one model of a part."""
    done, results = 0, work.engine.run(work.legs)
    while True:
        with progress.clock.stage("margin"):
            part = next(results, None)
        if part is None:
            break
        check_rows(done, part.first_account)
        take(part)
        done += len(part.result.accounts.equity)
    check_rows(done, len(work.legs))


def _add(work: Pass, part: EngineResult, tables: dict[str, pa.Table], progress: Progress, scratch: Path) -> None:
    """Adds the results of some accounts to totals and hashes."""
    accounts, legs, decimals = tables["accounts"], work.legs, work.naming.decimals
    progress.totals.setdefault(work.money, AccountTotals(decimals)).add(accounts)
    progress.equity.setdefault(work.money, Approximate()).add(accounts)
    if legs.owner is not None and legs.owner_ids is not None:
        owner = legs.owner[part.first_account : part.first_account + accounts.num_rows]
        sums = progress.owners_in(work.money, decimals, scratch).add(accounts, owner, legs.owner_ids)
        progress.keep_owners(work.money, sums)
    for name, table in tables.items():
        progress.add(name, work.model.label, table)


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
    files: Mapping[str, str] | None = None,
    resumes: bool = False,
    note: Note = _nothing,
) -> Path:
    """Margin of a whole book, written part by part; memory grows neither with the results nor with the parts.

    Args:
      book: from `read_book` or `open_book`.
      model: for accounts whose row names no other.
      out: folder of runs.
      options: as-of, device, tables, where the book came from.
      clock: one that has timed the reading already.
      files: hash of every file of the book (`book_files`); None = a run that cannot be resumed.
      resumes: whether to go on with an unfinished run of the same files and parameters.
      note: told what somebody may want to know.

    Returns:
      The folder of the published run, `out/<run id>`; `out/latest` names it.

    Raises:
      InputError: nothing was published.
      ResourceError: nothing was published; finished parts are kept for whoever resumes.
    """
    source: Parts = WholeBook(book) if isinstance(book, Book) else book
    progress = Progress(Conservation(source), clock or Clock())
    market = Market(source.head, model, options, progress.clock)
    origin = None if files is None else origin_of(market, files)
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
        identity = identity_of(source, market, progress)
        summary, manifest = summary_of(source, market, progress), manifest_of(identity, progress)
        return folder.publish(new_run_id(identity), summary, manifest)


def _begin(market: Market, progress: Progress, scratch: Path) -> None:
    """Takes what became of the rows of the market, before those of accounts."""
    progress.rejects.add(fate_of(market.head, market.checks.rejected_market, is_market=True), scratch)


def _taken_up(folder: RunFolder, market: Market, progress: Progress) -> Start:
    """Where to go on behind the parts that an unfinished run has finished."""
    _begin(market, progress, folder.scratch)
    if not folder.finished:
        return FIRST
    last = folder.finished[-1]
    progress.take_up(last)
    market.take_up(last.state["market"], [record.table("ids") for record in folder.finished])
    for record in folder.finished:
        progress.take_up_part(record, folder.scratch)
    return Start(len(folder.finished), {name: digest.rows for name, digest in progress.inputs.items()})


def margin_folder(
    path: Path, model: MarginModel, out: Path, options: Options, *, resumes: bool = False, note: Note = _nothing
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
    clock = Clock()
    with clock.stage("read"):
        source = open_book(path, memory=options.settings.memory_budget)
    with clock.stage("hash"):
        files = book_files(path)
    return margin_to_folder(source, model, out, options, clock=clock, files=files, resumes=resumes, note=note)
