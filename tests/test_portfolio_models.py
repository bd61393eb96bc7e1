"""The portfolio-margin models of option venues: cases small enough for a pocket calculator, and what holds for all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from statistics import NormalDist
from typing import Any

import polars as pl
import pytest

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.errors import InputError
from gpumargin.run import margin
from gpumargin.runs import Run
from gpumargin.tables import Book, read_book
from tests.books import AS_OF, tiny_book, with_row
from tests.explained import every

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_shape")]

MODELS = ("deribit-pm", "okx-pm", "paradex-pm", "aevo-pm", "bybit-uta", "bybit-uta-cross")
GRIDS = {"deribit-pm": "standard", "okx-pm": "stress", "paradex-pm": "core", "aevo-pm": "grid", "bybit-uta": "grid"}
IN_30_DAYS, IN_60_DAYS = AS_OF + timedelta(days=30), AS_OF + timedelta(days=60)
S = 50_000.0
NORMAL = NormalDist()
INVERSE = {"settlement": "BTC", "quote": "USD", "inverse": True}
LINEAR = {"settlement": "USDC", "quote": "USDC", "inverse": False}

Leg = Mapping[str, Any]
# Nobody holds it: with its unit an account has the units of the tiny book, and a model one program for every test.
OTHER = {"instrument_id": "ETH-PERP", "kind": "perpetual", "underlying": "ETH", "mark_price": 2_000.0, **LINEAR}


def perpetual(quantity: float, *, mark: float = S, terms: Leg = LINEAR, **more: Any) -> dict[str, Any]:
    """A position in a perpetual."""
    return {"instrument_id": "BTC-PERP", "kind": "perpetual", "mark_price": mark, "quantity": quantity, **terms, **more}


def future(quantity: float, *, mark: float = S, terms: Leg = LINEAR) -> dict[str, Any]:
    """A position in a future that expires in 30 days."""
    name = {"instrument_id": "BTC-FUT", "kind": "future", "expiry": IN_30_DAYS}
    return {**name, "mark_price": mark, "quantity": quantity, **terms}


def option(quantity: float, strike: float, side: str, *, terms: Leg = LINEAR, **more: Any) -> dict[str, Any]:
    """A position in an option that expires in 30 days at a vol of 50 %."""
    name = {"instrument_id": f"BTC-{side}-{strike:g}-{more.get('expiry', '')}", "kind": "option", "option_type": side}
    usual = {"expiry": IN_30_DAYS, "mark_iv": 0.5, "strike": strike}
    return {**name, **usual, "quantity": quantity, **terms, **more}


def account(
    model: str | MarginModel,
    legs: list[dict[str, Any]],
    *,
    balances: Mapping[str, float] | None = None,
    settings: Mapping[str, float] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The account that holds some legs, and its unit, margined and explained; BTC is worth 50,000."""
    frame = pl.DataFrame(
        [{"contract_size": 1.0, "underlying": "BTC", "funding_rate": 0.0, **leg} for leg in (*legs, OTHER)],
        schema_overrides={"mark_price": pl.Float64, "strike": pl.Float64, "quantity": pl.Float64},
    )
    blank = {"expiry": pl.Datetime("us", "UTC"), "option_type": pl.String}
    blank |= dict.fromkeys(("strike", "mark_price", "mark_iv", "delta", "entry_price"), pl.Float64)
    frame = frame.with_columns(pl.lit(None, t).alias(n) for n, t in blank.items() if n not in frame.columns)
    owner = pl.lit("a").alias("account_id")
    terms = ("kind", "underlying", "settlement", "quote", "inverse", "contract_size", "strike", "expiry", "option_type")
    held = balances or {"USDC": 0.0}
    tables = {
        "instruments": frame.select("instrument_id", *terms),
        "marks": frame.select("instrument_id", "mark_price", "mark_iv", "delta", "funding_rate"),
        "forwards": frame.filter(pl.col("kind") == "option")
        .select("underlying", "quote", pl.col("expiry").cast(blank["expiry"]), forward=pl.lit(S))
        .unique(),
        "prices": pl.DataFrame(
            {"asset": ["USDC", "USDT", "BTC", "ETH", "BETH"], "price": [1.0, 1.0, S, 2_000.0, 2_000.0]}
        ),
        "positions": frame.drop_nulls("quantity")
        .select("instrument_id", "quantity", "entry_price")
        .with_columns(owner),
        "balances": pl.DataFrame({"asset": [*held], "amount": [float(x) for x in held.values()]}).with_columns(owner),
    }
    if settings:
        own = {"name": [*settings], "value": [*map(float, settings.values())]}
        tables["account_parameters"] = pl.DataFrame(own).with_columns(owner)
    run = margin(read_book(**tables), load_model(model) if isinstance(model, str) else model, as_of=AS_OF)
    run.explain("a")
    return run.accounts.row(0, named=True), run.units.row(0, named=True)


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-12, abs=1e-9)


# Deribit, in coin


@pytest.mark.parametrize(("coins", "worst"), [(10, 10 * (1 / 0.84 - 1)), (-10, 10 * (1 - 1 / 1.16))])
def test_deribit_coins_lose_the_convex_amount_at_the_end_of_the_range(coins: float, worst: float) -> None:
    found, unit = account("deribit-pm", [perpetual(coins * S, terms=INVERSE)])
    assert unit["worst"] == close(worst)
    assert unit["roll_shock"] == close(0.1)  # 1 % of ten coins
    assert found["initial_margin"] == close(round(worst, 9) + 0.1)
    assert found["maintenance_margin"] == close(0.8 * (round(worst, 9) + 0.1))


def test_deribit_delta_shock_grows_beyond_400_coins_and_long_options_only_lower_it() -> None:
    size = [perpetual(1_000 * S, terms=INVERSE)]
    _, alone = account("deribit-pm", size)
    assert alone["delta_shock"] == close(1_000 * 5e-5 * 600)
    _, hedged = account("deribit-pm", [*size, option(600, S, "put", terms=INVERSE, delta=-0.5)])
    assert hedged["delta_shock"] == close(700 * 5e-5 * 300)
    _, piled = account("deribit-pm", [*size, option(600, S, "call", terms=INVERSE, delta=0.5)])
    assert piled["delta_shock"] == close(alone["delta_shock"])
    _, huge = account("deribit-pm", [perpetual(10_000 * S, terms=INVERSE)])
    assert huge["delta_shock"] == close(10_000 * 0.1)


def test_deribit_roll_shock_takes_each_expiry_by_its_size_and_its_time() -> None:
    _, unit = account("deribit-pm", [perpetual(10 * S, terms=INVERSE), future(-10 * S, terms=INVERSE)])
    assert unit["worst"] == close(0.0)
    assert unit["roll_shock"] == close(10 * 0.01 + 10 * 0.01)  # 7.5 % for 30 days is below the floor of 1 %
    model = load_model("deribit-pm").replace({"components.roll_shock.numbers.rate": 0.73})
    _, steeper = account(model, [perpetual(10 * S, terms=INVERSE), future(-10 * S, terms=INVERSE)])
    assert steeper["roll_shock"] == close(10 * 0.01 + 10 * 0.73 * 30 / 365)


def test_deribit_counts_the_usd_loss_of_extreme_moves_by_range_over_move_less_the_dampener() -> None:
    model = load_model("deribit-pm").replace(
        {"vol_shock.up": 0.0, "vol_shock.min_up": 0.0, "scenarios.standard": [{"move": 0}]}
    )
    _, unit = account(model, [perpetual(-100 * S, terms=INVERSE)])
    undamped = 100 * (1 - 1 / 1.16)  # of a linear leg each extreme entry is the edge of the standard table
    dampener = [(move / 0.16 - 1) * 100_000 / (1.16 * S) for move in (0.5, 1, 2, 3, 4, 5)]
    assert unit["extended"] == close(undamped - min(dampener))


def test_deribit_orders_and_spot_margin_join_the_initial_margin_alone() -> None:
    legs = [perpetual(S, terms=INVERSE)]
    plain, _ = account("deribit-pm", legs)
    given, _ = account("deribit-pm", legs, settings={"mmp_margin": 0.5, "open_orders_margin": 0.25, "spot_margin": 1})
    assert given["initial_margin"] == close(plain["initial_margin"] + 1.75)
    assert given["maintenance_margin"] == plain["maintenance_margin"]


def test_a_number_of_the_whole_account_has_no_subject() -> None:
    book = with_row(tiny_book(), "account_parameters", account_id="bob", subject="BTC", name="mmp_margin", value=1.0)
    with pytest.raises(InputError, match=r"mmp_margin.*leave subject empty"):
        margin(Book(**book), "deribit-pm", as_of=AS_OF)


# OKX


def test_okx_perpetual_is_charged_stress_and_basis_and_borrowing_on_top() -> None:
    found, unit = account("okx-pm", [perpetual(2)], balances={"USDT": -10_000.0})
    assert [unit[name] for name in ("mr1", "mr2", "mr4", "mr6", "mr7_raw")] == close([12_000, 0, 200, 12_000, 450])
    assert found["mr8_maintenance"] == close(200)
    assert found["maintenance_margin"] == close(12_200 + 200)
    assert found["initial_margin"] == close(1.3 * 12_200 + 1_000)


def test_okx_hedged_size_pays_the_cost_of_closing_in_brackets() -> None:
    found, unit = account("okx-pm", [perpetual(200), future(-200)])
    assert unit["mr1"] == close(0)
    assert unit["mr7_raw"] == close(2 * 200 * S * 0.0045)  # 90,000
    assert unit["mr7"] == close(10_000 + 2 * 60_000 + 4 * 20_000)
    assert unit["mr4"] == close(200 * S * (0.002 + 0.05 * 30 / 365))
    assert found["maintenance_margin"] == unit["mr7"]


def test_okx_charges_what_dollar_coins_hedge_of_each_other() -> None:
    plain, _ = account("okx-pm", [perpetual(2)])
    given, _ = account("okx-pm", [perpetual(2)], settings={"stablecoin_hedged": 1_500_000})
    assert given["maintenance_margin"] - plain["maintenance_margin"] == close(5_000 + 5_000)
    assert given["initial_margin"] - plain["initial_margin"] == close(1.3 * 10_000)


def test_okx_collateral_counts_in_brackets_of_its_value() -> None:
    found, _ = account("okx-pm", [perpetual(1)], balances={"BETH": 1_500.0})  # 3,000,000 USD
    assert found["maintenance_collateral_value"] == close(2e6 * 0.95 + 1e6 * 0.85)


def test_okx_option_decays_over_a_day_and_pays_for_its_vega_and_rate() -> None:
    _, unit = account("okx-pm", [option(1, S, "call")])
    year = 365
    one_day = 0.4 * S * 0.5 * ((30 / year) ** 0.5 - (29 / year) ** 0.5)  # at the money: 0.4 F vol sqrt(T), nearly
    assert unit["mr2"] == pytest.approx(one_day, rel=0.01)
    vega = S * 0.39894 * (30 / year) ** 0.5
    assert unit["mr3"] == pytest.approx(0.03 * vega, rel=0.01)
    assert unit["mr5"] == pytest.approx(0.01 * 30 / year * 0.4 * S * 0.5 * (30 / year) ** 0.5, rel=0.01)


# Paradex, Aevo, Bybit


def test_paradex_perpetual_loses_the_range_and_provides_for_funding_and_fees() -> None:
    found, unit = account("paradex-pm", [perpetual(1, funding_rate=1e-4)])
    assert unit["core"] == close(8_000)
    assert unit["tail"] == close(0.36 * 0.33 * S)
    assert unit["funding"] == close(8 * 1e-4 * S)
    assert found["initial_margin"] == close(8_000 + 40 + 25)
    assert found["maintenance_margin"] == close(4_000 + 40 + 25)


def test_paradex_hedged_perpetual_and_options_pay_for_delta() -> None:
    legs = [perpetual(1), option(-5, S, "call", delta=0.3)]
    model = load_model("paradex-pm").replace({"scenarios.core": [{"move": 0}], "scenarios.tail": [{"move": 0}]})
    found, unit = account(model, legs)
    assert (unit["net_delta"], unit["gross_delta"], unit["hedged_delta"]) == close((-0.5, 2.5, 1.0))
    assert unit["min_delta"] == close(0.02 * 0.5 * S + 0.01 * S)
    assert found["maintenance_margin"] == close(500 + unit["fees"])


def test_aevo_short_perpetual_loses_the_range_plus_the_floor() -> None:
    found, unit = account("aevo-pm", [perpetual(-1)])
    assert (unit["scan"], unit["floor"]) == close((10_000, 500))
    assert found["maintenance_margin"] == close(10_500)
    assert found["initial_margin"] == close(1.25 * 10_500)


def test_bybit_calendar_spread_pays_for_the_days_between_its_sides() -> None:
    legs = [option(3, S, "call"), option(-2, S, "call", expiry=IN_60_DAYS)]
    _, unit = account("bybit-uta", legs)
    assert unit["vega_calendar"] == close(2 * 30 * 0.0003 * S)
    assert unit["short_options"] == close(2 * 0.01 * S)
    _, basis = account("bybit-uta", [perpetual(4), future(-1)])
    assert basis["delta_calendar"] == close(30 / 365 * 0.45 * S)
    assert basis["futures"] == close(5 * 0.006 * S)


def test_bybit_collateral_counts_in_brackets_of_coins() -> None:
    found, _ = account("bybit-uta", [perpetual(1)], balances={"BTC": 15.0})
    assert found["initial_collateral_value"] == close(S * (10 * 0.98 + 5 * 0.95))


def test_bybit_cross_short_call_and_put_and_no_credit_for_option_value() -> None:
    found, _ = account("bybit-uta-cross", [option(-1, 55_000, "call", mark_price=900.0, entry_price=1_200.0)])
    assert found["maintenance_margin"] == close(0.03 * S + 900 + 0.002 * S)
    assert found["initial_margin"] == close(0.10 * S + 1_200)  # 15 % less the 5,000 out of the money is below 10 %
    assert found["maintenance_balance"] == 0
    assert found["equity"] == close(-900)
    long, _ = account("bybit-uta-cross", [option(1, 55_000, "put", mark_price=900.0)])
    assert (long["initial_margin"], long["initial_balance"], long["equity"]) == close((0, 0, 900))


# Options through whole grids, in plain loops


def black(forward: float, strike: float, vol: float, days: float) -> float:
    """Undiscounted call."""
    stdev = vol * math.sqrt(days / 365)
    d1 = math.log(forward / strike) / stdev + stdev / 2
    return forward * NORMAL.cdf(d1) - strike * NORMAL.cdf(d1 - stdev)


def test_deribit_short_call_is_the_least_of_both_tables() -> None:
    _, unit = account("deribit-pm", [option(-40, 55_000, "call", terms=INVERSE)])

    def coins(move: float, vol: float) -> float:
        forward = S * (1 + move)
        return -40 * (black(forward, 55_000, vol, 30) / forward - black(S, 55_000, 0.5, 30) / S)

    standard = [coins(0.04 * k, vol) for k in range(-4, 5) for vol in (0.375, 0.5, 0.75)]
    assert unit["standard"] == close(-min(standard))
    losses = []
    for move in (-0.66, -0.33, 0.5, 1, 2, 3, 4, 5):
        edge = 1 + math.copysign(0.16, move)
        loss = -coins(move, 0.75) * 0.16 / abs(move) * (1 + move) / edge
        losses.append(max(loss - (abs(move) / 0.16 - 1) * 100_000 / (edge * S), 0))
    assert unit["extended"] == close(max(losses))
    d1 = math.log(S / 55_000) / (0.5 * math.sqrt(30 / 365)) + 0.25 * math.sqrt(30 / 365)
    assert unit["roll_shock"] == close(40 * NORMAL.cdf(d1) * 0.01)


def test_paradex_short_call_is_the_worst_of_core_and_weighted_tail() -> None:
    _, unit = account("paradex-pm", [option(-1, 55_000, "call")])

    def loss(move: float, vol: float) -> float:
        return black(S * (1 + move), 55_000, vol, 30) - black(S, 55_000, 0.5, 30)

    core = [loss(0.04 * k, vol) for k in range(-4, 5) for vol in (0.7, 0.39) if abs(k) < 4 or vol > 0.5]
    weights = {-0.66: 0.18, -0.33: 0.36, 0.5: 0.24, 1: 0.12, 2: 0.06, 3: 0.04, 4: 0.03, 5: 0.024}
    assert len(core) == 16
    assert unit["core"] == close(max(core))
    assert unit["tail"] == close(max(weight * loss(move, 0.7) for move, weight in weights.items()))


def test_aevo_moves_vols_by_points_and_okx_by_points_or_per_cent() -> None:
    def loss(move: float, vol: float) -> float:
        return black(S * (1 + move), 55_000, vol, 30) - black(S, 55_000, 0.5, 30)

    _, aevo = account("aevo-pm", [option(-1, 55_000, "call")])
    assert aevo["scan"] == close(max(loss(move, vol) for move in (-0.2, -0.1, 0, 0.1, 0.2) for vol in (1, 0.5, 0.25)))
    _, okx = account("okx-pm", [option(-1, 55_000, "call")])
    points = 0.3 * (1 / 30) ** 0.3
    vols = (0.5, 0.5 + points, 0.5 - points, 0.5 * 1.25, 0.5 * 0.8)
    assert okx["mr1"] == close(max(loss(0.04 * k, vol) for k in range(-3, 4) for vol in vols))
    assert okx["mr6"] == close(0.5 * max(loss(-0.24, 0.5), loss(0.24, 0.5)))


# All of them


def tiny(model: str, changes: Mapping[str, Any] | None = None) -> Run:
    return margin(Book(**tiny_book()), load_model(model).replace(changes or {}), as_of=AS_OF)


@pytest.mark.parametrize("model", MODELS)
def test_initial_margin_is_never_below_maintenance_and_every_account_adds_up(model: str) -> None:
    run = tiny(model)
    assert run.accounts.filter(pl.col("account_id") == "dave", pl.col("pool") == "cross")[
        "initial_margin"
    ].to_list() == [0]
    assert (run.accounts["initial_margin"] >= run.accounts["maintenance_margin"]).all()
    assert (run.accounts["maintenance_margin"] >= 0).all()
    assert "unknown" not in run.accounts["status"].to_list()
    assert all(explained.checks["ok"].all() for explained in every(run))


@pytest.mark.parametrize(("model", "name"), GRIDS.items())
def test_more_scenarios_never_lower_a_margin(model: str, name: str) -> None:
    rows = [dict(row) for row in load_model(model).raw["scenarios"][name]]
    wider = [*rows, {"spot": 0.7, "vol": "up"}, {"spot": 1.4, "vol": "down"}]
    few, many = tiny(model, {f"scenarios.{name}": rows[:3]}), tiny(model, {f"scenarios.{name}": wider})
    full = tiny(model)
    for kind in ("initial_margin", "maintenance_margin"):
        assert (few.accounts[kind] <= full.accounts[kind]).all()
        assert (full.accounts[kind] <= many.accounts[kind]).all()
        assert (full.accounts[kind] < many.accounts[kind]).any()


@pytest.mark.parametrize("model", MODELS)
def test_an_account_without_positions_requires_nothing(model: str) -> None:
    book = tiny_book()
    book["positions"] = book["positions"].clear()
    run = margin(Book(**book), model, as_of=AS_OF)
    assert run.accounts["initial_margin"].to_list()[0] == 0
    assert run.units.height == 0
