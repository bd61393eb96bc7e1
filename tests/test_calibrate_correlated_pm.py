from __future__ import annotations

import tomllib

import numpy as np
import pytest

from data.calibrate_correlated_pm import (
    COINS,
    fragments,
    nearest_correlation,
    prices_folder,
    round_up,
    rounded_correlation,
    smallest_eigenvalue,
)

IMPOSSIBLE = np.array([[1.0, 0.9, 0.5], [0.9, 1.0, 0.95], [0.5, 0.95, 1.0]])


@pytest.mark.parametrize(
    ("value", "step", "expected"),
    [
        pytest.param(0.171, 0.01, 0.18, id="up"),
        pytest.param(0.07 * 3, 0.01, 0.21, id="multiple-with-rounding-noise-stays"),
        pytest.param(0.0, 0.005, 0.0, id="zero"),
        pytest.param(0.0901, 0.005, 0.095, id="half-per-cent"),
    ],
)
def test_round_up_gives_the_next_multiple(value: float, step: float, expected: float) -> None:
    assert round_up(value, step) == expected


def test_nearest_correlation_agrees_with_the_published_example() -> None:
    # The example of Higham (2002): the tridiagonal matrix of ones, its answer to four decimals.
    tridiagonal = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    expected = np.array([[1.0, 0.7607, 0.1573], [0.7607, 1.0, 0.7607], [0.1573, 0.7607, 1.0]])
    np.testing.assert_allclose(nearest_correlation(tridiagonal), expected, atol=5e-5)


def test_nearest_correlation_leaves_a_correlation_matrix_alone() -> None:
    matrix = np.array([[1.0, 0.6], [0.6, 1.0]])
    np.testing.assert_allclose(nearest_correlation(matrix), matrix, atol=1e-12)


def test_rounded_correlation_stays_semidefinite() -> None:
    assert smallest_eigenvalue(IMPOSSIBLE) < 0.0
    rounded = rounded_correlation(nearest_correlation(IMPOSSIBLE))
    assert smallest_eigenvalue(rounded) >= 0.0
    np.testing.assert_array_equal(rounded, np.round(rounded, 2))
    np.testing.assert_array_equal(np.diag(rounded), np.ones(3))
    assert np.abs(rounded - IMPOSSIBLE).max() < 0.1


@pytest.mark.skipif(not prices_folder().is_dir(), reason=f"the price files are absent: {prices_folder()}")
def test_fragments_are_one_toml_document_within_sane_bounds() -> None:
    document = tomllib.loads(fragments())
    assert fragments() == fragments()
    ranges = document["scenario_range"]
    assert ranges["default"] == max(ranges[coin] for coin in COINS) < 1.0
    matrix = np.array(document["correlation"]["matrix"])
    np.testing.assert_array_equal(matrix, matrix.T)
    assert smallest_eigenvalue(matrix) >= 0.0
    assert matrix.min() >= 0.5
    for entry in document["collateral"].values():
        assert 0.0 <= entry["weight_initial"] <= entry["weight_maintenance"] == pytest.approx(1.0 - entry["haircut"])
    assert document["collateral"]["USDT"]["haircut"] < document["collateral"]["USDC"]["haircut"]
