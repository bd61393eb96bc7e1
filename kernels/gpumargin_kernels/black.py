"""The generalised Black formula: value and closed-form Greeks of European options, only those asked for.

Black-76 (`black_value`, `black_greeks`) and Black-Scholes-Merton are the same terms with another `carry`; coin-settled
options are in `coin`, digital ones in `digital`. Every output has the broadcast shape of the terms.

Units: quote currency per unit of underlying; per 1.00 of price, per 1.00 of vol, per 1.00 of rate, per year. Greeks in
time (theta, charm, color, veta) are derivatives as calendar time passes.

Limits: without time, vol, strike or underlying left the value is the discounted intrinsic value; gamma, vega and
everything else in proportion to the density is 0; delta, rho, theta and charm are those of the payoff's side. With the
forward exactly on the strike delta is half its jump and theta is 0. `jax.grad` of the value is finite there too and
takes the side on which the call ends worthless.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._moves import Moves, Option, inverse
from gpumargin_kernels.leaf import Leaf

Formulas = Mapping[str, Callable[[Moves], Array]]


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


def _present(m: Moves) -> Array:
    """Discounted growth, exp((carry - rate) * years): what a unit of underlying at expiry is worth in units today."""
    return m.discount * m.growth


def _value(m: Moves) -> Array:
    return m.discount * m.undiscounted_value


def _delta(m: Moves) -> Array:
    return m.sign * _present(m) * m.probability_1


def _gamma(m: Moves) -> Array:
    return _present(m) * m.density * inverse(m.option.underlying * m.stdev)


def _vega(m: Moves) -> Array:
    return m.discount * m.forward * m.density * m.root_years


def _theta(m: Moves) -> Array:
    decay = 0.5 * m.option.vol * m.discount * m.forward * m.density * inverse(m.root_years)
    drift = m.rate * _value(m) - m.carry * m.option.underlying * _delta(m)
    return jnp.where(m.is_kink, 0, drift) - decay


def _dual_delta(m: Moves) -> Array:
    return -m.sign * m.discount * m.probability_2


def _half_per_year(m: Moves) -> Array:
    return 0.5 * inverse(m.option.years)


def _d1_slope(m: Moves) -> Array:
    """d(d1)/d(years)."""
    return m.carry * inverse(m.stdev) - m.d2 * _half_per_year(m)


def _charm(m: Moves) -> Array:
    return (m.rate - m.carry) * _delta(m) - _present(m) * m.density * _d1_slope(m)


def _color(m: Moves) -> Array:
    return _gamma(m) * (m.rate - m.carry + m.d1 * _d1_slope(m) + _half_per_year(m))


def _veta(m: Moves) -> Array:
    return _vega(m) * (m.rate - m.carry + m.d1 * _d1_slope(m) - _half_per_year(m))


# Haug, The Complete Guide to Option Pricing Formulas, 2nd edition (2007), chapter 2, with S exp((b - r) T) = D F.
GREEKS: Formulas = {
    "value": _value,
    "delta": _delta,
    "gamma": _gamma,
    "vega": _vega,
    "theta": _theta,
    # Rate moves the discount and the forward, the yield (rate - carry) is held: the rho of Black-Scholes-Merton.
    "rho": lambda m: -m.option.strike * m.option.years * _dual_delta(m),
    # Rate moves the discount alone, the carry is held: the rho of Black-76.
    "discount_rho": lambda m: -m.option.years * _value(m),
    # The yield moves, the rate is held.
    "yield_rho": lambda m: -m.option.years * m.option.underlying * _delta(m),
    "vanna": lambda m: -_present(m) * m.density * m.d2 * inverse(m.option.vol),
    "volga": lambda m: _vega(m) * m.d1 * m.d2 * inverse(m.option.vol),
    "charm": _charm,
    "speed": lambda m: -_gamma(m) * inverse(m.option.underlying) * (1 + m.d1 * inverse(m.stdev)),
    "zomma": lambda m: _gamma(m) * (m.d1 * m.d2 - 1) * inverse(m.option.vol),
    "color": _color,
    "veta": _veta,
    "dual_delta": _dual_delta,
    # Delta less the premium in units of the underlying, for premiums paid in the underlying.
    "premium_adjusted_delta": lambda m: -_dual_delta(m) * m.option.strike * inverse(m.option.underlying),
}


def evaluate(formulas: Formulas, option: Option, names: Sequence[str]) -> dict[str, Array]:
    """The named formulas of some options, sharing their intermediates.

    Args:
      formulas: name -> formula.
      option: the terms.
      names: which, in which order; static under `jax.jit`.

    Returns:
      Name -> `[...]` broadcast shape of the terms.

    Raises:
      ValueError: a name is not among the formulas.
    """
    unknown = [name for name in names if name not in formulas]
    if unknown:
        message = f"greeks {unknown} are not known here; choose from {sorted(formulas)}"
        raise ValueError(message)
    moves = Moves(option)
    return {name: formulas[name](moves) for name in names}


def option_greeks(option: Option, names: Sequence[str]) -> dict[str, Array]:
    """Value and Greeks of long European options by the generalised Black formula.

    Args:
      option: the terms.
      names: which of `GREEKS`, in which order; static under `jax.jit`.

    Returns:
      Name -> broadcast shape of the terms; units and limits as the module says. NaN terms give NaN.

    Raises:
      ValueError: a name is not in `GREEKS`.

    Source: F. Black, The pricing of commodity contracts, Journal of Financial Economics 3 (1976); R. C. Merton, Theory
    of rational option pricing, Bell Journal of Economics 4 (1973); derivatives as in `GREEKS`.
    """
    return evaluate(GREEKS, option, names)


def black_value(forward: Array, strike: Array, stdev: Array, is_call: Array) -> Array:
    """Undiscounted Black-76 value of one long option.

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
    return Moves(Option(forward, strike, stdev, jnp.ones_like(stdev), is_call)).undiscounted_value


def black_greeks(forward: Array, strike: Array, vol: Array, years: Array, is_call: Array) -> BlackGreeks:
    """Undiscounted Black-76 value and Greeks of one long option.

    Args:
      forward: >= 0, quote currency. All arguments broadcast.
      strike: >= 0, quote currency.
      vol: >= 0, decimal per sqrt-year.
      years: time to expiry, >= 0, years of 365 days.
      is_call: bool.

    Returns:
      `BlackGreeks`; limits as the module says.

    Source: as `option_greeks`.
    """
    option = Option(forward, strike, vol, years, is_call)
    return BlackGreeks(**option_greeks(option, BlackGreeks._fields))
