"""Implied vol of Black-76 options against a numba loop and, in float64, against the libraries of `libraries.py`.

Undiscounted out-of-the-money options within 3 deviations, vol 20 % to 150 %, one day to two years: all opponents can
solve them. Answers are compared with the vol that made the prices before anything is timed.
Usage: python benchmarks/bench_implied_vol.py [--options N] [--save NAME]
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    f" --xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"
)
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]

import jax
import numba
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from scipy.special import ndtr

from benchmarks.harness import alternating, machine, save
from benchmarks.libraries import SCALAR, SCALAR_OPTIONS, SOLVERS
from gpumargin.device import ACCOUNT_AXIS, account_mesh
from gpumargin_kernels._buckets import in_chunks
from gpumargin_kernels.implied_vol import implied_vol

CHUNK = 4_096
# What a well-conditioned price, priced by plain differences and rounded to its type, determines its vol to.
ROOM = {"float64": 1e-9, "float32": 1e-3}


class Options(NamedTuple):
    """Columns of one float type, `is_call` of bool, `[N]`."""

    value: Any
    forward: Any
    strike: Any
    years: Any
    is_call: Any
    discount: Any


Solver = Callable[[], Any]


def make_options(rows: int) -> tuple[Options, Any]:
    """Out-of-the-money options and the vols that priced them."""
    rng = np.random.default_rng(7)
    vol, years = np.exp(rng.uniform(np.log(0.2), np.log(1.5), rows)), np.exp(rng.uniform(-5.9, 0.7, rows))
    stdev, forward = vol * np.sqrt(years), np.exp(rng.uniform(1, 11, rows))
    strike = forward * np.exp(stdev * rng.uniform(-3, 3, rows))
    d1 = np.log(forward / strike) / stdev + 0.5 * stdev
    is_call = strike >= forward
    sign = np.where(is_call, 1, -1)
    value = sign * (forward * ndtr(sign * d1) - strike * ndtr(sign * (d1 - stdev)))
    return Options(value, forward, strike, years, is_call, np.ones(rows)), vol


def gpumargin_solver(options: Options) -> Solver:
    """Our kernel on all host devices, in chunks that stay in the cache."""
    mesh, spec = account_mesh(jax.devices("cpu")), PartitionSpec(ACCOUNT_AXIS)

    def solve(columns: Options) -> jax.Array:
        return in_chunks(lambda part: implied_vol(*part), columns, CHUNK).vol

    program = jax.jit(jax.shard_map(solve, mesh=mesh, in_specs=(spec,), out_specs=spec, check_vma=False))
    held = jax.device_put(options, NamedSharding(mesh, spec))
    return lambda: jax.block_until_ready(program(held))


@numba.njit(error_model="numpy")  # type: ignore[untyped-decorator, unused-ignore]
def _halley(log_moneyness: float, price: float) -> float:
    """Halley's iteration on the logarithm of price / min(F, K), from the inflection, until it stands still."""
    s = max(math.sqrt(2 * log_moneyness), 2.5 * price)
    for _ in range(40):
        d, e = log_moneyness / s - s / 2, log_moneyness / s + s / 2
        grown = math.exp(log_moneyness)
        found = 0.5 * (math.erfc(d * math.sqrt(0.5)) - grown * math.erfc(e * math.sqrt(0.5)))
        slope = math.exp(-0.5 * d * d) / math.sqrt(2 * math.pi) / found
        newton = -math.log(found / price) / slope
        step = newton / (1 + 0.5 * newton * (d * e / s - slope))
        s = max(s + step, 0.2 * s)
        if abs(step) < 1e-7 * s:  # cubic convergence: the next step would be below 1e-20
            break
    return s


@numba.njit(parallel=True, error_model="numpy")  # type: ignore[untyped-decorator, unused-ignore]
def _halley_all(value: Any, forward: Any, strike: Any, years: Any, out: Any) -> None:
    for i in numba.prange(len(out)):
        near = min(forward[i], strike[i])
        out[i] = _halley(abs(math.log(forward[i] / strike[i])), value[i] / near) / math.sqrt(years[i])


def numba_solver(options: Options) -> Solver:
    """A fused loop over all cores, for out-of-the-money options alone."""
    out = np.empty_like(options.value)

    def solve() -> Any:
        _halley_all(options.value, options.forward, options.strike, options.years, out)
        return out

    return solve


OURS: dict[str, Callable[[Options], Solver]] = {"gpumargin": gpumargin_solver, "numba halley": numba_solver}


def ready(options: Options, vol: Any, dtype: str) -> dict[str, Solver]:
    """Solvers that import and run, each with its errors printed; ours must be right."""
    found: dict[str, Solver] = {}
    for name, make in (OURS | (SOLVERS if dtype == "float64" else {})).items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                solver = make(options)
                answer = np.asarray(solver(), np.float64)
        except ImportError as error:
            print(f"{name}: left out, {error}")
            continue
        error = np.abs(answer / vol[: len(answer)] - 1)
        share = np.mean(~(error <= ROOM[dtype]))
        print(f"{name:20s} vol error median {np.nanmedian(error):.1e} max {np.nanmax(error):.1e}; wrong {share:.2%}")
        if name == "gpumargin" and share > 0:
            message = f"{share:.2%} of our vols are off by more than {ROOM[dtype]:.0e}; nothing was timed"
            raise SystemExit(message)
        found[name] = solver
    return found


def measure(rows: int, dtype: str) -> dict[str, Any]:
    """Seconds of every solver in one precision, printed as options per second with ratios."""
    options, vol = make_options(rows)
    narrow = Options(*(x.astype(dtype) if x.dtype.kind == "f" else x for x in options))
    seconds = alternating(ready(narrow, vol, dtype))
    solved = {name: SCALAR_OPTIONS if name in SCALAR else rows for name in seconds}
    rate = {name: solved[name] / figures["median"] for name, figures in seconds.items()}
    for name, per_second in rate.items():
        ratio = rate["gpumargin"] / per_second
        print(f"{dtype} {name:20s} {per_second:14,.0f} options per second; gpumargin is {ratio:.2f} times as fast")
    return {"options": solved, "seconds": seconds, "per_second": rate}


def main() -> None:
    """Compares and measures both precisions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--options", type=int, default=2**20)
    parser.add_argument("--save", help="name under benchmarks/results")
    arguments = parser.parse_args()
    unit = CHUNK * len(jax.devices("cpu"))
    rows = -(-arguments.options // unit) * unit
    report: dict[str, Any] = {"machine": machine()}
    for dtype in ROOM:
        with jax.enable_x64(dtype == "float64"):
            report[dtype] = measure(rows, dtype)
    if arguments.save:
        print(save(arguments.save, report))


if __name__ == "__main__":
    main()
