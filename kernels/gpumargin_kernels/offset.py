"""Scenario losses of units joined in groups, where a gain offsets only a share of a loss."""

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._buckets import repeat


def _counted(pnl: Array, share: Array) -> Array:
    """Losses in full, gains to a share."""
    return jnp.where(pnl > 0, pnl * share, pnl)


def offset_loss(pnl: Array, group: Array, within: Array, between: Array, zero: Array) -> Array:
    """Largest loss of each account when gains offset losses only in part, inside groups of units and between them.

    P&L of a scenario: each group adds its units' losses and the share `within` of their gains; the account adds its
    groups' losses and the share `between` of their gains.

    Args:
      pnl: `[A, L, S]` P&L of each held unit in each scenario, the same scenarios for all units; 0 in padded slots.
      group: `[A, L]` int32 group of each slot.
      within: `[A, L]` share of the slot's gains that counts inside its group, 0..1.
      between: `[]` share of a group's gain that counts against other groups, 0..1.
      zero: `[]` run-time zero.

    Returns:
      `[A]` money, positive = loss; below 0 where every scenario gains.

    Source: the structure of OCC's TIMS as risk-based haircuts describe it: class groups joined in product groups, those
    in portfolio groups, each with an offset percentage.
    """
    rows, width, columns = pnl.shape
    counted = _counted(pnl, within[:, :, None]) * (zero + 1)
    nothing = jnp.broadcast_to(zero, (rows, columns))
    slots = jnp.arange(width)[None, :]

    def add_group_of(slot: Array, total: Array) -> Array:
        own_group = group[:, slot][:, None]
        is_first = ~jnp.any((group == own_group) & (slots < slot), axis=1)

        def add_member(other: Array, own: Array) -> Array:
            return own + jnp.where(group[:, other][:, None] == own_group, counted[:, other], 0)

        own = _counted(repeat(width, add_member, nothing), between) * (zero + 1)
        return total + jnp.where(is_first[:, None], own, 0)

    return -jnp.min(repeat(width, add_group_of, nothing), axis=1)
