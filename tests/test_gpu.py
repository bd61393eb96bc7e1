"""A GPU against the CPU for every model, and against itself: skipped, with the reason printed, where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from gpumargin import engine
from gpumargin.run import margin
from gpumargin.tables import read_book
from tests.test_every_model import NEWEST, case_of
from tests.whole_book import small, whole_book

if TYPE_CHECKING:
    from gpumargin.runs import Run
    from tests.whole_book import Tables

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[1]
ACCOUNTS = 2_000
MINOR = ("equity_minor", "initial_margin_minor", "maintenance_margin_minor")
GREEKS = ("delta", "gamma", "vega", "theta")
CHUNKS = (None, 4_096, 512)
RUNS = 20
ROUNDING = 1e-14  # of an account's largest amount: ten million at eight decimals has no exact last digit in float64


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return small(whole_book(tmp_path_factory.mktemp("gpu") / "book", accounts=ACCOUNTS))


def hashes(run: Run) -> dict[str, str]:
    return dict(run.manifest["results"])


def in_the_band(accounts: pl.DataFrame) -> pl.Series:
    """Accounts within one minor unit of a line, whose status may differ."""
    near = [pl.col(f"{kind}_excess").abs() <= 1e-2 for kind in ("initial", "maintenance")]
    return accounts.select(pl.any_horizontal(*near, pl.col("equity").abs() <= 1e-2)).to_series()


@pytest.mark.parametrize("label", NEWEST)
def test_money_differs_from_the_cpu_by_a_minor_unit_or_rounding_and_no_status_does(label: str, tables: Tables) -> None:
    case = case_of(label, tables, 0.2)
    book = read_book(**case.tables)
    gpu, cpu = (margin(book, case.model, device=device).accounts for device in ("gpu", "cpu"))
    room = np.maximum(1, ROUNDING * cpu.select(pl.max_horizontal(pl.col(*MINOR).abs())).to_series().to_numpy())
    for name in MINOR:
        assert np.all((gpu[name] - cpu[name]).abs().to_numpy() <= room), name
    for name in GREEKS:
        error = np.abs(gpu[name].to_numpy() - cpu[name].to_numpy())
        scale = np.maximum(np.abs(cpu[name].to_numpy()), cpu[name].abs().max() * 1e-3)
        assert np.all(error <= 1e-9 * scale + 1e-12), name
    differ = (gpu["status"].cast(pl.String) != cpu["status"].cast(pl.String)) & ~in_the_band(cpu)
    assert not differ.any(), cpu.filter(differ)


def test_twenty_runs_in_chunks_of_three_sizes_have_one_hash(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of("derive-pm1", tables, 0.2)
    book = read_book(**case.tables)
    found = []
    for rows in CHUNKS:
        monkeypatch.setattr(engine, "chunk_rows", lambda _, rows=rows: rows)
        found += [hashes(margin(book, case.model, device="gpu")) for _ in range(RUNS)]
    assert len(found) == RUNS * len(CHUNKS)
    assert all(own == found[0] for own in found)


DIGEST = """
import hashlib
import numpy as np
from benchmarks.frozen import load
from benchmarks.made_up import made_up_book, made_up_contracts
from gpumargin.engine import Engine, Settings
contracts = made_up_contracts()
equity, margin = [], []
for part in Engine(load(), contracts, Settings("gpu")).run(made_up_book(contracts, 400_000)):
    accounts = part.result.accounts
    equity.append(accounts.equity)
    margin.append(accounts.margin["initial"])
print(len(equity), hashlib.sha256(np.concatenate(equity + margin).tobytes()).hexdigest())
"""


def parts_and_digest(share: float) -> tuple[int, str]:
    """Of a book of 400,000 accounts in a process that may take a share of the card's memory."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "XLA_PYTHON_CLIENT_MEM_FRACTION": str(share), "XLA_FLAGS": ""}
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true"
    command = [sys.executable, "-c", DIGEST]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  our own code
    assert done.returncode == 0, done.stderr
    parts, digest = done.stdout.split()
    return int(parts), digest


def test_a_card_with_little_memory_gets_smaller_parts_and_the_same_bits() -> None:
    plenty, expected = parts_and_digest(0.3)
    parts, digest = parts_and_digest(0.004)
    assert parts > plenty
    assert digest == expected
