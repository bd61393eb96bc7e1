"""Prices at which lending venues hand out collateral."""

from jax import Array


def discounted_collateral(
    base_value: Array, price: Array, *, store_front_factor: Array, liquidation_factor: Array
) -> Array:
    """Units of collateral that a payment buys from the reserves of a market.

    Args:
      base_value: value of the base asset that is paid.
      price: price of one unit of collateral, > 0.
      store_front_factor: share of the liquidation penalty that buyers get as discount, 0..1.
      liquidation_factor: share of a seized collateral's value that pays debt, 0..1.

    Returns:
      base_value / (price (1 - store_front_factor (1 - liquidation_factor))), any common shape.

    Source: Compound v3, quoteCollateral.
    """
    discount = store_front_factor * (1 - liquidation_factor)
    return base_value / (price * (1 - discount))
