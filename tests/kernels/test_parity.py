"""Claims about forwards from put-call parity."""

from __future__ import annotations

import sys
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumargin_kernels.parity import ParityForward, parity_forward
from tests.kernels.chain import chain_expiries, chain_pairs

BASIS_POINT = 1e-4
STRIKES = np.arange(40e3, 90e3, 2.5e3)
FORWARD, DISCOUNT = 63_700.0, 0.97
ESTIMATE = np.nan
CASES = [
    pytest.param(False, DISCOUNT, id="quoted in currency, discount given"),
    pytest.param(False, ESTIMATE, id="quoted in currency, discount estimated"),
    pytest.param(True, DISCOUNT, id="quoted in coin, discount given"),
    pytest.param(True, ESTIMATE, id="quoted in coin, discount estimated"),
]

forwards_of = jax.jit(
    lambda strike, difference, weight, discount, is_inverse: parity_forward(
        strike, difference, weight, discount=discount, is_inverse=is_inverse
    )
)


def differences(strike: np.ndarray, *, is_inverse: bool, forward: float = FORWARD) -> np.ndarray:
    """Calls less puts that obey parity."""
    in_quote = DISCOUNT * (forward - strike)
    return in_quote / forward if is_inverse else in_quote


def told(
    strike: np.ndarray, difference: np.ndarray, *, discount: float, is_inverse: bool, weight: Any = 1.0
) -> ParityForward:
    """What one expiry's pairs say, as plain numbers."""
    rows = [np.broadcast_to(np.float64(x), strike.shape)[None, :] for x in (strike, difference, weight)]
    found = forwards_of(*rows, np.array([discount]), np.array([is_inverse]))
    return jax.tree.map(lambda x: x[0].item(), found)


@pytest.mark.parametrize(("is_inverse", "discount"), CASES)
def test_pairs_that_obey_parity_give_the_forward_and_the_discount(is_inverse: bool, discount: float) -> None:
    found = told(STRIKES, differences(STRIKES, is_inverse=is_inverse), discount=discount, is_inverse=is_inverse)
    assert found.forward == pytest.approx(FORWARD, rel=1e-12)
    assert found.discount == pytest.approx(DISCOUNT, rel=1e-12)
    assert found.spread < 1e-8
    assert found.pairs == len(STRIKES)


@pytest.mark.parametrize(("is_inverse", "discount"), CASES)
def test_four_bad_quotes_of_twenty_do_not_move_the_forward(
    is_inverse: bool,
    discount: float,
    rng: np.random.Generator,
) -> None:
    difference = differences(STRIKES, is_inverse=is_inverse)
    bad = rng.choice(len(STRIKES), 4, replace=False)
    difference[bad] += np.array([0.3, 0.2, -0.1, 0.5]) * (1 if is_inverse else FORWARD)
    found = told(STRIKES, difference, discount=discount, is_inverse=is_inverse)
    assert found.forward == pytest.approx(FORWARD, rel=1e-6)
    assert found.discount == pytest.approx(DISCOUNT, rel=1e-6)


@pytest.mark.parametrize(("is_inverse", "discount"), CASES)
def test_the_spread_is_the_median_size_of_what_parity_leaves_over(
    is_inverse: bool,
    discount: float,
    rng: np.random.Generator,
) -> None:
    strike = np.linspace(40e3, 90e3, 400)
    noise = rng.normal(0, 20.0, strike.size)  # a shift of the forward, quote currency
    difference = differences(strike, is_inverse=is_inverse) + DISCOUNT * noise / (FORWARD if is_inverse else 1)
    found = told(strike, difference, discount=discount, is_inverse=is_inverse)
    assert found.spread == pytest.approx(0.6745 * 20.0, rel=0.15)
    assert found.forward == pytest.approx(FORWARD, abs=5.0)


def test_weights_decide_whom_to_believe() -> None:
    strike, other = np.tile(STRIKES, 2), differences(STRIKES, is_inverse=False, forward=FORWARD + 100)
    difference = np.concatenate([differences(STRIKES, is_inverse=False), other])
    weight = np.repeat([50.0, 1.0], len(STRIKES))
    found = told(strike, difference, discount=DISCOUNT, is_inverse=False, weight=weight)
    assert found.forward == pytest.approx(FORWARD, abs=3.0)


def test_what_is_no_pair_counts_for_nothing() -> None:
    strike = np.concatenate([STRIKES, [60e3, np.nan, -5.0, 0.0, 70e3]])
    difference = np.concatenate([differences(STRIKES, is_inverse=False), [np.nan, 1.0, 1.0, 1.0, 9e9]])
    weight = np.ones(strike.size)
    weight[-1] = 0.0
    found = told(strike, difference, discount=ESTIMATE, is_inverse=False, weight=weight)
    assert found.pairs == len(STRIKES)
    assert found.forward == pytest.approx(FORWARD, rel=1e-12)


@pytest.mark.parametrize("is_inverse", [False, True], ids=["in currency", "in coin"])
def test_one_pair_is_enough_where_the_discount_is_given(is_inverse: bool) -> None:
    strike = np.array([60e3])
    found = told(strike, differences(strike, is_inverse=is_inverse), discount=DISCOUNT, is_inverse=is_inverse)
    assert found.forward == pytest.approx(FORWARD, rel=1e-12)
    assert (found.spread, found.pairs) == (pytest.approx(0.0, abs=1e-9), 1)


@pytest.mark.parametrize(
    ("strikes", "discount", "pairs"),
    [
        pytest.param([np.nan, np.nan], DISCOUNT, 0, id="no pair"),
        pytest.param([60e3, 60e3], ESTIMATE, 2, id="one strike and no discount"),
    ],
)
@pytest.mark.parametrize("is_inverse", [False, True], ids=["in currency", "in coin"])
def test_a_forward_that_cannot_be_told_is_nan(
    strikes: list[float],
    discount: float,
    pairs: int,
    is_inverse: bool,
) -> None:
    strike = np.array(strikes)
    found = told(strike, differences(strike, is_inverse=is_inverse), discount=discount, is_inverse=is_inverse)
    assert np.isnan([found.forward, found.spread]).all()
    assert np.isnan(found.discount) == np.isnan(discount)
    assert found.pairs == pairs


def test_differences_that_grow_with_the_strike_are_no_parity() -> None:
    found = told(STRIKES, STRIKES - FORWARD, discount=ESTIMATE, is_inverse=False)
    assert np.isnan([found.forward, found.discount]).all()


@given(
    forward=st.floats(1e-3, 1e6),
    discount=st.floats(0.5, 1.5),
    is_inverse=st.booleans(),
    is_given=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_forward_is_found_in_any_unit_with_one_bad_quote_in_ten(
    forward: float,
    discount: float,
    is_inverse: bool,
    is_given: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    strike = forward * rng.permutation(np.linspace(0.5, 1.7, 20))
    difference = discount * (forward - strike) / (forward if is_inverse else 1)
    difference[:2] *= rng.uniform(-3, 3, 2)
    found = told(strike, difference, discount=discount if is_given else ESTIMATE, is_inverse=is_inverse)
    assert found.forward == pytest.approx(forward, rel=1e-6)


def test_single_precision_finds_the_forward_within_a_tenth_of_a_basis_point() -> None:
    rows = [
        x.astype(np.float32)[None, :] for x in (STRIKES, differences(STRIKES, is_inverse=False), np.ones(len(STRIKES)))
    ]
    found = forwards_of(*rows, np.array([ESTIMATE], np.float32), np.array([False]))
    assert found.forward.dtype == np.float32
    assert float(found.forward[0]) == pytest.approx(FORWARD, rel=0.1 * BASIS_POINT)


def test_forwards_of_a_real_chain_are_those_that_its_marks_were_made_from(capsys: pytest.CaptureFixture[str]) -> None:
    chain, pairs = chain_expiries(), chain_pairs()
    rows = len(chain.name)
    of_marks, of_quotes = (
        forwards_of(pairs.strike, difference, weight, np.ones(rows), np.ones(rows, bool))
        for difference, weight in ((pairs.difference, pairs.weight), (pairs.middle, pairs.middle_weight))
    )
    from_marks, from_quotes = (
        (np.asarray(found.forward) / chain.forward - 1) / BASIS_POINT for found in (of_marks, of_quotes)
    )
    spread, of_file = np.asarray(of_marks.spread) / chain.forward / BASIS_POINT, "basis points off the file's median"
    with capsys.disabled():
        sys.stdout.write("\n")
        for i, name in enumerate(chain.name):
            days, n, m = chain.years[i] * 365, int(of_marks.pairs[i]), int(of_quotes.pairs[i])
            quotes = f"{from_quotes[i]:+8.2f} from {m} pairs of bid and ask"
            sys.stdout.write(f"  {name} {days:6.1f} d: {from_marks[i]:+6.2f} {of_file}, {n} pairs of marks;{quotes}\n")
    assert np.abs(from_marks).max() < 4.0  # inside one expiry the file's underlyings differ by as much
    assert spread.max() < 0.01  # the marks of one expiry share one forward
    is_liquid = np.asarray(of_quotes.pairs) >= 12
    assert np.abs(from_quotes[is_liquid]).max() < 10.0
