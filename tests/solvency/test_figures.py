"""Claims about the figures of a snapshot: recomputed the slow way, to the last unit."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from gpumargin.catalogue import load_model
from gpumargin.errors import InternalError, ResourceError
from gpumargin.prepare import Options
from gpumargin.run import margin_to_folder
from gpumargin.runs import run_table
from gpumargin.solvency.concentration import herfindahl
from gpumargin.solvency.cover import deficits_by_group, survived
from gpumargin.solvency.default_fund import two_largest
from gpumargin.solvency.snapshot import write_snapshot
from gpumargin.tables import read_book
from tests.books import tiny_book, with_cell
from tests.solvency.conftest import FUNDS, MASTER, snapshot_of

if TYPE_CHECKING:
    from tests.solvency.conftest import Snapshot

USDC = 10**6


def figures_of(snapshot: Snapshot) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((snapshot.run / "solvency" / "solvency.json").read_text("utf-8"))
    return found


def gains(snapshot: Snapshot) -> dict[tuple[str, str], list[float]]:
    """P&L of every account in every scenario, leg by leg."""
    instruments = run_table(snapshot.run, "instruments").collect()
    pnl = {str(i): row for i, row in instruments.select("instrument_id", "scenario_pnl").iter_rows()}
    zeros = [0.0] * len(next(iter(pnl.values())))
    found: dict[tuple[str, str], list[float]] = {}
    held = [("positions", "instrument_id", "quantity"), ("balances", "asset", "amount")]
    for table, key, amount in held:
        for account, pool, name, size in (
            snapshot.book.frame(table).select("account_id", "pool", key, pl.col(amount).cast(pl.Float64)).iter_rows()
        ):
            own = found.setdefault((account, pool), list(zeros))
            found[account, pool] = [a + size * b for a, b in zip(own, pnl.get(name, zeros), strict=True)]
    return found


def test_every_scenario_total_is_what_adding_up_accounts_gives(snapshot: Snapshot) -> None:
    accounts = run_table(snapshot.run, "accounts").collect()
    moved, totals = gains(snapshot), snapshot.table("scenario_totals")
    assert totals["column"].to_list() == list(range(totals.height))
    fund = math.floor(0.05 * _price(snapshot, "BTC") / _price(snapshot, "USDC") * USDC)
    for row in totals.iter_rows(named=True):
        own = [(a, math.floor(moved[a["account_id"], a["pool"]][row["column"]] * USDC)) for a in _rows(accounts)]
        after = [a["equity_minor"] + gain for a, gain in own]
        deficits = sorted((-equity for equity in after if equity < 0), reverse=True)
        turned = [
            a for a, _ in own
            if a["maintenance_excess"] >= 0 > a["maintenance_excess"] + moved[a["account_id"], a["pool"]][row["column"]]
        ]  # fmt: skip
        assert row["pnl_minor"] == pytest.approx(sum(gain for _, gain in own), abs=len(own))
        assert row["losses_minor"] == pytest.approx(sum(min(gain, 0) for _, gain in own), abs=len(own))
        assert row["bankrupt"] == len(deficits)
        assert row["turned_bankrupt"] == sum(
            a["equity_minor"] >= 0 for (a, _), e in zip(own, after, strict=True) if e < 0
        )
        assert row["uncovered_minor"] == pytest.approx(sum(deficits), abs=len(own))
        assert (row["cover1_minor"], row["cover2_minor"]) == pytest.approx(
            (sum(deficits[:1]), sum(deficits[:2])), abs=2
        )
        assert row["fund_after_minor"] == max(fund - row["uncovered_minor"], 0)
        assert row["beyond_fund_minor"] == max(row["uncovered_minor"] - fund, 0)
        assert row["defaults_survived"] == survived(np.array(deficits, np.int64), fund)
        assert row["turned_liquidatable"] == len(turned)
        assert (row["liquidatable_notional"] > 0) == bool(turned)
    assert totals["uncovered_minor"].max() > fund, "the book must have a scenario that exhausts the fund"
    assert totals["turned_liquidatable"].max() > 0


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [{**row, "pool": str(row["pool"])} for row in frame.iter_rows(named=True)]


def _price(snapshot: Snapshot, asset: str) -> float:
    prices = dict(snapshot.book.frame("prices").select("asset", "price").iter_rows())
    return float(prices[asset])


def test_notional_of_an_account_that_turns_is_what_its_positions_are_worth(snapshot: Snapshot) -> None:
    totals, accounts = snapshot.table("scenario_totals"), _rows(run_table(snapshot.run, "accounts").collect())
    moved = gains(snapshot)
    listed = snapshot.book.frame("instruments").select("instrument_id", "kind", "underlying")
    marks = dict(snapshot.book.frame("marks").select("instrument_id", "mark_price").iter_rows())
    worth = {
        i: _price(snapshot, u) / _price(snapshot, "USDC") if kind == "option" else marks[i] / _price(snapshot, "USDC")
        for i, kind, u in listed.iter_rows()
    }
    row = totals.sort("turned_liquidatable", descending=True).row(0, named=True)
    turned = {
        (a["account_id"], a["pool"]) for a in accounts
        if a["maintenance_excess"] >= 0 > a["maintenance_excess"] + moved[a["account_id"], a["pool"]][row["column"]]
    }  # fmt: skip
    positions = snapshot.book.frame("positions").select("account_id", "pool", "instrument_id", "quantity").iter_rows()
    expected = sum(abs(size) * worth[i] for account, pool, i, size in positions if (account, pool) in turned)
    assert row["liquidatable_notional"] == pytest.approx(expected, rel=1e-9)


def test_accounts_of_one_owner_default_together() -> None:
    group, deficits = np.array([7, 3, 7, 9]), np.array([4, 6, 3, 5])
    assert two_largest(deficits_by_group(group, deficits)).tolist() == [7, 13]
    assert two_largest(deficits_by_group(group[:0], deficits[:0])).tolist() == [0, 0]


def test_the_worst_scenario_is_told_with_exact_amounts(snapshot: Snapshot) -> None:
    (model,) = figures_of(snapshot)["by_model"].values()
    worst, totals = model["stress"]["worst"], snapshot.table("scenario_totals")
    row = totals.sort("uncovered_minor", "losses_minor", descending=[True, False]).row(0, named=True)
    assert worst["scenario"] == row["id"]
    assert Fraction(worst["uncovered"]) == Fraction(row["uncovered_minor"], USDC)


def test_the_accounts_behind_every_uncovered_amount_are_listed(snapshot: Snapshot) -> None:
    stressed = snapshot.table("stressed_accounts")
    for row in snapshot.table("scenario_totals").iter_rows(named=True):
        own = stressed.filter(pl.col("scenario") == row["id"])
        assert own.height == row["bankrupt"]
        assert -own["stressed_equity_minor"].sum() == row["uncovered_minor"]
        assert own["stressed_equity_minor"].is_sorted()
        assert own.filter(pl.col("equity_minor") >= 0).height == row["turned_bankrupt"]


def test_balances_are_split_into_what_is_held_and_owed_of_each_asset(snapshot: Snapshot) -> None:
    assert figures_of(snapshot)["by_asset"] == {
        "BTC": {"equity": "2.40000000", "debt": "0.00000000"},
        "ETH": {"equity": "12.00000000", "debt": "0.00000000"},
        "USDC": {"equity": "225500.000000", "debt": "15000.000000"},
    }
    rows = {row["asset"]: row for row in snapshot.table("asset_totals").iter_rows(named=True)}
    assert rows["USDC"]["debt"] == 15_000.0
    assert rows["BTC"]["value"] == pytest.approx(2.4 * _price(snapshot, "BTC") / _price(snapshot, "USDC"))
    assert rows["BTC"]["haircut_value_maintenance"] == rows["BTC"]["value"]


@pytest.mark.slow
def test_a_haircut_that_depends_on_the_account_is_not_given_by_asset(tmp_path: Path) -> None:
    found = snapshot_of(tiny_book(), tmp_path, model="bybit-uta")
    assert found.table("asset_totals")["haircut_value_maintenance"].null_count() == 3
    assert found.table("asset_totals")["value"].null_count() == 0


@pytest.mark.slow
def test_without_funds_nothing_is_said_of_cover(tmp_path: Path) -> None:
    totals = snapshot_of(tiny_book(), tmp_path).table("scenario_totals")
    cover = totals.select("fund_after_minor", "beyond_fund_minor", "defaults_survived")
    assert cover.null_count().row(0) == (totals.height,) * 3


def test_concentration_ranks_by_amount_and_shares_add_up(snapshot: Snapshot) -> None:
    table, index = snapshot.table("concentration"), figures_of(snapshot)["by_accounting_asset"]["USDC"]["herfindahl"]
    assert set(table["kind"]) == {"account", "instrument"}
    for (kind,), rows in table.group_by("kind"):
        assert rows["rank"].to_list() == list(range(1, rows.height + 1))
        assert rows["amount"].is_sorted(descending=True)
        assert rows["share"].sum() == pytest.approx(1)
        assert index[kind] == pytest.approx(float((rows["share"] ** 2).sum()))


@pytest.mark.parametrize(
    ("amounts", "expected"), [([1, 1, 1, 1], 0.25), ([5.0], 1.0), ([3, 1], 0.625), ([], 0.0), ([0, 0], 0.0)]
)
def test_the_herfindahl_index_is_the_sum_of_squared_shares(amounts: list[float], expected: float) -> None:
    assert herfindahl(np.array(amounts, np.float64)) == expected


@pytest.mark.parametrize(
    ("deficits", "fund", "expected"),
    [([5, 3, 2], 10, 3), ([5, 3, 2], 9, 2), ([5, 3, 2], 7, 1), ([5], 4, 0), ([], 0, 0), ([], -1, 0)],
)
def test_the_fund_survives_as_many_of_the_largest_deficits_as_it_can_pay(
    deficits: list[int], fund: int, expected: int
) -> None:
    assert survived(np.array(deficits, np.int64), fund) == expected


def test_the_order_of_rows_changes_no_byte_of_the_commitment_and_no_figure(snapshot: Snapshot, tmp_path: Path) -> None:
    shuffled = {name: frame.sample(fraction=1, shuffle=True, seed=1) for name, frame in tiny_book().items()}
    other = snapshot_of({**shuffled, "funds": FUNDS}, tmp_path)
    documents = [json.loads((s.run / "solvency" / "manifest.json").read_text("utf-8")) for s in (snapshot, other)]
    assert documents[0]["commitment"] == documents[1]["commitment"]
    assert documents[0]["tables"] == documents[1]["tables"]
    assert snapshot.table("leaves").equals(other.table("leaves"))


def test_every_column_says_its_unit_sign_and_meaning(snapshot: Snapshot) -> None:
    for path in (snapshot.run / "solvency").glob("*.parquet"):
        for field in pq.read_schema(path):
            assert {b"unit", b"sign", b"meaning"} <= set(field.metadata), (path.name, field.name)
            if field.name.endswith("_minor"):
                assert field.metadata[b"unit"] == b"minor units of USDC"


def test_a_snapshot_is_published_once_and_whole(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"leaves", "scenario_totals", "stressed_accounts", "concentration", "asset_totals"}
    assert {path.name for path in (snapshot.run / "solvency").iterdir()} == {
        "solvency.json", "manifest.json", "SHA256SUMS", *(f"{name}.parquet" for name in names),
    }  # fmt: skip
    with pytest.raises((ResourceError, OSError)):
        write_snapshot(snapshot.run, snapshot.book, MASTER)
    assert not list(snapshot.run.glob(".staging*"))


def test_a_book_that_is_not_the_runs_is_refused(snapshot: Snapshot) -> None:
    other = read_book(**with_cell(tiny_book(), "balances", row=2, column="account_id", value="zoe"))
    with pytest.raises(InternalError, match="not those of its book"):
        write_snapshot(snapshot.run, other, MASTER)


@pytest.mark.slow
def test_a_run_of_several_models_commits_once_and_stresses_each(tmp_path: Path) -> None:
    accounts = pl.DataFrame({"account_id": ["bob"], "pool": ["cross"], "model": ["derive-sm"], "owner_id": ["o"]})
    found = snapshot_of({**tiny_book(), "accounts": accounts}, tmp_path)
    figures = figures_of(found)
    assert len(figures["by_model"]) == 2
    assert found.table("leaves").height == 5
    assert set(found.table("asset_totals")["model"]) == set(figures["by_model"])


@pytest.mark.slow
def test_accounts_counted_in_different_assets_have_columns_of_their_own(tmp_path: Path) -> None:
    accounts = pl.DataFrame({"account_id": ["bob"], "pool": ["cross"], "model": ["bybit-uta"]})
    found = snapshot_of({**tiny_book(), "accounts": accounts}, tmp_path)
    leaves = found.table("leaves")
    usd = leaves.filter(pl.col("account_id") == "bob")
    assert usd["equity USDC"].to_list() == [0]
    assert usd["equity USD"][0] > 0
    assert (leaves.filter(pl.col("account_id") != "bob")["equity USD"] == 0).all()


@pytest.mark.slow
def test_a_model_without_scenarios_has_no_stress(tmp_path: Path) -> None:
    book = read_book(**tiny_book())
    run = margin_to_folder(book, load_model("deribit-sm"), tmp_path, Options())
    write_snapshot(run, book, MASTER)
    (model,) = json.loads((run / "solvency" / "solvency.json").read_text("utf-8"))["by_model"].values()
    assert model["stress"] is None
