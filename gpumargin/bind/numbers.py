"""Tables of numbers by name as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gpumargin.modelfile import DEFAULT
from gpumargin.pack.columns import Floats


def by_name(numbers: Mapping[str, float], names: Sequence[str]) -> Floats:
    """A table of numbers as an array over `names`, the default where a name is not listed."""
    return np.array([numbers.get(name, numbers[DEFAULT]) for name in names], dtype=np.float64)


def brackets_by_name(tables: Mapping[str, Sequence[tuple[float, float]]], names: Sequence[str]) -> Floats:
    """Bracket tables over `names` `[N, T, 2]`, shorter ones with their last row repeated: brackets of no width."""
    rows = [tables.get(name, tables[DEFAULT]) for name in names]
    longest = max(map(len, tables.values()))
    return np.array([[*row, *[row[-1]] * (longest - len(row))] for row in rows], np.float64).reshape(-1, longest, 2)
