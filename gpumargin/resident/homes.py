"""Where the rows of accounts packed anew go: where they were if they fit, else to free rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpumargin.pack.columns import Bools, Ints
from gpumargin.pack.legs import LegBook
from gpumargin.resident.cut import run_lengths
from gpumargin.resident.groups import Homes
from gpumargin.resident.keys import is_among
from gpumargin.resident.layout import EMPTY, LEVELS, SHARING, Layout, Where
from gpumargin.resident.reading import Held


@dataclass(frozen=True)
class Move:
    """What becomes of the rows of one level.

    Attributes:
      before: where each row was; row -1, or `EMPTY` in a level that shares it, where it was nowhere.
      stays: which of them can stay there.
      index: which need another place, `shard` and `bucket` where that is to be.
    """

    before: Where
    stays: Bools
    index: Ints
    shard: Ints
    bucket: Ints


def first_homes(layout: Layout, book: LegBook, shard: Ints) -> Homes:
    """Free rows for all of a packed book, whose accounts are to lie in the given shards `[A]`."""
    of_rows = np.repeat(shard, np.diff(book.unit_start))
    found: dict[str, Where] = {}
    for level, lengths in run_lengths(book).items():
        shards = of_rows if level in ("legs", "cash_legs") else shard
        needed = np.flatnonzero(_wanted(level, lengths))
        own, rows = layout.levels[level], np.full(len(lengths), EMPTY)
        rows[needed] = own.take(shards[needed], own.fitting(lengths[needed]))
        found[level] = Where(shards, rows)
    return Homes(**found)


def moves(layout: Layout, held: Held, book: LegBook) -> dict[str, Move]:
    """What becomes of every row of accounts that are packed anew."""
    before = _before(held, book)
    found = {}
    for level, lengths in run_lengths(book).items():
        own, was = layout.levels[level], getattr(before, level)
        is_there = was.row > _nowhere(level)
        room = own.widths[np.minimum(own.bucket_of(np.maximum(was.row, 0)), len(own.widths) - 1)]
        wanted = _wanted(level, lengths)
        stays = is_there & wanted & (lengths <= room)
        index = np.flatnonzero(wanted & ~stays)
        found[level] = Move(was, stays, index, was.shard[index], own.fitting(lengths[index]))
    return found


def _nowhere(level: str) -> int:
    return EMPTY if level in SHARING else -1


def _wanted(level: str, lengths: Ints) -> Bools:
    """Which runs take a row of their own."""
    return lengths > 0 if level in SHARING else np.ones(len(lengths), bool)


def _before(held: Held, book: LegBook) -> Homes:
    """Where the rows of a packed book were: unit rows are the same where account and unit are."""
    owner = np.repeat(np.arange(len(book)), np.diff(book.unit_start))
    width = int(max(held.row_unit.max(initial=0), book.unit.max(initial=0))) + 1
    old, new = held.row_owner * width + held.row_unit, owner * width + book.unit
    legs, cash = np.full(len(new), -1), np.full(len(new), EMPTY)
    if len(old):
        at = np.minimum(np.searchsorted(old, new), len(old) - 1)
        known = old[at] == new
        legs, cash = np.where(known, held.rows.row[at], legs), np.where(known, held.cash.row[at], cash)
    shard = held.accounts.shard[owner]
    return Homes(Where(shard, legs), Where(shard, cash), held.accounts, held.balances)


def lacking(layout: Layout, wanted: dict[str, Move], book: LegBook) -> Layout | None:
    """The layout with more room where there is too little; None if there is enough.

    Growing compiles anew, so buckets that are nearly full grow with those that are.
    """
    found = dict(layout.levels)
    for level in LEVELS:
        own, move = layout.levels[level], wanted[level]
        if bool((move.bucket == len(own.widths)).any()):
            found[level] = own.widened(int(run_lengths(book)[level][move.index].max()))
            continue
        for bucket, rows in own.lacks(move.shard, move.bucket).items():
            found[level] = found[level].grown(bucket, rows)
    if all(found[level] is layout.levels[level] for level in LEVELS):
        return None
    return Layout({level: own.relieved() for level, own in found.items()})


def settle(layout: Layout, wanted: dict[str, Move], held: Held) -> Homes:
    """Takes the free rows that are needed, and then gives back those that have been left."""
    found: dict[str, Where] = {}
    for level in LEVELS:
        move = wanted[level]
        rows = np.where(move.stays, move.before.row, EMPTY)
        rows[move.index] = layout.levels[level].take(move.shard, move.bucket)
        found[level] = Where(move.before.shard, rows)
    for level, old in zip(LEVELS, (held.rows, held.cash, held.accounts, held.balances), strict=True):
        own, now = layout.levels[level], found[level]
        size = int(own.ends[-1])
        kept = np.sort(now.shard * size + now.row)
        is_left = (old.row > _nowhere(level)) & ~is_among(old.shard * size + old.row, kept)
        own.release(Where(old.shard[is_left], old.row[is_left]))
    return Homes(**found)
