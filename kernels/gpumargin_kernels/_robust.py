"""Location and weights that a few bad quotes cannot move."""

import jax.numpy as jnp
from jax import Array

# Efficiency 95 % where errors are normal: P. W. Holland & R. E. Welsch, Robust regression using iteratively reweighted
# least squares, Communications in Statistics A6 (1977).
HUBER_BEND = 1.345
MAD_OF_NORMAL = 0.6744897501960817  # median of the size of a standard normal number


def weighted_median(values: Array, weight: Array) -> Array:
    """The value below and above which half of the weight lies; halfway between two where both are.

    Args:
      values: `[Q]`; may be NaN where the weight is 0.
      weight: `[Q]`, >= 0.

    Returns:
      A scalar; NaN where no weight is above 0.
    """
    order = jnp.argsort(jnp.where(weight > 0, values, jnp.inf))
    ordered, total = values[order], jnp.cumsum(weight[order])
    half = 0.5 * total[-1]
    middle = 0.5 * (ordered[jnp.argmax(total >= half)] + ordered[jnp.argmax(total > half)])
    return jnp.where(half > 0, middle, jnp.nan)


def huber_weight(residual: Array, weight: Array, smallest_scale: float | Array) -> Array:
    """Weights of the next least-squares pass: those given, less where a residual is large beside the typical one.

    The scale is the median absolute residual as a standard deviation. Residuals up to 1.345 scales keep their weight;
    beyond, it falls as 1 / size, so that no quote pulls harder than one at the bend.

    Args:
      residual: `[Q]`, finite.
      weight: `[Q]`, >= 0; 0 = no quote.
      smallest_scale: > 0, unit of the residual: below it all residuals count fully.

    Returns:
      `[Q]`.

    Source: P. J. Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35 (1964); as
    iterated weights in Huber & Ronchetti, Robust Statistics, 2nd edition (2009), section 7.8.
    """
    size = jnp.abs(residual)
    scale = weighted_median(size, weight) / MAD_OF_NORMAL
    bend = HUBER_BEND * jnp.maximum(jnp.nan_to_num(scale), smallest_scale)
    return weight * bend / jnp.maximum(size, bend)
