"""Claims about the input contract: each fault is named with code, table, row, column and file; legal limits pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from gpumargin.checks import check_book, require_valid, resolve_as_of
from gpumargin.errors import InputError
from gpumargin.tables import Book
from tests.books import AS_OF, NEAR, TIME, tiny_book
from tests.faults import FAULTS, NAN, ORDER, SVI, Fault, cell, chain, copied, each, row, without
from tests.ways import WAYS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("fault", [pytest.param(fault, id=f"{fault.code}-{fault.name}") for fault in FAULTS])
def test_a_fault_of_one_cell_gives_no_second_complaint_about_that_cell(fault: Fault) -> None:
    failures = check_book(Book(**fault.edit(tiny_book())), **fault.options)
    at_cell = failures.filter(table=fault.table, row=fault.row, column=fault.column)
    assert at_cell["code"].to_list() == [fault.code]


def test_the_tiny_book_is_valid_in_every_way_in(tmp_path: Path) -> None:
    for way in WAYS:
        (tmp_path / way).mkdir()
        assert check_book(WAYS[way](tiny_book(), tmp_path / way), as_of=AS_OF).is_empty()


ONLY_PERPETUALS = chain(
    lambda book: {**book, "positions": book["positions"].filter(pl.col("instrument_id").str.ends_with("PERP"))},
    lambda book: {**book, "forwards": book["forwards"].clear()},
)
LEGAL = {
    "zero-strike": (cell("instruments", 0, "strike", 0.0), {}),
    "zero-forward": (cell("forwards", 0, "forward", 0.0), {}),
    "zero-vol": (cell("marks", 0, "mark_iv", 0.0), {}),
    "vol-at-the-limit": (cell("marks", 0, "mark_iv", 5.0), {}),
    "vol-under-a-wider-limit": (cell("marks", 0, "mark_iv", 7.0), {"vol_limit": 8.0}),
    "dead-coin": (cell("prices", 2, "price", 0.0), {"accounting": "USDC"}),
    "option-priced-from-vol": (cell("marks", 1, "mark_price", None), {}),
    "vol-from-others": (cell("marks", 2, "mark_iv", None), {}),
    "held-option-without-mark": (without("marks", "instrument_id", "BTC-20260626-80000-C"), {}),
    "vol-from-svi": (chain(cell("marks", 0, "mark_iv", None), each("forwards", **SVI)), {}),
    "unheld-without-mark": (
        chain(without("positions", "account_id", "bob"), without("marks", "instrument_id", "ETH-20260327-2000-P")),
        {},
    ),
    "expired-with-settlement-price": (
        chain(each("marks", settlement_price=1.0), without("forwards", "expiry", NEAR)),
        {"as_of": NEAR},
    ),
    "expired-mark-without-vol": (
        chain(each("marks", settlement_price=1.0), cell("marks", 0, "mark_iv", None)),
        {"as_of": NEAR},
    ),
    "no-forwards-without-options": (ONLY_PERPETUALS, {}),
    "account-without-holdings": (row("accounts", account_id="eve", pool="cross"), {}),
    "parameter-of-account-without-holdings": (
        chain(
            row("accounts", account_id="eve", pool="isolated-1"),
            row("account_parameters", account_id="eve", pool="isolated-1", name="im", value=1.0),
        ),
        {},
    ),
    "no-positions": (lambda book: {**book, "positions": book["positions"].clear()}, {}),
    "no-balances": (lambda book: {**book, "balances": book["balances"].clear()}, {}),
    "dollar-without-price": (row("balances", account_id="bob", pool="cross", asset="USD", amount=1.0), {}),
    "entry-unknown": (each("positions", entry_price=None), {}),
    "same-instrument-in-two-pools": (
        row("positions", account_id="bob", pool="isolated-1", instrument_id="ETH-PERP", quantity=1.0),
        {},
    ),
    "spot-order": (
        chain(
            row("instruments", instrument_id="BTC/USDC", kind="spot", underlying="BTC", settlement="USDC"),
            row("orders", instrument_id="BTC/USDC", **ORDER),
        ),
        {"kinds": ["option", "perpetual"]},
    ),
    "two-parameters-without-subject": (
        chain(
            row("account_parameters", account_id="bob", subject=None, name="im", value=1.0),
            row("account_parameters", account_id="bob", subject=None, name="mm", value=1.0),
        ),
        {},
    ),
    "ledger-agrees": (row("ledger", asset="USDC", total=210_500.0), {}),
}


@pytest.mark.parametrize("name", LEGAL)
def test_a_legal_limit_passes(name: str) -> None:
    edit, options = LEGAL[name]
    failures = check_book(Book(**edit(tiny_book())), **options)
    assert failures.rows() == []


def test_two_parameters_alike_without_subject_are_one_key() -> None:
    same = row("account_parameters", account_id="bob", subject=None, name="im", value=1.0)
    failures = check_book(Book(**chain(same, same)(tiny_book())))
    assert failures.select("code", "table", "row").rows() == [("GM104", "account_parameters", 1)]


def test_a_duplicate_across_files_names_both_rows(tmp_path: Path) -> None:
    book = WAYS["folder-of-parts"](copied("positions", 4)(tiny_book()), tmp_path)
    message = check_book(book)["message"][0]
    assert "account_id bob, pool cross, instrument_id BTC-20260327-60000-P" in message
    assert "row 4 of positions/part-0.parquet" in message


def test_unsorted_duplicates_are_found_and_the_first_row_is_kept() -> None:
    tables = tiny_book()
    tables["positions"] = pl.concat([tables["positions"].reverse(), tables["positions"][:2], tables["positions"][:1]])
    failures = check_book(Book(**tables), max_examples=None)
    assert failures["row"].to_list() == [10, 11, 12]
    assert [message.split(" row ")[1].split()[0] for message in failures["message"]] == ["9", "8", "9"]


def test_examples_are_bounded_and_the_first_says_how_many_rows_there_are() -> None:
    tables = tiny_book()
    tables["positions"] = pl.concat([tables["positions"]] * 200)
    failures = check_book(Book(**tables), max_examples=3)
    assert failures.height == 3
    assert "(1,990 rows in all)" in failures["message"][0]
    assert "in all" not in failures["message"][1]
    assert check_book(Book(**tables), max_examples=None).height == 1_990


def test_vol_in_per_cent_is_guessed() -> None:
    failures = check_book(Book(**cell("marks", 3, "mark_iv", 75.0)(tiny_book())))
    assert "looks like per cent" in failures["message"][0]


def test_an_empty_book_is_refused() -> None:
    tables = {**tiny_book(), "positions": tiny_book()["positions"].clear(), "balances": tiny_book()["balances"].clear()}
    failures = check_book(Book(**tables))
    assert failures.select("code", "row").rows() == [("GM106", None)]
    assert "empty" in failures["message"][0]


def test_ids_of_two_types_are_refused_before_anything_is_compared() -> None:
    tables = tiny_book()
    tables["positions"] = tables["positions"].with_columns(account_id=pl.lit(7))
    failures = check_book(Book(**tables))
    assert failures.select("code", "table", "column").rows() == [("GM101", "balances", "account_id")]


def test_integer_ids_obey_the_same_rules() -> None:
    tables = tiny_book()
    numbers = dict(zip(tables["instruments"]["instrument_id"], range(7), strict=True))
    for name in ("instruments", "marks", "positions"):
        tables[name] = tables[name].with_columns(pl.col("instrument_id").replace_strict(numbers))
    assert check_book(Book(**tables)).is_empty()
    failures = check_book(Book(**cell("positions", 3, "instrument_id", 99)(copied("positions", 0)(tables))))
    assert set(failures.select("code", "row").rows()) == {("GM105", 3), ("GM104", 10)}


def test_controls_in_a_value_do_not_reach_the_terminal() -> None:
    failures = check_book(Book(**cell("balances", 3, "account_id", "\x1b[31mcarol")(tiny_book())))
    assert all("\x1b" not in text for column in ("value", "message") for text in failures[column])


@pytest.mark.parametrize(
    "dtype", [pl.Int64, pl.Decimal(38, 9), pl.Decimal(12, 2)], ids=["integer", "wide-decimal", "decimal"]
)
def test_ledger_of_exact_numbers_must_agree_to_the_last_digit(dtype: Any) -> None:
    tables = {**tiny_book(), "balances": tiny_book()["balances"].cast({"amount": dtype})}
    exact = tables["balances"].filter(asset="USDC")["amount"].cast(pl.Decimal(38, 9)).sum()
    ledger = pl.DataFrame({"asset": ["USDC"], "total": [exact]}, schema_overrides={"total": pl.Decimal(38, 9)})
    assert check_book(Book(**tables, ledger=ledger)).is_empty()
    off = ledger.with_columns(pl.col("total") + pl.lit("0.000000001").cast(pl.Decimal(38, 9)))
    assert check_book(Book(**tables, ledger=off))["code"].to_list() == ["GM120"]


def test_ledger_of_floats_agrees_to_half_a_minor_unit_whatever_the_order() -> None:
    tables = tiny_book()
    amounts = [1e15, 0.1, -1e15, 0.2, 1e-9, -2e-9, 0.3, 1e-9]
    tables["balances"] = tables["balances"].with_columns(
        amount=pl.Series(amounts), asset=pl.lit("USDC"), pool=pl.Series(map(str, range(8)))
    )
    tables["positions"] = tables["positions"].clear()
    total = {"agrees": 0.6, "differs": 0.600001}
    ledgers = {name: pl.DataFrame({"asset": ["USDC"], "total": [value]}) for name, value in total.items()}
    assert check_book(Book(**tables, ledger=ledgers["agrees"])).is_empty()
    assert "sum to 0.6" in check_book(Book(**tables, ledger=ledgers["differs"]))["message"][0]


def test_the_snapshot_is_as_old_as_its_newest_stamp_unless_told() -> None:
    later = AS_OF + timedelta(seconds=1)
    book = Book(**cell("prices", 1, "timestamp", later)(tiny_book()))
    assert resolve_as_of(book) == later
    assert resolve_as_of(book, datetime(2026, 1, 1)) == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_book_without_stamps_needs_to_be_told_the_time() -> None:
    tables = {name: frame.drop("timestamp", strict=False) for name, frame in tiny_book().items()}
    assert check_book(Book(**tables))["code"].to_list() == ["GM108"]
    assert check_book(Book(**tables), as_of=AS_OF).is_empty()
    with pytest.raises(InputError, match="--as-of"):
        resolve_as_of(Book(**tables))


def test_a_valid_book_is_let_through_and_another_raises_with_its_failures() -> None:
    require_valid(Book(**tiny_book()))
    with pytest.raises(InputError, match="quantity is nan") as caught:
        require_valid(Book(**cell("positions", 0, "quantity", NAN)(tiny_book())))
    assert caught.value.failures.height == 1


def test_stamps_may_be_null() -> None:
    assert check_book(Book(**each("prices", timestamp=None)(tiny_book()))).is_empty()
    assert tiny_book()["prices"].schema["timestamp"] == TIME


def test_the_longest_tenor_counts_to_the_microsecond() -> None:
    longest = AS_OF + timedelta(days=3650)
    codes = []
    for expiry in (longest, longest + timedelta(microseconds=1)):
        book = Book(**cell("instruments", 5, "expiry", expiry)(tiny_book()))  # of a perpetual: nothing else looks at it
        codes.append(check_book(book, as_of=AS_OF)["code"].to_list())
    assert codes == [[], ["GM111"]]
