"""Forward and vol that a book's own prices say: forwards by put-call parity, vols from mark_price or an SVI slice."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels.implied_vol import implied_vol
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.parity import ParityForward, parity_forward
from gpumargin_kernels.svi import SviSlice, svi_vol


class CallPutPairs(NamedTuple):
    """Pairs of a call and a put of one strike, of expiries without a forward; padding has weight 0."""

    strike: Leaf  # [E, Q] quote currency
    difference: Leaf  # [E, Q] price of the call less that of the put, quote currency (coin for inverse options)
    weight: Leaf  # [E, Q] 1, or 0 for padding
    is_inverse: Leaf  # [E] bool


class MarkedOptions(NamedTuple):
    """Options and what is known of each, `[N]`."""

    expiry: Leaf  # int32, row of its expiry among the pairs; anything valid where the forward is known
    strike: Leaf  # >= 0, quote currency
    years: Leaf  # > 0
    is_call: Leaf  # bool
    is_inverse: Leaf  # bool, price in coin
    forward: Leaf  # quote currency; NaN = by parity
    vol: Leaf  # decimal; NaN = from the slice, or without one from the price
    price: Leaf  # per unit of underlying, quote currency (coin for inverse options); NaN = none
    svi: SviSlice  # NaN = none


class OwnVol(NamedTuple):
    """What prices say of each option, `[N]`, and of each expiry without a forward, `[E]`."""

    forward: Leaf  # NaN where parity does not tell
    vol: Leaf  # decimal per sqrt-year; NaN where neither vol, slice nor price tells
    status: Leaf  # int8, of the price, whether it was needed or not: index into `implied_vol.STATUS_WORDS`
    parity: ParityForward


def own_vol(pairs: CallPutPairs, options: MarkedOptions) -> OwnVol:
    """Forward and vol of each option without the help of other expiries or, for vols, of other options.

    The vol is the one given, else that of the slice, else that which Black-76 without discount turns into the price: a
    margin run values options in the same way, so what is filled gives the price back. An inverse option's price times
    the forward is its price in quote currency.

    Args:
      pairs: of the expiries whose forward is missing, each with prices in coin or each in quote currency.
      options: what is known.

    Returns:
      `OwnVol`.

    Source: as `parity_forward`, `svi_vol` and `implied_vol`.
    """
    undiscounted = jnp.ones_like(pairs.strike[:, 0])
    parity = parity_forward(
        pairs.strike, pairs.difference, pairs.weight, discount=undiscounted, is_inverse=pairs.is_inverse
    )
    forward = jnp.where(jnp.isnan(options.forward), parity.forward[options.expiry], options.forward)
    implied = implied_vol(
        jnp.where(options.is_inverse, options.price * forward, options.price),
        forward,
        options.strike,
        options.years,
        options.is_call,
        jnp.ones_like(forward),
    )
    of_prices = jnp.where(jnp.isnan(options.svi.a), implied.vol, svi_vol(options.svi, options.strike))
    vol: Array = jnp.where(jnp.isnan(options.vol), of_prices, options.vol)
    return OwnVol(forward, vol, implied.status, parity)
