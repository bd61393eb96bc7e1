"""Claims about spot, coin-settled and digital options: invariants, derivatives two ways, limits, what is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumargin_kernels._moves import Option
from gpumargin_kernels.black import GREEKS, option_greeks
from gpumargin_kernels.coin import COIN_GREEKS, coin_greeks
from gpumargin_kernels.digital import DIGITAL_GREEKS, digital_greeks
from tests.sampled import rest_slow

Prices = Callable[[Option, Sequence[str]], dict[str, jax.Array]]


def coin_of(option: Option, names: Sequence[str]) -> dict[str, jax.Array]:
    return coin_greeks(*option[:5], names=names)


PRICERS: dict[str, Prices] = {"vanilla": option_greeks, "digital": digital_greeks, "coin": coin_of}
TABLES = {"vanilla": GREEKS, "digital": DIGITAL_GREEKS, "coin": COIN_GREEKS}
# Greek -> fields of Option it differentiates by, and its sign; time derivatives are those of passing calendar time.
DERIVATIVES = {
    "delta": (("underlying",), 1), "gamma": (("underlying",) * 2, 1), "speed": (("underlying",) * 3, 1),
    "vega": (("vol",), 1), "volga": (("vol", "vol"), 1), "vanna": (("underlying", "vol"), 1),
    "zomma": (("underlying", "underlying", "vol"), 1), "theta": (("years",), -1),
    "charm": (("underlying", "years"), -1), "color": (("underlying", "underlying", "years"), -1),
    "veta": (("vol", "years"), -1), "discount_rho": (("rate",), 1), "dual_delta": (("strike",), 1),
}  # fmt: skip
CASES = [(kind, name) for kind, table in TABLES.items() for name in DERIVATIVES if name in table]
FAST = [case for case in CASES if case[1] == "delta" or case == ("vanilla", "vega")]

_FLOAT = st.floats
PRICE, RATIO = _FLOAT(1e-3, 1e5), _FLOAT(0.05, 20.0)
VOL, YEARS, RATE = _FLOAT(0.05, 3.0), _FLOAT(1e-3, 5.0), _FLOAT(-0.05, 0.15)


@st.composite
def options(draw: st.DrawFn) -> Option:
    """One option; its side is drawn too."""
    price = draw(PRICE)
    numbers = (price, price * draw(RATIO), draw(VOL), draw(YEARS), draw(st.booleans()), draw(RATE), draw(RATE))
    return Option(*(jnp.asarray(x) for x in numbers))


def figures(option: Option, *names: str, kind: str = "vanilla") -> list[float]:
    found = jax.jit(PRICERS[kind], static_argnums=1)(option, names)
    return [float(found[name]) for name in names]


def value(option: Option, kind: str = "vanilla") -> float:
    return figures(option, "value", kind=kind)[0]


def side(option: Option, *, is_call: bool) -> Option:
    return option._replace(is_call=jnp.asarray(is_call))


def legs(option: Option) -> tuple[float, float, float]:
    """Discounted forward, discounted strike, and the larger of them."""
    discount = float(jnp.exp(-option.rate * option.years))
    forward = float(option.underlying * jnp.exp(option.carry * option.years)) * discount
    strike = float(option.strike) * discount
    return forward, strike, max(forward, strike)


@given(options())
def test_call_less_put_is_forward_less_strike(option: Option) -> None:
    forward, strike, larger = legs(option)
    call, put = (value(side(option, is_call=is_call)) for is_call in (True, False))
    assert call - put == pytest.approx(forward - strike, abs=1e-14 * larger)


@given(options())
def test_the_two_digital_sides_together_pay_for_certain(option: Option) -> None:
    both = sum(value(side(option, is_call=is_call), "digital") for is_call in (True, False))
    assert both == pytest.approx(float(jnp.exp(-option.rate * option.years)), rel=1e-14)


@given(options())
def test_values_stay_between_intrinsic_and_ceiling(option: Option) -> None:
    forward, strike, larger = legs(option)
    gain = forward - strike if option.is_call else strike - forward
    room = 1e-14 * larger
    assert max(gain, 0) - room <= value(option) <= (forward if option.is_call else strike) + room


@given(options(), _FLOAT(1.0, 1.5))
def test_values_never_fall_with_vol_and_move_with_the_strike_as_the_side_says(option: Option, factor: float) -> None:
    room = 1e-14 * legs(option)[2]
    assert value(option._replace(vol=option.vol * factor)) >= value(option) - room
    change = value(option._replace(strike=option.strike * factor)) - value(option)
    assert change <= room if option.is_call else change >= -room


@given(options(), _FLOAT(1e-3, 1e3))
def test_values_scale_with_the_currency_and_deltas_do_not(option: Option, factor: float) -> None:
    scaled = option._replace(underlying=option.underlying * factor, strike=option.strike * factor)
    (base, delta), (found, same) = figures(option, "value", "delta"), figures(scaled, "value", "delta")
    sensitivity = 1e-14 / float(option.vol * jnp.sqrt(option.years))  # rounding of the two products moves moneyness
    assert found == pytest.approx(base * factor, abs=(1e-14 + sensitivity) * factor * legs(option)[2])
    assert same == pytest.approx(delta, abs=1e-13 + sensitivity)


@given(options())
def test_value_is_what_delta_and_dual_delta_replicate(option: Option) -> None:
    found, delta, dual = figures(option, "value", "delta", "dual_delta")
    held = float(option.underlying) * delta + float(option.strike) * dual
    assert found == pytest.approx(held, abs=1e-13 * legs(option)[2])


@given(options())
def test_premium_adjusted_delta_is_delta_less_premium_in_underlying(option: Option) -> None:
    found, delta, adjusted = figures(option, "value", "delta", "premium_adjusted_delta")
    room = 1e-13 * legs(option)[2] / float(option.underlying)
    assert adjusted == pytest.approx(delta - found / float(option.underlying), abs=room)


@given(options())
def test_a_coin_settled_option_is_the_option_without_rates_over_its_forward(option: Option) -> None:
    plain = option._replace(rate=None, carry=None)
    room = 1e-13 * legs(option)[2] / float(option.underlying)
    coin, quote_delta, adjusted = figures(option, "value", "quote_delta", "premium_adjusted_delta", kind="coin")
    found, delta = figures(plain, "value", "delta")
    assert coin == pytest.approx(found / float(option.underlying), abs=room)
    assert quote_delta == pytest.approx(delta, abs=1e-15)
    assert adjusted == pytest.approx(quote_delta - coin, abs=room)


def ordinary(rng: np.random.Generator, count: int = 200) -> Option:
    price = rng.uniform(80, 120, count)
    numbers = (price, np.full(count, 100.0), rng.uniform(0.1, 1.5, count), rng.uniform(0.05, 2, count))
    return Option(*numbers, rng.random(count) < 0.5, rng.uniform(-0.1, 0.1, count), rng.uniform(-0.1, 0.1, count))


@cache
def everything(kind: str) -> Callable[[Option], dict[str, jax.Array]]:
    """Every figure of a batch by one program."""
    return jax.jit(lambda option: PRICERS[kind](option, tuple(TABLES[kind])))


@cache
def derivative(kind: str, fields: tuple[str, ...]) -> Callable[[Option], jax.Array]:
    """Automatic derivative of the value alone by some fields of the terms, for every option of a batch."""

    def differentiated(function: Callable[..., Any], field: str) -> Callable[..., Any]:
        return lambda o: jax.grad(lambda x: function(o._replace(**{field: x})))(getattr(o, field))

    function: Callable[..., Any] = lambda o: PRICERS[kind](o, ("value",))["value"]  # noqa: E731
    for field in fields:
        function = differentiated(function, field)
    return jax.jit(jax.vmap(function))


@pytest.mark.parametrize(("kind", "name"), rest_slow(CASES, FAST), ids=[f"{kind} {name}" for kind, name in CASES])
def test_closed_forms_are_the_automatic_derivatives_of_the_value(
    kind: str, name: str, rng: np.random.Generator
) -> None:
    option, (fields, sign) = ordinary(rng), DERIVATIVES[name]
    expected = sign * np.asarray(derivative(kind, fields)(option))
    found = np.asarray(everything(kind)(option)[name])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13 * np.max(np.abs(expected)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vanilla", "digital"])
def test_rho_holds_the_yield(kind: str, rng: np.random.Generator) -> None:
    option = ordinary(rng)
    by_rate, by_carry = (np.asarray(derivative(kind, (field,))(option)) for field in ("rate", "carry"))
    found = PRICERS[kind](option, ("rho",))["rho"]
    np.testing.assert_allclose(found, by_rate + by_carry, rtol=1e-11, atol=1e-12)
    if kind == "vanilla":
        np.testing.assert_allclose(
            option_greeks(option, ("yield_rho",))["yield_rho"], -by_carry, rtol=1e-11, atol=1e-12
        )


LIMITS = {
    "expiry now": {"years": 0.0},
    "zero vol": {"vol": 0.0},
    "zero strike": {"strike": 0.0},
    "zero underlying": {"underlying": 0.0},
    "everything zero": {"underlying": 0.0, "strike": 0.0, "vol": 0.0, "years": 0.0},
    "expiry now on the strike": {"years": 0.0, "strike": 110.0},
    "zero vol on the strike": {"vol": 0.0, "strike": 110.0, "carry": 0.0},
    "deep out of the money": {"strike": 1e250},
    "deep in the money": {"strike": 1e-250},
    "vol without bound": {"vol": 1e3, "years": 100.0},
}


@cache
def figures_and_slopes(kind: str) -> Callable[..., Any]:
    """Compiled: every figure of a kind of option, and the derivatives of its value by all terms."""

    def value_at(numbers: dict[str, jax.Array], is_call: jax.Array) -> jax.Array:
        return PRICERS[kind](Option(is_call=is_call, **numbers), ("value",))["value"]

    def both(numbers: dict[str, jax.Array], is_call: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        found = PRICERS[kind](Option(is_call=is_call, **numbers), tuple(TABLES[kind]))
        return found, jax.grad(value_at)(numbers, is_call)

    return jax.jit(both)


@pytest.mark.slow
@pytest.mark.parametrize("side_name", ["call", "put"])
@pytest.mark.parametrize("limit", LIMITS)
def test_at_every_limit_all_figures_and_first_derivatives_are_finite(limit: str, side_name: str) -> None:
    terms = {"underlying": 110.0, "strike": 100.0, "vol": 0.5, "years": 0.5, "rate": 0.04, "carry": 0.03}
    terms |= LIMITS[limit]
    for kind in ("vanilla", "digital") if terms["underlying"] == 0 else tuple(PRICERS):
        found, slopes = figures_and_slopes(kind)(terms, side_name == "call")
        assert all(np.isfinite(x) for x in found.values()), (kind, found)
        assert all(np.isfinite(x) for x in slopes.values()), (kind, slopes)
        if kind == "vanilla" and 0 in (terms["vol"], terms["years"], terms["strike"], terms["underlying"]):
            in_proportion = ("gamma", "vega", "vanna", "volga", "speed", "zomma", "color", "veta")
            assert all(found[name] == 0 for name in in_proportion)


@pytest.mark.parametrize(("side_name", "payoff"), [("call", 1.0), ("put", 0.0)])
def test_an_expired_digital_option_is_worth_its_payoff_and_half_on_the_strike(side_name: str, payoff: float) -> None:
    one = jnp.asarray(1.0)
    expired = Option(110 * one, 100 * one, 0.5 * one, 0 * one, jnp.asarray(side_name == "call"))
    assert value(expired, "digital") == payoff
    assert value(expired._replace(strike=110 * one), "digital") == 0.5


@pytest.mark.parametrize("kind", PRICERS)
def test_an_unknown_name_is_refused_with_the_known_ones(kind: str) -> None:
    option = Option(*(jnp.asarray(x) for x in (100.0, 100.0, 0.5, 0.5, True)))
    with pytest.raises(ValueError, match=r"\['gama'\] are not known here; choose from .*'gamma'"):
        PRICERS[kind](option, ("value", "gama"))


def test_only_what_is_asked_for_is_computed() -> None:
    option = Option(*(jnp.asarray(x) for x in (100.0, 90.0, 0.5, 0.5, True)))
    vega = str(jax.make_jaxpr(lambda o: option_greeks(o, ("vega",)))(option))
    assert "scaled_tail" not in vega
    assert "scaled_tail" in str(jax.make_jaxpr(lambda o: option_greeks(o, ("value",)))(option))


@pytest.mark.slow
@pytest.mark.parametrize("kind", PRICERS)
def test_float32_answers_in_its_own_type_close_to_float64(kind: str, rng: np.random.Generator) -> None:
    wide = ordinary(rng)
    narrow = Option(*(x.astype(np.float32) if x.dtype.kind == "f" else x for x in wide))
    wide = Option(*(x.astype(np.float64) if x.dtype.kind == "f" else x for x in narrow))
    for name, found in PRICERS[kind](narrow, tuple(TABLES[kind])).items():
        expected = np.asarray(PRICERS[kind](wide, (name,))[name])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=3e-5 * np.max(np.abs(expected)), err_msg=name)
