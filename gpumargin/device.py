"""Which devices compute, in which precision, and how much fits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gpumargin.errors import ResourceError

DeviceChoice = Literal["auto", "cpu", "gpu"]
ACCOUNT_AXIS = "accounts"

# Rows of one bucket handled together. On a CPU a chunk's accumulators must stay in the first-level cache; 64 rows of 33
# float64 columns are 17 kB (32 and 128 rows are 5 to 20 % slower, measured). A GPU takes all rows at once.
_CHUNK_ROWS = {"cpu": 64}
# Contracts priced together. What the formulas of one contract share must stay in the second-level cache: 128 to 1,024
# contracts of 25 float64 scenarios are equally fast, and 256 leave little padding behind a small listing (measured).
_CONTRACT_CHUNK = {"cpu": 256}
_BLOCK = PartitionSpec(ACCOUNT_AXIS)  # type: ignore[no-untyped-call]
_SHARED = PartitionSpec()  # type: ignore[no-untyped-call]


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


def on_blocks(tree: Any, mesh: Mesh) -> Any:
    """Arrays `[devices, ...]` with one row on each device of a mesh, in 64 bits."""
    with jax.enable_x64(True):
        return jax.device_put(tree, NamedSharding(mesh, _BLOCK))


class Form(NamedTuple):
    """What a record of columns is made of, to be laid out as one array for each type."""

    tree: Any
    kinds: tuple[str, ...]  # of its columns

    def unstacked(self, stacks: dict[str, jax.Array]) -> Any:
        """The record."""
        columns = {kind: iter(stack) for kind, stack in stacks.items()}
        return jax.tree.unflatten(self.tree, [next(columns[kind]) for kind in self.kinds])


def stacked(record: Any) -> tuple[Form, dict[str, np.ndarray]]:
    """A record of columns `[M]` as one array `[columns, M]` for each type, and its form."""
    columns, tree = jax.tree.flatten(record)
    form = Form(tree, tuple(column.dtype.name for column in columns))
    return form, {
        kind: np.stack([c for c, own in zip(columns, form.kinds, strict=True) if own == kind])
        for kind in sorted(set(form.kinds))
    }


@cache
def _block_program(function: Callable[..., Any], mesh: Mesh, shared: int, *, donate: bool) -> Callable[..., Any]:
    def local(common: tuple[Any, ...], *blocks: Any) -> Any:
        result = function(*common, *jax.tree.map(lambda x: x[0], blocks))
        return jax.tree.map(lambda x: x[None], result)

    def program(*arguments: Any) -> Any:
        blocks = arguments[shared:]
        specs = (_SHARED, *[_BLOCK] * len(blocks))
        sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=_BLOCK, check_vma=False)
        return sharded(arguments[:shared], *blocks)

    return jax.jit(program, donate_argnums=(shared,) if donate else ())


def block_program(
    function: Callable[..., Any], mesh: Mesh, *, shared: int = 0, donate: bool = False
) -> Callable[..., Any]:
    """A kernel compiled to run on every device's own rows, once per process and shape.

    Args:
      function: a function at module level of `shared` common arguments, then of one device's rows.
      mesh: the devices.
      shared: how many leading arguments all devices have in common.
      donate: whether the first of the others may be overwritten.

    Returns:
      A function of the common arguments and of arrays `[devices, ...]`, to be called in any mode of precision: it
      enters 64 bits.
    """
    compiled = _block_program(function, mesh, shared, donate=donate)

    def called(*arguments: Any) -> Any:
        with jax.enable_x64(True):
            return compiled(*arguments)

    return called


@jax.jit
def _taken(rows: jax.Array, index: jax.Array) -> jax.Array:
    return rows[0, index]


def rows_at(array: jax.Array, device: int, index: np.ndarray) -> np.ndarray:
    """Some rows of one device's block of an array `[devices, ...]`.

    The CPU's own memory is read as it is; elsewhere the rows are picked there, in powers of two, so that calls share
    programs.
    """
    block = array.addressable_data(device)
    if next(iter(block.devices())).platform == "cpu":
        return cast("np.ndarray", np.asarray(block)[0][index])
    room = np.zeros(1 << max(len(index) - 1, 0).bit_length(), np.int32)
    room[: len(index)] = index
    with jax.enable_x64(True):
        return np.asarray(_taken(block, room))[: len(index)]


def addresses_of(array: jax.Array) -> list[int]:
    """Where each device's block of an array `[devices, ...]` begins in the host's memory, once all is written there."""
    ready = array.block_until_ready()
    return [ready.addressable_data(device).unsafe_buffer_pointer() for device in range(ready.shape[0])]


def in_precision(tree: Any, dtype: str) -> Any:
    """Arrays on the devices with the floating ones in another precision; themselves where that is float64."""
    if dtype == "float64":
        return tree
    with jax.enable_x64(True):
        return jax.tree.map(lambda x: x.astype(dtype) if np.issubdtype(x.dtype, np.floating) else x, tree)
