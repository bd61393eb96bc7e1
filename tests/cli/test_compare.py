"""Claims about one book under several models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from gpumargin.compare import compare_models
from gpumargin.errors import UsageError
from gpumargin.run import margin
from gpumargin.tables import Book
from tests.books import AS_OF, tiny_book, write_book

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Call

USDC = tiny_book()["prices"].filter(asset="USDC")["price"][0]
NAMES = ["derive-pm1", "correlated-pm"]


def test_every_account_is_margined_by_every_model_as_a_run_of_its_own_would() -> None:
    found = compare_models(Book(**tiny_book()), NAMES, as_of=AS_OF)
    for name, label in zip(NAMES, found.totals["model"], strict=True):
        alone = margin(Book(**tiny_book()), name, as_of=AS_OF)
        rows = found.accounts.filter(model=label)
        rate = (
            1.0 if name == NAMES[0] else found.accounts.filter(model=label)["equity"][0] / alone.accounts["equity"][0]
        )
        for column in ("equity", "initial_margin", "maintenance_margin"):
            expected = (alone.accounts[column] * rate).to_list()
            assert rows[column].to_list() == pytest.approx(expected, rel=1e-12)
        assert rows["status"].to_list() == alone.accounts["status"].cast(pl.String).to_list()


def test_changes_are_against_the_first_and_add_up_to_the_totals() -> None:
    found = compare_models(Book(**tiny_book()), NAMES, as_of=AS_OF)
    first, second = (found.accounts.filter(model=label) for label in found.totals["model"])
    assert (first["maintenance_margin_change"] == 0).all()
    change = second["maintenance_margin"] - first["maintenance_margin"]
    assert second["maintenance_margin_change"].to_list() == change.to_list()
    assert second["status_before"].to_list() == first["status"].to_list()
    assert found.totals["maintenance_margin_change"][1] == pytest.approx(change.sum())
    assert found.most_changed(1)["maintenance_margin_change"].abs()[0] == change.abs().max()


def test_models_that_accounts_name_are_set_aside() -> None:
    tables = tiny_book()
    named = pl.DataFrame({"account_id": ["alice"], "model": ["correlated-pm"]})
    plain = compare_models(Book(**tables), NAMES, as_of=AS_OF)
    found = compare_models(Book(**{**tables, "accounts": named}), NAMES, as_of=AS_OF)
    assert found.accounts.equals(plain.accounts)


@pytest.mark.parametrize(
    "names", [["derive-pm1"], ["derive-pm1", "derive-pm1@2025-02-01"]], ids=["one", "twice the same"]
)
def test_fewer_than_two_models_are_refused(names: list[str]) -> None:
    with pytest.raises(UsageError, match="two different models"):
        compare_models(Book(**tiny_book()), names, as_of=AS_OF)


def test_the_verb_shows_totals_and_writes_every_account(call: Call, tmp_path: Path) -> None:
    book = write_book(tmp_path / "book", tiny_book())
    done = call("compare", book, "--models", ",".join(NAMES), "-n", "2", "--out", tmp_path / "found", columns=200)
    assert done.exit_code == 0, done.stderr
    assert "correlated-pm@2025-10-22" in done.stdout
    written = pl.read_parquet(tmp_path / "found" / "accounts.parquet")
    assert written.height == 2 * written.select("account_id", "pool").n_unique()
    assert pl.read_parquet(tmp_path / "found" / "totals.parquet").height == 2
    assert not list((tmp_path / "found").glob(".staging*"))
