"""Claims about where legs and balances lie: memory read by address says what the devices say, and names are found."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pytest

from gpumargin import native
from gpumargin.device import account_mesh, block_program
from gpumargin.native.control import INT, LONG
from gpumargin.native.lookup import find_first, find_member, place, read, read_fractions, replace
from gpumargin.native.names import lower_bound
from gpumargin.native.requests import BYTE, Function, Writer, typed
from gpumargin.native.writing import written
from gpumargin.pack.columns import laid_texts
from gpumargin.resident import ResidentBook, ids, places
from gpumargin.resident.ids import Ids, Names
from gpumargin.resident.lane import Lane
from gpumargin.resident.layout import Where
from gpumargin.resident.parts import Parts
from gpumargin.tables import Book
from gpumargin_kernels.edits import NOWHERE, with_values
from tests.blocks import Draw
from tests.books import tiny_book

RNG = np.random.default_rng(5)
REQUESTS = 500


def addresses(rows: list[np.ndarray]) -> np.ndarray:
    """Where each begins."""
    return np.array([row.ctypes.data for row in rows], np.int64)


def found(
    piece: Writer, asked: dict[str, tuple[Any, type]], answers: dict[str, type], count: int = REQUESTS
) -> dict[str, np.ndarray]:
    """What one piece answers, asked by name in its order."""
    empty = {name: np.zeros(count, kind) for name, kind in answers.items()}
    Function([(piece, " ".join([*asked, *answers]))]).run(count, typed(asked) | empty)
    return empty


def whole(widths: np.ndarray) -> dict[str, tuple[Any, type]]:
    """Rows that have an array each."""
    return {
        "array": (np.arange(len(widths)), np.int64),
        "first": (np.zeros(len(widths)), np.int64),
        "width": (widths, np.int64),
    }


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
    asked = {"base": (addresses(rows), np.int64), **whole(widths), "key": (keys, np.int32)}
    slot, is_there, at = found(find_first, asked, {"slot": np.int32, "is_there": np.int32, "at": np.int64}).values()
    expected = [np.searchsorted(row[:count], key) for row, count, key in zip(rows, used, keys, strict=True)]
    assert slot.tolist() == expected
    assert is_there.tolist() == [key in row[:count] for row, count, key in zip(rows, used, keys, strict=True)]
    assert 0 < is_there.sum() < REQUESTS
    assert at[is_there == 1].tolist() == slot[is_there == 1].tolist()
    assert np.all(at < widths)


def test_a_member_is_found_among_those_in_use_alone() -> None:
    table = RNG.integers(0, 5, 100).astype(np.int32)
    widths = RNG.integers(1, 9, REQUESTS)
    rows = [RNG.choice(100, width, replace=False).astype(np.int32) for width in widths]
    used = [RNG.random(width) < 0.5 for width in widths]
    keys = RNG.integers(0, 5, REQUESTS)
    bases = {"numbers": addresses(rows), "used": addresses(used), "tables": addresses([table])}
    asked: dict[str, tuple[Any, type]] = {name: (base, np.int64) for name, base in bases.items()}
    asked |= {"table": (np.zeros(REQUESTS), np.int64), **whole(widths), "key": (keys, np.int32)}
    members = found(partial(find_member, none=-1), asked, {"found": np.int32})["found"]
    for row, is_used, key, number in zip(rows, used, keys, members.tolist(), strict=True):
        fitting = row[is_used & (table[row] == key)]
        assert number in (fitting.tolist() or [-1])


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.float64])
def test_what_stands_in_arrays_is_read(dtype: type) -> None:
    arrays = [RNG.integers(0, 2, 50).astype(dtype) for _ in range(3)]
    array, at = RNG.integers(0, 3, REQUESTS), RNG.integers(0, 50, REQUESTS)
    expected = [arrays[a][i] for a, i in zip(array, at, strict=True)]
    asked: dict[str, tuple[Any, type]] = {"base": (addresses(arrays), np.int64), "array": (array, np.int64)}
    if dtype is np.float64:
        flag = RNG.integers(0, 2, REQUESTS)
        asked |= {"at": (at, np.int64), "flag": (flag, np.int32)}
        read_there = found(partial(read_fractions, default=-7.5), asked, {"found": np.float64})["found"]
        assert read_there.tolist() == np.where(flag == 1, expected, -7.5).tolist()
        return
    for index, kind in ((INT, np.int32), (LONG, np.int64)):
        piece = partial(read, kind=BYTE if dtype is np.bool_ else INT, index=index)
        assert found(piece, asked | {"at": (at, kind)}, {"found": np.int32})["found"].tolist() == expected


def test_one_key_has_another_value() -> None:
    keys, values = RNG.integers(0, 3, REQUESTS), RNG.integers(0, 99, REQUESTS)
    asked = {"keys": (keys, np.int32), "values": (values, np.int32)}
    replaced = found(partial(replace, key=2, other=-1), asked, {"found": np.int32})["found"]
    assert replaced.tolist() == np.where(keys == 2, -1, values).tolist()


@pytest.mark.parametrize("buckets", [1, 2, 7])
def test_rows_of_a_shard_lie_in_its_buckets_one_after_the_other(buckets: int) -> None:
    count, widths = RNG.integers(0, 9, buckets), RNG.integers(1, 30, buckets)
    count[-1] += 1
    shard, row = RNG.integers(0, 5, REQUESTS), RNG.integers(0, count.sum(), REQUESTS)
    level = {"buckets": ([buckets], np.int64), "ends": (np.cumsum(count), np.int64), "widths": (widths, np.int64)}
    asked = {"shard": (shard, np.int64), "row": (row, np.int32), **level}
    array, first, width = found(place, asked, dict.fromkeys(("array", "first", "width"), np.int64)).values()
    bucket = np.repeat(np.arange(buckets), count)[row]
    assert array.tolist() == (shard * buckets + bucket).tolist()
    assert first.tolist() == ((row - (np.cumsum(count) - count)[bucket]) * widths[bucket]).tolist()
    assert width.tolist() == widths[bucket].tolist()


def on_device(columns: Any) -> Any:
    """The rows of the only device."""
    return jax.tree.map(lambda own: own[0], columns)


Shapes = list[list[tuple[int, int]]]


@pytest.mark.parametrize("shapes", [[[(5, 3)]], [[(4, 2), (1, 7), (3, 1)], [(9, 2)], [(2, 2), (2, 5)]]], ids=str)
def test_values_are_written_where_the_kernel_writes_them_and_in_place(shapes: Shapes) -> None:
    columns = [[RNG.standard_normal(shape) for shape in column] for column in shapes]
    every = [
        (number, row + sum(rows for rows, _ in column[:bucket]), slot)
        for number, column in enumerate(shapes)
        for bucket, (rows, width) in enumerate(column)
        for row in range(rows)
        for slot in range(width)
    ]
    own = RNG.permutation(len(every))[: len(every) // 2]
    at = np.full((3, len(own) + 3), NOWHERE, np.int32)
    at[:, : len(own)] = np.array(every)[own].T
    values = RNG.standard_normal(len(own) + 3)
    by_column = np.where(at[0] == np.arange(len(shapes))[:, None], at[1], NOWHERE)
    places_by_column = np.stack([by_column, np.broadcast_to(at[2], by_column.shape)], axis=1)
    with jax.enable_x64(True):
        before = jax.device_put(tuple(tuple(np.array([own]) for own in column) for column in columns))
        expected = with_values(on_device(before), places_by_column, np.broadcast_to(values, by_column.shape))
        program = block_program(written, account_mesh([jax.devices("cpu")[0]]), donate=True)
        once = program(before, at[None], values[None])
        lie = [each.unsafe_buffer_pointer() for each in jax.tree.leaves(once)]
        again = program(once, at[None], values[None])
    for mine, theirs in zip(jax.tree.leaves(on_device(again)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert [each.unsafe_buffer_pointer() for each in jax.tree.leaves(again)] == lie


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


@pytest.mark.slow
def test_memory_and_the_devices_write_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = (ResidentBook(Book(**tiny_book()), "derive-pm1", accounts_per_shard=4) for _ in range(2))
    draw = Draw(np.random.default_rng(4), mine.book)
    for _ in range(3):
        block = {name: own for name, own in draw.block(listings=False, size=8).items() if name != "marks"}
        mine.apply(**block)
        with monkeypatch.context() as patch:
            patch.setattr(Parts, "are_in_memory", False)
            theirs.apply(**block)
        draw.book = mine.book
        for name, table in mine.book.tables.items():
            assert table.equals(theirs.book.tables[name]), name


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
    assert own.find(names_of([])).tolist() == []


def test_texts_of_an_array_without_buffers_are_none() -> None:
    starts, content = laid_texts(pa.Array.from_buffers(pa.string(), 0, [None, None, pa.py_buffer(b"")]))
    assert (starts.tolist(), content.tolist()) == ([0], [])


def test_hashes_stand_where_a_plain_search_puts_them() -> None:
    hashes = np.sort(RNG.integers(0, 2**64 - 1, 1000, np.uint64))
    first = np.searchsorted(hashes, np.arange(1 << 10, dtype=np.uint64) << np.uint64(54)).astype(np.int32)
    wanted = np.concatenate([hashes, hashes + np.uint64(1), RNG.integers(0, 2**64 - 1, 1000, np.uint64)])
    asked: dict[str, tuple[Any, type]] = {"first": (first, np.int32), "hashes": (hashes, np.uint64)}
    asked |= {"size": ([1000], np.int64), "shift": ([54], np.int64), "wanted": (wanted, np.uint64)}
    place = found(lower_bound, asked, {"place": np.int64}, len(wanted))["place"]
    assert place.tolist() == np.searchsorted(hashes, wanted).tolist()


@pytest.mark.parametrize("is_native", [False, True])
@pytest.mark.parametrize("is_hash_shared", [False, True])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.int64()], ids=str)
def test_a_name_is_found_if_every_byte_of_the_account_id_is_the_same_and_so_is_the_pool(
    kind: pa.DataType, is_hash_shared: bool, is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "is_available", lambda: is_native)
    if is_hash_shared:
        monkeypatch.setattr(ids, "_FACTOR", np.uint64(0))  # so that names alone can tell
    words = ["", "a", "ab", "abc", "b", "\u00e4", "\u00e4b", "a" * 1000, "a" * 999 + "b"]
    known = range(len(words)) if kind == pa.int64() else words
    one, other = (pa.array([known[0], *order, known[0]], kind).slice(1, len(known)) for order in (known, known[::-1]))
    everyone = pa.concat_arrays([one, one])
    own = Ids(everyone, pa.array(["left"] * len(one) + ["right"] * len(one)))
    pools = pa.array(["nowhere", "right", "left"])
    name, pool = (each.ravel() for each in np.meshgrid(range(len(words)), range(len(pools))))
    numbers = own.find(Names(name, other, pool, pools)).tolist()
    place = len(words) - 1 - name
    assert numbers == np.where(pool == 0, -1, np.where(pool == 1, len(words) + place, place)).tolist()
    assert own.find(Names(name[:1], pa.array(["aa"]).cast(pa.string()), pool[:1], pools)).tolist() == [-1]
