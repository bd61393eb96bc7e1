"""One published run, its snapshot, and copies to be tampered with."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import polars as pl
import pytest

from gpumargin.catalogue import load_model
from gpumargin.prepare import Options
from gpumargin.run import margin_to_folder
from gpumargin.solvency.salts import make_salt_file
from gpumargin.solvency.snapshot import write_snapshot
from gpumargin.tables import read_book
from tests.books import AS_OF, tiny_book, write_book

if TYPE_CHECKING:
    from pathlib import Path

    from gpumargin.verification import Verification

MODEL = "derive-pm1"
ALL_TABLES = ("units", "positions")


def with_owners() -> dict[str, pl.DataFrame]:
    """The tiny book with an owner of two accounts."""
    names = {"account_id": ["alice", "bob", "carol"], "pool": ["cross"] * 3, "owner_id": ["fund", "fund", "carol"]}
    return {**tiny_book(), "accounts": pl.DataFrame(names)}


def failed(found: Verification) -> set[str]:
    """Names of the checks that did not hold."""
    return set(found.checks.filter(pl.col("result") == "failed")["check"])


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every table, its book in a folder; no test may change either."""
    place = tmp_path_factory.mktemp("verified")
    book = write_book(place / "book", with_owners())
    options = Options(as_of=AS_OF, tables=ALL_TABLES, book_path=str(book))
    return margin_to_folder(read_book(book), load_model(MODEL), place / "runs", options)


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be tampered with."""
    return shutil.copytree(published, tmp_path / published.name)


@pytest.fixture(scope="session")
def solvent(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with its solvency snapshot and, beside it, the salt file."""
    run = shutil.copytree(published, tmp_path_factory.mktemp("solvent") / published.name)
    write_snapshot(run, read_book(published.parents[1] / "book"), make_salt_file(run.with_name(f"{run.name}.salt")))
    return run
