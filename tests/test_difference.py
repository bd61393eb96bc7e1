"""Claims about the effects of a difference: each is that of its group of inputs alone, and they add up exactly."""

from __future__ import annotations

import random
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import polars as pl
import pytest

from gpumargin import diff
from gpumargin.catalogue import load_model
from gpumargin.difference import EFFECTS, FIGURES
from tests.books import AS_OF, tiny_book, with_row
from tests.differences import (
    LATER,
    MOVES,
    Move,
    effects,
    effects_found,
    made_elsewhere,
    moved,
    require_adds_up,
    run_of,
    scaled,
    without_option_marks,
)
from tests.sampled import rest_slow

if TYPE_CHECKING:
    from gpumargin.runs import Run

STRICTER = load_model("derive-pm1").replace({"parameters.im_factor": 1.4})
EVERY_MOVE = tuple(chain.from_iterable(MOVES.values()))
ALONE = [
    pytest.param(group, move, id=f"{group}-{n}", marks=pytest.mark.slow if n else [])
    for group, moves in MOVES.items()
    for n, move in enumerate(moves)
]


@pytest.fixture(scope="module")
def start() -> Run:
    return run_of(tiny_book())


@pytest.fixture(scope="module")
def end() -> Run:
    """After a change of every group."""
    return run_of(moved(*EVERY_MOVE), STRICTER, LATER)


def minor(run: Run, account: str, column: str) -> int:
    return int(run.accounts.filter(pl.col("account_id") == account, pl.col("pool") == "cross")[f"{column}_minor"][0])


def test_a_run_does_not_differ_from_itself(start: Run) -> None:
    found = diff(start, start)
    assert found.accounts.is_empty()
    assert found.crossed.is_empty()
    assert set(found.totals.filter(~pl.col("effect").is_in(["before", "after"]))["equity"]) == {"0.000000"}
    assert found.crossings.select("status_before", "status").rows() == [(s, s) for s in found.crossings["status"]]


def test_a_run_that_is_made_again_does_not_differ_though_every_number_is_computed_anew(start: Run) -> None:
    found = diff(made_elsewhere(start), run_of(moved(scaled("forwards", "rate", 1.0))))
    assert found.accounts.is_empty()


@pytest.mark.parametrize(("group", "move"), ALONE)
def test_a_change_of_one_group_has_that_effect_alone(start: Run, group: str, move: Move) -> None:
    after = run_of(moved(move))
    found = diff(made_elsewhere(start), after)
    assert effects_found(found) == {group}
    require_adds_up(found, start, after)


def test_nothing_but_time_gone_by_is_a_time_effect(start: Run) -> None:
    after = run_of(tiny_book(), as_of=LATER)
    found = diff(made_elsewhere(start), after)
    assert effects_found(found) == {"time"}
    require_adds_up(found, start, after)


def test_a_changed_number_of_the_model_is_a_parameter_effect(start: Run) -> None:
    after = run_of(tiny_book(), STRICTER)
    found = diff(made_elsewhere(start), after)
    assert effects_found(found) == {"parameter"}
    assert not found.accounts.select((pl.col("equity_parameter_minor") != 0).any()).item()
    require_adds_up(found, start, after)


def test_everything_at_once_adds_up_exactly(start: Run, end: Run) -> None:
    found = diff(start, end)
    assert effects_found(found) == {"position", "time", "price", "vol", "parameter"}
    require_adds_up(found, start, end)


def test_the_same_effects_come_of_revaluing_both_ends(start: Run, end: Run) -> None:
    found, again = diff(start, end), diff(made_elsewhere(start), end)
    assert again.accounts.equals(found.accounts)
    assert again.totals.equals(found.totals)


@pytest.mark.slow
def test_the_order_of_rows_does_not_matter(start: Run, end: Run) -> None:
    shuffled = {name: frame.sample(fraction=1.0, shuffle=True, seed=7) for name, frame in moved(*EVERY_MOVE).items()}
    found = diff(start, run_of(shuffled, STRICTER, LATER))
    assert found.accounts.equals(diff(start, end).accounts)


@pytest.mark.parametrize("seed", rest_slow(range(4), [0]))
def test_effects_of_any_change_add_up(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311  no secret

    def pick() -> Run:
        tables = moved(*draw.sample(EVERY_MOVE, draw.randint(0, 6)))
        rows = tables["positions"].sample(fraction=draw.choice([1.0, 0.6]), seed=seed)
        return run_of({**tables, "positions": rows}, draw.choice([STRICTER, "derive-pm1"]))

    before, after = pick(), pick()
    require_adds_up(diff(before, after), before, after)


def test_the_price_effect_of_a_linear_perpetual_is_quantity_times_change(start: Run) -> None:
    tables = moved(scaled("marks", "mark_iv", 1.3), scaled("positions", "quantity", 2.0))
    perpetual = pl.col("instrument_id") == "ETH-PERP"
    mark = pl.when(perpetual).then(2_250.0).otherwise("mark_price").alias("mark_price")
    after = run_of({**tables, "marks": tables["marks"].with_columns(mark)})
    found = diff(start, after)
    usdc = 10**6
    # Twice 40 contracts, 2,205 before and 2,250 after, entered at 2,190.
    assert effects(found, "dave", pool="isolated-1") == {"position": 40 * 15 * usdc, "price": 80 * 45 * usdc}


def test_effects_are_those_of_books_put_together_by_hand() -> None:
    before = without_option_marks(tiny_book())
    after = without_option_marks(moved(MOVES["position"][0], MOVES["price"][0], MOVES["price"][2], MOVES["vol"][0]))
    held = {**before, "positions": after["positions"]}
    at_prices = {**after, "marks": before["marks"]}
    path = [run_of(before), run_of(held), run_of(at_prices), run_of(after)]
    found = diff(path[0], path[-1])
    for account in ("alice", "bob", "carol"):
        for figure in ("equity", "initial_margin", "maintenance_margin"):
            values = [minor(run, account, figure) for run in path]
            steps = [b - a for a, b in pairwise(values)]
            named = dict(zip(("position", "price", "vol"), steps, strict=True))
            assert effects(found, account, figure) == {name: step for name, step in named.items() if step}


def test_an_account_is_left_alone_by_what_it_does_not_hold(start: Run) -> None:
    ether = pl.col("instrument_id").str.starts_with("ETH")
    after = run_of(
        moved(scaled("marks", "mark_iv", 1.4, ether), scaled("marks", "mark_price", 1.1, ether)), as_of=LATER
    )
    found = diff(start, after)
    assert set(effects(found, "carol")) == {"price"}
    assert set(effects(found, "bob", "maintenance_margin")) == {"time", "price", "vol"}


def test_accounts_that_come_and_go_are_position_effects(start: Run) -> None:
    tables = moved(MOVES["price"][0])
    gone = {name: tables[name].filter(pl.col("account_id") != "carol") for name in ("positions", "balances")}
    cash = {"account_id": "erin", "pool": "cross", "asset": "BTC", "amount": 1.0}
    after = run_of(with_row({**tables, **gone}, "balances", **cash))
    found = diff(start, after)
    require_adds_up(found, start, after)
    assert effects(found, "carol") == {"position": -minor(start, "carol", "equity")}
    assert effects(found, "erin") == {"position": 68_000 * 10**6, "price": round(-68_000 * 0.07) * 10**6}
    words = found.accounts.filter(pl.col("account_id").is_in(["carol", "erin"])).select("status_before", "status")
    assert words.rows() == [("healthy", "absent"), ("absent", "healthy")]
    assert "carol" not in found.crossed["account_id"]


def test_who_crossed_which_line_comes_worst_first_with_the_figure_that_decides() -> None:
    poor = scaled("balances", "amount", 0.5, (pl.col("account_id") == "bob") & (pl.col("asset") == "USDC"))
    deep = scaled("balances", "amount", 4.0, (pl.col("account_id") == "carol") & (pl.col("asset") == "USDC"))
    rich = scaled("balances", "amount", 3.0, pl.col("pool") == "isolated-1")
    before, after = run_of(tiny_book()), run_of(moved(poor, deep, rich))
    found = diff(before, after)
    statuses = after.accounts.with_columns(pl.col("account_id", "pool", "status").cast(pl.String))
    known = {(a, p): s for a, p, s in statuses.select("account_id", "pool", "status").iter_rows()}
    assert all(known[a, p] == s for a, p, s in found.crossed.select("account_id", "pool", "status").iter_rows())
    shown = found.crossed.select("account_id", "status_before", "status", "figure").rows()
    assert shown == [
        ("carol", "healthy", "bankrupt", "equity"),
        ("bob", "healthy", "margin_call", "initial_excess"),
        ("dave", "liquidatable", "healthy", "maintenance_excess"),
    ]
    assert {("healthy", "bankrupt", 1), ("liquidatable", "healthy", 1)} <= set(found.crossings.iter_rows())
    sums = found.crossed.select(pl.sum_horizontal("before", *EFFECTS) - pl.col("after"))
    assert sums.to_series().abs().max() < 1e-6  # type: ignore[operator]


@pytest.mark.slow
def test_accounts_may_move_to_another_model() -> None:
    rows = {"account_id": ["alice", "bob"], "pool": ["cross"] * 2, "model": ["derive-pm1@2023-12-15", "derive-pm1"]}
    before = run_of(tiny_book())
    after = run_of({**moved(MOVES["price"][2]), "accounts": pl.DataFrame(rows)})
    found = diff(before, after)
    require_adds_up(found, before, after)
    assert set(effects(found, "alice", "initial_margin")) == {"price", "parameter"}
    assert set(effects(found, "bob", "initial_margin")) == {"price"}
    assert found.accounts.filter(account_id="alice").select("model_before", "model").row(0) == (
        "derive-pm1@2025-02-01",
        "derive-pm1@2023-12-15",
    )


def test_every_figure_has_every_effect_as_a_column() -> None:
    found = diff(run_of(tiny_book()), run_of(tiny_book(), as_of=AS_OF))
    expected = {f"{name}_{effect}_minor" for name in FIGURES for effect in EFFECTS}
    assert expected <= set(found.accounts.columns)
