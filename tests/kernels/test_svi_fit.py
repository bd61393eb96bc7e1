"""Claims about fitted SVI slices and about the arbitrage that is found in slices."""

from __future__ import annotations

import sys
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumargin_kernels.svi import SviSlice, svi_total_variance, svi_vol
from gpumargin_kernels.svi_arbitrage import Violation, butterfly_violation, calendar_violation, moneyness_grid
from gpumargin_kernels.svi_fit import FITTED, TOO_FEW_QUOTES, SviFit, fit_svi
from tests.kernels.chain import chain_expiries

ONE_VOL_POINT = 0.01
EXPIRIES, QUOTES = 3, 64
FORWARD, YEARS = 60_000.0, 0.25
KNOWN = [
    pytest.param({}, id="skewed to puts"),
    pytest.param({"rho": 0.6, "m": -0.1}, id="skewed to calls"),
    pytest.param({"sigma": 0.02, "b": 0.12}, id="sharp corner"),
    pytest.param({"b": 1e-4, "a": 0.04}, id="all but flat"),
    pytest.param({"a": -0.02, "b": 0.3, "sigma": 0.4}, id="negative a"),
    pytest.param({"rho": -0.97}, id="one wing"),
]
# Axel Vogt's slice of one year: Gatheral & Jacquier, Arbitrage-free SVI volatility surfaces (2014), example 3.1.
VOGT = {"a": -0.0410, "b": 0.1331, "m": 0.3586, "rho": 0.3060, "sigma": 0.4153}

fitted = jax.jit(lambda strike, vol, weight, forward, years: fit_svi(strike, vol, weight, forward=forward, years=years))
butterflies = jax.jit(lambda svi: butterfly_violation(svi, moneyness_grid(svi)))


def slices(rows: int = 1, **fields: Any) -> SviSlice:
    """One plausible slice per row, except where a field is given."""
    plain = {"a": 0.01, "b": 0.1, "rho": -0.4, "m": 0.02, "sigma": 0.2, "forward": FORWARD, "years": YEARS}
    return SviSlice(**{name: np.broadcast_to(np.float64(x), (rows,)) for name, x in (plain | fields).items()})


def quoted(svi: SviSlice, log_moneyness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strikes and vols on a slice's own curve, `[E, Q]`."""
    wide = SviSlice(*(np.asarray(field, np.float64)[:, None] for field in svi))
    k = np.broadcast_to(log_moneyness, (len(svi.a), log_moneyness.size))
    vol = np.sqrt(np.asarray(svi_total_variance(wide, k)) / wide.years)
    return wide.forward * np.exp(k), vol


def refitted(svi: SviSlice, strike: np.ndarray, vol: np.ndarray, weight: np.ndarray | None = None) -> SviFit:
    """The fit of few expiries, padded to one shape, so that all tests share one compilation."""
    rows, quotes = vol.shape
    room = ((0, EXPIRIES - rows), (0, QUOTES - quotes))
    wide = [np.pad(x, room, constant_values=np.nan) for x in (strike, vol)]
    wide.append(np.pad(np.ones_like(vol) if weight is None else weight, room))
    terms = [np.pad(x, room[:1], constant_values=np.nan) for x in (svi.forward, svi.years)]
    return jax.tree.map(lambda x: np.asarray(x)[:rows], fitted(*wide, *terms))


def furthest(fit: SviFit, svi: SviSlice, log_moneyness: np.ndarray) -> float:
    """The largest difference in vol between the fitted and the true curve."""
    return float(np.max(np.abs(quoted(fit.svi, log_moneyness)[1] - quoted(svi, log_moneyness)[1])))


LADDER = np.linspace(-0.7, 0.7, 31)


@pytest.mark.parametrize("fields", KNOWN)
def test_the_fit_finds_the_curve_that_quotes_lie_on(fields: dict[str, float]) -> None:
    svi = slices(**fields)
    fit = refitted(svi, *quoted(svi, LADDER))
    assert fit.status.tolist() == [FITTED]
    assert furthest(fit, svi, LADDER) < 1e-6
    assert float(fit.rms[0]) < 1e-6


def test_a_well_determined_slice_comes_back_parameter_by_parameter() -> None:
    svi = slices()
    fit = refitted(svi, *quoted(svi, LADDER))
    np.testing.assert_allclose(np.array(fit.svi), np.array(svi), rtol=1e-4)


@pytest.mark.parametrize("fields", KNOWN)
def test_one_quote_in_five_that_is_wrong_moves_the_curve_by_a_hundredth_of_a_vol_point_at_most(
    fields: dict[str, float], rng: np.random.Generator
) -> None:
    svi = slices(**fields)
    strike, vol = quoted(svi, LADDER)
    wrong = rng.choice(LADDER.size, 6, replace=False)
    vol[0, wrong] *= rng.choice([0.5, 1.6, 3.0], 6)
    fit = refitted(svi, strike, vol)
    assert furthest(fit, svi, LADDER) < 0.01 * ONE_VOL_POINT


def test_noise_of_a_tenth_of_a_vol_point_leaves_a_residual_of_its_size(rng: np.random.Generator) -> None:
    svi = slices()
    strike, vol = quoted(svi, LADDER)
    fit = refitted(svi, strike, vol + rng.normal(0, 0.1 * ONE_VOL_POINT, vol.shape))
    assert 0.05 * ONE_VOL_POINT < float(fit.rms[0]) < 0.15 * ONE_VOL_POINT
    assert furthest(fit, svi, LADDER) < 0.3 * ONE_VOL_POINT


@given(
    lowest=st.floats(1e-3, 0.3),
    b=st.floats(0.01, 0.9),
    rho=st.floats(-0.9, 0.9),
    m=st.floats(-0.3, 0.3),
    sigma=st.floats(0.02, 0.8),
)
def test_any_slice_is_found_again_within_a_hundredth_of_a_vol_point(
    lowest: float, b: float, rho: float, m: float, sigma: float
) -> None:
    svi = slices(a=lowest - b * sigma * np.sqrt(1 - rho * rho), b=b, rho=rho, m=m, sigma=sigma)
    fit = refitted(svi, *quoted(svi, LADDER))
    assert furthest(fit, svi, LADDER) < 0.01 * ONE_VOL_POINT
    assert float(np.max(np.asarray(fit.svi.b) * (1 + np.abs(fit.svi.rho)))) <= 2 + 1e-12


def test_an_expiry_is_fitted_alike_alone_padded_and_among_others() -> None:
    svi = slices(3, m=[0.0, 0.02, -0.1], rho=[-0.3, -0.4, 0.2])
    strike, vol = quoted(svi, LADDER)
    together = refitted(svi, strike, vol)
    padded = [np.pad(x, ((0, 0), (0, 9)), constant_values=np.nan) for x in (strike, vol)]
    weight = np.pad(np.ones_like(vol), ((0, 0), (0, 9)))
    for other in (refitted(svi, *padded, weight), refitted(SviSlice(*(x[:1] for x in svi)), strike[:1], vol[:1])):
        rows = len(other.rms)
        again = SviSlice(*(x[:rows] for x in together.svi))
        np.testing.assert_allclose(quoted(other.svi, LADDER)[1], quoted(again, LADDER)[1], atol=1e-7)


def test_order_of_quotes_scale_of_weights_and_unit_of_price_do_not_matter(rng: np.random.Generator) -> None:
    svi = slices()
    strike, vol = quoted(svi, LADDER)
    vol = vol + rng.normal(0, 0.003, vol.shape)
    plain = refitted(svi, strike, vol)
    order = rng.permutation(LADDER.size)
    dearer = svi._replace(forward=svi.forward * 1000)
    other = refitted(dearer, strike[:, order] * 1000, vol[:, order], np.full_like(vol, 7.0))
    np.testing.assert_allclose(quoted(other.svi, LADDER)[1], quoted(plain.svi, LADDER)[1], atol=2e-4)
    np.testing.assert_allclose(other.rms, plain.rms, rtol=1e-3)


def test_weights_decide_whom_to_believe() -> None:
    low, high = quoted(slices(a=0.01), LADDER), quoted(slices(a=0.03), LADDER)
    strike, vol = (np.concatenate(pair, axis=1) for pair in zip(low, high, strict=True))
    weight = np.repeat([100.0, 1.0], LADDER.size)[None, :]
    fit = refitted(slices(), strike, vol, weight)
    assert furthest(fit, slices(a=0.01), LADDER) < 0.1 * ONE_VOL_POINT


@pytest.mark.parametrize(
    ("strikes", "change"),
    [
        pytest.param([50e3, 55e3, 60e3, 65e3], {}, id="four quotes"),
        pytest.param([50e3, 55e3, 60e3, 65e3, 65e3, 65e3], {}, id="six quotes, four strikes"),
        pytest.param([50e3, 55e3, 60e3, 65e3, 70e3, 75e3], {"forward": np.nan}, id="no forward"),
        pytest.param([50e3, 55e3, 60e3, 65e3, 70e3, 75e3], {"years": 0.0}, id="no time left"),
        pytest.param([50e3, 55e3, 60e3, 65e3, np.nan, -1.0], {}, id="strikes that are none"),
    ],
)
def test_too_few_quotes_are_said_to_be_too_few(strikes: list[float], change: dict[str, float]) -> None:
    svi, strike = slices(**change), np.array([strikes])
    fit = refitted(svi, strike, np.full_like(strike, 0.5))
    assert fit.status.tolist() == [TOO_FEW_QUOTES]
    assert np.isnan([fit.svi.a[0], fit.svi.sigma[0], fit.rms[0]]).all()


def test_a_slice_serves_the_evaluation_that_the_engine_uses() -> None:
    svi = slices()
    strike, vol = quoted(svi, np.linspace(-0.4, 0.4, 9))
    fit = refitted(svi, strike, vol)
    per_strike = SviSlice(*(np.repeat(np.asarray(field), 9) for field in fit.svi))
    np.testing.assert_allclose(svi_vol(per_strike, strike[0]), vol[0], atol=1e-6)


@pytest.mark.slow
def test_single_precision_finds_the_curve_within_a_twentieth_of_a_vol_point() -> None:
    svi = slices()
    strike, vol = quoted(svi, LADDER)
    single = [np.asarray(x, np.float32) for x in (strike, vol, np.ones_like(vol), svi.forward, svi.years)]
    fit = fitted(*single)
    assert fit.svi.a.dtype == np.float32
    assert furthest(fit, svi, LADDER) < 0.05 * ONE_VOL_POINT


# --- Arbitrage.


def test_vogts_slice_is_found_to_hold_a_butterfly_where_it_was_published() -> None:
    found = butterflies(slices(**VOGT, forward=1.0, years=1.0))
    assert found.is_violated.tolist() == [True]
    assert 0.6 < float(found.log_moneyness[0]) < 1.2
    assert float(found.largest[0]) > 0.01


def _g(svi: SviSlice, k: float, step: float = 1e-4) -> float:
    """g(k) from central differences of total variance."""
    before, here, after = (
        float(quoted(svi, np.array([x]))[1][0, 0]) ** 2 * svi.years[0] for x in (k - step, k, k + step)
    )
    slope, bend = (after - before) / (2 * step), (after - 2 * here + before) / step**2
    return float((1 - k * slope / (2 * here)) ** 2 - slope**2 / 4 * (1 / here + 0.25) + bend / 2)


def test_the_size_of_a_butterfly_is_the_lowest_g() -> None:
    vogt = slices(**VOGT, forward=1.0, years=1.0)
    found = butterflies(vogt)
    assert _g(vogt, float(found.log_moneyness[0])) == pytest.approx(-float(found.largest[0]), abs=1e-6)


def test_a_plain_slice_and_a_flat_one_hold_no_butterfly() -> None:
    found = butterflies(slices(3, b=[0.1, 0.0, 0.1], sigma=[0.2, 0.2, 0.0]))
    assert found.is_violated.tolist() == [False, False, False]
    assert found.largest.tolist() == [0.0, 0.0, 0.0]


def test_a_wing_steeper_than_two_violates_at_infinity_where_the_grid_is_too_narrow_to_see_it() -> None:
    narrow = np.zeros((2, 1))
    found = butterfly_violation(slices(2, a=1.0, b=1.2, rho=[0.8, -0.8], sigma=1.0), narrow)
    assert found.is_violated.tolist() == [True, True]
    assert found.log_moneyness.tolist() == [np.inf, -np.inf]


def test_a_total_variance_that_is_not_positive_violates_without_limit() -> None:
    assert butterflies(slices(a=-0.05)).largest.tolist() == [np.inf]


@pytest.mark.parametrize(
    "check", [butterflies, lambda svi: calendar_violation(svi, np.array([-1]), moneyness_grid(svi))]
)
def test_a_slice_that_is_not_there_is_never_called_free(check: Any) -> None:
    found: Violation = check(slices(a=np.nan))
    assert found.is_violated.tolist() == [True]
    assert np.isnan(found.largest[0])


def test_a_calendar_spread_shows_where_and_by_how_much_a_later_slice_lies_below() -> None:
    svi = slices(3, a=[0.02, 0.015, 0.03], rho=[-0.4, -0.4, -0.4])
    found = calendar_violation(svi, np.array([-1, 0, 1]), moneyness_grid(svi))
    assert found.is_violated.tolist() == [False, True, False]
    np.testing.assert_allclose(found.largest, [0, 0.005, 0], atol=1e-12)


def test_expiries_are_compared_with_the_one_before_of_their_own_underlying() -> None:
    svi = slices(4, a=[0.05, 0.01, 0.06, 0.02])  # two underlyings, interleaved
    found = calendar_violation(svi, np.array([-1, -1, 0, 1]), moneyness_grid(svi))
    assert not found.is_violated.any()


# --- The chain of a venue.


@pytest.mark.slow
def test_the_slices_of_a_real_chain_are_close_to_its_marks(capsys: pytest.CaptureFixture[str]) -> None:
    chain = chain_expiries()
    fit = fitted(chain.strike, chain.vol, chain.weight, chain.forward, chain.years)
    found, days = butterflies(fit.svi), chain.years * 365
    with capsys.disabled():
        sys.stdout.write("\n")
        for i, name in enumerate(chain.name):
            flag = "butterfly" if found.is_violated[i] else ""
            rms = float(fit.rms[i]) / ONE_VOL_POINT
            sys.stdout.write(f"  {name} {days[i]:6.1f} d: vega-weighted rms {rms:.2f} vol points {flag}\n")
    assert (np.asarray(fit.status) == FITTED).all()
    assert np.asarray(fit.rms).max() < 5 * ONE_VOL_POINT  # the worst is BTC at half a day
    assert np.asarray(fit.rms)[days > 1].max() < 1.5 * ONE_VOL_POINT
    assert np.median(fit.rms) < 1.0 * ONE_VOL_POINT
