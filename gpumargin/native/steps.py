"""Steps over rows as one loop, in place of `gpumargin_kernels.steps.row_steps` and with its bits.

XLA on a CPU goes through all rows once for every sum and slot, and what one step finds goes through memory to the next.
Here a row is read once, and only what the last step finds is written.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from llvmlite import ir

from gpumargin.native.blocks import Block, Registers, scalar
from gpumargin.native.compiler import registered
from gpumargin.native.control import LINE, LONG, POINTER, builder_of, fetch, grouped
from gpumargin.native.handler import Frame, add_handler
from gpumargin.native.instructions import BIT, bytes_of, within
from gpumargin.native.lowering import Memory, Target, UnsupportedError, element_type, lowered
from gpumargin.native.plan import array_of, shapes_of
from gpumargin.native.traced import Traced, inputs_of
from gpumargin_kernels.steps import RowStep, row_steps

_BYTE = ir.IntType(8)
# There are more streams to memory than the machine foresees: rows that are asked for by group, before they are read or
# written, and rows before what they look up is (half the time, measured).
_GROUP, _AHEAD, _SOON = 8, 64, 32
_LARGE = 1 << 16  # bytes of an array that looking up in waits for memory


class _Looked(NamedTuple):
    """An array that rows look up in, by its number among all arrays."""

    number: int


class _Own(NamedTuple):
    """An array of which each row has a row of its own, by its number among all arrays."""

    number: int


class _Found(NamedTuple):
    """What a step before found, by its number among all that they found."""

    number: int


_Input = _Looked | _Own | _Found | None  # None = it is not read, or holds nothing


class _Bucket(NamedTuple):
    """A step traced for one row of a bucket of so many."""

    rows: int
    traced: Traced
    inputs: tuple[_Input, ...]  # all but the run-time zero, which is the last

    def numbers(self, kind: type[_Looked | _Own]) -> list[int]:
        """Of its arrays of one kind."""
        return [own.number for own in self.inputs if isinstance(own, kind)]


class _Step(NamedTuple):
    """A step over its buckets; `place` is the number of the array that says where a row stands in them."""

    name: str
    place: int | None
    buckets: tuple[_Bucket, ...]


class _Plan:
    """What a loop is generated from.

    Attributes:
      arrays: all that it reads.
      steps: what it does.
      found: shapes of what each step finds of one row.
      itemsize: bytes of a floating number.
    """

    def __init__(self, steps: tuple[RowStep, ...], zero: Array) -> None:
        self.arrays: list[Array] = []
        self.found: dict[str, Any] = {}
        self.itemsize = zero.dtype.itemsize
        self.steps = tuple(self._planned(_with_arrays(step), zero) for step in steps)

    @property
    def results(self) -> list[Any]:
        """Shapes of what the last step finds of one row."""
        return jax.tree.leaves(self.found[self.steps[-1].name])

    def _planned(self, step: RowStep, zero: Array) -> _Step:
        place = None if step.buckets.place is None else self._number(step.buckets.place)
        one_row = [jax.tree.map(lambda x: array_of((1, *x.shape[1:]), x.dtype), rows) for rows in step.buckets.buckets]
        trace = jax.make_jaxpr(step.function, return_shape=True)
        made = [trace(*shapes_of(step.shared), self.found, rows, shapes_of(zero)) for rows in one_row]
        buckets = [
            self._bucket(step, rows, traced) for rows, (traced, _) in zip(step.buckets.buckets, made, strict=True)
        ]
        self.found = self.found | {step.name: made[-1][1]}
        return _Step(step.name, place, tuple(buckets))

    def _bucket(self, step: RowStep, rows: Any, traced: Traced) -> _Bucket:
        shared, found, own = (jax.tree.leaves(tree) for tree in (step.shared, self.found, rows))
        inputs: list[Any] = [partial(self._array, _Looked, x) for x in shared]
        inputs += [partial(_Found, number) for number in range(len(found))]
        inputs += [partial(self._array, _Own, x) for x in own]
        is_read = inputs_of(traced.jaxpr)[:-1]
        made = tuple(make() if used else None for make, used in zip(inputs, is_read, strict=True))
        return _Bucket(own[0].shape[0] if own else 0, traced, made)

    def _array(self, kind: type[_Looked | _Own], x: Any) -> _Input:
        return kind(self._number(x)) if jnp.size(x) else None

    def _number(self, x: Any) -> int:
        known = next((number for number, other in enumerate(self.arrays) if other is x), None)
        if known is None:
            known = len(self.arrays)
            self.arrays.append(x)
        return known


def _with_arrays(step: RowStep) -> RowStep:
    shared, buckets = jax.tree.map(jnp.asarray, (step.shared, step.buckets))
    return step._replace(shared=shared, buckets=buckets)


def _bytes_of(array: Array) -> int:
    return array.size * array.dtype.itemsize


def native_row_steps(steps: tuple[RowStep, ...], zero: Array) -> Any:
    """`row_steps`, compiled for this processor outside XLA; where any step has no translation, all go by XLA."""
    try:
        return _run(steps, zero)
    except UnsupportedError:
        return row_steps(steps, zero)


def _run(steps: tuple[RowStep, ...], zero: Array) -> Any:
    plan = _Plan(steps, zero)
    rows = _rows_of(steps)
    results = [array_of((rows, *x.shape[1:]), x.dtype) for x in plan.results]
    call = jax.ffi.ffi_call(_name(plan), [x for x in results if x.size])
    written = iter(call(*plan.arrays))
    found = [next(written) if x.size else jnp.zeros(x.shape, x.dtype) for x in results]
    return jax.tree.unflatten(jax.tree.structure(plan.found[steps[-1].name]), found)


def _rows_of(steps: tuple[RowStep, ...]) -> int:
    """Rows that the steps have in common."""
    first = steps[0].buckets
    if first.place is not None:
        return int(first.place.shape[0])
    return sum(int(jax.tree.leaves(bucket)[0].shape[0]) for bucket in first.buckets)


def _name(plan: _Plan) -> str:
    """Name under which XLA knows the loop of a plan."""
    module = ir.Module("steps")
    loop = _Loop(module, plan)
    add_handler(module, "handler", loop.call)
    return registered("steps", module)


class _Loop:
    """Writes the loop into a module: its arguments are the rows, then where each array and each result begins."""

    def __init__(self, module: ir.Module, plan: _Plan) -> None:
        self.plan = plan
        self.written = [x for x in plan.results if math.prod(x.shape)]
        pointers = len(plan.arrays) + len(self.written)
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), [LONG, *[POINTER] * pointers]), "loop")
        self.function.linkage = "internal"
        for argument in self.function.args[1:]:
            argument.add_attribute("noalias")
        self.builder = builder_of(self.function)
        rows, *self.pointers = self.function.args
        self.last = self.builder.sub(rows, ir.Constant(LONG, 1))
        grouped(self.builder, rows, _GROUP, self._fetch_group, self._row)
        self.builder.ret_void()

    def call(self, frame: Frame) -> None:
        """Writes the handler that calls it."""
        arguments, results = frame.arguments(len(self.plan.arrays)), frame.results(len(self.written))
        (rows,) = frame.shape(results[0], 1)
        frame.builder.call(self.function, [rows, *map(frame.data, (*arguments, *results))])

    def _row(self, row: ir.Value) -> None:
        self._fetch_looked_up(row)
        found: dict[str, Any] = {}
        for step in self.plan.steps:
            blocks = self._step(step, row, jax.tree.leaves(found))
            found[step.name] = jax.tree.unflatten(jax.tree.structure(self.plan.found[step.name]), blocks)
        results = [block for block in jax.tree.leaves(found[self.plan.steps[-1].name]) if block.width]
        for pointer, block in zip(self.pointers[len(self.plan.arrays) :], results, strict=True):
            self._store(pointer, row, block)

    def _step(self, step: _Step, row: ir.Value, found: list[Block]) -> list[Block]:
        """What a step finds of a row."""
        if step.place is not None:
            rows = sum(bucket.rows for bucket in step.buckets)
            row = within(self.builder, self._index(self._of_row(step.place, row, ())), rows)
        return self._of_buckets(step.buckets, row, found)

    def _of_buckets(self, buckets: tuple[_Bucket, ...], place: ir.Value, found: list[Block]) -> list[Block]:
        """What the bucket finds that the row stands in; `place` counts from the first of them."""
        first, *others = buckets
        if not others:
            return self._of_bucket(first, place, found)
        builder, rows = self.builder, ir.Constant(LONG, first.rows)
        with builder.if_else(builder.icmp_signed("<", place, rows)) as (here, behind):
            with here:
                own = self._of_bucket(first, place, found)
                kept = Registers(builder, own)
                kept.keep(own)
            with behind:
                kept.keep(self._of_buckets(tuple(others), builder.sub(place, rows), found))
        return kept.blocks()

    def _of_bucket(self, bucket: _Bucket, row: ir.Value, found: list[Block]) -> list[Block]:
        zero = Block(1, (ir.Constant(element_type(f"float{8 * self.plan.itemsize}"), 0.0),))
        values = [self._value(own, row, found) or zero for own in bucket.inputs]
        return lowered(bucket.traced, Target(self.builder, self.plan.itemsize), [*values, zero])

    def _value(self, own: _Input, row: ir.Value, found: list[Block]) -> Block | Memory | None:
        if own is None:
            return None
        if isinstance(own, _Found):
            return found[own.number]
        x = self.plan.arrays[own.number]
        if isinstance(own, _Looked):
            return Memory(self.pointers[own.number], jnp.shape(x), element_type(jnp.result_type(x)))
        return self._of_row(own.number, row, jnp.shape(x)[1:])

    def _of_row(self, number: int, row: ir.Value, shape: tuple[int, ...]) -> Memory:
        """A row of an array."""
        element = element_type(jnp.result_type(self.plan.arrays[number]))
        start = self.builder.mul(row, ir.Constant(LONG, math.prod(shape)))
        return Memory(self.builder.gep(self.pointers[number], [start], source_etype=element), (1, *shape), element)

    def _index(self, memory: Memory, slot: int = 0) -> ir.Value:
        """A whole number of a row."""
        pointer = self.builder.gep(memory.pointer, [ir.Constant(LONG, slot)], source_etype=memory.element)
        return self.builder.sext(self.builder.load(pointer, align=bytes_of(memory.element), typ=memory.element), LONG)

    def _store(self, result: ir.Value, row: ir.Value, block: Block) -> None:
        """A row's result, its columns side by side."""
        builder = self.builder
        start = builder.mul(row, ir.Constant(LONG, block.width))
        for column in range(block.width):
            value = scalar(builder, block, column)
            value = builder.zext(value, _BYTE) if value.type == BIT else value
            place = builder.gep(result, [builder.add(start, ir.Constant(LONG, column))], source_etype=value.type)
            builder.store(value, place, align=bytes_of(value.type))

    # What is asked of the memory before it is needed.

    def _later(self, row: ir.Value, by: int) -> ir.Value:
        """A row some way behind, or the last."""
        later = self.builder.add(row, ir.Constant(LONG, by))
        return self.builder.select(self.builder.icmp_unsigned("<", later, self.last), later, self.last)

    def _fetch_lines(self, pointer: ir.Value, row: ir.Value, array: Any, *, to_write: bool = False) -> None:
        """The lines of a group of rows of an array."""
        size = math.prod(array.shape[1:]) * array.dtype.itemsize
        start = self.builder.mul(row, ir.Constant(LONG, size))
        for line in range(0, _GROUP * size, LINE):
            place = self.builder.add(start, ir.Constant(LONG, line))
            fetch(self.builder, self.builder.gep(pointer, [place], source_etype=_BYTE), to_write=to_write)

    def _fetch_group(self, first: ir.Value) -> None:
        """Rows of every step, where they stand near one another, and of the results."""
        later = self._later(first, _AHEAD)
        arrays = self.plan.arrays
        for pointer, x in zip(self.pointers[len(arrays) :], self.written, strict=True):
            self._fetch_lines(pointer, later, x, to_write=True)
        for step in self.plan.steps:
            at = later
            if step.place is not None:
                self._fetch_lines(self.pointers[step.place], self._later(first, 2 * _AHEAD), arrays[step.place])
                at = self._index(self._of_row(step.place, later, ()))
            for number in step.buckets[0].numbers(_Own):  # as a rule by far the most rows are in the first
                self._fetch_lines(self.pointers[number], at, arrays[number])

    def _fetch_looked_up(self, row: ir.Value) -> None:
        """What a row some way behind looks up, by whole numbers of its own, in arrays that are no small tables."""
        arrays, soon = self.plan.arrays, self.builder.add(row, ir.Constant(LONG, _SOON))
        for step in self.plan.steps:
            bucket = step.buckets[0]
            large = [number for number in bucket.numbers(_Looked) if _bytes_of(arrays[number]) > _LARGE]
            own = [number for number in bucket.numbers(_Own) if arrays[number].dtype == np.int32]
            for number in own if large and step.place is None else ():
                later = within(self.builder, soon, bucket.rows)  # it is read, and other buckets may be behind
                self._fetch_rows(large, self._of_row(number, later, arrays[number].shape[1:]))

    def _fetch_rows(self, large: list[int], indices: Memory) -> None:
        """The rows of some arrays that each of a row's numbers names."""
        for slot in range(math.prod(indices.shape)):
            index = self._index(indices, slot)
            for number in large:
                fetch(self.builder, self._of_row(number, index, self.plan.arrays[number].shape[1:]).pointer)
