"""One published snapshot of the tiny book."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from gpumargin.catalogue import load_model
from gpumargin.prepare import Options
from gpumargin.run import margin_to_folder
from gpumargin.solvency.snapshot import write_snapshot
from gpumargin.tables import Book, read_book
from tests.books import tiny_book

if TYPE_CHECKING:
    from collections.abc import Mapping

MASTER = bytes(range(32))
FUNDS = pl.DataFrame({"name": ["insurance"], "asset": ["BTC"], "amount": [0.05]})


@dataclass(frozen=True)
class Snapshot:
    run: Path
    book: Book

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.run / "solvency" / f"{name}.parquet")


def snapshot_of(tables: Mapping[str, pl.DataFrame], out: Path, *, model: str = "derive-pm1") -> Snapshot:
    """Margins a book and publishes its snapshot."""
    book = read_book(**tables)
    run = margin_to_folder(book, load_model(model), out, Options())
    write_snapshot(run, book, MASTER)
    return Snapshot(run, book)


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return snapshot_of({**tiny_book(), "funds": FUNDS}, tmp_path_factory.mktemp("solvency"))
