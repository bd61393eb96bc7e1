"""Blocks of a folder one after the other on a resident book: each published once, whole, and picked up after a crash.

A finished block is a folder of that name in `out`: it appeared by one rename. On start the newest checkpoint, or else
the book, is read, the finished blocks since are carried out again without output, the statuses of the last of them are
computed, and the next block goes on from there; since a block's result depends on the book alone, it is the one that an
uninterrupted process would have published.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from gpumargin.catalogue import MarginModel
from gpumargin.clock import Clock
from gpumargin.engine import Settings
from gpumargin.errors import UsageError
from gpumargin.publish import StagedFolder, read_json
from gpumargin.resident.book import ResidentBook
from gpumargin.resident.change import Change
from gpumargin.resident.schema import BLOCK_TABLES
from gpumargin.tables import Book, read_book, read_tables

_NUMBER = re.compile(r"[0-9]+")
_IDENTITY, _STATE = "follow.json", ".follow"
_CHECKPOINTS = ".checkpoints"
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Following:
    """What to follow, and how.

    Attributes:
      book: folder of the book before the first block.
      blocks: folder of blocks, one folder each, named by a number; other names are passed over.
      out: folder of results; made if absent.
      model: for accounts that name no other.
      as_of: instant of valuation of every block; None = the newest timestamp of its market.
      settings: device and precision.
      checkpoint_every: blocks after which the book is written down, so that a start repeats no more than these.
    """

    book: Path
    blocks: Path
    out: Path
    model: MarginModel
    as_of: datetime | None = None
    settings: Settings = field(default_factory=Settings)
    checkpoint_every: int = 100

    @property
    def identity(self) -> dict[str, Any]:
        """What results in `out` depend on beside the blocks."""
        return {
            "book": str(self.book.resolve()),
            "model": self.model.label,
            "overrides": dict(self.model.overrides),
            "as_of": self.as_of.isoformat() if self.as_of else None,
            "dtype": self.settings.dtype,
        }


@dataclass(frozen=True)
class Finished:
    """A block that has been published."""

    name: str
    folder: Path
    totals: Mapping[str, Any]


def numbered(folder: Path) -> dict[int, str]:
    """Folders named by a number, ascending.

    Raises:
      UsageError: two names of one number, such as 7 and 007.
    """
    found: dict[int, str] = {}
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not _NUMBER.fullmatch(entry.name) or not entry.is_dir():
            continue
        if int(entry.name) in found:
            message = f"{str(folder)!r} has two blocks of one number: {found[int(entry.name)]!r} and {entry.name!r}"
            raise UsageError(message)
        found[int(entry.name)] = entry.name
    return dict(sorted(found.items()))


def follow(work: Following, *, watch: bool = False) -> Iterator[Finished]:
    """Carries out, margins and publishes every block that is not finished yet, in ascending order.

    Args:
      work: what to follow.
      watch: whether to wait for further blocks when all are done; a block must appear by one rename.

    Returns:
      Finished blocks as they are published.

    Raises:
      InputError: the book or a block breaks the contract; the blocks before are published.
      UsageError: `out` holds results of something else, or a block comes before one that is finished.
    """
    _claim(work)
    live, last = _resumed(work)
    done = 0
    while True:
        waiting = [number for number in numbered(work.blocks) if number > last]
        for number in waiting:
            name = numbered(work.blocks)[number]
            yield _block(work, live, name)
            last, done = number, done + 1
            if done % work.checkpoint_every == 0:
                _checkpoint(work, live, number)
        if not watch:
            return
        if not waiting:
            time.sleep(_POLL_SECONDS)


def _claim(work: Following) -> None:
    """Makes `out` the place of these results.

    Raises:
      UsageError: it is that of others.
    """
    state = work.out / _STATE / _IDENTITY
    if state.is_file():
        other = read_json(state)
        different = [key for key, value in work.identity.items() if other.get(key) != value]
        if different:
            said = ", ".join(f"{key} {other.get(key)!r}" for key in different)
            message = (
                f"{str(work.out)!r} holds blocks of {said}; give another --out, or the same {', '.join(different)}"
            )
            raise UsageError(message)
        return
    with StagedFolder(work.out, _STATE, mends=True) as folder:
        folder.add_json(_IDENTITY, work.identity)
        folder.reveal()


def _resumed(work: Following) -> tuple[ResidentBook, int]:
    """The book after the last finished block, statuses known, and that block's number; -1 before the first."""
    finished, given = numbered(work.out), numbered(work.blocks)
    newest = max(finished, default=-1)
    passed = [name for number, name in given.items() if number < newest and number not in finished]
    if passed:
        message = (
            f"block {passed[0]!r} comes before {finished[newest]!r}, which is finished; blocks go in ascending order"
        )
        raise UsageError(message)
    saved = max((number for number in numbered(work.out / _CHECKPOINTS) if number <= newest), default=-1)
    folder = work.out / _CHECKPOINTS / str(saved) if saved >= 0 else work.book
    live = ResidentBook(
        read_book(folder), work.model, as_of=work.as_of, device=work.settings.device, dtype=work.settings.dtype
    )
    for number, name in finished.items():
        if number <= saved:
            continue
        if number not in given:
            message = f"block {name!r} is finished and no longer in {str(work.blocks)!r}, but no checkpoint holds it"
            raise UsageError(message)
        block = read_tables(BLOCK_TABLES, {}, work.blocks / given[number])
        live.apply_block(block)
        live.take_market(block)
    live.recalculate()
    return live, newest


def _block(work: Following, live: ResidentBook, name: str) -> Finished:
    """Carries out one block and publishes what it changed."""
    clock = Clock()
    with clock.stage("read"):
        block = read_tables(BLOCK_TABLES, {}, work.blocks / name)
    with clock.stage("apply"):
        live.apply_block(block)
    change = live.recalculate_block(block, clock=clock)
    totals = _totals(name, change)
    with StagedFolder(work.out, name, mends=True) as folder:
        with clock.stage("write"):
            folder.add_table("status_changes", change.status_changes.to_arrow())
            folder.add_json("totals.json", totals)
        folder.add_json("latency.json", {"seconds": {stage: round(s, 6) for stage, s in clock.seconds.items()}})
        return Finished(name, folder.reveal(), totals)


def _totals(name: str, change: Change) -> dict[str, Any]:
    return {
        "block": name,
        "as_of": change.as_of.isoformat(),
        "status_changes": change.status_changes.height,
        "by_accounting_asset": change.totals,
    }


def _checkpoint(work: Following, live: ResidentBook, number: int) -> None:
    """Writes the book down as it is after a block, and then removes what was written before."""
    place = work.out / _CHECKPOINTS
    earlier = [place / name for name in numbered(place).values()]
    with StagedFolder(place, str(number), mends=True) as folder:
        book: Book = live.book
        for name, table in book.tables.items():
            folder.add_table(name, table)
        folder.reveal()
    for old in earlier:
        shutil.rmtree(old, ignore_errors=True)
