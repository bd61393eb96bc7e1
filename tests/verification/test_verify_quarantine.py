"""Claims about verifying a run with rows in quarantine: they are the book's, they add up, nobody hides one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import gpumargin as gm
from gpumargin.catalogue import load_model
from gpumargin.prepare import Options
from gpumargin.run import margin_to_folder
from gpumargin.tables import read_book
from tests.books import AS_OF, write_book
from tests.faults import NAN, cell, chain, row
from tests.verification.conftest import MODEL, failed, with_owners
from tests.verification.forged import edited, rewritten, sealed, set_to

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BAD = chain(
    cell("positions", 8, "quantity", NAN),  # carol's
    cell("marks", 3, "mark_iv", 75.0),  # of an option that bob has sold
    row("orders", account_id="eve", order_id="1", instrument_id="BTC-PERP", side="buy", quantity=1.0, price=1.0),
    row("balances", account_id="alice", pool="apart", asset="DOGE", amount=5.0),
)


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose book has bad rows of a market table and of accounts."""
    place = tmp_path_factory.mktemp("doubtful")
    book = write_book(place / "book", BAD(with_owners()))
    options = Options(as_of=AS_OF, tables=("units", "positions"), book_path=str(book), on_bad_rows="quarantine")
    return margin_to_folder(read_book(book), load_model(MODEL), place / "runs", options)


@pytest.fixture
def folder(doubtful: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be tampered with."""
    return shutil.copytree(doubtful, tmp_path / doubtful.name)


def test_a_run_with_rows_in_quarantine_passes(doubtful: Path) -> None:
    found = gm.verify_run(doubtful, full=True)
    assert found.findings.rows(named=True) == []
    assert (found.exit_code, found.is_complete) == (0, True)
    assert found.checks.filter(check="quarantine")["count"][0] >= 5
    unknown = pl.read_parquet(doubtful / "accounts" / "*.parquet").filter(pl.col("status") == "unknown")
    assert set(unknown["account_id"].cast(pl.String)) == {"alice", "bob", "carol", "eve"}


def _healthy(frame: pl.DataFrame) -> pl.DataFrame:
    place = frame["account_id"].cast(pl.String).to_list().index("carol")
    return set_to("status", "healthy", place)(frame)


def _fewer(document: dict[str, Any]) -> None:
    document["rows"]["quarantined"] -= 1


FORGERIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an account that lost a row called healthy": (lambda f: edited(f, "accounts", _healthy), "quarantine"),
    "a record of a row that is not there": (lambda f: edited(f, "quarantine", set_to("row", 999)), "quarantine"),
    "a record left out": (lambda f: edited(f, "quarantine", lambda frame: frame[1:]), "quarantine"),
    "a count": (lambda f: rewritten(f, "summary", _fewer), "quarantine"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_changed_quarantine_is_caught(folder: Path, name: str) -> None:
    forge, check = FORGERIES[name]
    forge(folder)
    sealed(folder)
    found = gm.verify_run(folder)
    assert found.exit_code == 4
    assert check in failed(found), found.checks
