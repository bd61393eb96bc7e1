"""Plumbing of padded buckets: rows of records, chunks of rows, and the way back into row order."""

import math
from collections.abc import Callable
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
from jax import Array, lax

Record = TypeVar("Record")
Result = TypeVar("Result")


def take(tree: Record, index: Array | slice) -> Record:
    """The rows `index` of every array of a record."""
    return cast("Record", jax.tree.map(lambda x: x[index], tree))


def barrier(tree: Record) -> Record:
    """The same record, behind which XLA may not fuse: what follows is compiled alike whatever came before.

    Without it a product that is also returned, or a loop that is inlined, is contracted into other fused
    multiply-adds, and the last bits change (measured: 12 to 22 % of accounts).
    """
    fenced = lax.optimization_barrier(tree)  # type: ignore[no-untyped-call]
    return cast("Record", fenced)


def repeat(count: int, step: Callable[[Array, Record], Record], start: Record) -> Record:
    """`step(index, state)` applied `count` times, in order."""
    return cast("Record", lax.fori_loop(0, count, step, start))


def in_chunks(function: Callable[[Record], Result], bucket: Record, chunk: int | None) -> Result:
    """`function` over chunks of rows, one after the other, so that a chunk's accumulators stay in the cache.

    `chunk` None runs all rows at once. Otherwise chunks have the most rows that divide both it and the bucket evenly.
    """
    rows = jax.tree.leaves(bucket)[0].shape[0]
    if chunk is None or rows <= chunk:
        return function(bucket)
    chunk = math.gcd(rows, chunk)
    blocks = jax.tree.map(lambda x: x.reshape(rows // chunk, chunk, *x.shape[1:]), bucket)
    results = lax.map(function, blocks)
    return cast("Result", jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), results))


def in_row_order(results: list[Result], place: Array | None) -> Result:
    """Results of all buckets laid end to end, put back into row order unless that is how the rows are numbered."""

    def joined(*parts: Array) -> Array:
        laid = jnp.concatenate(parts) if len(parts) > 1 else parts[0]
        return laid if place is None else laid[place]

    return cast("Result", jax.tree.map(joined, *results))
