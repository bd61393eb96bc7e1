"""Sums over the margin accounts of each owner: whole numbers of minor units, so that they are exact in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.errors import InternalError
from gpumargin.pack.columns import Ints, encoded, flat
from gpumargin.results import minor_units
from gpumargin_kernels.health import STATUSES

_SUMMED = ("equity", "initial_margin", "initial_excess", "maintenance_margin", "maintenance_excess")
_HALF = 32


@dataclass
class OwnerTotals:
    """Sums by owner over accounts that arrive in parts, in one accounting asset.

    Attributes:
      ids: owners, `[O]`.
      decimals: of the accounting asset.
    """

    ids: pa.Array
    decimals: int
    accounts: Ints = field(init=False)
    status: Ints = field(init=False)  # the worst, index into `STATUSES`
    _high: dict[str, Ints] = field(init=False)
    _low: dict[str, Ints] = field(init=False)

    def __post_init__(self) -> None:
        self.accounts, self.status = self._zeros(), self._zeros()
        self._high = {name: self._zeros() for name in _SUMMED}
        self._low = {name: self._zeros() for name in _SUMMED}

    def _zeros(self) -> Ints:
        return np.zeros(len(self.ids), np.int64)

    def add(self, accounts: pa.Table, owner: np.ndarray) -> None:
        """Takes the next accounts and the index of each one's owner, -1 for none."""
        has_owner = owner >= 0
        of_account = owner[has_owner]
        np.add.at(self.accounts, of_account, 1)
        np.maximum.at(self.status, of_account, _status_codes(accounts)[has_owner])
        for name in _SUMMED:
            # halves of the numbers, so that no sum of them overflows
            values = self._minor(accounts, name)[has_owner]
            np.add.at(self._high[name], of_account, values >> _HALF)
            np.add.at(self._low[name], of_account, values & ((1 << _HALF) - 1))

    def _minor(self, accounts: pa.Table, name: str) -> Ints:
        column = f"{name}_minor"
        if column in accounts.column_names:
            found = flat(accounts[column])
        else:
            found = minor_units(np.asarray(flat(accounts[name])), self.decimals, np.floor)
        return np.asarray(pc.fill_null(found, 0))

    def table(self, money: str) -> pa.Table:
        """One row per owner that has accounts; sums are null where the number of an account is not known."""
        held = np.flatnonzero(self.accounts)
        is_unknown = self.status[held] == STATUSES.index("unknown")
        columns = {
            "owner_id": self.ids.take(pa.array(held)),
            "accounting_asset": pa.array([money] * len(held), pa.string()).dictionary_encode(),
            "status": pa.DictionaryArray.from_arrays(
                pa.array(self.status[held].astype(np.int32)), pa.array(STATUSES, pa.string())
            ),
            "num_accounts": pa.array(self.accounts[held]),
        }
        for name in _SUMMED:
            columns[f"{name}_minor"] = pa.array(self._sum(name)[held], mask=is_unknown)
        return pa.table(columns)

    def _sum(self, name: str) -> Ints:
        carried = self._high[name] + (self._low[name] >> _HALF)
        if np.any(np.abs(carried) >= 1 << (_HALF - 1)):
            message = (
                f"GM117: {name} of an owner does not fit int64 at {self.decimals} decimals of the accounting asset; "
                "give the asset fewer decimals in the assets table"
            )
            raise InternalError(message)
        total: Ints = (carried << _HALF) + (self._low[name] & ((1 << _HALF) - 1))
        return total


def _status_codes(accounts: pa.Table) -> Ints:
    codes, words = encoded(accounts["status"])
    of_account: Ints = np.array([STATUSES.index(word) for word in words.to_pylist()], np.int64)[codes]
    return of_account
