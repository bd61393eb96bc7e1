"""What accounts hold, read from where it lies as flat columns in canonical order."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpumargin.pack.columns import Floats, Ints
from gpumargin.resident.layout import EMPTY, Where
from gpumargin.resident.parts import Parts, Picked

_CASH = (np.int32, np.float64, np.float64)
_BALANCES = (np.int32, np.float64, np.bool_)


class Held(NamedTuple):
    """What some accounts hold, as flat columns in canonical order; `owner` counts the accounts asked for."""

    rows: Where  # [R] unit rows
    cash: Where  # [R]
    accounts: Where  # [A]
    balances: Where  # [A]
    status: Ints  # [A]
    row_owner: Ints  # [R]
    row_unit: Ints  # [R]
    leg_owner: Ints  # [N]
    contract: Ints  # [N]
    quantity: Floats  # [N]
    entry: Floats  # [N] NaN = settled, or an option
    unsettled: Floats  # [N]
    balance_owner: Ints  # [B]
    asset: Ints  # [B]
    amount: Floats  # [B]
    is_collateral: np.ndarray  # [B]


def _starts(lengths: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def read_held(parts: Parts, own: Where, unit_of: np.ndarray) -> Held:
    """What accounts hold.

    Args:
      parts: what is resident.
      own: `[A]` where the accounts lie.
      unit_of: `[M]` unit of every contract.
    """
    units = parts.picked("unit_slots", own, ("is_held", "row"))
    unit_start, (row,) = _runs(units, len(own.row), (np.int32,), lambda is_held, _: is_held, drop=1)
    row_owner = np.repeat(np.arange(len(own.row)), np.diff(unit_start))
    rows = Where(own.shard[row_owner], row.astype(np.int64))
    legs = parts.picked("legs", rows, ("contract", "quantity"))
    leg_start, (contract, quantity) = _runs(legs, len(row), (np.int32, np.float64), lambda c, _: c != parts.pad)
    of_leg = np.repeat(np.arange(len(row)), np.diff(leg_start))
    cash = Where(rows.shard, parts.single("rows", "cash", rows))
    entry, unsettled = _cash(parts, cash, of_leg, contract)
    balances = Where(own.shard, parts.single("accounts", "balances", own))
    balance_start, (asset, amount, is_collateral) = _balances(parts, balances)
    return Held(
        rows=rows,
        cash=cash,
        accounts=own,
        balances=balances,
        status=parts.single("accounts", "status", own),
        row_owner=row_owner,
        row_unit=unit_of[contract[leg_start[:-1]]].astype(np.int64) if len(row) else np.zeros(0, np.int64),
        leg_owner=row_owner[of_leg],
        contract=contract.astype(np.int64),
        quantity=quantity,
        entry=entry,
        unsettled=unsettled,
        balance_owner=np.repeat(np.arange(len(own.row)), np.diff(balance_start)),
        asset=asset.astype(np.int64),
        amount=amount,
        is_collateral=is_collateral,
    )


def _cash(parts: Parts, cash: Where, of_leg: Ints, contract: Ints) -> tuple[Floats, Floats]:
    """Entry and cash due of every leg."""
    used = np.flatnonzero(cash.row != EMPTY)
    picked = parts.picked("cash_legs", Where(cash.shard[used], cash.row[used]), ("contract", "entry", "unsettled"))
    start, (own, entry, unsettled) = _runs(
        picked, len(used), (np.int32, np.float64, np.float64), lambda c, *_: c != parts.pad
    )
    entries, due = np.full(len(contract), np.nan), np.zeros(len(contract))
    width = parts.pad + 1
    key = np.repeat(used, np.diff(start)) * width + own
    at = np.searchsorted(of_leg * width + contract, key)  # both ascend
    entries[at], due[at] = entry, unsettled
    return entries, due


def _balances(parts: Parts, where: Where) -> tuple[Ints, list[np.ndarray]]:
    """Balances of accounts; a slot is in use where its asset stands above that of the slot before."""

    def in_use(asset: np.ndarray, *_: np.ndarray) -> np.ndarray:
        found = np.ones(asset.shape, bool)
        found[:, 1:] = asset[:, 1:] > asset[:, :-1]
        return found

    used = np.flatnonzero(where.row != EMPTY)
    picked = parts.picked("balances", Where(where.shard[used], where.row[used]), ("asset", "amount", "is_collateral"))
    start, columns = _runs(picked, len(used), (np.int32, np.float64, np.bool_), in_use)
    lengths = np.zeros(len(where.row), np.int64)
    lengths[used] = np.diff(start)
    return _starts(lengths), columns


def _runs(
    picked: Picked, rows: int, kinds: tuple[type, ...], in_use: Callable[..., np.ndarray], *, drop: int = 0
) -> tuple[Ints, list[np.ndarray]]:
    """Slots in use of all rows one after the other: where each row's begin, and the columns after `drop`."""
    lengths = np.zeros(rows, np.int64)
    masks = []
    for index, columns in picked:
        mask = in_use(*columns)
        lengths[index] = mask.sum(axis=1)
        masks.append(mask)
    start = _starts(lengths)
    found: list[np.ndarray] = [np.zeros(int(start[-1]), kind) for kind in kinds]
    for (index, columns), mask in zip(picked, masks, strict=True):
        to = (start[index][:, None] + np.arange(mask.shape[1]))[mask]
        for out, column in zip(found, columns[drop:], strict=True):
            out[to] = column[mask]
    return start, found
