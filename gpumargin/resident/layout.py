"""Where the rows of a resident book lie: buckets by width, laid end to end in every shard, with spare rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gpumargin.pack.buckets import MIN_WIDTH, ROW_STEP, bucket_widths
from gpumargin.pack.columns import Ints

LEVELS = ("legs", "cash_legs", "unit_slots", "balances")
EMPTY = 0  # cash row of a unit row without cash legs, balance row of an account without balances: all share it
SHARING = ("cash_legs", "balances")
_SPARE = 1 / 64
_GROWTH = 1 / 8


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
    def of(lengths: list[Ints], *, shares: bool) -> Level:
        """Room for the runs of every shard, given by their lengths, and a few more; row 0 shared where `shares`."""
        held = [bucket_widths(own) for own in lengths]
        widths = np.unique(np.concatenate([[MIN_WIDTH], *held])).astype(np.int64)
        most = np.array([max(int((own == width).sum()) for own in held) for width in widths])
        rows = np.array([rounded_rows(int(n * (1 + _SPARE)) + ROW_STEP // 2) for n in most])
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
        return np.asarray(np.searchsorted(self.widths, bucket_widths(lengths)))

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

    def widened(self, width: int) -> Level:
        """The same with one more bucket, wider than all others."""
        free = [[*own, np.arange(ROW_STEP, dtype=np.int32)[::-1]] for own in self.free]
        return Level(np.append(self.widths, width), np.append(self.rows, ROW_STEP), free)

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
        return Layout({name: Level.of(lengths[name], shares=name in SHARING) for name in LEVELS})
