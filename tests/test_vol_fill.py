"""Claims about vols filled from the vols of other options."""

from __future__ import annotations

import sys
from typing import Any

import jax
import numpy as np
import pytest

from gpumargin.pack.quotes import Options, surface_quotes
from gpumargin_kernels.svi_fit import FITTED
from gpumargin_kernels.vol_fill import (
    FROM_FIT,
    FROM_INTERPOLATION,
    NOT_FILLED,
    FilledVol,
    SurfaceQuotes,
    Wanted,
    filled_vol,
)
from tests.kernels.chain import chain_expiries

pytestmark = pytest.mark.slow  # all of them compile the same; `test_filling` fills whole books

fill = jax.jit(filled_vol)
STRIKES = 60e3 * np.exp(np.linspace(-0.5, 0.5, 11))
YEARS = (0.1, 0.3, 0.8)


def smile(strike: np.ndarray, years: float) -> np.ndarray:
    """Vols of an SVI slice whose shape scales with the root of time: total variance grows with time."""
    k = np.log(strike / 60e3)
    w = years * (0.2 + 0.2 * (-0.3 * k + np.sqrt(k * k + 0.04)))
    return np.sqrt(w / years)


def options(*, surface: int = 0, **columns: Any) -> Options:
    """A call and a put per strike for three expiries of one surface."""
    expiry, strike = (np.tile(x.ravel(), 2) for x in np.meshgrid(np.arange(3), STRIKES, indexing="ij"))
    years = np.array(YEARS)[expiry]
    vol = np.array([smile(k, t) for k, t in zip(strike, years, strict=True)])
    plain = {"surface": np.full(expiry.size, surface), "expiry": expiry, "strike": strike, "vol": vol, "years": years}
    return Options(**({"forward": np.full(expiry.size, 60e3)} | plain | columns))


def filled(given: Options) -> FilledVol:
    """What is filled, padded to one shape, so that the small tests share one compilation."""
    quotes, wanted = surface_quotes(given)
    room = [(0, max(0, most - size)) for most, size in zip((2, 3, 11), quotes.strike.shape, strict=True)]
    wide = [np.pad(x, room[: x.ndim], constant_values=np.inf) for x in quotes]
    more = [np.pad(x, (0, max(0, 80 - x.size)), mode="edge" if x.size else "empty") for x in wanted]
    found = jax.tree.map(np.asarray, fill(SurfaceQuotes(*wide), Wanted(*more)))
    return FilledVol(found.vol[: wanted.strike.size], found.method[: wanted.strike.size], found.fit)


def without(given: Options, lacking: np.ndarray) -> Options:
    return Options(**{**given.__dict__, "vol": np.where(lacking, np.nan, given.vol)})


def test_strikes_beyond_the_quotes_take_the_slice_fitted_to_them() -> None:
    whole = options()
    lacking = np.isin(whole.strike, STRIKES[[0, 10]])
    found = filled(without(whole, lacking))
    assert set(found.method) == {FROM_FIT}
    np.testing.assert_allclose(found.vol, whole.vol[lacking], atol=1e-6)
    assert found.fit.status[:3].tolist() == [FITTED] * 3


def test_strikes_between_quotes_are_interpolated() -> None:
    whole = options()
    lacking = np.isin(whole.strike, STRIKES[[3, 7]])
    found = filled(without(whole, lacking))
    assert set(found.method) == {FROM_INTERPOLATION}
    np.testing.assert_allclose(found.vol, whole.vol[lacking], atol=0.01)


def test_an_expiry_without_quotes_is_interpolated_between_its_neighbours() -> None:
    whole = options()
    lacking = whole.expiry == 1
    found = filled(without(whole, lacking))
    assert set(found.method) == {FROM_INTERPOLATION}
    np.testing.assert_allclose(found.vol, whole.vol[lacking], atol=1e-12)  # these smiles are linear in time


def test_an_expiry_with_four_strikes_has_no_slice_and_keeps_its_last_vol_beyond_them() -> None:
    whole = options()
    lacking = ~np.isin(whole.strike, STRIKES[[2, 4, 5, 7]])
    found = filled(without(whole, lacking))
    assert set(found.method) == {FROM_INTERPOLATION}
    last = whole.strike[lacking] == STRIKES[10]
    expected = whole.vol[whole.strike == STRIKES[7]]
    np.testing.assert_allclose(found.vol[last], expected, rtol=1e-12)


def test_nothing_is_taken_from_another_surface() -> None:
    one, other = options(), options(surface=1, vol=np.full(66, np.nan))
    both = Options(**{name: np.concatenate([x, other.__dict__[name]]) for name, x in one.__dict__.items()})
    found = filled(both)
    assert set(found.method) == {NOT_FILLED}
    assert np.isnan(found.vol).all()


def test_a_call_and_a_put_of_one_strike_are_one_quote_at_their_mean() -> None:
    whole = options()
    is_call = np.arange(66) < 33
    quotes, _ = surface_quotes(Options(**{**whole.__dict__, "vol": np.where(is_call, 0.5, 0.7)}))
    assert quotes.vol.shape == (1, 3, 11)
    np.testing.assert_allclose(quotes.vol, 0.6)


@pytest.mark.parametrize("column", ["vol", "strike", "forward", "years"])
def test_what_is_not_above_zero_is_no_quote(column: str) -> None:
    quotes, wanted = surface_quotes(options(**{column: np.zeros(66)}))
    assert np.isinf(quotes.years).all()
    assert wanted.strike.size == 0


def test_an_option_without_a_forward_is_not_filled_and_one_struck_at_zero_has_vol_zero() -> None:
    whole = options()
    lacking = np.isin(np.arange(66), [4, 5])
    odd = Options(
        **{
            **without(whole, lacking).__dict__,
            "forward": np.where(np.arange(66) == 4, np.nan, whole.forward),
            "strike": np.where(np.arange(66) == 5, 0.0, whole.strike),
        }
    )
    found = filled(odd)
    assert found.method[0] == NOT_FILLED
    np.testing.assert_array_equal(found.vol, [np.nan, 0.0])


def test_one_mark_in_five_taken_out_of_a_real_chain_comes_back_close(
    rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = chain_expiries()
    is_quote = chain.weight > 0
    rows, _ = np.nonzero(is_quote)
    names, surface = np.unique(chain.name, return_inverse=True)
    assert names.tolist() == ["BTC", "ETH"]
    terms = {"strike": chain.strike[is_quote], "forward": chain.forward[rows], "years": chain.years[rows]}
    whole = Options(
        surface=surface[rows], expiry=(chain.years[rows] * 1e6).astype(int), vol=chain.vol[is_quote], **terms
    )
    which = np.unique(np.stack([whole.surface, whole.expiry, whole.strike]), axis=1, return_inverse=True)[1].ravel()
    lacking = (rng.random(which.max() + 1) < 0.2)[which]  # a strike with both its call and its put, or neither
    found = filled(without(whole, lacking))
    error = np.abs(found.vol - whole.vol[lacking])
    inside = found.method == FROM_INTERPOLATION
    with capsys.disabled():
        for name, chosen in (("between strikes", inside), ("beyond them", ~inside)):
            median, high, worst = np.quantile(error[chosen], [0.5, 0.95, 1.0]) / 0.01
            line = f"{chosen.sum()} vols {name}: off by {median:.2f} vol points, 95 % {high:.2f}, at most {worst:.2f}"
            sys.stdout.write(f"\n  {line}")
        sys.stdout.write("\n")
    assert not (found.method == NOT_FILLED).any()
    assert np.median(error[inside]) < 0.005
    assert np.quantile(error[inside], 0.95) < 0.04
    assert np.median(error[~inside]) < 0.06
