"""Claims about a model that charges by size alone, as leg formulas do: no scenario, no risk array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gpumargin.catalogue import load_model
from gpumargin.explain import explain_account
from gpumargin.prepare import Options
from gpumargin.run import margin, margin_to_folder
from gpumargin.tables import Book, read_book
from tests.books import AS_OF, tiny_book, write_book
from tests.explained import every

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_shape")

TEXT = """
name = "by-size"
effective = 2026-01-02
title = "A test"
source = "none"
accounting_asset = "USDC"
kinds = ["option", "perpetual"]
components.perps = { kind = "charge", legs = ["perpetual"], gross = { size = "size" }, amount = "0.1 * spot * size" }
margin.maintenance = "perps"
margin.initial = "2 * maintenance"
collateral.assets = { default = 0.0, USDC = 1.0 }
provenance.default = "estimated"
"""


def test_a_model_without_scenarios_margins_a_book_and_explains_it(tmp_path: Path) -> None:
    path = tmp_path / "by-size.toml"
    path.write_text(TEXT, "utf-8")
    model = load_model(path)
    run = margin(Book(**tiny_book()), model, as_of=AS_OF)
    assert "scenario_pnl" not in run.tables["instruments"].column_names
    dave = run.accounts.filter(run.accounts["pool"] == "isolated-1").row(0, named=True)
    assert dave["maintenance_margin"] == pytest.approx(0.1 * 40 * 2_200)
    assert dave["worst_scenario"] is None
    assert all(e.checks["ok"].all() for e in every(run))
    book = write_book(tmp_path / "book", tiny_book())
    folder = margin_to_folder(read_book(book), model, tmp_path / "runs", Options(as_of=AS_OF, book_path=str(book)))
    assert explain_account(folder, "bob").checks["ok"].all()
