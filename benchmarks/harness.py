"""Timing that compares: alternating repeats, medians and minima, answers checked before."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

REPEATS = 15


def alternating(
    work: Mapping[str, Callable[[], object]], repeats: int = REPEATS, *, ready: Callable[[], object] | None = None
) -> dict[str, dict[str, float]]:
    """Seconds of each piece of work: all in turn, again and again, so that a drift of the machine meets all alike.

    Each runs once before, untimed; `ready` is called then.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for run in work.values():
        run()
    if ready is not None:
        ready()
    for _ in range(repeats):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: {"min": min(s), "median": statistics.median(s)} for name, s in seconds.items()}


def machine() -> dict[str, Any]:
    """What was measured on."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],  # of the minute before: near or above the cores, and times say little
        "devices": [str(device) for device in jax.devices()],
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
    }


def save(name: str, content: Mapping[str, Any]) -> Path:
    """Writes `benchmarks/results/NAME.json`."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path
