"""Every account adds up to what its run published, line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from gpumargin.catalogue import load_model
from gpumargin.explain import explain_account
from gpumargin.explain.across_units import KINDS as ACROSS_UNITS
from gpumargin.explain.aggregation import KINDS as AGGREGATIONS
from gpumargin.explain.components import KINDS
from gpumargin.explain.figures import Figure, evaluate, exact
from gpumargin.explain.requirements import with_values
from gpumargin.expressions import parse_expression
from gpumargin.modelfile import ModelFile
from gpumargin.prepare import Options
from gpumargin.run import margin, margin_to_folder
from gpumargin.synth import generate_book
from gpumargin.tables import Book, read_book
from gpumargin_kernels.aggregation import KINDS as AGGREGATION_KERNELS
from tests.books import AS_OF, FAR, tiny_book, with_cell, with_row, write_book
from tests.explained import coin_margined, every, in_folder, tiny_run, with_digitals
from tests.sampled import rest_slow

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_shape")

MODELS = ("derive-pm1", "derive-pm1@2023-12-15", "derive-sm", "correlated-pm")


@pytest.mark.parametrize("model", rest_slow(MODELS, ["derive-sm"]))
def test_every_account_of_the_tiny_book_adds_up(model: str) -> None:
    explained = list(every(tiny_run(model)))
    assert len(explained) == 5
    assert all(e.checks["ok"].all() for e in explained)


@pytest.mark.slow
def test_coin_settled_expired_and_unsettled_legs_add_up() -> None:
    run = margin(Book(**coin_margined()), "correlated-pm", as_of=AS_OF)
    legs = pl.concat([e.tables["legs"] for e in every(run) if "legs" in e.tables], how="vertical_relaxed")
    due = legs.filter(pl.col("quantity") == 0)
    assert due["unrealised_pnl"].to_list() == [0.5 * 68_000.0]
    assert {"BTC-INV-FUT", "BTC-OLD-PUT"} <= set(legs["instrument_id"])


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_digital_legs_add_up(model: str) -> None:
    run = margin(Book(**with_digitals()), model, as_of=AS_OF)
    legs = pl.concat([e.tables["legs"] for e in every(run) if "legs" in e.tables], how="vertical_relaxed")
    held = dict(legs.filter(pl.col("instrument_id").str.contains("DIG")).select("instrument_id", "value").iter_rows())
    assert held["BTC-DIG-70000-C"] == pytest.approx(-4_000 * 10 * 0.41)
    assert held["BTC-OLD-DIG"] == 5_000.0


@pytest.mark.parametrize(
    ("model", "accounts", "dtype"),
    [
        pytest.param("correlated-pm", 40, "float32", marks=pytest.mark.slow),
        pytest.param("derive-pm1", 40, "float64", marks=pytest.mark.slow),
        *(pytest.param(model, 300, "float64", marks=pytest.mark.slow) for model in MODELS),
    ],
)
def test_every_account_of_a_generated_book_adds_up(tmp_path: Path, model: str, accounts: int, dtype: str) -> None:
    generate_book(tmp_path / "book", accounts=accounts, positions_per_account=6, underlyings=3, seed=11)
    run = margin(read_book(tmp_path / "book"), model, dtype=dtype)  # type: ignore[arg-type]
    chosen = run.accounts.select("account_id", "pool").cast(pl.String)
    for account, pool in chosen.iter_rows():
        assert run.explain(account, pool).checks["ok"].all()


@pytest.mark.slow
def test_positions_in_several_files_of_different_types_are_found(tmp_path: Path) -> None:
    tables = tiny_book()
    positions = tables.pop("positions")
    book = write_book(tmp_path / "book", tables)
    write_book(book / "positions", {"a": positions[:4], "b": positions[4:].cast({"account_id": pl.Categorical})})
    run = margin_to_folder(
        read_book(book), load_model("derive-pm1"), tmp_path / "runs", Options(as_of=AS_OF, book_path=str(book))
    )
    assert explain_account(run, "carol").checks["ok"].all()
    assert explain_account(run, "alice").tables["legs"].height == 6


@pytest.mark.slow
def test_integer_ids_are_asked_for_by_their_digits(tmp_path: Path) -> None:
    ids = {"alice": 17, "bob": 4, "carol": 9, "dave": 1_000_017}
    tables = tiny_book()
    for name in ("positions", "balances"):
        renamed = pl.col("account_id").replace_strict(ids, return_dtype=pl.Int64)
        tables[name] = tables[name].with_columns(renamed)
    folder = in_folder(tables, tmp_path)
    assert explain_account(folder, "17").headline["account"] == "17"
    assert explain_account(folder, "1000017", "isolated-1").checks["ok"].all()


def test_each_account_is_explained_by_its_own_model(tmp_path: Path) -> None:
    accounts = pl.DataFrame({"account_id": ["bob", "carol"], "model": ["correlated-pm", "derive-pm1@2023-12-15"]})
    folder = in_folder({**tiny_book(), "accounts": accounts}, tmp_path)
    labels = [explain_account(folder, name).headline["model"] for name in ("alice", "bob", "carol")]
    assert labels == ["derive-pm1@2025-02-01", "correlated-pm@2025-10-22", "derive-pm1@2023-12-15"]


def test_changed_model_numbers_are_taken_from_the_run() -> None:
    model = load_model("derive-pm1").replace({"components.perp.numbers.rate": 0.07, "parameters.im_factor": 1.5})
    table = margin(Book(**tiny_book()), model, as_of=AS_OF).explain("carol").tables["BTC perp amount"]
    assert table["rate"][0] == 0.07


def test_a_run_without_units_is_checked_by_its_accounts() -> None:
    explained = margin(Book(**tiny_book()), "derive-pm1", as_of=AS_OF, tables=()).explain("alice")
    assert "equity" in explained.checks["name"]
    assert not explained.checks["name"].str.contains("BTC").any()


@pytest.mark.parametrize("model", rest_slow(MODELS, ["derive-sm"]))
def test_tables_that_end_with_a_total_add_up_to_it(model: str) -> None:
    for explained in every(tiny_run(model)):
        for title in (t for t, table in explained.tables.items() if table[table.columns[0]][-1] == "total"):
            if title == "aggregation" and model == "correlated-pm":
                continue  # its total is the root and the rest
            table = explained.tables[title]
            numbers = [c for c in table.columns if table[c].dtype.is_numeric() and table[c][-1] is not None]
            sums = [table[c][:-1].sum() for c in numbers]
            np.testing.assert_allclose(sums, [table[c][-1] for c in numbers], rtol=1e-12, atol=1e-9)


def test_balances_add_up_to_collateral_value_and_full_value() -> None:
    explained = tiny_run("correlated-pm").explain("carol")
    last = explained.tables["balances"].row(-1, named=True)
    assert last["initial_counted"] == pytest.approx(explained.headline["initial_collateral_value"])
    assert last["value"] == pytest.approx(-15_000 + 0.4 * 68_000 + 12 * 2_200)


def test_scan_lines_and_expiries_meet_in_the_binding_scenario() -> None:
    tables = tiny_run("derive-pm1").explain("alice").tables
    (binding,) = tables["ETH scan"].filter("binds").to_dicts()
    last = tables[f"ETH scan at {binding['id']}"].row(-1, named=True)
    assert last["contribution"] == pytest.approx(binding["counted_pnl"])
    assert last["net_pnl"] + last["discount"] == pytest.approx(binding["counted_pnl"])
    assert binding["counted_pnl"] == tables["ETH scan"]["counted_pnl"].min()


def test_a_future_is_discounted_with_the_options_of_its_expiry() -> None:
    model = load_model("derive-pm1").replace({"kinds": ["option", "perpetual", "future"]})
    terms = {"kind": "future", "underlying": "BTC", "expiry": FAR, "settlement": "USDC"}
    book = with_row(tiny_book(), "instruments", instrument_id="A-FUTURE", **terms)
    book = with_row(book, "marks", instrument_id="A-FUTURE", mark_price=69_000.0)
    held = {"account_id": "carol", "pool": "cross"}
    book = with_row(book, "positions", **held, instrument_id="A-FUTURE", quantity=0.1, entry_price=68_000.0)
    book = with_row(book, "positions", **held, instrument_id="BTC-20260626-80000-C", quantity=3.0)
    tables = margin(Book(**book), model, as_of=AS_OF).explain("carol").tables
    (title,) = (title for title in tables if title.startswith("BTC scan at"))
    assert tables[title].filter(expiry="2026-06-26 08:00")["share_counted"][0] < 1


def test_legs_show_what_they_lose_in_the_binding_case() -> None:
    tables = tiny_run("derive-pm1").explain("alice").tables
    btc = tables["legs"].filter(unit="BTC")
    assert set(btc["worst_case"]) == {"basis"}
    assert -btc["pnl_in_worst_case"].sum() == pytest.approx(tables["BTC loss"]["amount"].max())


def test_pairs_make_the_correlated_requirement() -> None:
    explained = tiny_run("correlated-pm").explain("alice")
    square = explained.tables["aggregation pairs"]["maintenance"][-1]
    assert np.sqrt(square) == pytest.approx(explained.headline["maintenance_margin"])
    assert explained.tables["aggregation pairs"]["correlation"].to_list() == [1.0, 0.94, 1.0, None]


def test_units_outside_the_correlation_add_in_full() -> None:
    model = load_model("correlated-pm").replace({"aggregation.units": ["BTC"], "aggregation.correlation": [[1.0]]})
    explained = margin(Book(**tiny_book()), model, as_of=AS_OF).explain("alice")
    units = explained.tables["aggregation"].filter(pl.col("unit").is_in(["BTC", "ETH"]))
    assert explained.headline["initial_margin"] == pytest.approx(units["initial"].sum())


def test_a_lost_peg_shows_and_adds_up() -> None:
    book = with_cell(tiny_book(), "prices", row=0, column="price", value=0.95)
    explained = margin(Book(**book), "derive-pm1", as_of=AS_OF).explain("bob")
    (line,) = explained.tables["ETH peg"].to_dicts()
    assert line["shortfall"] == pytest.approx(0.04)
    assert line["charge"] == pytest.approx(0.16)


def test_low_confidence_charges_the_expiry_it_belongs_to() -> None:
    book = with_cell(tiny_book(), "forwards", row=1, column="rate_confidence", value=0.5)
    tables = margin(Book(**book), "derive-pm1", as_of=AS_OF).explain("alice").tables
    doubt = tables["BTC oracle"].filter(pl.col("apart") > 0)
    assert all("26JUN26" in name or "20260626" in name for name in doubt["instrument_id"].to_list()[:-1])
    assert tables["BTC oracle amount"]["charge"].to_list() == [pytest.approx(10 * 68_000 * 0.5)]


def test_a_doubtful_perpetual_mark_counts_only_where_the_perpetual_is_held() -> None:
    book = with_cell(tiny_book(), "marks", row=6, column="confidence", value=0.4)
    run = margin(Book(**book), "derive-pm1", as_of=AS_OF)
    assert run.explain("alice").tables["ETH oracle amount"]["charge"][0] == 0
    assert run.explain("bob").tables["ETH oracle amount"]["charge"][0] == pytest.approx((30 + 12) * 2_200 * 0.6)


def test_low_spot_confidence_charges_every_leg() -> None:
    book = with_cell(tiny_book(), "prices", row=1, column="confidence", value=0.3)
    table = margin(Book(**book), "derive-pm1", as_of=AS_OF).explain("alice").tables["BTC oracle"]
    assert (table["apart"][:-1] > 0).all()


def test_balances_that_are_no_collateral_count_nothing_and_are_no_legs() -> None:
    book = with_cell(tiny_book(), "balances", row=1, column="is_collateral", value=False)
    filled = book["balances"].with_columns(pl.col("is_collateral").fill_null(value=True))
    tables = margin(Book(**{**book, "balances": filled}), "derive-pm1", as_of=AS_OF).explain("alice").tables
    coin = tables["balances"].filter(asset="BTC")
    assert coin["initial_counted"].to_list() == [0.0]
    assert "base" not in tables["legs"]["kind"]


def test_an_account_without_positions_has_no_units() -> None:
    explained = tiny_run("derive-pm1").explain("dave")
    assert list(explained.tables) == ["balances", "identities", "checks"]
    assert explained.headline["health"] is None


def test_every_kind_of_component_in_the_schema_can_be_explained() -> None:
    (schema,) = ModelFile.model_json_schema()["properties"]["components"]["patternProperties"].values()
    assert set(schema["discriminator"]["mapping"]) == {*KINDS, *ACROSS_UNITS}


def test_every_kind_of_aggregation_in_the_schema_can_be_explained_and_computed() -> None:
    schema = ModelFile.model_json_schema()["properties"]["aggregation"]
    assert set(schema["discriminator"]["mapping"]) == set(AGGREGATIONS) == set(AGGREGATION_KERNELS)


def test_expressions_follow_the_grammar_of_model_files() -> None:
    values = {"a": exact(-3.0), "b": exact(4.0)}
    text = "max(a, b, 1) * sqrt(abs(a * 3)) - min(a, b) / 2 + -b"
    assert evaluate(parse_expression(text, values), values).amount == 4 * 3 + 1.5 - 4
    assert with_values("a + max(b, 0)", {"a": -3.0, "b": 4.0}) == "(-3) + max(4, 0)"


@pytest.mark.parametrize("text", ["max(a, b)", "min(b, a)", "a + b", "sqrt(a)", "a / b", "b - a"])
def test_no_expression_hides_a_number_that_is_none(text: str) -> None:
    values = {"a": Figure(float("nan"), 1.0), "b": exact(1.0)}
    assert np.isnan(evaluate(parse_expression(text, values), values).amount)
