"""Claims about the benchmark for machines with JAX, numpy and pyarrow alone: its model, its book, that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import frozen
from benchmarks.made_up import first_accounts, made_up_book, made_up_contracts
from gpumargin.engine import Engine, Settings

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ABSENT = ("polars", "pydantic", "typer", "rich", "scipy.stats", "numba", "duckdb")


def test_the_frozen_model_is_what_the_model_file_binds_to() -> None:
    leaves, form = jax.tree.flatten(frozen.load())
    expected, expected_form = jax.tree.flatten(frozen.bound())
    assert form == expected_form
    for leaf, other in zip(leaves, expected, strict=True):
        assert leaf.dtype == other.dtype
        np.testing.assert_array_equal(leaf, other)


def test_the_made_up_book_is_in_canonical_order_and_its_first_accounts_are_a_book() -> None:
    contracts = made_up_contracts()
    book = made_up_book(contracts, 300)
    assert (np.diff(contracts.contracts.expiry_group[:-1]) >= 0).all()
    assert (np.diff(contracts.contracts.strike_group[:-1]) >= 0).all()
    for row in range(len(book.unit)):
        legs = book.contract[book.leg_start[row] : book.leg_start[row + 1]]
        assert (np.diff(legs) > 0).all()
        assert (contracts.contracts.unit[legs] == book.unit[row]).all()
    part = first_accounts(book, 7)
    assert len(part) == 7
    assert part.leg_start[-1] == len(part.contract) == book.leg_start[book.unit_start[7]]
    assert part.cash_start[-1] == len(part.entry)


@pytest.mark.slow
def test_the_made_up_book_has_accounts_of_several_statuses() -> None:
    contracts = made_up_contracts()
    engine = Engine(frozen.load(), contracts, Settings("cpu"))
    status = np.concatenate([part.result.accounts.health.status for part in engine.run(made_up_book(contracts, 2_000))])
    assert set(np.unique(status)) >= {0, 2}
    assert 4 not in status


@pytest.mark.slow
def test_it_runs_where_nothing_else_is_installed(tmp_path: Path) -> None:
    out = tmp_path / "device.json"
    command = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT!r}))
sys.argv = ["device.py", "--accounts", "400,900", "--repeats", "2", "--out", {str(out)!r}]
runpy.run_path({str(BENCHMARKS / "device.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=900, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert [(case["accounts"], case["dtype"]) for case in report["cases"]] == [
        (400, "float64"),
        (400, "float32"),
        (900, "float64"),
        (900, "float32"),
    ]
    assert all(case["stages"]["leg stage"]["share_of_limit"] > 0 for case in report["cases"])
    assert report["left_out"] == []
