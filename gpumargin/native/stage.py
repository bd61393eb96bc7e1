"""The rows of all buckets by a native loop, in place of `gpumargin_kernels.tally.row_stage` and with its bits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gpumargin.native.leg_loop import leg_loop_name
from gpumargin.native.loop import COLUMN_GAP
from gpumargin.native.lowering import UnsupportedError
from gpumargin.native.plan import Output, array_of, plan_of, table_of, units_of
from gpumargin_kernels._buckets import barrier
from gpumargin_kernels.records import Legs
from gpumargin_kernels.tally import RowPlan, row_stage


def native_row_stage(plan: RowPlan, buckets: tuple[Legs, ...], zero: Array, chunk: int | None) -> Any:
    """`row_stage`, compiled for this processor outside XLA, as far as its functions have a translation.

    Where what finishes a row has none, XLA does that; where closing a group has none, it does everything.
    """
    try:
        return _run(plan, buckets, zero)
    except UnsupportedError:
        pass
    sums_only = plan._replace(finish=_only_sums, shared=(), units=0)
    try:
        sums = barrier(_run(sums_only, buckets, zero))
    except UnsupportedError:
        return row_stage(plan, buckets, zero, chunk)
    unit = jnp.concatenate([legs.unit for legs in buckets])
    return plan.finish(plan.shared, sums, unit, zero + 1)


def _only_sums(shared: Any, sums: tuple[Array, ...], unit: Array, one: Array) -> tuple[Array, ...]:
    del shared, unit, one
    return sums


def _run(plan: RowPlan, buckets: tuple[Legs, ...], zero: Array) -> Any:
    """One call for all buckets."""
    made, shapes = plan_of(plan, zero.dtype)
    name = leg_loop_name(made, len(buckets))
    rows = sum(legs.contract.shape[0] for legs in buckets)
    results = [_memory_of(output, rows, zero.dtype) for output in made.written]
    one = zero + 1
    groups = (jnp.asarray(plan.contracts.expiry_group), jnp.asarray(plan.contracts.strike_group))
    legs = [x for b in buckets for x in (b.contract, b.quantity, b.unit, *(b.inputs[word] for word in made.inputs))]
    found = jax.ffi.ffi_call(name, results)(*legs, *groups, table_of(plan, made, one), units_of(plan, made, one))
    written = iter(found)
    leaves = [_rows_of(next(written), rows) if o.width else _empty(o, rows, zero.dtype) for o in made.outputs]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _type_of(output: Output, dtype: Any) -> Any:
    return dtype if output.kind == "float" else "int32"


def _memory_of(output: Output, rows: int, dtype: Any) -> Any:
    """The array that a result is written into: one column as it is, several one behind the other with a gap."""
    shape = (output.width, rows + COLUMN_GAP) if output.shape else (rows,)
    return array_of(shape, _type_of(output, dtype))


def _rows_of(written: Array, rows: int) -> Array:
    """What was written as an array of rows."""
    return written if written.ndim == 1 else written[:, :rows].T


def _empty(output: Output, rows: int, dtype: Any) -> Array:
    return jnp.zeros((rows, *output.shape), _type_of(output, dtype))
