"""The contract stage: every contract priced once, unshocked and under every scenario."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._moves import Option
from gpumargin_kernels._safe import safe_divide
from gpumargin_kernels.black import BlackGreeks, black_greeks, black_value
from gpumargin_kernels.digital import digital_greeks, digital_value
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.model import Model, VolShock
from gpumargin_kernels.records import Contracts
from gpumargin_kernels.svi import svi_vol


class ContractRisk(NamedTuple):
    """What one long contract is worth and how it moves, in the accounting unit: the risk array."""

    value: Leaf  # [M] counts in option value; 0 for contracts that settle their P&L (futures, perpetuals, base)
    implied_vol: Leaf  # [M] vol it was priced with; 0 for contracts without vol
    greeks: BlackGreeks  # [M] each, per 1.00 of forward and vol and per year
    exposure: Leaf  # [M] change of value for a spot move of +100 %, for contracts linear in spot; 0 for options
    scenario_pnl: Leaf  # [M, S] shocked minus unshocked model value, before weights


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
    ratio = shock.pivot_years / jnp.maximum(years, shock.floor_years)
    power = jnp.where(years <= shock.pivot_years, shock.short_power, shock.long_power)
    growth = jnp.exp(power * jnp.log(ratio))
    up = 1 + shock.up * growth
    down = jnp.maximum(1 - shock.down * growth, 0)
    is_up, is_down = (direction > 0)[None, :], (direction < 0)[None, :]
    return jnp.where(is_up, up[:, None], jnp.where(is_down, down[:, None], 1))


def _mark_vol(contracts: Contracts) -> Array:
    """Mark vol of options, from SVI where no mark is given; 0 for everything else."""
    vol = jnp.where(jnp.isnan(contracts.vol), svi_vol(contracts.svi, contracts.strike), contracts.vol)
    return jnp.where(contracts.is_option, vol, 0)


def _greeks(contracts: Contracts, forward: Array, vol: Array) -> BlackGreeks:
    """Value and Greeks per unit of underlying, of digital options per unit of payment, `[M]` each."""
    terms = Option(forward, contracts.strike, vol, contracts.years, contracts.is_call)
    vanilla = black_greeks(forward, contracts.strike, vol, contracts.years, contracts.is_call)
    if contracts.is_digital is None:
        return vanilla
    digital = BlackGreeks(**digital_greeks(terms, BlackGreeks._fields))
    return BlackGreeks(*(jnp.where(contracts.is_digital, d, v) for d, v in zip(digital, vanilla, strict=True)))


def _shocked_value(contracts: Contracts, forward: Array, stdev: Array) -> Array:
    """Value per unit of underlying, of digital options per unit of payment, at `[M, S]` forwards and stdevs."""
    terms = forward, contracts.strike[:, None], stdev, contracts.is_call[:, None]
    if contracts.is_digital is None:
        return black_value(*terms)
    return jnp.where(contracts.is_digital[:, None], digital_value(*terms), black_value(*terms))


def _conversion(contracts: Contracts, forward: Array) -> Array:
    """Accounting unit per quote-currency unit of an option's Black value, `[M]`.

    A coin-settled option is worth Black / F coins, so in money Black * S / F with S / F held fixed.
    """
    in_coin = safe_divide(contracts.settlement_ratio, forward, 0)
    per_unit: Array = jnp.where(contracts.is_inverse, in_coin, contracts.settlement_ratio)
    return jnp.multiply(per_unit, contracts.size)


def _exposure(contracts: Contracts) -> Array:
    """Value change of a linear contract for a spot move of +100 %, `[M]`.

    A coin-settled future pays size (1/P - 1/(P z)) coins, each worth S z at the shocked price: size S/P (z - 1).
    """
    linear = contracts.mark * contracts.settlement_ratio
    inverse = safe_divide(contracts.settlement_ratio, contracts.mark, 0)
    moves = contracts.size * jnp.where(contracts.is_inverse, inverse, linear)
    has_expired = ~contracts.is_perpetual & ~contracts.is_base & (contracts.years == 0)
    return jnp.where(contracts.is_option | has_expired, 0, moves)


def contract_risk(contracts: Contracts, model: Model) -> ContractRisk:
    """Risk array of every contract.

    Options are priced by Black-76, digital ones as cash-or-nothing options of the same law, on forward_fixed +
    forward_variable * spot level with a shocked vol; everything else is linear in spot. Scenario P&L is model value
    minus model value, so that a venue mark that differs from the model does not appear as a scenario loss.

    Args:
      contracts: `[M]`.
      model: scenario columns `[U, S]`.

    Returns:
      `ContractRisk`; NaN where an input was NaN (a fit without a real vol), to be caught downstream.

    Limits: years 0 or vol 0 gives intrinsic value on the forward. Coin-settled options revalue the coin at the shocked
    price; their forward must be positive. A digital option takes the vol at its strike: the slope of the smile there,
    which moves the price of a tight spread, is left out.
    Source: Derive v2-core, PMRMLib.sol (commit 7736900d); Black-76 as `black_value`; digital as `digital_greeks`.
    """
    forward = contracts.forward_fixed + contracts.forward_variable
    vol = _mark_vol(contracts)
    greeks = _greeks(contracts, forward, vol)
    conversion, exposure = _conversion(contracts, forward), _exposure(contracts)

    shock = VolShock(*(field[contracts.unit] for field in model.vol_shock))
    spot = model.spot[contracts.unit]
    shocked_forward = contracts.forward_fixed[:, None] + contracts.forward_variable[:, None] * spot
    stdev = (vol * jnp.sqrt(contracts.years))[:, None] * vol_multiplier(shock, model.vol_direction, contracts.years)
    shocked_value = _shocked_value(contracts, shocked_forward, stdev)
    # Coin-settled: Black(F') / F' coins at S * spot. With no fixed part spot / F' = 1 / F: the conversion is unchanged.
    drift = jnp.where(contracts.is_inverse[:, None], safe_divide(forward[:, None] * spot, shocked_forward, 1), 1)
    option_pnl = (shocked_value * drift - greeks.value[:, None]) * conversion[:, None]
    linear_pnl = exposure[:, None] * (spot - 1)

    is_option = contracts.is_option
    marked = contracts.mark * contracts.size * contracts.settlement_ratio
    value = jnp.where(jnp.isnan(contracts.mark), greeks.value * conversion, marked)
    return ContractRisk(
        value=jnp.where(is_option, value, 0),
        implied_vol=vol,
        greeks=BlackGreeks(*(jnp.where(is_option, g * conversion, 0) for g in greeks)),
        exposure=exposure,
        scenario_pnl=jnp.where(is_option[:, None], option_pnl, linear_pnl),
    )
