"""Claims about implied vols: prices with 30 digits go in, and the vol that made them comes out."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from gpumargin_kernels.implied_vol import STATUS_WORDS, implied_vol

MINUTE = 1 / 525_600
BATCH, MANY_BATCHES = 5_000, 20  # 200 batches, a million prices, hold as well: ten minutes of 40-digit arithmetic
implied = jax.jit(implied_vol)


class Options(NamedTuple):
    """Arguments of a price, float64 `[N]`; `is_call` bool."""

    forward: np.ndarray
    strike: np.ndarray
    years: np.ndarray
    is_call: np.ndarray
    discount: np.ndarray


def options(rows: int, **given: Any) -> Options:
    """The same plain option in every row, except for what is given."""
    plain = {"forward": 100.0, "strike": 100.0, "years": 0.25, "is_call": True, "discount": 1.0}
    return Options(**{name: np.broadcast_to(value, rows).copy() for name, value in (plain | given).items()})


def exact_prices(terms: Options, vol: np.ndarray) -> np.ndarray:
    """Discounted Black-76 prices, computed with 40 digits and rounded once; NaN where vol is."""
    with mpmath.workdps(40):
        return np.array([_exact_price(*row) for row in zip(*(x.tolist() for x in (*terms, vol)), strict=True)])


def _exact_price(forward: float, strike: float, years: float, is_call: float, discount: float, vol: float) -> float:
    if np.isnan(vol):
        return float("nan")
    f, k = mpmath.mpf(forward), mpmath.mpf(strike)
    intrinsic = max(f - k if is_call else k - f, 0)
    if vol == 0:
        return float(discount * intrinsic)
    stdev = vol * mpmath.sqrt(years)
    near, far = min(f, k), max(f, k)  # the out-of-the-money side's price is the same function of both
    d1 = mpmath.log(near / far) / stdev + stdev / 2
    return float(discount * (intrinsic + near * mpmath.ncdf(d1) - far * mpmath.ncdf(d1 - stdev)))


def vegas(terms: Options, vol: np.ndarray) -> np.ndarray:
    root = np.sqrt(terms.years)
    stdev = vol * root
    d1 = np.log(terms.forward / terms.strike) / stdev + stdev / 2
    return terms.discount * terms.forward * np.exp(-d1 * d1 / 2) / np.sqrt(2 * np.pi) * root


def drawn(rng: np.random.Generator, rows: int) -> tuple[Options, np.ndarray]:
    """Log-uniform strikes in a wide and a narrow band, 1 minute to 5 years, vol 1 % to 500 %."""
    years = np.exp(rng.uniform(np.log(MINUTE), np.log(5), rows))
    vol = np.exp(rng.uniform(np.log(0.01), np.log(5), rows))
    width = np.where(rng.random(rows) < 0.3, 3, np.minimum(8 * vol * np.sqrt(years), 10))
    forward = np.exp(rng.uniform(-3, 12, rows))
    strike = forward * np.exp(width * rng.uniform(-1, 1, rows))
    discount = np.where(rng.random(rows) < 0.5, 1, np.exp(-0.04 * years))
    return Options(forward, strike, years, rng.random(rows) < 0.5, discount), vol


def assert_round_trip(terms: Options, vol: np.ndarray, *, least: float) -> None:
    """Vol to 1e-12 where 2 ulp of the price determine it as well, else the price to 2 ulp times its elasticity."""
    value = exact_prices(terms, vol)
    found = implied(value, *terms)
    found_vol, ulp = np.asarray(found.vol), np.spacing(value)
    with np.errstate(all="ignore"):
        weight = vegas(terms, vol) * vol
        is_determined = (2 * ulp < 1e-12 * weight) & (value > np.finfo(np.float64).tiny)
        error = np.abs(found_vol / vol - 1)
        elasticity = np.maximum(1, np.nan_to_num(weight / value))
    assert is_determined.mean() > least
    worst = np.where(is_determined, np.nan_to_num(error, nan=np.inf), 0).argmax()
    row = [x[worst] for x in (value, *terms, vol, found_vol)]
    assert not np.any(is_determined & ~(error <= 1e-12)), (error[worst], row)
    _assert_reproduced(terms, value, found, ulp * elasticity, ~is_determined)


def _assert_reproduced(terms: Options, value: np.ndarray, found: Any, unit: np.ndarray, rows: np.ndarray) -> None:
    """Prices at the vols found; a price that rounds to its maximum has no vol and says so."""
    maximum = terms.discount * np.where(terms.is_call, terms.forward, terms.strike)
    words = np.array(STATUS_WORDS)[np.asarray(found.status)]
    assert np.array_equal(words, np.where(value < maximum, "converged", "above_maximum"))
    rows = rows & (value < maximum)
    part, vol = Options(*(x[rows] for x in terms)), np.asarray(found.vol)[rows]
    missed = np.abs(exact_prices(part, vol) - value[rows])
    room = 2 * unit[rows] + np.finfo(np.float64).tiny
    worst = (missed / room).argmax() if len(room) else 0
    assert not np.any(~(missed <= room)), [x[worst] for x in (missed / room, *part, value[rows], vol)]


@pytest.mark.parametrize("batches", [1, pytest.param(MANY_BATCHES, marks=pytest.mark.slow)])
def test_vols_come_back_from_exact_prices(rng: np.random.Generator, batches: int) -> None:
    for _ in range(batches):
        assert_round_trip(*drawn(rng, BATCH), least=0.5)


@pytest.mark.parametrize(
    ("log_moneyness", "bound"),
    [(0, 1e-14), (1e-12, 1e-14), (1e-6, 1e-14), (0.01, 1e-14), (1, 1e-14), (30, 1e-14), (300, 1e-12), (600, 1e-10)],
)
def test_vols_come_back_at_every_moneyness_from_tiny_to_huge_deviations(log_moneyness: float, bound: float) -> None:
    stdev = np.geomspace(max(log_moneyness / 36, 1e-9), max(10, 2 * log_moneyness**0.5), 200)
    terms = options(200, years=1.0, forward=1.0, strike=np.exp(log_moneyness))
    value = exact_prices(terms, stdev)
    is_inside = value < 1 - 1e-9
    found = implied(value, *terms)
    with np.errstate(under="ignore"):
        room = 4 * np.spacing(value) / (vegas(terms, stdev) * stdev) + bound
    error = np.abs(np.asarray(found.vol) / stdev - 1)
    assert np.all(error[is_inside] <= room[is_inside]), (error / room)[is_inside].max()


def test_prices_as_small_as_a_double_can_hold_have_their_vol() -> None:
    terms = options(3, strike=np.array([100.01, 130.0, 1e5]), forward=np.array([100.0, 100.0, 1e4]), years=1.0)
    value = np.array([1e-305, 1e-300, 1e-303])
    vol = np.asarray(implied(value, *terms).vol)
    assert np.all(np.abs(exact_prices(terms, vol) / value - 1) < 1e-12)


def test_status_and_vol_at_and_beyond_both_bounds() -> None:
    for is_call, intrinsic, maximum in ((True, 20.0, 100.0), (False, 0.0, 80.0)):
        below, above = intrinsic - max(4 * np.spacing(intrinsic), 1e-300), np.nextafter(maximum, np.inf)
        value = np.array([-1.0, below, intrinsic, np.nextafter(maximum, 0), maximum, above, np.nan, np.inf])
        found = implied(value, *options(len(value), strike=80.0, is_call=is_call))
        words = [STATUS_WORDS[i] for i in np.asarray(found.status)]
        expected = ["below_intrinsic"] * 2 + ["converged"] * 2 + ["above_maximum"] * 2 + ["not_finite"] * 2
        assert words == expected
        vol = np.asarray(found.vol)
        assert vol[2] == 0
        assert 0 < vol[3] < np.inf
        assert np.isnan(vol[[0, 1, 4, 5, 6, 7]]).all()


def test_vol_is_exactly_zero_at_the_discounted_intrinsic_value(rng: np.random.Generator) -> None:
    terms, _ = drawn(rng, 5_000)
    sign = np.where(terms.is_call, 1, -1)
    value = terms.discount * np.maximum(sign * (terms.forward - terms.strike), 0)
    found = implied(value, *terms)
    assert np.array_equal(np.asarray(found.vol), np.zeros(5_000))
    assert not np.asarray(found.status).any()


@pytest.mark.parametrize(
    ("given", "value", "word"),
    [
        pytest.param({"strike": 0.0}, 100.0, "converged", id="strike 0 at its only value"),
        pytest.param({"strike": 0.0}, 101.0, "above_maximum", id="strike 0 above it"),
        pytest.param({"forward": 0.0}, 0.0, "converged", id="worthless forward"),
        pytest.param({"forward": 0.0, "is_call": False}, 100.0, "converged", id="put on a worthless forward"),
        pytest.param({"years": 0.0}, 0.0, "converged", id="expired at intrinsic"),
        pytest.param({"years": 0.0}, 1.0, "above_maximum", id="expired above intrinsic"),
        pytest.param({"years": -1.0}, 1.0, "not_finite", id="negative time"),
        pytest.param({"strike": -1.0}, 1.0, "not_finite", id="negative strike"),
        pytest.param({"forward": np.inf}, 1.0, "not_finite", id="infinite forward"),
        pytest.param({"discount": 0.0}, 1.0, "not_finite", id="no discount factor"),
        pytest.param({"discount": np.nan}, 1.0, "not_finite", id="unknown discount factor"),
    ],
)
def test_limits_have_a_status_and_no_infinite_vol(given: dict[str, Any], value: float, word: str) -> None:
    found = implied(np.array([value]), *options(1, **given))
    assert STATUS_WORDS[int(found.status[0])] == word
    assert found.status.dtype == np.int8
    assert found.vol[0] == 0 if word == "converged" else np.isnan(found.vol[0])


def test_arguments_broadcast_and_need_no_jit() -> None:
    found = implied_vol(5.0, np.array([100.0, 110.0]), 100.0, 0.5, np.array([[True], [False]]), 1.0)
    assert found.vol.shape == found.status.shape == (2, 2)
    assert float(found.vol[0, 0]) == pytest.approx(float(found.vol[1, 0]), rel=1e-13)  # put-call parity at the money


@pytest.mark.parametrize(("dtype", "size"), [(np.float64, 30.0), (np.float32, 10.0)])
def test_converged_means_a_finite_vol_up_to_the_last_ulp_inside_the_bounds(
    dtype: type, size: float, rng: np.random.Generator
) -> None:
    rows = 200_000
    forward = np.exp(rng.uniform(-size, size, rows))
    strike, years = forward * np.exp(rng.normal(0, 3, rows)), np.exp(rng.uniform(-14, 2, rows))
    columns = (forward, strike, years, rng.random(rows))
    forward, strike, years, discount = (x.astype(dtype) for x in columns)
    is_call = rng.random(rows) < 0.5
    low = discount * np.maximum(np.where(is_call, forward - strike, strike - forward), 0)
    kind, uniform = rng.integers(0, 3, rows), rng.random(rows)
    share = np.choose(kind, [10 ** (-30 * uniform), 1 - 10 ** (-16 * uniform), 1e-16 * np.floor(40 * uniform)])
    value = low + discount * np.minimum(forward, strike) * share.astype(dtype)
    found = implied(value, forward, strike, years, is_call, discount)
    vol, is_converged = np.asarray(found.vol), np.asarray(found.status) == 0
    assert np.isfinite(vol[is_converged]).all()
    assert (vol[is_converged] >= 0).all()
    assert np.isnan(vol[~is_converged]).all()
    assert is_converged.mean() > 0.5


ARGUMENTS = ("value", "forward", "strike", "years", "discount")


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_derivatives_are_those_of_the_inverse_function(name: str, rng: np.random.Generator) -> None:
    rows = 200
    years, vol = np.exp(rng.uniform(-4, 1, rows)), np.exp(rng.uniform(-3, 1, rows))
    strike = 100 * np.exp(2 * vol * np.sqrt(years) * rng.uniform(-1, 1, rows))
    terms = options(rows, years=years, strike=strike, is_call=rng.random(rows) < 0.5, discount=0.9)
    point = dict(terms._asdict(), value=exact_prices(terms, vol))

    def vol_at(x: jax.Array) -> jax.Array:
        return implied_vol(**(point | {name: x})).vol

    x = point[name]
    step = 1e-5 * x if name == "years" else 1e-6 * np.minimum(x, point["value"])
    expected = (np.asarray(vol_at(x + step)) - np.asarray(vol_at(x - step))) / (2 * step)
    found = np.asarray(jax.grad(lambda y: vol_at(y).sum())(x))
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_gradients_have_no_nan_where_there_is_no_vol() -> None:
    value = np.array([0.0, -1.0, 100.0, np.nan, 1e-300, 5.0])
    terms = options(6, strike=np.array([100.0, 100.0, 100.0, 100.0, 120.0, 100.0]))

    def total(value: jax.Array, forward: jax.Array) -> jax.Array:
        found = implied_vol(value, forward, *terms[1:])
        return jnp.where(found.status == 0, found.vol, 0).sum()

    for slope in jax.jit(jax.grad(total, argnums=(0, 1)))(value, terms.forward):
        assert np.isfinite(slope).all()
        assert np.array_equal(np.asarray(slope)[:4], np.zeros(4))
        assert slope[5] != 0


def test_float32_gives_what_an_ulp_of_its_price_is_worth(rng: np.random.Generator) -> None:
    vol = np.exp(rng.uniform(np.log(0.05), np.log(3), 500))
    terms = options(500, strike=100 * np.exp(vol * rng.uniform(-1.5, 1.5, 500)), years=0.5)
    narrow = Options(*(x.astype(np.float32) if x.dtype == np.float64 else x for x in terms))
    exact = Options(*(x.astype(np.float64) if x.dtype == np.float32 else x for x in narrow))
    value = exact_prices(exact, vol).astype(np.float32)
    found = implied(value, *narrow)
    assert found.vol.dtype == np.float32
    room = 4 * np.spacing(value) / vegas(exact, vol) / vol + 4e-6
    assert np.all(np.abs(np.asarray(found.vol) / vol - 1) <= room)
