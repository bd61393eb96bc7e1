"""Claims about the lowest payoff of an expiry: a fine grid finds none lower, and every bucket gives the same bits."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpumargin_kernels._buckets import barrier, in_chunks
from gpumargin_kernels.payoff import lowest_payoffs
from tests.asserts import assert_same_bits
from tests.kernels.inputs import contracts, padded_legs

if TYPE_CHECKING:
    from gpumargin_kernels.records import Contracts, Legs

STRIKES = np.array([0.0, 12.5, 50.0, 90.0, 100.0, 110.0, 160.0])
EXPIRIES, SIDES = 3, 2
LISTED = 1 + EXPIRIES * len(STRIKES) * SIDES  # a perpetual, then options by expiry, strike, put or call
GRID = np.arange(0.0, 2 * STRIKES.max() + 0.25, 0.25)  # holds every strike
ROWS = 64
Run = tuple[np.ndarray, np.ndarray]


def listed(dtype: str = "float64", **given: Any) -> Contracts:
    index = np.arange(LISTED - 1)
    strike = STRIKES[index // SIDES % len(STRIKES)]
    return contracts(
        LISTED + 1,
        dtype,
        is_option=[False, *[True] * (LISTED - 1), False],
        is_perpetual=[True, *[False] * LISTED],
        is_call=[False, *(index % SIDES == 1), False],
        strike=[0.0, *strike, 0.0],
        size=[1.0, *[0.5] * (LISTED - 1), 0.0],
        expiry_group=[0, *(1 + index // (SIDES * len(STRIKES))), -1],
        **given,
    )


@cache
def program(chunk: int | None = None) -> Any:
    def found(market: Contracts, legs: Legs, zero: jax.Array) -> jax.Array:
        return in_chunks(lambda bucket: barrier(lowest_payoffs(market, bucket, zero)), legs, chunk)

    return jax.jit(found)


def lowest(held: list[Run], width: int, market: Contracts | None = None, **how: Any) -> np.ndarray:
    """`[R, L]` of some rows through a bucket of `width` slots."""
    some = listed() if market is None else market
    legs = padded_legs(held, width, ROWS, LISTED)
    return np.asarray(program(**how)(some, legs, np.zeros((), some.size.dtype)))[: len(held)]


def by_brute_force(contract: np.ndarray, quantity: np.ndarray) -> list[float]:
    """Least payoff of each expiry over a fine grid of prices, at most 0, in the order of the legs.

    Where calls are short on balance the grid ends at the highest strike; elsewhere nothing lower lies beyond it.
    """
    market, found = listed(), []
    for group in dict.fromkeys(market.expiry_group[contract].tolist()):
        here = market.expiry_group[contract] == group
        legs, size = contract[here], (quantity * market.size[contract])[here]
        strike, is_call = market.strike[legs], market.is_call[legs]
        prices = GRID[(strike.max() >= GRID) | (size[is_call].sum() >= 0), None]
        inside = np.where(is_call, prices - strike, strike - prices)
        payoff = (np.where(market.is_option[legs], np.maximum(inside, 0), 0) * size).sum(axis=1)
        found.append(min(0.0, payoff.min()))
    return found


@st.composite
def rows(draw: st.DrawFn) -> list[Run]:
    """Rows of up to 16 legs in canonical order, sizes in eighths: every sum is exact."""
    made = []
    for _ in range(draw(st.integers(1, 8))):
        held = sorted(draw(st.sets(st.integers(0, LISTED - 1), max_size=16)))
        size = draw(st.lists(st.integers(-40, 40), min_size=len(held), max_size=len(held)))
        made.append((np.array(held, np.int32), np.array(size) / 8))
    return made


@given(held=rows())
@settings(deadline=None, max_examples=150)
def test_no_price_on_a_fine_grid_pays_less_than_the_lowest_payoff(held: list[Run]) -> None:
    found, market = lowest(held, 16), listed()
    for (contract, quantity), row in zip(held, found, strict=True):
        expiry = market.expiry_group[contract]
        is_last = np.append(expiry[1:] != expiry[:-1], True)[: len(contract)]
        assert row[: len(contract)][is_last].tolist() == by_brute_force(contract, quantity)
        assert not row[: len(contract)][~is_last].any()
        assert not row[len(contract) :].any()


def random_rows(rng: np.random.Generator, longest: int, dtype: str) -> list[Run]:
    held = [np.sort(rng.choice(LISTED, rng.integers(0, longest + 1), replace=False)) for _ in range(ROWS)]
    return [(contract.astype(np.int32), rng.normal(0, 1e3, len(contract)).astype(dtype)) for contract in held]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("longest", [2, 8, 16])
def test_every_bucket_and_chunk_gives_the_same_bits(longest: int, dtype: str, rng: np.random.Generator) -> None:
    market = listed(dtype)
    held = random_rows(rng, longest, dtype)
    expected = lowest(held, longest, market)
    for width in (w for w in (4, 8, 16, 32, 64) if w > longest):
        wide = lowest(held, width, market)
        assert_same_bits(wide[:, :longest] + 0.0, expected + 0.0, narrow=longest, wide=width)
        assert not wide[:, longest:].any()
        assert_same_bits(lowest(held, width, market, chunk=16), wide, width=width)


def test_a_digital_option_spoils_its_own_expiry_alone() -> None:
    first, second = 1, 1 + SIDES * len(STRIKES)
    market = listed(is_digital=np.arange(LISTED + 1) == first)
    held = (np.array([first, second, second + 2], np.int32), np.array([-1.0, -1.0, -2.0]))
    found = lowest([held], 4, market)[0]
    assert np.isnan(found[0])
    assert found[1:].tolist() == [0.0, -12.5, 0.0]
