"""Sums over legs by a native loop, in place of `gpumargin_kernels.tally.leg_summer` and with its bits."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from gpumargin.native.compiler import registered
from gpumargin.native.loop import COLUMN_GAP
from gpumargin.native.lowering import UnsupportedError
from gpumargin.native.plan import Plan, array_of, plan_of, table_of
from gpumargin_kernels.records import Contracts, Legs, Tally
from gpumargin_kernels.tally import Lane, LegSummer, in_tally_order, lanes_of, leg_summer


def native_leg_summer(tallies: tuple[Tally, ...], contracts: Contracts, zero: Array) -> LegSummer:
    """`leg_summer`, compiled for this processor outside XLA; the XLA path itself where the rule has no translation.

    Args:
      tallies: what to add up.
      contracts: `[M]`; only the groups are read, which are negative for padding.
      zero: `[]` run-time zero.

    Returns:
      A function of legs `[R, L]`, the padding of a row behind its legs.
    """
    lanes = lanes_of(tallies)
    try:
        plan = plan_of(lanes, zero.dtype)
        name = registered(plan)
    except UnsupportedError:
        return leg_summer(tallies, contracts, zero)
    groups = (jnp.asarray(contracts.expiry_group), jnp.asarray(contracts.strike_group))
    return partial(_sums, tallies, lanes, plan, name, (*groups, table_of(lanes, plan)))


def _sums(
    tallies: tuple[Tally, ...], lanes: tuple[Lane, ...], plan: Plan, name: str, shared: tuple[Array, ...], legs: Legs
) -> tuple[Array, ...]:
    rows = legs.contract.shape[0]
    call = jax.ffi.ffi_call(name, array_of((plan.result_width, rows + COLUMN_GAP), shared[-1].dtype))
    columns = call(legs.contract, legs.quantity, *(legs.inputs[word] for word in plan.inputs), *shared)
    found: list[dict[str, Array] | Array] = []
    for planned in plan.lanes:
        own = [columns[p.start : p.start + p.width, :rows].T for p in planned.results]
        found.append(dict(zip((w for w, _ in planned.words), own, strict=True)) if planned.close is None else own[0])
    return in_tally_order(tallies, lanes, found)
