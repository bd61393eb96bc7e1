from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import polars as pl
import pytest

from data.make_sample_chain import EXPIRIES, SNAPSHOTS, make_chain
from gpumargin.errors import InputError, UsageError
from gpumargin.importers.deribit import CHAIN_COLUMNS, ImportSummary, import_deribit_chain
from gpumargin.tables import read_book

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample" / "chain.parquet"
REAL_FOLDER = Path(os.environ.get("GPUMARGIN_DATA", ROOT.parent / "shared" / "data"))
REAL = REAL_FOLDER / "options" / "deribit_btc_eth_chain_20251230_20260531.parquet"
LATER = "2026-03-05T08:00"
NAME = "sample_options_snapshot_20260305T080007Z.csv"

needs_real_file = pytest.mark.skipif(not REAL.is_file(), reason=f"the real chain is absent: {REAL}")


def imported(tmp_path: Path, *, file: Path = SAMPLE, snapshot: str = LATER, settle: str = "inverse") -> ImportSummary:
    return import_deribit_chain(file, snapshot=snapshot, out=tmp_path / "book", settle=settle)  # type: ignore[arg-type]


def table(summary: ImportSummary, name: str) -> pl.DataFrame:
    return pl.read_parquet(summary.out / f"{name}.parquet")


def altered(tmp_path: Path, column: str, value: object, *, where: pl.Expr) -> Path:
    """The sample with one column changed in some rows."""
    chain = pl.read_parquet(SAMPLE)
    changed = pl.when(where).then(pl.lit(value, dtype=chain.schema[column])).otherwise(pl.col(column)).alias(column)
    file = tmp_path / "altered.parquet"
    chain.with_columns(changed).write_parquet(file)
    return file


def later_contract(name: str) -> pl.Expr:
    return (pl.col("instrument_name") == name) & (pl.col("snapshot_file") == NAME)


def some_name(settle_expiry: datetime = EXPIRIES[1], currency: str = "BTC") -> str:
    rows = pl.read_parquet(SAMPLE).filter(
        (pl.col("currency") == currency) & (pl.col("expiry_datetime") == settle_expiry.isoformat())
    )
    return str(rows["instrument_name"].sort()[0])


def test_sample_file_is_what_its_script_makes() -> None:
    assert make_chain().equals(pl.read_parquet(SAMPLE))


def test_sample_has_a_few_tens_of_kilobytes() -> None:
    assert SAMPLE.stat().st_size < 60_000


@pytest.mark.parametrize(
    "snapshot",
    [
        pytest.param(NAME, id="file-name"),
        pytest.param(NAME.removesuffix(".csv"), id="file-name-without-csv"),
        pytest.param("2026-03-05T08:00", id="minute"),
        pytest.param("2026-03-05T08:00:59", id="any-second-of-the-minute"),
        pytest.param("2026-03-05T08:00Z", id="utc"),
        pytest.param("2026-03-05T09:00+01:00", id="another-zone"),
    ],
)
def test_every_spelling_of_a_snapshot_finds_it(tmp_path: Path, snapshot: str) -> None:
    summary = imported(tmp_path, snapshot=snapshot)
    assert (summary.snapshot, summary.timestamp) == (NAME, SNAPSHOTS[1])


def test_all_contracts_of_the_snapshot_are_written(tmp_path: Path) -> None:
    summary = imported(tmp_path)
    assert summary.contracts == {"BTC": 120, "ETH": 120}
    assert summary.left_out.is_empty()
    assert table(summary, "instruments")["instrument_id"].n_unique() == 240
    assert table(summary, "marks")["instrument_id"].equals(table(summary, "instruments")["instrument_id"])


@pytest.mark.parametrize("settle", ["inverse", "linear-usdc"])
def test_written_folder_is_a_book_without_holdings(tmp_path: Path, settle: str) -> None:
    book = read_book(imported(tmp_path, settle=settle).out)
    assert (book.num_rows("positions"), book.num_rows("balances")) == (0, 0)
    assert (book.num_rows("instruments"), book.num_rows("forwards"), book.num_rows("prices")) == (240, 8, 4)


def test_inverse_keeps_contracts_as_listed(tmp_path: Path) -> None:
    summary = imported(tmp_path)
    source = pl.read_parquet(SAMPLE).filter(pl.col("snapshot_file") == NAME).sort("instrument_name")
    written = table(summary, "instruments").sort("instrument_id")
    assert written["instrument_id"].equals(source["instrument_name"], check_names=False)
    assert written["settlement"].equals(source["currency"], check_names=False)
    assert written["strike"].equals(source["strike"])
    assert written["option_type"].equals(source["option_type"])
    assert written.select("kind", "quote", "inverse", "contract_size").unique().rows() == [("option", "USD", True, 1.0)]
    marks = table(summary, "marks").sort("instrument_id")
    assert marks["mark_price"].equals(source["mark_price"])
    assert marks["mark_iv"].equals(source["implied_volatility"], check_names=False)
    assert marks["open_interest"].equals(source["open_interest"])


def test_linear_usdc_restates_contracts_in_usdc_without_a_mark_price(tmp_path: Path) -> None:
    summary = imported(tmp_path, settle="linear-usdc")
    written = table(summary, "instruments")
    assert written["instrument_id"].str.contains(r"^(BTC|ETH)_USDC-\d{1,2}[A-Z]{3}\d\d-\d+-[CP]$").all()
    assert written.select("settlement", "quote", "inverse").unique().rows() == [("USDC", "USDC", False)]
    assert set(written["underlying"]) == {"BTC", "ETH"}
    marks = table(summary, "marks")
    assert marks["mark_price"].null_count() == 240
    assert marks.schema["mark_price"] == pl.Float64
    assert marks["mark_iv"].null_count() == 0
    assert set(table(summary, "forwards")["quote"]) == {"USDC"}


def test_both_settlements_hold_the_same_options(tmp_path: Path) -> None:
    columns = ["underlying", "strike", "expiry", "option_type"]
    inverse = table(imported(tmp_path / "inverse"), "instruments").select(columns)
    linear = table(imported(tmp_path / "linear", settle="linear-usdc"), "instruments").select(columns)
    assert inverse.equals(linear)


def test_forward_is_the_median_of_the_expiry_and_its_spread_is_reported(tmp_path: Path) -> None:
    summary = imported(tmp_path)
    rows = pl.read_parquet(SAMPLE).filter(
        (pl.col("snapshot_file") == NAME) & (pl.col("instrument_name").str.starts_with("BTC-6MAR26-"))
    )
    seen = rows["underlying"].to_list()
    daily = summary.expiries.row(0, named=True)
    assert daily["forward"] == median(seen)
    assert daily["num_underlyings"] == len(set(seen)) > 1
    assert daily["spread"] == (max(seen) - min(seen)) / median(seen) > 0
    assert table(summary, "forwards")["forward"].equals(summary.expiries["forward"])
    assert summary.expiries.filter(pl.col("spread") > 0)["expiry"].unique().to_list() == [EXPIRIES[0]]


def test_expiries_are_at_eight_utc(tmp_path: Path) -> None:
    summary = imported(tmp_path)
    assert table(summary, "instruments")["expiry"].unique().sort().to_list() == list(EXPIRIES)
    assert table(summary, "instruments").schema["expiry"] == pl.Datetime("us", "UTC")


def test_prices_are_index_medians_and_units_of_account(tmp_path: Path) -> None:
    summary = imported(tmp_path)
    rows = pl.read_parquet(SAMPLE).filter(pl.col("snapshot_file") == NAME)
    expected = {name: rows.filter(pl.col("currency") == name)["index_price"].median() for name in ("BTC", "ETH")}
    prices = dict(table(summary, "prices").select("asset", "price").iter_rows())
    assert prices == expected | {"USD": 1.0, "USDC": 1.0}
    assert table(summary, "assets")["asset"].equals(table(summary, "prices")["asset"])
    assert any("USDC" in assumption for assumption in summary.assumptions)


@pytest.mark.parametrize("name", ["marks", "forwards", "prices"])
def test_every_timestamp_is_that_of_the_snapshot(tmp_path: Path, name: str) -> None:
    stamps = table(imported(tmp_path), name)["timestamp"]
    assert stamps.unique().to_list() == [SNAPSHOTS[1]]
    assert stamps.dtype == pl.Datetime("us", "UTC")


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        pytest.param("implied_volatility", None, "implied volatility", id="no-iv"),
        pytest.param("implied_volatility", float("nan"), "implied volatility", id="iv-is-nan"),
        pytest.param("implied_volatility", -0.1, "implied volatility", id="negative-iv"),
        pytest.param("expiry_datetime", "2026-03-05T08:00:07.500000+00:00", "expired", id="expires-at-the-timestamp"),
        pytest.param("expiry_datetime", "soon", "unreadable", id="unreadable-expiry"),
        pytest.param("strike", None, "unreadable", id="no-strike"),
        pytest.param("option_type", "straddle", "unreadable", id="unknown-type"),
        pytest.param("instrument_name", None, "unreadable", id="no-name"),
        pytest.param("instrument_name", "BTC_USDC-27MAR26-50750-C", "not named", id="already-linear"),
        pytest.param("instrument_name", some_name(EXPIRIES[2]), "twice", id="listed-twice"),
    ],
)
def test_row_that_cannot_be_written_is_counted_with_its_reason(
    tmp_path: Path, column: str, value: object, reason: str
) -> None:
    file = altered(tmp_path, column, value, where=later_contract(some_name()))
    summary = imported(tmp_path, file=file)
    assert summary.contracts == {"BTC": 119, "ETH": 120}
    [(currency, found, rows)] = summary.left_out.rows()
    assert (currency, rows) == ("BTC", 1)
    assert reason in found


def test_zero_iv_is_legal(tmp_path: Path) -> None:
    file = altered(tmp_path, "implied_volatility", 0.0, where=later_contract(some_name()))
    assert imported(tmp_path, file=file).left_out.is_empty()


@pytest.mark.parametrize("column", ["mark_price", "open_interest"])
def test_row_without_an_optional_number_stays_with_a_null(tmp_path: Path, column: str) -> None:
    summary = imported(tmp_path, file=altered(tmp_path, column, float("nan"), where=later_contract(some_name())))
    marks = table(summary, "marks")
    assert summary.left_out.is_empty()
    assert marks.filter(pl.col(column).is_null())["instrument_id"].to_list() == [some_name()]


def test_row_without_underlying_uses_the_forward_of_its_expiry(tmp_path: Path) -> None:
    summary = imported(tmp_path, file=altered(tmp_path, "underlying", None, where=later_contract(some_name())))
    assert summary.left_out.is_empty()
    assert table(summary, "forwards").equals(table(imported(tmp_path / "whole"), "forwards"))


def test_expiry_without_any_underlying_is_left_out_whole(tmp_path: Path) -> None:
    where = pl.col("instrument_name").str.starts_with("ETH-27MAR26-")
    summary = imported(tmp_path, file=altered(tmp_path, "underlying", None, where=where))
    assert summary.left_out.rows() == [("ETH", "no underlying price above zero in the expiry", 30)]
    assert table(summary, "forwards").height == 7


def test_currency_without_any_index_is_left_out_whole(tmp_path: Path) -> None:
    summary = imported(tmp_path, file=altered(tmp_path, "index_price", None, where=pl.col("currency") == "ETH"))
    assert summary.contracts == {"BTC": 120}
    assert summary.left_out.rows() == [("ETH", "no index price above zero for the currency", 120)]
    assert "ETH" not in table(summary, "prices")["asset"]


def test_counts_written_and_left_out_add_up_to_the_snapshot(tmp_path: Path) -> None:
    file = altered(tmp_path, "implied_volatility", None, where=pl.col("strike") > 70_000)
    summary = imported(tmp_path, file=file)
    assert sum(summary.contracts.values()) + summary.left_out["rows"].sum() == 240
    assert summary.left_out.height == 1


def test_snapshot_with_nothing_to_write_fails_with_the_reasons_and_writes_nothing(tmp_path: Path) -> None:
    file = altered(tmp_path, "implied_volatility", None, where=pl.lit(value=True))
    with pytest.raises(InputError, match="no row of snapshot") as caught:
        imported(tmp_path, file=file)
    assert caught.value.failures["value"].to_list() == ["BTC", "ETH"]
    assert caught.value.failures["message"].str.contains("120 rows: implied volatility").all()
    assert not (tmp_path / "book").exists()


def test_missing_columns_fail_as_a_table(tmp_path: Path) -> None:
    file = tmp_path / "narrow.parquet"
    pl.read_parquet(SAMPLE).drop("underlying", "index_price").write_parquet(file)
    with pytest.raises(InputError, match="lacks underlying, index_price") as caught:
        imported(tmp_path, file=file)
    assert caught.value.failures["column"].to_list() == ["underlying", "index_price"]


def test_only_the_named_columns_are_needed_and_times_may_be_typed(tmp_path: Path) -> None:
    file = tmp_path / "typed.parquet"
    times = [pl.col(name).str.to_datetime("%+", time_zone="UTC") for name in ("timestamp", "expiry_datetime")]
    pl.read_parquet(SAMPLE).select(CHAIN_COLUMNS).with_columns(times).write_parquet(file)
    assert table(imported(tmp_path, file=file), "marks").equals(table(imported(tmp_path / "text"), "marks"))


@pytest.mark.parametrize("snapshot", ["2026-03-05T08:01", "sample_options_snapshot_20260305T0800"])
def test_unknown_snapshot_lists_the_nearest(tmp_path: Path, snapshot: str) -> None:
    with pytest.raises(UsageError, match=f"nearest: {NAME}, sample_options_snapshot_20260304"):
        imported(tmp_path, snapshot=snapshot)


def test_minute_with_two_snapshots_asks_for_the_name(tmp_path: Path) -> None:
    first = SNAPSHOTS[0].isoformat()
    file = altered(tmp_path, "timestamp", SNAPSHOTS[1].isoformat(), where=pl.col("timestamp") == first)
    with pytest.raises(UsageError, match="matches 2 snapshots"):
        imported(tmp_path, file=file)


def test_folder_with_content_is_not_written_to(tmp_path: Path) -> None:
    imported(tmp_path)
    with pytest.raises(UsageError, match="new or empty folder"):
        imported(tmp_path)


def test_absent_file_and_file_of_another_kind_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found none"):
        imported(tmp_path, file=tmp_path / "absent.parquet")
    other = tmp_path / "text.parquet"
    other.write_text("not a table")
    with pytest.raises(UsageError, match="cannot be read: it is no whole Parquet file"):
        imported(tmp_path, file=other)


def test_unknown_settlement_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of inverse, linear-usdc; found 'linear'"):
        imported(tmp_path, settle="linear")


@needs_real_file
@pytest.mark.parametrize("settle", ["inverse", "linear-usdc"])
def test_real_snapshot_of_the_fall_of_february_has_all_its_contracts(tmp_path: Path, settle: str) -> None:
    summary = imported(tmp_path, file=REAL, snapshot="2026-02-05T21:29", settle=settle)
    assert summary.timestamp == datetime(2026, 2, 5, 21, 29, 37, 885165, tzinfo=UTC)
    assert summary.contracts == {"BTC": 902, "ETH": 938}
    assert summary.left_out.is_empty()
    assert summary.expiries.height == 24
    assert summary.expiries["spread"].max() < 0.0044


@needs_real_file
def test_real_file_lists_five_nearest_snapshots(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        imported(tmp_path, file=REAL, snapshot="2026-02-05T21:28")
    assert str(caught.value).count("deribit_options_snapshot_") == 5
