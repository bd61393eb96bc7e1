"""Claims about the scenario words of model files: what they bind to, what they change, and that explain follows."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import polars as pl
import pytest

from gpumargin.bind import bind, scenario_weights
from gpumargin.catalogue import MarginModel, load_model
from gpumargin.errors import UsageError
from gpumargin.run import margin
from gpumargin.runs import Run
from gpumargin.tables import read_book
from tests.asserts import assert_same_bits
from tests.books import AS_OF
from tests.packed import many_legs

pytestmark = pytest.mark.usefixtures("one_shape")

UNITS = ("BTC", "ETH")
ASSETS = ("BTC", "ETH", "USD", "USDC", "WBTC")
SKEW = {
    "linear_cap": 0.25,
    "linear_slope": -0.1,
    "abs_cap": 0.25,
    "abs_slope": -0.1,
    "min_k_star": 0.01,
    "width": 4.0,
    "vol_static": 0.6,
    "vol_slope": 0.0,
}
NEGATIVE = {"static": 1.02, "rate_multiplier": 0.0, "rate_addend": 0.1}
GRID = [{"spot": 1.18, "vol": "up"}, {"spot": 1.0, "vol": "down"}, {"spot": 0.82, "vol": "up"}]
TURNS = [{"spot": 1.0, "vol": "skew_linear"}, {"spot": 1.0, "vol": "skew_abs", "weight": 2.0}]


def pm1(**changes: Any) -> MarginModel:
    """Derive's first portfolio margin with some places changed; `__` stands for a dot."""
    return load_model("derive-pm1").replace({key.replace("__", "."): value for key, value in changes.items()})


def bound(model: MarginModel) -> Any:
    return bind(model.file, UNITS, ASSETS, np.array([True, True, False, False, False]))


def run_of(model: MarginModel, accounts: int = 12, seed: int = 3) -> Run:
    return margin(read_book(**many_legs(np.random.default_rng(seed), accounts)), model, as_of=AS_OF)


def scan(run: Run) -> np.ndarray:
    return run.units["scan"].to_numpy()


def test_words_that_say_the_default_bind_to_the_same_model() -> None:
    rows = [
        dict(row, days=0.0, vol_factor=1.0, vol_shift=0.0) for row in load_model("derive-pm1").raw["scenarios"]["grid"]
    ]
    spelt = pm1(
        scenarios__grid=rows,
        vol_shock__rule="multiplicative",
        scenario_rules={"shock_base": "mark", "pnl_currency": "money"},
        discounted_marks=False,
        skew=SKEW,
    )
    first, second = bound(pm1()), bound(spelt)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert_same_bits(a, b)


def test_a_weight_may_be_an_expression_of_the_move_the_range_and_parameters() -> None:
    weight = "ext_factor * range / abs(move) * (1 + move) / (1 + sign(move) * range)"
    changed = pm1(
        scenario_range={"default": 0.16, "ETH": 0.18},
        parameters__ext_factor={"default": 1.0, "ETH": 0.5},
        scenarios__grid=[{"spot": 0.34, "weight": weight}],
    )
    found = scenario_weights(changed.file, changed.file.scenarios["grid"][0], UNITS)
    expected = [0.16 / 0.66 * 0.34 / 0.84, 0.5 * 0.18 / 0.66 * 0.34 / 0.82]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.slow
def test_a_weight_by_expression_gives_the_bits_of_the_same_numbers() -> None:
    by_words = [{"spot": spot, "vol": "up", "weight": "0.12 / abs(move)"} for spot in (0.5, 1.5, 3.0)]
    by_hand = [{**row, "weight": 0.12 / abs(row["spot"] - 1)} for row in by_words]
    first, second = (run_of(pm1(scenarios__grid=rows)) for rows in (by_words, by_hand))
    assert_same_bits(scan(first), scan(second))
    assert first.scenarios["weight"].to_list() == second.scenarios["weight"].to_list()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scenarios__grid": [{"spot": 1.1, "vol": "skew_abs"}], "skew": SKEW}, ["skew_abs", "leaves spot"]),
        ({"scenarios__grid": TURNS}, ["scenarios.grid", "[skew]"]),
        ({"scenarios__grid": [{"spot": 1.1, "weight": "movement"}]}, ["scenarios.grid.0.weight", "movement", "range"]),
        ({"scenarios__grid": [{"spot": 0.0}], "scenario_rules": {"pnl_currency": "coin"}}, ["coins", "level of 0"]),
        ({"components__scan__post": "pnl * share"}, ["components.scan.post", "share", "pnl"]),
        ({"components__scan__numbers": {"share": 0.5}}, ["components.scan", "share", "not used"]),
        ({"components__scan__post": "pnl * move", "components__scan__numbers": {"move": 1.0}}, ["move", "already"]),
        ({"base_legs": {"BTC": ["WBTC"], "ETH": ["WBTC"]}}, ["base_legs", "WBTC", "one unit"]),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(changes: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        pm1(**changes)
    for word in says:
        assert word in str(caught.value)


@pytest.mark.slow
def test_a_wider_set_of_scenarios_never_lowers_the_loss() -> None:
    far = [{"spot": 2.0, "vol": "up"}, {"spot": 0.3, "vol": "up"}]
    grids = [GRID, [*GRID, *far], [*GRID, *TURNS], [*GRID, *TURNS, *far]]
    losses = [scan(run_of(pm1(scenarios__grid=grid, skew=SKEW))) for grid in grids]
    for narrow, wide in ((0, 1), (0, 2), (2, 3)):
        assert (losses[wide] >= losses[narrow] - 1e-9 * np.abs(losses[narrow])).all()
    assert (losses[1] > losses[0]).any()
    assert (losses[3] > losses[2]).any()


@pytest.mark.slow
def test_a_turn_of_the_smile_loses_the_same_for_a_book_and_its_opposite() -> None:
    tables = many_legs(np.random.default_rng(5), 10)
    opposite = tables | {"positions": tables["positions"].with_columns(pl.col("quantity").neg())}
    model = pm1(scenarios__grid=TURNS, skew=SKEW, components__scan={"kind": "scenario_loss", "scenarios": "grid"})
    first, second = (scan(margin(read_book(**book), model, as_of=AS_OF)) for book in (tables, opposite))
    np.testing.assert_allclose(first, second, rtol=1e-10)
    assert (first >= 0).all()


@pytest.mark.slow
def test_debts_cost_more_where_net_short_expiries_are_marked_up_but_never_past_the_undiscounted_price() -> None:
    plain = pm1(discounted_marks=True)
    dear = pm1(discounted_marks=True, components__scan__discount__negative=NEGATIVE)
    capped = pm1(discounted_marks=True, components__scan__discount__negative=dict(NEGATIVE, static=9.0))
    undiscounted = pm1(components__scan__discount__negative=dict(NEGATIVE, static=9.0))
    losses = [scan(run_of(model)) for model in (plain, dear, capped)]
    assert (losses[1] >= losses[0] - 1e-6).all()
    assert (losses[1] > losses[0] + 1e-6).any()
    assert (losses[2] >= losses[1] - 1e-6).all()
    np.testing.assert_allclose(scan(run_of(undiscounted)), scan(run_of(pm1())), rtol=1e-12)


@pytest.mark.slow
def test_post_turns_the_pnl_of_every_scenario_before_the_least_is_taken() -> None:
    gain = "where(pnl > 0, min(pnl * share, most * dollar), pnl)"
    damped = f"shrink({gain}, (max(abs(move) / range, 1) - 1) * per_range * dollar / ((1 + sign(move) * range)))"
    changed = pm1(
        scenario_range=0.15,
        components__scan__post=damped,
        components__scan__numbers={"share": 0.5, "most": 1_000.0, "per_range": {"default": 2_000.0, "ETH": 500.0}},
    )
    run, plain = run_of(changed), run_of(pm1(scenario_range=0.15))
    for account in run.accounts["account_id"]:
        before, after = plain.explain(account).tables, run.explain(account).tables
        for unit, per_range in (("BTC", 2_000.0), ("ETH", 500.0)):
            if f"{unit} scan" not in after:
                continue
            pnl = before[f"{unit} scan"]["counted_pnl"].to_numpy()
            move = before[f"{unit} scan"]["spot_move"].to_numpy()
            halved = np.where(pnl > 0, np.minimum(pnl * 0.5, 1_000.0), pnl)
            by = (np.maximum(np.abs(move) / 0.15, 1) - 1) * per_range / (1 + np.sign(move) * 0.15)
            expected = np.sign(halved) * np.maximum(np.abs(halved) - by, 0)
            np.testing.assert_allclose(after[f"{unit} scan"]["counted_pnl"], expected, rtol=1e-10, atol=1e-7)


@pytest.mark.slow
def test_coins_of_other_names_move_with_their_unit_at_their_own_price() -> None:
    tables = many_legs(np.random.default_rng(7), 1, most_legs=0)
    perpetual = tables["positions"].clear().cast({"account_id": pl.String, "instrument_id": pl.String})
    book = tables | {
        "positions": perpetual,
        "prices": pl.DataFrame(
            {"asset": ["USDC", "BTC", "ETH", "WBTC"], "price": [1.0, 68_000.0, 2_200.0, 68_000.0]}
        ).with_columns(collateral_price=pl.Series([1.0, 68_000.0, 2_200.0, 60_000.0])),
        "balances": pl.DataFrame({"account_id": ["a", "a"], "asset": ["WBTC", "ETH"], "amount": [2.0, 5.0]}),
    }
    changed = pm1(base_legs={"BTC": ["BTC", "WBTC"]}, scenarios__grid=[{"spot": 0.9}, {"spot": 1.1}])
    run = margin(read_book(**book), changed, as_of=AS_OF)
    assert run.units["unit"].to_list() == ["BTC"]
    assert run.units["scan"].to_list() == pytest.approx([2 * 60_000 * 0.1])
    assert run.explain("a").checks["ok"].all()


EXPLAINED: dict[str, dict[str, Any]] = {
    "points": {"vol_shock__rule": "additive", "vol_shock__min_up": 0.4, "vol_shock__max_up": 1.5},
    "turns": {"scenarios__grid": [*GRID, *TURNS], "skew": SKEW},
    "discounts of both signs and turns": {
        "discounted_marks": True,
        "components__scan__discount__negative": NEGATIVE,
        "scenarios__grid": [*GRID, *TURNS],
        "skew": SKEW,
    },
    "a day later": {"scenarios__grid": [{**row, "days": 1.0, "vol_factor": 1.2} for row in GRID]},
    "index and coins": {"scenario_rules": {"shock_base": "index", "pnl_currency": "coin"}},
    "post": {"components__scan__post": "min(pnl, pnl * range * spot * dollar)", "scenario_range": 0.1},
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", EXPLAINED.values(), ids=EXPLAINED)
def test_every_word_is_explained_to_the_number_that_the_run_published(changes: dict[str, Any]) -> None:
    run = run_of(pm1(**changes), accounts=6)
    for account in run.accounts["account_id"]:
        assert run.explain(account).checks["ok"].all()


@pytest.mark.slow
def test_scenarios_are_told_apart_by_what_they_do() -> None:
    rows = [
        {"spot": 1.1},
        {"spot": 1.1, "days": 1.0},
        {"spot": 1.1, "vol_factor": 1.3},
        {"spot": 1.1, "vol_shift": -0.1},
    ]
    found = run_of(pm1(scenarios__grid=rows), accounts=1).scenarios.filter(unit="BTC", set="grid")["id"]
    assert found.to_list() == ["1.1/none", "1.1/none/1d", "1.1/none*1.3", "1.1/none-0.1"]
