"""Claims about contracts that come, expire and go between two runs, and about options with a price of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest

from gpumargin import diff
from gpumargin.difference.markets import group_of
from gpumargin.schema import MARKET_TABLES
from tests.books import AS_OF, FAR, NEAR, tiny_book, with_row
from tests.differences import (
    LATER,
    Tables,
    effects,
    effects_found,
    made_elsewhere,
    moved,
    require_adds_up,
    run_of,
    scaled,
    without_option_marks,
)
from tests.explained import coin_margined
from tests.oracle.black import Option, black_value

if TYPE_CHECKING:
    from gpumargin.runs import Run

USDC = 10**6
AFTER_NEAR = NEAR + timedelta(days=1)
SHORT_PUT = {"account_id": "erin", "pool": "cross", "instrument_id": "BTC-20260327-60000-P", "quantity": -2.0}
CASH = {"account_id": "erin", "pool": "cross", "asset": "USDC", "amount": 50_000.0}
TIME = pl.Datetime("us", "UTC")


def with_erin(tables: Tables) -> dict[str, pl.DataFrame]:
    """The book with an account that is short two puts and nothing else."""
    return with_row(with_row(tables, "positions", **SHORT_PUT), "balances", **CASH)


def value(run: Run, instrument: str) -> float:
    return float(run.instruments.filter(instrument_id=instrument)["value"][0])


def settled(tables: Tables, **prices: float) -> dict[str, pl.DataFrame]:
    """The book with settlement prices of what expired at NEAR."""
    table = {name.replace("_", "-"): price for name, price in prices.items()}
    price = pl.col("instrument_id").replace_strict(table, default=None, return_dtype=pl.Float64)
    return {**tables, "marks": tables["marks"].with_columns(settlement_price=price)}


SETTLED_AT = {
    "BTC_20260327_60000_P": 57_500.0,
    "BTC_20260327_70000_C": 57_500.0,
    "ETH_20260327_2000_P": 2_100.0,
}


def test_an_option_that_expired_and_is_still_held_decays_first_and_then_settles() -> None:
    before = run_of(with_erin(without_option_marks(tiny_book())))
    low = scaled("forwards", "forward", 0.85)
    tables = settled(low(with_erin(without_option_marks(moved(scaled("marks", "mark_iv", 1.2))))), **SETTLED_AT)
    after = run_of(tables, as_of=AFTER_NEAR)
    found = diff(before, after)
    require_adds_up(found, before, after)
    worth = value(before, "BTC-20260327-60000-P")
    # The forward was 68,300: out of the money, so that time takes all of the value; then it settles at 57,500.
    assert effects(found, "erin") == {
        "time": pytest.approx(2 * worth * USDC, abs=2),
        "price": pytest.approx(-2 * 2_500 * USDC, abs=2),
    }


def test_an_option_that_expired_and_was_settled_into_cash_is_a_position_effect() -> None:
    before = run_of(with_erin(without_option_marks(tiny_book())))
    tables = without_option_marks(
        moved(scaled("marks", "mark_iv", 1.2), scaled("prices", "price", 1.1, pl.col("asset") == "ETH"))
    )
    listed = pl.col("expiry").is_null() | (pl.col("expiry") > AFTER_NEAR)
    kept = tables["instruments"].filter(listed)["instrument_id"].to_list()
    cut = {
        name: tables[name].filter(pl.col("instrument_id").is_in(kept)) for name in ("instruments", "marks", "positions")
    }
    tables = {**tables, **cut, "forwards": tables["forwards"].filter(pl.col("expiry") > AFTER_NEAR)}
    after = run_of(with_row(tables, "balances", **{**CASH, "amount": 45_000.0}), as_of=AFTER_NEAR)
    found = diff(before, after)
    require_adds_up(found, before, after)
    worth = value(before, "BTC-20260327-60000-P")
    assert effects(found, "erin") == {"position": pytest.approx((2 * worth - 5_000) * USDC, abs=2)}
    assert {"time", "vol"} <= set(effects(found, "alice"))


def listed_since(
    tables: Tables, expiry: datetime, vol: float | None, settlement: float | None
) -> dict[str, pl.DataFrame]:
    """The book with a new call that erin holds."""
    terms = {"kind": "option", "underlying": "BTC", "settlement": "USDC", "option_type": "call"}
    name = {"instrument_id": "BTC-NEW"}
    tables = with_row(tables, "instruments", **name, **terms, strike=65_000.0, expiry=expiry)
    marks = tables["marks"].with_columns(settlement_price=pl.lit(None, pl.Float64))
    tables = with_row({**tables, "marks": marks}, "marks", **name, mark_iv=vol, settlement_price=settlement)
    held = {**SHORT_PUT, "instrument_id": "BTC-NEW", "quantity": 3.0}
    return with_row(with_row(tables, "positions", **held), "balances", **CASH)


def test_a_contract_listed_since_comes_with_its_own_vol_into_the_market_as_it_was() -> None:
    before = run_of(tiny_book())
    later = moved(scaled("forwards", "forward", 1.02), scaled("marks", "mark_iv", 1.3))
    tables = listed_since(later, FAR, 0.5, None)
    after = run_of(tables, as_of=LATER)
    found = diff(before, after)
    require_adds_up(found, before, after)
    years = [(FAR - at).total_seconds() / (365 * 86_400) for at in (AS_OF, LATER)]
    path = [(69_200.0, years[0]), (69_200.0, years[1]), (69_200.0 * 1.02, years[1])]
    values = [black_value(Option(65_000.0, is_call=True, years=t), forward=f, vol=0.5) for f, t in path]
    assert effects(found, "erin") == {
        "position": pytest.approx((50_000 + 3 * values[0]) * USDC, abs=2),
        "time": pytest.approx(3 * (values[1] - values[0]) * USDC, abs=2),
        "price": pytest.approx(3 * (values[2] - values[1]) * USDC, abs=2),
    }


def test_an_expiry_new_to_the_venue_brings_its_forward_along() -> None:
    before = run_of(tiny_book())
    expiry = datetime(2026, 4, 24, 8, tzinfo=UTC)
    row = {"underlying": "BTC", "quote": "USDC", "expiry": expiry, "forward": 68_700.0, "rate": 0.04}
    tables = with_row(moved(scaled("forwards", "forward", 1.02), scaled("marks", "mark_iv", 1.3)), "forwards", **row)
    after = run_of(listed_since(tables, expiry, 0.5, None))
    found = diff(before, after)
    require_adds_up(found, before, after)
    assert set(effects(found, "erin")) == {"position"}


def test_a_contract_that_was_listed_and_expired_between_the_runs_is_worth_its_settlement_on_all_the_way() -> None:
    before = run_of(tiny_book())
    expiry = AS_OF + timedelta(days=1)
    later = moved(scaled("marks", "mark_iv", 1.3), scaled("prices", "price", 1.1, pl.col("asset") == "ETH"))
    after = run_of(listed_since(later, expiry, None, 66_000.0), as_of=LATER)
    found = diff(before, after)
    require_adds_up(found, before, after)
    assert effects(found, "erin") == {"position": (50_000 + 3 * 1_000) * USDC}


@pytest.mark.slow
def test_a_future_that_expired_settles_at_its_mark_first_and_then_at_its_settlement_price() -> None:
    def book(settlement: float | None) -> dict[str, pl.DataFrame]:
        terms = {"kind": "future", "underlying": "BTC", "settlement": "USDC", "expiry": NEAR}
        tables = with_row(tiny_book(), "instruments", instrument_id="BTC-FUT", **terms)
        marks = tables["marks"].with_columns(settlement_price=pl.lit(None, pl.Float64))
        row = {"instrument_id": "BTC-FUT", "mark_price": 68_300.0, "settlement_price": settlement}
        tables = with_row({**tables, "marks": marks}, "marks", **row)
        held = {**SHORT_PUT, "instrument_id": "BTC-FUT", "quantity": 2.0, "entry_price": 68_000.0}
        return with_row(with_row(tables, "positions", **held), "balances", **CASH)

    before = run_of(book(None), "deribit-pm")
    plain = book(66_500.0)
    others = {k.replace("_", "-"): v for k, v in SETTLED_AT.items()}
    price = pl.col("instrument_id").replace_strict(others, default=None, return_dtype=pl.Float64)
    marks = plain["marks"].with_columns(pl.coalesce("settlement_price", price).alias("settlement_price"))
    after = run_of({**plain, "marks": marks}, "deribit-pm", AFTER_NEAR)
    found = diff(before, after)
    require_adds_up(found, before, after)
    # Money is counted in coins of 68,000.
    assert effects(found, "erin") == {"price": pytest.approx(2 * (66_500 - 68_300) / 68_000 * 10**8, abs=2)}


def test_the_price_of_a_marked_option_moves_with_its_model_price() -> None:
    name, held = "BTC-20260327-70000-C", {**SHORT_PUT, "instrument_id": "BTC-20260327-70000-C", "quantity": 1.0}

    def book(forward: float, vol: float, mark: float) -> dict[str, pl.DataFrame]:
        here = pl.col("instrument_id") == name
        tables = tiny_book()
        marks = tables["marks"].with_columns(
            mark_iv=pl.when(here).then(vol).otherwise("mark_iv"),
            mark_price=pl.when(here).then(mark).otherwise("mark_price"),
        )
        near = (pl.col("underlying") == "BTC") & (pl.col("expiry") == NEAR)
        forwards = tables["forwards"].with_columns(pl.when(near).then(forward).otherwise("forward").alias("forward"))
        tables = {**tables, "marks": marks, "forwards": forwards}
        return with_row(with_row(tables, "positions", **held), "balances", **CASH)

    before, after = run_of(book(68_300.0, 0.55, 2_400.0)), run_of(book(70_000.0, 0.6, 3_500.0), as_of=LATER)
    found = diff(before, after)
    require_adds_up(found, before, after)
    years = [(NEAR - at).total_seconds() / (365 * 86_400) for at in (AS_OF, LATER)]
    path = [
        (68_300.0, 0.55, years[0]),
        (68_300.0, 0.55, years[1]),
        (70_000.0, 0.55, years[1]),
        (70_000.0, 0.6, years[1]),
    ]
    models = [black_value(Option(70_000.0, is_call=True, years=t), forward=f, vol=v) for f, v, t in path]
    off = 2_400.0 - models[0], 3_500.0 - models[3]
    assert effects(found, "erin") == {
        "time": pytest.approx((models[1] - models[0]) * USDC, abs=2),
        "price": pytest.approx((models[2] - models[1] + off[1] - off[0]) * USDC, abs=2),
        "vol": pytest.approx((models[3] - models[2]) * USDC, abs=2),
    }


def test_small_moves_have_the_effects_that_greeks_say() -> None:
    name, hour = "BTC-20260626-80000-C", timedelta(hours=1)
    held = {**SHORT_PUT, "instrument_id": name, "quantity": 100.0}
    start = with_row(with_row(tiny_book(), "positions", **held), "balances", **CASH)
    here = pl.col("instrument_id") == name
    vol = pl.when(here).then(pl.col("mark_iv") + 1e-4).otherwise("mark_iv").alias("mark_iv")
    forward = pl.when(pl.col("underlying") == "BTC").then(pl.col("forward") + 5.0).otherwise("forward").alias("forward")
    end = {**start, "marks": start["marks"].with_columns(vol), "forwards": start["forwards"].with_columns(forward)}
    before, after = run_of(start), run_of(end, as_of=AS_OF + hour)
    greeks = before.instruments.filter(here).row(0, named=True)
    expected = {"time": greeks["theta"] * hour.total_seconds() / (365 * 86_400), "price": greeks["delta"] * 5.0}
    expected["vol"] = greeks["vega"] * 1e-4
    found = effects(diff(before, after), "erin")
    assert found == {effect: pytest.approx(100 * money * USDC, rel=0.01) for effect, money in expected.items()}


@pytest.mark.slow
def test_vols_that_a_run_filled_are_the_vols_that_moved() -> None:
    """The vol of the far call is nowhere given: it follows from its price."""

    def book(mark: float, factor: float) -> dict[str, pl.DataFrame]:
        here = pl.col("instrument_id") == "ETH-20260626-2500-C"
        tables = moved(scaled("prices", "price", factor, pl.col("asset") == "ETH"))
        marks = tables["marks"].with_columns(
            mark_iv=pl.when(here).then(None).otherwise("mark_iv"),
            mark_price=pl.when(here).then(mark).otherwise("mark_price"),
        )
        forwards = tables["forwards"].filter(~((pl.col("underlying") == "ETH") & (pl.col("expiry") == FAR)))
        row = {"underlying": "ETH", "quote": "USDC", "expiry": FAR, "forward": 2_240.0 * factor, "rate": 0.045}
        return with_row({**tables, "marks": marks, "forwards": forwards}, "forwards", **row)

    before = run_of(book(230.0, 1.0))
    assert diff(made_elsewhere(before), before).accounts.is_empty()
    # At an unmoved forward and time another price is another vol, and nothing else.
    assert effects_found(diff(before, run_of(book(250.0, 1.0)))) == {"vol"}
    moved_too = diff(before, run_of(book(250.0, 1.05), as_of=LATER))
    assert effects_found(moved_too) == {"time", "price", "vol"}


@pytest.mark.slow
def test_coin_margined_contracts_are_taken_along() -> None:
    before = run_of(coin_margined(), "deribit-pm")
    tables = coin_margined()
    for move in (scaled("prices", "price", 0.9, pl.col("asset") == "BTC"), scaled("forwards", "forward", 0.92)):
        tables = move(tables)
    after = run_of(scaled("marks", "mark_iv", 1.25)(tables), "deribit-pm", LATER)
    found = diff(made_elsewhere(before), after)
    require_adds_up(found, before, after)
    assert effects_found(found) == {"time", "price", "vol"}


def test_every_column_of_the_market_belongs_to_one_group() -> None:
    groups = {(t.name, c.name): group_of(t.name, c.name) for t in MARKET_TABLES for c in t.columns}
    assert set(groups.values()) == {"position", "price", "vol"}
    assert {c for (t, c), group in groups.items() if group == "vol"} == {
        "mark_iv",
        "vol_confidence",
        *(f"svi_{name}" for name in ("a", "b", "rho", "m", "sigma", "forward", "years")),
    }
    assert groups["marks", "open_interest"] == groups["assets", "total_borrows"] == "position"
