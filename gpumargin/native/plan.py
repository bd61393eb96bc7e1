"""What a leg loop is generated from: levels, words and widths of the sums, and where they stand in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gpumargin.native.blocks import padded
from gpumargin.native.lowering import Traced
from gpumargin_kernels.tally import QUANTITIES, Lane, group_totals, total_widths


@dataclass(frozen=True)
class Place:
    """Columns of the table, padded to whole vectors behind, or of the results."""

    start: int
    width: int


@dataclass(frozen=True)
class LanePlan:
    """One lane of the loop.

    Attributes:
      level: whose end closes its sums.
      words: what of a leg multiplies which columns of the table, in the order of `Lane.columns`.
      terms: columns of the table that closing reads.
      close: traced for one row; inputs are the sums by word, the terms and the run-time one. None at unit level.
      results: columns of the results: the sums by word at unit level, else the total of what closing gave.
    """

    level: str
    words: tuple[tuple[str, Place], ...]
    terms: Place
    close: Traced | None
    results: tuple[Place, ...]


@dataclass(frozen=True)
class Plan:
    """The whole loop, for numbers of `itemsize` bytes.

    Attributes:
      lanes: in the order of the results.
      inputs: words that are inputs of legs, in the order of the loop's arguments.
      table_width: numbers in a contract's row of the table.
      result_width: columns of the results.
      multipliers: of the words that are functions of the quantity, traced for one row.
    """

    itemsize: int
    lanes: tuple[LanePlan, ...]
    inputs: tuple[str, ...]
    table_width: int
    result_width: int
    multipliers: tuple[tuple[str, Traced], ...]


class _Layout:
    """Hands out columns one after the other, of the table in whole vectors."""

    def __init__(self, itemsize: int | None = None) -> None:
        self.width = 0
        self._itemsize = itemsize

    def place(self, width: int) -> Place:
        """The next `width` columns."""
        start = self.width
        self.width += width if self._itemsize is None or not width else padded(width, self._itemsize)
        return Place(start, width)


def array_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> jax.ShapeDtypeStruct:
    """What JAX needs to know of an array that is not there yet."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def _close(lane: Lane, dtype: np.dtype[Any]) -> Traced | None:
    if lane.level == "unit":
        return None
    sums = {word: array_of((1, block.shape[1]), dtype) for word, block in lane.columns.items()}
    one = array_of((), dtype)
    return jax.make_jaxpr(lambda s, terms, unity: group_totals(lane, s, terms, unity))(
        sums, array_of((1, lane.terms.shape[1]), dtype), one
    )


def plan_of(lanes: tuple[Lane, ...], dtype: np.dtype[Any]) -> Plan:
    """The plan of a loop over the legs of rows that fills the lanes."""
    table, results = _Layout(dtype.itemsize), _Layout()
    plans = []
    for lane in lanes:
        words = tuple((word, table.place(block.shape[1])) for word, block in lane.columns.items())
        terms = table.place(lane.terms.shape[1])
        widths = [p.width for _, p in words] if lane.level == "unit" else [sum(total_widths(lane))]
        plans.append(LanePlan(lane.level, words, terms, _close(lane, dtype), tuple(map(results.place, widths))))
    words_used = sorted({word for lane in plans for word, _ in lane.words})
    quantity = array_of((1,), dtype)
    return Plan(
        itemsize=dtype.itemsize,
        lanes=tuple(plans),
        inputs=tuple(word for word in words_used if word not in QUANTITIES),
        table_width=table.width,
        result_width=results.width,
        multipliers=tuple((w, jax.make_jaxpr(QUANTITIES[w])(quantity)) for w in words_used if w in QUANTITIES),
    )


def _blocks(lanes: tuple[Lane, ...], plan: Plan) -> Iterator[tuple[Array, Place]]:
    for lane, planned in zip(lanes, plan.lanes, strict=True):
        yield from ((lane.columns[word], place) for word, place in planned.words)
        yield lane.terms, planned.terms


def table_of(lanes: tuple[Lane, ...], plan: Plan) -> Array:
    """Everything that the loop reads of a contract in one row, `[M, table_width]`."""
    filled = [(block, place) for block, place in _blocks(lanes, plan) if place.width]
    return jnp.concatenate(
        [jnp.pad(block, ((0, 0), (0, padded(place.width, plan.itemsize) - place.width))) for block, place in filled],
        axis=1,
    )
