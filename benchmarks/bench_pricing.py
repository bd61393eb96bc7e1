"""Price and five Greeks of Black-Scholes-Merton options, against numpy with scipy and against numba.

1,048,576 options: value, delta, gamma, vega, theta and rho in float64 and float32; every way takes the same arrays and
its answers are compared with scipy's in float64 before anything is timed. Numba runs on all cores; gpumargin in chunks
that stay in the cache, over one host device per core, and once more as a single unchunked call. Libraries
(`libraries.py`) run in float64, with their errors printed.
Usage: python benchmarks/bench_pricing.py [--options N] [--save NAME]
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    f" --xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"
)
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]

import jax
import numba
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from scipy.special import ndtr

from benchmarks.harness import alternating, machine, save
from benchmarks.libraries import PRICERS, SCALAR, SCALAR_OPTIONS
from gpumargin_kernels._moves import Option
from gpumargin_kernels.black import option_greeks

NAMES = ("value", "delta", "gamma", "vega", "theta", "rho")
CHUNK = 2_048
# Largest difference from scipy in float64, of the natural size of each number.
ROOM = {"float64": 1e-12, "float32": 2e-4}


def make_options(count: int, dtype: str) -> Option:
    """Ordinary options: 1 week to 2 years, vol 10 % to 200 %, strikes around the money."""
    rng = np.random.default_rng(20260101)
    price = rng.uniform(50, 150, count)
    strike = price * np.exp(rng.normal(0, 0.3, count))
    vol, years = rng.uniform(0.1, 2.0, count), rng.uniform(0.02, 2.0, count)
    rate, carry = rng.uniform(0, 0.08, count), rng.uniform(-0.04, 0.08, count)
    numbers = [x.astype(dtype) for x in (price, strike, vol, years, rate, carry)]
    return Option(*numbers[:4], rng.random(count) < 0.5, *numbers[4:])


def by_scipy(option: Option) -> list[np.ndarray]:
    """The textbook formulas in numpy, one thread."""
    s, k, vol, t, is_call, r, b = option
    root = np.sqrt(t)
    stdev = vol * root
    d1 = (np.log(s / k) + b * t) / stdev + stdev / 2
    d2 = d1 - stdev
    sign = np.where(is_call, 1, -1).astype(s.dtype)
    discount, present = np.exp(-r * t), np.exp((b - r) * t)
    n1, n2 = ndtr(sign * d1), ndtr(sign * d2)
    density = np.exp(-d1 * d1 / 2) * s.dtype.type(1 / math.sqrt(2 * math.pi))
    first, second = sign * s * present * n1, sign * k * discount * n2
    delta, gamma = sign * present * n1, present * density / (s * stdev)
    vega = s * present * density * root
    theta = -s * present * density * vol / (2 * root) - r * second + (r - b) * first
    return [first - second, delta, gamma, vega, theta, t * second]


@numba.njit(parallel=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def _numba_loop(s: Any, k: Any, vol: Any, t: Any, is_call: Any, r: Any, b: Any, out: Any) -> None:
    one = s.dtype.type(1)
    half, root_half, peak = one / 2, s.dtype.type(math.sqrt(0.5)), s.dtype.type(1 / math.sqrt(2 * math.pi))
    for i in numba.prange(len(s)):
        root = math.sqrt(t[i])
        stdev = vol[i] * root
        d1 = (math.log(s[i] / k[i]) + b[i] * t[i]) / stdev + half * stdev
        d2 = d1 - stdev
        sign = one if is_call[i] else -one
        discount, present = math.exp(-r[i] * t[i]), math.exp((b[i] - r[i]) * t[i])
        n1, n2 = half * math.erfc(-sign * d1 * root_half), half * math.erfc(-sign * d2 * root_half)
        density = math.exp(-half * d1 * d1) * peak
        first, second = sign * s[i] * present * n1, sign * k[i] * discount * n2
        out[0, i] = first - second
        out[1, i] = sign * present * n1
        out[2, i] = present * density / (s[i] * stdev)
        out[3, i] = s[i] * present * density * root
        out[4, i] = -half * s[i] * present * density * vol[i] / root - r[i] * second + (r[i] - b[i]) * first
        out[5, i] = t[i] * second


def by_numba(option: Option) -> np.ndarray:
    """The same formulas fused in one parallel loop."""
    out = np.empty((len(NAMES), len(option.strike)), option.strike.dtype)
    _numba_loop(*option, out)
    return out


def greeks(option: Option) -> list[jax.Array]:
    """All outputs of all rows at once."""
    return list(option_greeks(option, NAMES).values())


def in_chunks(option: Option) -> list[jax.Array]:
    """The same, a chunk at a time, so that what formulas share stays in the cache."""
    chunks = jax.tree.map(lambda x: x.reshape(-1, CHUNK), option)
    return [x.reshape(-1) for x in lax.map(greeks, chunks)]


def ours(option: Option) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Chunked over all host devices, and one plain call; the inputs are placed beforehand."""
    mesh, rows = jax.make_mesh((len(jax.devices()),), ("rows",)), PartitionSpec("rows")
    sharded = jax.device_put(option, NamedSharding(mesh, rows))
    whole = jax.device_put(option, jax.devices()[0])
    program = jax.jit(jax.shard_map(in_chunks, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False))
    plain = jax.jit(greeks)
    return lambda: jax.block_until_ready(program(sharded)), lambda: jax.block_until_ready(plain(whole))


def largest_error(found: Any, option: Option) -> tuple[float, str]:
    """Largest difference from scipy in float64, of the natural size of the quantity, and which quantity that is."""
    rows = len(found[0])
    wide = Option(*(x[:rows].astype(np.float64) if x.dtype.kind == "f" else x[:rows] for x in option))
    larger, root = np.maximum(wide.underlying, wide.strike), np.sqrt(wide.years)
    scales = (larger, 1, 1 / (wide.underlying * wide.vol * root), larger, larger * (1 + wide.vol / root), larger)
    errors = [
        float(np.max(np.abs(np.asarray(mine, np.float64) - want) / scale))
        for mine, want, scale in zip(found, by_scipy(wide), scales, strict=True)
    ]
    worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
    return errors[worst], NAMES[worst]


def compare(work: Mapping[str, Callable[[], Any]], option: Option, room: float) -> None:
    """Ends the run if any way differs from scipy in float64 by more than `room`."""
    for name, run in work.items():
        error, quantity = largest_error(run(), option)
        if not error <= room:
            message = f"{name}: {quantity} differs by {error:.1e} of its scale"
            raise SystemExit(message)


def libraries(option: Option) -> dict[str, Callable[[], Any]]:
    """The libraries that are installed, each with its largest error printed; the others named."""
    found = {}
    for name, make in PRICERS.items():
        try:
            work = make(option)
        except ImportError as error:
            print(f"{name}: left out, {error}")
            continue
        print("{}: largest error {:.1e} of its scale, in {}".format(name, *largest_error(work(), option)))
        found[name] = work
    return found


def measure(option: Option, dtype: str) -> dict[str, dict[str, float]]:
    """Checks the answers, then times everything in turn."""
    chunked, plain = ours(option)
    work: dict[str, Callable[[], Any]] = {
        "gpumargin": chunked,
        "gpumargin, one call": plain,
        "numba": partial(by_numba, option),
        "numpy and scipy": partial(by_scipy, option),
    }
    compare(work, option, ROOM[dtype])
    return alternating(work | (libraries(option) if dtype == "float64" else {}))


def main() -> None:
    """Measures both precisions and prints millions of options per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--options", type=int, default=1 << 20, help="a multiple of the chunk times the cores")
    parser.add_argument("--save", help="name under benchmarks/results")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "options": options.options}
    for dtype in ("float64", "float32"):
        with jax.enable_x64(dtype == "float64"):
            report[dtype] = seconds = measure(make_options(options.options, dtype), dtype)
        priced = {name: SCALAR_OPTIONS if name in SCALAR else options.options for name in seconds}
        rates = {name: priced[name] / figures["median"] / 1e6 for name, figures in seconds.items()}
        for name, rate in rates.items():
            ratio = rates["gpumargin"] / rate
            print(f"{dtype} {name:20s} median {rate:8.2f} M/s, gpumargin is {ratio:6.2f} times as fast")
        report[f"{dtype} options per second"] = {name: 1e6 * rate for name, rate in rates.items()}
    if options.save:
        print(save(options.save, report))


if __name__ == "__main__":
    main()
