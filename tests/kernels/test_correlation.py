"""Claims about the correlated norm of unit margins."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gpumargin_kernels.correlation import correlated_margin
from tests.asserts import assert_close, assert_same_bits

norm = jax.jit(correlated_margin)
UNITS, ROWS = 6, 64


def matrix(rng: np.random.Generator, units: int = UNITS) -> np.ndarray:
    """A random correlation matrix."""
    loadings = rng.normal(size=(units, units + 2))
    cover = loadings @ loadings.T
    scale = np.sqrt(np.diag(cover))
    found = cover / scale[:, None] / scale[None, :]
    np.fill_diagonal(found, 1.0)
    return (found + found.T) / 2


def held(rng: np.random.Generator, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Margins and units of rows that hold `width` different units each."""
    units = np.array([np.sort(rng.choice(UNITS, width, replace=False)) for _ in range(ROWS)], np.int32)
    return rng.lognormal(8, 2, (ROWS, width)), units


def plain(margins: np.ndarray, units: np.ndarray, table: np.ndarray, inside: np.ndarray) -> list[float]:
    """The same, term by term."""
    found = []
    for amounts, names in zip(margins, units, strict=True):
        square, alone = 0.0, 0.0
        for i, a in zip(names, amounts, strict=True):
            alone += 0.0 if inside[i] else a
            square += sum(a * b * table[i, j] for j, b in zip(names, amounts, strict=True) if inside[i] and inside[j])
        found.append(np.sqrt(max(square, 0.0)) + alone)
    return found


ALL = np.ones(UNITS, bool)


def test_norm_equals_the_quadratic_form_term_by_term(rng: np.random.Generator) -> None:
    table, inside = matrix(rng), np.array([True, True, False, True, True, False])
    margins, units = held(rng, 4)
    found = norm(margins, units, table, inside, np.zeros(()))
    assert_close(found, plain(margins, units, table, inside), "margin", scale=margins.sum(axis=1))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        pytest.param(
            np.eye(UNITS), lambda m: np.sqrt((m * m).sum(axis=1)), id="independent units: root of the squares"
        ),
        pytest.param(np.ones((UNITS, UNITS)), lambda m: m.sum(axis=1), id="one risk: plain sum"),
    ],
)
def test_norm_of_known_matrices_is_known(table: np.ndarray, expected: object, rng: np.random.Generator) -> None:
    margins, units = held(rng, 4)
    assert_close(norm(margins, units, table, ALL, np.zeros(())), expected(margins), "margin", scale=margins.sum(axis=1))  # type: ignore[operator]


def test_units_outside_the_table_add_in_full(rng: np.random.Generator) -> None:
    margins, units = held(rng, 4)
    found = norm(margins, units, matrix(rng), np.zeros(UNITS, bool), np.zeros(()))
    assert_close(found, margins.sum(axis=1), "margin")


def test_norm_lies_between_the_largest_margin_and_their_sum_for_correlations_that_are_not_negative(
    rng: np.random.Generator,
) -> None:
    margins, units = held(rng, 4)
    found = np.asarray(norm(margins, units, np.abs(matrix(rng)), ALL, np.zeros(())))
    assert np.all(found >= margins.max(axis=1) * (1 - 1e-14))
    assert np.all(found <= margins.sum(axis=1) * (1 + 1e-14))


def test_norm_of_one_unit_is_its_margin(rng: np.random.Generator) -> None:
    margins, units = held(rng, 1)
    assert_close(norm(margins, units, matrix(rng), ALL, np.zeros(())), margins[:, 0], "margin")


def test_norm_doubles_with_the_margins_to_the_last_bit(rng: np.random.Generator) -> None:
    margins, units = held(rng, 4)
    table = matrix(rng)
    once, twice = (np.asarray(norm(k * margins, units, table, ALL, np.zeros(()))) for k in (1, 2))
    assert_same_bits(twice, 2 * once)


def test_a_quadratic_form_below_zero_by_rounding_gives_zero() -> None:
    opposed = np.array([[1.0, -1.0], [-1.0, 1.0]]) - 1e-16
    found = norm(np.full((1, 2), 0.1), np.array([[0, 1]], np.int32), opposed, np.ones(2, bool), np.zeros(()))
    assert found[0] == pytest.approx(0.0, abs=1e-8)
    assert not np.isnan(found[0])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_norm_carries_the_same_bits_in_wider_buckets(dtype: str, rng: np.random.Generator) -> None:
    margins, units = held(rng, 2)
    table, inside = matrix(rng).astype(dtype), np.array([True, True, False, True, True, False])
    zero = np.zeros((), dtype)
    expected = norm(margins.astype(dtype), units, table, inside, zero)
    for width in (4, 8):
        pad = ((0, 0), (0, width - 2))
        found = norm(np.pad(margins.astype(dtype), pad), np.pad(units, pad), table, inside, zero)
        assert_same_bits(found, expected, width=width)


@pytest.mark.parametrize("is_inside", [True, False], ids=["a unit of the table", "a unit outside the table"])
def test_a_margin_that_is_nan_makes_its_account_nan_and_no_other(*, is_inside: bool, rng: np.random.Generator) -> None:
    margins, units = held(rng, 4)
    table, inside = matrix(rng), np.full(UNITS, is_inside)
    expected = np.asarray(norm(margins, units, table, inside, np.zeros(())))
    spoilt = margins.copy()
    spoilt[3, 2] = np.nan
    found = np.asarray(norm(spoilt, units, table, inside, np.zeros(())))
    assert np.isnan(found[3])
    assert_same_bits(np.delete(found, 3), np.delete(expected, 3))


def test_rows_of_padding_alone_give_zero() -> None:
    found = norm(np.zeros((3, 4)), np.zeros((3, 4), np.int32), np.eye(UNITS), ALL, np.zeros(()))
    assert_same_bits(found, np.zeros(3))
