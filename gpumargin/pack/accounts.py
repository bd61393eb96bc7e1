"""Margin accounts of a book, their owners and their categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import Bools, Ints, common_codes, encoded, positions_in

_HAS_POOLS = ("positions", "balances", "accounts", "orders", "account_parameters")


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


def _distinct(keys: Ints) -> Ints:
    """Distinct keys in ascending order; runs are compressed first, which on sorted input leaves nothing to sort."""
    heads = keys[_begins(keys)]
    if not bool(np.all(heads[1:] > heads[:-1])):
        heads = np.sort(heads)
        heads = heads[_begins(heads)]
    return heads


def _begins(keys: Ints) -> Bools:
    """True where a run of equal keys begins."""
    begins = np.ones(len(keys), bool)
    begins[1:] = keys[1:] != keys[:-1]
    return begins


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
    keys = [i * len(pools) + p for i, p in zip(id_codes, pool_codes, strict=True)]
    known = _distinct(np.concatenate([_distinct(key) for key in keys]))
    rows = {
        name: np.searchsorted(known, key)
        for name, key in zip((n for n in _HAS_POOLS if n in tables), keys, strict=True)
    }
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
    ids = words.take(pc.sort_indices(words))
    found = np.full(len(accounts), -1, np.int64)
    found[accounts.of_accounts] = np.append(positions_in(words, ids), -1)[codes]  # no owner has code -1
    return found, ids
