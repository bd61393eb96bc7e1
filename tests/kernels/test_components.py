"""Claims about each kind of component, on books of a few legs whose charge is worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpumargin_kernels.charge import ChargeChoices, Summed
from gpumargin_kernels.components import KINDS, Charge, RowSide
from gpumargin_kernels.contract_values import ContractSide
from gpumargin_kernels.expression import Expression
from gpumargin_kernels.model import Component, Model, ScenarioSet
from gpumargin_kernels.records import Assets, Contracts, Level, UnitMarket
from gpumargin_kernels.scenario import contract_risk
from gpumargin_kernels.tally import leg_sums
from tests.kernels.inputs import contracts, model, padded_legs

SPOT = 2_000.0
MOVES = (0.9, 1.0, 1.2)
# Perpetual, base, then options: near 1900 call, near 1900 put, near 2000 call, far 2000 call; then padding.
PERPETUAL, BASE, CALL_19, PUT_19, CALL_20, FAR_20, PADDING = range(7)
SIZE = np.array([1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.0])
CONFIDENCE = np.array([1.0, 1.0, 0.4, 0.4, 0.4, 0.9, 1.0])


def book() -> Contracts:
    """Six contracts of one unit without time value, so that every figure can be checked by hand."""
    is_option = (np.arange(7) >= CALL_19) & (np.arange(7) < PADDING)
    return contracts(
        7,
        expiry_group=[0, 1, 2, 2, 2, 3, -1],
        strike_group=[0, 1, 2, 2, 3, 4, -1],
        is_option=is_option,
        is_call=np.isin(np.arange(7), [CALL_19, CALL_20, FAR_20]),
        is_perpetual=np.arange(7) == PERPETUAL,
        is_base=np.arange(7) == BASE,
        size=SIZE,
        strike=np.where(is_option, [0, 0, 1_900, 1_900, 2_000, 2_000, 0], 0),
        forward_variable=np.where(is_option, SPOT, 0),
        years=[0, 0, 0.25, 0.25, 0.25, 1.0, 0],
        vol=0.0,
        mark=[SPOT, SPOT, np.nan, np.nan, np.nan, np.nan, 0],
        settlement_ratio=np.append(np.ones(6), 0),
        rate=np.where(is_option, 0.04, 0),
        confidence=CONFIDENCE,
    )


def a_model(*components: Component, weight: tuple[float, ...] = (1.0, 1.0, 1.0), **numbers: dict[str, float]) -> Model:
    """A model of these components over three moves of spot."""
    return model(
        scenario_sets=(ScenarioSet("grid", 0, 3), ScenarioSet("basis", 1, 3)),
        components=components,
        spot=np.array([MOVES]),
        vol_direction=np.zeros(3, np.int32),
        weight=np.array([weight]),
        numbers={
            name: {k: np.array([v], np.int32 if k == "asset" else np.float64) for k, v in table.items()}
            for name, table in numbers.items()
        },
    )


@partial(jax.jit, static_argnames=("names",))
def _charges(
    some: Model, listed: Contracts, legs: Any, market: UnitMarket, assets: Assets, zero: Any, names: tuple[str, ...]
) -> dict[str, Charge]:
    risk = contract_risk(listed, some, market.spot[listed.unit])
    rows = legs.unit.shape[0]
    charges: dict[str, Charge] = {}
    for component in some.components:
        numbers = some.numbers.get(component.name, {})
        side = ContractSide(
            listed, risk, UnitMarket(*(x[listed.unit] for x in market)), {k: v[listed.unit] for k, v in numbers.items()}
        )
        tallies = KINDS[component.kind].tallies(component, some, side)
        sums = leg_sums(tallies, listed, legs, zero) if tallies else ()
        row = RowSide(
            sums,
            legs.unit,
            UnitMarket(*(x[legs.unit] for x in market)),
            some.weight[legs.unit],
            {k: v[legs.unit] for k, v in numbers.items()},
            assets,
            charges,
        )
        charges[component.name] = KINDS[component.kind].charge(component, some, row)
    assert all(charge.amount.shape == (rows,) for charge in charges.values())
    return {name: charges[name] for name in names}


def charges(
    some: Model, *rows: dict[int, float], feeds: tuple[float, float] = (1.0, 1.0), price: float = 1.0
) -> dict[str, Charge]:
    """Charges of rows that hold these contracts; `feeds` are the confidences of spot and of the perpetual's mark."""
    held = [(np.array(sorted(row), np.int32), np.array([row[k] for k in sorted(row)])) for row in rows]
    market = UnitMarket(np.array([SPOT]), np.array([feeds[0]]), np.array([feeds[1]]), np.ones(1))
    legs = padded_legs(held, 8, len(rows), PADDING)
    assets = Assets(np.array([1.0, price]), np.array([1.0, price]), {})
    found = _charges(some, book(), legs, market, assets, np.zeros(()), tuple(c.name for c in some.components))
    return jax.tree.map(np.asarray, found)


SCAN = Component("scan", "scenario_loss", (("scenarios", "grid"), ("has_discount", False), ("post", None)))
DISCOUNTED = Component("scan", "scenario_loss", (("scenarios", "grid"), ("has_discount", True), ("post", None)))
BASIS = Component("basis", "expiry_loss", (("scenarios", "basis"),))


def test_scenario_loss_is_the_largest_loss_and_names_the_first_scenario_that_has_it() -> None:
    found = charges(a_model(SCAN), {PERPETUAL: 1.0}, {PERPETUAL: -1.0}, {PERPETUAL: 1.0, BASE: -1.0}, {CALL_19: -10.0})[
        "scan"
    ]
    assert found.amount.tolist() == pytest.approx([200.0, 400.0, 0.0, 400.0], abs=1e-9)
    assert found.worst is not None
    assert found.worst.tolist() == [0, 2, 0, 2]


def test_scenario_loss_is_negative_when_every_scenario_gains() -> None:
    # A straddle bought at a forward that no scenario leaves unmoved.
    some = replace(a_model(SCAN), spot=np.array([[0.8, 0.85, 1.2]]))
    found = charges(some, {PUT_19: 10.0, CALL_20: 10.0})["scan"]
    assert found.amount[0] == pytest.approx(-200.0)


def test_scenario_loss_weighs_each_scenario_before_it_compares() -> None:
    found = charges(a_model(SCAN, weight=(1.0, 1.0, 0.25)), {PERPETUAL: -1.0}, {PERPETUAL: 1.0})["scan"]
    assert found.amount.tolist() == pytest.approx([100.0, 200.0])


def test_scenario_loss_discounts_expiries_of_positive_value_only_and_each_on_its_own() -> None:
    numbers = {"static": 0.95, "rate_multiplier": 1.0, "rate_addend": 0.12}
    long, short, both = {CALL_19: 10.0}, {CALL_19: -10.0}, {CALL_19: -10.0, FAR_20: 5.0}
    found = charges(a_model(DISCOUNTED, scan=numbers), long, short, both)["scan"].amount
    far = 0.95 * np.exp(-1.0 * (0.04 + 0.12))
    assert found[0] == pytest.approx(100.0)  # worth 100 at spot 2000, nothing at 1800: all is lost, discount or not
    assert found[1] == pytest.approx(400.0)  # a debt is never discounted: worth -500 at 2400
    assert found[2] == pytest.approx(
        400.0 - far * 200.0
    )  # the far expiry's gain pays for the near one's loss, discounted


def test_a_negative_rate_does_not_raise_the_discount() -> None:
    numbers = {"scan": {"static": 1.0, "rate_multiplier": 1.0, "rate_addend": 0.0}}
    some = replace(a_model(DISCOUNTED, **numbers), spot=np.ones((1, 3)))
    risen = charges(some, {CALL_19: 10.0})["scan"].amount
    assert risen[0] == pytest.approx(100.0 * (1 - np.exp(-0.25 * 0.04)))


def test_expiry_loss_adds_each_expirys_own_worst_and_scales_it_with_time() -> None:
    some = a_model(BASIS, basis={"addend": 0.5, "multiplier": 2.0})
    # Moves of 1.0 and 1.2: the near short call loses 400, the far long call gains; neither pays for the other.
    found = charges(
        some, {CALL_19: -10.0}, {CALL_19: -10.0, FAR_20: 10.0}, {FAR_20: -10.0}, {FAR_20: 10.0}, {PERPETUAL: -5.0}
    )
    assert found["basis"].amount.tolist() == pytest.approx([400 * 1.0, 400 * 1.0, 400 * 2.5, 0.0, 0.0])
    assert found["basis"].worst is None


def charge(
    *sums: tuple[str, str, Expression],
    legs: tuple[str, ...] = ("option",),
    level: Level = "unit",
    each: dict[str, Expression] | None = None,
    amount: Expression,
    terms: tuple[str, ...] = (),
) -> Component:
    """A charge called x."""
    choices = ChargeChoices(legs, level, tuple(Summed(*s) for s in sums), terms, tuple((each or {}).items()), amount)
    return Component("x", "charge", (("charge", choices),))


ON_SPOT: Expression = ("*", "rate", ("*", "spot", "size"))
SIZES = {
    legs: charge(("size", "gross", "size"), legs=(legs,), amount=ON_SPOT) for legs in ("perpetual", "base", "option")
}
NET_SHORT = charge(
    ("size", "net", "size"),
    level="strike",
    each={"naked": ("max", ("-", 0.0, "size"), 0.0)},
    amount=("*", "rate", ("*", "spot", "naked")),
)


@pytest.mark.parametrize(
    ("legs", "expected"),
    [("perpetual", 0.03 * SPOT * 5.0), ("base", 0.03 * SPOT * 2.0), ("option", 0.03 * SPOT * 0.7)],
    ids=["perpetuals", "base assets", "options"],
)
def test_gross_size_counts_longs_and_shorts_of_its_sort_alike(legs: str, expected: float) -> None:
    held = {PERPETUAL: -5.0, BASE: -2.0, CALL_19: 3.0, PUT_19: -4.0}
    assert charges(a_model(SIZES[legs], x={"rate": 0.03}), held)["x"].amount[0] == pytest.approx(expected)


def test_a_charge_by_strike_nets_calls_and_puts_of_one_strike_and_expiry_only() -> None:
    rows = (
        {CALL_19: -10.0},
        {CALL_19: -10.0, PUT_19: 4.0},
        {CALL_19: -10.0, PUT_19: 4.0},
        {CALL_19: -10.0, CALL_20: 10.0},
        {CALL_20: -10.0, FAR_20: 10.0},
        {CALL_19: 5.0},
        {BASE: -9.0},
    )
    found = charges(a_model(NET_SHORT, x={"rate": 0.015}), *rows)["x"].amount
    assert found.tolist() == pytest.approx([30.0, 18.0, 18.0, 30.0, 30.0, 0.0, 0.0])


def test_longs_and_shorts_are_summed_apart_and_net_and_gross_tell_hedged_pairs() -> None:
    some = charge(
        ("bought", "long", "size"),
        ("sold", "short", "size"),
        ("net", "net", "size"),
        ("all", "gross", "size"),
        legs=("option", "perpetual"),
        amount=("-", ("+", "bought", "sold"), ("-", "all", ("abs", "net"))),
    )
    found = charges(a_model(some), {PERPETUAL: 2.0, CALL_19: -10.0, PUT_19: 5.0})["x"].amount
    assert found[0] == pytest.approx((2.5 + 1.0) - (3.5 - 1.5))


def test_a_charge_by_position_sees_each_size_alone_and_rates_may_grow_with_it() -> None:
    each: dict[str, Expression] = {"part": ("*", ("+", 0.02, ("*", 0.01, ("abs", "quantity"))), ("abs", "quantity"))}
    some = charge(("quantity", "net", "size"), legs=("perpetual", "base"), level="position", each=each, amount="part")
    found = charges(a_model(some), {PERPETUAL: -2.0, BASE: 3.0}, {PERPETUAL: 5.0, CALL_19: 9.0}, {})["x"].amount
    assert found.tolist() == pytest.approx([0.04 * 2 + 0.05 * 3, 0.07 * 5, 0.0])


def test_groups_without_a_leg_that_is_looked_at_charge_nothing_whatever_the_expression() -> None:
    """A constant, and a quotient of sums that are 0, would charge padding and strangers."""
    quotient: Expression = ("+", 7.0, ("/", "size", "size"))
    for level in ("position", "strike", "expiry"):
        some = charge(("size", "net", "size"), level=level, each={"part": quotient}, amount="part")
        found = charges(a_model(some), {PERPETUAL: 2.0}, {PERPETUAL: 1.0, CALL_19: 1.0, FAR_20: -2.0})["x"].amount
        assert found.tolist() == [0.0, 16.0], level
    some = charge(("size", "net", "size"), amount=quotient)
    assert charges(a_model(some), {PERPETUAL: 2.0}, {CALL_19: 1.0})["x"].amount.tolist() == [0.0, 8.0]


def test_brackets_and_terms_of_the_contract_are_known_where_a_group_closes() -> None:
    each: dict[str, Expression] = {"part": ("*", "years", ("marginal", ("abs", "size"), "table"))}
    some = charge(
        ("size", "net", "size"), level="expiry", each=each, terms=("table", "years"), amount=("*", "rate", "part")
    )
    bound = a_model(some, x={"rate": 2.0})
    table = np.array([[[1.0, 0.1], [np.inf, 0.5]]])
    bound = replace(bound, numbers={"x": {**bound.numbers["x"], "table": table}})
    found = charges(bound, {CALL_19: -30.0, FAR_20: 5.0})["x"].amount
    assert found[0] == pytest.approx(2 * (0.25 * (0.1 * 1 + 0.5 * 2) + 1.0 * 0.1 * 0.5))


def test_a_charge_may_name_components_before_it() -> None:
    after = charge(("size", "gross", "size"), amount=("max", "scan", "size"))
    found = charges(a_model(SCAN, after), {CALL_19: -10.0})["x"].amount
    assert found[0] == pytest.approx(400.0)


@pytest.mark.parametrize(
    ("price", "expected"), [(1.0, 0.0), (0.99, 0.0), (0.95, 0.16)], ids=["at par", "at the threshold", "below"]
)
def test_price_shortfall_measures_how_far_an_asset_has_lost_its_peg(price: float, expected: float) -> None:
    component = Component("x", "price_shortfall")
    some = a_model(component, x={"threshold": 0.99, "factor": 4.0, "asset": 1})
    assert charges(some, {PERPETUAL: 1.0}, price=price)["x"].amount[0] == pytest.approx(expected)


def test_largest_takes_the_first_of_equals_and_reports_what_binds() -> None:
    largest = Component("loss", "largest", (("of", ("basis", "scan")),))
    some = a_model(BASIS, SCAN, largest, basis={"addend": 1.0, "multiplier": 0.0})
    found = charges(some, {CALL_19: -10.0}, {PERPETUAL: -1.0}, {CALL_19: 10.0})["loss"]
    assert found.amount.tolist() == pytest.approx([400.0, 400.0, 100.0])
    assert found.worst is not None
    assert found.worst.tolist() == [3, 2, 0]  # three scenarios, then the components: 3 is basis


def test_largest_of_nan_is_nan() -> None:
    largest = Component("loss", "largest", (("of", ("basis", "scan")),))
    some = a_model(BASIS, SCAN, largest, basis={"addend": np.nan, "multiplier": 0.0})
    assert np.isnan(charges(some, {CALL_19: -10.0})["loss"].amount[0])


@pytest.mark.parametrize(
    "component",
    [SIZES["option"], NET_SHORT, BASIS._replace(name="x"), DISCOUNTED._replace(name="x")],
    ids=["size", "net short", "expiry loss", "scenario loss"],
)
def test_every_charge_of_an_empty_row_is_zero_and_doubles_with_the_book(component: Component) -> None:
    numbers = {
        "rate": 0.5,
        "addend": 1.0,
        "multiplier": 1.0,
        "static": 0.5,
        "rate_multiplier": 1.0,
        "rate_addend": 0.0,
    }
    held = {PERPETUAL: -3.0, CALL_19: -10.0, CALL_20: 7.0, FAR_20: -2.0}
    empty, once, twice = charges(a_model(component, x=numbers), {}, held, {k: 2 * v for k, v in held.items()})[
        "x"
    ].amount
    assert empty == 0
    assert once > 0
    assert twice == 2 * once


def test_every_kind_of_the_vocabulary_is_tested_here() -> None:
    assert set(KINDS) == {"scenario_loss", "scenario_mean", "expiry_loss", "charge", "price_shortfall", "largest"}


@pytest.mark.parametrize(
    ("which", "members", "expected"),
    [
        pytest.param("worst_and_pair", (1, 0, 2), 6.5, id="the worst with its counterpart"),
        pytest.param("worst_and_pair", (0, 1, 2), 10.0, id="the worst alone where it has none"),
        pytest.param("unmoved", (0, 2), 0.0, id="some scenarios whatever the worst"),
    ],
)
def test_scenario_mean_is_the_mean_of_its_members(which: str, members: tuple[int, ...], expected: float) -> None:
    one = np.ones(1)
    source = {"scan": Charge(np.array([10.0]), np.zeros(1, np.int32), jnp.array([[-3.0, -10.0, 3.0]]))}
    component = Component("mean", "scenario_mean", (("of", "scan"), ("which", which), ("members", members)))
    market, unit = UnitMarket(one, one, one, one), jnp.zeros(1, jnp.int32)
    row = RowSide((), unit, market, np.ones((1, 3)), {}, Assets(one, one, {}), source)
    assert KINDS["scenario_mean"].charge(component, model(), row).amount == expected
