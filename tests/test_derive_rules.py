"""Rules of Derive that no published figure tells from the obvious wrong one, in numbers to check by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from gpumargin.errors import UsageError
from gpumargin.run import margin
from gpumargin.tables import Book, read_book
from tests.books import AS_OF, tiny_book, with_cell
from tests.explained import with_digitals
from tests.oracle import sm
from tests.oracle.params import SM_SCRIPT
from tests.reference import sm_books

if TYPE_CHECKING:
    from gpumargin.runs import Run

pytestmark = pytest.mark.usefixtures("one_shape")

SM = "derive-sm@2023-12-15"
SPOT, SECONDS = 2000.0, 30 * 86_400
SURE = {"forward_confidence": 1.0, "vol_confidence": 1.0}


def option(kind: str, strike: float, amount: float, vol: float = 0.0) -> dict[str, Any]:
    return {"seconds_to_expiry": SECONDS, "strike": strike, "kind": kind, "amount": amount, "vol": vol}


def case(*options: dict[str, Any], stable: float = 1.0, cash: float = 0.0, **given: Any) -> dict[str, Any]:
    """One market at 2,000 with one expiry whose forward is 2,000; the perpetual stands at 2,100."""
    held = {"perp_size": 0.0, "perp_unsettled_cash": 0.0, "base_amount": 0.0, "options": list(options)}
    feeds = {name: given.pop(name) for name in tuple(given) if name in SURE}
    market = {
        "name": "ETH",
        "spot": SPOT,
        "spot_confidence": 1.0,
        "perp_price": 2100.0,
        "perp_confidence": 1.0,
        "expiries": [{"seconds_to_expiry": SECONDS, "forward": SPOT, **SURE, **feeds}],
        "positions": held | {name: given.pop(name) for name in tuple(given) if name in held},
    }
    assert set(given) <= set(market)
    return {"cash": cash, "stable_price": stable, "markets": [market | given]}


def result(of: dict[str, Any], **changed: float) -> dict[str, float]:
    """The account and its sums of units under the deployment script's numbers, on which the oracle agrees."""
    run = run_of(of, **changed)
    units = run.units.select(pl.col(pl.Float64).sum()).row(0, named=True)
    account = run.accounts.row(0, named=True)
    if not changed:
        tables = {name: frame.to_dicts() for name, frame in sm_books.tables_of(of).items()}
        row = sm.margin_book(tables, SM_SCRIPT, as_of_seconds=sm_books.AS_OF.timestamp())["accounts"][0]
        for name in ("initial_excess", "maintenance_excess", "equity"):
            assert account[name] == pytest.approx(row[name], rel=1e-12, abs=1e-9)
    return units | account


def run_of(of: dict[str, Any], **changed: float) -> Run:
    model = sm_books.load_model(SM).replace({f"parameters.{name}": value for name, value in changed.items()})
    return margin(read_book(**sm_books.tables_of(of)), model, as_of=sm_books.AS_OF)


@pytest.mark.parametrize(("spot", "perp"), [(1.0, 0.3), (0.3, 1.0)], ids=["its own feed", "the feed of spot"])
def test_a_perpetual_in_doubt_is_charged_at_spot_and_required_at_its_own_price(spot: float, perp: float) -> None:
    found = result(case(perp_size=-3.0, spot_confidence=spot, perp_confidence=perp))
    assert found["oracle_perp"] == pytest.approx(0.7 * 3.0 * 2000.0)
    assert found["perp_initial"] == pytest.approx(0.1 * 3.0 * 2100.0)
    assert found["maintenance_margin"] == pytest.approx(0.065 * 3.0 * 2100.0)
    assert found["initial_excess"] == pytest.approx(-0.7 * 6000.0 - 630.0)


@pytest.mark.parametrize("feed", ["spot_confidence", "forward_confidence", "vol_confidence"])
def test_short_options_in_doubt_are_charged_by_their_own_feeds(feed: str) -> None:
    found = result(case(option("call", 3000.0, -2.0), option("put", 1500.0, 5.0), perp_size=1.0, **{feed: 0.5}))
    assert found["oracle_options"] == pytest.approx(0.5 * 2.0 * 2000.0)


def test_a_perpetual_in_doubt_and_the_rate_feed_leave_options_alone() -> None:
    doubted = case(option("call", 3000.0, -2.0), perp_size=1.0, perp_confidence=0.1)
    assert result(doubted)["oracle_options"] == 0.0
    tables = sm_books.tables_of(doubted)
    tables["forwards"] = tables["forwards"].with_columns(rate_confidence=pl.lit(0.1), rate=pl.lit(0.5))
    run = margin(read_book(**tables), SM, as_of=sm_books.AS_OF)
    assert run.accounts["initial_excess"][0] == result(doubted)["initial_excess"]


def test_confidence_at_the_threshold_is_enough() -> None:
    assert result(case(option("call", 3000.0, -2.0), perp_size=1.0, spot_confidence=0.55))["oracle_options"] == 0.0


def test_a_token_is_worth_less_cash_where_cash_is_worth_more_while_its_margin_stays() -> None:
    found = result(case(base_amount=10.0, stable=1.25, cash=100.0))
    assert found["equity"] == pytest.approx(100.0 + 10.0 * 2000.0 / 1.25)
    assert found["maintenance_excess"] == pytest.approx(100.0 + 0.8 * 20_000.0)
    assert found["initial_excess"] == pytest.approx(100.0 + 0.8 * 0.9375 * 20_000.0)


def test_a_token_in_doubt_is_charged_only_where_it_counts_towards_initial_margin() -> None:
    doubted = case(base_amount=10.0, spot_confidence=0.4)
    assert result(doubted)["oracle_token"] == pytest.approx(0.6 * 20_000.0)
    none = result(doubted, token_scale=0.0)
    assert none["oracle_token"] == 0.0
    assert none["initial_excess"] == 0.0
    assert none["maintenance_excess"] == pytest.approx(0.8 * 20_000.0)


def test_a_lost_peg_costs_perpetuals_and_short_options_but_not_what_is_owned() -> None:
    held = (option("call", 3000.0, -2.0), option("put", 1500.0, 5.0))
    found = result(case(*held, perp_size=-1.0, base_amount=7.0, stable=0.95))
    assert found["depeg"] == pytest.approx(2.0 * 0.04 * 2000.0 * (1.0 + 2.0))


def test_a_token_without_contracts_is_a_market_of_its_own() -> None:
    tables = sm_books.tables_of(case(cash=100.0))
    tables["prices"] = pl.concat(
        [
            tables["prices"],
            pl.DataFrame({"asset": ["wstETH", "JUNK"], "price": [2400.0, 9.0], "confidence": [1.0, 1.0]}),
        ]
    )
    held = pl.DataFrame({"account_id": ["case"] * 2, "asset": ["wstETH", "JUNK"], "amount": [2.0, 50.0]})
    tables["balances"] = pl.concat([tables["balances"].select(held.columns), held])
    run = margin(read_book(**tables), "derive-sm", as_of=sm_books.AS_OF)
    account = run.accounts.row(0, named=True)
    assert account["equity"] == pytest.approx(100.0 + 4800.0 + 450.0)
    assert account["maintenance_excess"] == pytest.approx(100.0 + 0.8 * 4800.0)
    assert account["initial_excess"] == pytest.approx(100.0 + 0.8 * 0.9 * 4800.0)
    assert run.units["unit"].to_list() == ["JUNK", "wstETH"]


def test_cash_due_on_a_perpetual_of_size_zero_does_not_count() -> None:
    assert result(case(perp_unsettled_cash=70.0))["equity"] == 0.0
    assert result(case(perp_size=1.0, perp_unsettled_cash=70.0))["equity"] == 70.0


@pytest.mark.parametrize(
    ("options", "initial"),
    [
        pytest.param([("call", 2000.0, -1.0), ("call", 2100.0, 1.0)], 100.0, id="a call spread at most its width"),
        pytest.param([("put", 2000.0, -1.0), ("put", 1990.0, 1.0)], 10.0, id="a put spread likewise"),
        pytest.param([("call", 2000.0, -1.0), ("put", 2000.0, 1.0)], 300.0, id="what puts gain below helps no call"),
        pytest.param([("call", 0.0, 1.0), ("call", 2000.0, -1.0)], 0.0, id="a call at zero covers a call"),
        pytest.param([("put", 100.0, -1.0)], 100.0, id="a put owes its strike at most"),
        pytest.param(
            [("put", 1000.0, 1.0), ("put", 1500.0, -1.0), ("call", 2000.0, -1.0), ("call", 2100.0, 1.0)],
            500.0,
            id="two spreads at most the wider one",
        ),
    ],
)
def test_an_expiry_asks_for_the_less_of_isolated_margin_and_worst_payoff(
    options: list[tuple[str, float, float]], initial: float
) -> None:
    of = case(*(option(*o) for o in options))
    value = sum(q * max(SPOT - k if kind == "call" else k - SPOT, 0.0) for kind, k, q in options)
    assert result(of)["initial_excess"] == pytest.approx(-initial, abs=1e-9)
    assert result(of)["equity"] == pytest.approx(value)


def test_strikes_of_different_expiries_never_cover_each_other() -> None:
    spread = case(option("call", 2000.0, -1.0), option("call", 2100.0, 1.0))
    late = spread["markets"][0]
    late["expiries"].append(late["expiries"][0] | {"seconds_to_expiry": 2 * SECONDS})
    late["positions"]["options"][1]["seconds_to_expiry"] = 2 * SECONDS
    assert result(spread)["initial_excess"] == pytest.approx(-300.0)


@pytest.mark.slow
def test_a_digital_option_has_no_rule_and_its_holders_are_unknown() -> None:
    run = margin(Book(**with_digitals()), "derive-sm", as_of=AS_OF)
    status = dict(run.accounts.select("account_id", pl.col("status").cast(pl.String)).unique("account_id").iter_rows())
    assert {status["alice"], status["bob"], status["carol"]} == {"unknown"}
    assert status["dave"] != "unknown"


def test_who_only_owns_options_and_tokens_that_count_nothing_is_exactly_at_zero() -> None:
    of = case(option("call", 1900.0, 3.3, vol=0.7), option("put", 2100.0, 0.1, vol=0.9), base_amount=3.7)
    run = run_of(of, token_share=0.0)
    account = run.accounts.row(0, named=True)
    assert account["initial_excess"] == account["maintenance_excess"] == account["maintenance_margin"] == 0.0
    assert (account["status"], account["health"]) == ("healthy", None)
    assert account["equity"] == pytest.approx(account["option_value"] + 7400.0)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"components.options_initial.level": "strike"}, id="at another level"),
        pytest.param({"components.options_initial.legs": ["call", "put"]}, id="of some of the options"),
        pytest.param({"components.depeg.amount": "lowest_payoff"}, id="in the amount"),
    ],
)
def test_the_lowest_payoff_is_a_name_of_all_options_of_an_expiry_only(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"unknown name 'lowest_payoff'"):
        sm_books.load_model(SM).replace(change)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, -0.3])
def test_a_negative_rate_discounts_a_pm1_expiry_as_zero_does(rate: float) -> None:
    book = tiny_book()
    book["forwards"] = book["forwards"].with_columns(rate=pl.lit(rate))
    book["positions"] = book["positions"].filter(pl.col("instrument_id") == "ETH-20260626-2500-C")
    still = {"scenarios.grid": [{"spot": 1.0}], "scenarios.forward": [{"spot": 1.0}]}
    account = margin(Book(**book), sm_books.load_model("derive-pm1").replace(still), as_of=AS_OF).units
    row = account.filter(pl.col("unit") == "ETH").row(0, named=True)
    years = 113 / 365
    assert row["scan"] == pytest.approx(row["option_value"] * (1 - 0.95 * math.exp(-years * 0.12)), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("quantity", "doubted"), [(0.0, 0.0), (-1.5, 2.0 + 1.5)], ids=["no perpetual", "one held"])
def test_a_pm1_base_is_in_doubt_with_the_perpetual_that_is_held(quantity: float, doubted: float) -> None:
    book = tiny_book()
    book["marks"] = book["marks"].with_columns(
        confidence=pl.when(pl.col("instrument_id") == "BTC-PERP").then(0.3).otherwise(1.0)
    )
    book["positions"] = book["positions"].filter(pl.col("instrument_id") == "BTC-PERP").head(1)
    book = with_cell(book, "positions", row=0, column="quantity", value=quantity)
    units = margin(Book(**book), "derive-pm1", as_of=AS_OF).units.filter(
        pl.col("account_id").cast(pl.String) == "alice"
    )
    assert units["oracle"].to_list() == pytest.approx([0.7 * doubted * 68_000.0])
