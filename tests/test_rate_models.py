"""Venues whose margin is rates on positions: figures that can be checked by hand, and what holds of every book."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from gpumargin.catalogue import load_model
from gpumargin.errors import InputError
from gpumargin.run import margin
from gpumargin.tables import read_book
from tests.reference.venue_books import AS_OF, Held, book_of, result_of
from tests.sampled import rest_slow

pytestmark = pytest.mark.usefixtures("one_shape")

MODELS = (
    "binance-pm", "deribit-sm", "drift-v2", "dydx-v4", "hyperliquid", "paradex-cross", "synthetix-v3", "vega",
)  # fmt: skip
FAST = ("hyperliquid",)
DEPOSITS = [{"asset": "USDC", "total_deposits": 0.0}]
CALL = {"strike": 110_000.0, "option_type": "call"}
IN_COIN = CALL | {"settlement": "BTC", "quote": "USD", "inverse": True}

# Model, contracts, more of the book, and what each column of the account must say.
BY_HAND: dict[str, tuple[str, list[Held], dict[str, Any], dict[str, float]]] = {
    "brackets are marginal: 150 M at 1.25 %, 50 M at 2.5 %": (
        "hyperliquid", [Held(unit="BTC", quantity=2_000, mark=100_000)], {},
        {"maintenance_margin": 3_125_000, "initial_margin": 6_250_000},
    ),
    "leverage that the account chose raises the initial margin alone": (
        "hyperliquid", [Held(unit="BTC", quantity=-1, mark=100_000)], {"settings": [("BTC", "leverage", 5.0)]},
        {"maintenance_margin": 1_250, "initial_margin": 20_000},
    ),
    "tiers of a market whose rate does not scale": (
        "dydx-v4", [Held(unit="BTC", quantity=1, mark=100_000, market={"open_interest": 1e9})], {},
        {"maintenance_margin": 1_200, "initial_margin": 2_000},
    ),
    "half way between the caps the initial rate is half way to 1": (
        "dydx-v4", [Held(unit="SOL", quantity=-10, mark=100, market={"open_interest": 350_000})], {},
        {"maintenance_margin": 50, "initial_margin": 550},
    ),
    "a rate of one's own holds where it is higher": (
        "dydx-v4", [Held(unit="SOL", quantity=-10, mark=100, market={"open_interest": 350_000})],
        {"settings": [(None, "own_imf", 0.2), ("SOL", "own_imf", 0.7)]},
        {"maintenance_margin": 50, "initial_margin": 700},
    ),
    "rate by share of the skew scale, 5 / 100 * 2 + 1 %, and a fixed minimum": (
        "synthetix-v3", [Held(unit="BTC", quantity=5, mark=20_000)], {"balances": {"USD": 0}},
        {"maintenance_margin": 6_500, "initial_margin": 12_000},
    ),
    "collateral is worth what its sale would bring: 50 of a scale of 1000 lose 5 %": (
        "synthetix-v3", [], {"balances": {"ETH": 50}, "prices": {"ETH": 2_000}},
        {"initial_collateral_value": 95_000, "equity": 100_000},
    ),
    "the long side 2 * 35 + 3 * 10, the short side 20 * 10": (
        "vega",
        [Held(kind="future", quantity=2, mark=100, orders=[("buy", 3, 99), ("sell", 12, 101), ("sell", 8, 102)])], {},
        {"maintenance_margin": 200, "search_margin": 300, "initial_margin": 400, "release_margin": 600},
    ),
    "funding that a long is going to pay: half of 8 hours at 0.01 % of 100": (
        "vega", [Held(quantity=10, mark=100, market={"funding_rate": 1e-4})], {},
        {"maintenance_margin": 350.4, "initial_margin": 700.8},
    ),
    "orders that close a capped future need nothing": (
        "vega",
        [Held(kind="future", quantity=10, mark=40, entry=30, terms={"price_cap": 100}, orders=[("sell", 10, 60)])], {},
        {"maintenance_margin": 300, "initial_margin": 300, "equity": 100},
    ),
    "the larger side of position and orders; a bid above the mark has lost the difference": (
        "paradex-cross", [Held(unit="BTC", quantity=-1, mark=90_000, orders=[("buy", 3, 90_100), ("sell", 1, 95_000)])],
        {}, {"maintenance_margin": 900 + 45, "initial_margin": 2 * 1_800 + 300 + 90},
    ),
    "a long option asks for its price up to a share of spot": (
        "paradex-cross",
        [Held(unit="BTC", kind="option", quantity=2, mark=15_000, spot=100_000, terms=CALL, market={"mark_iv": 0.5})],
        {}, {"maintenance_margin": 20_000, "initial_margin": 30_000},
    ),
    "a cheap put is capped by its strike": (
        "paradex-cross",
        [Held(unit="BTC", kind="option", quantity=-1, mark=1, spot=100_000,
              terms={"strike": 10_000.0, "option_type": "put"}, market={"mark_iv": 0.5})],
        {}, {"maintenance_margin": 2_500, "initial_margin": 5_000},
    ),
    "2.125 % of 25 coins, and 1.125 %": (
        "deribit-sm", [Held(unit="BTC", quantity=-25, mark=100_100, spot=100_000)], {},
        {"maintenance_margin": 28_125, "initial_margin": 53_125},
    ),
    "a short call 10 % out of the money asks for 10 % and its mark, a long one for nothing": (
        "deribit-sm",
        [Held(unit="BTC", kind="option", quantity=-2, mark=1_500, spot=100_000, terms=CALL, market={"mark_iv": 0.5}),
         Held(unit="BTC", name="long", kind="option", quantity=3, mark=1_500, spot=100_000, terms=CALL,
              market={"mark_iv": 0.5})],
        {}, {"maintenance_margin": 18_000, "initial_margin": 23_000, "initial_balance": 0, "option_value": 1_500},
    ),
    "the same call paid in coin": (
        "deribit-sm",
        [Held(unit="BTC", kind="option", quantity=-2, mark=0.015, spot=100_000, terms=IN_COIN,
              market={"mark_iv": 0.5})],
        {"prices": {"BTC": 100_000}}, {"maintenance_margin": 18_000, "initial_margin": 23_000},
    ),
    "50,000 at 0.4 % and 150,000 at 0.5 %; the loss is paid before the haircut of other assets": (
        "binance-pm", [Held(unit="BTC", quantity=2, mark=100_000, entry=110_000)],
        {"balances": {"BTC": 1}, "money": "USDT"},
        {"maintenance_margin": 950, "initial_margin": 2_000, "initial_balance": 75_000, "equity": 80_000},
    ),
    "a loan asks for a tenth of its value": (
        "binance-pm", [], {"balances": {"USDT": -5_000, "BTC": 1}, "prices": {"BTC": 100_000, "USDT": 1}},
        {"maintenance_margin": 500, "maintenance_balance": 90_000},
    ),
    "a gain counts up to 100 at first": (
        "drift-v2", [Held(unit="BTC", quantity=1, mark=100_000, entry=99_000)], {"assets": DEPOSITS},
        {"maintenance_margin": 5_000, "initial_margin": 10_000, "initial_balance": 100, "maintenance_balance": 1_000},
    ),
    "funds in a bid count as the worse of 1 BTC that fills a debt of 1 (750) and 500 USDC (400)": (
        "mango-v4", [Held(unit="BTC", kind="spot", spot=500, orders=[("buy", 1, 500)])],
        {"balances": {"USDC": 1_000, "BTC": -1},
         "assets": [{"asset": a, "total_deposits": 0.0, "total_borrows": 0.0} for a in ("BTC", "USDC")]},
        {"initial_margin": 750, "initial_collateral_value": 1_200, "maintenance_margin": 650},
    ),
    "a bid on spot at the higher price, the tokens it brings at the lower": (
        "drift-v2", [Held(unit="SOL", kind="spot", spot=100, orders=[("buy", 10, 90)])],
        {"balances": {"USDC": 2_000}, "assets": DEPOSITS, "twaps": {"SOL": 110}},
        {"initial_margin": 1_100.01, "initial_collateral_value": 2_000 + 800, "maintenance_margin": 1_000.01},
    ),
    "orders of a perpetual count on their worse side, and a cent each": (
        "drift-v2", [Held(unit="BTC", quantity=1, mark=100_000, orders=[("buy", 1, 1.0), ("sell", 3, 1.0)])],
        {"assets": DEPOSITS}, {"maintenance_margin": 10_000.02, "initial_margin": 20_000.02},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=i, marks=[] if c[0] in FAST else pytest.mark.slow) for i, c in BY_HAND.items()]
)
def test_the_account_says_what_a_hand_computes(case: tuple[str, list[Held], dict[str, Any], dict[str, float]]) -> None:
    model, held, more, expected = case
    account = result_of(book_of(held, **more), load_model(model)).account
    assert {name: account[name] for name in expected} == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_a_debt_without_positions_is_not_liquidated_by_dydx_but_bankrupt() -> None:
    held = [Held(unit="BTC", quantity=1, mark=100_000, market={"open_interest": 0.0})]
    for cash, positions, status in ((1_199, held, "liquidatable"), (1_200, held, "margin_call"), (-1, [], "bankrupt")):
        book = book_of(positions, balances={"USDC": cash})
        assert result_of(book, load_model("dydx-v4")).account["status"] == status


def test_numbers_that_a_model_does_not_let_accounts_set_are_refused() -> None:
    book = book_of([Held(quantity=1, mark=1)], settings=[("X", "own_imf", 0.5)])
    with pytest.raises(InputError, match="GM112"):
        result_of(book, load_model("hyperliquid"))


UNITS = ("BTC", "ETH", "SOL", "DOGE")


def _random_book(seed: int, accounts: int) -> dict[str, pl.DataFrame]:
    """Accounts in pairs with different units, and for each pair one that holds what both hold; the last is empty."""
    random = np.random.default_rng(seed)
    marks = dict(zip(UNITS, random.uniform(1, 1_000, len(UNITS)), strict=True))
    market = {"open_interest": 1e4, "funding_rate": 1e-5}
    held = [Held(unit=unit, mark=mark, quantity=1, market=market) for unit, mark in marks.items()]
    tables = book_of(held, balances={"USDC": 0.0}, assets=DEPOSITS)
    rows = []
    for pair in range(accounts):
        sizes = dict(
            zip(UNITS, 10 ** random.uniform(-2, 6, len(UNITS)) * random.choice([-1, 1], len(UNITS)), strict=True)
        )
        for part, units in (("a", UNITS[:2]), ("b", UNITS[2:]), ("whole", UNITS)):
            rows += [(f"{pair}-{part}", f"{unit}-perpetual", float(sizes[unit])) for unit in units]
    schema = {"account_id": pl.String, "instrument_id": pl.String, "quantity": pl.Float64}
    return tables | {"positions": pl.DataFrame(rows, schema=schema, orient="row")}


@pytest.mark.parametrize("name", rest_slow(MODELS, FAST))
def test_books_without_common_units_add_up_an_empty_one_needs_nothing_and_initial_is_at_least_maintenance(
    name: str,
) -> None:
    run = margin(read_book(**_random_book(7, 12)), load_model(name), as_of=AS_OF, device="cpu")
    rows = {row["account_id"]: row for row in run.accounts.iter_rows(named=True)}
    assert rows["a"]["initial_margin"] == rows["a"]["maintenance_margin"] == 0
    assert all(row["initial_margin"] >= row["maintenance_margin"] >= 0 for row in rows.values())
    for pair in range(12):
        for column in ("initial_margin", "maintenance_margin"):
            parts = rows[f"{pair}-a"][column] + rows[f"{pair}-b"][column]
            assert rows[f"{pair}-whole"][column] == pytest.approx(parts, rel=1e-12)


WAYS = (("SOL-spot", "buy"), ("SOL-spot", "sell"), ("ETH-perpetual", "sell"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["drift-v2", "mango-v4", "vega"])
def test_an_account_has_the_same_bits_alone_and_among_others(name: str) -> None:
    """Orders and balances included: one account makes other buckets than many."""
    tables = _random_book(11, 12)
    spot = pl.DataFrame([{"instrument_id": "SOL-spot", "kind": "spot", "underlying": "SOL", "settlement": "USDC",
                          "quote": "USDC", "contract_size": 1.0}])  # fmt: skip
    ids = tables["positions"]["account_id"].unique().sort().to_list()
    orders = [
        (f"{place}", account, instrument, side, 10.0 + len(account) + 0.1 * i, 7.0 + 0.3 * i)
        for i, account in enumerate(ids)
        for place, (instrument, side) in enumerate(WAYS)
    ]
    columns = ("order_id", "account_id", "instrument_id", "side", "quantity", "price")
    balances = [(account, asset, 1e5 / (i + 3)) for i, account in enumerate(ids) for asset in UNITS[: i % 4]]
    book = tables | {
        "instruments": pl.concat([tables["instruments"], spot], how="diagonal"),
        "orders": pl.DataFrame(orders, schema=columns, orient="row"),
        "balances": pl.DataFrame(balances, schema=("account_id", "asset", "amount"), orient="row"),
        "assets": pl.DataFrame([{"asset": a, "total_deposits": 1e6, "total_borrows": 1e5} for a in (*UNITS, "USDC")]),
    }
    together = margin(read_book(**book), load_model(name), as_of=AS_OF, device="cpu").accounts
    for account in (ids[0], ids[-1]):
        own = {t: book[t].filter(pl.col("account_id") == account) for t in ("positions", "orders", "balances")}
        run = margin(read_book(**(book | own)), load_model(name), as_of=AS_OF, device="cpu")
        run.explain(account)
        assert run.accounts.rows() == together.filter(pl.col("account_id") == account).rows()
