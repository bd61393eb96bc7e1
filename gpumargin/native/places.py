"""Places of legs and balances in the host's own memory, each kind found in one call.

Whoever calls keeps the arrays alive and sees to it that every row is inside one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from gpumargin.native.control import INT
from gpumargin.native.lookup import find_first, find_member, place, read, read_fractions, replace
from gpumargin.native.requests import BYTE, Function, typed
from gpumargin_kernels.edits import NOWHERE, SHARED_ROW, BalancePlaces, LegPlaces

_SPAN = "array first width"
_IN_LEVEL = "{0}.buckets {0}.ends {0}.widths " + _SPAN
_STEPS = {
    "legs": (
        (place, "shard account " + _IN_LEVEL.format("unit_slots")),
        (partial(find_member, none=NOWHERE), f"unit_slots.row unit_slots.is_held rows.unit shard {_SPAN} unit row"),
        (partial(replace, key=NOWHERE, other=0), "row row near"),
        (partial(read, index=INT), "rows.cash shard near cash"),
        (partial(replace, key=NOWHERE, other=SHARED_ROW), "row cash cash_row"),
        (place, "shard near " + _IN_LEVEL.format("legs")),
        (find_first, f"legs.contract {_SPAN} contract slot is_there at"),
        (partial(replace, key=NOWHERE, other=0), "row is_there is_there"),
        (partial(read_fractions, default=0.0), "legs.quantity array at is_there quantity"),
        (place, "shard cash_row " + _IN_LEVEL.format("cash_legs")),
        (find_first, f"cash_legs.contract {_SPAN} contract cash_slot has_cash at"),
        (partial(replace, key=NOWHERE, other=0), "row has_cash has_cash"),
        (partial(read_fractions, default=float("nan")), "cash_legs.entry array at has_cash entry"),
        (partial(read_fractions, default=0.0), "cash_legs.unsettled array at has_cash unsettled"),
    ),
    "balances": (
        (partial(read, index=INT), "accounts.balances shard account row"),
        (place, "shard row " + _IN_LEVEL.format("balances")),
        (find_first, f"balances.asset {_SPAN} asset slot is_there at"),
        (partial(replace, key=SHARED_ROW, other=0), "row is_there is_there"),
        (partial(read, kind=BYTE), "balances.is_collateral array at is_collateral"),
        (partial(read_fractions, default=0.0), "balances.amount array at is_there amount"),
    ),
    "lengths": (
        (place, "shard row " + _IN_LEVEL.format("level")),
        (find_first, f"level.contract {_SPAN} pad used is_there at"),
    ),
}
_TYPES: dict[str, type] = dict.fromkeys(("shard", "array", "first", "width", "at"), np.int64)
_TYPES |= dict.fromkeys(("quantity", "entry", "unsettled", "amount"), np.float64)  # all other numbers are int32


class Level(NamedTuple):
    """Rows of a level, in the buckets of every shard, and columns of them."""

    ends: np.ndarray  # [B] rows of a shard up to the end of each bucket
    widths: np.ndarray  # [B] slots of each of them
    columns: Mapping[str, np.ndarray]  # [shards * B] where the arrays of each begin

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """By the names that steps give them."""
        own = {"buckets": np.array([len(self.ends)]), "ends": self.ends, "widths": self.widths, **self.columns}
        return {f"{name}.{key}": values for key, values in own.items()}


Levels = Mapping[str, Level]


@cache
def _function(name: str) -> Function:
    return Function(_STEPS[name])


def _run(name: str, levels: Levels, **asked: np.ndarray) -> dict[str, np.ndarray]:
    """All that the steps of a function find, and what they hand on, `[E]` by name."""
    addresses = {key: values for level, own in levels.items() for key, values in own.arrays(level).items()}
    given = {key: (values, np.int64) for key, values in addresses.items()}
    arrays = typed(given | {key: (values, _TYPES.get(key, np.int32)) for key, values in asked.items()})
    function, count = _function(name), len(asked["shard"])
    rest = (key for key in function.names if key not in arrays)
    found: dict[str, np.ndarray] = {key: np.empty(count, _TYPES.get(key, np.int32)) for key in rest}
    function.run(count, arrays | found)
    return found


def leg_places(
    levels: Levels, shard: np.ndarray, account: np.ndarray, unit: np.ndarray, contract: np.ndarray
) -> LegPlaces:
    """Where legs are and what they hold.

    Args:
      levels: `unit_slots` with `row` and `is_held`, `rows` with `unit` and `cash`, `legs` with `contract` and
        `quantity`, `cash_legs` with `contract`, `entry` and `unsettled`.
      shard: `[E]`.
      account: `[E]` row of each.
      unit: `[E]`.
      contract: `[E]`.
    """
    found = _run("legs", levels, shard=shard, account=account, unit=unit, contract=contract)
    return LegPlaces(*(found[name] for name in LegPlaces._fields))


def balance_places(levels: Levels, shard: np.ndarray, account: np.ndarray, asset: np.ndarray) -> BalancePlaces:
    """Where balances are and what they hold.

    Args:
      levels: `accounts` with `balances`, and `balances` with `asset`, `is_collateral` and `amount`.
      shard: `[E]`.
      account: `[E]` row of each.
      asset: `[E]`.
    """
    found = _run("balances", levels, shard=shard, account=account, asset=asset)
    return BalancePlaces(*(found[name] for name in BalancePlaces._fields))


def row_lengths(level: Level, shard: np.ndarray, row: np.ndarray, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Slots in use and slots of rows, `[E]` each; `pad` is the contract of slots that are not in use."""
    found = _run("lengths", {"level": level}, shard=shard, row=row, pad=np.full(len(row), pad))
    return found["used"], found["width"]
