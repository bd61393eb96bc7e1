"""Places of legs and balances where the devices' memory is the host's own: read as it lies, by address."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpumargin.native.lookup import Rows
from gpumargin.pack.columns import Bools, Ints
from gpumargin.resident.layout import Where
from gpumargin.resident.parts import Parts
from gpumargin_kernels.edits import NOWHERE, SHARED_ROW, BalancePlaces, LegPlaces


class _Slots(NamedTuple):
    """Rows of one level, and a slot of each."""

    parts: Parts
    level: str
    rows: Rows  # [E]

    @staticmethod
    def of(parts: Parts, level: str, where: Where) -> _Slots:
        """The first slot of rows."""
        own = parts.layout.levels[level]
        return _Slots(parts, level, Rows.of(*where, own.ends, own.widths))

    @staticmethod
    def flat(parts: Parts, group: str, where: Where) -> _Slots:
        """Unit rows or accounts, of which one number is kept each."""
        return _Slots(parts, group, Rows(*where, np.ones(1, np.int64)))

    def values(self, name: str) -> np.ndarray:
        """What stands there in one column."""
        return self.rows.read(*self.parts.addresses(self.level, name))

    def search(self, name: str, key: Ints) -> tuple[_Slots, Ints, Bools]:
        """First slot whose value is not below a key, or one of the row; its number, and whether it holds the key."""
        at, slot, is_there = self.rows.find_first(self.parts.addresses(self.level, name)[0], key)
        return self._replace(rows=at), slot, is_there


def find_in_memory(
    parts: Parts, of_legs: Where, leg: tuple[Ints, Ints], of_balances: Where, asset: Ints
) -> tuple[LegPlaces, BalancePlaces]:
    """What `find` says, of CPU devices; arguments as there."""
    return _legs(parts, of_legs, *leg), _balances(parts, of_balances, asset)


def lengths_in_memory(parts: Parts, rows: Where, level: str) -> tuple[Ints, Ints]:
    """Slots in use and slots of rows of legs or cash legs, `[E]` each."""
    own = _Slots.of(parts, level, rows)
    _, used, _ = own.search("contract", np.full(len(rows.row), parts.pad))
    return used, own.rows.width


def _legs(parts: Parts, accounts: Where, unit: Ints, contract: Ints) -> LegPlaces:
    row = _unit_rows(parts, accounts, unit)
    has_row = row != NOWHERE
    where = Where(accounts.shard, np.where(has_row, row, 0))
    cash_row = np.where(has_row, _Slots.flat(parts, "rows", where).values("cash"), SHARED_ROW)
    place, slot, is_there = _Slots.of(parts, "legs", where).search("contract", contract)
    cash, cash_slot, has_cash = _Slots.of(parts, "cash_legs", Where(accounts.shard, cash_row)).search(
        "contract", contract
    )
    is_there, has_cash = is_there & has_row, has_cash & has_row
    return LegPlaces(
        row=row,
        slot=slot,
        is_there=is_there.astype(np.int32),
        cash_row=cash_row,
        cash_slot=cash_slot,
        has_cash=has_cash.astype(np.int32),
        quantity=np.where(is_there, place.values("quantity"), 0),
        entry=np.where(has_cash, cash.values("entry"), np.nan),
        unsettled=np.where(has_cash, cash.values("unsettled"), 0),
    )


def _balances(parts: Parts, accounts: Where, asset: Ints) -> BalancePlaces:
    row = _Slots.flat(parts, "accounts", accounts).values("balances")
    place, slot, is_there = _Slots.of(parts, "balances", Where(accounts.shard, row)).search("asset", asset)
    is_there &= row != SHARED_ROW
    return BalancePlaces(
        row=row,
        slot=slot,
        is_there=is_there.astype(np.int32),
        is_collateral=place.values("is_collateral").astype(np.int32),
        amount=np.where(is_there, place.values("amount"), 0),
    )


def _unit_rows(parts: Parts, accounts: Where, unit: Ints) -> Ints:
    """Unit row of each account and unit, `NOWHERE` if it has none."""
    rows = _Slots.of(parts, "unit_slots", accounts).rows
    numbers, used = (parts.addresses("unit_slots", name)[0] for name in ("row", "is_held"))
    tables = np.repeat(parts.addresses("rows", "unit")[0], parts.layout.buckets("unit_slots"))
    return rows.find_member(numbers, used, tables, unit, NOWHERE)
