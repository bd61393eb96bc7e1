"""Price at which one position is liquidated."""

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels.rates import marginal


def liquidation_price(price: Array, quantity: Array, excess: Array, table: Array) -> Array:
    """Price at which the maintenance excess of an account with one linear position is 0.

    Equity moves with the position, maintenance is marginal in its notional: the excess is a line between the bounds of
    brackets, and the only root of one of the lines that lies in its own bracket is the answer.

    Args:
      price: `[R]` mark, > 0.
      quantity: `[R]` signed size.
      excess: `[R]` equity less maintenance margin at the mark, all of the account.
      table: `[R, T, 2]` brackets of notional as in `marginal`, rates below 1.

    Returns:
      `[R]`, >= 0; NaN where no price liquidates the account, or there is no position.

    Source: Hyperliquid, liquidations: price - side * excess / size / (1 - rate * side), bracket by bracket.
    """
    side, size = jnp.sign(quantity), jnp.abs(quantity)
    notional = size * price
    upper, rate = table[..., 0], table[..., 1]
    lower = jnp.concatenate([jnp.zeros_like(upper[..., :1]), upper[..., :-1]], axis=-1)
    at_lower = jnp.stack([marginal(lower[..., t], table) for t in range(table.shape[-2])], axis=-1)
    rest = (excess - side * notional + marginal(notional, table))[..., None]
    root = -(rest - at_lower + rate * lower) / (side[..., None] - rate)
    is_own = (root >= lower) & (root <= upper)
    found = jnp.where(is_own, root, jnp.nan) / size[..., None]
    return jnp.where(size > 0, jnp.nanmin(found, axis=-1), jnp.nan)
