"""The whole measurement: a generated book from its files to result tables, every stage apart, again and again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpumargin.bench.limits import measured_limits
from gpumargin.bench.stages import REPEATS, Stages, beside_limits, stages_of, timings
from gpumargin.catalogue import MarginModel, load_model
from gpumargin.clock import Clock
from gpumargin.device import DeviceChoice, choose_devices
from gpumargin.digests import ColumnDigest
from gpumargin.engine import DType, Engine, EngineResult, Settings
from gpumargin.identity import versions
from gpumargin.prepare import Options, Pass, prepare
from gpumargin.publish import write_table
from gpumargin.result_columns import described
from gpumargin.results import accounts_table, units_table
from gpumargin.synth import generate_book
from gpumargin.tables import read_book

FORMAT = 1
_COLD_STARTS = 3
_COLD_START = "from gpumargin.device import choose_devices; import gpumargin.engine; choose_devices({device!r})"


@dataclass(frozen=True)
class Case:
    """What is measured: a generated book, a model, where and how."""

    accounts: int = 100_000
    positions_per_account: float = 11.0
    underlyings: int = 2
    seed: int = 1
    model: str = "derive-pm1"
    device: DeviceChoice = "auto"
    dtype: DType = "float64"
    repeats: int = REPEATS


def measure(case: Case) -> dict[str, Any]:
    """Every stage of one case.

    Returns:
      A document for JSON: case, machine, shapes, stages (seconds, minimum and median, counted work), digest of answers.

    Raises:
      UsageError: a book that cannot be generated, or no such model. ResourceError: no such device, out of memory.
    """
    model = load_model(case.model)
    choose_devices(case.device)  # before a book is made for nothing
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "book"
        generate_book(
            book,
            accounts=case.accounts,
            positions_per_account=case.positions_per_account,
            underlyings=case.underlyings,
            seed=case.seed,
        )
        return _measured(case, model, book)


def _measured(case: Case, model: MarginModel, book: Path) -> dict[str, Any]:
    cold = [_cold_start(case.device) for _ in range(_COLD_STARTS)]
    limits = measured_limits(case.device, case.dtype)
    work = _ingested(case, model, book, Clock())
    results = list(work.engine.run(work.legs))
    stages = stages_of(work.engine, work.legs)
    turns = [_turn(case, model, book, stages, results) for _ in range(case.repeats)]
    seconds = {"cold start": timings({"cold start": s} for s in cold)["cold start"]} | timings(turns)
    return {
        "format": FORMAT,
        "case": asdict(case) | {"model": model.label},
        "machine": machine(work.engine),
        "versions": versions(),
        "shape": shape_of(work),
        "limits": {"copy_bytes_per_s": limits.copy, "multiply_add_operations_per_s": limits.multiply_add},
        "compile": stages.compile_seconds,
        "stages": beside_limits(seconds, stages.work, limits),
        "digest": digest_of(work, results),
    }


def _cold_start(device: DeviceChoice) -> float:
    """Seconds of a fresh process that imports the engine and starts its devices."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    start = time.perf_counter()
    subprocess.run(  # noqa: S603  this interpreter, our own words
        [sys.executable, "-c", _COLD_START.format(device=device)], check=True, capture_output=True, env=environment
    )
    return time.perf_counter() - start


def _ingested(case: Case, model: MarginModel, book: Path, clock: Clock) -> Pass:
    """The book read, checked, filled and packed; adds `ingest` and `pack`."""
    own = Clock()
    with own.stage("read"):
        tables = read_book(book)
    (work,) = prepare(tables, model, Options(settings=Settings(case.device, case.dtype)), own)
    packed = own.seconds.pop("pack")
    clock.seconds["ingest"] = clock.seconds.get("ingest", 0.0) + sum(own.seconds.values())
    clock.seconds["pack"] = clock.seconds.get("pack", 0.0) + packed
    return work


def _turn(case: Case, model: MarginModel, book: Path, stages: Stages, results: list[EngineResult]) -> dict[str, float]:
    """Seconds of every stage once; `pack` is sorting, coding and bucketing, and one pricing of the contracts."""
    clock = Clock()
    work = _ingested(case, model, book, clock)
    stages.turn(clock)
    with clock.stage("write"):
        _write(work, results)
    return clock.seconds


def _write(work: Pass, results: list[EngineResult]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(results):
            for name, made in (
                ("accounts", accounts_table(work.legs, part, work.naming)),
                ("units", units_table(work.legs, part, work.naming)),
            ):
                write_table(Path(folder) / f"{name}-{number}.parquet", described(made, name, work.money))


def digest_of(work: Pass, results: list[EngineResult]) -> str:
    """Hash of the accounts table: equal answers have equal ones, bit by bit."""
    digest = ColumnDigest()
    for part in results:
        digest.add(accounts_table(work.legs, part, work.naming))
    return digest.hexdigest()


def shape_of(work: Pass) -> dict[str, int]:
    """How large what was margined is."""
    return {
        "margin_accounts": len(work.legs),
        "unit_rows": len(work.legs.unit),
        "legs": len(work.legs.contract),
        "balances": len(work.legs.asset),
        "contracts": work.contracts.padding,
        "scenarios": int(np.shape(work.engine.table.risk.scenario_pnl)[1]),
    }


def machine(engine: Engine) -> dict[str, Any]:
    """What was measured on; `load` above the number of cores means that others were at work."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "devices": [f"{d.platform}: {d.device_kind}" for d in engine.devices],
    }
