"""Prices of options as padded arrays: pairs of calls and puts by expiry, and options and quotes in rounded numbers.

Sizes are rounded up to powers of two, and small ones more: books of similar size share a compiled program, and what
padding costs is nothing beside a compilation.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from gpumargin.pack.columns import Bools, Floats, Ints
from gpumargin_kernels.own_vol import CallPutPairs
from gpumargin_kernels.vol_fill import SurfaceQuotes

Record = TypeVar("Record", bound=tuple[Any, ...])
FEWEST_SURFACES, FEWEST_EXPIRIES, FEWEST_STRIKES, FEWEST_OPTIONS = 2, 8, 16, 64


def room_for(count: int, fewest: int) -> int:
    """The next power of two, at least `fewest`, itself one."""
    return max(fewest, 1 << max(count - 1, 0).bit_length())


def call_put_pairs(expiry: Ints, strike: Floats, difference: Floats, *, is_inverse: Bools) -> CallPutPairs:
    """Pairs by expiry and slot, padding with weight 0.

    Args:
      expiry: `[P]`, ascending, 0 to E - 1: which expiry a pair belongs to.
      strike: `[P]`, quote currency.
      difference: `[P]`, price of the call less that of the put.
      is_inverse: `[E]`.
    """
    slot = np.arange(len(expiry)) - np.searchsorted(expiry, expiry)
    slots = int(slot.max(initial=-1)) + 1
    shape = (room_for(len(is_inverse), FEWEST_EXPIRIES), room_for(slots, FEWEST_STRIKES))
    pairs = CallPutPairs(np.ones(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape[0], bool))
    pairs.strike[expiry, slot], pairs.difference[expiry, slot], pairs.weight[expiry, slot] = strike, difference, 1.0
    pairs.is_inverse[: len(is_inverse)] = is_inverse
    return pairs


def with_room(record: Record) -> Record:
    """A record of `[N]` arrays, N at least 1, lengthened by copies of its last row."""

    def longer(column: Any) -> Any:
        if isinstance(column, tuple):
            return with_room(column)
        return np.pad(column, (0, room_for(len(column), FEWEST_OPTIONS) - len(column)), mode="edge")

    return type(record)(*map(longer, record))


def quotes_with_room(quotes: SurfaceQuotes) -> SurfaceQuotes:
    """Quotes with more padding at the end of every axis."""
    fewest = (FEWEST_SURFACES, FEWEST_EXPIRIES, FEWEST_STRIKES)

    def wider(column: np.ndarray) -> np.ndarray:
        room = [(0, room_for(size, few) - size) for size, few in zip(column.shape, fewest, strict=False)]
        return np.pad(column, room, constant_values=np.inf)

    return SurfaceQuotes(*map(wider, quotes))
