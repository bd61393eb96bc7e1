"""Claims about forwards and vols that an option's own market data say."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from gpumargin.pack.prices import call_put_pairs, quotes_with_room, with_room
from gpumargin_kernels.black import black_value
from gpumargin_kernels.implied_vol import STATUS_WORDS
from gpumargin_kernels.own_vol import MarkedOptions, OwnVol, own_vol
from gpumargin_kernels.svi import SviSlice
from gpumargin_kernels.vol_fill import SurfaceQuotes

STRIKES = np.array([80.0, 90.0, 100.0, 110.0, 120.0])
FORWARD, YEARS, VOL = 101.0, 0.25, 0.6
NOTHING = np.full(10, np.nan)
compiled = jax.jit(own_vol)


def prices(*, in_coin: bool) -> tuple[np.ndarray, np.ndarray]:
    """Calls, then puts, per unit of underlying."""
    stdev = np.full(5, VOL * np.sqrt(YEARS))
    both = [np.asarray(black_value(np.full(5, FORWARD), STRIKES, stdev, np.full(5, side))) for side in (True, False)]
    return both[0] / (FORWARD if in_coin else 1), both[1] / (FORWARD if in_coin else 1)


def found(*, in_coin: bool, **given: Any) -> OwnVol:
    """A call and a put per strike of one expiry, which has no forward unless one is given."""
    calls, puts = prices(in_coin=in_coin)
    pairs = call_put_pairs(np.zeros(5, np.int64), STRIKES, calls - puts, is_inverse=np.array([in_coin]))
    plain = {
        "expiry": np.zeros(10, np.int32),
        "strike": np.tile(STRIKES, 2),
        "years": np.full(10, YEARS),
        "is_call": np.arange(10) < 5,
        "is_inverse": np.full(10, in_coin),
        "forward": NOTHING,
        "vol": NOTHING,
        "price": np.concatenate([calls, puts]),
        "svi": SviSlice(*(NOTHING for _ in SviSlice._fields)),
    }
    result = jax.tree.map(np.asarray, compiled(pairs, with_room(MarkedOptions(**(plain | given)))))
    return OwnVol(result.forward[:10], result.vol[:10], result.status[:10], result.parity)


@pytest.mark.parametrize("in_coin", [False, True], ids=["in money", "in coin"])
def test_prices_alone_tell_forward_and_vols(in_coin: bool) -> None:
    result = found(in_coin=in_coin)
    np.testing.assert_allclose(result.forward, FORWARD, rtol=1e-14)
    np.testing.assert_allclose(result.vol, VOL, rtol=1e-12)
    assert result.parity.pairs.tolist() == [5] + [0] * 7


def test_a_given_forward_is_kept_and_says_other_vols() -> None:
    result = found(in_coin=False, forward=np.full(10, FORWARD + 1))
    assert (result.forward == FORWARD + 1).all()
    assert (result.vol[:5] < VOL).all()  # the same calls on a higher forward
    assert (result.vol[5:] > VOL).all()


def test_a_given_vol_goes_before_the_slice_and_the_slice_before_the_price() -> None:
    vol, slices = NOTHING.copy(), [NOTHING.copy() for _ in SviSlice._fields]
    vol[:2] = 0.3
    for column, value in zip(slices, (0.04, 0.0, 0.0, 0.0, 0.1, FORWARD, YEARS), strict=True):
        column[:4] = value
    result = found(in_coin=False, vol=vol, svi=SviSlice(*slices))
    np.testing.assert_allclose(result.vol, [0.3] * 2 + [0.4] * 2 + [VOL] * 6, rtol=1e-12)


@pytest.mark.parametrize(
    ("price", "status"),
    [(20.9, "below_intrinsic"), (101.0, "above_maximum"), (np.nan, "not_finite"), (21.0, "converged")],
)
def test_a_price_outside_its_bounds_has_no_vol_and_one_at_intrinsic_value_has_vol_zero(
    price: float, status: str
) -> None:
    marks = np.concatenate(prices(in_coin=False))
    marks[0] = price  # the call struck at 80
    result = found(in_coin=False, price=marks, forward=np.full(10, FORWARD))
    assert STATUS_WORDS[result.status[0]] == status
    np.testing.assert_array_equal(result.vol[0], 0.0 if status == "converged" else np.nan)
    np.testing.assert_allclose(result.vol[1:], VOL, rtol=1e-12)


def test_an_expiry_without_pairs_has_neither_forward_nor_vols_from_prices() -> None:
    result = found(in_coin=False, expiry=np.full(10, 3, np.int32))
    assert np.isnan(result.forward).all()
    assert np.isnan(result.vol).all()


def test_more_padding_leaves_quotes_where_they_are() -> None:
    quotes = SurfaceQuotes(*(np.ones((1, 3)), np.ones((1, 3)), np.ones((1, 3, 20)), np.ones((1, 3, 20))))
    wide = quotes_with_room(quotes)
    assert wide.years.shape == (2, 8)
    assert wide.strike.shape == (2, 8, 32)
    assert np.isfinite(wide.strike).sum() == 60
    assert np.isfinite(wide.strike[0, :3, :20]).all()
