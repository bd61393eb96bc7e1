"""The parts of a book in a pipeline: while one is margined, the next is packed and the results before it are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from gpumargin.engine import EngineResult
from gpumargin.lanes import Lane, ahead, lane, side_by_side
from gpumargin.prepare import Market, Pass
from gpumargin.progress import Progress, Read
from gpumargin.rejects import Fate, fate_of
from gpumargin.result_columns import described
from gpumargin.results import accounts_table, positions_table, units_table
from gpumargin.selfcheck import check_part, check_rows
from gpumargin.tables import FIRST, Parts, Start
from gpumargin.totals import AccountTotals, Approximate

_WAITING = 4  # tables whose turn to be hashed has not come

Keep = Callable[[str, pa.Table], None]
Rest = Callable[[Mapping[str, Any], Mapping[str, pa.Table]], None]


class Packed(NamedTuple):
    """A part of a book, packed for each of its models, and what had been read and checked by then."""

    passes: list[Pass]
    fate: Fate
    read: Future[Read]
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


def _packed(
    source: Parts, market: Market, progress: Progress, scratch: Path, start: Start, counting: Lane
) -> Iterator[Packed]:
    """Every part of a book, read, checked and packed; `counting` holds what was read against what is packed."""

    def count(name: str, table: pa.Table) -> None:
        counting.do(progress.read, name, table)

    books = source.parts(count, scratch, start)
    while True:
        with progress.clock.stage("read"):
            book = next(books, None)
        if book is None:
            return
        sifted = market.sifted(book)
        counting.do(progress.used, book, sifted.book)
        del book
        fate = fate_of(sifted.book, sifted.rejected, is_market=False)
        progress.rejects.add(fate, scratch)
        passes = market.passes(sifted)
        for work in passes:
            counting.do(progress.packed, work)
        read = counting.do(progress.read_so_far)
        yield Packed(passes, fate, read, market.laid_aside(), market.checks.ids_of_part())
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

    Beside that, one thread hashes and counts what was read and packed, one hashes the results and one has them kept,
    the tables of a part side by side.

    Args:
      source: the book.
      market: made of the book's head.
      progress: gathers totals and hashes.
      scratch: folder for rows that wait for their part.
      keep: takes every result table of every part; those of one name in order, others beside them in other threads.
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
        for name, table in tables.items():
            hashing.do(progress.add, name, work.model.label, table)
        with progress.clock.stage("totals"):
            _add(work, part, tables["accounts"], progress, scratch)
        keeping.do(write, side_by_side, lambda named: keep(*named), tables.items())

    def write(do: Callable[..., None], *what: object) -> None:
        with progress.clock.stage("write"):
            do(*what)

    def lay_aside(packed: Packed) -> None:
        hashing.wait()
        state, tables = progress.laid_aside(packed.read.result(), packed.fate)
        keeping.do(write, finished, state | {"market": packed.checked}, tables | {"ids": packed.ids})

    with (
        lane(_WAITING) as counting,
        lane(_WAITING) as hashing,
        lane() as keeping,
        closing(ahead(_packed(source, market, progress, scratch, start, counting))) as parts,
        lane() as behind,
    ):
        for packed in parts:
            for work in packed.passes:
                _margin_pass(work, progress, partial(behind.do, finish, work))
            if packed.passes:
                behind.do(lay_aside, packed)
    progress.close(market)


def _margin_pass(work: Pass, progress: Progress, take: Callable[[EngineResult], object]) -> None:
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


def _add(work: Pass, part: EngineResult, accounts: pa.Table, progress: Progress, scratch: Path) -> None:
    """Adds the results of some accounts to totals."""
    legs, decimals = work.legs, work.naming.decimals
    progress.totals.setdefault(work.money, AccountTotals(decimals)).add(accounts)
    progress.equity.setdefault(work.money, Approximate()).add(accounts)
    if legs.owner is not None and legs.owner_ids is not None:
        owner = legs.owner[part.first_account : part.first_account + accounts.num_rows]
        sums = progress.owners_in(work.money, decimals, scratch).add(accounts, owner, legs.owner_ids)
        progress.keep_owners(work.money, sums)
