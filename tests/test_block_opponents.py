"""Claims that the fused blocks compute whole models: they agree with the engine on every account of a made-up book."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is an opponent of the benchmarks only")
pytest.importorskip("scipy", reason="scipy is an opponent of the benchmarks only")

from benchmarks.block_check import differences
from benchmarks.block_deribit import BLOCKS
from gpumargin.catalogue import load_model
from gpumargin.clock import Clock
from gpumargin.prepare import Options, Pass, prepare
from gpumargin.tables import read_book
from tests.whole_book import accepted, whole_book

if TYPE_CHECKING:
    from pathlib import Path

    from tests.whole_book import Tables


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Feeds in doubt, debts, orders, whales: what a plain generated book does not reach."""
    folder: Path = tmp_path_factory.mktemp("blocks") / "book"
    return whole_book(folder, accounts=400)


def packed(book: Tables, name: str) -> Pass:
    model = load_model(name)
    (work,) = prepare(read_book(**accepted(book, model.file)), model, Options(), Clock())
    return work


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BLOCKS))
def test_a_fused_block_says_of_every_account_what_the_engine_says(book: Tables, name: str) -> None:
    work = packed(book, name)
    results, block = list(work.engine.run(work.legs)), BLOCKS[name](work)()
    assert not list(differences(work, results, block))
    units = [part.result.units for part in results]
    np.testing.assert_allclose(
        block.units[:, 8], np.concatenate([u.margin["initial"] for u in units]), rtol=1e-9, atol=1e-6
    )
    worst = np.concatenate([u.worst_scenario for u in units])
    assert (block.unit_worst == worst).mean() > 0.99  # equal losses may change places in the last bit
    assert len(np.unique(block.status)) > 1
    health = BLOCKS[name](work, is_whole=False)()
    assert not list(differences(work, results, health))
    np.testing.assert_array_equal(health.status, block.status)
