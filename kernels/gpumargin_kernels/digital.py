"""Digital (cash-or-nothing) European options, as event contracts list them."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._moves import Moves, Option, inverse
from gpumargin_kernels.black import Formulas, evaluate


def _value(m: Moves) -> Array:
    return m.discount * m.probability_2


def _weight(m: Moves) -> Array:
    """What the value gains per unit of d2."""
    return m.sign * m.discount * m.density_2


def _delta(m: Moves) -> Array:
    return _weight(m) * inverse(m.option.underlying * m.stdev)


def _gamma(m: Moves) -> Array:
    return -_delta(m) * m.d1 * inverse(m.option.underlying * m.stdev)


def _vega(m: Moves) -> Array:
    return -_weight(m) * m.d1 * inverse(m.option.vol)


def _slope(m: Moves, other: Array) -> Array:
    """d(d1)/d(years) given d2, d(d2)/d(years) given d1."""
    return m.carry * inverse(m.stdev) - other * 0.5 * inverse(m.option.years)


def _theta(m: Moves) -> Array:
    return jnp.where(m.is_kink, 0, m.rate * _value(m)) - _weight(m) * _slope(m, m.d1)


def _rho(m: Moves) -> Array:
    return -m.option.years * _value(m) + _weight(m) * m.option.years * inverse(m.stdev)


def _volga(m: Moves) -> Array:
    bracket = m.d1 * m.d1 * m.d2 - m.d1 - m.d2
    return -_weight(m) * bracket * inverse(m.option.vol) ** 2


def _speed(m: Moves) -> Array:
    bracket = m.d1 * m.d2 - 1 + 2 * m.d1 * m.stdev
    return _delta(m) * bracket * inverse(m.option.underlying * m.stdev) ** 2


def _zomma(m: Moves) -> Array:
    bracket = m.d1 * m.d1 * m.d2 - 2 * m.d1 - m.d2
    return -_delta(m) * bracket * inverse(m.option.underlying * m.stdev * m.option.vol)


def _growth(m: Moves) -> Array:
    """Relative growth of the weight as calendar time passes."""
    return m.rate + m.d2 * _slope(m, m.d1)


def _color(m: Moves) -> Array:
    of_d1 = _delta(m) * _slope(m, m.d2) * inverse(m.option.underlying * m.stdev)
    return _gamma(m) * (_growth(m) + inverse(m.option.years)) + of_d1


def _veta(m: Moves) -> Array:
    return _vega(m) * _growth(m) + _weight(m) * _slope(m, m.d2) * inverse(m.option.vol)


# Derivatives of exp(-rate T) Phi(sign d2), which is what a spread of vanilla options around the strike tends to.
DIGITAL_GREEKS: Formulas = {
    "value": _value,
    "delta": _delta,
    "gamma": _gamma,
    "vega": _vega,
    "theta": _theta,
    "rho": _rho,
    "discount_rho": lambda m: -m.option.years * _value(m),
    "vanna": lambda m: _delta(m) * (m.d1 * m.d2 - 1) * inverse(m.option.vol),
    "volga": _volga,
    "charm": lambda m: _delta(m) * (_growth(m) + 0.5 * inverse(m.option.years)),
    "speed": _speed,
    "zomma": _zomma,
    "color": _color,
    "veta": _veta,
    "dual_delta": lambda m: -_weight(m) * inverse(m.option.strike * m.stdev),
}


def digital_value(forward: Array, strike: Array, stdev: Array, is_call: Array) -> Array:
    """Undiscounted value of options that pay 1 in the money: the probability of expiring there.

    Args:
      forward: forward price of the underlying, >= 0, quote currency. All arguments broadcast.
      strike: >= 0, quote currency.
      stdev: vol * sqrt(years), >= 0.
      is_call: bool.

    Returns:
      0 to 1; at stdev 0 the payoff, half of it with the forward exactly on the strike.

    Source: as `digital_greeks`.
    """
    return Moves(Option(forward, strike, stdev, jnp.ones_like(stdev), is_call)).probability_2


def digital_greeks(option: Option, names: Sequence[str]) -> dict[str, Array]:
    """Value and Greeks of long options that pay 1 unit of quote currency in the money and nothing otherwise.

    Args:
      option: the terms; the strike separates the outcomes.
      names: which of `DIGITAL_GREEKS`, in which order; static under `jax.jit`. `rho` holds the yield (rate - carry),
        `discount_rho` the carry.

    Returns:
      Name -> broadcast shape of the terms, per 1.00 of payment; units as in `black`. Without time, vol, strike or
      underlying left the value is the discounted payoff, half of it with the forward exactly on the strike, and every
      Greek but theta and the rhos is 0.

    Raises:
      ValueError: a name is not in `DIGITAL_GREEKS`.

    Source: M. Rubinstein & E. Reiner, Unscrambling the binary code, Risk 4 (1991); derivatives by differentiation.
    """
    return evaluate(DIGITAL_GREEKS, option, names)
