"""From balances and requirements to the status of an account."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels.expression import Expression, evaluate
from gpumargin_kernels.leaf import Leaf

# The order is the code: STATUSES[code] is the word that tables show.
STATUSES = ("healthy", "margin_call", "liquidatable", "bankrupt", "unknown")
HEALTHY, MARGIN_CALL, LIQUIDATABLE, BANKRUPT, UNKNOWN = range(len(STATUSES))


class Health(NamedTuple):
    """Where an account stands; `[A]` each."""

    excess: dict[str, Leaf]  # by margin type, balance - requirement, positive = healthy
    ratio: Leaf  # maintenance balance / requirement; NaN where that is 0; None where it is not asked for
    status: Leaf  # int8 code, index into `STATUSES`


# What each status means unless a model says otherwise: an expression that is positive where it holds.
STATUS_RULES: dict[str, Expression] = {
    "margin_call": ("where<", "initial_excess", 0.0, 1.0, 0.0),
    "liquidatable": ("where<", "maintenance_excess", 0.0, 1.0, 0.0),
    "bankrupt": ("where<", "equity", 0.0, 1.0, 0.0),
}


def account_health(
    equity: Array,
    balance: dict[str, Array],
    requirement: dict[str, Array],
    rules: Mapping[str, Expression] | None = None,
    values: Mapping[str, Array] | None = None,
    one: Array | None = None,
) -> Health:
    """Excess, health ratio and status of every account.

    Args:
      equity: `[A]` accounting unit.
      balance: `[A]` margin balance by margin type; `initial` and `maintenance` at least.
      requirement: `[A]` by margin type, positive.
      rules: expressions by status in place of `STATUS_RULES`, over `equity`, `<type>_balance`, `<type>_margin`,
        `<type>_excess` and `values`.
      values: `[A]` what else the rules name.
      one: as in `evaluate`.

    Returns:
      `Health`. Bankrupt outranks liquidatable outranks margin call; an account with a number that is not finite is
      unknown, never healthy: a comparison with NaN is False and would say healthy.
    """
    excess = {name: balance[name] - requirement[name] for name in requirement}
    is_known = jnp.isfinite(equity)
    for amount in excess.values():
        is_known = is_known & jnp.isfinite(amount)
    named = {**(values or {}), "equity": equity}
    for word, amounts in (("balance", balance), ("margin", requirement), ("excess", excess)):
        named |= {f"{name}_{word}": amount for name, amount in amounts.items()}
    status = jnp.full(equity.shape, HEALTHY)
    for word, default in STATUS_RULES.items():
        is_met = evaluate((rules or {}).get(word, default), named, one) > 0
        status = jnp.where(is_met, STATUSES.index(word), status)
    status = jnp.where(is_known, status, UNKNOWN)
    maintenance = requirement["maintenance"]
    safe = jnp.where(maintenance == 0, 1, maintenance)
    ratio = jnp.where(maintenance == 0, jnp.nan, balance["maintenance"] / safe)
    return Health(excess, ratio, status.astype(jnp.int8))
