"""Claim that every benchmark still runs: each times only what it has first found to give the right answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tables import leg_stage_table
from gpumargin.synth import generate_book

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("bench_leg_stage.py", "--accounts", "500"),
        ("bench_pricing.py", "--options", "131072"),
        ("bench_implied_vol.py", "--options", "4096"),
    ],
    ids=lambda arguments: arguments[0].removesuffix(".py"),
)
def test_a_benchmark_finds_its_answers_right_and_prints_figures(arguments: tuple[str, ...]) -> None:
    pytest.importorskip("numba", reason="numba is an opponent of the benchmarks only")
    pytest.importorskip("scipy", reason="scipy is an opponent of the benchmarks only")
    name, *options = arguments
    done = subprocess.run(  # noqa: S603
        [sys.executable, BENCHMARKS / name, *options], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "float32 gpumargin" in done.stdout


@pytest.mark.slow
def test_models_are_timed_once_their_margins_are_finite() -> None:
    options = ["--accounts", "300", "--models", "aave-v3,derive-pm1", "--repeats", "2"]
    done = subprocess.run(  # noqa: S603
        [sys.executable, BENCHMARKS / "bench_models.py", *options],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "| derive-pm1 |" in done.stdout


@pytest.mark.slow
def test_a_block_is_timed_once_the_fused_kernel_agrees(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="numba is an opponent of the benchmarks only")
    pytest.importorskip("scipy", reason="scipy is an opponent of the benchmarks only")
    generate_book(tmp_path / "book", accounts=300, positions_per_account=4, underlyings=2, seed=1)
    options = ["--accounts", "300", "--book", tmp_path / "book", "--models", "deribit-pm", "--repeats", "2"]
    done = subprocess.run(  # noqa: S603
        [sys.executable, BENCHMARKS / "bench_block.py", *options],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "block / plain leg stage" in done.stdout
    assert "legs and accounts, numba" in done.stdout


def test_tables_are_made_of_results_alone() -> None:
    results = {
        "leg_stage_x": {
            "machine": {"processor": "P", "cores": 2, "jax": "1"},
            "float64": {"seconds": {"gpumargin plain": {"median": 0.5}, "c plain": {"median": 0.25}}, "left_out": {}},
        }
    }
    assert leg_stage_table(results) == [
        "| result | dtype | form | by | median, s | times gpumargin |",
        "| --- | --- | --- | --- | --- | --- |",
        "| `leg_stage_x` (P, 2, jax 1) | float64 | plain | gpumargin | 0.500 | 1.00 |",
        "| `leg_stage_x` (P, 2, jax 1) | float64 | plain | c | 0.250 | 0.50 |",
    ]
