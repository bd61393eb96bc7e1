"""Claims about packing: canonical order, runs, and buckets that hold every leg once."""

from __future__ import annotations

from functools import cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jax import tree

from gpumargin.pack import buckets, shapes
from gpumargin.pack.accounts import find_accounts
from gpumargin.pack.buckets import GROWTH, MIN_WIDTH, ROW_STEP, bucket_widths, even_rows, make_plan, pack_shard
from gpumargin.pack.contracts import padded_contracts
from gpumargin.pack.instruments import NO_EXPIRY
from gpumargin.pack.ordering import NO_UNIT
from gpumargin.tables import Book
from tests.asserts import assert_same_bits, assert_same_trees
from tests.books import tiny_book, with_cell, with_row
from tests.packed import Packed, many_legs, pack, shuffled, whole

if TYPE_CHECKING:
    from gpumargin.pack.legs import LegBook

PM1 = "derive-pm1"


@cache
def some_book() -> dict[str, pl.DataFrame]:
    return many_legs(np.random.default_rng(3), 60)


@cache
def some() -> Packed:
    return pack(some_book(), PM1)


def legs_by_account(book: LegBook, packed: Packed) -> dict[tuple[object, str], dict[str, float]]:
    """Quantity of each contract held, by account and pool, read back through the runs."""
    ids = packed.contracts.ids.to_pylist()
    found: dict[tuple[object, str], dict[str, float]] = {}
    for a in range(len(book)):
        rows = slice(book.leg_start[book.unit_start[a]], book.leg_start[book.unit_start[a + 1]])
        key = (book.account_ids[a].as_py(), book.pools[a].as_py())
        found[key] = {ids[c]: q for c, q in zip(book.contract[rows], book.quantity[rows].tolist(), strict=True)}
    return found


def test_legs_stand_by_account_unit_expiry_strike_and_contract() -> None:
    book, c = some().legs, some().contracts
    names = list(zip(book.account_ids.to_pylist(), book.pools.to_pylist(), strict=True))
    assert names == sorted(set(names))
    for row in range(len(book.unit)):
        held = book.contract[book.leg_start[row] : book.leg_start[row + 1]]
        assert len(held) > 0
        assert np.all(np.diff(held) > 0)
        assert set(c.contracts.unit[held]) == {book.unit[row]}
    for a in range(len(book)):
        assert np.all(np.diff(book.unit[book.unit_start[a] : book.unit_start[a + 1]]) > 0)


def test_contracts_stand_by_unit_expiry_and_strike_with_bases_and_perpetuals_first() -> None:
    c = some().contracts
    rows = c.contracts
    keys = [
        (rows.unit[i], c.expiry[i], not rows.is_base[i], not rows.is_option[i], rows.strike[i], bool(rows.is_call[i]))
        for i in range(c.padding)
    ]
    assert keys == sorted(keys)
    assert (c.expiry == NO_EXPIRY).tolist() == [kind in ("base", "perpetual") for kind in c.kinds]


def test_groups_are_runs_and_end_where_expiry_or_strike_changes() -> None:
    c = some().contracts
    rows = c.contracts
    expiry = [(rows.unit[i], c.expiry[i] if c.expiry[i] != NO_EXPIRY else -2 - i) for i in range(c.padding)]
    strike = [(*expiry[i], rows.strike[i], bool(rows.is_option[i])) for i in range(c.padding)]
    for groups, keys in ((rows.expiry_group, expiry), (rows.strike_group, strike)):
        is_new = np.array([a != b for a, b in zip(keys[1:], keys[:-1], strict=True)])
        assert np.array_equal(np.diff(groups[: c.padding]), is_new.astype(int))
        assert groups[c.padding] == -1


OTHERS = ("svi", "inputs", "confidence", "is_digital")  # records, a factor, and a column that this book has not


def test_the_padding_contract_is_the_last_row_and_worth_nothing() -> None:
    rows = some().contracts.contracts
    last = {name: getattr(rows, name)[-1] for name in rows._fields if name not in OTHERS}
    assert all(not value for name, value in last.items() if not name.endswith("_group"))
    assert all(np.isfinite(field[-1]) for field in rows.svi)


def test_every_position_and_base_balance_is_a_leg_exactly_once() -> None:
    tables = some_book()
    expected: dict[tuple[object, str], dict[str, float]] = {}
    for row in [*tables["positions"].to_dicts(), *tables["balances"].to_dicts()]:
        key, name = (row["account_id"], "cross"), row.get("instrument_id") or row["asset"]
        held = expected.setdefault(key, {})
        if name != "USDC":
            held[name] = row.get("quantity", row.get("amount"))
    assert legs_by_account(some().legs, some()) == expected


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shuffled_tables_pack_to_the_same_arrays(seed: int) -> None:
    first, second = some(), pack(shuffled(some_book(), seed), PM1)
    assert first.contracts.ids.equals(second.contracts.ids)
    assert_same_trees(second.contracts.contracts, first.contracts.contracts)
    for name in first.legs.__dataclass_fields__:
        one, two = getattr(first.legs, name), getattr(second.legs, name)
        assert_same_bits(two, one, array=name) if isinstance(one, np.ndarray) else np.testing.assert_array_equal(
            two, one
        )


def test_base_balances_are_legs_only_where_the_model_says_so_and_are_not_counted_as_positions() -> None:
    tiny = tiny_book()
    with_base, without = pack(tiny, PM1), pack(tiny, "correlated-pm")
    assert legs_by_account(with_base.legs, with_base)["carol", "cross"] == {
        "BTC": 0.4,
        "BTC-PERP": 0.5,
        "ETH": 12.0,
        "ETH-PERP": 20.0,
    }
    assert legs_by_account(without.legs, without)["carol", "cross"] == {"BTC-PERP": 0.5, "ETH-PERP": 20.0}
    for packed in (with_base, without):
        assert packed.legs.num_positions.tolist() == [4, 3, 2, 0, 1]


@pytest.mark.parametrize(
    ("amount", "is_collateral", "is_leg"),
    [
        pytest.param(0.4, True, True, id="held as collateral"),
        pytest.param(0.4, False, False, id="held apart"),
        pytest.param(0.0, True, False, id="nothing held"),
        pytest.param(-0.4, True, True, id="borrowed"),
        pytest.param(-0.4, False, True, id="borrowed, whatever its flag says"),
    ],
)
def test_a_base_balance_is_a_leg_while_it_counts(*, amount: float, is_collateral: bool, is_leg: bool) -> None:
    tables = with_cell(
        with_cell(tiny_book(), "balances", row=1, column="amount", value=amount),
        "balances",
        row=1,
        column="is_collateral",
        value=is_collateral,
    )
    packed = pack(tables, PM1)
    assert ("BTC" in legs_by_account(packed.legs, packed)["alice", "cross"]) == is_leg


def test_pools_of_one_account_are_accounts_of_their_own() -> None:
    packed = pack(tiny_book(), PM1)
    keys = list(zip(packed.legs.account_ids.to_pylist(), packed.legs.pools.to_pylist(), strict=True))
    assert keys == [("alice", "cross"), ("bob", "cross"), ("carol", "cross"), ("dave", "cross"), ("dave", "isolated-1")]
    held = legs_by_account(packed.legs, packed)
    assert held["dave", "cross"] == {}
    assert held["dave", "isolated-1"] == {"ETH-PERP": 40.0}


def test_integer_ids_stay_integers_and_sort_as_numbers() -> None:
    tables = tiny_book()
    number = {"alice": 10, "bob": 9, "carol": 100, "dave": 2}
    for name in ("positions", "balances"):
        tables[name] = tables[name].with_columns(pl.col("account_id").replace_strict(number, return_dtype=pl.Int64))
    packed = pack(tables, PM1)
    assert packed.legs.account_ids.to_pylist() == [2, 2, 9, 10, 100]
    assert legs_by_account(packed.legs, packed)[10, "cross"]["BTC-PERP"] == -1.5


def test_an_account_named_only_by_balances_or_the_accounts_table_has_a_row_without_legs() -> None:
    tables = with_row(tiny_book(), "accounts", account_id="zoe", pool="cross")
    packed = pack(tables, PM1)
    assert legs_by_account(packed.legs, packed)["zoe", "cross"] == {}
    assert np.diff(packed.legs.unit_start)[-1] == 0
    assert np.diff(packed.legs.balance_start)[-1] == 0


def test_rows_of_the_book_know_their_account() -> None:
    tables = shuffled(tiny_book(), 3)
    accounts = find_accounts(Book(**tables).tables)
    names = accounts.account_ids.to_pylist()
    assert [names[i] for i in accounts.of_positions] == tables["positions"]["account_id"].to_list()
    assert [names[i] for i in accounts.of_balances] == tables["balances"]["account_id"].to_list()


def test_cash_legs_are_those_whose_gain_is_not_in_the_balance_yet() -> None:
    packed = pack(with_cell(tiny_book(), "positions", row=0, column="unsettled", value=12.5), PM1)
    book, kinds = packed.legs, packed.contracts.kinds
    assert set(kinds[book.cash_contract]) == {"perpetual", "option"}
    option = kinds[book.cash_contract] == "option"
    assert book.unsettled[option].tolist() == [12.5]
    assert book.cash_quantity[option].tolist() == [0.0]
    assert np.isnan(book.entry[option]).all()


def test_positions_of_size_zero_are_left_out_unless_cash_is_due_and_counts() -> None:
    tables = tiny_book()
    tables = with_cell(
        with_cell(tables, "positions", row=7, column="quantity", value=0.0),
        "positions",
        row=7,
        column="unsettled",
        value=5.0,
    )
    kept, dropped = pack(tables, "correlated-pm"), pack(tables, PM1)
    assert "BTC-PERP" in legs_by_account(kept.legs, kept)["carol", "cross"]
    assert "BTC-PERP" not in legs_by_account(dropped.legs, dropped)["carol", "cross"]
    assert kept.legs.num_positions.tolist() == dropped.legs.num_positions.tolist() == [4, 3, 1, 0, 1]


def test_a_book_without_instruments_has_a_stand_in_unit_and_still_its_balances() -> None:
    tables = {
        name: frame.clear() if name in ("instruments", "marks", "forwards", "positions") else frame
        for name, frame in tiny_book().items()
    }
    packed = pack(tables, PM1)
    assert packed.contracts.units == (NO_UNIT,)
    assert len(packed.legs.unit) == 0
    assert len(packed.legs) == 5
    assert len(packed.legs.amount) == 8
    shard = pack_shard(packed.legs, packed.contracts, make_plan(packed.legs, 100, 1).shape, whole(packed.legs))
    assert sum(bucket.amount.astype(bool).sum() for bucket in shard.balances.buckets) == 8


# --- Buckets.


def test_widths_are_powers_of_two_that_just_hold_the_run() -> None:
    lengths = np.arange(0, 5_000)
    widths = bucket_widths(lengths)
    assert np.all(widths >= np.maximum(lengths, MIN_WIDTH))
    assert np.all((widths == MIN_WIDTH) | (widths < 2 * lengths))
    assert np.all(widths & (widths - 1) == 0)
    for width in (2, 8, 1024, 1 << 20):
        assert bucket_widths(np.array([width, width + 1])).tolist() == [width, 2 * width]


@given(st.integers(1, 10_000_000))
def test_bucket_sizes_hold_the_rows_in_whole_steps_without_much_waste(rows: int) -> None:
    size = buckets.rounded(rows)
    assert size >= rows
    assert size % ROW_STEP == 0
    assert size <= max(rows * GROWTH, rows + ROW_STEP)


def test_bucket_sizes_are_few_and_never_fall() -> None:
    sizes = [buckets.rounded(rows) for rows in range(1, 100_000, 37)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) < 70


@pytest.mark.parametrize("rows", [1, 33, 2_001, 200_001])
@pytest.mark.parametrize(("chunk", "devices"), [(16, 2), (256, 1), (256, 3)])
def test_padded_contracts_shard_into_whole_chunks_at_least_two_each(rows: int, chunk: int, devices: int) -> None:
    found = even_rows(rows, chunk, devices)
    assert found % (chunk * devices) == 0
    assert max(rows, 2 * chunk * devices) <= found <= max(GROWTH * rows + chunk * devices, 2 * chunk * devices)
    assert rows <= even_rows(rows, None, devices) < rows + devices


def test_contracts_behind_the_padding_contract_are_like_it() -> None:
    plain = some().contracts.contracts
    count = len(plain.unit)
    before = plain._replace(inputs={"venue_delta": np.append(np.linspace(0, 1, count - 1), np.nan)})
    after = padded_contracts(before, count + 5)
    assert after.is_digital is before.is_digital is None
    assert_same_trees(tree.map(lambda new: new[:count], after), before)
    assert_same_trees(tree.map(lambda new: new[count:], after), tree.map(lambda old: np.repeat(old[-1:], 5), before))


runs_of = st.lists(st.integers(0, 70), min_size=0, max_size=40)


@given(lengths=runs_of, extra=st.integers(0, 2), is_by_length=st.booleans())
def test_buckets_hold_every_leg_exactly_once_and_place_maps_back(
    lengths: list[int], extra: int, is_by_length: bool
) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shape = buckets._bucket_shape(starts, [(0, len(lengths))])
    shape = tuple((width, rows + extra * ROW_STEP) for width, rows in shape)
    found = list(buckets._buckets(starts, 0, len(lengths), shape, is_by_length=is_by_length))
    for bucket in found:
        used = bucket.is_used.sum(axis=1)[: len(bucket.runs)]
        assert not is_by_length or (np.diff(used) >= 0).all()
    seen = np.concatenate([bucket.source[bucket.is_used] for bucket in found])
    assert sorted(seen.tolist()) == list(range(int(starts[-1])))
    place = buckets._place(found, len(lengths) + 5)
    ends = np.cumsum([0, *(len(bucket.is_used) for bucket in found)])
    for run, at in enumerate(place[: len(lengths)]):
        which = int(np.searchsorted(ends, at, side="right") - 1)
        bucket = found[which]
        used = bucket.source[at - ends[which]][bucket.is_used[at - ends[which]]]
        assert used.tolist() == list(range(starts[run], starts[run + 1]))
    assert not place[len(lengths) :].any()


def test_rows_that_fit_into_the_padding_of_a_wider_bucket_have_none_of_their_own() -> None:
    def shape_of(lengths: list[int]) -> tuple[tuple[int, int], ...]:
        return buckets._bucket_shape(np.cumsum([0, *lengths]).astype(np.int64), [(0, len(lengths))])

    assert shape_of([2, 4, 8, 16]) == ((16, ROW_STEP),)
    assert shape_of([2] * 10 + [8] * (ROW_STEP - 10)) == ((8, ROW_STEP),)
    assert shape_of([2] * 11 + [8] * (ROW_STEP - 10)) == ((2, ROW_STEP), (8, ROW_STEP))
    assert shape_of([]) == ((MIN_WIDTH, ROW_STEP),)


same_runs = st.tuples(st.integers(0, 70), st.integers(1, 150)).map(lambda each: [each[0]] * each[1])
many_runs = st.lists(same_runs, max_size=6).map(lambda each: list(chain.from_iterable(each)))


@given(before=many_runs, lengths=many_runs)
def test_a_known_shape_that_holds_another_takes_all_its_runs(before: list[int], lengths: list[int]) -> None:
    known, starts = [np.cumsum([0, *given]).astype(np.int64) for given in (before, lengths)]
    level, wanted = (buckets._bucket_shape(s, [(0, len(s) - 1)]) for s in (known, starts))
    own, other = (shapes.Shape(own, (), (), (), 0, 0) for own in (level, wanted))
    assume(shapes._holds(own, other))
    found = list(buckets._buckets(starts, 0, len(lengths), level, is_by_length=True))
    assert sorted(run for bucket in found for run in bucket.runs.tolist()) == list(range(len(lengths)))
    for (width, rows), bucket in zip(level, found, strict=True):
        assert bucket.is_used.shape == (rows, width)
        assert bucket.is_used.sum() == sum(lengths[run] for run in bucket.runs)


@given(accounts_per_shard=st.integers(1, 80), devices=st.integers(1, 3), first=st.integers(0, 59))
def test_plans_cover_every_account_once_in_order_with_parts_of_one_shape(
    accounts_per_shard: int, devices: int, first: int
) -> None:
    book = some().legs
    plan = make_plan(book, accounts_per_shard, devices, first=first)
    shards = [shard for part in plan.parts for shard in part]
    assert all(len(part) == devices for part in plan.parts)
    assert shards[0].first_account == first
    assert sum(shard.accounts for shard in shards) == len(book) - first
    for shard, after in pairwise(shards):
        assert after.first_account == shard.first_account + shard.accounts
    for shard in shards:
        assert shard.accounts <= accounts_per_shard
        assert shard.first_row == book.unit_start[shard.first_account]
        assert shard.unit_rows == book.unit_start[shard.first_account + shard.accounts] - shard.first_row


@given(accounts_per_shard=st.integers(5, 70), devices=st.integers(1, 2))
def test_packed_shards_give_back_every_leg_and_balance(accounts_per_shard: int, devices: int) -> None:
    packed = some()
    book, pad = packed.legs, packed.contracts.padding
    plan = make_plan(book, accounts_per_shard, devices)
    quantity, amount, shapes = [], [], set()
    for shard in (shard for part in plan.parts for shard in part):
        packed_shard = pack_shard(book, packed.contracts, plan.shape, shard)
        for bucket in packed_shard.legs.buckets:
            padded = bucket.contract == pad
            assert not bucket.quantity[padded].any()
            quantity += bucket.quantity[~padded].tolist()
        for balances in packed_shard.balances.buckets:
            amount += balances.amount[balances.amount != 0].tolist()
        for slots in packed_shard.unit_slots.buckets:
            assert slots.row[slots.is_held].max(initial=0) < max(shard.unit_rows, 1)
        shapes.add(tuple(bucket.quantity.shape for bucket in packed_shard.legs.buckets))
    assert sorted(quantity) == sorted(book.quantity.tolist())
    assert sorted(amount) == sorted(book.amount.tolist())
    assert len(shapes) == 1


@pytest.mark.parametrize("sparse", [0, 16], ids=["sorted", "marked off"])
def test_accounts_are_found_the_same_way_sorted_or_marked_off(monkeypatch: pytest.MonkeyPatch, sparse: int) -> None:
    monkeypatch.setattr("gpumargin.pack.accounts._SPARSE", sparse)
    names = {"account_id": ["b", "a", "b", "c", "a"], "pool": ["x", "y", "y", "x", "y"]}
    other = {"account_id": ["d", "b"], "pool": ["x", "x"]}
    found = find_accounts({"positions": pa.table(names), "balances": pa.table(other)})
    assert [*zip(found.account_ids.to_pylist(), found.pools.to_pylist(), strict=True)] == [
        ("a", "y"),
        ("b", "x"),
        ("b", "y"),
        ("c", "x"),
        ("d", "x"),
    ]
    assert found.of_positions.tolist() == [1, 0, 2, 3, 0]
    assert found.of_balances.tolist() == [4, 1]
