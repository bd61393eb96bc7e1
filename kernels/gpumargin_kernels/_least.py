"""The least number of a row and where it stands."""

import jax.numpy as jnp
from jax import Array


def least_column(block: Array) -> tuple[Array, Array]:
    """Least of each row and the column where it first stands, int32; NaN is less than any number.

    Column by column over all rows at once: XLA reduces a row to a value and its place one element at a time, which took
    as long on a CPU as the loop over legs (measured).

    Args:
      block: `[R, K]`, K >= 1.
    """
    least, place = block[:, 0], jnp.zeros(block.shape[0], jnp.int32)
    for column in range(1, block.shape[1]):
        here = block[:, column]
        is_less = ~(here >= least) & (least == least)
        least, place = jnp.where(is_less, here, least), jnp.where(is_less, column, place)
    return least, place
