"""Prices and Greeks of spot, forward and coin-settled options against closed forms of 60 digits."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from gpumargin_kernels._moves import Moves, Option
from gpumargin_kernels.black import GREEKS, option_greeks
from gpumargin_kernels.coin import COIN_GREEKS, coin_greeks
from tests.reference.folders import read_cases

pytestmark = pytest.mark.reference

HANDLED = {f"risk_vectors/greeks_{name}.json" for name in ("b76", "bsm", "inv", "limits")}

# Column of a file -> our name; a column that is not named here is called as we call it.
_SPOT = {"price": "value", "phi": "yield_rho"}
_FORWARD = {"price": "value", "rho": "discount_rho"}
_COIN = {
    "price_coin": "value",
    "delta_usd": "quote_delta",
    "delta_net": "premium_adjusted_delta",
    "dcoin_dF": "delta",
    "d2coin_dF2": "gamma",
    **{f"{name}_coin": name for name in ("vega", "theta", "vanna", "volga", "charm")},
}
# Columns in quote currency of coin-settled options: Black-76 without discount.
_COIN_IN_QUOTE = {f"{name}_usd": name for name in ("gamma", "vega", "theta")} | {"price_usd": "value"}
_TERMS = {"S", "F", "K", "T", "sigma", "r", "q", "cp"}


def columns(name: str) -> dict[str, np.ndarray]:
    """Columns of one file; skips with its reason where the file is absent."""
    content = read_cases(f"risk_vectors/greeks_{name}.json")
    if content is None:
        pytest.skip(f"no risk_vectors/greeks_{name}.json on this machine; set GPUMARGIN_REFERENCE")
    if "columns" in content:
        return {key: np.array(values) for key, values in content["columns"].items()}
    return {key: np.array([row[key] for row in content["rows"]]) for key in content["rows"][0]}


def option_of(given: dict[str, np.ndarray]) -> Option:
    """The terms in a file; a file without rates discounts and carries nothing."""
    price = given.get("S", given.get("F"))
    carry = given["r"] - given["q"] if "q" in given else None
    return Option(price, given["K"], given["sigma"], given["T"], given["cp"] == "c", given.get("r"), carry)


def scales(option: Option) -> dict[str, np.ndarray]:
    """Natural size of each quantity, from the terms alone; the coin's are those of a price of 1."""
    price, years, vol = option.underlying, option.years, option.vol
    larger, root = np.maximum(price, option.strike), np.sqrt(years)
    one = np.ones_like(price)
    with np.errstate(divide="ignore"):
        peak, rate = 1 / (price * vol * root), 1 / years
        slope = 1 / vol
    return {
        "value": larger, "theta": larger * np.maximum(vol / root, 1), "rho": larger * years,
        "yield_rho": larger * years, "discount_rho": larger * years, "charm": rate, "gamma": peak,
        "delta": one, "dual_delta": one,
        "vega": price * root, "vanna": slope, "volga": price * root * slope, "speed": peak / price / (vol * root),
        "zomma": peak * slope, "color": peak * rate, "veta": price * root * rate,
    }  # fmt: skip


def assert_column(
    found: Any, expected: np.ndarray, *, name: str, scale: np.ndarray, density: np.ndarray, terms: Option
) -> None:
    """Within 1e-12 of the scale (values, deltas); else 1e-10 of itself, 1e-14 of the scale where density vanishes."""
    is_plain = name in ("value", "delta", "quote_delta", "premium_adjusted_delta")
    near = 1e-12 * scale if is_plain else 1e-10 * np.abs(expected)
    room = near if is_plain else np.where(density > 1e-30, near, 1e-14 * scale)
    excess = np.abs(np.asarray(found) - expected) - room
    worst = int(np.argmax(np.where(np.isnan(excess), np.inf, excess)))
    row = {key: value[worst] for key, value in terms._asdict().items() if value is not None}
    assert excess[worst] <= 0, f"{name}: {np.asarray(found)[worst]!r}, expected {expected[worst]!r} at {row}"


@pytest.mark.parametrize(("file", "renamed"), [("bsm", _SPOT), ("b76", _FORWARD)], ids=["spot", "forward"])
def test_every_row_equals_sixty_digit_arithmetic(file: str, renamed: dict[str, str]) -> None:
    given = columns(file)
    option = option_of(given)
    density, scale = np.asarray(Moves(option).density), scales(option)
    ours = {name: renamed.get(name, name) for name in given if name not in _TERMS and not name.startswith("ql_")}
    found = jax.jit(option_greeks, static_argnums=1)(option, tuple(ours.values()))
    assert len(ours) >= 13
    assert set(ours.values()) <= set(GREEKS)
    for theirs, name in ours.items():
        assert_column(found[name], given[theirs], name=name, scale=scale[name], density=density, terms=option)


def test_every_coin_settled_row_equals_sixty_digit_arithmetic() -> None:
    given = columns("inv")
    option = option_of(given)
    terms = option[:5]
    density, in_quote = np.asarray(Moves(option).density), scales(option)
    in_coin = {name: size / option.underlying for name, size in in_quote.items()}
    in_coin |= {"quote_delta": np.ones_like(density), "premium_adjusted_delta": in_coin["value"]}
    in_coin |= {name: in_coin["value"] / option.underlying**power for name, power in (("delta", 1), ("gamma", 2))}
    found = coin_greeks(*terms, names=tuple(_COIN.values()))
    unread = {name for name in given if not name.startswith("ql_")} - _TERMS - set(_COIN) - set(_COIN_IN_QUOTE)
    assert not unread
    assert set(_COIN.values()) == set(COIN_GREEKS)
    for theirs, name in _COIN.items():
        assert_column(found[name], given[theirs], name=name, scale=in_coin[name], density=density, terms=option)
    quoted = option_greeks(option, tuple(_COIN_IN_QUOTE.values()))
    for theirs, name in _COIN_IN_QUOTE.items():
        assert_column(quoted[name], given[theirs], name=name, scale=in_quote[name], density=density, terms=option)


def test_every_row_without_time_or_vol_equals_its_limit() -> None:
    given = columns("limits")
    option = option_of(given)
    names = ("value", "delta", "gamma", "vega", "theta", "rho")
    found = option_greeks(option, names)
    for name in names:
        expected = given["price" if name == "value" else name]
        np.testing.assert_allclose(found[name], expected, rtol=1e-14, atol=1e-15, err_msg=name)
