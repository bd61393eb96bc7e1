"""What this machine does at most, measured by programs of the same compiler: copying memory, multiplying and adding."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gpumargin.device import DeviceChoice, account_mesh, choose_devices
from gpumargin.engine import DType, compiled, finished, placed

_COPY_BYTES = 1 << 28  # on each device: far beyond every cache
_COPY_TRIPS = 16
# Multiply-adds of one number between load and store, the fastest counts; and so many numbers: what a first-level cache
# holds, or enough to fill an accelerator, which needs the longer chains to hide its memory.
_CPU_CHAINS, _CPU_NUMBERS = (8, 32), 1 << 12
_OTHER_CHAINS, _OTHER_NUMBERS = (128, 512), 1 << 22
_REPEATS = 7


class Limits(NamedTuple):
    """Rates of all devices together.

    Attributes:
      copy: bytes per second, read and written ones both counted.
      multiply_add: operations per second, two to a multiply-add.
    """

    copy: float
    multiply_add: float


def _fastest(run: Callable[[], Any]) -> float:
    """Least seconds of several runs."""
    finished(run())
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        finished(run())
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _chain(length: int, trips: int) -> Callable[[Array, Array, Array], Array]:
    def multiply_add(factor: Array, term: Array, numbers: Array) -> Array:
        def trip(_: Array, x: Array) -> Array:
            for _step in range(length):
                x = x * factor + term
            return x

        return jnp.asarray(lax.fori_loop(0, trips, trip, numbers))

    return multiply_add


def _rewritten(zero: Array, numbers: Array) -> Array:
    """Numbers read and written several times: fresh pages of memory are cleared in the first trip only."""
    return jnp.asarray(lax.fori_loop(0, _COPY_TRIPS, lambda _, x: x + zero, numbers))


def measured_limits(device: DeviceChoice, dtype: DType) -> Limits:
    """Copy bandwidth and multiply-add rate of the devices that a run would use.

    The copy reads and writes 256 MiB per device, again and again. The multiply-adds are chains on numbers in the
    first-level cache (CPU) or on four million numbers (other devices), as XLA compiles them: what a kernel of this
    package could reach, which may be less than what the maker of the device states.
    """
    devices = choose_devices(device)
    mesh = account_mesh(devices)
    zero, one = np.zeros((), dtype), np.ones((), dtype)
    large = placed(np.ones((len(devices), _COPY_BYTES // np.dtype(dtype).itemsize), dtype), mesh)
    moved = 2 * _COPY_BYTES * _COPY_TRIPS * len(devices)
    copied = moved / _fastest(compiled(_rewritten, mesh, (zero,), (large,)))
    is_cpu = devices[0].platform == "cpu"
    count, chains = (_CPU_NUMBERS, _CPU_CHAINS) if is_cpu else (_OTHER_NUMBERS, _OTHER_CHAINS)
    small = placed(np.ones((len(devices), count), dtype), mesh)
    rates = []
    for length in chains:
        trips = max(2, (1 << 30) // (count * length))
        seconds = _fastest(compiled(_chain(length, trips), mesh, (one, zero), (small,)))
        rates.append(2 * count * length * trips * len(devices) / seconds)
    return Limits(copied, max(rates))
