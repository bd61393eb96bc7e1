"""Claims about vols between quoted strikes and expiries."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumargin_kernels.interpolation import VolGrid, surface_vol, variance_in_strike

in_strike = jax.jit(variance_in_strike)
vol_at = jax.jit(surface_vol)
INF = np.inf
K = np.array([-0.4, -0.1, 0.0, 0.3, INF, INF])
W = np.array([0.09, 0.05, 0.04, 0.06, np.nan, 5.0])


def variances(at: Any, k: np.ndarray = K, w: np.ndarray = W) -> np.ndarray:
    """Total variance of one expiry at several log-moneynesses."""
    at = np.atleast_1d(np.float64(at))
    return np.asarray(in_strike(np.tile(k, (at.size, 1)), np.tile(w, (at.size, 1)), at))


def surface() -> VolGrid:
    """Two surfaces: three expiries with smiles (the last unused), and one expiry with one quote."""
    smile = np.array([0.05, 0.03, 0.04])
    return VolGrid(
        years=np.array([[0.1, 0.3, INF], [0.5, INF, INF]]),
        log_moneyness=np.array(
            [[[-0.2, 0.0, 0.3], [-0.5, 0.0, 0.4], [INF] * 3], [[0.1, INF, INF], [INF] * 3, [INF] * 3]]
        ),
        total_variance=np.array([[smile, 2 * smile, smile], [[0.08, 9.0, 9.0], smile, smile]]),
    )


def vols(years: Any, log_moneyness: Any, which: int = 0, grid: VolGrid | None = None) -> np.ndarray:
    years, k = (np.ravel(x) for x in np.broadcast_arrays(np.float64(years), np.float64(log_moneyness)))
    return np.asarray(vol_at(grid or surface(), np.full(years.size, which), k, years))


# --- In strike.


def test_between_strikes_total_variance_is_linear_in_log_moneyness() -> None:
    at = np.linspace(-0.4, 0.3, 57)
    np.testing.assert_allclose(variances(at), np.interp(at, K[:4], W[:4]), rtol=1e-14)


def test_quoted_strikes_come_back_to_the_last_bit() -> None:
    assert variances(K[:4]).tolist() == W[:4].tolist()


def test_beyond_the_quoted_strikes_the_vol_stays_what_it_is_at_the_last() -> None:
    assert variances([-9.0, -0.41, 0.31, 9.0]).tolist() == [0.09, 0.09, 0.06, 0.06]


def test_one_strike_gives_its_vol_everywhere_and_none_gives_nan() -> None:
    assert variances([-1.0, 0.2, 1.0], np.array([0.2, INF]), np.array([0.05, np.nan])).tolist() == [0.05] * 3
    assert np.isnan(variances([0.0], np.array([INF, INF]), np.array([0.05, 0.05])))[0]


# --- In time.


def test_between_expiries_total_variance_is_linear_in_time() -> None:
    years = np.linspace(0.1, 0.3, 21)
    expected = np.sqrt(np.interp(years, [0.1, 0.3], [0.03, 0.06]) / years)
    np.testing.assert_allclose(vols(years, 0.0), expected, rtol=1e-14)


def test_expiries_meet_at_equal_forward_moneyness() -> None:
    # Halfway in time; 0.1 is a third of the way to 0.3 on the first smile and a quarter of the way to 0.4 on the next.
    early, late = 0.03 + 0.01 / 3, 2 * (0.03 + 0.01 / 4)
    assert vols(0.2, 0.1)[0] == pytest.approx(np.sqrt((early + late) / 2 / 0.2), rel=1e-14)


def test_a_quoted_expiry_keeps_its_own_vols() -> None:
    np.testing.assert_allclose(vols(0.1, [-0.2, 0.0, 0.3]), np.sqrt(np.array([0.05, 0.03, 0.04]) / 0.1), rtol=1e-15)
    np.testing.assert_allclose(vols(0.3, [-0.5, 0.0, 0.4]), np.sqrt(np.array([0.1, 0.06, 0.08]) / 0.3), rtol=1e-15)


@pytest.mark.parametrize(("years", "edge"), [(0.0, 0.1), (0.05, 0.1), (0.31, 0.3), (7.0, 0.3)])
def test_before_the_first_and_after_the_last_expiry_vols_stay_what_they_are_there(years: float, edge: float) -> None:
    k = [-0.3, 0.0, 0.1]
    np.testing.assert_allclose(vols(years, k), vols(edge, k), rtol=1e-15)


def test_one_quote_is_a_flat_surface() -> None:
    np.testing.assert_allclose(vols([0.0, 0.1, 0.5, 3.0], [0.0, 0.1, -2.0, 2.0], which=1), np.full(4, 0.4), rtol=1e-15)


def test_a_surface_without_expiries_gives_nan() -> None:
    empty = surface()._replace(years=np.full((2, 3), INF))
    assert np.isnan(vols(0.2, 0.0, grid=empty))[0]


def test_an_expiry_without_quotes_gives_nan_where_it_is_used_and_only_there() -> None:
    k = surface().log_moneyness.copy()
    k[0, 1] = INF
    found = vols([0.05, 0.1, 0.2, 0.4], 0.0, grid=surface()._replace(log_moneyness=k))
    assert np.isnan(found).tolist() == [False, False, True, True]


# --- Whatever the quotes.


@given(w=st.lists(st.floats(0.001, 2.0), min_size=4, max_size=4), at=st.floats(-1.0, 1.0))
def test_no_interpolated_variance_leaves_the_range_of_its_quotes(w: list[float], at: float) -> None:
    found = variances(at, K[:4], np.array(w))[0]
    assert min(w) * (1 - 1e-15) <= found <= max(w) * (1 + 1e-15)


@given(
    rise=st.lists(st.floats(0.0, 0.5), min_size=9, max_size=9),
    k=st.floats(-0.5, 0.5),
    first=st.floats(0.0, 1.0),
    second=st.floats(0.0, 1.0),
)
def test_total_variance_never_falls_in_time_where_it_does_not_between_expiries(
    rise: list[float], k: float, first: float, second: float
) -> None:
    variance = 0.01 + np.cumsum(np.array(rise).reshape(3, 3), axis=0)
    ladder = np.broadcast_to(np.array([-0.3, 0.0, 0.3]), (3, 3))
    grid = VolGrid(np.array([[0.1, 0.4, 0.9]]), ladder[None], variance[None])
    years = np.sort([first, second])
    total = vols(years, k, grid=grid) ** 2 * years
    assert total[0] <= total[1] * (1 + 1e-14)


def test_single_precision_stays_single_and_close() -> None:
    single = VolGrid(*(field.astype(np.float32) for field in surface()))
    years, k = np.array([0.05, 0.2, 0.3], np.float32), np.array([0.0, 0.1, -0.6], np.float32)
    found = np.asarray(vol_at(single, np.zeros(3, int), k, years))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vols(years, k), rtol=2e-6)
