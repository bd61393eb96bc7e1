"""The records that kernels exchange, and the axis legend every docstring uses.

Axis legend, always batch first and scenario last:
  `A` margin accounts, `U` risk units of the book, `R` unit rows (one account in one unit), `L` slots of a row (padded),
  `M` contracts (one more row than there are contracts: the last is padding and all zero), `C` assets,
  `S` scenario columns (all sets side by side), `K` columns of a tally, `T` terms of a tally.

Money is in the accounting unit of the model unless a field says otherwise; sizes are signed contracts, long > 0; vols
are decimal per sqrt-year; time is years of 365 days; requirements and losses are positive.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, NamedTuple, TypeVar

import jax
from jax import Array

from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.svi import SviSlice

Level = Literal["unit", "expiry", "strike", "position"]
Bucket = TypeVar("Bucket")


class Contracts(NamedTuple):
    """Every contract of the book and the market it is priced against.

    `settlement_ratio` is the price of the settlement asset in the accounting unit. A base contract is one unit of a
    risk unit's own asset, held as balance.
    """

    unit: Leaf  # [M] int32, index of the risk unit
    expiry_group: Leaf  # [M] int32, equal for contracts of one unit and expiry
    strike_group: Leaf  # [M] int32, equal for contracts of one expiry group and strike
    is_option: Leaf  # [M] bool
    is_call: Leaf  # [M] bool
    is_perpetual: Leaf  # [M] bool
    is_base: Leaf  # [M] bool
    is_inverse: Leaf  # [M] bool, value and P&L in coin
    size: Leaf  # [M] units of underlying (inverse futures, digital options: quote currency) per contract
    strike: Leaf  # [M] quote currency
    forward_fixed: Leaf  # [M] part of the forward that no shock moves
    forward_variable: Leaf  # [M] part of the forward that spot shocks multiply
    rate: Leaf  # [M] continuously compounded, decimal per year
    years: Leaf  # [M] time to expiry
    vol: Leaf  # [M] mark vol; NaN = take it from `svi`
    mark: Leaf  # [M] venue's mark; options: settlement currency, NaN = price it; others: quote currency
    settlement_ratio: Leaf  # [M] accounting unit per settlement asset
    quote_ratio: Leaf  # [M] accounting unit per quote currency
    confidence: Leaf  # [M] least confidence of the feeds of the contract's expiry, 0..1
    svi: SviSlice  # [M] each
    inputs: dict[str, Leaf]  # [M] each, columns of `marks` that the model names
    # [M] bool, pays `size` of quote currency in the money; None: no contract does, and nothing is computed for it.
    is_digital: Leaf | None = None
    settlement_column: Leaf | None = None  # [M] int32 column of `Settlement`, -1 = pays no P&L; None: nothing settles


class UnitMarket(NamedTuple):
    """What a risk unit's own asset is worth."""

    spot: Leaf  # [U] index price of the underlying, accounting unit
    spot_confidence: Leaf  # [U] 0..1
    perpetual_confidence: Leaf  # [U] least confidence of the unit's perpetual marks, 0..1
    dollar: Leaf  # [U] accounting unit per USD, the same for all


class Settlement(NamedTuple):
    """Assets that contracts settle in, the columns `J` of what units settle."""

    ratio: Leaf  # [J] accounting unit per asset
    of_unit: Leaf  # [U] int32 column of the unit's contracts, -1 where they settle in several


class Assets(NamedTuple):
    """Collateral assets."""

    ratio: Leaf  # [C] accounting unit per asset, at the price that collateral is valued at
    price: Leaf  # [C] USD
    columns: dict[str, Leaf]  # [C] each, what else the model's balance expressions name; prices in the accounting unit
    settlement: "Settlement | None" = None  # where unrealised P&L joins balances


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("columns", "terms"),
    meta_fields=("level", "close"),
)
@dataclass(frozen=True)
class Tally:
    """What a component adds up over the legs of a row, and what it does when a group of legs closes.

    Columns stand by what of a leg multiplies them: `net` its signed quantity, `gross` its absolute one, `long` and
    `short` the quantity of longs and of shorts as positive numbers, `count` one, any other name the leg's own input of
    that name (see `Legs`).

    At level `unit` the sums are the result, side by side in the order of those words. At the other levels they are
    formed per group, and `close(sums by word [R, K], terms [R, T], one [])` turns each group's sums into `[R, J]` that
    are added up over the groups of the row; it multiplies every product that it adds to something by `one`, a 1 that
    no compiler knows. `close` is a function at module level or a frozen record with a `__call__`: it is part of the
    compiled program's identity.
    """

    columns: dict[str, Leaf]  # [M, K] each
    terms: Leaf  # [M, T] constants of the group that the contract belongs to
    level: Level = "unit"
    close: Callable[[dict[str, Array], Array, Array], Array] | None = None  # None at unit level


class Legs(NamedTuple):
    """One bucket of unit rows, padded to a common number of slots.

    Padding stands behind a row's legs and has quantity 0 on a padding contract, whose groups are negative.
    """

    unit: Leaf  # [R] int32
    contract: Leaf  # [R, L] int32
    quantity: Leaf  # [R, L] signed contracts
    inputs: dict[str, Leaf]  # [R, L] each, what else of a leg the model uses; 0 in padding


class CashLegs(NamedTuple):
    """One bucket of unit rows with the legs whose P&L is not yet in the balance."""

    contract: Leaf  # [R, L] int32
    quantity: Leaf  # [R, L] signed contracts
    entry: Leaf  # [R, L] entry price; NaN = P&L already settled
    unsettled: Leaf  # [R, L] cash due, settlement asset


class UnitSlots(NamedTuple):
    """One bucket of accounts with the positions of their unit rows."""

    row: Leaf  # [A, L] int32 index into the unit rows
    is_held: Leaf  # [A, L] bool, False = padding


class Balances(NamedTuple):
    """One bucket of accounts with their asset balances; padding has amount 0."""

    asset: Leaf  # [A, L] int32
    amount: Leaf  # [A, L] signed units of the asset
    is_collateral: Leaf  # [A, L] bool
    account: Leaf  # [A] int32, place of the account in its part
    category: Leaf = None  # [A] int32, what overrides numbers by asset, 0 = nothing; None = the model has none
    settlement: Leaf = None  # [A, L] int32 column of `Settlement`, -1 = nothing settles here; None = nothing settles
    inputs: dict[str, Leaf] | None = None  # [A, L] each, what else of a balance the model names; 0 in padding


class Buckets(NamedTuple, Generic[Bucket]):
    """Rows sorted into buckets by width, and where each row went."""

    buckets: tuple[Bucket, ...]
    place: Leaf | None  # [rows] int32 index into the buckets laid end to end; None = that is how rows are numbered


class Book(NamedTuple):
    """One part of the book: whole accounts, ready for the leg and account stages."""

    legs: Buckets[Legs]
    cash_legs: Buckets[CashLegs]
    unit_slots: Buckets[UnitSlots]
    balances: Buckets[Balances]
    settings: dict[str, Leaf]  # [A] each, numbers that accounts set for themselves
