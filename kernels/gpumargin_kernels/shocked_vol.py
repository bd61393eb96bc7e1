"""Vols under scenarios: by direction and tenor, within bounds, by numbers of a scenario, or by a turn of the smile."""

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._safe import safe_divide, safe_log, safe_sqrt
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.model import Model, VolShock
from gpumargin_kernels.records import Contracts

UP, LINEAR_SKEW, ABSOLUTE_SKEW = 1, 2, 3


def _growth(shock: VolShock, years: Array) -> Array:
    """How much larger a shock is than at the pivot, `[M]`."""
    ratio = shock.pivot_years / jnp.maximum(years, shock.floor_years)
    power = jnp.where(years <= shock.pivot_years, shock.short_power, shock.long_power)
    return jnp.exp(power * jnp.log(ratio))


def vol_multiplier(shock: VolShock, direction: Array, years: Array) -> Array:
    """Factor on vol for each contract and scenario.

    Args:
      shock: `[M]` fields, the shock of the contract's unit.
      direction: `[S]` 1 up, 0 none, -1 down.
      years: `[M]`, >= 0.

    Returns:
      `[M, S]`, >= 0; 1 where the direction is none.

    Source: Derive v2-core, PMRMLib.sol (commit 7736900d, 2026-01-21), vol shock; the form is shared by Deribit's
    portfolio margin.
    """
    growth = _growth(shock, years)
    up = 1 + shock.up * growth
    down = jnp.maximum(1 - shock.down * growth, 0)
    is_up, is_down = (direction > 0)[None, :], (direction < 0)[None, :]
    return jnp.where(is_up, up[:, None], jnp.where(is_down, down[:, None], 1))


def vol_points(shock: VolShock, direction: Array, years: Array) -> Array:
    """Points added to vol for each contract and scenario, `[M, S]`, arguments as of `vol_multiplier`.

    Source: the parallel shocks of Aevo's portfolio margin and of the volatility scan ranges of SPAN.
    """
    growth = _growth(shock, years)
    is_up, is_down = (direction > 0)[None, :], (direction < 0)[None, :]
    up, down = (shock.up * growth)[:, None], (-shock.down * growth)[:, None]
    return jnp.where(is_up, up, jnp.where(is_down, down, 0))


def skew_multiplier(numbers: dict[str, Leaf], moneyness: Array, years: Array, *, is_absolute: bool) -> Array:
    """Factor on the vol of each contract when the smile turns, `[M]`.

    The turn is linear in log moneyness up to a cap at `k_star`, both depending on the tenor.

    Args:
      numbers: `[M]` linear_cap, linear_slope, abs_cap, abs_slope, min_k_star, width, vol_static, vol_slope.
      moneyness: `[M]` ln(strike / forward).
      years: `[M]`, >= 0.
      is_absolute: both wings move the same way, by the size of the moneyness.

    Returns:
      `[M]`, >= 0. A cap below 0 (long tenors under a negative slope) goes through the same bounds, as at the source.

    Source: Derive v2-core, PMRMLib_2.sol (commit 7736900d), linear and absolute skew scenarios.
    """
    root, kind = safe_sqrt(years), "abs" if is_absolute else "linear"
    cap = numbers[f"{kind}_cap"] + numbers[f"{kind}_slope"] * root
    k_star = jnp.maximum(
        numbers["min_k_star"], root * numbers["width"] * (numbers["vol_static"] + root * numbers["vol_slope"])
    )
    k = jnp.abs(moneyness) if is_absolute else moneyness
    turn = k * cap / k_star
    return jnp.maximum(1 + jnp.where(k >= 0, jnp.minimum(cap, turn), jnp.maximum(-cap, turn)), 0)


def _bounded(vol: Array, is_up: Array, numbers: dict[str, Leaf]) -> Array:
    """Vols of upward moves held above `min_up` and below `max_up`."""
    bounded = vol
    if "min_up" in numbers:
        bounded = jnp.maximum(bounded, numbers["min_up"][:, None])
    if "max_up" in numbers:
        bounded = jnp.minimum(bounded, numbers["max_up"][:, None])
    return jnp.where(is_up, bounded, vol)


def _turned(vol: Array, shocked: Array, contracts: Contracts, direction: Array, numbers: dict[str, Leaf]) -> Array:
    """Vols of the scenarios that turn the smile, the others as they are."""
    forward = contracts.forward_fixed + contracts.forward_variable
    # A strike or forward of 0 has no moneyness: its vol stays.
    moneyness = safe_log(safe_divide(contracts.strike, forward, 1), 0)
    for code, is_absolute in ((LINEAR_SKEW, False), (ABSOLUTE_SKEW, True)):
        factor = skew_multiplier(numbers, moneyness, contracts.years, is_absolute=is_absolute)
        shocked = jnp.where((direction == code)[None, :], (vol * factor)[:, None], shocked)
    return shocked


def years_left(contracts: Contracts, model: Model) -> Array:
    """Time to expiry where each scenario looks, `[M, S]`, or `[M, 1]` where no scenario looks ahead."""
    ahead = model.scenario_numbers.get("years_ahead")
    return contracts.years[:, None] if ahead is None else jnp.maximum(contracts.years[:, None] - ahead[None, :], 0)


def shocked_stdev(contracts: Contracts, model: Model, vol: Array) -> Array:
    """Standard deviation of the log forward to expiry in every scenario.

    Args:
      contracts: `[M]`.
      model: `[U, S]` scenarios. Shocks grow with the tenor of today, also where a scenario looks ahead.
      vol: `[M]` unshocked.

    Returns:
      `[M, S]`, >= 0.
    """
    shock = VolShock(*(field[contracts.unit] for field in model.vol_shock))
    numbers = {k: v if k == "years_ahead" else v[contracts.unit] for k, v in model.scenario_numbers.items()}
    direction = model.vol_direction
    if not numbers and not model.rules.is_additive:
        return (vol * jnp.sqrt(contracts.years))[:, None] * vol_multiplier(shock, direction, contracts.years)
    if model.rules.is_additive:
        shocked = jnp.maximum(vol[:, None] + vol_points(shock, direction, contracts.years), 0)
    else:
        shocked = vol[:, None] * vol_multiplier(shock, direction, contracts.years)
    shocked = _bounded(shocked, (direction == UP)[None, :], numbers)
    shocked = jnp.maximum(shocked * numbers.get("vol_factor", 1) + numbers.get("vol_shift", 0), 0)
    if model.rules.skew:
        shocked = _turned(vol, shocked, contracts, direction, numbers)
    return shocked * jnp.sqrt(years_left(contracts, model))
