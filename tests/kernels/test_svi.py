"""Claims about implied vols from raw SVI slices."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gpumargin_kernels.svi import SviSlice, svi_vol
from tests.asserts import assert_close
from tests.oracle import black as oracle
from tests.reference.folders import read_cases

vol_of = jax.jit(svi_vol)
PLAIN = {"a": 0.02, "b": 0.05, "rho": -0.3, "m": 0.01, "sigma": 0.2, "forward": 2_000.0, "years": 0.25}
SLICES = [
    pytest.param({}, id="equity-like skew"),
    pytest.param({"rho": 0.6, "m": -0.2}, id="upward skew"),
    pytest.param({"a": 0.0, "b": 0.4, "sigma": 0.001}, id="sharp corner"),
    pytest.param({"a": 4.0, "b": 30.0}, id="total variance at its cap"),
    pytest.param({"b": 0.0}, id="flat"),
]
STRIKES = 2_000.0 * np.array([1e-4, 0.3, 0.9, 1.0, 1.1, 3.0, 1e4])


def slices(rows: int, dtype: str = "float64", **given: float) -> SviSlice:
    """The same slice for every row."""
    return SviSlice(**{name: np.full(rows, value, dtype) for name, value in (PLAIN | given).items()})


@pytest.mark.parametrize("given", SLICES)
def test_vol_equals_the_oracle_from_clip_to_clip(given: dict[str, float]) -> None:
    found = vol_of(slices(len(STRIKES), **given), STRIKES)
    expected = [oracle.svi_vol(oracle.Svi(**(PLAIN | given)), strike=strike) for strike in STRIKES.tolist()]
    assert_close(found, expected, "vol", strike=STRIKES, slice=PLAIN | given)


@pytest.mark.reference
def test_vol_equals_the_literals_of_the_venues_own_tests() -> None:
    content = read_cases("derive_vectors/svi_cases.json")
    if content is None:
        pytest.skip("no derive_vectors/svi_cases.json on this machine; set GPUMARGIN_REFERENCE")
    for case in content["cases"]:
        terms = dict(case["params"])
        terms["years"] = terms.pop("tau_years")
        found = vol_of(slices(1, **terms), np.array([case["strike"]]))
        assert found[0] == pytest.approx(case["vol"], abs=case["tolerance"]), case["id"]


def test_vol_is_zero_at_strike_zero() -> None:
    assert vol_of(slices(1), np.zeros(1)).tolist() == [0.0]


def test_a_negative_total_variance_gives_nan() -> None:
    assert np.isnan(vol_of(slices(1, a=-0.05), np.array([2_000.0])))[0]


def test_a_fit_that_is_absent_gives_nan() -> None:
    assert np.isnan(vol_of(slices(1, a=np.nan), np.array([2_000.0])))[0]


def test_wings_are_flat_beyond_the_clip() -> None:
    bound = 4 * np.sqrt(PLAIN["a"] + PLAIN["b"] * PLAIN["sigma"])
    strikes = PLAIN["forward"] * np.exp(bound * np.array([-1.5, -1.0001, 1.0001, 1.5]))
    low, at_low, at_high, high = vol_of(slices(4), strikes).tolist()
    assert (low, high) == (at_low, at_high)


def test_a_fits_own_forward_and_time_are_used_and_its_variance_scales_with_time() -> None:
    doubled = vol_of(slices(len(STRIKES), years=1.0), STRIKES)
    assert_close(doubled, np.asarray(vol_of(slices(len(STRIKES)), STRIKES)) / 2, "vol", strike=STRIKES)
    moved = vol_of(slices(len(STRIKES), forward=4_000.0), 2 * STRIKES)
    assert_close(moved, vol_of(slices(len(STRIKES)), STRIKES), "vol", strike=STRIKES)


def test_float32_stays_within_its_bound_of_float64() -> None:
    narrow = vol_of(slices(len(STRIKES), "float32"), STRIKES.astype(np.float32))
    wide = vol_of(
        SviSlice(*(x.astype(np.float64) for x in slices(len(STRIKES), "float32"))),
        STRIKES.astype(np.float32).astype(np.float64),
    )
    assert narrow.dtype == np.float32
    assert_close(narrow, wide, "vol", strike=STRIKES)


def test_slope_is_finite_on_both_sides_of_the_clip_and_at_zero() -> None:
    def one(strike: jax.Array) -> jax.Array:
        return svi_vol(SviSlice(**{name: jax.numpy.full(1, value) for name, value in PLAIN.items()}), strike[None])[0]

    for strike in (0.0, 1.0, 1_900.0, 1e9):
        assert np.isfinite(jax.grad(one)(jax.numpy.asarray(strike)))
