"""Columns of the accounts table, by margin account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import encoded, positions_in

if TYPE_CHECKING:
    from gpumargin.pack.legs import Accounts


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
