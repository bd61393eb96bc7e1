"""Claims about prices that say no vol, or 0: filled from others, recorded, or refused with what it would take."""

from __future__ import annotations

import json

import polars as pl
import pytest

import gpumargin as gm
from tests.books import FAR, NEAR, with_row
from tests.lacking import (
    ALL,
    DEEP,
    EXACT,
    Tables,
    failures_of,
    named,
    run_of,
    vol_errors,
    with_mark,
    without_forwards,
    without_marks,
    without_positions,
)
from tests.smiles import STEPS, forward, name_of, price, smile_book

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_shape")]


@pytest.fixture(scope="module")
def whole() -> gm.Run:
    return run_of(smile_book())


ODD_PRICES = [
    pytest.param("BTC", 0.9, ("must be at least", "USDC"), id="below intrinsic value"),
    pytest.param("BTC", 9.0, ("below", "USDC"), id="above the forward"),
    pytest.param("ETH", 0.9, ("at least 0.2738509629", "below 1 ETH"), id="in coin"),
]


@pytest.mark.parametrize(("underlying", "scale", "words"), ODD_PRICES)
def test_a_held_price_that_no_vol_explains_is_refused_with_its_bounds_where_nothing_can_fill_it(
    underlying: str, scale: float, words: tuple[str, ...]
) -> None:
    name, odd, tables = odd_price(underlying, scale)
    tables = lone(tables, name)
    (failure,) = failures_of(tables)
    assert (failure["code"], failure["table"], failure["column"]) == ("GM107", "marks", "mark_price")
    assert failure["row"] == tables["marks"]["instrument_id"].to_list().index(name)
    assert all(word in failure["message"] for word in (name, f"{odd:.10g}", *words))
    assert "mark_iv" in failure["remedy"]


@pytest.mark.parametrize(("underlying", "scale", "words"), ODD_PRICES)
def test_a_held_price_that_no_vol_explains_takes_the_vol_of_the_options_around_it(
    whole: gm.Run, underlying: str, scale: float, words: tuple[str, ...]
) -> None:
    name, _, tables = odd_price(underlying, scale)
    run = run_of(tables)
    assert vol_errors(run, whole, [name]).max() < EXACT  # the put of its strike has that vol
    filled = run.summary["filled"]
    assert (filled["vol"], filled["unpriced"]) == ({"interpolation": 1}, 0)
    assert filled["unexplained_prices"]["count"] == 1
    assert filled["unexplained_prices"]["examples"][0]["instrument_id"] == name
    json.dumps(run.summary)
    assert run.explain("zoe").checks["ok"].all()


def odd_price(underlying: str, scale: float) -> tuple[str, float, Tables]:
    """A deep call whose price is a multiple of what it should be, its own vol taken away, held by zoe alone."""
    name = name_of(underlying, NEAR, -4, "call")
    odd = price(underlying, NEAR, -0.32, "call") * scale
    tables = with_mark(smile_book(), name, mark_price=odd, mark_iv=None)
    return name, odd, with_row(tables, "positions", account_id="zoe", instrument_id=name, quantity=1.0)


def lone(tables: Tables, name: str) -> Tables:
    """The book where all other options on the same underlying say neither vol nor price, and nobody holds them."""
    others = [other for other in ALL if other[:3] == name[:3] and other != name]
    return without_positions(without_marks(tables, others, "mark_iv", "mark_price"), others)


def test_a_price_that_no_vol_explains_stays_unpriced_and_is_recorded_where_nobody_holds_it_or_can_fill_it() -> None:
    odd = lone(with_mark(smile_book(), DEEP, mark_price=1.0, mark_iv=None), DEEP)
    run = run_of(without_positions(odd, [DEEP]))
    row = run.instruments.filter(pl.col("instrument_id") == DEEP).row(0, named=True)
    assert row["implied_vol"] is row["delta"] is row["vega"] is None
    assert set(row["scenario_pnl"]) == {None}
    filled = run.summary["filled"]
    assert (filled["unpriced"], filled["unexplained_prices"]["count"]) == (len(ALL) // 2, 1)
    assert filled["unexplained_prices"]["examples"][0]["instrument_id"] == DEEP
    assert (run.accounts["status"] != "unknown").all()
    plain = run_of(without_positions(smile_book(), [name for name in ALL if name.startswith("BTC")]))
    assert run.accounts.equals(plain.accounts)


@pytest.mark.parametrize(("step", "intrinsic"), [(4, 0.0), (-4, None)], ids=["out of the money", "in the money"])
def test_a_price_at_intrinsic_value_takes_the_vol_of_the_options_around_it(
    whole: gm.Run, step: int, intrinsic: float | None
) -> None:
    """Its price says vol 0, with which a short option would lose too little in a stress."""
    name, at = name_of("BTC", NEAR, step, "call"), forward("BTC", NEAR)
    terms = whole.instruments.filter(pl.col("instrument_id") == name).row(0, named=True)
    value = max(terms["forward"] - terms["strike"], 0.0) if intrinsic is None else intrinsic
    tables = with_mark(smile_book(), name, mark_price=value, mark_iv=None)
    run, flat = run_of(tables), run_of(with_mark(tables, name, mark_iv=0.0))
    assert terms["forward"] == pytest.approx(at)
    assert (run.summary["filled"]["vol"], run.summary["filled"]["zero_vols"]) == ({"interpolation": 1}, 1)
    assert vol_errors(run, whole, [name]).max() < EXACT
    best, least = (
        max(book.instruments.filter(pl.col("instrument_id") == name)["scenario_pnl"].item()) for book in (run, flat)
    )
    assert best > least
    beyond = without_marks(tables, named("BTC", NEAR, step), "mark_iv")
    beyond = without_marks(beyond, [name_of("BTC", NEAR, step, "put")], "mark_price")
    assert run_of(beyond).summary["filled"]["vol"] == {"fit": 2}


def test_prices_that_make_no_forward_are_refused_where_they_are_held() -> None:
    tables = without_forwards(smile_book(), "BTC", FAR)
    for step in STEPS:
        tables = with_mark(tables, name_of("BTC", FAR, step, "put"), mark_price=5e6)
    failures = failures_of(tables)
    assert {(f["code"], f["table"], f["column"]) for f in failures} == {("GM107", "instruments", "expiry")}
    assert "no forward above 0" in failures[0]["message"]
    free = run_of(without_positions(tables, named("BTC", FAR, *STEPS)))
    assert free.summary["filled"]["forward"] == {"missing": 2 * len(STEPS)}
    assert free.summary["filled"]["unpriced"] == 2 * len(STEPS)


def test_a_price_in_another_unit_is_refused_by_the_vol_that_it_says() -> None:
    name = name_of("ETH", NEAR, 4, "call")  # 9 % of a coin where 0.06 % is its price
    tables = with_mark(smile_book(), name, mark_price=0.5, mark_iv=None)
    tables = with_row(tables, "positions", account_id="zoe", instrument_id=name, quantity=1.0)
    (failure,) = failures_of(tables)
    assert (failure["code"], failure["column"]) == ("GM110", "mark_price")
    assert "expected at most 5" in failure["message"]


def test_a_vol_that_no_price_can_tell_is_refused_though_the_plan_had_hoped_for_one() -> None:
    """Every option of the chain that is quoted is worth nothing: its vol is 0, which is a vol but no quote."""
    tables = smile_book()
    calls = [name_of("BTC", NEAR, step, "call") for step in (1, 2)]
    keep = [*calls, name_of("BTC", NEAR, 3, "call")]
    is_kept = pl.col("instrument_id").is_in(keep)
    tables = {
        name: tables[name].filter(is_kept) if name in ("instruments", "marks", "positions") else tables[name]
        for name in tables
    }
    for name, cells in zip(keep, ({"mark_price": 0.0}, {"mark_price": 0.0}, {"mark_price": None}), strict=True):
        tables = with_mark(tables, name, mark_iv=None, **cells)
        tables = with_row(tables, "positions", account_id="zoe", instrument_id=name, quantity=1.0)
    (failure,) = failures_of(tables)
    assert (failure["code"], failure["value"]) == ("GM107", keep[2])
    assert "no price there says a vol above 0" in failure["message"]
    held = run_of(without_positions(tables, keep[2:]))
    assert (held.summary["filled"]["zero_vols"], held.summary["filled"]["unpriced"]) == (2, 1)


def test_an_option_that_is_only_ordered_counts_as_in_use() -> None:
    tables = lone(with_mark(smile_book(), DEEP, mark_price=1.0, mark_iv=None), DEEP)
    tables = without_positions(tables, [DEEP])
    order = {"account_id": "ann", "order_id": "1", "side": "buy", "quantity": 1.0, "price": 1.0}
    assert failures_of(with_row(tables, "orders", instrument_id=DEEP, **order))[0]["code"] == "GM107"


def test_a_held_option_that_nothing_can_fill_says_what_would_be_needed() -> None:
    names = [name for name in ALL if name.startswith("BTC")]
    failure = failures_of(without_marks(smile_book(), names, "mark_iv", "mark_price"))[0]
    assert (failure["code"], failure["table"], failure["column"]) == ("GM107", "marks", "mark_iv")
    assert all(word in failure["remedy"] for word in ("mark_iv", "mark_price", "svi_sigma", "five strikes"))
    lone = without_marks(
        without_forwards(smile_book(), "BTC", NEAR), [n for n in names if n.endswith("put")], "mark_price"
    )
    failure = failures_of(lone)[0]
    assert (failure["code"], failure["column"]) == ("GM107", "expiry")
    assert "a call and a put of one strike" in failure["remedy"]
