"""What a row loop is generated from: sums, what closes groups and finishes rows, and where numbers stand in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gpumargin.native.ahead import Cut, When, cut
from gpumargin.native.blocks import lanes, padded
from gpumargin.native.lowering import UnsupportedError
from gpumargin.native.machine import second_level_cache
from gpumargin.native.traced import Traced
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
      terms: columns of the table that closing reads: what follows from terms alone.
      close: traced for one row, its sums by word known late; then the terms, and a run-time one. None at unit level.
      total: columns of what closing adds up; 0 at unit level.
    """

    level: str
    words: tuple[tuple[str, Place], ...]
    terms: tuple[Place, ...]
    close: Cut | None
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
      finish: traced for one row, what each lane found known late; before it the shared arrays, behind it the unit and a
        run-time one.
      units: columns of a unit's row of numbers that rows read: what follows from shared arrays alone.
      unit_width: numbers in a unit's row.
      unit_rows: units.
      outputs: of `finish`, in order.
    """

    itemsize: int
    lanes: tuple[LanePlan, ...]
    inputs: tuple[str, ...]
    table_width: int
    looks_ahead: bool
    multipliers: tuple[tuple[str, Traced], ...]
    finish: Cut
    units: tuple[Place, ...]
    unit_width: int
    unit_rows: int
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


def _close(lane: Lane, dtype: np.dtype[Any]) -> Cut | None:
    if lane.level == "unit":
        return None
    sums = _one_row({word: block.shape[1] for word, block in lane.columns.items()}, dtype)

    def close(sums: dict[str, Array], terms: Array, one: Array) -> Array:
        return group_totals(lane, sums, terms, one)

    traced = jax.make_jaxpr(close)(sums, _one_row(lane.terms.shape[1], dtype), array_of((), dtype))
    return cut(traced, [When.LATE] * len(sums) + [When.AHEAD, When.ALWAYS])


def _lane_plans(lanes: tuple[Lane, ...], dtype: np.dtype[Any]) -> tuple[tuple[LanePlan, ...], int]:
    """The lanes, and the width of the table that they read."""
    closes = [_close(lane, dtype) for lane in lanes]
    terms = [[] if close is None else close.widths for close in closes]
    columns = [[block.shape[1] for block in lane.columns.values()] for lane in lanes]
    widths = [width for pair in zip(columns, terms, strict=True) for own in pair for width in own]
    places, table_width = _places(widths, dtype.itemsize)
    rest = iter(places)
    plans = []
    for lane, close, own in zip(lanes, closes, terms, strict=True):
        words = tuple((word, next(rest)) for word in lane.columns)
        total = 0 if lane.level == "unit" else sum(total_widths(lane))
        plans.append(LanePlan(lane.level, words, tuple(next(rest) for _ in own), close, total))
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


def _finish(
    plan: RowPlan, lanes: tuple[Lane, ...], planned: tuple[LanePlan, ...], dtype: np.dtype[Any]
) -> tuple[Cut, Any]:
    """`finish` traced for one row, and the results' shapes."""
    found = [
        _one_row({word: p.width for word, p in own.words} if own.close is None else own.total, dtype) for own in planned
    ]

    def finish(shared: Any, found: Any, unit: Array, one: Array) -> Any:
        return plan.finish(shared, in_tally_order(plan.tallies, lanes, found), unit, one)

    unit, one = array_of((1,), np.int32), array_of((), dtype)
    traced, shapes = jax.make_jaxpr(finish, return_shape=True)(shapes_of(plan.shared), found, unit, one)
    when = [When.AHEAD] * len(jax.tree.leaves(plan.shared)) + [When.LATE] * len(jax.tree.leaves(found))
    return cut(traced, [*when, When.ALWAYS, When.ALWAYS]), shapes


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
    units, unit_width = _places(finish.widths, dtype.itemsize)
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
        units=tuple(units),
        unit_width=unit_width,
        unit_rows=plan.units,
        outputs=_outputs(shapes),
    ), shapes


def _by_row(function: Callable[..., list[Array]], rows: Array) -> list[Array]:
    """What a function makes of every row by itself, `[rows, K]` each."""
    return [found.reshape(found.shape[0], -1) for found in jax.vmap(function)(rows)]


def _blocks(lane: Lane, own: LanePlan, one: Array) -> Iterator[tuple[Array, Place]]:
    """What the loop reads of contracts for a lane, and where it stands in their rows."""
    yield from ((lane.columns[word], place) for word, place in own.words)
    if own.close is not None and own.terms:
        close = own.close.function()
        yield from zip(_by_row(lambda terms: close(terms[None], one), lane.terms), own.terms, strict=True)


def _laid(blocks: Iterable[tuple[Array, Place]], width: int) -> Array:
    """Blocks of columns at their places in rows of so many numbers."""
    filled = sorted(((place, block) for block, place in blocks if place.width), key=lambda pair: pair[0].start)
    ends = [place.start for place, _ in filled[1:]] + [width]
    return jnp.concatenate(
        [
            jnp.pad(block, ((0, 0), (0, end - place.start - place.width)))
            for (place, block), end in zip(filled, ends, strict=True)
        ],
        axis=1,
    )


def table_of(plan: RowPlan, made: Plan, one: Array) -> Array:
    """Everything that the loop reads of a contract in one row, `[M, table_width]`; `one` at run time."""
    lanes = zip(lanes_apart(plan), made.lanes, strict=True)
    return _laid([pair for lane, own in lanes for pair in _blocks(lane, own, one)], made.table_width)


def units_of(plan: RowPlan, made: Plan, one: Array) -> Array:
    """Everything that rows read of their unit in one row, `[U, unit_width]`; `one` at run time."""
    if not made.unit_width:
        return one[None]  # unread: jaxlib 0.11 crashes on empty operands of a sharded call
    shared, finish = jax.tree.leaves(plan.shared), made.finish.function()
    units = jnp.arange(made.unit_rows, dtype=jnp.int32)
    found = _by_row(lambda unit: finish(*shared, unit[None], one), units)
    return _laid(zip(found, made.units, strict=True), made.unit_width)
