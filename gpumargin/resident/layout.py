"""Where the rows of a resident book lie: buckets by width, laid end to end in every shard, with spare rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gpumargin.pack.buckets import MIN_WIDTH, ROW_STEP, bucket_widths, shape_of
from gpumargin.pack.columns import Ints

LEVELS = ("legs", "cash_legs", "unit_slots", "balances")
EMPTY = 0  # cash row of a unit row without cash legs, balance row of an account without balances: all share it
SHARING = ("cash_legs", "balances")
_SPARE = 1 / 16
_GROWTH = 1 / 4
_WIDTH_STEP = 8
_MOST_WIDTHS = 8


class Where(NamedTuple):
    """Rows of one level: the shard that each lies in, and its number there."""

    shard: Ints  # [rows]
    row: Ints  # [rows] among the buckets laid end to end


class Piece(NamedTuple):
    """Those of some rows that lie in one bucket of one shard."""

    shard: int
    bucket: int
    rows: Ints  # [n] which of the rows asked for
    local: Ints  # [n] where they lie in the bucket


def rounded_rows(rows: int) -> int:
    """Rows of a bucket that chunks of rows divide."""
    return max(ROW_STEP, -(-rows // ROW_STEP) * ROW_STEP)


def pieces(shard: Ints, bucket: Ints, buckets: int) -> Iterator[tuple[int, int, Ints]]:
    """Rows by shard and bucket: these two and the indices of the rows, ascending."""
    if not len(shard):
        return
    key = (shard * buckets + bucket).astype(np.int16 if shard.max() < 1 << 9 else np.int64)
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    heads = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    for begin, end in zip(heads, np.append(heads[1:], len(key)), strict=True):
        yield *divmod(int(ordered[begin]), buckets), order[begin:end]


def _tight_widths(lengths: Ints) -> Ints:
    """At most `_MOST_WIDTHS` widths that pad runs of these lengths least: 2, 4 and multiples of `_WIDTH_STEP`.

    A step of the leg stage takes several slots, so that a width must be a multiple of them.
    """
    longest = max(int(lengths.max(initial=1)), MIN_WIDTH)
    steps = np.arange(1, -(-longest // _WIDTH_STEP) + 1) * _WIDTH_STEP
    widths = np.concatenate([[MIN_WIDTH, 2 * MIN_WIDTH], steps])
    held = np.cumsum(np.bincount(np.searchsorted(widths, lengths), minlength=len(widths)))
    slots = held * widths  # by the last width so far, all runs in it
    chosen: list[list[int]] = [[i] for i in range(len(widths))]
    for _ in range(_MOST_WIDTHS - 1):
        # best with one width more: all up to j as before, those from there to i in width i
        cost = slots[None, :] + (held[:, None] - held[None, :]) * widths[:, None]
        cost = np.where(np.arange(len(widths))[None, :] < np.arange(len(widths))[:, None], cost, slots[:, None])
        best = np.argmin(cost, axis=1)
        chosen = [[*chosen[j], i] if cost[i, j] < slots[i] else chosen[i] for i, j in enumerate(best.tolist())]
        slots = np.minimum(slots, cost[np.arange(len(widths)), best])
    return np.union1d(widths[chosen[-1]], [MIN_WIDTH])


@dataclass
class Level:
    """Buckets of one level.

    Attributes:
      widths: slots of a row in each bucket, ascending.
      rows: rows of each bucket in every shard.
      free: by shard and bucket, rows that hold nothing, counted within the bucket.
    """

    widths: Ints
    rows: Ints
    free: list[list[np.ndarray]] = field(default_factory=list)

    @staticmethod
    def of(lengths: list[Ints], *, shares: bool, is_tight: bool) -> Level:
        """Room for the runs of every shard, given by their lengths, and a few more.

        Args:
          lengths: by shard.
          shares: whether row 0 is shared by all that hold nothing.
          is_tight: whether widths are chosen for the least padding, else powers of two.
        """
        every = np.concatenate(lengths)
        widths = _tight_widths(every) if is_tight else np.unique(np.append(bucket_widths(every), MIN_WIDTH))
        held = [np.bincount(np.searchsorted(widths, own), minlength=len(widths)) for own in lengths]
        shape = shape_of(widths, np.array(held), lambda n: rounded_rows(int(n * (1 + _SPARE)) + ROW_STEP // 2))
        widths, rows = np.array(shape).T
        free = [[np.arange(n, dtype=np.int32)[::-1] for n in rows] for _ in lengths]
        if shares:
            for own in free:
                own[0] = own[0][:-1]
        return Level(widths, rows, free)

    @property
    def ends(self) -> Ints:
        """Where each bucket ends."""
        return np.asarray(np.cumsum(self.rows))

    def bucket_of(self, row: Ints) -> Ints:
        """Bucket that each row lies in."""
        return np.asarray(np.searchsorted(self.ends, row, side="right"))

    def fitting(self, lengths: Ints) -> Ints:
        """Narrowest bucket that holds each run; the number of buckets where none does."""
        return np.asarray(np.searchsorted(self.widths, lengths))

    def pieces(self, where: Where) -> Iterator[Piece]:
        """Rows by the bucket and shard that they lie in."""
        starts = self.ends - self.rows
        for shard, bucket, index in pieces(where.shard, self.bucket_of(where.row), len(self.rows)):
            yield Piece(shard, bucket, index, where.row[index] - starts[bucket])

    def lacks(self, shard: Ints, bucket: Ints) -> dict[int, int]:
        """Buckets that have too few free rows, and how many rows each then needs."""
        found: dict[int, int] = {}
        for s, b, index in pieces(shard, bucket, len(self.rows)):
            missing = len(index) - len(self.free[s][b])
            if missing > 0:
                found[b] = max(found.get(b, 0), int(self.rows[b]) + missing)
        return found

    def take(self, shard: Ints, bucket: Ints) -> Ints:
        """Free rows, one for each shard and bucket asked for, which from now on are in use."""
        starts, found = self.ends - self.rows, np.zeros(len(shard), np.int64)
        for s, b, index in pieces(shard, bucket, len(self.rows)):
            free = self.free[s][b]
            found[index] = starts[b] + free[len(free) - len(index) :][::-1]
            self.free[s][b] = free[: len(free) - len(index)]
        return found

    def release(self, where: Where) -> None:
        """Takes rows back."""
        for piece in self.pieces(where):
            own = self.free[piece.shard]
            own[piece.bucket] = np.concatenate([own[piece.bucket], piece.local.astype(np.int32)])

    def grown(self, bucket: int, rows: int) -> Level:
        """The same with more rows in one bucket."""
        more = self.rows.copy()
        more[bucket] = rounded_rows(max(rows, int(self.rows[bucket] * (1 + _GROWTH))))
        new = np.arange(self.rows[bucket], more[bucket], dtype=np.int32)[::-1]
        free = [[np.concatenate([new, f]) if b == bucket else f for b, f in enumerate(own)] for own in self.free]
        return Level(self.widths, more, free)

    def widened(self, length: int) -> Level:
        """The same with one more bucket, wider than all others, that holds a run of the length."""
        width = int(bucket_widths(np.array([max(length, int(self.widths[-1]) + 1)]))[0])
        free = [[*own, np.arange(ROW_STEP, dtype=np.int32)[::-1]] for own in self.free]
        return Level(np.append(self.widths, width), np.append(self.rows, ROW_STEP), free)

    def relieved(self) -> Level:
        """The same with more rows in every bucket of which some shard has less than half its spare ones free."""
        found = self
        for bucket, rows in enumerate(self.rows.tolist()):
            if min(len(own[bucket]) for own in self.free) < rows * _SPARE / 2:
                found = found.grown(bucket, rows)
        return found

    def moved(self, other: Level) -> Ints:
        """Number in `other`, which has grown from this one, of every row."""
        shift = (other.ends - other.rows)[: len(self.rows)] - (self.ends - self.rows)
        return np.asarray(np.arange(int(self.ends[-1])) + np.repeat(shift, self.rows))


@dataclass
class Layout:
    """All levels, and how groups of arrays are numbered: the buckets of every level, then unit rows, then accounts."""

    levels: dict[str, Level]

    def group(self, level: str, bucket: int = 0) -> int:
        """Number of a bucket's group; `rows` and `accounts` have one each."""
        if level in ("rows", "accounts"):
            return sum(len(own.rows) for own in self.levels.values()) + (level == "accounts")
        before = LEVELS[: LEVELS.index(level)]
        return sum(len(self.levels[name].rows) for name in before) + bucket

    def buckets(self, level: str) -> int:
        """Groups of a level."""
        return len(self.levels[level].rows) if level in self.levels else 1

    @property
    def unit_rows(self) -> int:
        """Unit rows of a shard, spare ones included."""
        return int(self.levels["legs"].rows.sum())

    @property
    def accounts(self) -> int:
        """Accounts of a shard, spare ones included."""
        return int(self.levels["unit_slots"].rows.sum())

    @staticmethod
    def of(lengths: dict[str, list[Ints]]) -> Layout:
        """Room for the runs of every level and shard."""
        return Layout(
            {name: Level.of(lengths[name], shares=name in SHARING, is_tight=name == "legs") for name in LEVELS}
        )
