from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import jax
import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is an opponent of the benchmarks only")
pytest.importorskip("scipy", reason="scipy is an opponent of the benchmarks only")

from benchmarks.opponents import (
    BLOCK_ACCOUNTS,
    TASK_ACCOUNTS,
    worst_pnl_by_expiry_numba,
    worst_pnl_numba,
    worst_pnl_scipy,
)
from benchmarks.opponents_c import compiler, worst_pnl_by_expiry_c, worst_pnl_c
from benchmarks.opponents_frames import worst_pnl_duckdb, worst_pnl_polars
from benchmarks.opponents_jax import worst_pnl_segment_sum
from benchmarks.workload import NUM_EXPIRIES, Legs, make_legs

if TYPE_CHECKING:
    from collections.abc import Callable

    Opponent = Callable[[Legs], np.ndarray]
    Prepared = Callable[[Legs], Callable[[], np.ndarray]]

pytestmark = pytest.mark.slow  # numba compiles for seconds

# Sums of at most 200 products: relative to the sum of their absolute values, a few units in the last place.
ROUNDING = {"float64": 1e-14, "float32": 5e-6}
PLAIN = [pytest.param(worst_pnl_numba, id="numba"), pytest.param(worst_pnl_scipy, id="scipy")]
no_compiler = pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")
no_duckdb = pytest.mark.skipif(find_spec("duckdb") is None, reason="duckdb is an opponent of the benchmarks only")
PREPARED = [
    pytest.param(worst_pnl_c, "float64", id="c-float64", marks=no_compiler),
    pytest.param(worst_pnl_c, "float32", id="c-float32", marks=no_compiler),
    pytest.param(worst_pnl_segment_sum, "float64", id="segment_sum"),
    pytest.param(worst_pnl_polars, "float64", id="polars"),
    pytest.param(worst_pnl_duckdb, "float64", id="duckdb", marks=no_duckdb),
]


def small_book(accounts: int = 300, scenarios: int = 33) -> Legs:
    return make_legs(accounts=accounts, mean_legs=9.0, contracts=150, scenarios=scenarios, seed=7)


def legs_of(book: Legs, account: int) -> range:
    return range(book.indptr[account], book.indptr[account + 1])


def plain_worst_pnl(book: Legs) -> list[float]:
    """The definition, leg by leg."""
    answers = []
    for account in range(len(book.indptr) - 1):
        total = np.zeros(book.table.shape[1])
        for leg in legs_of(book, account):
            total += book.quantity[leg] * book.table[book.contract[leg]]
        answers.append(total.min())
    return answers


def plain_worst_pnl_by_expiry(book: Legs) -> list[float]:
    """The definition, expiry by expiry, whatever the order of the legs."""
    answers = []
    for account in range(len(book.indptr) - 1):
        total = np.zeros(book.table.shape[1])
        for expiry in range(NUM_EXPIRIES):
            legs = [leg for leg in legs_of(book, account) if book.expiry[book.contract[leg]] == expiry]
            held = book.contract[legs]
            value = book.quantity[legs] @ book.table[held]
            factor = book.discount[held[0]] if legs else 1.0
            total += np.where(value > 0.0, value * factor, value) - book.quantity[legs] @ book.value[held]
        answers.append(total.min())
    return answers


def scale_of(book: Legs) -> float:
    """Largest possible sum of absolute products of an account: what rounding errors are relative to."""
    size = np.abs(book.quantity) * np.abs(book.table).max(axis=1)[book.contract]
    return float(np.add.reduceat(size, book.indptr[:-1]).max())


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("opponent", PLAIN)
def test_opponent_answers_as_the_definition(opponent: Opponent, dtype: str) -> None:
    book = small_book()
    answer = opponent(book.as_dtype(dtype))
    assert answer.dtype == dtype
    np.testing.assert_allclose(answer, plain_worst_pnl(book), rtol=0, atol=ROUNDING[dtype] * scale_of(book))


@pytest.mark.parametrize("dtype", ROUNDING)
def test_expiry_opponent_answers_as_the_definition(dtype: str) -> None:
    book = small_book()
    answer = worst_pnl_by_expiry_numba(book.as_dtype(dtype))
    assert answer.dtype == dtype
    np.testing.assert_allclose(answer, plain_worst_pnl_by_expiry(book), rtol=0, atol=ROUNDING[dtype] * scale_of(book))


def emptied(book: Legs) -> Legs:
    """The book with an account in its middle that holds nothing."""
    return book._replace(indptr=np.insert(book.indptr, 5, book.indptr[5]))


@pytest.mark.parametrize(("opponent", "dtype"), PREPARED)
def test_prepared_opponent_answers_as_the_definition(
    opponent: Prepared, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.opponents_jax.PART_LEGS", 700)
    book = emptied(small_book())
    with jax.enable_x64(True):
        answer = opponent(book.as_dtype(dtype))()
    assert answer.dtype == dtype
    np.testing.assert_allclose(answer, plain_worst_pnl(book), rtol=0, atol=ROUNDING[dtype] * scale_of(small_book()))


@no_compiler
@pytest.mark.parametrize("dtype", ROUNDING)
def test_expiry_opponent_in_c_answers_as_the_definition(dtype: str) -> None:
    book = emptied(small_book())
    answer = worst_pnl_by_expiry_c(book.as_dtype(dtype))()
    assert answer.dtype == dtype
    expected = plain_worst_pnl_by_expiry(book)
    np.testing.assert_allclose(answer, expected, rtol=0, atol=ROUNDING[dtype] * scale_of(small_book()))


def test_expiry_discount_changes_the_answer_and_only_downwards() -> None:
    book = small_book()
    discounted = worst_pnl_by_expiry_numba(book)
    undiscounted = worst_pnl_by_expiry_numba(book._replace(discount=np.ones_like(book.discount)))
    assert (discounted <= undiscounted).all()
    assert (discounted < undiscounted).mean() > 0.3


def test_expiry_opponent_without_discounts_is_the_plain_one_less_the_value_now() -> None:
    book = small_book()
    gains = book._replace(table=book.table - book.value[:, None])
    whole = book._replace(discount=np.ones_like(book.discount))
    np.testing.assert_allclose(
        worst_pnl_by_expiry_numba(whole), worst_pnl_numba(gains), rtol=0, atol=1e-14 * scale_of(book)
    )


@pytest.mark.parametrize("opponent", [*PLAIN, pytest.param(worst_pnl_by_expiry_numba, id="numba-expiry")])
def test_account_without_legs_has_no_pnl(opponent: Opponent) -> None:
    book = small_book(accounts=3)
    indptr = np.array([0, book.indptr[1], book.indptr[1], book.indptr[3]])
    assert opponent(book._replace(indptr=indptr))[1] == 0.0


@pytest.mark.parametrize("opponent", [*PLAIN, pytest.param(worst_pnl_by_expiry_numba, id="numba-expiry")])
def test_answers_do_not_depend_on_where_tasks_and_blocks_are_cut(opponent: Opponent) -> None:
    book = make_legs(accounts=max(TASK_ACCOUNTS, BLOCK_ACCOUNTS) + 1, mean_legs=3.0, contracts=60, scenarios=5, seed=3)
    last = book.indptr[-2]
    alone = book._replace(indptr=book.indptr[-2:] - last, contract=book.contract[last:], quantity=book.quantity[last:])
    assert opponent(book)[-1] == opponent(alone)[0]


def test_one_scenario_and_one_account_are_enough() -> None:
    book = small_book(accounts=1, scenarios=1)
    np.testing.assert_allclose(worst_pnl_numba(book), plain_worst_pnl(book))
    np.testing.assert_allclose(worst_pnl_scipy(book), plain_worst_pnl(book))


def test_workload_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    first, again, other = (make_legs(200, 6.0, 90, 4, seed) for seed in (5, 5, 6))
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert len(first.quantity) != len(other.quantity) or (first.quantity != other.quantity).any()


def test_workload_has_the_mean_and_skew_it_was_asked_for() -> None:
    book = make_legs(accounts=20_000, mean_legs=11.0, contracts=2_000, scenarios=1, seed=1)
    counts = np.diff(book.indptr)
    assert counts.mean() == pytest.approx(11.0, rel=1e-3)
    assert (counts.min(), counts.max()) == (1, 200)
    assert np.median(counts) < counts.mean() / 2


def test_workload_sorts_distinct_contracts_inside_each_account() -> None:
    book = small_book()
    for account in range(len(book.indptr) - 1):
        held = book.contract[list(legs_of(book, account))]
        assert (np.diff(held) > 0).all()
        assert (np.diff(book.expiry[held]) >= 0).all()
    assert 0 <= book.contract.min() < 10
    assert 140 <= book.contract.max() < 150
    assert (book.quantity != 0.0).all()


def test_workload_may_hold_every_contract_in_one_account() -> None:
    book = make_legs(accounts=4, mean_legs=12.0, contracts=12, scenarios=2, seed=1)
    np.testing.assert_array_equal(book.contract.reshape(4, 12), np.tile(np.arange(12), (4, 1)))


def test_workload_refuses_a_mean_that_no_account_can_have() -> None:
    with pytest.raises(ValueError, match="between 1 and 12 legs"):
        make_legs(accounts=4, mean_legs=13.0, contracts=12, scenarios=2, seed=1)


def test_workload_keeps_indices_and_one_discount_per_expiry() -> None:
    book = small_book().as_dtype("float32")
    assert (book.indptr.dtype, book.contract.dtype, book.expiry.dtype) == (np.int64, np.int32, np.int32)
    assert book.quantity.dtype == book.table.dtype == book.value.dtype == book.discount.dtype == np.float32
    for expiry in range(NUM_EXPIRIES):
        assert len(np.unique(book.discount[book.expiry == expiry])) == 1
