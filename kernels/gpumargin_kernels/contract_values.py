"""What expressions of a model file may name of one contract and of one unit."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels._safe import safe_divide
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.records import Contracts, UnitMarket
from gpumargin_kernels.scenario import ContractRisk

DAYS_PER_YEAR = 365


class ContractSide(NamedTuple):
    """What components may look at in the contract stage."""

    contracts: Contracts  # [M]
    risk: ContractRisk  # [M]
    market: UnitMarket  # [M], of each contract's unit
    numbers: dict[str, Leaf]  # [M], the component's numbers for each contract's unit; tables [M, T, 2]


def underlying_size(contracts: Contracts) -> Array:
    """Units of the underlying in one contract, `[M]`.

    The size of an inverse future and of a digital option is an amount of quote currency.
    """
    is_amount = contracts.is_inverse & ~contracts.is_option
    size = jnp.where(is_amount, safe_divide(contracts.size, contracts.mark, 0), contracts.size)
    if contracts.is_digital is None:
        return size
    forward = contracts.forward_fixed + contracts.forward_variable
    return jnp.where(contracts.is_digital, safe_divide(contracts.size, forward, 0), size)


def leg_masks(contracts: Contracts) -> dict[str, Array]:
    """Which contracts are of each kind, `[M]`; padding is of none."""
    is_listed = contracts.expiry_group >= 0
    is_dated = ~(contracts.is_option | contracts.is_perpetual | contracts.is_base)
    return {
        "option": contracts.is_option,
        "call": contracts.is_option & contracts.is_call,
        "put": contracts.is_option & ~contracts.is_call,
        "future": is_dated & is_listed,
        "perpetual": contracts.is_perpetual,
        "base": contracts.is_base,
    }


def _one_if(side: ContractSide, mask: Leaf) -> Array:
    one: Array = jnp.ones_like(side.contracts.size)
    return jnp.where(mask, one, 0)


def _in_underlying(side: ContractSide, slope: Leaf) -> Array:
    """A slope of an option's value to its forward in units of the underlying, `[M]`.

    A coin is worth spot and what it hedges is the forward: a coin-settled option counts by its own share of the
    forward, as a coin-settled future does, so that both have the delta of Black-76 in coins.
    """
    contracts = side.contracts
    forward = contracts.forward_fixed + contracts.forward_variable
    linear = safe_divide(slope, contracts.quote_ratio, 0)
    in_coins = safe_divide(jnp.multiply(slope, forward), contracts.settlement_ratio, 0)
    return jnp.where(contracts.is_inverse, in_coins, linear)


def _delta(side: ContractSide) -> Array:
    of_option = _in_underlying(side, side.risk.greeks.delta)
    return jnp.where(side.contracts.is_option, of_option, underlying_size(side.contracts))


def _venue_delta(side: ContractSide) -> Array:
    own, contracts = _delta(side), side.contracts
    given = jnp.asarray(contracts.inputs.get("venue_delta", jnp.nan))
    size = jnp.where(contracts.is_option, contracts.size, underlying_size(contracts))
    return jnp.where(jnp.isnan(given), own, given * size)


def _price(side: ContractSide) -> Array:
    contracts = side.contracts
    of_option = safe_divide(side.risk.value, contracts.size, 0)
    return jnp.where(contracts.is_option, of_option, contracts.mark * contracts.quote_ratio)


def _forward(side: ContractSide) -> Array:
    contracts = side.contracts
    level = jnp.where(contracts.is_option, contracts.forward_fixed + contracts.forward_variable, contracts.mark)
    return jnp.multiply(level, contracts.quote_ratio)


def _out_of_the_money(side: ContractSide, reference: Array) -> Array:
    strike = side.contracts.strike * side.contracts.quote_ratio
    return jnp.maximum(jnp.where(side.contracts.is_call, strike - reference, reference - strike), 0)


# Money in the accounting unit, sizes in units of the underlying, per one long contract; each `[M]`.
CONTRACT_VALUES: dict[str, Callable[[ContractSide], Array]] = {
    "size": lambda side: underlying_size(side.contracts),
    "price": _price,  # mark of one unit of the underlying; of an option its value per unit
    "value": lambda side: side.risk.value,  # of an option; 0 for what settles its P&L
    "quote": lambda side: jnp.asarray(side.contracts.quote_ratio),  # one unit of quote currency
    "forward": _forward,
    "strike": lambda side: jnp.multiply(side.contracts.strike, side.contracts.quote_ratio),
    "otm": lambda side: _out_of_the_money(side, jnp.asarray(side.market.spot)),  # out of the money by, against spot
    "otm_forward": lambda side: _out_of_the_money(side, _forward(side)),
    "years": lambda side: jnp.asarray(side.contracts.years),
    "days": lambda side: jnp.multiply(side.contracts.years, DAYS_PER_YEAR),
    "rate": lambda side: jnp.asarray(side.contracts.rate),
    "confidence": lambda side: jnp.asarray(side.contracts.confidence),
    "delta": _delta,  # units of the underlying
    "venue_delta": _venue_delta,
    "composite_delta": lambda side: jnp.asarray(side.risk.composite_delta),  # averaged over price points
    "gamma": lambda side: safe_divide(_in_underlying(side, side.risk.greeks.gamma), side.contracts.quote_ratio, 0),
    "vega": lambda side: jnp.asarray(side.risk.greeks.vega),  # per 1.00 of vol
    "theta": lambda side: jnp.asarray(side.risk.greeks.theta),  # per year
    "rho": lambda side: jnp.multiply(
        -jnp.asarray(side.contracts.years), side.risk.greeks.value
    ),  # per 1.00 of rate, forward held
    "is_option": lambda side: _one_if(side, side.contracts.is_option),
    "is_call": lambda side: _one_if(side, leg_masks(side.contracts)["call"]),
    "is_perpetual": lambda side: _one_if(side, side.contracts.is_perpetual),
    "is_base": lambda side: _one_if(side, side.contracts.is_base),
}


class ContractValues(Mapping[str, Array]):
    """Everything that may be named of every contract, `[M]` each (tables `[M, T, 2]`), computed where it is asked for.

    Names of the component's numbers come first, then columns of `marks`, then the values of this module.
    """

    def __init__(self, side: ContractSide) -> None:
        self._side = side
        # An input that a value of this module reads, such as the venue's own delta, is not named itself.
        inputs = {name: column for name, column in side.contracts.inputs.items() if name not in CONTRACT_VALUES}
        self._given = side.market._asdict() | inputs | side.numbers

    def __getitem__(self, name: str) -> Array:
        return jnp.asarray(self._given[name]) if name in self._given else CONTRACT_VALUES[name](self._side)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._given, *CONTRACT_VALUES)))

    def __len__(self) -> int:
        return len(list(iter(self)))
