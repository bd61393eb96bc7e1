"""The stages of one run on arrays that are in memory already: upload, contracts, legs, accounts, download.

Needs what the engine needs and nothing else, so that it also runs where only JAX, numpy and pyarrow are installed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from gpumargin.bench.counting import bytes_of, operations
from gpumargin.bench.limits import Limits
from gpumargin.clock import Clock
from gpumargin.device import contract_chunk
from gpumargin.engine import Engine, finished
from gpumargin.native.choice import LegLoop
from gpumargin.pack.buckets import even_rows, make_plan
from gpumargin.pack.contracts import padded_contracts
from gpumargin.pack.legs import LegBook
from gpumargin_kernels.margin import PartResult, contract_stage, leg_stage, margin_of_rows, part_margin

REPEATS = 15


class Work(NamedTuple):
    """What a stage has to do, see `counting`; 0 where that is not counted."""

    bytes: int
    operations: int


class Stages(NamedTuple):
    """A book as one part, its stages compiled on their own.

    Attributes:
      turn: runs every stage once, in order, and adds its seconds to a clock; on a CPU `download` copies nothing.
      compile_seconds: by stage.
      work: by stage.
      result: of legs and accounts, on the devices; the leading axis is the device.
    """

    turn: Callable[[Clock], None]
    compile_seconds: dict[str, float]
    work: dict[str, Work]
    result: PartResult


def _leg_rows(loop: LegLoop, table: Any, market: Any, assets: Any, model: Any, book: Any, zero: Any) -> Any:
    return leg_stage(table, market, assets, model, book.legs, zero, chunk=loop.chunk, rows=loop.rows)


def _timed(name: str, seconds: dict[str, float], make: Callable[[], Callable[[], Any]]) -> Callable[[], Any]:
    start = time.perf_counter()
    run = make()
    seconds[name] = time.perf_counter() - start
    return run


def stages_of(engine: Engine, book: LegBook) -> Stages:
    """Every stage of a book ready to run; the book is one part, so it must fit into the devices' memory.

    Args:
      engine: for the book's contracts and model.
      book: at least one account.
    """
    loop = engine.leg_loop
    plan = make_plan(book, len(book), len(engine.devices))
    packed = engine.packed(book, plan.shape, plan.parts[0])
    block = finished(engine.place(packed))
    seconds: dict[str, float] = {}
    contracts = _timed("contract stage", seconds, engine.pricing)
    legs = _timed("leg stage", seconds, lambda: engine.stage(partial(_leg_rows, loop), block))
    units = finished(legs())
    accounts = _timed(
        "account stage", seconds, lambda: engine.stage(partial(margin_of_rows, steps=loop.steps), block, units)
    )
    whole = _timed(
        "legs and accounts",
        seconds,
        lambda: engine.stage(partial(part_margin, chunk=loop.chunk, rows=loop.rows, steps=loop.steps), block),
    )
    result = finished(whole())

    def turn(clock: Clock) -> None:
        with clock.stage("pack"):
            engine.packed(book, plan.shape, plan.parts[0])
        with clock.stage("upload"):
            finished(engine.place(packed))
        for name, run in (("contract stage", contracts), ("leg stage", legs), ("account stage", accounts)):
            with clock.stage(name):
                finished(run())
        with clock.stage("legs and accounts"):
            made = finished(whole())
        with clock.stage("download"):
            jax.tree.map(np.asarray, made)

    return Stages(turn, seconds, _work(engine, book, block, units, result), result)


def _work(engine: Engine, book: LegBook, block: Any, units: Any, result: Any) -> dict[str, Work]:
    """Bytes and operations of the stages on the devices."""
    contracts, (*held, zero) = engine.contracts, engine.shared
    rows = even_rows(contracts.padding + 1, contract_chunk(engine.devices[0]), len(engine.devices))
    priced = padded_contracts(contracts.contracts, rows)
    of_contracts = operations(contract_stage, priced, contracts.market, held[-1], contracts.assets.settlement)
    shard = jax.tree.map(_one_shard, (block, units))
    of_accounts = len(engine.devices) * operations(margin_of_rows, *held, *shard, zero)
    of_legs = 2 * len(book.contract) * _columns(engine)
    rows_alone = bytes_of(block.legs)
    return {
        "upload": Work(bytes_of(block), 0),
        "contract stage": Work(bytes_of(priced, engine.table), of_contracts),
        "leg stage": Work(bytes_of(engine.table, block.legs, units), of_legs),
        "account stage": Work(bytes_of(block, units, result) - rows_alone, of_accounts),
        "legs and accounts": Work(bytes_of(engine.table, block, result), of_legs + of_accounts),
        "download": Work(bytes_of(result), 0),
    }


def _one_shard(x: jax.Array) -> Any:
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)  # type: ignore[no-untyped-call]


def _columns(engine: Engine) -> int:
    """Numbers that one leg adds to sums."""
    table = engine.table
    tallies = [table.value, table.greeks, *(t for own in table.tallies.values() for t in own)]
    return sum(int(block.shape[1]) for tally in tallies for block in tally.columns.values())


def timings(clocks: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Minimum, median and number of the seconds of each stage over several turns."""
    turns = list(clocks)
    names = dict.fromkeys(name for turn in turns for name in turn)
    found = {name: [turn[name] for turn in turns if name in turn] for name in names}
    return {name: {"min": min(s), "median": statistics.median(s), "samples": len(s)} for name, s in found.items()}


def beside_limits(
    seconds: Mapping[str, Mapping[str, float]], work: Mapping[str, Work], limits: Limits
) -> dict[str, dict[str, float]]:
    """Each stage's figures with what it had to do, its rates, and the share of its time that the limits explain.

    `share_of_limit` is the least time that bytes at copy bandwidth or operations at the multiply-add rate take, over
    the median: 1 = as fast as the machine can.
    """
    found = {name: dict(figures) for name, figures in seconds.items()}
    for name, todo in work.items():
        least = max(todo.bytes / limits.copy, todo.operations / limits.multiply_add)
        median = found[name]["median"]
        found[name] |= {
            "bytes": todo.bytes,
            "operations": todo.operations,
            "bytes_per_s": todo.bytes / median,
            "operations_per_s": todo.operations / median,
            "share_of_limit": least / median,
        }
    return found
