"""Sets of whole numbers by sorting: numpy's own hash them, which on keys of this form is a hundred times slower."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpumargin.pack.columns import Bools, Ints


def distinct(values: Ints) -> Ints:
    """The values, ascending, each once."""
    ordered = np.sort(values)
    return np.asarray(ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]])


def is_among(values: Ints, known: Ints) -> Bools:
    """Which values stand among `known`, which ascend."""
    return places_among(values, known)[1]


def places_among(values: Ints, known: Ints) -> tuple[Ints, Bools]:
    """Where each value stands among `known`, which ascend, and whether it does; where it does not, any place."""
    if not len(known):
        return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return place, np.asarray(known[place] == values)


def turns(keys: Ints) -> Iterator[Ints]:
    """Indices in turns: in each no key twice, and those of one key in their order."""
    if keys.max(initial=0) < 2 * len(keys) and np.bincount(keys).max() == 1:  # as a rule; found at a tenth of the time
        yield np.arange(len(keys))
        return
    order = np.argsort(keys.astype(np.int16) if keys.max(initial=0) < 1 << 15 else keys, kind="stable")
    place, ordered = np.arange(len(keys)), keys[order]
    first = np.append(True, ordered[1:] != ordered[:-1])[: len(keys)]
    rank = np.empty(len(keys), np.int64)  # how many earlier ones there are of the same key
    rank[order] = place - np.maximum.accumulate(np.where(first, place, 0))
    for turn in range(int(rank.max(initial=-1)) + 1):
        yield np.flatnonzero(rank == turn)
