"""Claims about where legs and balances lie: memory read by address says what the devices say, and names are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gpumargin import native
from gpumargin.native.lookup import Rows
from gpumargin.native.names import lower_bound
from gpumargin.resident import ResidentBook, ids, places
from gpumargin.resident.ids import Ids, Names
from gpumargin.resident.lane import Lane
from gpumargin.resident.layout import Where
from gpumargin.resident.parts import Parts
from gpumargin.tables import Book
from tests.blocks import Draw
from tests.books import tiny_book

RNG = np.random.default_rng(5)
REQUESTS = 500


def addresses(rows: list[np.ndarray]) -> np.ndarray:
    """Where each begins."""
    return np.array([row.ctypes.data for row in rows], np.int64)


def whole(widths: np.ndarray) -> Rows:
    """Rows that have an array each."""
    return Rows(np.arange(len(widths)), np.zeros(len(widths), np.int64), widths)


def padded_row(width: int, used: int, padding: int) -> np.ndarray:
    row = np.full(width, padding, np.int32)
    row[:used] = np.sort(RNG.choice(4 * width, used, replace=False))
    return row


@pytest.mark.parametrize("padding", [0, 2**31 - 1], ids=["assets", "contracts"])
def test_the_first_slot_not_below_a_key_is_that_of_a_plain_search(padding: int) -> None:
    widths = RNG.integers(1, 70, REQUESTS)
    used = np.array([RNG.integers(1, width + 1) for width in widths])
    rows = [padded_row(width, count, padding) for width, count in zip(widths, used, strict=True)]
    keys = np.array([RNG.choice([RNG.choice(r[:n]), RNG.integers(0, 300)]) for r, n in zip(rows, used, strict=True)])
    at, slot, is_there = whole(widths).find_first(addresses(rows), keys)
    expected = [np.searchsorted(row[:count], key) for row, count, key in zip(rows, used, keys, strict=True)]
    assert slot.tolist() == expected
    assert is_there.tolist() == [key in row[:count] for row, count, key in zip(rows, used, keys, strict=True)]
    assert 0 < is_there.sum() < REQUESTS
    assert at.first[is_there].tolist() == slot[is_there].tolist()
    assert np.all(at.first < widths)


def test_a_member_is_found_among_those_in_use_alone() -> None:
    table = RNG.integers(0, 5, 100).astype(np.int32)
    widths = RNG.integers(1, 9, REQUESTS)
    rows = [RNG.choice(100, width, replace=False).astype(np.int32) for width in widths]
    used = [RNG.random(width) < 0.5 for width in widths]
    keys = RNG.integers(0, 5, REQUESTS)
    tables = addresses([table] * REQUESTS)
    found = whole(widths).find_member(addresses(rows), addresses(used), tables, keys, -1)
    for row, is_used, key, number in zip(rows, used, keys, found.tolist(), strict=True):
        fitting = row[is_used & (table[row] == key)]
        assert number in (fitting.tolist() or [-1])


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.float64])
def test_what_stands_in_arrays_is_read(dtype: type) -> None:
    arrays = [RNG.integers(0, 2, 50).astype(dtype) for _ in range(3)]
    array, at = RNG.integers(0, 3, 20), RNG.integers(0, 50, 20)
    found = Rows(array, at, np.ones(1, np.int64)).read(addresses(arrays), np.dtype(dtype))
    assert found.tolist() == [arrays[a][i] for a, i in zip(array, at, strict=True)]


@pytest.mark.parametrize("buckets", [1, 2, 7])
def test_rows_of_a_shard_lie_in_its_buckets_one_after_the_other(buckets: int) -> None:
    count, widths = RNG.integers(0, 9, buckets), RNG.integers(1, 30, buckets)
    count[-1] += 1
    shard, row = RNG.integers(0, 5, REQUESTS), RNG.integers(0, count.sum(), REQUESTS)
    found = Rows.of(shard, row, np.cumsum(count), widths)
    bucket = np.repeat(np.arange(buckets), count)[row]
    assert found.array.tolist() == (shard * buckets + bucket).tolist()
    assert found.first.tolist() == ((row - (np.cumsum(count) - count)[bucket]) * widths[bucket]).tolist()
    assert found.width.tolist() == widths[bucket].tolist()


def requests_of(lane: Lane) -> tuple[Any, ...]:
    """Every account, with contracts and assets that it may hold or not."""
    accounts = np.repeat(np.arange(len(lane.ids)), 12)
    where = Where(*(own[accounts].astype(np.int64) for own in lane.store.where))
    contract = RNG.integers(0, lane.contracts.padding, len(accounts))
    asset = RNG.integers(0, len(lane.contracts.asset_ids), len(accounts))
    return where, (lane.unit_of[contract], contract), where, asset


def looked_up(lane: Lane, asked: tuple[Any, ...]) -> list[np.ndarray]:
    """All that is found, of slots those in rows that there are, and the lengths of these rows."""
    legs, balances = places.find(lane.store.parts, *asked)
    rows = np.flatnonzero(np.asarray(legs.row) != places.NOWHERE)
    where = Where(asked[0].shard[rows], np.asarray(legs.row)[rows])
    sizes = places.row_lengths(lane.store.parts, where, np.asarray(legs.cash_row)[rows])
    slots = (np.asarray(legs.slot)[rows], np.asarray(legs.cash_slot)[rows])
    return [*legs._replace(slot=slots[0], cash_slot=slots[1]), *balances, *sizes]


@pytest.mark.slow
def test_memory_says_after_every_block_what_the_devices_say(monkeypatch: pytest.MonkeyPatch) -> None:
    live = ResidentBook(Book(**tiny_book()), "derive-pm1", accounts_per_shard=4)
    draw = Draw(np.random.default_rng(3), live.book)
    for _ in range(3):
        live.apply(**{name: table for name, table in draw.block(listings=False, size=8).items() if name != "marks"})
        draw.book = live.book
        (lane,) = live.lanes
        asked = requests_of(lane)
        read_here = looked_up(lane, asked)
        with monkeypatch.context() as patch:
            patch.setattr(Parts, "are_in_memory", False)
            from_devices = looked_up(lane, asked)
        assert 0 < np.asarray(read_here[2]).sum() < len(read_here[2])  # some legs are there, others are not
        for mine, theirs in zip(read_here, from_devices, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def names_of(accounts: list[str]) -> Names:
    column = pa.array(accounts, pa.string()).dictionary_encode()
    return Names.of(pa.table({"account_id": column, "pool": pa.array(["cross"] * len(accounts)).dictionary_encode()}))


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
@pytest.mark.parametrize("are_hashes_poor", [False, True])
@pytest.mark.parametrize("is_native", [False, True])
def test_every_name_is_found_and_no_other(
    count: int, are_hashes_poor: bool, is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "is_available", lambda: is_native)
    if are_hashes_poor:
        # not evenly spread: all begin with the same bits, and many are the same
        monkeypatch.setattr(ids, "_hashes", lambda words: np.array([len(str(w)) % 3 for w in words], np.uint64))
        monkeypatch.setattr(ids, "_FACTOR", np.uint64(1))
    accounts = [f"account-{i}" for i in range(count)]
    own = Ids(pa.array(accounts, pa.string()), pa.array(["cross"] * count, pa.string()))
    order = RNG.permutation(count)
    assert own.find(names_of([accounts[i] for i in order])).tolist() == order.tolist()
    assert own.find(names_of(["nobody", "account-"])).tolist() == [-1, -1]


def test_hashes_stand_where_a_plain_search_puts_them() -> None:
    hashes = np.sort(RNG.integers(0, 2**64 - 1, 1000, np.uint64))
    first = np.searchsorted(hashes, np.arange(1 << 10, dtype=np.uint64) << np.uint64(54)).astype(np.int32)
    wanted = np.concatenate([hashes, hashes + np.uint64(1), RNG.integers(0, 2**64 - 1, 1000, np.uint64)])
    assert lower_bound(first, hashes, 54, wanted).tolist() == np.searchsorted(hashes, wanted).tolist()


@pytest.mark.parametrize("is_native", [False, True])
def test_names_are_the_same_if_every_byte_of_the_account_id_is(
    is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "is_available", lambda: is_native)
    words = ["", "a", "ab", "abc", "b", "\u00e4", "\u00e4b", "a" * 1000, "a" * 999 + "b"]
    one, other = (pa.array(["skipped", *order, "skipped"]).slice(1, len(words)) for order in (words, words[::-1]))
    number, place = (own.ravel() for own in np.meshgrid(range(len(words)), range(len(words))))
    for kind in (pa.string(), pa.large_string()):
        found = ids._same(one.cast(kind), number, Names(place, other, place, other))
        assert found.tolist() == [words[a] == words[::-1][b] for a, b in zip(number, place, strict=True)]
        assert found.sum() == len(words)
    numbers = pa.array(range(len(words)))
    assert ids._same(numbers, number, Names(place, numbers, place, numbers)).tolist() == (number == place).tolist()
