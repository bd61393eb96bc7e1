"""Which devices compute, in which precision, and how much fits."""

from __future__ import annotations

from typing import Literal

import jax
from jax.sharding import Mesh

from gpumargin.errors import ResourceError

DeviceChoice = Literal["auto", "cpu", "gpu"]
ACCOUNT_AXIS = "accounts"

# Rows of one bucket handled together. On a CPU a chunk's accumulators must stay in the first-level cache; 64 rows of 33
# float64 columns are 17 kB (32 and 128 rows are 5 to 20 % slower, measured). A GPU takes all rows at once.
_CHUNK_ROWS = {"cpu": 64}
# Rows that the native loop sums before XLA goes on with them: their sums must stay in the second-level cache.
NATIVE_CHUNK_ROWS = 512
# Contracts priced together. What the formulas of one contract share must stay in the second-level cache: 128 to 1,024
# contracts of 25 float64 scenarios are equally fast, and 256 leave little padding behind a small listing (measured).
_CONTRACT_CHUNK = {"cpu": 256}


def _gpus() -> list[jax.Device]:
    try:
        return list(jax.devices("gpu"))
    except RuntimeError:
        return []


def choose_devices(choice: DeviceChoice) -> list[jax.Device]:
    """Devices that a run uses.

    Args:
      choice: `auto` takes every GPU, else every host device; `gpu` and `cpu` insist.

    Raises:
      ResourceError: `gpu` where JAX sees none. There is no silent fall-back.
    """
    gpus = _gpus() if choice != "cpu" else []
    if choice == "gpu" and not gpus:
        message = (
            f"JAX sees no GPU, only {len(jax.devices())} device(s) of backend {jax.default_backend()!r}; install "
            "gpumargin[cuda] for the driver's CUDA version, see `gpumargin doctor`, or run with --device cpu"
        )
        raise ResourceError(message)
    return gpus or list(jax.devices("cpu"))


def account_mesh(devices: list[jax.Device]) -> Mesh:
    """Mesh over which accounts are sharded."""
    return jax.make_mesh((len(devices),), (ACCOUNT_AXIS,), devices=devices, axis_types=(jax.sharding.AxisType.Auto,))


def chunk_rows(device: jax.Device) -> int | None:
    """Rows of a bucket computed together on a device; None = all of them."""
    return _CHUNK_ROWS.get(device.platform)


def contract_chunk(device: jax.Device) -> int | None:
    """Contracts priced together on a device; None = all of them."""
    return _CONTRACT_CHUNK.get(device.platform)
