"""The engine alone on whatever device JAX finds: contract, leg and account stage, beside the device's own limits.

For a machine with a GPU where only jax, numpy and pyarrow are installed beside this repository. Book and contracts are
made with numpy, the model is `derive_pm1.json` (see `frozen.py`). Per precision and size: every stage compiled on its
own and the whole, medians of the turns; bytes and operations by the rules of `gpumargin.bench.counting`, beside a
measured copy bandwidth and multiply-add rate. Answers of the first accounts are compared with float64 on the CPU of the
same process. Several devices share the accounts, as in a run. No new case begins after `--minutes`.
Usage: python benchmarks/device.py [--accounts 1000000,4000000] [--repeats N] [--minutes M] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any, cast

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    f" --xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"
)
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]

import jax
import numpy as np
import pyarrow as pa

from benchmarks.frozen import load
from benchmarks.made_up import first_accounts, made_up_book, made_up_contracts
from gpumargin.bench.limits import measured_limits
from gpumargin.bench.stages import REPEATS, beside_limits, stages_of, timings
from gpumargin.clock import Clock
from gpumargin.engine import DType, Engine, Settings
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.legs import LegBook

CHECKED = 20_000
ROOM = {"float64": 1e-9, "float32": 1e-4}  # of an account's gross value
Answers = dict[str, np.ndarray]


def answers(accounts: Any) -> Answers:
    """What is compared, numpy."""
    found = {f"{kind}_margin": accounts.margin[kind] for kind in ("initial", "maintenance")}
    found |= {f"{kind}_excess": accounts.health.excess[kind] for kind in ("initial", "maintenance")}
    return {name: np.asarray(x) for name, x in (found | {"equity": accounts.equity}).items()}


def on_the_cpu(contracts: ContractSet, book: LegBook) -> Answers:
    """Answers in float64 by the CPU path."""
    engine = Engine(load(), contracts, Settings("cpu", "float64"))
    parts = [answers(part.result.accounts) for part in engine.run(book)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def gross_of(contracts: ContractSet, book: LegBook) -> np.ndarray:
    """Gross value of every account."""
    spot = np.asarray(contracts.market.spot)[np.asarray(contracts.contracts.unit)[book.contract]]
    owner = np.repeat(np.arange(len(book)), np.diff(book.leg_start[book.unit_start]))
    return np.asarray(np.bincount(owner, np.abs(book.quantity) * spot, minlength=len(book)) + np.abs(book.amount))


def checked_share(book: LegBook, devices: int) -> int:
    """First accounts that are compared: none beyond the first device's share."""
    return min(CHECKED, len(book) // devices)


def check(found: Answers, expected: Answers, gross: np.ndarray, dtype: DType) -> dict[str, float]:
    """Largest difference of each answer, relative to gross value.

    Raises:
      SystemExit: one is beyond `ROOM`, or not finite.
    """
    errors = {name: float(np.max(np.abs(found[name] - x) / gross)) for name, x in expected.items()}
    bad = {name: error for name, error in errors.items() if not error <= ROOM[dtype]}
    if bad:
        message = f"{dtype}: answers differ from the CPU's by {bad} of the gross value"
        raise SystemExit(message)
    return errors


def measure(contracts: ContractSet, book: LegBook, dtype: DType, repeats: int, expected: Answers) -> dict[str, Any]:
    """Figures of one precision and size."""
    limits = measured_limits("auto", dtype)
    engine = Engine(load(), contracts, Settings("auto", dtype))
    stages = stages_of(engine, book)
    share = checked_share(book, len(engine.devices))
    first = jax.tree.map(lambda x: np.asarray(x[0])[:share], stages.result.accounts)
    own = {name: x[:share] for name, x in expected.items()}
    errors = check(answers(first), own, gross_of(contracts, first_accounts(book, share)), dtype)
    turns = []
    for _ in range(repeats):
        clock = Clock()
        stages.turn(clock)
        turns.append(clock.seconds)
    return {
        "dtype": dtype,
        "accounts": len(book),
        "legs": len(book.contract),
        "checked_accounts": share,
        "errors": errors,
        "limits": {"copy_bytes_per_s": limits.copy, "multiply_add_operations_per_s": limits.multiply_add},
        "compile": stages.compile_seconds,
        "stages": beside_limits(timings(turns), stages.work, limits),
    }


def machine() -> dict[str, Any]:
    """What was measured on."""
    return {
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "pyarrow": pa.__version__,
    }


def show(case: dict[str, Any]) -> None:
    print(f"{case['dtype']} {case['accounts']:,} accounts, {case['legs']:,} legs", flush=True)
    for name, figures in case["stages"].items():
        limit = f"  {figures['share_of_limit']:.1%} of the limit" if "share_of_limit" in figures else ""
        print(f"  {name:18} median {figures['median']:.5f} s  min {figures['min']:.5f} s{limit}", flush=True)


def cases(report: dict[str, Any], sizes: list[int], repeats: int, minutes: float, out: Path) -> None:
    """Runs every size in both precisions while there is time; writes after each."""
    start, contracts = time.perf_counter(), made_up_contracts()
    for accounts in sizes:
        book = made_up_book(contracts, accounts)
        expected = on_the_cpu(contracts, first_accounts(book, min(CHECKED, accounts)))
        for dtype in ("float64", "float32"):
            if time.perf_counter() - start > 60 * minutes:
                report["left_out"].append(f"{dtype} {accounts}: out of time")
                continue
            try:
                case = measure(contracts, book, cast("DType", dtype), repeats, expected)
            except jax.errors.JaxRuntimeError as error:
                report["left_out"].append(f"{dtype} {accounts}: {str(error).splitlines()[0]}")
                continue
            report["cases"].append(case)
            show(case)
            out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Measures and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", default="1000000,4000000", help="sizes, with commas between, smallest first")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--out", type=Path, default=Path("device.json"))
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "model": "derive-pm1", "cases": [], "left_out": []}
    sizes = [int(text) for text in options.accounts.split(",")]
    cases(report, sizes, options.repeats, options.minutes, options.out)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print("\n".join(report["left_out"]) or "nothing left out")


if __name__ == "__main__":
    main()
