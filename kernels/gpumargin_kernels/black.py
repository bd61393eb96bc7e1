"""Black-76 value and closed-form Greeks of a European option on a forward, undiscounted."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._safe import safe_divide, safe_log
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.normal import normal_cdf, normal_density


class BlackGreeks(NamedTuple):
    """Value and derivatives of one long option; every field has the broadcast shape of the inputs.

    Quote currency per unit of underlying; per 1.00 of forward, per 1.00 of vol, per year.
    """

    value: Leaf
    delta: Leaf  # dV/dF
    gamma: Leaf  # d2V/dF2
    vega: Leaf  # dV/dvol
    theta: Leaf  # dV/dt as calendar time passes, forward held
    vanna: Leaf  # d2V/dF dvol
    volga: Leaf  # d2V/dvol2


def _standard_moves(forward: Array, strike: Array, stdev: Array) -> tuple[Array, Array]:
    """d1 and d2; with no time, no vol, no strike or no forward left, +-infinity by the sign of ln(F/K)."""
    log_moneyness = safe_log(safe_divide(forward, strike, jnp.inf), -jnp.inf)
    at_limit = (stdev == 0) | jnp.isinf(log_moneyness)
    limit = jnp.where(log_moneyness > 0, jnp.inf, -jnp.inf)
    ratio = jnp.where(at_limit, 0, log_moneyness) / jnp.where(at_limit, 1, stdev)
    return (
        jnp.where(at_limit, limit, ratio + 0.5 * stdev),
        jnp.where(at_limit, limit, ratio - 0.5 * stdev),
    )


def black_value(forward: Array, strike: Array, stdev: Array, is_call: Array) -> Array:
    """Undiscounted Black-76 value of one long option.

    F N(d1) - K N(d2) for the out-of-the-money side; the in-the-money side is that plus the intrinsic value (put-call
    parity), so neither loses digits to cancellation.

    Args:
      forward: forward price of the underlying, >= 0, quote currency. All arguments broadcast.
      strike: strike price, >= 0, quote currency.
      stdev: vol * sqrt(years), >= 0 (vol decimal per sqrt-year).
      is_call: bool, True for a call.

    Returns:
      Value in quote currency per unit of underlying: intrinsic value at stdev 0, the forward for a call struck at 0,
      the strike for a put on a forward of 0.

    Source: F. Black, The pricing of commodity contracts, Journal of Financial Economics 3 (1976), equation 16.
    """
    d1, d2 = _standard_moves(forward, strike, stdev)
    otm_is_call = strike >= forward
    sign = jnp.where(otm_is_call, 1, -1)
    otm_value = sign * (forward * normal_cdf(sign * d1) - strike * normal_cdf(sign * d2))
    intrinsic = jnp.where(is_call, forward - strike, strike - forward)
    return jnp.maximum(otm_value, 0) + jnp.maximum(intrinsic, 0)


def black_greeks(forward: Array, strike: Array, vol: Array, years: Array, is_call: Array) -> BlackGreeks:
    """Value and Greeks of one long option in one pass that shares d1, d2 and the density.

    Args:
      forward: >= 0, quote currency. All arguments broadcast.
      strike: >= 0, quote currency.
      vol: >= 0, decimal per sqrt-year.
      years: time to expiry, >= 0, years of 365 days.
      is_call: bool.

    Returns:
      `BlackGreeks`. At years 0, vol 0, strike 0 or forward 0 the second-order Greeks, vega and theta are 0 and delta
      is 0 or +-1 by moneyness.

    Source: as `black_value`; derivatives by differentiation, e.g. Haug, The Complete Guide to Option Pricing Formulas,
    2nd edition (2007), chapter 2.
    """
    root = jnp.sqrt(years)
    d1, d2 = _standard_moves(forward, strike, vol * root)
    finite_d1, finite_d2 = jnp.where(jnp.isinf(d1), 0, d1), jnp.where(jnp.isinf(d2), 0, d2)
    density = jnp.where(jnp.isinf(d1), 0, normal_density(finite_d1))
    vega = forward * density * root
    return BlackGreeks(
        value=black_value(forward, strike, vol * root, is_call),
        delta=jnp.where(is_call, normal_cdf(d1), -normal_cdf(-d1)),
        gamma=safe_divide(density, forward * vol * root, 0),
        vega=vega,
        theta=-0.5 * vol * safe_divide(forward * density, root, 0),
        vanna=-density * safe_divide(finite_d2, vol, 0),
        volga=vega * finite_d1 * safe_divide(finite_d2, vol, 0),
    )
