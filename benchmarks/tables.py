"""Prints the markdown tables of the README from `results/*.json`: nothing in them is typed by hand.

Usage: python benchmarks/tables.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
Results = Mapping[str, Mapping[str, Any]]


def _header(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", f"| {' | '.join('---' for _ in names)} |"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _where(name: str, result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    return f"`{name}` ({machine['processor']}, {machine['cores']}, jax {machine['jax']})"


def _chosen(results: Results, prefix: str) -> dict[str, Mapping[str, Any]]:
    return {name: result for name, result in results.items() if name.startswith(prefix)}


def leg_stage_table(results: Results) -> list[str]:
    """Medians of `bench_leg_stage.py`, each beside ours of the same form and run."""
    lines = _header("result", "dtype", "form", "by", "median, s", "times gpumargin")
    for name, result in _chosen(results, "leg_stage").items():
        for dtype in ("float64", "float32"):
            found = result.get(dtype, {})
            seconds = found.get("seconds", found)  # results before opponents could be left out have no such level
            for form in ("plain", "by expiry"):
                own = {what.removesuffix(f" {form}"): s for what, s in seconds.items() if what.endswith(f" {form}")}
                for who, figures in own.items():
                    times = figures["median"] / own["gpumargin"]["median"]
                    cells = dtype, form, who, f"{figures['median']:.3f}", f"{times:.2f}"
                    lines.append(_row(_where(name, result), *cells))
    return lines


def block_table(results: Results) -> list[str]:
    """Medians of `bench_block.py`, and the block beside the plain leg stage and beside the fused kernel."""
    lines = _header(
        "result", "model", "accounts", "legs", "block, s", "contract stage, s", "numba legs and accounts, s",
        "plain leg stage, s", "10,000 fills, s", "block / plain", "block / (numba + contract stage)",
    )  # fmt: skip
    for name, result in _chosen(results, "block").items():
        for model, found in result["models"].items():
            median = {what: figures["median"] for what, figures in found["seconds"].items()}
            block, contracts, plain = median["block"], median["contract stage"], median["plain leg stage"]
            fused = median["legs and accounts, numba"]
            seconds = [f"{x:.4f}" for x in (block, contracts, fused, plain, median["fills"])]
            ratios = f"{block / plain:.2f}", f"{block / (fused + contracts):.2f}"
            sizes = f"{found['accounts']:,}", f"{found['legs']:,}"
            lines.append(_row(_where(name, result), model, *sizes, *seconds, *ratios))
    return lines


def run_table(results: Results) -> list[str]:
    """Whole runs of `bench_run.py`; a case that ran alone has no ratio, and its seconds include loading of programs."""
    lines = _header(
        "result", "book, memory budget", "repeats", "s", "us per account", "times polars", "peak above idle, GiB",
        "of the budget",
    )  # fmt: skip
    for name, result in _chosen(results, "run").items():
        for case, found in result["cases"].items():
            times = f"{found['gpumargin / polars']:.2f}" if "gpumargin / polars" in found else ""
            peak = f"{found['peak above idle, GiB']:.2f}", f"{found['peak above idle / budget']:.2f}"
            seconds = f"{found['gpumargin, s']:.1f}", f"{found['us per account']:.1f}"
            repeats = str(len(found["gpumargin, s of every repeat"]))
            accounts, _, rest = case.partition(" ")
            lines.append(_row(_where(name, result), f"{int(accounts):,} {rest}", repeats, *seconds, times, *peak))
    return lines


def _stages(lines: list[str], cells: tuple[str, ...], stages: Mapping[str, Mapping[str, float]]) -> None:
    for stage, figures in stages.items():
        counted = ("", "", "")
        if "bytes" in figures:
            share = f"{figures['share_of_limit']:.0%}"
            counted = f"{figures['bytes'] / 1e9:.3f}", f"{figures['operations'] / 1e9:.3f}", share
        lines.append(_row(*cells, stage, f"{figures['median']:.4f}", f"{figures['min']:.4f}", *counted))


def stages_table(results: Results) -> list[str]:
    """Stages of a run as `gpumargin bench` measured them."""
    lines = _header("result", "model, dtype", "stage", "median, s", "min, s", "GB", "G operations", "of the limit")
    for name, result in _chosen(results, "bench").items():
        case = f"{result['case']['model']}, {result['case']['dtype']}"
        _stages(lines, (f"`{name}`", case), result["stages"])
    return lines


def device_table(results: Results) -> list[str]:
    """Stages on a device as `device.py` measured them."""
    lines = _header(
        "result", "dtype, accounts", "stage", "median, s", "min, s", "GB", "G operations", "of the limit"
    )  # fmt: skip
    for name, result in _chosen(results, "device").items():
        for case in result["cases"]:
            where = f"`{name}` ({result['machine']['devices'][0]})"
            _stages(lines, (where, f"{case['dtype']}, {case['accounts']:,}"), case["stages"])
    return lines


TABLES: dict[str, Callable[[Results], list[str]]] = {
    "Leg stage": leg_stage_table,
    "Blocks": block_table,
    "Whole runs": run_table,
    "Stages": stages_table,
    "Devices": device_table,
}


def main() -> None:
    """Prints every table that has rows."""
    results = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    for title, make in TABLES.items():
        lines = make(results)
        if len(lines) > 2:
            sys.stdout.write(f"### {title}\n\n" + "\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
