"""Forward prices during the settlement window."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels.leaf import Leaf

SETTLEMENT_WINDOW_SECONDS = 1800.0


class ForwardSplit(NamedTuple):
    """A forward as the part that settlement has fixed already and the part that spot shocks still move."""

    fixed: Leaf
    variable: Leaf


def forward_split(forward: Array, settled_average: Array, seconds_to_expiry: Array) -> ForwardSplit:
    """Splits a forward by how much of the settlement average is known.

    The settlement price is the average of spot over the last 30 minutes. With r seconds left of that window W,
    fixed = average so far * (W - r) / W and variable = forward * r / W.

    Args:
      forward: live forward, quote currency. All arguments broadcast.
      settled_average: average of spot since the window opened, quote currency; not used outside the window.
      seconds_to_expiry: >= 0.

    Returns:
      `ForwardSplit`; fixed is 0 outside the window, variable is 0 at expiry.

    Source: Derive v2-core, LyraForwardFeed.sol (commit 7736900d, 2026-01-21).
    """
    share_left = jnp.minimum(seconds_to_expiry / SETTLEMENT_WINDOW_SECONDS, 1)
    fixed = jnp.where(share_left < 1, settled_average * (1 - share_left), 0)
    return ForwardSplit(fixed, forward * share_left)
