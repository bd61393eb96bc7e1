"""Claim that every benchmark still runs: each times only what it has first found to give the right answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
