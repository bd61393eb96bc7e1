"""Functions of single rows applied one after the other, each to rows that lie in buckets of their own."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from gpumargin_kernels._buckets import in_row_order, take
from gpumargin_kernels.records import Buckets


class RowStep(NamedTuple):
    """One of several functions of the same rows.

    Attributes:
      name: of what it finds.
      function: makes `[R, ...]` of `shared`, then of what the steps before found of the rows, by name, of a bucket of
        rows and of a run-time zero; every row by itself. Products that are added to something are times zero + 1.
      shared: what rows look up.
      buckets: the rows.
      at: of each bucket, where its rows `[R_b]` stand in row order; empty where that is how they lie, or where there
        are no steps before.
    """

    name: str
    function: Callable[..., Any]
    shared: tuple[Any, ...]
    buckets: Buckets[Any]
    at: tuple[Array, ...] = ()


# Takes steps and a run-time zero; gives what the last finds, in row order. Others than `row_steps` must give its bits.
RowSteps = Callable[[tuple[RowStep, ...], Array], Any]


def row_steps(steps: tuple[RowStep, ...], zero: Array) -> Any:
    """Step by step, all rows of a bucket at once."""
    found: dict[str, Any] = {}
    for step in steps:
        before = [take(found, at) for at in step.at] or [found] * len(step.buckets.buckets)
        pairs = zip(before, step.buckets.buckets, strict=True)
        results = [step.function(*step.shared, own, bucket, zero) for own, bucket in pairs]
        found[step.name] = in_row_order(results, step.buckets.place)
    return found[steps[-1].name]
