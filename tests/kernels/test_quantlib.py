"""Black-76 values and Greeks against QuantLib, an implementation that shares nothing with ours."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from gpumargin_kernels._moves import Option
from gpumargin_kernels.black import option_greeks

QuantLib: Any = pytest.importorskip("QuantLib", reason="QuantLib is optional: pip install QuantLib")

NAMES = ("value", "delta", "gamma", "vega", "theta", "discount_rho", "dual_delta")


def options(rng: np.random.Generator, count: int) -> Option:
    """Half ordinary, half corners: a minute to 5 years, vol 1 % to 500 %, strikes a hundredth to a hundred times."""
    price = rng.choice([100.0, 65_000.0, 0.021], count)
    is_corner = rng.random(count) < 0.5
    wide = np.exp(rng.uniform(-np.log(100), np.log(100), count))
    strike = price * np.where(is_corner, wide, np.exp(rng.normal(0, 0.2, count)))
    vol = np.where(is_corner, 10 ** rng.uniform(-2, 0.7, count), rng.uniform(0.2, 1.5, count))
    years = np.where(is_corner, 10 ** rng.uniform(-5.7, 0.7, count), rng.uniform(0.01, 2, count))
    return Option(price, strike, vol, years, rng.random(count) < 0.5, rng.uniform(-0.02, 0.1, count))


def by_quantlib(row: tuple[Any, ...]) -> tuple[float, ...]:
    """One option on a forward; the wrapper's rho also moves the forward, so ours of the discount is -T times value."""
    forward, strike, vol, years, is_call, rate = row
    side = QuantLib.Option.Call if is_call else QuantLib.Option.Put
    payoff = QuantLib.PlainVanillaPayoff(side, strike)
    found = QuantLib.BlackCalculator(payoff, forward, vol * np.sqrt(years), np.exp(-rate * years))
    slopes = found.deltaForward(), found.gammaForward(), found.vega(years)
    theta = found.theta(forward, years)
    return (found.value(), *slopes, theta, -years * found.value(), found.strikeSensitivity())


def test_values_and_greeks_of_options_on_forwards_are_those_of_quantlib(rng: np.random.Generator) -> None:
    option = options(rng, 20_000)
    found = jax.jit(option_greeks, static_argnums=1)(option, NAMES)
    expected = np.array([by_quantlib(row) for row in zip(*(x.tolist() for x in option[:6]), strict=True)]).T
    larger, root = np.maximum(option.underlying, option.strike), np.sqrt(option.years)
    one, peak = np.ones_like(root), 1 / (option.underlying * option.vol * root)
    scales = (larger, one, peak, larger * root, larger * (1 + option.vol / root), larger * option.years, one)
    for name, want, scale in zip(NAMES, expected, scales, strict=True):
        error = np.abs(np.asarray(found[name]) - want) / scale
        worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        assert error[worst] <= 1e-10, f"{name} {found[name][worst]!r}, QuantLib {want[worst]!r} at option {worst}"
