"""Sums over the margin accounts of each owner: whole numbers of minor units, so that they are exact in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.errors import InternalError
from gpumargin.merging import Merging
from gpumargin.pack.columns import Ints, encoded, flat, is_ascending, run_begins
from gpumargin.results import coded_words, constant_word, minor_units
from gpumargin.sums import exact_sum
from gpumargin_kernels.health import STATUSES

_SUMMED = ("equity", "initial_margin", "initial_excess", "maintenance_margin", "maintenance_excess")
_HALF = 32


@dataclass
class OwnerTotals:
    """Sums by owner over accounts that arrive in parts, in one accounting asset.

    Attributes:
      decimals: of the accounting asset.
      scratch: folder for sums that memory has no room for; whoever made it removes it.
    """

    decimals: int
    scratch: Path
    _sums: Merging = field(init=False)
    _taken: Counter[str] = field(default_factory=Counter)
    _given: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._sums = Merging(_by_owner, self.scratch)

    def add(self, accounts: pa.Table, owner: np.ndarray, ids: pa.Array) -> pa.Table:
        """Takes the next accounts.

        Args:
          accounts: rows of the result table.
          owner: `[rows]` index of each one's owner in `ids`, -1 for none.
          ids: owners.

        Returns:
          Their sums, for `add_sums` of whoever goes on in another process.
        """
        sums = _owner_sums(accounts, owner, ids, self.decimals)
        self._sums.add(sums)
        has_owner = owner >= 0
        self._taken["num_accounts"] += int(has_owner.sum())
        for name in _SUMMED:
            self._taken[name] += exact_sum(_minor(accounts, name, self.decimals)[has_owner])
        return sums

    def add_sums(self, sums: pa.Table) -> None:
        """Takes sums over the next accounts."""
        self._sums.add(sums)
        _count(self._taken, sums, self._amounts(sums))

    def tables(self, money: str) -> Iterator[pa.Table]:
        """One row per owner that has accounts, ascending; sums are null where the number of an account is not known.

        Raises:
          InternalError: GM117, a sum does not fit; GM202, the owners do not add up to their accounts.
        """
        for sums in self._sums.tables():
            amounts = self._amounts(sums)
            _count(self._given, sums, amounts)
            yield _table(sums, amounts, money)
        self._require_sums()

    def _require_sums(self) -> None:
        wrong = [name for name, total in self._taken.items() if self._given[name] != total]
        if wrong:
            name = wrong[0]
            message = (
                f"GM202: {name} of owners adds up to {self._given[name]:,}, of their accounts to "
                f"{self._taken[name]:,}; nothing was published"
            )
            raise InternalError(message)

    def _amounts(self, sums: pa.Table) -> dict[str, Ints]:
        return {name: self._sum(sums, name) for name in _SUMMED}

    def _sum(self, sums: pa.Table, name: str) -> Ints:
        high, low = (np.asarray(flat(sums[f"{name}_{half}"])) for half in ("high", "low"))
        carried = high + (low >> _HALF)
        if np.any(np.abs(carried) >= 1 << (_HALF - 1)):
            message = (
                f"GM117: {name} of an owner does not fit int64 at {self.decimals} decimals of the accounting asset; "
                "give the asset fewer decimals in the assets table"
            )
            raise InternalError(message)
        total: Ints = (carried << _HALF) + (low & ((1 << _HALF) - 1))
        return total


def _count(totals: Counter[str], sums: pa.Table, amounts: Mapping[str, Ints]) -> None:
    """Adds sums by owner up."""
    totals["num_accounts"] += int(np.asarray(flat(sums["num_accounts"])).sum())
    for name, values in amounts.items():
        totals[name] += exact_sum(values)


def _table(sums: pa.Table, amounts: Mapping[str, Ints], money: str) -> pa.Table:
    """Sums by owner as results have them."""
    status = np.asarray(flat(sums["status"]))
    is_unknown = status == STATUSES.index("unknown")
    return pa.table(
        {
            "owner_id": flat(sums["owner_id"]),
            "accounting_asset": constant_word(money, len(status)),
            "status": coded_words(status, STATUSES),
            "num_accounts": flat(sums["num_accounts"]),
            **{f"{name}_minor": pa.array(values, mask=is_unknown) for name, values in amounts.items()},
        }
    )


def _owner_sums(accounts: pa.Table, owner: np.ndarray, ids: pa.Array, decimals: int) -> pa.Table:
    """A row for each owner that has accounts among these; amounts in halves, so that no sum of them overflows."""
    has_owner = owner >= 0
    of_account, count = owner[has_owner], len(ids)
    num_accounts, status = np.bincount(of_account, minlength=count), np.zeros(count, np.int64)
    np.maximum.at(status, of_account, _status_codes(accounts)[has_owner])
    columns = {"num_accounts": num_accounts, "status": status}
    for name in _SUMMED:
        values = _minor(accounts, name, decimals)[has_owner]
        for half, part in (("high", values >> _HALF), ("low", values & ((1 << _HALF) - 1))):
            columns[f"{name}_{half}"] = sums = np.zeros(count, np.int64)
            np.add.at(sums, of_account, part)
    held = np.flatnonzero(num_accounts)
    taken = {name: values[held] for name, values in columns.items()}
    return pa.table({"owner_id": ids.take(pa.array(held)), **taken})


def _minor(accounts: pa.Table, name: str, decimals: int) -> Ints:
    column = f"{name}_minor"
    if column in accounts.column_names:
        found = flat(accounts[column])
    else:
        found = minor_units(np.asarray(flat(accounts[name])), decimals, np.floor)
    return np.asarray(pc.fill_null(found, 0))


def _by_owner(rows: pa.Table) -> pa.Table:
    """A row for each owner, ascending."""
    ids = flat(rows["owner_id"])
    if not is_ascending(ids):
        rows = rows.take(pc.sort_indices(ids))
        ids = flat(rows["owner_id"])
    is_first = run_begins(ids)
    if is_first.all():
        return rows
    begins = np.flatnonzero(is_first)
    columns = {name: np.asarray(flat(rows[name])) for name in rows.column_names[1:]}
    combined = {
        name: (np.maximum if name == "status" else np.add).reduceat(values, begins) for name, values in columns.items()
    }
    return pa.table({"owner_id": ids.take(pa.array(begins)), **combined})


def _status_codes(accounts: pa.Table) -> Ints:
    codes, words = encoded(accounts["status"])
    of_account: Ints = np.array([STATUSES.index(word) for word in words.to_pylist()], np.int64)[codes]
    return of_account
