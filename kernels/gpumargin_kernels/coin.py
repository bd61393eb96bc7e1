"""Coin-settled (inverse) European options: the premium and the payoff are paid in the underlying."""

from collections.abc import Sequence

from jax import Array

from gpumargin_kernels._moves import Moves, Option, inverse
from gpumargin_kernels.black import Formulas, evaluate


def _per_forward(m: Moves) -> Array:
    return inverse(m.option.underlying)


def _delta(m: Moves) -> Array:
    return m.sign * m.option.strike * m.probability_2 * _per_forward(m) ** 2


def _gamma(m: Moves) -> Array:
    return _per_forward(m) ** 2 * m.density * inverse(m.stdev) - 2 * _delta(m) * _per_forward(m)


def _vega(m: Moves) -> Array:
    return m.density * m.root_years


# With c = V / F and V the undiscounted Black-76 value; derivatives of c, none of them assembled from a difference of
# large terms: F dc/dF = V_F - c = sign K Phi(sign d2) / F.
COIN_GREEKS: Formulas = {
    "value": lambda m: m.undiscounted_value * _per_forward(m),
    "delta": _delta,
    "gamma": _gamma,
    "vega": _vega,
    "theta": lambda m: -0.5 * m.density * m.option.vol * inverse(m.root_years),
    "vanna": lambda m: -m.density * m.d1 * _per_forward(m) * inverse(m.option.vol),
    "volga": lambda m: _vega(m) * m.d1 * m.d2 * inverse(m.option.vol),
    "charm": lambda m: 0.5 * m.density * m.d1 * _per_forward(m) * inverse(m.option.years),
    # Hedge in quote currency, underlying per option: of the option alone, and of the option with its premium in coin.
    "quote_delta": lambda m: m.sign * m.probability_1,
    "premium_adjusted_delta": lambda m: m.sign * m.option.strike * m.probability_2 * _per_forward(m),
}


def coin_greeks(
    forward: Array, strike: Array, vol: Array, years: Array, is_call: Array, *, names: Sequence[str]
) -> dict[str, Array]:
    """Value in coin of one long coin-settled option, and its derivatives.

    Args:
      forward: > 0, quote currency. All arguments broadcast. A put grows without bound, in coin, as the forward falls:
        at a forward of 0 there is no value, and the numbers given there mean nothing.
      strike: >= 0, quote currency.
      vol: >= 0, decimal per sqrt-year.
      years: time to expiry, >= 0.
      is_call: bool.
      names: which of `COIN_GREEKS`, in which order; static under `jax.jit`.

    Returns:
      Name -> broadcast shape of the inputs. Coin per option for a payoff of max(+-(F - K), 0) / F coin, per 1.00 of
      forward (quote currency), per 1.00 of vol, per year as calendar time passes with the forward held. Without time or
      vol the limits are those of `black`.

    Raises:
      ValueError: a name is not in `COIN_GREEKS`.

    Source: Black-76 as `black_value`, divided by the forward; derivatives by differentiation, e.g. the premium-adjusted
    delta of U. Wystup, FX Options and Structured Products (2006), section 1.2.
    """
    return evaluate(COIN_GREEKS, Option(forward, strike, vol, years, is_call), names)
