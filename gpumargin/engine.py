"""The only place that compiles: the contract stage once, then the book part by part through one program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, NamedTuple, cast

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gpumargin.device import (
    ACCOUNT_AXIS,
    DeviceChoice,
    Form,
    account_mesh,
    choose_devices,
    chunk_rows,
    contract_chunk,
    stacked,
)
from gpumargin.errors import ResourceError
from gpumargin.native.choice import LegLoop, LegLoopChoice, leg_loop
from gpumargin.pack.buckets import Plan, Shape, Shard, bucket_widths, even_rows, make_plan, pack_shard
from gpumargin.pack.contracts import ContractSet, padded_contracts
from gpumargin.pack.legs import LegBook
from gpumargin.pack.shapes import KnownShapes
from gpumargin_kernels.margin import ContractTable, PartResult, contract_stage, part_margin
from gpumargin_kernels.model import Model
from gpumargin_kernels.records import Book
from gpumargin_kernels.scenario import ContractRisk

DType = Literal["float64", "float32"]
MAX_ACCOUNTS_PER_SHARD = 1 << 18
MIN_ACCOUNTS_PER_SHARD = 1 << 10
DEFAULT_MEMORY_BUDGET = 4 << 30
_BYTES_PER_LEG = 64  # contract, quantity and their packing, padding and staging copies included (measured)
_BYTES_PER_UNIT_ROW_COLUMN = 48  # a float64 result, its bucketed copy and its copy on the host
_BLOCK = PartitionSpec(ACCOUNT_AXIS)  # type: ignore[no-untyped-call]
_COLUMNS = PartitionSpec(None, ACCOUNT_AXIS)  # type: ignore[no-untyped-call]
_SHARED = PartitionSpec()  # type: ignore[no-untyped-call]


def computed(function: Callable[..., Any], arguments: tuple[Any, ...], device: DeviceChoice) -> Any:
    """What a kernel makes of numpy arguments, numpy, in 64 bits on the first device; compiled once per shape."""
    with jax.enable_x64(True):
        placed = jax.device_put(arguments, choose_devices(device)[0])
        return jax.tree.map(np.asarray, _program(function)(*placed))


@cache
def _program(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function)


def finished(results: Any) -> Any:
    """The same arrays once the devices are done with them."""
    return jax.block_until_ready(results)  # type: ignore[no-untyped-call]


class EngineResult(NamedTuple):
    """Results of one part in canonical order, numpy, padding cut off."""

    first_account: int
    first_row: int
    result: PartResult


@dataclass(frozen=True)
class Settings:
    """How to compute; none of it changes a result beyond what `dtype` says.

    Attributes:
      device: where.
      dtype: precision of the kernels.
      memory_budget: bytes that parts in flight may take.
      leg_loop: `auto` = the fastest that there is; `xla` = that of XLA, on any device. Both give the same bits.
      contract_step: the contract table grows by this many rows at least, so that a few listings more do not compile.
    """

    device: DeviceChoice = "auto"
    dtype: DType = "float64"
    memory_budget: int = DEFAULT_MEMORY_BUDGET
    leg_loop: LegLoopChoice = "auto"
    contract_step: int = 1


def _cast(tree: Any, dtype: DType) -> Any:
    """Floating leaves in the run's precision; everything else as it is."""

    def leaf(x: np.ndarray) -> np.ndarray:
        return x.astype(dtype) if np.issubdtype(x.dtype, np.floating) else x

    return jax.tree.map(leaf, tree)


def _local(
    function: Callable[..., PartResult], table: Any, market: Any, assets: Any, model: Any, book: Any, zero: Any
) -> PartResult:
    """One device's shard: the leading axis of length 1 comes off and goes on again."""
    result = function(table, market, assets, model, jax.tree.map(lambda x: x[0], book), zero)
    return jax.tree.map(lambda x: x[None], result)  # type: ignore[no-any-return]


class Engine:
    """Compiled stages for one model on one set of devices.

    Args:
      model: bound to the book's units and assets, numpy leaves.
      contracts: the book's contracts.
      settings: device, precision, memory.

    Shapes that recur do not recompile: numbers of the model and prices are arguments, and bucket sizes come from a
    geometric grid. Every call enters 64-bit mode on its own and hands out numpy only.
    """

    def __init__(self, model: Model, contracts: ContractSet, settings: Settings) -> None:
        self.settings = settings
        self.devices = choose_devices(settings.device)
        with jax.enable_x64(True):
            self.mesh = account_mesh(self.devices)
            shared = NamedSharding(self.mesh, _SHARED)
            self._model = jax.device_put(_cast(model, settings.dtype), shared)
            self._zero = jax.device_put(np.zeros((), settings.dtype), shared)
        self.leg_loop = leg_loop(self.devices[0], chunk_rows(self.devices[0]), settings.leg_loop)
        self._program = _part_program(self.mesh, self.leg_loop)
        self._shapes = KnownShapes()
        self.price(contracts)

    def rows_of(self, contracts: ContractSet) -> int:
        """Rows of the contract table of these contracts, padding included; the last is always padding."""
        step = self.settings.contract_step
        rows = -(-(contracts.padding + 1) // step) * step
        return even_rows(rows, contract_chunk(self.devices[0]), len(self.devices))

    def price(self, contracts: ContractSet) -> None:
        """Takes contracts of the same units and assets, at new prices, in place of those before."""
        self.contracts = contracts
        with jax.enable_x64(True):
            shared = NamedSharding(self.mesh, _SHARED)
            held = (contracts.market, contracts.assets)
            self._market, self._assets = jax.device_put(_cast(held, self.settings.dtype), shared)
            self.table = self._price(contracts)

    def _price(self, contracts: ContractSet) -> ContractTable:
        """The contract stage, sharded over the devices."""
        form, arguments = self._unpriced(contracts)
        program = _contract_program(self.mesh, contract_chunk(self.devices[0]), form)
        return cast("ContractTable", program(*arguments))

    def _unpriced(self, contracts: ContractSet) -> tuple[Form, tuple[Any, ...]]:
        """What the contract stage takes, placed; the columns of each type as one array, for each costs a call."""
        even = _cast(padded_contracts(contracts.contracts, self.rows_of(contracts)), self.settings.dtype)
        form, stacks = stacked(even)
        on_columns = NamedSharding(self.mesh, _COLUMNS)
        return form, (jax.device_put(stacks, on_columns), self._market, self._model, self._assets.settlement)

    def contract_risk(self) -> ContractRisk:
        """Risk array of every contract, numpy `[M]`, padding cut off."""
        with jax.enable_x64(True):
            risk = jax.tree.map(lambda x: np.asarray(x)[: self.contracts.padding], self.table.risk)
        return cast("ContractRisk", risk)

    def run(self, book: LegBook) -> Iterator[EngineResult]:
        """Margin of every account, part by part, in canonical order.

        Raises:
          ResourceError: a part does not fit into memory even at the smallest size.
        """
        size = accounts_per_shard(book, len(self._model.margins), self.settings.memory_budget, len(self.devices))
        done = 0
        while done < len(book):
            try:
                plan = self._shapes.plan(make_plan(book, size, len(self.devices), first=done))
                for result in self._run_plan(book, plan):
                    yield result
                    done = result.first_account + len(result.result.accounts.equity)
            except jax.errors.JaxRuntimeError as error:
                in_use = -(-(len(book) - done) // len(self.devices))
                size = _smaller(min(size, in_use), error)

    def _run_plan(self, book: LegBook, plan: Plan) -> Iterator[EngineResult]:
        """Results of a plan; the next part is packed and started while one computes."""
        running: tuple[tuple[Shard, ...], PartResult] | None = None
        for part in plan.parts:
            started = (part, self._start(book, plan.shape, part))
            if running is not None:
                yield from _finished(*running)
            running = started
        if running is not None:
            yield from _finished(*running)

    def _start(self, book: LegBook, shape: Shape, part: tuple[Shard, ...]) -> PartResult:
        """Packs and uploads a part and starts its computation, without waiting for it."""
        return self.compute(self.place(self.packed(book, shape, part)))

    def compute(self, block: Book) -> PartResult:
        """Starts the computation of a part that lies on the devices, `[devices, ...]`, in the run's precision."""
        with jax.enable_x64(True):
            return self._program(self.table, self._market, self._assets, self._model, block, self._zero)

    def packed(self, book: LegBook, shape: Shape, part: tuple[Shard, ...]) -> Any:
        """A part in padded buckets, numpy, one shard per device along the leading axis."""
        shards = [pack_shard(book, self.contracts, shape, shard) for shard in part]
        return _cast(jax.tree.map(lambda *leaves: np.stack(leaves), *shards), self.settings.dtype)

    def place(self, packed: Any) -> Any:
        """Starts the upload of a packed part, without waiting for it."""
        return placed(packed, self.mesh)

    def pricing(self) -> Callable[[], ContractTable]:
        """The contract stage compiled anew for the contracts as they are; runs without waiting for the result."""
        with jax.enable_x64(True):
            form, arguments = self._unpriced(self.contracts)
            fresh = _contract_program.__wrapped__(self.mesh, contract_chunk(self.devices[0]), form)
            program = fresh.lower(*arguments).compile()

        def run() -> ContractTable:
            with jax.enable_x64(True):
                return cast("ContractTable", program(*arguments))

        return run

    @property
    def shared(self) -> tuple[Any, ...]:
        """What every device holds whole: table, market, assets, model and the run-time zero."""
        return self.table, self._market, self._assets, self._model, self._zero

    def stage(self, function: Callable[..., Any], *blocks: Any) -> Callable[[], Any]:
        """A piece of the part program compiled on its own: benchmarks ask where the time of the whole goes.

        Args:
          function: of table, market, assets, model, one shard of each block, and the run-time zero.
          blocks: placed; shards along the leading axis.

        Returns:
          What runs it on these arguments, without waiting for the result.
        """

        def in_order(table: Any, market: Any, assets: Any, model: Any, zero: Any, *own: Any) -> Any:
            return function(table, market, assets, model, *own, zero)

        return compiled(in_order, self.mesh, self.shared, blocks)


def placed(blocks: Any, mesh: jax.sharding.Mesh) -> Any:
    """Starts the upload of numpy arrays whose leading axis is the device, without waiting for it."""
    with jax.enable_x64(True):
        return jax.device_put(blocks, NamedSharding(mesh, _BLOCK))


def compiled(
    function: Callable[..., Any], mesh: jax.sharding.Mesh, shared: tuple[Any, ...], blocks: tuple[Any, ...]
) -> Callable[[], Any]:
    """A program for these very arguments: all of `shared` and its own shard of each of `blocks` on every device.

    Returns:
      What runs it, without waiting for the result.
    """

    def local(*arguments: Any) -> Any:
        own = jax.tree.map(lambda x: x[0], arguments[len(shared) :])
        return jax.tree.map(lambda x: x[None], function(*arguments[: len(shared)], *own))

    specs = (*[_SHARED] * len(shared), *[_BLOCK] * len(blocks))
    sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=_BLOCK, check_vma=False)
    with jax.enable_x64(True):
        program = jax.jit(sharded).lower(*shared, *blocks).compile()

    def run() -> Any:
        with jax.enable_x64(True):
            return program(*shared, *blocks)

    return run


@cache
def _contract_program(mesh: jax.sharding.Mesh, chunk: int | None, form: Form) -> Any:
    """The compiled contract stage of a mesh: every device prices its share, and all get the whole table."""

    def local(stacks: dict[str, jax.Array], *others: Any) -> ContractTable:
        return contract_stage(form.unstacked(stacks), *others, chunk=chunk)

    specs = (_COLUMNS, _SHARED, _SHARED, _SHARED)
    sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=_BLOCK, check_vma=False)
    return jax.jit(sharded, out_shardings=NamedSharding(mesh, _SHARED))


@cache
def _part_program(mesh: jax.sharding.Mesh, loop: LegLoop) -> Callable[..., PartResult]:
    """The compiled part program of a mesh; one per process, so that a second run finds its compilations."""
    local = partial(_local, partial(part_margin, chunk=loop.chunk, rows=loop.rows, steps=loop.steps))
    specs = (_SHARED, _SHARED, _SHARED, _SHARED, _BLOCK, _SHARED)
    sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=_BLOCK, check_vma=False)
    return cast("Callable[..., PartResult]", jax.jit(sharded))


def _finished(part: tuple[Shard, ...], result: PartResult) -> Iterator[EngineResult]:
    """Waits for a part and cuts each shard's padding off."""
    with jax.enable_x64(True):
        host = jax.tree.map(np.asarray, result)
    for index, shard in enumerate(part):
        yield EngineResult(shard.first_account, shard.first_row, _trimmed(host, index, shard))


def _trimmed(host: PartResult, index: int, shard: Shard) -> PartResult:
    def rows(tree: Any, count: int) -> Any:
        return jax.tree.map(lambda x: x[index, :count], tree)

    return PartResult(
        rows(host.units, shard.unit_rows),
        rows(host.unit_unrealised_pnl, shard.unit_rows),
        rows(host.accounts, shard.accounts),
    )


def accounts_per_shard(book: LegBook, margin_types: int, memory_budget: int, devices: int) -> int:
    """Accounts of one shard such that a part stays within the memory budget.

    An estimate from bytes per leg and per unit row; two parts are in flight at a time.
    """
    accounts = max(len(book), 1)
    columns = 16 + 3 * margin_types
    per_account = _BYTES_PER_LEG * float(
        bucket_widths(np.diff(book.leg_start)).sum()
    ) / accounts + _BYTES_PER_UNIT_ROW_COLUMN * columns * (len(book.unit) / accounts + 1)
    fitting = int(memory_budget / (2 * devices * per_account))
    return max(MIN_ACCOUNTS_PER_SHARD, min(MAX_ACCOUNTS_PER_SHARD, fitting))


def _smaller(accounts: int, error: Exception) -> int:
    """Half the accounts, if memory was the trouble and there is room to go down."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    if accounts <= MIN_ACCOUNTS_PER_SHARD:
        message = f"out of device memory with {accounts} accounts per part, the smallest size: {error}"
        raise ResourceError(message) from error
    return accounts // 2
