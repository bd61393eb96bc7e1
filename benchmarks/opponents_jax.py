"""The leg stage as JAX is most often written: gather, multiply, `segment_sum`, on one device; plain sums only."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.workload import Floats, Legs

# Gathered rows are written out before they are summed: 8 S bytes per leg. Accounts are taken in equal parts of about
# so many legs, 0.8 GB of them with 33 scenarios in float64, so that all of it stays below 6 GB.
PART_LEGS = 3_000_000


@partial(jax.jit, static_argnames="accounts")
def _worst(owner: jax.Array, contract: jax.Array, quantity: jax.Array, table: jax.Array, accounts: int) -> jax.Array:
    products = quantity[:, None] * table[contract]
    sums = jax.ops.segment_sum(products, owner, num_segments=accounts, indices_are_sorted=True)
    return sums.min(axis=1)


def _parts(legs: Legs, table: jax.Array) -> list[tuple[jax.Array, jax.Array, jax.Array, jax.Array, int]]:
    """Whole accounts in parts of equal shape, so that one program serves all; what fills a part has quantity 0."""
    accounts = len(legs.indptr) - 1
    count = max(1, -(-len(legs.contract) // PART_LEGS))
    each = -(-accounts // count)
    cuts = np.minimum(np.arange(0, accounts + each, each), accounts)
    most = int(np.diff(legs.indptr[cuts]).max())
    made = []
    for first, last in pairwise(cuts):
        start, stop = legs.indptr[first], legs.indptr[last]
        missing = most - (stop - start)
        owner = np.repeat(np.arange(last - first), np.diff(legs.indptr[first : last + 1]))
        columns = (
            np.concatenate([owner, np.full(missing, each - 1)]).astype(np.int32),
            np.concatenate([legs.contract[start:stop], np.zeros(missing, np.int32)]),
            np.concatenate([legs.quantity[start:stop], np.zeros(missing, legs.quantity.dtype)]),
        )
        made.append((*map(jnp.asarray, columns), table, each))
    return made


def worst_pnl_segment_sum(legs: Legs) -> Callable[[], Floats]:
    """Worst scenario P&L of each account, as `opponents.worst_pnl_numba`; arrays are placed before it is called.

    float64 needs JAX's 64-bit mode, here and in every call.
    """
    parts = _parts(legs, jnp.asarray(legs.table))
    accounts = len(legs.indptr) - 1

    def run() -> Floats:
        found = [np.asarray(_worst(*part)) for part in parts]
        return np.concatenate(found)[:accounts]

    return run
