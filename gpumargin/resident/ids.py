"""Margin accounts by name: found by sorted hashes, then compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin import native
from gpumargin.pack.columns import Bools, Ints, encoded, laid_texts, positions_in

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing
_STEPS = 4


@dataclass(frozen=True)
class Names:
    """Names of margin accounts, `[rows]` each, as codes into words."""

    account: np.ndarray
    accounts: pa.Array
    pool: np.ndarray
    pools: pa.Array

    @staticmethod
    def of(table: pa.Table) -> Names:
        """The names in the columns `account_id` and `pool`."""
        return Names(*encoded(table["account_id"]), *encoded(table["pool"]))

    def hashes(self, pool: Ints) -> np.ndarray:
        """`[rows]` uint64, equal where the names are, whose pools have these numbers."""
        return np.asarray((_hashes(self.accounts)[self.account] + pool.astype(np.uint64)) * _FACTOR)

    def take(self, rows: Ints) -> Names:
        """Some of the rows."""
        return Names(self.account[rows], self.accounts, self.pool[rows], self.pools)

    def account_ids(self) -> pa.Array:
        """`[rows]` account ids."""
        return self.accounts.take(pa.array(self.account))

    def pool_ids(self) -> pa.Array:
        """`[rows]` pools."""
        return self.pools.take(pa.array(self.pool))


def _hashes(words: pa.Array) -> np.ndarray:
    return np.asarray(pl.Series(pl.from_arrow(words)).hash(seed=0).to_numpy() if len(words) else [], np.uint64)


class Ids:
    """Margin accounts by number, and numbers by name.

    Args:
      account_ids: `[A]`.
      pools: `[A]`.
    """

    def __init__(self, account_ids: pa.Array, pools: pa.Array) -> None:
        self.account_ids = account_ids
        self.pools = pools if isinstance(pools, pa.DictionaryArray) else pools.dictionary_encode()
        hashes = self.names().hashes(np.asarray(self.pools.indices))
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._order]
        bits = len(self).bit_length()
        self._shift = np.uint64(64 - bits)
        heads = np.arange(1 << bits, dtype=np.uint64) << self._shift
        self._first_of = np.searchsorted(self._hashes, heads).astype(np.int32)

    def __len__(self) -> int:
        return len(self.account_ids)

    @property
    def nbytes(self) -> int:
        """Bytes of names and of what finds them."""
        index = self._order.nbytes + self._hashes.nbytes + self._first_of.nbytes
        return int(self.account_ids.nbytes + self.pools.nbytes + index)

    def names(self) -> Names:
        """All names, by number."""
        codes = np.asarray(self.pools.indices)
        return Names(np.arange(len(self)), self.account_ids, codes, self.pools.dictionary)

    def find(self, names: Names) -> Ints:
        """Number of each account, -1 where there is none, `[rows]`."""
        pool = positions_in(names.pools, self.pools.dictionary)[names.pool]
        wanted = names.hashes(pool)
        found, place, rest = self._first(names, wanted, pool)
        while len(rest):  # again only where two names share a hash
            rest = rest[place[rest] < len(self._hashes)]
            rest = rest[self._hashes[place[rest]] == wanted[rest]]
            number = self._order[place[rest]].astype(np.int64)
            same = self._is_same(number, names.take(rest), pool[rest])
            found[rest[same]] = number[same]
            rest = rest[~same]
            place[rest] += 1
        return found

    def _first(self, names: Names, wanted: np.ndarray, pool: Ints) -> tuple[Ints, Ints, Ints]:
        """What the first place of each hash says: number, -1 unless it is the same name; where to look next; which."""
        are_texts = _lie_as_texts(self.account_ids) and _lie_as_texts(names.accounts) and len(self) > 0
        if not (native.is_available() and are_texts and names.account.min(initial=0) >= 0):
            return np.full(len(wanted), -1, np.int64), self._places(wanted), np.arange(len(wanted))
        from gpumargin.native.names import Index, Texts, find  # what it is compiled with is optional

        words, others = (Texts(*laid_texts(array)) for array in (self.account_ids, names.accounts))
        pools = np.asarray(self.pools.indices)
        index = Index(self._first_of, self._hashes, int(self._shift), self._order, pools, words)
        seen = find(index, wanted, pool, others, names.account)
        is_own = seen.has_pool & seen.is_same
        return np.where(is_own, seen.number, -1), seen.place + 1, np.flatnonzero(seen.has_hash & ~is_own)

    def _places(self, wanted: np.ndarray) -> Ints:
        """Where hashes stand, or would: as a rule a step or two from where the first with their first bits stands."""
        place = self._first_of[(wanted >> self._shift).astype(np.int64)].astype(np.int64)
        rest = np.arange(len(wanted))
        for _ in range(_STEPS):
            rest = rest[place[rest] < len(self)]
            rest = rest[self._hashes[place[rest]] < wanted[rest]]
            place[rest] += 1
        place[rest] = np.searchsorted(self._hashes, wanted[rest])  # hashes that are not evenly spread
        return place

    def _is_same(self, number: Ints, names: Names, pool: Ints) -> Bools:
        is_pool: Bools = np.asarray(self.pools.indices)[number] == pool
        one, other = self.account_ids.take(pa.array(number)), names.account_ids()
        if one.type != other.type:
            one, other = one.cast(pa.large_string()), other.cast(pa.large_string())
        same = pc.equal(one, other)
        return is_pool & np.asarray(pc.fill_null(same, False).to_numpy(zero_copy_only=False), bool)

    def with_more(self, names: Names) -> Ids:
        """These accounts and, numbered on from them, others that are new."""
        ids = names.account_ids().cast(self.account_ids.type)
        pools = pa.concat_arrays([self.pools.dictionary_decode(), names.pool_ids().cast(self.pools.type.value_type)])
        return Ids(pa.concat_arrays([self.account_ids, ids]), pools)

    def order(self) -> Ints:
        """Numbers in the order of runs: by account, then pool, `[A]`."""
        table = pa.table({"account": self.account_ids, "pool": self.pools.dictionary_decode()})
        found = pc.sort_indices(table, sort_keys=[("account", "ascending"), ("pool", "ascending")])
        return np.asarray(found).astype(np.int64)


def _lie_as_texts(array: pa.Array) -> bool:
    """Whether these are strings with 32-bit offsets, none of them null."""
    return bool(array.type == pa.string()) and not array.null_count
