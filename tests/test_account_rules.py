"""Claims about what a model file may say of balances and accounts, each run from end to end and explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from gpumargin.catalogue import load_model
from gpumargin.errors import InputError
from gpumargin.explain import explain_account
from gpumargin.run import margin
from gpumargin.tables import Book, read_book

if TYPE_CHECKING:
    from pathlib import Path

    from gpumargin.runs import Run

pytestmark = pytest.mark.usefixtures("one_shape")

HEAD = """
name = "rules"
effective = 2026-01-01
title = "Rules"
source = "invented for this test"
accounting_asset = "USDC"
kinds = ["perpetual"]
provenance = { default = "estimated" }
"""
SIZE = """
[components.size]
kind = "charge"
legs = ["perpetual"]
gross = { size = "size" }
amount = "0.1 * spot * size"
[margin]
maintenance = "size * 0.5"
initial = "size"
"""
PLAIN = "[collateral]\nassets = { default = 0.9, USDC = 1 }\n"
AS_OF = "2026-03-05T08:00:00Z"
PERPETUALS = {
    "BTC-USDC": ("BTC", "USDC", 60_000.0),
    "BTC-USDT": ("BTC", "USDT", 60_000.0),
    "ETH-USDC": ("ETH", "USDC", 2_000.0),
}


def book_of(
    balances: list[tuple[str, str, float]], positions: list[tuple[str, str, float, float]] = (), **tables: pl.DataFrame
) -> Book:
    """Balances (account, asset, amount) and perpetuals (account, instrument, quantity, entry)."""
    ids = list(PERPETUALS)
    found: dict[str, Any] = {
        "instruments": pl.DataFrame(
            {
                "instrument_id": ids,
                "kind": ["perpetual"] * len(ids),
                "underlying": [PERPETUALS[i][0] for i in ids],
                "settlement": [PERPETUALS[i][1] for i in ids],
                "quote": ["USDC"] * len(ids),
            }
        ),
        "marks": pl.DataFrame({"instrument_id": ids, "mark_price": [PERPETUALS[i][2] for i in ids]}),
        "forwards": pl.DataFrame(
            schema={"underlying": pl.String, "expiry": pl.Datetime("us", "UTC"), "forward": pl.Float64}
        ),
        "prices": pl.DataFrame(
            {
                "asset": ["USDC", "USDT", "BTC", "ETH"],
                "price": [1.0, 0.5, 60_000.0, 2_000.0],
                "twap": [0.9, 0.5, 66_000.0, 1_900.0],
                "confidence": [1.0, 1.0, 0.8, 0.6],
            }
        ),
        "positions": pl.DataFrame(
            list(positions),
            {"account_id": pl.String, "instrument_id": pl.String, "quantity": pl.Float64, "entry_price": pl.Float64},
            orient="row",
        ),
        "balances": pl.DataFrame(
            balances, {"account_id": pl.String, "asset": pl.String, "amount": pl.Float64}, orient="row"
        ),
    }
    return read_book(**(found | tables))


def run_of(folder: Path, text: str, book: Book) -> Run:
    """The run of a model file; the explanation of every account checks itself against it."""
    path = folder / "rules.toml"
    path.write_text(HEAD + text)
    run = margin(book, load_model(str(path)), as_of=AS_OF, device="cpu")
    for account in run.accounts["account_id"].cast(pl.String):
        explain_account(run, account)
    return run


def row_of(run: Run, account: str = "a") -> dict[str, Any]:
    return run.accounts.filter(pl.col("account_id").cast(pl.String) == account).row(0, named=True)


@pytest.mark.slow
def test_expressions_of_a_balance_replace_shares(tmp_path: Path) -> None:
    rule = """
[collateral]
asset = "min(amount * min(price, twap), value) * min(weight, 1.1 / (1 + imf * sqrt(abs(amount))))"
liability = "amount * max(price, twap) * max(weight, 0.8 * weight + imf * sqrt(abs(amount)))"
numbers = { weight = { default = 0.9, USDC = 1 }, imf = { default = 0, BTC = 0.5 } }
"""
    row = row_of(run_of(tmp_path, SIZE + rule, book_of([("a", "USDC", 1e6), ("a", "BTC", 4.0), ("a", "ETH", -10.0)])))
    assert row["initial_collateral_value"] == pytest.approx(1e6 * 0.9 + 240_000 * 1.1 / 2 - 20_000 * 0.9)
    assert row["equity"] == 1e6 + 240_000 - 20_000


@pytest.mark.slow
def test_brackets_by_asset_count_slices_of_a_balance(tmp_path: Path) -> None:
    rule = """
[collateral]
asset = "price * marginal(amount, tiers)"
tables = { tiers = { default = [[inf, 1]], BTC = [[10, 0.98], [20, 0.95], [inf, 0]] } }
"""
    row = row_of(run_of(tmp_path, SIZE + rule, book_of([("a", "BTC", 25.0), ("a", "USDC", 3.0)])))
    assert row["maintenance_collateral_value"] == pytest.approx(60_000 * (9.8 + 9.5) + 3)


@pytest.mark.slow
@pytest.mark.parametrize(("emode", "weight"), [("stable", 0.97), (None, 0.9)])
def test_a_category_overrides_numbers_of_its_assets(tmp_path: Path, emode: str | None, weight: float) -> None:
    rule = """
[categories.stable]
assets = ["USDT"]
numbers = { initial = { assets = 0.97 } }
"""
    accounts = pl.DataFrame({"account_id": ["a"], "emode": [emode]}, {"account_id": pl.String, "emode": pl.String})
    book = book_of([("a", "USDT", 100.0), ("a", "ETH", 1.0), ("b", "USDT", 100.0)], accounts=accounts)
    run = run_of(tmp_path, SIZE + PLAIN + rule, book)
    assert row_of(run)["initial_collateral_value"] == pytest.approx(50 * weight + 1_800)
    assert row_of(run)["maintenance_collateral_value"] == pytest.approx(50 * 0.9 + 1_800)
    assert row_of(run, "b")["initial_collateral_value"] == pytest.approx(45)


@pytest.mark.slow
def test_a_category_may_have_a_price_of_its_own(tmp_path: Path) -> None:
    rule = """
[collateral]
asset = "amount * where(own_price > 0, emode_price, collateral_price) * 0.9"
numbers = { own_price = 0 }
[categories.stable]
assets = ["USDT", "ETH"]
numbers = { initial = { own_price = 1 }, maintenance = { own_price = 1 } }
"""
    accounts = pl.DataFrame({"account_id": ["a"], "emode": ["stable"]})
    plain = book_of([("a", "USDT", 100.0), ("a", "ETH", 1.0), ("b", "USDT", 100.0)], accounts=accounts)
    prices = plain.frame("prices").with_columns(emode_price=pl.Series([None, 0.75, None, None], dtype=pl.Float64))
    book = read_book(**{name: plain.frame(name) for name in plain.tables} | {"prices": prices})
    run = run_of(tmp_path, SIZE + rule, book)
    assert row_of(run)["initial_collateral_value"] == pytest.approx(0.9 * (75 + 2_000))
    assert row_of(run, "b")["initial_collateral_value"] == pytest.approx(45)


def test_a_category_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    rule = '[categories.stable]\nassets = ["USDT"]\nnumbers = { initial = { assets = 0.97 } }\n'
    accounts = pl.DataFrame({"account_id": ["a"], "emode": ["other"]})
    with pytest.raises(InputError, match="other"):
        run_of(tmp_path, SIZE + PLAIN + rule, book_of([("a", "USDT", 100.0)], accounts=accounts))


def test_debt_may_be_part_of_the_requirement(tmp_path: Path) -> None:
    text = 'debt = "requirement"\n' + SIZE + PLAIN + "liability = 1.2\n"
    row = row_of(run_of(tmp_path, text, book_of([("a", "USDC", 5_000.0), ("a", "ETH", -2.0)])))
    assert row["initial_margin"] == pytest.approx(4_800)
    assert row["initial_balance"] == row["initial_collateral_value"] == 5_000
    assert row["health"] == pytest.approx(5_000 / 4_800)
    assert row["equity"] == 1_000


def test_a_part_of_profit_counts_and_all_of_a_loss(tmp_path: Path) -> None:
    text = SIZE + PLAIN + '[counted]\ninitial = "min(max(unrealised_pnl, 0) * share, cap) + min(unrealised_pnl, 0)"\n'
    text += "[parameters]\nshare = { default = 0.5, ETH = 0.25 }\ncap = 800\n"
    held = [("a", "BTC-USDC", 1.0, 58_000.0), ("a", "ETH-USDC", 1.0, 1_900.0), ("b", "BTC-USDC", 1.0, 61_000.0)]
    run = run_of(tmp_path, text, book_of([("a", "USDC", 10.0)], held))
    assert row_of(run)["initial_balance"] == pytest.approx(10 + 800 + 25)
    assert row_of(run)["maintenance_balance"] == pytest.approx(10 + 2_100)
    assert row_of(run, "b")["initial_balance"] == pytest.approx(-1_000)


@pytest.mark.slow
def test_profit_joins_the_balance_of_its_settlement_asset_before_weights(tmp_path: Path) -> None:
    text = "pnl_settles = true\n" + SIZE + "[collateral]\nassets = { default = 0.9, USDT = 0.8 }\nliability = 1.1\n"
    held = [("a", "BTC-USDC", 1.0, 58_000.0), ("a", "BTC-USDT", 1.0, 61_000.0), ("b", "ETH-USDC", -1.0, 1_500.0)]
    run = run_of(tmp_path, text, book_of([("a", "USDC", 10.0), ("a", "USDT", 500.0), ("b", "ETH", 1.0)], held))
    assert row_of(run)["initial_balance"] == pytest.approx(0.9 * 2_010 - 1.1 * (1_000 - 500) * 0.5)
    assert row_of(run)["equity"] == pytest.approx(10 + 250 + 2_000 - 500)
    assert row_of(run, "b")["initial_balance"] == pytest.approx(1_800 - 1.1 * 500)


@pytest.mark.slow
def test_what_settles_may_be_an_expression_with_components(tmp_path: Path) -> None:
    text = "pnl_settles = true\n" + SIZE.replace('initial = "size"', 'initial = "size * 0"')
    text += "[parameters]\noverall = 0.95\n[collateral]\nassets = 0.8\nliability = 1.2\n"
    text += '[counted]\ninitial = "where(unrealised_pnl > size, overall, 1) * (unrealised_pnl - size)"\n'
    held = [("a", "ETH-USDC", -1.0, 2_400.0), ("b", "ETH-USDC", 1.0, 2_100.0)]
    run = run_of(tmp_path, text, book_of([("a", "USDC", 0.0), ("b", "USDC", 50.0)], held))
    assert row_of(run)["initial_excess"] == pytest.approx(0.8 * 0.95 * 200)
    assert row_of(run, "b")["initial_excess"] == pytest.approx(-1.2 * 250)


@pytest.mark.slow
def test_account_expressions_add_charges_on_balances(tmp_path: Path) -> None:
    text = (
        SIZE
        + PLAIN
        + """
[parameters]
im_factor = 1.3
[balances.borrow]
each = { borrowed = "marginal(max(-value, 0), tiers)" }
tables = { tiers = { default = [[1000, 0.02], [inf, 0.05]] } }
[balances.oracle]
each = { gap = "max(value, 0) * where(min(confidence, spot_confidence) < 0.7, 1 - confidence, 0)" }
amount = "gap * im_factor + borrow * 0"
[account]
maintenance = "units + borrow"
initial = "im_factor * maintenance + oracle"
"""
    )
    held = [("a", "BTC-USDC", 1.0, 60_000.0)]
    book = book_of([("a", "USDC", 1e5), ("a", "ETH", -1.0), ("b", "ETH", 3.0)], held)
    run = run_of(tmp_path, text, book)
    assert row_of(run)["borrow"] == pytest.approx(20 + 50)
    assert row_of(run)["oracle"] == 0
    assert row_of(run)["maintenance_margin"] == pytest.approx(3_000 + 70)
    assert row_of(run)["initial_margin"] == pytest.approx(1.3 * 3_070)
    assert row_of(run, "b")["oracle"] == pytest.approx(0.4 * 6_000 * 1.3)


@pytest.mark.slow
@pytest.mark.parametrize(("condition", "status"), [("<", "healthy"), ("<=", "liquidatable")])
def test_a_status_has_the_condition_that_the_file_gives(tmp_path: Path, condition: str, status: str) -> None:
    text = SIZE + PLAIN + f'[status]\nliquidatable = "maintenance_margin > 0 and maintenance_excess {condition} 0"\n'
    held = [("a", "ETH-USDC", 1.0, 2_000.0)]
    run = run_of(tmp_path, text, book_of([("a", "USDC", 100.0), ("b", "USDC", 0.0)], held))
    assert row_of(run)["status"] == (status if status != "healthy" else "margin_call")
    assert row_of(run, "b")["status"] == "healthy"


def test_a_column_that_a_rule_names_must_be_in_the_book(tmp_path: Path) -> None:
    rule = '[collateral]\nasset = "value * min(1, 1000 / total_deposits)"\n'
    with pytest.raises(InputError, match=r"assets\.total_deposits"):
        run_of(tmp_path, SIZE + rule, book_of([("a", "USDC", 1.0)]))
    assets = pl.DataFrame({"asset": ["USDC"], "total_deposits": [2_000.0]})
    row = row_of(run_of(tmp_path, SIZE + rule, book_of([("a", "USDC", 10.0)], assets=assets)))
    assert row["initial_balance"] == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[collateral]\nliability = 1\n", "either assets"),
        ('[collateral]\nasset = "value * weigth"\n', "unknown name 'weigth'"),
        (
            '[collateral]\nasset = "value"\nnumbers = { x = 1 }\n',
            "collateral.numbers.x: named by none of asset, liability",
        ),
        ('[collateral]\nasset = "value"\nnumbers = { amount = 1 }\n', "name two things"),
        ('[collateral]\nasset = "marginal(value, t)"\ntables = { t = { BTC = [[inf, 1]] } }\n', "needs a 'default'"),
        (PLAIN + '[counted]\nother = "unrealised_pnl"\n', "counted.other: no margin type"),
        (PLAIN + '[counted]\ninitial = "unrealised"\n', "counted.initial"),
        (PLAIN + '[account]\ninitial = "units + borrow"\n', "account.initial"),
        (PLAIN + '[status]\nliquidatable = "maintenance_excess"\n', "status.liquidatable"),
        (PLAIN + '[balances.lent]\neach = { all = "value" }\n', "neither by account nor by status"),
        (PLAIN + "[categories.x]\nassets = []\nnumbers = { initial = { weight = 1 } }\n", "no numbers of collateral"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        run_of(tmp_path, SIZE + text, book_of([("a", "USDC", 1.0)]))


def test_required_debt_must_be_in_the_account_expression(tmp_path: Path) -> None:
    text = 'debt = "requirement"\n' + SIZE + PLAIN + '[account]\ninitial = "units"\n'
    with pytest.raises(Exception, match="does not name debt"):
        run_of(tmp_path, text, book_of([("a", "USDC", 1.0)]))
