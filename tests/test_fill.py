"""Claims about the plan for what a book's options lack."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from gpumargin.fill import fill_counts, fill_plan
from gpumargin.pack.joins import are_complete
from gpumargin.tables import Book
from tests.books import AS_OF, FAR, NEAR, TIME, tiny_book

STRIKES = (50e3, 55e3, 60e3, 65e3, 70e3, 75e3)
WHOLE = {"mark_iv": 0.6, "mark_price": 1_000.0}


def options(**columns: Any) -> pl.DataFrame:
    """A call and a put of BTC per strike, all of the near expiry unless a column says otherwise."""
    rows = [(f"BTC-{strike:.0f}-{side}", strike, side) for strike in STRIKES for side in ("call", "put")]
    frame = pl.DataFrame(rows, ["instrument_id", "strike", "option_type"], orient="row")
    plain = {"kind": "option", "underlying": "BTC", "settlement": "USDC", "expiry": pl.lit(NEAR, TIME)}
    return frame.with_columns(
        **{name: x if isinstance(x, pl.Expr) else pl.lit(x) for name, x in plain.items()}
    ).with_columns(**columns)


def planned(
    contracts: pl.DataFrame, lacking: dict[str, dict[str, float | None]], *, rest: Any = None, **forward: Any
) -> Any:
    """The plan for options whose marks are whole except for those named, as {instrument: (forward, vol, price)}."""
    plain = WHOLE if rest is None else rest
    marks = [
        {"instrument_id": name, **(plain | lacking.get(name, {}))} for name in contracts["instrument_id"].to_list()
    ]
    schema = {"instrument_id": pl.String, "mark_iv": pl.Float64, "mark_price": pl.Float64}
    row = {"underlying": "BTC", "quote": "USDC", "expiry": NEAR, "forward": 62e3} | forward
    forwards = pl.DataFrame([row]).cast({"expiry": TIME})
    tables = {**tiny_book(), "instruments": contracts, "marks": pl.DataFrame(marks, schema), "forwards": forwards}
    book = Book(**tables)
    plan = fill_plan(book, AS_OF)
    is_given = ((plan["forward"] == "given") & (plan["vol"] == "given")).all()
    assert is_given or not are_complete(book.tables, book.market_rows)
    return {row["instrument_id"]: (row["forward"], row["vol"], row["price"]) for row in plan.iter_rows(named=True)}


ONE = "BTC-60000-call"
NOTHING: dict[str, float | None] = {"mark_iv": None, "mark_price": None}
SVI = dict.fromkeys(("svi_a", "svi_b", "svi_rho", "svi_m", "svi_sigma"), 0.1)
ELSEWHERE = {"expiry": FAR}  # the only forward is of another expiry


def test_a_book_that_lacks_nothing_needs_no_plan() -> None:
    assert planned(options(), {}) == {}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, True, id="whole"),
        pytest.param({"mark_price": None}, True, id="a price is computed from the vol"),
        pytest.param({"mark_iv": None}, False, id="no vol"),
        pytest.param({"instrument_id": "another"}, False, id="no row of marks"),
        pytest.param({"forward": None}, False, id="no forward"),
        pytest.param({"expiry": FAR}, False, id="no row of forwards"),
    ],
)
def test_options_are_complete_where_each_has_a_vol_and_a_forward(change: dict[str, Any], expected: bool) -> None:
    tables = tiny_book()
    for name in ("marks", "forwards"):
        own = {column: value for column, value in change.items() if column in tables[name].columns}
        first = pl.int_range(pl.len()) == 0
        tables[name] = tables[name].with_columns(
            pl.when(first).then(pl.lit(value, tables[name].schema[column])).otherwise(pl.col(column)).alias(column)
            for column, value in own.items()
        )
    book = Book(**tables)
    assert are_complete(book.tables, book.market_rows) == expected


@pytest.mark.parametrize(
    ("mark", "forward", "expected"),
    [
        pytest.param({"mark_price": None}, {}, ("given", "given", "vol"), id="a price from the vol"),
        pytest.param({"mark_iv": None}, {}, ("given", "mark_price", "given"), id="a vol from the price"),
        pytest.param({"mark_iv": None}, SVI, ("given", "svi", "given"), id="the venue's slice goes before the price"),
        pytest.param(NOTHING, SVI, ("given", "svi", "vol"), id="both from the venue's slice"),
        pytest.param(NOTHING, {}, ("given", "interpolation", "vol"), id="both from the strikes around"),
    ],
)
def test_each_option_is_filled_from_the_nearest_that_it_has(mark: Any, forward: Any, expected: Any) -> None:
    assert planned(options(), {ONE: mark}, **forward) == {ONE: expected}


def test_beyond_five_quoted_strikes_vols_come_from_a_fit() -> None:
    ends = {f"BTC-75000-{side}": NOTHING for side in ("call", "put")}
    assert planned(options(), ends) == dict.fromkeys(ends, ("given", "fit", "vol"))


def test_without_five_quoted_strikes_vols_are_interpolated_and_without_any_they_are_missing() -> None:
    quoted = {f"BTC-{strike:.0f}-{side}": WHOLE for strike in STRIKES[:4] for side in ("call", "put")}
    assert planned(options(), quoted, rest=NOTHING)["BTC-75000-put"] == ("given", "interpolation", "vol")
    assert planned(options(), {}, rest=NOTHING)["BTC-75000-put"] == ("given", "missing", "missing")


def test_vols_come_from_the_same_underlying_and_quote_only() -> None:
    ether = pl.when(pl.col("strike") == 75e3).then(pl.lit("ETH")).otherwise(pl.lit("BTC"))
    found = planned(options(underlying=ether), {"BTC-75000-put": NOTHING, "BTC-75000-call": NOTHING})
    assert found["BTC-75000-put"] == ("missing", "missing", "missing")


def test_a_forward_comes_from_parity_where_one_strike_has_both_prices() -> None:
    found = planned(options(), {}, **ELSEWHERE)
    assert set(found.values()) == {("parity", "given", "given")}
    calls_only = {f"BTC-{strike:.0f}-put": {"mark_price": None} for strike in STRIKES}
    found = planned(options(), calls_only, **ELSEWHERE)
    assert found[ONE] == ("missing", "given", "given")
    assert found["BTC-60000-put"] == ("missing", "given", "missing")


def test_a_digital_price_implies_no_vol_and_makes_no_parity() -> None:
    digital = options(payoff=pl.lit("digital"))
    assert planned(digital, {ONE: {"mark_iv": None}})[ONE] == ("given", "interpolation", "given")
    assert set(planned(digital, {}, **ELSEWHERE).values()) == {("missing", "given", "given")}


def test_a_vol_of_zero_is_given_and_is_no_quote_for_others() -> None:
    flat = {"mark_iv": 0.0, "mark_price": 0.0}
    assert planned(options(), {ONE: NOTHING}, rest=flat) == {ONE: ("given", "missing", "missing")}


def test_an_option_without_a_row_in_marks_lacks_both() -> None:
    tables = tiny_book()
    tables["marks"] = tables["marks"].filter(pl.col("instrument_id") != "BTC-20260327-70000-C")
    plan = fill_plan(Book(**tables), AS_OF)
    row = plan.filter(pl.col("instrument_id") == "BTC-20260327-70000-C")
    assert row.select("forward", "vol", "price").rows() == [("given", "interpolation", "vol")]


def test_what_has_expired_and_what_is_no_option_is_left_out() -> None:
    book = Book(**tiny_book())
    assert fill_plan(book, NEAR)["expiry"].to_list() == [FAR, FAR]
    assert fill_plan(book, FAR + timedelta(seconds=1)).is_empty()


def test_counts_name_what_is_filled_and_leave_out_what_is_given() -> None:
    book = Book(**tiny_book())
    assert fill_counts(fill_plan(book, AS_OF)) == {"forward": {}, "vol": {}, "price": {"vol": 3}}
