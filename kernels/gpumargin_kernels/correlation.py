"""Correlated aggregation of risk units."""

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import repeat
from gpumargin_kernels._safe import safe_sqrt


def correlated_margin(margins: Array, units: Array, correlation: Array, is_correlated: Array, zero: Array) -> Array:
    """sqrt(m' R m) over the units of a table, plus the plain sum of the units outside it.

    Args:
      margins: `[A, L]` requirement of each held unit, accounting unit; 0 in padded slots.
      units: `[A, L]` int32 unit of each slot.
      correlation: `[U, U]` R, symmetric with unit diagonal and positive semidefinite (proved on the host).
      is_correlated: `[U]` bool, True for units that the table lists.
      zero: `[]` run-time zero that starts the sums (see `leg_sums`).

    Returns:
      `[A]`, accounting unit, between the largest and the sum of the margins when those and R are non-negative. A
      quadratic form below 0 by rounding gives 0.

    Source: the aggregation of ISDA SIMM (version 2.6, 2023) and of Solvency II's standard formula.
    """
    inside = jnp.where(is_correlated[units], margins, 0)
    outside = margins - inside
    rows, width = margins.shape
    nothing = jnp.broadcast_to(zero, (rows,))

    def add_pair(pair: Array, quadratic: Array) -> Array:
        i, j = pair // width, pair % width
        return quadratic + inside[:, i] * inside[:, j] * correlation[units[:, i], units[:, j]]

    quadratic = repeat(width * width, add_pair, nothing)
    alone = repeat(width, lambda i, total: total + outside[:, i], nothing)
    return safe_sqrt(quadratic) + alone
