"""Sets of whole numbers by sorting: numpy's own hash them, which on keys of this form is a hundred times slower."""

from __future__ import annotations

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
