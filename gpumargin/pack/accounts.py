"""What the accounts table says of margin accounts, aligned with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import Ints, encoded, positions_in


def category_of(tables: Mapping[str, pa.Table], place: Ints, count: int, categories: Mapping[str, int]) -> np.ndarray:
    """Code of every account's category, `[A]`, 0 for none; `place` is the account of each row of the accounts table."""
    found = np.zeros(count, np.int32)
    table = tables.get("accounts")
    if table is not None and "emode" in table.column_names:
        codes, words = encoded(table["emode"])
        of_word = np.array([*(categories.get(str(word), 0) for word in words.to_pylist()), 0], np.int32)
        found[place] = of_word[codes]
    return found


def owners(tables: Mapping[str, pa.Table], place: Ints, count: int) -> tuple[np.ndarray | None, pa.Array | None]:
    """Index of every account's owner, `[A]`, -1 for none, and the owners ascending; None where the book names none."""
    table = tables.get("accounts")
    if table is None or "owner_id" not in table.column_names:
        return None, None
    codes, words = encoded(table["owner_id"])
    ids = words.take(pc.sort_indices(words))
    found = np.full(count, -1, np.int64)
    found[place] = np.append(positions_in(words, ids), -1)[codes]  # no owner has code -1
    return found, ids
