"""What the value and all Greeks of a European option share, each computed once and only if something asks for it."""

from functools import cached_property
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._log import log_ratio
from gpumargin_kernels.normal import INV_SQRT_TWO_PI, bell, bounded, scaled_tail, scaled_tail_rise

# Standard deviations below which the Taylor series of six terms is right to 1e-15 (float32: 1e-8) of itself.
_SERIES_BELOW_64, _SERIES_BELOW_32 = 1 / 128, 1 / 16


class Option(NamedTuple):
    """Terms of European options; all fields broadcast and have one float type.

    The underlying follows a lognormal law whose mean grows at `carry`: its forward is underlying * exp(carry * years).
    Black-76: the underlying is a forward, no carry. Black-Scholes-Merton: carry = rate - dividend yield.
    """

    underlying: Array  # price, >= 0, quote currency
    strike: Array  # >= 0, quote currency
    vol: Array  # >= 0, decimal per sqrt-year
    years: Array  # time to expiry, >= 0
    is_call: Array  # bool
    rate: Array | None = None  # of the discount, continuous, per year; None: no discount
    carry: Array | None = None  # growth of the underlying, continuous, per year; None: 0


def inverse(x: Array) -> Array:
    """1 / x, 0 where x is 0: for a factor whose partner is 0 there too."""
    is_zero = x == 0
    return jnp.where(is_zero, 0, 1 / jnp.where(is_zero, 1, x))


def not_below_zero(x: Array) -> Array:
    """The larger of `x` and 0; its slope at 0 is that of `x`, where a maximum would have half of it."""
    return jnp.where(x < 0, 0, x)


class Moves:
    """d1, d2, density and tails of some options.

    Limits. Without time, vol, strike or underlying left (`is_limit`) d1 and d2 are so large that the density is exactly
    0 and probabilities exactly 0 or 1 by the side of the strike the forward is on; on the strike itself (`is_kink`)
    both are 0, probabilities 1/2, and the density counts as 0.
    """

    def __init__(self, option: Option) -> None:
        """Takes the terms; computes nothing yet."""
        self.option = option

    @cached_property
    def root_years(self) -> Array:
        """sqrt(years); its slope at 0 is 0 instead of infinite."""
        is_zero = self.option.years == 0
        return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, self.option.years)))

    @cached_property
    def stdev(self) -> Array:
        """Vol times the root of years."""
        return self.option.vol * self.root_years

    @cached_property
    def discount(self) -> Array:
        """exp(-rate * years)."""
        rate, years = self.option.rate, self.option.years
        return jnp.ones_like(years) if rate is None else jnp.exp(-rate * years)

    @cached_property
    def growth(self) -> Array:
        """Forward over underlying."""
        carry, years = self.option.carry, self.option.years
        return jnp.ones_like(years) if carry is None else jnp.exp(carry * years)

    @cached_property
    def forward(self) -> Array:
        """Mean of the underlying at expiry."""
        return self.option.underlying * self.growth

    @cached_property
    def rate(self) -> Array | float:
        """Rate of the discount."""
        return 0.0 if self.option.rate is None else self.option.rate

    @cached_property
    def carry(self) -> Array | float:
        """Growth rate of the underlying."""
        return 0.0 if self.option.carry is None else self.option.carry

    @cached_property
    def is_limit(self) -> Array:
        """Whether nothing is uncertain any more."""
        return (self.stdev == 0) | (self.option.underlying == 0) | (self.option.strike == 0)

    @cached_property
    def log_moneyness(self) -> Array:
        """ln(forward / strike), to the last digit near 0; +-infinity where the strike or the underlying is 0."""
        price, strike = self.option.underlying, self.option.strike
        is_zero = (price == 0) | (strike == 0)
        of_price = log_ratio(jnp.where(is_zero, 1, price), jnp.where(is_zero, 1, strike))
        finite = of_price if self.option.carry is None else of_price + self.option.carry * self.option.years
        return jnp.where(strike == 0, jnp.inf, jnp.where(price == 0, -jnp.inf, finite))

    @cached_property
    def is_below(self) -> Array:
        """Whether the forward is at or below a strike above 0, so that the call is the side out of the money.

        By the prices, not by their logarithm: every output selects by this, and XLA on a CPU would compute the
        logarithm anew for each of them (measured: a third of the time of value and five Greeks in float64).
        """
        return (self.forward <= self.option.strike) & (self.option.strike > 0)

    @cached_property
    def is_kink(self) -> Array:
        """Whether nothing is uncertain and the forward is on the strike, where the payoff has no slope."""
        return self.is_limit & (self.log_moneyness == 0)

    @cached_property
    def _outer_and_inner(self) -> tuple[Array, Array]:
        """(d1, d2) of the call below the strike, (-d2, -d1) above: the option out of the money, outer >= inner <= 0.

        Cut to where the density is 0, so that no product of the two meets 0 * infinity.
        """
        half = 0.5 * self.stdev
        finite = jnp.where(self.is_limit, 0, -jnp.abs(self.log_moneyness))
        ratio = finite / jnp.where(self.is_limit, 1, self.stdev)
        certain = jnp.where(self.is_kink, 0, bounded(jnp.full_like(ratio, -jnp.inf)))
        return (
            jnp.where(self.is_limit, certain, bounded(ratio + half)),
            jnp.where(self.is_limit, certain, bounded(ratio - half)),
        )

    @cached_property
    def d1(self) -> Array:
        """ln(forward / strike) / stdev + stdev / 2."""
        outer, inner = self._outer_and_inner
        return jnp.where(self.is_below, outer, -inner)

    @cached_property
    def d2(self) -> Array:
        """ln(forward / strike) / stdev - stdev / 2."""
        outer, inner = self._outer_and_inner
        return jnp.where(self.is_below, inner, -outer)

    @cached_property
    def _bells(self) -> tuple[Array, Array]:
        """exp(-move^2 / 2) of the outer and the inner move.

        The ratio of the two is that of forward and strike: no second exponential, and a factor of at most 1.
        """
        larger = jnp.maximum(self.forward, self.option.strike)
        is_zero = larger == 0
        ratio = jnp.minimum(self.forward, self.option.strike) / jnp.where(is_zero, 1, larger)
        outer = bell(self._outer_and_inner[0])
        return outer, outer * jnp.where(is_zero, 1, ratio)

    @cached_property
    def _scaled_tails(self) -> tuple[Array, Array]:
        """Tail over bell beyond the outer and the inner move."""
        outer, inner = self._outer_and_inner
        size = jnp.where(outer > 0, outer, -outer)
        return scaled_tail(size), scaled_tail(-inner)

    @cached_property
    def density(self) -> Array:
        """Standard normal density at d1; 0 at a limit."""
        outer, inner = self._bells
        return jnp.where(self.is_limit, 0, jnp.where(self.is_below, outer, inner) * INV_SQRT_TWO_PI)

    @cached_property
    def density_2(self) -> Array:
        """Standard normal density at d2; 0 at a limit."""
        outer, inner = self._bells
        return jnp.where(self.is_limit, 0, jnp.where(self.is_below, inner, outer) * INV_SQRT_TWO_PI)

    @cached_property
    def sign(self) -> Array:
        """1 for calls, -1 for puts."""
        return jnp.where(self.option.is_call, 1.0, -1.0).astype(self.stdev.dtype)

    @cached_property
    def _probabilities(self) -> tuple[Array, Array]:
        """Phi(sign d1) and Phi(sign d2), each from the tail on its side."""
        outer, inner = (bell * tail for bell, tail in zip(self._bells, self._scaled_tails, strict=True))
        tail_1, tail_2 = jnp.where(self.is_below, outer, inner), jnp.where(self.is_below, inner, outer)
        return (
            jnp.where(self.sign * self.d1 > 0, 1 - tail_1, tail_1),
            jnp.where(self.sign * self.d2 > 0, 1 - tail_2, tail_2),
        )

    @cached_property
    def probability_1(self) -> Array:
        """Phi(sign * d1): the probability of expiring in the money, measured in units of the underlying."""
        return self._probabilities[0]

    @cached_property
    def probability_2(self) -> Array:
        """Phi(sign * d2): the probability of expiring in the money."""
        return self._probabilities[1]

    @cached_property
    def undiscounted_value(self) -> Array:
        """Value of the side out of the money, plus the intrinsic value (put-call parity): neither loses digits.

        With base the smaller of forward and strike and t the scaled tail, the side out of the money is worth
        base * bell(outer) * (t(-outer) - t(-inner)); t(-x) = 1 / bell(x) - t(x) for an outer move above 0. Where stdev
        is small the difference of the tails would cancel, so it is a Taylor series from the inner one.
        """
        forward, strike = self.forward, self.option.strike
        base, is_large = jnp.minimum(forward, strike), self._outer_and_inner[0] > 0
        tail_outer, tail_inner = self._scaled_tails
        spread = jnp.where(is_large, tail_outer, -tail_outer) + tail_inner
        weight = base * jnp.where(self.is_limit, 0, self._bells[0])
        is_near = self.stdev < (_SERIES_BELOW_64 if spread.dtype == jnp.float64 else _SERIES_BELOW_32)
        rise = scaled_tail_rise(-self._outer_and_inner[1], tail_inner, jnp.where(is_near, self.stdev, 0))
        apart = jnp.where(is_large, base, 0) - weight * spread
        otm = not_below_zero(jnp.where(is_near, weight * rise, apart))
        itm_by = not_below_zero(jnp.where(self.is_below, strike - forward, forward - strike))
        return otm + jnp.where(self.option.is_call == self.is_below, 0, itm_by)
