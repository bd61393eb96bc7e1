"""Leg stage with plain sums and with the expiry level, against fused numba loops that do the same.

1,000,000 accounts, 11,000,000 legs, 33 scenarios, worst P&L per account. Answers are compared before anything is timed.
Usage: python benchmarks/bench_leg_stage.py [--accounts N] [--save NAME]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    f" --xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"
)
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.harness import alternating, machine, save
from benchmarks.opponents import worst_pnl_by_expiry_numba, worst_pnl_numba, worst_pnl_scipy
from benchmarks.workload import STANDARD, Legs, make_legs
from gpumargin.device import ACCOUNT_AXIS, account_mesh, chunk_rows
from gpumargin.pack.buckets import bucket_widths
from gpumargin_kernels import records
from gpumargin_kernels._buckets import in_chunks
from gpumargin_kernels.components import _discounted_pnl
from gpumargin_kernels.tally import leg_sums


def buckets(legs: Legs, devices: int, rows_step: int) -> list[tuple[np.ndarray, records.Legs]]:
    """Rows by width, padded to a multiple of `rows_step` for every device."""
    length = np.diff(legs.indptr)
    widths = bucket_widths(length)
    padding = len(legs.table)
    made = []
    for width in np.unique(widths):
        rows = np.flatnonzero(widths == width)
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


def ours(legs: Legs, tally: records.Tally) -> Callable[[], list[jax.Array]]:
    """The leg stage on all host devices; returns the worst P&L per row of every bucket."""
    devices = jax.devices("cpu")
    mesh, chunk = account_mesh(devices), chunk_rows(devices[0])
    row, shared = PartitionSpec(ACCOUNT_AXIS), PartitionSpec()
    contracts = contracts_of(legs)

    def worst(tally: records.Tally, contracts: records.Contracts, zero: jax.Array, bucket: records.Legs) -> jax.Array:
        def of_chunk(rows: records.Legs) -> jax.Array:
            return jnp.min(leg_sums((tally,), contracts, rows, zero)[0], axis=1)

        return in_chunks(of_chunk, bucket, chunk)

    program = jax.jit(
        jax.shard_map(worst, mesh=mesh, in_specs=(shared, shared, shared, row), out_specs=row, check_vma=False)
    )
    place = partial(jax.device_put, device=NamedSharding(mesh, shared))
    held = place(tally), place(contracts), place(np.zeros((), legs.table.dtype))
    sharded = [jax.device_put(b, NamedSharding(mesh, row)) for _, b in buckets(legs, len(devices), chunk or 1)]
    return lambda: jax.block_until_ready([program(*held, bucket) for bucket in sharded])


def unpacked(legs: Legs, results: list[jax.Array]) -> np.ndarray:
    """Worst P&L in account order."""
    chunk = chunk_rows(jax.devices("cpu")[0]) or 1
    found = np.empty(len(legs.indptr) - 1)
    for (rows, _), result in zip(buckets(legs, len(jax.devices("cpu")), chunk), results, strict=True):
        found[rows] = np.asarray(result)[: len(rows)]
    return found


def measure(legs: Legs, *, room: float) -> dict[str, dict[str, float]]:
    """Checks the answers, then times everything in turn."""
    plain, by_expiry = ours(legs, plain_tally(legs)), ours(legs, expiry_tally(legs))
    gross = np.abs(legs.table).max() * np.abs(legs.quantity).max() * np.diff(legs.indptr)
    for found, expected in ((plain(), worst_pnl_numba(legs)), (by_expiry(), worst_pnl_by_expiry_numba(legs))):
        error = float(np.max(np.abs(unpacked(legs, found) - expected) / gross))
        if error > room:
            message = f"answers differ by {error:.1e} of the gross value"
            raise SystemExit(message)
    return alternating(
        {
            "gpumargin plain": plain,
            "numba plain": lambda: worst_pnl_numba(legs),
            "scipy plain": lambda: worst_pnl_scipy(legs),
            "gpumargin by expiry": by_expiry,
            "numba by expiry": lambda: worst_pnl_by_expiry_numba(legs),
        }
    )


def main() -> None:
    """Measures both precisions and prints seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=STANDARD["accounts"])
    parser.add_argument("--save", help="name under benchmarks/results")
    options = parser.parse_args()
    legs = make_legs(**STANDARD | {"accounts": options.accounts})
    report: dict[str, object] = {"machine": machine(), "legs": len(legs.contract), "accounts": options.accounts}
    for dtype, room in (("float64", 1e-12), ("float32", 1e-4)):
        with jax.enable_x64(dtype == "float64"):
            seconds = measure(legs.as_dtype(np.dtype(dtype)), room=room)
        report[dtype] = seconds
        for name, figures in seconds.items():
            print(f"{dtype} {name:22s} median {figures['median']:.4f} s  min {figures['min']:.4f} s")
        for kind in ("plain", "by expiry"):
            ratio = seconds[f"gpumargin {kind}"]["median"] / seconds[f"numba {kind}"]["median"]
            print(f"{dtype} {kind}: gpumargin / numba = {ratio:.2f}")
    if options.save:
        print(save(options.save, report))


if __name__ == "__main__":
    main()
