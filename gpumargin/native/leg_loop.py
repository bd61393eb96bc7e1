"""The loop over legs as a function that XLA calls, compiled for this processor."""

from __future__ import annotations

from functools import partial

from llvmlite import ir

from gpumargin.native.compiler import registered
from gpumargin.native.control import LONG
from gpumargin.native.handler import Frame, add_handler
from gpumargin.native.loop import SHARED_ARGUMENTS, Loop, bucket_arguments
from gpumargin.native.plan import Plan


def leg_loop_name(plan: Plan, buckets: int) -> str:
    """Name under which XLA knows the loop of a plan over a number of buckets.

    XLA's arguments are the arrays of each bucket, then those that they share; its results one array each, rows last.
    Rows of a bucket stand behind those of the buckets before it.

    Raises:
      UnsupportedError: something in the plan has no translation.
    """
    module = ir.Module("leg_loop")
    loop = Loop(module, plan, "loop")
    add_handler(module, "handler", partial(_run_buckets, loop=loop, buckets=buckets))
    return registered("leg_loop", module)


def _run_buckets(frame: Frame, loop: Loop, buckets: int) -> None:
    builder, plan = frame.builder, loop.plan
    own = bucket_arguments(plan)
    given = frame.arguments(own * buckets + SHARED_ARGUMENTS)
    results = frame.results(len(plan.written))
    shared = [frame.data(buffer) for buffer in given[own * buckets :]]
    wide = [result for result, output in zip(results, plan.written, strict=True) if output.shape]
    stride = frame.shape(wide[0], 2)[1] if wide else ir.Constant(LONG, 0)
    first: ir.Value = ir.Constant(LONG, 0)
    for bucket in range(buckets):
        arrays = given[own * bucket : own * (bucket + 1)]
        rows, width = frame.shape(arrays[0], 2)
        places = [
            builder.gep(frame.data(result), [first], source_etype=loop.type_of(output.kind))
            for result, output in zip(results, plan.written, strict=True)
        ]
        builder.call(loop.function, [rows, width, stride, *map(frame.data, arrays), *shared, *places])
        first = builder.add(first, rows)
