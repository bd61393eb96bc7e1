"""Margin accounts of a book, their owners and their categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import Bools, Ints, common_codes, encoded

_HAS_POOLS = ("positions", "balances", "accounts", "orders", "account_parameters")
_SPARSE = 16  # possible keys for each that there is, up to which marking off is faster than sorting


@dataclass(frozen=True)
class Accounts:
    """Margin accounts (account_id, pool) in ascending order, and which one each row of the book belongs to."""

    account_ids: pa.Array  # [A]
    pools: pa.Array  # [A]
    of_positions: Ints  # [N]
    of_balances: Ints  # [B]
    of_accounts: Ints  # rows of the accounts table
    of_orders: Ints  # rows of the orders table
    of_parameters: Ints  # rows of the account_parameters table

    def __len__(self) -> int:
        return len(self.account_ids)


def _begins(keys: Ints) -> Bools:
    """True where a run of equal keys begins."""
    begins = np.ones(len(keys), bool)
    begins[1:] = keys[1:] != keys[:-1]
    return begins


def _distinct(keys: Sequence[Ints], count: int) -> Ints:
    """Distinct ones of keys below `count`, ascending; sorted only where there are too many keys to mark them off."""
    if count > _SPARSE * sum(map(len, keys)):
        found = np.sort(np.concatenate(keys))
        return found[_begins(found)]
    is_there = np.zeros(count, bool)
    for each in keys:
        is_there[each] = True
    return np.flatnonzero(is_there)


@dataclass(frozen=True)
class _Runs:
    """Keys as runs of equal ones: on rows in order of accounts one for each account, and searches are for these."""

    heads: Ints
    of_row: Ints

    @staticmethod
    def of(keys: Ints) -> _Runs:
        begins = _begins(keys)
        return _Runs(keys[begins], np.cumsum(begins) - 1)

    def places(self, known: Ints) -> Ints:
        """Place of every key among the known ones."""
        return np.searchsorted(known, self.heads)[self.of_row]


def find_accounts(tables: Mapping[str, pa.Table]) -> Accounts:
    """Every margin account that positions, balances or a table about accounts names.

    Args:
      tables: the book's tables in canonical types.

    Returns:
      `Accounts`, ascending by id, then pool: an order that no shuffling of rows changes.
    """
    present = [tables[name] for name in _HAS_POOLS if name in tables]
    ids, id_codes = common_codes([table["account_id"] for table in present])
    pools, pool_codes = common_codes([table["pool"] for table in present])
    runs = [_Runs.of(i * len(pools) + p) for i, p in zip(id_codes, pool_codes, strict=True)]
    known = _distinct([each.heads for each in runs], len(ids) * len(pools))
    named = zip((name for name in _HAS_POOLS if name in tables), runs, strict=True)
    rows = {name: each.places(known) for name, each in named}
    return Accounts(
        account_ids=ids.take(pa.array(known // max(len(pools), 1))),
        pools=pools.take(pa.array(known % max(len(pools), 1))),
        of_positions=rows["positions"],
        of_balances=rows["balances"],
        of_accounts=rows.get("accounts", np.zeros(0, np.int64)),
        of_orders=rows.get("orders", np.zeros(0, np.int64)),
        of_parameters=rows.get("account_parameters", np.zeros(0, np.int64)),
    )


def account_categories(tables: Mapping[str, pa.Table], accounts: Accounts, categories: Mapping[str, int]) -> np.ndarray:
    """Code of every account's category, `[A]`."""
    found = np.zeros(len(accounts), np.int32)
    table = tables.get("accounts")
    if table is not None and "emode" in table.column_names:
        codes, words = encoded(table["emode"])
        of_word = np.array([*(categories.get(str(word), 0) for word in words.to_pylist()), 0], np.int32)
        found[accounts.of_accounts] = of_word[codes]
    return found


def account_owners(tables: Mapping[str, pa.Table], accounts: Accounts) -> tuple[np.ndarray | None, pa.Array | None]:
    """Index of every account's owner, `[A]`, and the owners; None where the book names none."""
    table = tables.get("accounts")
    if table is None or "owner_id" not in table.column_names:
        return None, None
    codes, words = encoded(table["owner_id"])
    order = pc.sort_indices(words)
    rank = np.full(len(words) + 1, -1, np.int64)  # no owner has code -1
    rank[np.asarray(order)] = np.arange(len(words))
    found = np.full(len(accounts), -1, np.int64)
    found[accounts.of_accounts] = rank[codes]
    return found, words.take(order)
