"""Option libraries as opponents, float64 only; each function raises ImportError where its library is not installed.

Those that take one option per call get the first `SCALAR_OPTIONS` alone, and their time is scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SCALAR_OPTIONS = 2_000
SCALAR = frozenset({"QuantLib", "py_lets_be_rational"})  # names of those that take one option per call

Work = Callable[[], Any]


def quantlib_greeks(option: Any) -> Work:
    """Its BlackCalculator: value and five Greeks of one option."""
    import QuantLib

    s, k, vol, t, is_call, r, b = (column[:SCALAR_OPTIONS] for column in option)
    terms = (s * np.exp(b * t), vol * np.sqrt(t), np.exp(-r * t), s, k, t, is_call)
    rows = list(zip(*(column.tolist() for column in terms), strict=True))

    def one(row: tuple[Any, ...]) -> tuple[float, ...]:
        forward, stdev, discount, spot, strike, years, call = row
        payoff = QuantLib.PlainVanillaPayoff(QuantLib.Option.Call if call else QuantLib.Option.Put, strike)
        found = QuantLib.BlackCalculator(payoff, forward, stdev, discount)
        slopes = found.delta(spot), found.gamma(spot), found.vega(years), found.theta(spot, years), found.rho(years)
        return (found.value(), *slopes)

    return lambda: np.array([one(row) for row in rows]).T


def fast_vollib_greeks(option: Any) -> Work:
    """Its numba backend; its vega and rho are per cent, its theta per day."""
    from fast_vollib.backends import numba_backend

    s, k, vol, t, is_call, r, b = option
    columns = (np.where(is_call, "c", "p"), s, k, t, r, vol, r - b)

    def work() -> list[Any]:
        found = numba_backend.greeks("black_scholes_merton", *columns)
        value = numba_backend.price_black_scholes_merton(*columns)
        slopes = [found["delta"], found["gamma"], 100 * found["vega"], 365 * found["theta"], 100 * found["rho"]]
        return [value, *slopes]

    return work


PRICERS: dict[str, Callable[[Any], Work]] = {"QuantLib": quantlib_greeks, "fast-vollib numba": fast_vollib_greeks}


def quantlib_vol(options: Any) -> Work:
    """Its blackFormulaImpliedStdDev: a safeguarded Newton iteration from its own guess, to 1e-12 of the deviation."""
    import QuantLib

    columns = (options.strike, options.forward, options.value, options.discount, np.sqrt(options.years))
    rows = list(zip(*(column[:SCALAR_OPTIONS].tolist() for column in (options.is_call, *columns)), strict=True))
    kinds = {True: QuantLib.Option.Call, False: QuantLib.Option.Put}
    guess: float = QuantLib.nullDouble()

    def one(row: tuple[Any, ...]) -> float:
        is_call, strike, forward, value, discount, root = row
        deviation = QuantLib.blackFormulaImpliedStdDev(
            kinds[is_call], strike, forward, value, discount, 0.0, guess, 1e-12
        )
        return float(deviation / root)

    return lambda: np.array([one(row) for row in rows])


def fast_vollib_vol(options: Any) -> Work:
    """Its default solver (Halley, then bisection) in its numba backend."""
    from fast_vollib.backends import numba_backend

    flag, rate = np.where(options.is_call, "c", "p"), np.zeros(len(options.value))
    columns = (options.value, options.forward, options.strike, options.years, rate, flag)
    return lambda: numba_backend.implied_volatility("black", *columns, on_error="ignore")


def fast_vollib_jaeckel_vol(options: Any) -> Work:
    """Its solver after Jaeckel (numba where it finds it)."""
    from fast_vollib.jackel import jackel_iv_black

    return lambda: jackel_iv_black(options.value, options.forward, options.strike, options.years, options.is_call)


def lets_be_rational_vol(options: Any) -> Work:
    """The reference algorithm, also that of vollib, in plain Python (numba 0.68 cannot compile its release 1.1.2)."""
    from py_lets_be_rational.lets_be_rational import implied_volatility_from_a_transformed_rational_guess as solve

    columns = (options.value, options.forward, options.strike, options.years, np.where(options.is_call, 1.0, -1.0))
    rows = list(zip(*(column[:SCALAR_OPTIONS].tolist() for column in columns), strict=True))
    return lambda: np.array([solve(*row) for row in rows])


SOLVERS: dict[str, Callable[[Any], Work]] = {
    "fast-vollib numba": fast_vollib_vol,
    "fast-vollib jaeckel": fast_vollib_jaeckel_vol,
    "QuantLib": quantlib_vol,
    "py_lets_be_rational": lets_be_rational_vol,
}
