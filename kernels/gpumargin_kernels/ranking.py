"""Which of two accounts is closer to the edge."""

import jax.numpy as jnp
from jax import Array


def risk_order(equity: Array, margin: Array, other_equity: Array, other_margin: Array) -> Array:
    """Whether an account is riskier than another, by equity per maintenance margin.

    Args:
      equity: of the first, any common shape.
      margin: its maintenance margin, >= 0.
      other_equity: of the second.
      other_margin: its maintenance margin, >= 0.

    Returns:
      int32: 1 where the first is riskier, -1 where the second is, 0 where nothing tells them apart. Ratios are
      compared as products, so that a margin of 0 divides nothing; of equal ratios the larger margin is riskier, of
      equal margins the smaller equity.

    Source: dYdX v4, order in which subaccounts are liquidated.
    """
    by_ratio = jnp.sign(other_equity * margin - equity * other_margin)
    by_margin = jnp.sign(margin - other_margin)
    by_equity = jnp.sign(other_equity - equity)
    order = jnp.where(by_ratio != 0, by_ratio, jnp.where(by_margin != 0, by_margin, by_equity))
    return order.astype(jnp.int32)
