"""Rates that depend on size: tables of brackets, marginal or for the whole of an amount."""

import jax.numpy as jnp
from jax import Array


def marginal(amount: Array, table: Array, one: Array | float = 1.0) -> Array:
    """Sum over brackets of rate * the part of the amount that falls into the bracket.

    Args:
      amount: `[R]`, >= 0.
      table: `[R, T, 2]` upper bound and rate of each bracket, ascending; the last bound may be infinite, and what lies
        beyond it counts nothing.
      one: `[]` run-time one that keeps products from being fused with what they are added to (see `leg_sums`).

    Returns:
      `[R]`; 0 for negative amounts, NaN for NaN.

    Source: the brackets of Binance and Hyperliquid (with their maintenance deductions: the same function), OKX and
    Bybit collateral tiers; equal to rate * amount - deduction.
    """
    upper, rate = table[..., 0], table[..., 1]
    lower = jnp.concatenate([jnp.zeros_like(upper[..., :1]), upper[..., :-1]], axis=-1)
    inside = jnp.maximum(jnp.minimum(amount[..., None], upper) - lower, 0)
    parts = rate * inside * one
    total = parts[..., 0]
    for tier in range(1, table.shape[-2]):
        total = total + parts[..., tier]
    return total


def bracket(amount: Array, table: Array) -> Array:
    """Rate of the bracket that an amount falls into: one rate for the whole of it.

    Args:
      amount: `[R]`.
      table: `[R, T, 2]` as in `marginal`; a bracket contains its upper bound, and beyond the last one its rate holds.

    Returns:
      `[R]`; NaN for NaN.
    """
    upper, rate = table[..., 0], table[..., 1]
    chosen = rate[..., -1]
    for tier in range(table.shape[-2] - 2, -1, -1):
        chosen = jnp.where(amount <= upper[..., tier], rate[..., tier], chosen)
    return jnp.where(jnp.isnan(amount), jnp.nan, chosen)


def effective_rate(amount: Array, table: Array) -> Array:
    """Average rate of an amount under marginal brackets; of an amount of 0 the rate of the first bracket.

    Args:
      amount: `[R]`, >= 0.
      table: `[R, T, 2]` as in `marginal`.

    Returns:
      `[R]`; NaN for NaN.
    """
    is_empty = amount == 0
    return jnp.where(is_empty, table[..., 0, 1], marginal(amount, table) / jnp.where(is_empty, 1, amount))
