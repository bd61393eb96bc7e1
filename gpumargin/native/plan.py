"""What a row loop is generated from: sums, what closes groups and finishes rows, and where numbers stand in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gpumargin.native.blocks import lanes, padded
from gpumargin.native.lowering import Traced, UnsupportedError
from gpumargin.native.machine import second_level_cache
from gpumargin_kernels.tally import QUANTITIES, Lane, RowPlan, group_totals, in_tally_order, lane_of, total_widths


@dataclass(frozen=True)
class Place:
    """Columns of the table; whole vectors of them are read, whatever stands behind."""

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
      total: columns of what closing adds up; 0 at unit level.
    """

    level: str
    words: tuple[tuple[str, Place], ...]
    terms: Place
    close: Traced | None
    total: int


@dataclass(frozen=True)
class Output:
    """One result: the type of its numbers, `float` or `int`, and its own shape behind the rows."""

    kind: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Columns."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Plan:
    """The whole loop, for numbers of `itemsize` bytes.

    Attributes:
      lanes: the sums.
      inputs: words that are inputs of legs, in the order of the loop's arguments.
      table_width: numbers in a contract's row of the table.
      looks_ahead: whether rows of the table are asked for before they are read.
      multipliers: of the words that are functions of the quantity, traced for one row.
      finish: traced for one row; inputs are the shared arrays, what each lane found, the unit and the run-time one.
      shared: shape and type of each shared array.
      outputs: of `finish`, in order.
    """

    itemsize: int
    lanes: tuple[LanePlan, ...]
    inputs: tuple[str, ...]
    table_width: int
    looks_ahead: bool
    multipliers: tuple[tuple[str, Traced], ...]
    finish: Traced
    shared: tuple[tuple[tuple[int, ...], str], ...]
    outputs: tuple[Output, ...]

    @property
    def written(self) -> tuple[Output, ...]:
        """The outputs that have any column."""
        return tuple(output for output in self.outputs if output.width)


def array_of(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """What JAX needs to know of an array that is not there yet."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def shapes_of(tree: Any) -> Any:
    """A record of arrays as JAX traces it."""
    return jax.tree.map(lambda x: array_of(jnp.shape(x), jnp.result_type(x)), tree)


def lanes_apart(plan: RowPlan) -> tuple[Lane, ...]:
    """One lane for all tallies that are only added up, which fills its registers, and one for each that closes groups.

    Closing a tally of its own lane reads whole vectors, and no columns of its neighbours.
    """
    plain = tuple(tally for tally in plan.tallies if tally.level == "unit")
    closing = (lane_of(tally.level, (tally,)) for tally in plan.tallies if tally.level != "unit")
    return (*([lane_of("unit", plain)] if plain else ()), *closing)


def _one_row(widths: dict[str, int] | int, dtype: np.dtype[Any]) -> Any:
    return jax.tree.map(lambda width: array_of((1, width), dtype), widths)


def _close(lane: Lane, dtype: np.dtype[Any]) -> Traced | None:
    if lane.level == "unit":
        return None
    sums = _one_row({word: block.shape[1] for word, block in lane.columns.items()}, dtype)

    def close(sums: dict[str, Array], terms: Array, one: Array) -> Array:
        return group_totals(lane, sums, terms, one)

    return jax.make_jaxpr(close)(sums, _one_row(lane.terms.shape[1], dtype), array_of((), dtype))


def _lane_plans(lanes: tuple[Lane, ...], dtype: np.dtype[Any]) -> tuple[tuple[LanePlan, ...], int]:
    """The lanes, and the width of the table that they read."""
    widths = [block.shape[1] for lane in lanes for block in (*lane.columns.values(), lane.terms)]
    places, table_width = _places(widths, dtype.itemsize)
    rest = iter(places)
    plans = []
    for lane in lanes:
        words = tuple((word, next(rest)) for word in lane.columns)
        total = 0 if lane.level == "unit" else sum(total_widths(lane))
        plans.append(LanePlan(lane.level, words, next(rest), _close(lane, dtype), total))
    return tuple(plans), table_width


def _places(widths: list[int], itemsize: int) -> tuple[list[Place], int]:
    """Places of blocks of columns in a row of the table, and its width.

    The widest come first, smaller ones behind or in what their vectors leave free. Vectors and rows begin at multiples
    of their size, so that no vector lies across two lines of the cache.
    """
    places, width = [Place(0, 0)] * len(widths), 0
    is_taken = [False] * sum(padded(w, itemsize) for w in widths)
    for number in sorted(range(len(widths)), key=lambda number: -padded(widths[number], itemsize)):
        own = widths[number]
        step = lanes(own, itemsize) if own else 1
        start = next(at for at in range(0, len(is_taken) + 1, step) if not any(is_taken[at : at + own]))
        is_taken[start : start + own] = [True] * own
        places[number] = Place(start, own)
        width = max(width, start + padded(own, itemsize))
    return places, padded(width, itemsize)


def _looks_ahead(table: int) -> bool:
    """Whether asking for rows ahead pays: where the table, of so many bytes, leaves a core's own cache no room.

    Half of that cache is for what streams by; where its size is unknown every table counts as too large.
    """
    return table > second_level_cache() // 2


def _finish(plan: RowPlan, lanes: tuple[Lane, ...], planned: tuple[LanePlan, ...], dtype: np.dtype[Any]) -> Any:
    """`finish` traced for one row, and the results' shapes."""
    found = [
        _one_row({word: p.width for word, p in own.words} if own.close is None else own.total, dtype) for own in planned
    ]

    def finish(shared: Any, found: Any, unit: Array, one: Array) -> Any:
        return plan.finish(shared, in_tally_order(plan.tallies, lanes, found), unit, one)

    unit, one = array_of((1,), np.int32), array_of((), dtype)
    return jax.make_jaxpr(finish, return_shape=True)(shapes_of(plan.shared), found, unit, one)


def _outputs(shapes: Any) -> tuple[Output, ...]:
    outputs = []
    for leaf in jax.tree.leaves(shapes):
        if leaf.ndim > 2:
            message = f"a result of {leaf.ndim - 1} directions per row"
            raise UnsupportedError(message)
        kind = "float" if np.issubdtype(leaf.dtype, np.floating) else "int"
        if kind == "int" and leaf.dtype != np.int32:
            message = f"a result of type {leaf.dtype}"
            raise UnsupportedError(message)
        outputs.append(Output(kind, leaf.shape[1:]))
    return tuple(outputs)


def plan_of(plan: RowPlan, dtype: np.dtype[Any]) -> tuple[Plan, Any]:
    """The plan of a loop over rows, and the shapes of the results of one row.

    Raises:
      UnsupportedError: a result is of a type or a shape that the loop does not write.
    """
    lanes = lanes_apart(plan)
    planned, table_width = _lane_plans(lanes, dtype)
    finish, shapes = _finish(plan, lanes, planned, dtype)
    used = sorted({word for lane in planned for word, _ in lane.words})
    quantity = array_of((1,), dtype)
    return Plan(
        itemsize=dtype.itemsize,
        lanes=planned,
        inputs=tuple(word for word in used if word not in QUANTITIES),
        table_width=table_width,
        looks_ahead=_looks_ahead(jnp.shape(plan.contracts.expiry_group)[0] * table_width * dtype.itemsize),
        multipliers=tuple((word, jax.make_jaxpr(QUANTITIES[word])(quantity)) for word in used if word in QUANTITIES),
        finish=finish,
        shared=tuple((jnp.shape(x), str(jnp.result_type(x))) for x in jax.tree.leaves(plan.shared)),
        outputs=_outputs(shapes),
    ), shapes


def _blocks(lanes: tuple[Lane, ...], planned: tuple[LanePlan, ...]) -> Iterator[tuple[Array, Place]]:
    for lane, own in zip(lanes, planned, strict=True):
        yield from ((lane.columns[word], place) for word, place in own.words)
        yield lane.terms, own.terms


def table_of(plan: RowPlan, made: Plan) -> Array:
    """Everything that the loop reads of a contract in one row, `[M, table_width]`."""
    lanes = lanes_apart(plan)
    filled = sorted(((p, block) for block, p in _blocks(lanes, made.lanes) if p.width), key=lambda pair: pair[0].start)
    ends = [place.start for place, _ in filled[1:]] + [made.table_width]
    return jnp.concatenate(
        [
            jnp.pad(block, ((0, 0), (0, end - place.start - place.width)))
            for (place, block), end in zip(filled, ends, strict=True)
        ],
        axis=1,
    )
