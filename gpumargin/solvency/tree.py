"""The whole tree of a commitment, level by level: the rule of `proof`, for a million accounts in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from gpumargin.errors import InternalError
from gpumargin.pack.columns import Ints
from gpumargin.solvency.proof import STANDARD, Node, Step, padding

Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Words = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
_DIGEST = sha256().digest_size
_ROWS = 1 << 15  # rows hashed together: what is built for them stays in the cache


@dataclass(frozen=True)
class Level:
    """Nodes of one height, from left to right.

    Attributes:
      digests: `[n, 32]`.
      high: `[n, k]` upper 64 bits of the sums.
      low: `[n, k]` lower 64 bits.
    """

    digests: Bytes
    high: Words
    low: Words

    def __len__(self) -> int:
        return len(self.digests)

    def node(self, index: int) -> Node:
        """One of them."""
        pairs = zip(self.high[index].tolist(), self.low[index].tolist(), strict=True)
        return Node(self.digests[index].tobytes(), tuple((high << 64) + low for high, low in pairs))

    def above(self) -> Level:
        """The level above; this one has an even number of nodes."""
        low = self.low[0::2] + self.low[1::2]
        carry = (low < self.low[0::2]).astype(np.uint64)
        high = self.high[0::2] + self.high[1::2] + carry
        own = np.concatenate([self.digests, _amounts(self.high, self.low)], axis=1)
        return Level(_hashed(STANDARD.node, own.reshape(len(self) // 2, -1)), high, low)


def _amounts(high: Words, low: Words) -> Bytes:
    """16 bytes per amount, big-endian, `[n, 16 k]`."""
    both = np.stack([high, low], axis=2).astype(">u8")
    return both.view(np.uint8).reshape(len(high), 16 * high.shape[1])


def _hashed(prefix: bytes, rows: Bytes) -> Bytes:
    """SHA-256 of every row behind a prefix, `[n, 32]`."""
    start, width = sha256(prefix), rows.shape[1]
    pieces = []
    for first in range(0, len(rows), _ROWS):
        data = rows[first : first + _ROWS].tobytes()
        for place in range(0, len(data), width):
            running = start.copy()
            running.update(data[place : place + width])
            pieces.append(running.digest())
    return np.frombuffer(b"".join(pieces), np.uint8).reshape(len(rows), _DIGEST)


def leaf_digests(hidden: Bytes, amounts: Ints) -> Bytes:
    """Hashes of leaves, `[n, 32]`.

    Args:
      hidden: `[n, 32]` blinded ids.
      amounts: `[n, k]` whole minor units.

    Raises:
      InternalError: an amount is negative; nothing may be committed to it.
    """
    if amounts.size and int(amounts.min()) < 0:
        row, column = np.unravel_index(int(np.argmin(amounts)), amounts.shape)
        message = f"GM202: amount {amounts.min()} of leaf {row}, column {column} is negative; nothing was committed"
        raise InternalError(message)
    low = amounts.astype(np.uint64)
    return _hashed(STANDARD.leaf, np.concatenate([hidden, _amounts(np.zeros_like(low), low)], axis=1))


@dataclass(frozen=True)
class SumTree:
    """A tree over accounts.

    Attributes:
      levels: leaves with padding first, the root last.
      leaves: accounts among the leaves.
    """

    levels: tuple[Level, ...]
    leaves: int

    @staticmethod
    def of(digests: Bytes, amounts: Ints) -> SumTree:
        """The tree above leaves in the order given.

        Args:
          digests: `[n, 32]` from `leaf_digests`.
          amounts: `[n, k]` whole minor units, none negative.
        """
        columns, leaves = amounts.shape[1], len(digests)
        missing = (1 << max(leaves - 1, 0).bit_length()) - leaves
        filler = np.frombuffer(padding(columns).digest, np.uint8)
        low = np.concatenate([amounts.astype(np.uint64), np.zeros((missing, columns), np.uint64)])
        levels = [Level(np.concatenate([digests, np.tile(filler, (missing, 1))]), np.zeros_like(low), low)]
        while len(levels[-1]) > 1:
            levels.append(levels[-1].above())
        return SumTree(tuple(levels), leaves)

    @property
    def root(self) -> Node:
        """Hash and sums of everything."""
        return self.levels[-1].node(0)

    def path(self, index: int) -> list[Step]:
        """The way from a leaf to the root."""
        return [
            Step(level.node((index >> height) ^ 1), bool(index >> height & 1))
            for height, level in enumerate(self.levels[:-1])
        ]
