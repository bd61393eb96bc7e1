"""The contract stage: every contract priced once, unshocked and under every scenario."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._moves import Option
from gpumargin_kernels._safe import safe_divide
from gpumargin_kernels.black import BlackGreeks, black_greeks, black_value
from gpumargin_kernels.composite_delta import composite_delta, moved_forward
from gpumargin_kernels.digital import digital_greeks, digital_value
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.model import Model
from gpumargin_kernels.records import Contracts
from gpumargin_kernels.shocked_vol import shocked_stdev, years_left
from gpumargin_kernels.svi import svi_vol


class ContractRisk(NamedTuple):
    """What one long contract is worth and how it moves, in the accounting unit: the risk array."""

    value: Leaf  # [M] counts in option value; 0 for contracts that settle their P&L (futures, perpetuals, base)
    implied_vol: Leaf  # [M] vol it was priced with; 0 for contracts without vol
    greeks: BlackGreeks  # [M] each, per 1.00 of forward and vol and per year
    exposure: Leaf  # [M] change of value for a spot move of +100 %, for contracts linear in spot; 0 for options
    scenario_pnl: Leaf  # [M, S] shocked minus unshocked model value, before weights
    composite_delta: Leaf | None = None  # [M] units of the underlying, where the model has price points for it


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


def _discount(contracts: Contracts, years: Array) -> Array:
    """What a payment at expiry counts now; rates below 0 count as 0."""
    rate = jnp.maximum(contracts.rate, 0)
    return jnp.exp(-(rate if years.ndim == 1 else rate[:, None]) * years)


def _unshocked(contracts: Contracts, model: Model, vol: Array) -> BlackGreeks:
    forward = contracts.forward_fixed + contracts.forward_variable
    greeks = _greeks(contracts, forward, vol)
    if not model.rules.is_discounted:
        return greeks
    discounted = BlackGreeks(*(g * _discount(contracts, contracts.years) for g in greeks))
    return discounted._replace(theta=discounted.theta + jnp.maximum(contracts.rate, 0) * discounted.value)


def _option_pnl(contracts: Contracts, model: Model, vol: Array, value: Array, index: Array) -> Array:
    """Shocked minus unshocked value of one long option, `[M, S]`."""
    spot = model.spot[contracts.unit]
    forward = (contracts.forward_fixed + contracts.forward_variable)[:, None]
    shocked_forward = moved_forward(contracts, model.rules, index, spot)
    stdev = shocked_stdev(contracts, model, vol)
    shocked = _shocked_value(contracts, shocked_forward, stdev)
    if model.rules.is_discounted:
        shocked = shocked * _discount(contracts, years_left(contracts, model))
    # Coin-settled: Black(F') / F' coins at S * spot. With no fixed part spot / F' = 1 / F: the conversion is unchanged.
    coin = forward if model.rules.is_coin_pnl else forward * spot
    drift = jnp.where(contracts.is_inverse[:, None], safe_divide(coin, shocked_forward, 1), 1)
    return (shocked * drift - value[:, None]) * _conversion(contracts, forward[:, 0])[:, None]


def _linear_pnl(contracts: Contracts, model: Model, exposure: Array, index: Array) -> Array:
    """P&L of one long future, perpetual or base asset, `[M, S]`; `index` is the unit's index price, `[M]`."""
    spot = model.spot[contracts.unit]
    is_own = contracts.is_inverse | contracts.is_base | contracts.is_option
    if model.rules.is_index_based or model.rules.is_parallel:
        exposure = jnp.where(is_own | (exposure == 0), exposure, contracts.size * index)
    pnl: Array = exposure[:, None] * (spot - 1)
    # N coins of exposure lose N (1/z - 1) of themselves, which the shocked price turns into N (1 - z).
    return jnp.where(contracts.is_inverse[:, None], pnl / spot, pnl) if model.rules.is_coin_pnl else pnl


def contract_risk(contracts: Contracts, model: Model, index: Array) -> ContractRisk:
    """Risk array of every contract.

    Options are priced by Black-76, digital ones as cash-or-nothing options of the same law, on forward_fixed +
    forward_variable * spot level with a shocked vol; everything else is linear in spot. Scenario P&L is model value
    minus model value, so that a venue mark that differs from the model does not appear as a scenario loss.

    Args:
      contracts: `[M]`.
      model: scenario columns `[U, S]`.
      index: `[M]` index price of the contract's unit, accounting unit; read by models whose shocks are of the index.

    Returns:
      `ContractRisk`; NaN where an input was NaN (a fit without a real vol), to be caught downstream.

    Limits: years 0 or vol 0 gives intrinsic value on the forward. Coin-settled options revalue the coin at the shocked
    price, or, where P&L is counted in coins, at the unshocked one, and then no scenario may take spot to 0; their
    forward must be positive. A digital option takes the vol at its strike: the slope of the smile there, which moves
    the price of a tight spread, is left out.
    Source: Derive v2-core, PMRMLib.sol and PMRMLib_2.sol (commit 7736900d); Black-76 as `black_value`; digital as
    `digital_greeks`.
    """
    vol = _mark_vol(contracts)
    greeks = _unshocked(contracts, model, vol)
    exposure = _exposure(contracts)
    conversion = _conversion(contracts, contracts.forward_fixed + contracts.forward_variable)
    option_pnl = _option_pnl(contracts, model, vol, greeks.value, index)
    linear_pnl = _linear_pnl(contracts, model, exposure, index)

    is_option = contracts.is_option
    marked = contracts.mark * contracts.size * contracts.settlement_ratio
    value = jnp.where(jnp.isnan(contracts.mark), greeks.value * conversion, marked)
    return ContractRisk(
        value=jnp.where(is_option, value, 0),
        implied_vol=vol,
        greeks=BlackGreeks(*(jnp.where(is_option, g * conversion, 0) for g in greeks)),
        exposure=exposure,
        scenario_pnl=jnp.where(is_option[:, None], option_pnl, linear_pnl),
        composite_delta=None
        if model.delta_points is None
        else composite_delta(contracts, vol, model.delta_points, model.rules, index),
    )
