"""Implied vol of Black-76 options against fast-vollib, py_lets_be_rational and a numba loop; float64.

Undiscounted out-of-the-money options within 3 deviations, vol 20 % to 150 %, one day to two years: all opponents can
solve them. Answers are compared with the vol that made the prices before anything is timed. py_lets_be_rational takes
one option per call, so it gets the first few and its time is scaled.
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
from gpumargin.device import ACCOUNT_AXIS, account_mesh
from gpumargin_kernels._buckets import in_chunks
from gpumargin_kernels.implied_vol import implied_vol

CHUNK = 4_096
SCALAR_OPTIONS = 2_000  # for opponents that take one option per call
ROOM = 1e-9  # a well-conditioned price in float64, priced by plain differences, determines its vol to this


class Options(NamedTuple):
    """Columns of float64, `is_call` of bool, `[N]`."""

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
    out = np.empty(len(options.value))

    def solve() -> Any:
        _halley_all(options.value, options.forward, options.strike, options.years, out)
        return out

    return solve


def fast_vollib_solver(options: Options) -> Solver:
    """Its default solver (Halley, then bisection) in its numba backend."""
    from fast_vollib.backends import numba_backend

    flag, rate = np.where(options.is_call, "c", "p"), np.zeros(len(options.value))
    columns = (options.value, options.forward, options.strike, options.years, rate, flag)
    return lambda: numba_backend.implied_volatility("black", *columns, on_error="ignore")


def fast_vollib_jaeckel_solver(options: Options) -> Solver:
    """Its solver after Jaeckel (numba where it finds it)."""
    from fast_vollib.jackel import jackel_iv_black

    return lambda: jackel_iv_black(options.value, options.forward, options.strike, options.years, options.is_call)


def lets_be_rational_solver(options: Options) -> Solver:
    """The reference algorithm in plain Python (numba 0.68 cannot compile its release 1.1.2); one call per option."""
    from py_lets_be_rational.lets_be_rational import implied_volatility_from_a_transformed_rational_guess as solve

    columns = (options.value, options.forward, options.strike, options.years, np.where(options.is_call, 1.0, -1.0))
    rows = list(zip(*(column[:SCALAR_OPTIONS].tolist() for column in columns), strict=True))
    return lambda: np.array([solve(*row) for row in rows])


SOLVERS: dict[str, Callable[[Options], Solver]] = {
    "gpumargin": gpumargin_solver,
    "numba halley": numba_solver,
    "fast-vollib numba": fast_vollib_solver,
    "fast-vollib jaeckel": fast_vollib_jaeckel_solver,
    "py_lets_be_rational": lets_be_rational_solver,
}


def ready(options: Options, vol: Any) -> dict[str, Solver]:
    """Solvers that import and run, each with its errors printed; ours must be right."""
    found: dict[str, Solver] = {}
    for name, make in SOLVERS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                solver = make(options)
                answer = np.asarray(solver())
        except ImportError as error:
            print(f"{name}: left out, {error}")
            continue
        error = np.abs(answer / vol[: len(answer)] - 1)
        share = np.mean(~(error <= ROOM))
        print(f"{name:20s} vol error median {np.nanmedian(error):.1e} max {np.nanmax(error):.1e}; wrong {share:.2%}")
        if name == "gpumargin" and share > 0:
            message = f"{share:.2%} of our vols are off by more than {ROOM:.0e}; nothing was timed"
            raise SystemExit(message)
        found[name] = solver
    return found


def main() -> None:
    """Compares, measures, prints options per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--options", type=int, default=2**20)
    parser.add_argument("--save", help="name under benchmarks/results")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    unit = CHUNK * len(jax.devices("cpu"))
    rows = -(-arguments.options // unit) * unit
    solvers = ready(*make_options(rows))
    seconds = alternating(solvers)
    solved = {name: SCALAR_OPTIONS if name == "py_lets_be_rational" else rows for name in seconds}
    rate = {name: solved[name] / figures["median"] for name, figures in seconds.items()}
    for name, per_second in rate.items():
        ratio = rate["gpumargin"] / per_second
        print(f"{name:20s} {per_second:14,.0f} options per second; gpumargin is {ratio:.2f} times as fast")
    if arguments.save:
        print(save(arguments.save, {"machine": machine(), "options": solved, "seconds": seconds, "per_second": rate}))


if __name__ == "__main__":
    main()
