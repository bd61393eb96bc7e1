"""The standard normal distribution, as option pricing needs it."""

import math

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erfc

_SQRT_HALF = math.sqrt(0.5)
_INV_SQRT_TWO_PI = 1 / math.sqrt(2 * math.pi)


def normal_cdf(x: Array) -> Array:
    """Probability that a standard normal variable is at most `x`.

    Args:
      x: any shape, any real value; infinities give 0 and 1.

    Returns:
      The shape of `x`, in [0, 1]; the lower tail keeps its relative accuracy because erfc, not 1 + erf, is used.

    Source: Abramowitz & Stegun, Handbook of Mathematical Functions (1972), 26.2.29.
    """
    return 0.5 * erfc(-x * _SQRT_HALF)


def normal_density(x: Array) -> Array:
    """Density of the standard normal distribution at `x` (any shape, any real value).

    Source: Abramowitz & Stegun, Handbook of Mathematical Functions (1972), 26.2.1.
    """
    return jnp.exp(-0.5 * x * x) * _INV_SQRT_TWO_PI
