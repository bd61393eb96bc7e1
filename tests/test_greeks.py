"""Claims about the instruments table alone: the numbers of a run, in two sets of units, from a market alone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from numpy.testing import assert_allclose

from gpumargin.catalogue import load_model
from gpumargin.errors import InputError, UsageError
from gpumargin.greeks import Statement, market_greeks
from gpumargin.run import margin
from gpumargin.tables import read_book, read_market
from tests.books import AS_OF, ETHER_OPTIONS, tiny_book, with_cell, without_ether_vols, write_book
from tests.explained import coin_margined, with_digitals

if TYPE_CHECKING:
    from pathlib import Path

MARKET = ("instruments", "marks", "forwards", "prices")
FREE_CALL = "BTC-20260626-80000-C"  # no mark price: its value is the model's


def figures(tables: dict[str, pl.DataFrame], **options: Any) -> dict[str, dict[str, Any]]:
    """Rows of the table by instrument."""
    rows = market_greeks(read_book(**tables), **options).to_pylist()
    return {row["instrument_id"]: row for row in rows}


def bumped(column: str, by: float) -> dict[str, pl.DataFrame]:
    book = tiny_book()
    table = "marks" if column == "mark_iv" else "forwards"
    return {**book, table: book[table].with_columns(pl.col(column) + by)}


@pytest.mark.parametrize(
    "tables",
    [
        pytest.param(tiny_book(), id="linear"),
        pytest.param(coin_margined(), id="coin", marks=pytest.mark.slow),
        pytest.param(with_digitals(), id="digital", marks=pytest.mark.slow),
    ],
)
def test_raw_figures_are_those_of_a_run(tables: dict[str, pl.DataFrame]) -> None:
    model = load_model("correlated-pm")
    alone = market_greeks(read_book(**tables), statement=Statement.of(model))
    run = margin(read_book(**tables), model).tables["instruments"]
    assert alone.column_names == [name for name in run.column_names if name != "scenario_pnl"]
    for name in alone.column_names:
        field, own = alone.schema.field(name), alone[name]
        assert field.metadata == run.schema.field(name).metadata
        if str(field.type) == "double":
            assert own.null_count == run[name].null_count
            assert_allclose(own.drop_null().to_numpy(), run[name].drop_null().to_numpy(), rtol=1e-13, err_msg=name)
        else:
            assert own.to_pylist() == run[name].to_pylist()


def test_market_vega_vanna_and_volga_are_changes_for_one_vol_point() -> None:
    now, up, down = (figures(bumped("mark_iv", by), units="market")[FREE_CALL] for by in (0.0, 0.01, -0.01))
    assert (up["value"] - down["value"]) / 2 == pytest.approx(now["vega"], rel=1e-3)
    assert (up["delta"] - down["delta"]) / 2 == pytest.approx(now["vanna"], rel=1e-3)
    assert (up["vega"] - down["vega"]) / 2 == pytest.approx(now["volga"], rel=1e-2)


def test_market_theta_is_the_change_as_a_calendar_day_passes() -> None:
    now = figures(tiny_book(), units="market")[FREE_CALL]
    later = figures(tiny_book(), as_of=AS_OF + timedelta(hours=1))[FREE_CALL]
    assert 24 * (later["value"] - now["value"]) == pytest.approx(now["theta"], rel=1e-3)


def test_rho_is_that_of_the_discount_with_the_forward_held_per_one_per_cent() -> None:
    found = figures(tiny_book(), units="market")[FREE_CALL]
    assert found["rho"] == pytest.approx(-0.01 * found["years"] * found["value"])


def test_delta_and_gamma_are_per_unit_of_forward_in_both_units() -> None:
    raw, market, up = figures(tiny_book()), figures(tiny_book(), units="market"), figures(bumped("forward", 1.0))
    for name in ("value", "implied_vol", "delta", "gamma"):
        assert raw[FREE_CALL][name] == market[FREE_CALL][name]
    assert up[FREE_CALL]["value"] - raw[FREE_CALL]["value"] == pytest.approx(raw[FREE_CALL]["delta"], rel=1e-3)


def test_units_stand_in_the_metadata() -> None:
    def unit(name: str, **options: Any) -> str:
        field = market_greeks(read_book(**tiny_book()), **options).schema.field(name)
        return str(field.metadata[b"unit"].decode())

    usdc = Statement.of(load_model("derive-pm1"))
    assert unit("vega") == "USD per 1.00 of vol"
    assert unit("vega", units="market", statement=usdc) == "USDC per vol point"
    assert unit("theta", units="market") == "USD per calendar day"
    assert unit("rho", units="market") == "USD per 1 % of rate"


def test_contracts_on_one_underlying_keep_their_order_and_numbers() -> None:
    every, some = figures(tiny_book()), figures(tiny_book(), underlying="ETH")
    assert some == {name: row for name, row in every.items() if name.startswith("ETH")}
    with pytest.raises(UsageError, match="BTC, ETH"):
        figures(tiny_book(), underlying="SOL")


def test_a_market_needs_no_accounts_and_what_is_wrong_with_them_does_not_matter(tmp_path: Path) -> None:
    tables = tiny_book()
    alone = write_book(tmp_path / "market", {name: tables[name] for name in MARKET})
    beside = write_book(tmp_path / "book", with_cell(tables, "positions", row=0, column="quantity", value=float("nan")))
    expected = market_greeks(read_book(**tables))
    assert market_greeks(read_market(alone)).equals(expected)
    assert market_greeks(read_market(beside)).equals(expected)
    (alone / "marks.parquet").unlink()
    with pytest.raises(InputError, match="marks"):
        read_market(alone)


def test_contracts_may_be_numbered(tmp_path: Path) -> None:
    tables = {name: tiny_book()[name] for name in MARKET}
    numbers = {name: number for number, name in enumerate(tables["instruments"]["instrument_id"])}
    for name in ("instruments", "marks"):
        numbered = pl.col("instrument_id").replace_strict(numbers, return_dtype=pl.Int64)
        tables[name] = tables[name].with_columns(numbered)
    assert market_greeks(read_market(write_book(tmp_path / "m", tables))).num_rows == len(numbers)


@pytest.mark.slow
def test_a_contract_whose_vol_its_neighbours_tell_takes_it_from_them() -> None:
    row = tiny_book()["marks"]["instrument_id"].to_list().index(FREE_CALL)
    found = figures(with_cell(tiny_book(), "marks", row=row, column="mark_iv", value=None))
    assert 0.55 <= found[FREE_CALL]["implied_vol"] <= 0.62  # the two other options of its underlying
    assert found[FREE_CALL]["vega"] > 0


def test_contracts_whose_vol_nobody_knows_have_no_greeks_and_their_neighbours_have(tmp_path: Path) -> None:
    tables = without_ether_vols(tiny_book())
    market = read_market(write_book(tmp_path / "market", {name: tables[name] for name in MARKET}))
    found = market_greeks(market).to_pylist()
    assert {row["instrument_id"] for row in found if row["vega"] is None} == set(ETHER_OPTIONS)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"table": "instruments", "column": "price_cap", "value": 1.0}, "GM112"),
        ({"table": "instruments", "column": "premium", "value": "futures_style"}, "GM112"),
        ({"table": "marks", "column": "mark_iv", "value": 62.0}, "GM110"),
    ],
)
def test_a_market_that_cannot_be_priced_is_refused(change: dict[str, Any], code: str) -> None:
    table = change.pop("table")
    with pytest.raises(InputError) as caught:
        figures(with_cell(tiny_book(), table, row=0, **change))
    assert set(caught.value.failures["code"]) == {code}


def test_amounts_are_stated_in_an_asset_that_has_a_price() -> None:
    with pytest.raises(InputError, match="GM105"):
        figures(tiny_book(), statement=Statement("EUR"))
