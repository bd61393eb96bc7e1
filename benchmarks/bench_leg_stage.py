"""Leg stage with plain sums and with the expiry level, against what else people would write: answers first, then time.

1,000,000 accounts, 11,000,000 legs, 33 scenarios, worst P&L per account. Opponents: fused numba loops, C with OpenMP,
scipy's sparse product, and in float64 the obvious JAX, polars and DuckDB, which take seconds a turn.
Usage: python benchmarks/bench_leg_stage.py [--accounts N] [--repeats N] [--fast] [--save NAME]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    f" --xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"
)
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.harness import REPEATS, alternating, machine, save
from benchmarks.opponents import worst_pnl_by_expiry_numba, worst_pnl_numba, worst_pnl_scipy
from benchmarks.opponents_c import compiler, worst_pnl_by_expiry_c, worst_pnl_c
from benchmarks.opponents_frames import HOW_TO_INSTALL_DUCKDB, worst_pnl_duckdb, worst_pnl_polars
from benchmarks.opponents_jax import worst_pnl_segment_sum
from benchmarks.workload import STANDARD, Legs, make_legs
from gpumargin.device import ACCOUNT_AXIS, account_mesh, chunk_rows
from gpumargin.native.choice import leg_loop
from gpumargin.pack.buckets import bucket_widths, by_length
from gpumargin_kernels import records
from gpumargin_kernels.components import _discounted_pnl
from gpumargin_kernels.tally import RowPlan


def buckets(legs: Legs, devices: int, rows_step: int) -> list[tuple[np.ndarray, records.Legs]]:
    """Rows by width, padded to a multiple of `rows_step` for every device."""
    length = np.diff(legs.indptr)
    widths = bucket_widths(length)
    padding = len(legs.table)
    made = []
    for width in np.unique(widths):
        every = np.flatnonzero(widths == width)
        rows = np.concatenate([own[by_length(length[own])] for own in np.array_split(every, devices)])
        padded = -(-len(rows) // (devices * rows_step)) * devices * rows_step
        slots = np.arange(width)
        used = np.zeros((padded, width), bool)
        used[: len(rows)] = slots < length[rows][:, None]
        source = np.zeros((padded, width), np.int64)
        source[: len(rows)] = legs.indptr[rows][:, None] + slots
        source = np.where(used, source, 0)
        contract = np.where(used, legs.contract[source], padding).astype(np.int32)
        quantity = np.where(used, legs.quantity[source], 0).astype(legs.quantity.dtype)
        made.append((rows, records.Legs(np.zeros(padded, np.int32), contract, quantity, inputs={})))
    return made


def contracts_of(legs: Legs) -> records.Contracts:
    """Only what the leg stage reads: the groups; one strike per contract."""
    blank = dict.fromkeys(records.Contracts._fields, np.zeros(1))
    expiry = np.append(legs.expiry, -1).astype(np.int32)
    strike = np.arange(len(expiry), dtype=np.int32)
    return records.Contracts(**blank | {"expiry_group": expiry, "strike_group": strike, "inputs": {}})


def plain_tally(legs: Legs) -> records.Tally:
    """Scenario P&L, summed over the row."""
    columns = np.vstack([legs.table, np.zeros_like(legs.table[:1])])
    return records.Tally(columns={"net": columns}, terms=columns[:, :0])


def expiry_tally(legs: Legs) -> records.Tally:
    """Scenario P&L and value, discounted by the sign of the expiry's net shocked value."""
    pnl = legs.table - legs.value[:, None]
    columns = np.hstack([pnl, legs.value[:, None]])
    columns = np.vstack([columns, np.zeros_like(columns[:1])])
    factor = np.append(legs.discount - 1, 0).astype(legs.table.dtype)
    terms = np.stack([factor, np.zeros_like(factor)], axis=1)
    return records.Tally(columns={"net": columns}, terms=terms, level="expiry", close=_discounted_pnl)


def _worst(shared: tuple[()], sums: tuple[jax.Array, ...], unit: jax.Array, one: jax.Array) -> jax.Array:
    del shared, unit, one
    return jnp.min(sums[0], axis=1)


def ours(legs: Legs, tally: records.Tally) -> Callable[[], list[jax.Array]]:
    """The leg stage on all host devices, by the loop that a run uses; returns the worst P&L per row of every bucket."""
    devices = jax.devices("cpu")
    mesh, loop = account_mesh(devices), leg_loop(devices[0], chunk_rows(devices[0]), "auto")
    row, shared = PartitionSpec(ACCOUNT_AXIS), PartitionSpec()
    packed = buckets(legs, len(devices), loop.chunk or 1)

    def worst(
        tally: records.Tally, contracts: records.Contracts, zero: jax.Array, *own: records.Legs
    ) -> list[jax.Array]:
        found = loop.rows(RowPlan((tally,), contracts, _worst, (), 0), own, zero, loop.chunk)
        ends = np.cumsum([bucket.contract.shape[0] for bucket in own])
        return jnp.split(found, ends[:-1])

    program = jax.jit(
        jax.shard_map(
            worst, mesh=mesh, in_specs=(shared, shared, shared, *[row] * len(packed)), out_specs=row, check_vma=False
        )
    )
    place = partial(jax.device_put, device=NamedSharding(mesh, shared))
    held = place(tally), place(contracts_of(legs)), place(np.zeros((), legs.table.dtype))
    sharded = [jax.device_put(bucket, NamedSharding(mesh, row)) for _, bucket in packed]
    return lambda: jax.block_until_ready(program(*held, *sharded))


def unpacked(legs: Legs, results: list[jax.Array]) -> np.ndarray:
    """Worst P&L in account order."""
    chunk = chunk_rows(jax.devices("cpu")[0]) or 1
    found = np.empty(len(legs.indptr) - 1)
    for (rows, _), result in zip(buckets(legs, len(jax.devices("cpu")), chunk), results, strict=True):
        found[rows] = np.asarray(result)[: len(rows)]
    return found


Runs = dict[str, Callable[[], np.ndarray]]


def opponents_of(legs: Legs, *, is_fast: bool) -> tuple[Runs, dict[str, str]]:
    """What runs beside us, by name and form; and what does not, with the reason."""
    runs: Runs = {
        "numba plain": lambda: worst_pnl_numba(legs),
        "scipy plain": lambda: worst_pnl_scipy(legs),
        "numba by expiry": lambda: worst_pnl_by_expiry_numba(legs),
    }
    left_out: dict[str, str] = {}
    if compiler() is None:
        left_out["c"] = "no C compiler (cc, gcc or clang) on this machine"
    else:
        runs |= {"c plain": worst_pnl_c(legs), "c by expiry": worst_pnl_by_expiry_c(legs)}
    if is_fast or legs.table.dtype != np.float64:
        return runs, left_out
    runs |= {"jax segment_sum plain": worst_pnl_segment_sum(legs), "polars plain": worst_pnl_polars(legs)}
    if find_spec("duckdb") is None:
        left_out["duckdb"] = f"not installed: {HOW_TO_INSTALL_DUCKDB}"
    else:
        runs["duckdb plain"] = worst_pnl_duckdb(legs)
    return runs, left_out


def check(name: str, found: np.ndarray, expected: np.ndarray, gross: np.ndarray, room: float) -> None:
    """Ends the run where an answer differs.

    Raises:
      SystemExit: by more than `room`, relative to the account's gross value.
    """
    error = float(np.max(np.abs(found - expected) / gross))
    if not error <= room:
        message = f"{name}: answers differ by {error:.1e} of the gross value; nothing was timed"
        raise SystemExit(message)


def measure(legs: Legs, *, room: float, repeats: int, is_fast: bool) -> dict[str, Any]:
    """Checks the answers, then times everything in turn."""
    gross = np.abs(legs.table).max() * np.abs(legs.quantity).max() * np.diff(legs.indptr)
    expected = {"plain": worst_pnl_numba(legs), "by expiry": worst_pnl_by_expiry_numba(legs)}
    own = {"plain": ours(legs, plain_tally(legs)), "by expiry": ours(legs, expiry_tally(legs))}
    opponents, left_out = opponents_of(legs, is_fast=is_fast)
    for form, run in own.items():
        check(f"gpumargin {form}", unpacked(legs, run()), expected[form], gross, room)
    for name, run in opponents.items():
        form = "by expiry" if name.endswith("by expiry") else "plain"
        check(name, run(), expected[form], gross, room)
    work: dict[str, Callable[[], object]] = {f"gpumargin {form}": run for form, run in own.items()}
    return {"seconds": alternating(work | opponents, repeats), "left_out": left_out}


def show(dtype: str, found: dict[str, Any]) -> None:
    """Prints seconds, and how many times as long as gpumargin each opponent takes."""
    seconds = found["seconds"]
    for name, figures in seconds.items():
        form = "by expiry" if name.endswith("by expiry") else "plain"
        times = figures["median"] / seconds[f"gpumargin {form}"]["median"]
        print(f"{dtype} {name:24s} median {figures['median']:.4f} s  min {figures['min']:.4f} s  x {times:.2f}")
    for name, reason in found["left_out"].items():
        print(f"{dtype} {name} left out: {reason}")


def main() -> None:
    """Measures both precisions and prints seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=STANDARD["accounts"])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--fast", action="store_true", help="leave out the opponents that take seconds a turn")
    parser.add_argument("--save", help="name under benchmarks/results")
    options = parser.parse_args()
    legs = make_legs(**STANDARD | {"accounts": options.accounts})
    report: dict[str, Any] = {"machine": machine(), "legs": len(legs.contract), "accounts": options.accounts}
    report["repeats"] = options.repeats
    for dtype, room in (("float64", 1e-12), ("float32", 1e-4)):
        with jax.enable_x64(dtype == "float64"):
            found = measure(legs.as_dtype(np.dtype(dtype)), room=room, repeats=options.repeats, is_fast=options.fast)
        report[dtype] = found
        show(dtype, found)
    if options.save:
        print(save(options.save, report))


if __name__ == "__main__":
    main()
