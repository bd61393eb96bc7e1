"""Runs to be explained, and a book with the contracts that the tiny one lacks."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

import polars as pl

from gpumargin.catalogue import load_model
from gpumargin.prepare import Options
from gpumargin.run import margin, margin_to_folder
from gpumargin.tables import Book, read_book
from tests.books import AS_OF, FAR, NEAR, tiny_book, with_row, write_book

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gpumargin.explain import Explanation
    from gpumargin.runs import Run

EXPIRED = datetime(2026, 3, 1, 8, tzinfo=UTC)


@cache
def tiny_run(model: str) -> Run:
    """The tiny book under a model."""
    return margin(Book(**tiny_book()), model, as_of=AS_OF)


def every(run: Run) -> Iterator[Explanation]:
    """Explanations of all accounts of a run."""
    for account, pool in run.accounts.select("account_id", "pool").cast(pl.String).iter_rows():
        yield run.explain(account, pool)


def in_folder(tables: Mapping[str, pl.DataFrame], scratch: Path, model: str = "derive-pm1") -> Path:
    """The folder of a run of a book that stands in a folder."""
    book = write_book(scratch / "book", tables)
    return margin_to_folder(
        read_book(book), load_model(model), scratch / "runs", Options(as_of=AS_OF, book_path=str(book))
    )


def with_digitals() -> dict[str, pl.DataFrame]:
    """The tiny book with three digital options: a marked one, one at the strike of a vanilla, a settled one."""
    book = tiny_book()
    book["marks"] = book["marks"].with_columns(settlement_price=pl.lit(None, pl.Float64))
    common = {"kind": "option", "underlying": "BTC", "settlement": "USDC", "payoff": "digital"}
    contracts = [
        ("BTC-DIG-70000-C", NEAR, 70_000.0, "call", 10.0, 0.41, 0.56, None),
        ("BTC-DIG-80000-P", FAR, 80_000.0, "put", 1.0, None, 0.6, None),
        ("BTC-OLD-DIG", EXPIRED, 66_000.0, "call", 1.0, None, None, 66_000.5),
    ]
    for name, expiry, strike, side, size, mark, vol, settled in contracts:
        terms = {"expiry": expiry, "strike": strike, "option_type": side, "contract_size": size}
        book = with_row(book, "instruments", instrument_id=name, **common, **terms)
        book = with_row(book, "marks", instrument_id=name, mark_price=mark, mark_iv=vol, settlement_price=settled)
    for account, name, quantity in (
        ("alice", "BTC-DIG-70000-C", -4_000.0),
        ("alice", "BTC-DIG-80000-P", -25_000.0),
        ("bob", "BTC-DIG-80000-P", 30_000.0),
        ("carol", "BTC-OLD-DIG", 5_000.0),
    ):
        book = with_row(book, "positions", account_id=account, pool="cross", instrument_id=name, quantity=quantity)
    plain = pl.col("payoff").fill_null("vanilla"), pl.col("contract_size").fill_null(1.0)
    return {**book, "instruments": book["instruments"].with_columns(plain)}


def coin_margined() -> dict[str, pl.DataFrame]:
    """The tiny book with an inverse future, an inverse option and one of each that has expired and is settled."""
    book = tiny_book()
    book["marks"] = book["marks"].with_columns(settlement_price=pl.lit(None, pl.Float64))
    common = {"underlying": "BTC", "settlement": "BTC", "quote": "USD", "inverse": True}
    contracts = [
        ("BTC-INV-FUT", "future", FAR, None, None, 100.0, 68_900.0, None, None),
        ("BTC-INV-CALL", "option", FAR, 72_000.0, "call", 1.0, None, 0.6, None),
        ("BTC-OLD-FUT", "future", EXPIRED, None, None, 100.0, None, None, 66_000.0),
        ("BTC-OLD-PUT", "option", EXPIRED, 70_000.0, "put", 1.0, None, None, 66_000.0),
    ]
    for name, kind, expiry, strike, side, size, mark, vol, settled in contracts:
        terms = {"kind": kind, "expiry": expiry, "strike": strike, "option_type": side, "contract_size": size}
        book = with_row(book, "instruments", instrument_id=name, **common, **terms)
        book = with_row(book, "marks", instrument_id=name, mark_price=mark, mark_iv=vol, settlement_price=settled)
    book = with_row(book, "forwards", underlying="BTC", quote="USD", expiry=FAR, forward=69_100.0, rate=0.03)
    for account, name, quantity, entry, due in (
        ("bob", "BTC-INV-FUT", -300.0, 67_000.0, 0.01),
        ("bob", "BTC-INV-CALL", 3.0, None, -0.02),
        ("carol", "BTC-OLD-FUT", 100.0, 64_000.0, 0.0),
        ("carol", "BTC-OLD-PUT", -2.0, None, 0.0),
        ("dave", "BTC-INV-FUT", 0.0, None, 0.5),
    ):
        held = {"account_id": account, "pool": "cross", "instrument_id": name}
        book = with_row(book, "positions", **held, quantity=quantity, entry_price=entry, unsettled=due)
    plain = pl.col("inverse").fill_null(value=False), pl.col("contract_size").fill_null(1.0)
    return {**book, "instruments": book["instruments"].with_columns(plain)}
