"""The main job: what a run publishes, what it refuses, and what several models in one book do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import gpumargin as gm
from gpumargin.catalogue import load_model
from gpumargin.prepare import Options
from gpumargin.run import margin, margin_to_folder
from gpumargin.runs import open_run, run_json, run_table
from gpumargin.tables import read_book
from tests.books import AS_OF, tiny_book, with_cell

MODEL = "derive-pm1"


@pytest.fixture(scope="module")
def run() -> gm.Run:
    return margin(read_book(**tiny_book()), MODEL, tables=("units", "positions"))


def refused(tables: dict[str, pl.DataFrame], model: gm.MarginModel | str = MODEL, **options: Any) -> pl.DataFrame:
    with pytest.raises(gm.InputError) as caught:
        margin(read_book(**tables), model, **options)
    return caught.value.failures


def test_a_published_run_reads_back_as_the_run_in_memory(run: gm.Run, tmp_path: Path) -> None:
    folder = margin_to_folder(read_book(**tiny_book()), load_model(MODEL), tmp_path, Options())
    assert run_table(folder, "accounts").collect().equals(run.accounts)
    assert run_table(folder, "units").collect().equals(run.units)
    assert run_json(folder, "manifest")["results"]["accounts"] == run.manifest["results"]["accounts"]
    assert open_run(tmp_path) == open_run(tmp_path / "latest") == folder


def test_writing_a_run_from_memory_publishes_the_same_tables(run: gm.Run, tmp_path: Path) -> None:
    folder = run.write(tmp_path)
    assert run_table(folder, "positions").collect().equals(run.positions)
    assert run_table(folder, "instruments").collect().equals(run.instruments)
    assert json.loads((folder / "summary.json").read_text())["rows"]["quarantined"] == 0


def test_nothing_is_published_when_the_book_is_refused(tmp_path: Path) -> None:
    book = read_book(**with_cell(tiny_book(), "positions", row=2, column="quantity", value=float("nan")))
    with pytest.raises(gm.InputError):
        margin_to_folder(book, load_model(MODEL), tmp_path, Options())
    assert list(tmp_path.iterdir()) == []


def test_balance_minus_margin_is_the_excess_and_equity_is_the_sum_of_its_parts(run: gm.Run) -> None:
    rows = run.accounts
    for kind in ("initial", "maintenance"):
        assert rows[f"{kind}_excess"].equals(rows[f"{kind}_balance"] - rows[f"{kind}_margin"])
        floating = rows["unrealised_pnl"] + rows["option_value"]
        assert rows[f"{kind}_balance"].equals(rows[f"{kind}_collateral_value"] + floating)


def test_positions_add_up_to_units(run: gm.Run) -> None:
    legs = run.positions.join(run.instruments.select("instrument_id", "unit"), on="instrument_id")
    keys = ["account_id", "pool", "unit"]
    sums = legs.group_by(keys).agg(pl.col("delta", "gamma", "vega", "theta", "unrealised_pnl").sum())
    both = run.units.join(sums, on=keys, suffix="_summed")
    assert both.height == run.units.height
    for name in ("delta", "gamma", "vega", "theta", "unrealised_pnl"):
        assert both[name].to_list() == pytest.approx(both[f"{name}_summed"].to_list(), rel=1e-12, abs=1e-9)


def test_minor_units_are_rounded_against_the_account(run: gm.Run) -> None:
    digits = 10**6  # USDC in the tiny book
    rows = run.accounts
    assert ((rows["equity"] * digits - rows["equity_minor"]) >= -1e-3).all()
    assert ((rows["initial_margin_minor"] - rows["initial_margin"] * digits) >= -1e-3).all()


@pytest.mark.slow
def test_each_account_is_margined_by_the_model_its_row_names() -> None:
    tables = tiny_book()
    owners = pl.DataFrame(
        {"account_id": ["alice", "bob"], "pool": ["cross", "cross"], "model": ["correlated-pm", None]}
    )
    tables["accounts"] = owners
    mixed = margin(read_book(**tables), MODEL).accounts
    labels = dict(zip(mixed["account_id"] + "/" + mixed["pool"], mixed["model"], strict=True))
    assert labels["alice/cross"] == "correlated-pm@2025-10-22"
    assert labels["bob/cross"] == "derive-pm1@2025-02-01"
    whole = margin(read_book(**tiny_book()), MODEL).accounts
    kept = pl.col("account_id") != "alice"
    assert (
        mixed.filter(kept)
        .select("account_id", "equity", "initial_margin")
        .equals(whole.filter(kept).select("account_id", "equity", "initial_margin"))
    )


def test_a_model_that_an_account_names_and_nobody_knows_is_a_usage_error() -> None:
    tables = tiny_book() | {"accounts": pl.DataFrame({"account_id": ["bob"], "model": ["no-such-model"]})}
    with pytest.raises(gm.UsageError, match="no-such-model"):
        margin(read_book(**tables), MODEL)


@pytest.mark.parametrize(
    ("change", "why"), [({"spot": 0.0}, "spot of 0"), ({"spot": 0.9, "weight": "move"}, "weight of -0.1")]
)
def test_a_scenario_that_no_market_can_reach_is_gm115(change: dict[str, Any], why: str) -> None:
    model = load_model(MODEL)
    grid = [dict(row) for row in model.raw["scenarios"]["grid"]]
    failure = refused(tiny_book(), model.replace({"scenarios.grid": [grid[0] | change, *grid[1:]]})).row(0, named=True)
    assert (failure["code"], failure["row"]) == ("GM115", None)
    assert why in failure["message"]


def test_a_correlation_that_is_not_positive_semidefinite_is_gm114_and_says_the_eigenvalue() -> None:
    bad = load_model("correlated-pm").replace(
        {
            "aggregation.units": ["BTC", "ETH", "SOL"],
            "aggregation.correlation": [[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]],
        }
    )
    failure = refused(tiny_book(), bad).row(0, named=True)
    assert failure["code"] == "GM114"
    assert "eigenvalue -0.8" in failure["message"]


@pytest.mark.parametrize(
    ("matrix", "why"),
    [
        pytest.param([[1.0, 0.5], [0.4, 1.0]], "symmetric", id="asymmetric"),
        pytest.param([[1.0, 0.5], [0.5, 0.99]], "diagonal", id="diagonal below one"),
        pytest.param([[1.0, 1.01], [1.01, 1.0]], "outside", id="beyond one"),
        pytest.param([[1.0]], "2 x 2", id="too small"),
    ],
)
def test_a_matrix_that_is_no_correlation_is_gm114(matrix: list[list[float]], why: str) -> None:
    bad = load_model("correlated-pm").replace({"aggregation.units": ["BTC", "ETH"], "aggregation.correlation": matrix})
    failure = refused(tiny_book(), bad).row(0, named=True)
    assert failure["code"] == "GM114"
    assert why in failure["message"]


@pytest.mark.parametrize(
    ("column", "value"),
    [("payoff", "digital"), ("premium", "futures_style"), ("price_cap", 90_000.0)],
    ids=["digital payoff of a perpetual", "futures-style premium", "price cap"],
)
def test_contract_terms_that_are_not_priced_are_refused(column: str, value: object) -> None:
    tables = tiny_book()
    tables["instruments"] = tables["instruments"].with_columns(pl.lit(value).alias(column))
    failure = refused(tables).row(0, named=True)
    assert (failure["code"], failure["column"]) == ("GM112", column)


def test_a_contract_the_model_does_not_margin_is_refused_where_it_is_held() -> None:
    tables = tiny_book()
    is_perpetual = pl.col("instrument_id") == "BTC-PERP"
    expiry = pl.when(is_perpetual).then(pl.lit(AS_OF.replace(month=9))).otherwise(pl.col("expiry"))
    kind = pl.when(is_perpetual).then(pl.lit("future")).otherwise(pl.col("kind"))
    tables["instruments"] = tables["instruments"].with_columns(kind=kind, expiry=expiry)
    failures = refused(tables)
    assert set(failures["code"]) == {"GM112"}
    assert set(failures["table"]) == {"positions"}
    margin(read_book(**tables), "correlated-pm")


def test_overrides_of_single_accounts_are_refused_and_never_ignored() -> None:
    override = pl.DataFrame({"account_id": ["bob"], "name": ["im_factor"], "value": [2.0]})
    assert refused(tiny_book() | {"account_parameters": override}).row(0, named=True)["code"] == "GM112"


def test_a_book_without_the_accounting_asset_is_refused() -> None:
    tables = tiny_book()
    tables["balances"] = tables["balances"].filter(pl.col("asset") != "USDC")
    tables["prices"] = tables["prices"].filter(pl.col("asset") != "USDC")
    assert "GM105" in set(refused(tables)["code"])


def test_cash_due_on_a_position_of_size_zero_counts_only_where_the_model_says() -> None:
    tables = tiny_book()
    idle = pl.DataFrame({"account_id": ["dave"], "instrument_id": ["BTC-PERP"], "quantity": [0.0], "unsettled": [7.0]})
    tables["positions"] = pl.concat([tables["positions"], idle], how="diagonal")
    before = margin(read_book(**tiny_book()), "correlated-pm").accounts["equity"].sum()
    assert margin(read_book(**tables), "correlated-pm").accounts["equity"].sum() - before == pytest.approx(7.0)
    pm1 = margin(read_book(**tiny_book()), MODEL).accounts["equity"].sum()
    assert margin(read_book(**tables), MODEL).accounts["equity"].sum() == pm1


def test_as_of_takes_text_and_shortens_time(run: gm.Run) -> None:
    later = margin(read_book(**tiny_book()), MODEL, as_of="2026-03-20T08:00:00Z")
    assert later.summary["as_of"].startswith("2026-03-20T08:00:00")
    both = later.instruments.join(run.instruments, on="instrument_id", suffix="_before").filter(
        pl.col("kind") == "option"
    )
    assert (both["years"] < both["years_before"]).all()


def test_the_summary_names_the_estimated_numbers(run: gm.Run) -> None:
    assert run.summary["models"]["derive-pm1@2025-02-01"]["estimated"] == []
    estimated = margin(read_book(**tiny_book()), "correlated-pm").summary["models"]["correlated-pm@2025-10-22"]
    assert estimated["estimated"] == ["all"]


def test_account_ids_of_two_types_are_refused_with_both_tables_named() -> None:
    tables = tiny_book()
    tables["balances"] = tables["balances"].with_columns(account_id=pl.lit(7))
    failure = refused(tables).row(0, named=True)
    assert failure["code"] == "GM101"
    assert "positions.account_id" in failure["message"]


@pytest.mark.slow
@pytest.mark.parametrize("model", [MODEL, "correlated-pm"])
def test_a_book_of_balances_alone_needs_no_margin(model: str) -> None:
    contracts = ("instruments", "marks", "forwards", "positions")
    tables = {name: frame.clear() if name in contracts else frame for name, frame in tiny_book().items()}
    rows = margin(read_book(**tables), model, as_of=AS_OF).accounts
    assert rows["equity"].sum() == pytest.approx(120_000 + 95_000 - 15_000 + 10_500 + 2.4 * 68_000 + 12 * 2_200)
    assert rows["initial_margin"].to_list() == [0.0] * 5
    assert rows["health"].to_list() == [None] * 5
