"""Contracts with the forwards and vols that were filled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from gpumargin.pack.columns import Floats, positions_in
from gpumargin.pack.contracts import ContractSet


@dataclass(frozen=True)
class FilledOptions:
    """Options of which something was filled, `[N]`."""

    ids: pa.Array  # instrument id as text
    forward: Floats  # quote currency; NaN = not filled
    vol: Floats  # decimal per sqrt-year; NaN = not filled


def with_filled(contracts: ContractSet, filled: FilledOptions) -> ContractSet:
    """The contracts, where they lack a forward or a vol with what was filled; where nothing was, the same object."""
    place = positions_in(contracts.ids, filled.ids)
    rows = np.flatnonzero((place >= 0) & contracts.is_listed)
    if not len(rows):
        return contracts
    own = contracts.contracts
    return replace(
        contracts,
        contracts=own._replace(
            forward_variable=_where_missing(own.forward_variable, rows, filled.forward[place[rows]]),
            vol=_where_missing(own.vol, rows, filled.vol[place[rows]]),
        ),
    )


def _where_missing(column: np.ndarray, rows: np.ndarray, values: Floats) -> np.ndarray:
    changed = column.copy()
    changed[rows] = np.where(np.isnan(column[rows]), values, column[rows])
    return changed
