"""Claims about Black-76: book values, an independent oracle, derivatives two ways, invariants and limits."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpumargin_kernels.black import BlackGreeks, black_greeks, black_value
from tests.asserts import assert_close
from tests.oracle import black as oracle
from tests.reference.folders import read_cases

value_of = jax.jit(black_value)
greeks_of = jax.jit(black_greeks)
FORWARD = 100.0


def grid(dtype: str = "float64") -> tuple[np.ndarray, ...]:
    """Forward, strike, vol, years and is_call over deep in, at and deep out of the money, short and long."""
    axes = ([1e-3, FORWARD, 7e4], [0.3, 0.8, 0.97, 1.0, 1.03, 1.3, 4.0], [0.05, 0.6, 2.5], [1 / 365, 0.25, 3.0], [0, 1])
    forward, ratio, vol, years, call = (x.ravel() for x in np.meshgrid(*axes, indexing="ij"))
    return forward.astype(dtype), (forward * ratio).astype(dtype), vol.astype(dtype), years.astype(dtype), call == 1


# E. G. Haug, The Complete Guide to Option Pricing Formulas (McGraw-Hill, 1998), table on page 24: options on a future,
# strike 100, rate 10 %, discounted at that rate.
HAUG = [
    (True, 90.0, 0.1, 0.15, 0.0205),
    (True, 100.0, 0.1, 0.25, 3.1217),
    (True, 110.0, 0.1, 0.35, 11.1381),
    (True, 90.0, 0.5, 0.15, 0.8069),
    (True, 100.0, 0.5, 0.25, 6.6997),
    (True, 110.0, 0.5, 0.35, 15.3086),
    (False, 90.0, 0.1, 0.15, 9.9210),
    (False, 100.0, 0.1, 0.25, 3.1217),
    (False, 110.0, 0.1, 0.35, 1.2376),
    (False, 90.0, 0.5, 0.15, 10.3192),
    (False, 100.0, 0.5, 0.25, 6.6997),
    (False, 110.0, 0.5, 0.35, 5.7963),
]


def test_value_equals_the_table_of_a_book() -> None:
    is_call, forward, years, vol, printed = (np.array(column) for column in zip(*HAUG, strict=True))
    found = value_of(forward, np.full_like(forward, 100.0), vol * np.sqrt(years), is_call) * np.exp(-0.1 * years)
    assert_close(found, printed, "published_four_digits", forward=forward, years=years, vol=vol, is_call=is_call)


def test_delta_equals_the_example_of_a_book() -> None:
    # The same book, pages 11 to 16: option on a future at 105, strike 100, half a year, rate 10 %, vol 36 %.
    one = np.ones(2)
    found = greeks_of(105 * one, 100 * one, 0.36 * one, 0.5 * one, np.array([True, False])).delta * math.exp(-0.05)
    assert_close(found, [0.5946, -0.3566], "published_four_digits")


@pytest.mark.reference
def test_value_and_delta_equal_the_literals_of_the_venues_own_tests() -> None:
    content = read_cases("derive_vectors/black76_cases.json")
    if content is None:
        pytest.skip("no derive_vectors/black76_cases.json on this machine; set GPUMARGIN_REFERENCE")
    cases = [case for case in content["cases"] if case["forward"] < 1e15]  # beyond, 1e-12 absolute is less than an ulp
    forward, strike, vol, discount, seconds = (
        np.array([case[name] for case in cases])
        for name in ("forward", "strike", "vol", "discount", "seconds_to_expiry")
    )
    for is_call, name in ((True, "call"), (False, "put")):
        found = greeks_of(forward, strike, vol, seconds / 31_536_000, np.full(len(cases), is_call))
        expected = [case[name] for case in cases]
        assert_close(found.value * discount, expected, "upstream_literal", strike=strike, vol=vol)
        delta = np.array([case["call_delta"] for case in cases]) - (0 if is_call else discount)
        assert_close(found.delta * discount, delta, "upstream_literal", strike=strike, vol=vol)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["value", "delta", "gamma", "vega", "vanna", "volga"])
def test_value_and_greeks_equal_sixty_digit_arithmetic(name: str) -> None:
    content = read_cases("risk_vectors/greeks_b76.json")
    if content is None:
        pytest.skip("no risk_vectors/greeks_b76.json on this machine; set GPUMARGIN_REFERENCE")
    columns = {key: np.array(values) for key, values in content["columns"].items()}
    forward, strike, vol, years = (columns[key] for key in ("F", "K", "sigma", "T"))
    found = getattr(greeks_of(forward, strike, vol, years, columns["cp"] == "c"), name)
    expected = columns["price" if name == "value" else name] * np.exp(columns["r"] * years)
    scale = {"value": forward, "gamma": 10 / (forward * np.sqrt(years) * vol), "vega": forward, "volga": 100 * forward}
    quantity = "option_value" if name == "value" else "greek"
    near = np.abs(np.log(forward / strike)) < 20 * vol * np.sqrt(years)  # beyond, values are below 1e-80 of the forward
    inputs = {"forward": forward, "strike": strike, "vol": vol, "years": years}
    some = {key: column[near] for key, column in inputs.items()}
    assert_close(
        found[near], expected[near], quantity, scale=10 * np.broadcast_to(scale.get(name, 10), near.shape)[near], **some
    )


@pytest.mark.parametrize("name", ["value", "delta", "gamma", "vega", "theta"])
def test_value_and_greeks_equal_the_oracle(name: str) -> None:
    forward, strike, vol, years, is_call = grid()
    found = getattr(greeks_of(forward, strike, vol, years, is_call), name)
    rows = zip(*(x.tolist() for x in (forward, strike, vol, years, is_call)), strict=True)

    def expect(f: float, k: float, v: float, t: float, c: int) -> float:
        option = oracle.Option(strike=k, is_call=bool(c), years=t)
        if name == "value":
            return oracle.black_value(option, forward=f, vol=v)
        return float(getattr(oracle.black_sensitivities(option, forward=f, vol=v), name))

    expected = np.array([expect(*row) for row in rows])
    scale = {"value": forward, "gamma": 1 / (forward * vol * np.sqrt(years)), "vega": forward, "theta": forward * vol}
    quantity = "option_value" if name == "value" else "greek"
    assert_close(
        found, expected, quantity, scale=10 * scale.get(name, np.ones_like(forward)),
        forward=forward, strike=strike, vol=vol, years=years, is_call=is_call,
    )  # fmt: skip


def differences(
    forward: np.ndarray, strike: np.ndarray, vol: np.ndarray, years: np.ndarray, is_call: np.ndarray
) -> BlackGreeks:
    """Central differences of the value alone, with steps in proportion to each argument."""
    df, dv, dt = forward * 1e-4, vol * 1e-4, years * 1e-4

    def at(f: float = 0, v: float = 0, t: float = 0) -> np.ndarray:
        stdev = (vol + v * dv) * np.sqrt(years + t * dt)
        return np.asarray(value_of(forward + f * df, strike, stdev, is_call))

    return BlackGreeks(
        value=at(),
        delta=(at(f=1) - at(f=-1)) / (2 * df),
        gamma=(at(f=1) - 2 * at() + at(f=-1)) / df**2,
        vega=(at(v=1) - at(v=-1)) / (2 * dv),
        theta=-(at(t=1) - at(t=-1)) / (2 * dt),
        vanna=(at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / (4 * df * dv),
        volga=(at(v=1) - 2 * at() + at(v=-1)) / dv**2,
    )


@pytest.mark.parametrize("name", BlackGreeks._fields)
def test_greeks_match_central_differences(name: str) -> None:
    ratio, vol, years, call = (x.ravel() for x in np.meshgrid([0.8, 1.0, 1.2], [0.3, 0.8], [0.1, 1.0], [0, 1]))
    inputs = (np.full_like(ratio, FORWARD), FORWARD * ratio, vol, years, call == 1)
    found, expected = getattr(greeks_of(*inputs), name), getattr(differences(*inputs), name)
    scale = {"gamma": 10.0, "vanna": 100.0, "volga": 1e3 * FORWARD}.get(name, FORWARD)
    assert_close(found, expected, "difference", scale=scale, ratio=ratio, vol=vol, years=years, is_call=call)


@pytest.mark.parametrize(
    ("name", "arguments", "sign"),
    [
        ("delta", (0,), 1), ("gamma", (0, 0), 1), ("vega", (2,), 1),
        ("theta", (3,), -1), ("vanna", (0, 2), 1), ("volga", (2, 2), 1),
    ],
    ids=["delta", "gamma", "vega", "theta", "vanna", "volga"],
)  # fmt: skip
def test_greeks_match_automatic_derivatives(name: str, arguments: tuple[int, ...], sign: int) -> None:
    def value(f: jax.Array, k: jax.Array, v: jax.Array, t: jax.Array, c: jax.Array) -> jax.Array:
        return black_value(f, k, v * jnp.sqrt(t), c)

    function = value
    for argument in arguments:
        function = jax.grad(function, argument)
    ratio, vol, years, call = (x.ravel() for x in np.meshgrid([0.8, 0.99, 1.2], [0.3, 0.8], [0.1, 1.0], [0, 1]))
    inputs = (np.full_like(ratio, FORWARD), FORWARD * ratio, vol, years, call == 1)
    derived = sign * jax.jit(jax.vmap(function))(*inputs)
    found = getattr(greeks_of(*inputs), name)
    assert_close(found, derived, "derivative", scale=FORWARD, ratio=ratio, vol=vol, years=years, is_call=call)


def test_call_minus_put_equals_forward_minus_strike() -> None:
    forward, strike, vol, years, _ = grid()
    stdev = vol * np.sqrt(years)
    call, put = (value_of(forward, strike, stdev, np.full(len(forward), side)) for side in (True, False))
    assert_close(call - put, forward - strike, "option_value", scale=forward + strike, strike=strike, stdev=stdev)


def test_value_never_falls_as_vol_rises_and_stays_between_intrinsic_and_its_ceiling() -> None:
    stdev = np.linspace(0, 30, 600)[None, :]
    strike = FORWARD * np.array([0.2, 0.9, 1.0, 1.1, 5.0])[:, None]
    for is_call in (True, False):
        value = np.asarray(
            value_of(np.full((5, 600), FORWARD), strike + 0 * stdev, stdev + 0 * strike, np.full((5, 600), is_call))
        )
        ulp = np.spacing(FORWARD)
        assert np.all(np.diff(value, axis=1) >= -2 * ulp)
        intrinsic = np.maximum(FORWARD - strike if is_call else strike - FORWARD, 0)
        assert np.all(value >= intrinsic)
        assert np.all(value <= (FORWARD if is_call else strike) + 2 * ulp)


def test_value_never_falls_as_a_calls_forward_rises_or_a_puts_strike_rises() -> None:
    moving, still = np.linspace(50, 200, 1_001), np.full(1_001, FORWARD)
    call = value_of(moving, still, np.full(1_001, 0.3), np.ones(1_001, bool))
    put = value_of(still, moving, np.full(1_001, 0.3), np.zeros(1_001, bool))
    assert np.all(np.diff(call) >= -1e-13)
    assert np.all(np.diff(put) >= -1e-13)


def test_value_scales_with_the_currency() -> None:
    forward, strike, vol, years, is_call = grid()
    stdev = vol * np.sqrt(years)
    doubled = value_of(4 * forward, 4 * strike, stdev, is_call)
    assert_close(doubled, 4 * value_of(forward, strike, stdev, is_call), "option_value", scale=forward, strike=strike)


EDGES = [
    # forward, strike, vol, years, value of call, value of put, delta of call, delta of put
    pytest.param(110.0, 100.0, 0.5, 0.0, 10.0, 0.0, 1.0, 0.0, id="no time, call in the money"),
    pytest.param(90.0, 100.0, 0.5, 0.0, 0.0, 10.0, 0.0, -1.0, id="no time, put in the money"),
    pytest.param(110.0, 100.0, 0.0, 0.5, 10.0, 0.0, 1.0, 0.0, id="no vol, call in the money"),
    pytest.param(90.0, 100.0, 0.0, 0.5, 0.0, 10.0, 0.0, -1.0, id="no vol, put in the money"),
    pytest.param(100.0, 0.0, 0.5, 0.5, 100.0, 0.0, 1.0, 0.0, id="struck at zero"),
    pytest.param(0.0, 100.0, 0.5, 0.5, 0.0, 100.0, 0.0, -1.0, id="forward of zero"),
    pytest.param(100.0, 0.0, 0.0, 0.0, 100.0, 0.0, 1.0, 0.0, id="struck at zero without time or vol"),
    pytest.param(100.0, 1e-250, 0.5, 0.5, 100.0, 0.0, 1.0, 0.0, id="deep in the money"),
    pytest.param(100.0, 1e250, 0.5, 0.5, 0.0, 1e250, 0.0, -1.0, id="deep out of the money"),
    pytest.param(100.0, 100.0, 1e3, 100.0, 100.0, 100.0, 1.0, 0.0, id="vol without bound"),
]


@pytest.mark.parametrize(("forward", "strike", "vol", "years", "call", "put", "call_delta", "put_delta"), EDGES)
def test_limits_are_exact_and_leave_no_gamma_vega_or_theta(
    forward: float,
    strike: float,
    vol: float,
    years: float,
    call: float,
    put: float,
    call_delta: float,
    put_delta: float,
) -> None:
    two = np.ones(2)
    found = greeks_of(forward * two, strike * two, vol * two, years * two, np.array([True, False]))
    assert found.value.tolist() == [call, put]
    assert found.delta.tolist() == [call_delta, put_delta]
    for name in ("gamma", "vega", "theta", "vanna", "volga"):
        assert np.all(np.asarray(getattr(found, name)) == 0), name


@pytest.mark.parametrize("years", [0.0, 0.5], ids=["no time", "no vol"])
def test_at_the_money_without_time_or_vol_nothing_is_worth_anything_and_nothing_is_nan(years: float) -> None:
    two = np.full(2, FORWARD)
    found = greeks_of(two, two, np.full(2, 0.0 if years else 0.5), np.full(2, years), np.array([True, False]))
    assert found.value.tolist() == [0.0, 0.0]
    assert all(np.all(np.isfinite(x)) for x in found)
    assert found.delta[0] - found.delta[1] == 1


@pytest.mark.parametrize("name", ["forward", "strike", "vol", "years"])
def test_nan_in_gives_nan_out(name: str) -> None:
    inputs = {"forward": FORWARD, "strike": 90.0, "vol": 0.5, "years": 0.5} | {name: math.nan}
    found = greeks_of(*(np.array([x]) for x in inputs.values()), np.array([True]))
    assert np.isnan(found.value[0])
    assert np.isnan(found.delta[0])


@pytest.mark.parametrize("name", ["value", "delta", "vega", "theta"])
def test_float32_stays_within_its_bound_of_float64(name: str) -> None:
    inputs = grid("float32")
    narrow = getattr(greeks_of(*inputs), name)
    wide = getattr(greeks_of(*(x.astype(np.float64) if x.dtype.kind == "f" else x for x in inputs)), name)
    assert narrow.dtype == np.float32
    forward, strike, vol, years, _ = inputs
    scale = {
        "value": forward + strike,
        "delta": 1 / np.minimum(vol * np.sqrt(years), 1),
        "vega": 100 * forward,
        "theta": 1e4 * forward,
    }[name]
    quantity = "option_value" if name == "value" else "greek"
    assert_close(narrow, wide, quantity, scale=scale, strike=strike, vol=vol, years=years, forward=forward)
