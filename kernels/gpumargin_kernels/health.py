"""From balances and requirements to the status of an account."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels.leaf import Leaf

# The order is the code: STATUSES[code] is the word that tables show.
STATUSES = ("healthy", "margin_call", "liquidatable", "bankrupt", "unknown")
HEALTHY, MARGIN_CALL, LIQUIDATABLE, BANKRUPT, UNKNOWN = range(len(STATUSES))


class Health(NamedTuple):
    """Where an account stands; `[A]` each."""

    excess: dict[str, Leaf]  # by margin type, balance - requirement, positive = healthy
    ratio: Leaf  # maintenance balance / requirement; NaN where the requirement is 0
    status: Leaf  # int8 code, index into `STATUSES`


def account_health(equity: Array, balance: dict[str, Array], requirement: dict[str, Array]) -> Health:
    """Excess, health ratio and status of every account.

    Args:
      equity: `[A]` accounting unit.
      balance: `[A]` margin balance by margin type; `initial` and `maintenance` at least.
      requirement: `[A]` by margin type, positive.

    Returns:
      `Health`. Bankrupt outranks liquidatable outranks margin call; an account with a number that is not finite is
      unknown, never healthy: a comparison with NaN is False and would say healthy.
    """
    excess = {name: balance[name] - requirement[name] for name in requirement}
    is_known = jnp.isfinite(equity)
    for amount in excess.values():
        is_known = is_known & jnp.isfinite(amount)
    status = jnp.where(excess["initial"] < 0, MARGIN_CALL, HEALTHY)
    status = jnp.where(excess["maintenance"] < 0, LIQUIDATABLE, status)
    status = jnp.where(equity < 0, BANKRUPT, status)
    status = jnp.where(is_known, status, UNKNOWN)
    maintenance = requirement["maintenance"]
    safe = jnp.where(maintenance == 0, 1, maintenance)
    ratio = jnp.where(maintenance == 0, jnp.nan, balance["maintenance"] / safe)
    return Health(excess, ratio, status.astype(jnp.int8))
