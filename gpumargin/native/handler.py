"""A loop as a function that XLA calls: the C interface of its foreign functions, decoded in LLVM.

The records are those of `xla/ffi/api/c_api.h`, which jaxlib ships; offsets are in bytes on a 64-bit machine. XLA calls
a handler in two ways: to ask for its interface version, by an extension record of type 1, and to run it.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import jax
from llvmlite import ir

from gpumargin.native.control import INT, LONG, POINTER
from gpumargin.native.loop import Loop, bucket_arguments, shared_arguments

# XLA_FFI_CallFrame: the extension, and the arrays of argument and result buffers.
_EXTENSION, _ARGUMENTS, _RESULTS = 8, 72, 112
# XLA_FFI_Metadata_Extension: its type and the metadata; in them the version.
_TYPE, _METADATA, _MAJOR, _MINOR = 8, 24, 24, 28
_IS_METADATA = 1
# XLA_FFI_Buffer.
_DATA, _DIMENSIONS = 24, 40


@cache
def interface_version() -> tuple[int, int]:
    """Version of the interface that the installed jaxlib speaks, from the header that it ships."""
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    text = header.read_text("utf-8")
    found = [re.search(rf"#define XLA_FFI_API_{part}\s+(\d+)", text) for part in ("MAJOR", "MINOR")]
    major, minor = (int(match[1]) if match else 0 for match in found)
    return major, minor


class _Frame:
    """Reads fields of records at byte offsets."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def address(self, base: ir.Value, offset: int) -> ir.Value:
        """Address of a field."""
        return self.builder.gep(base, [ir.Constant(LONG, offset)], source_etype=ir.IntType(8))

    def field(self, base: ir.Value, offset: int, kind: ir.Type = POINTER) -> ir.Value:
        """Value of a field."""
        return self.builder.load(self.address(base, offset), typ=kind)

    def buffers(self, frame: ir.Value, offset: int, count: int) -> list[ir.Value]:
        """Buffer records of the arguments or the results."""
        first = self.field(frame, offset)
        return [self.field(first, 8 * i) for i in range(count)]


def add_handler(module: ir.Module, loop: Loop, name: str, *, buckets: int) -> None:
    """Adds the handler `name` that runs a loop over each of several buckets.

    XLA's arguments are the arrays of each bucket, then those that they share; its results one array each, rows last.
    Rows of a bucket stand behind those of the buckets before it.
    """
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    frame, read = function.args[0], _Frame(builder)
    nothing = ir.Constant(POINTER, None)
    asks, looks, runs = (function.append_basic_block(label) for label in ("asks", "looks", "runs"))
    extension = read.field(frame, _EXTENSION)
    builder.cbranch(builder.icmp_unsigned("==", extension, nothing), runs, looks)
    builder.position_at_end(looks)
    kind = read.field(extension, _TYPE, INT)
    builder.cbranch(builder.icmp_unsigned("==", kind, ir.Constant(INT, _IS_METADATA)), asks, runs)
    builder.position_at_end(asks)
    metadata = read.field(extension, _METADATA)
    for offset, number in zip((_MAJOR, _MINOR), interface_version(), strict=True):
        builder.store(ir.Constant(INT, number), read.address(metadata, offset))
    builder.ret(nothing)
    builder.position_at_end(runs)
    _run_buckets(read, frame, loop, buckets)
    builder.ret(nothing)


def _run_buckets(read: _Frame, frame: ir.Value, loop: Loop, buckets: int) -> None:
    builder, plan = read.builder, loop.plan
    own = bucket_arguments(plan)
    given = read.buffers(frame, _ARGUMENTS, own * buckets + shared_arguments(plan))
    results = read.buffers(frame, _RESULTS, len(plan.written))
    shared = [read.field(buffer, _DATA) for buffer in given[own * buckets :]]
    wide = [result for result, output in zip(results, plan.written, strict=True) if output.shape]
    stride = read.field(read.field(wide[0], _DIMENSIONS), 8, LONG) if wide else ir.Constant(LONG, 0)
    first: ir.Value = ir.Constant(LONG, 0)
    for bucket in range(buckets):
        arrays = given[own * bucket : own * (bucket + 1)]
        shape = read.field(arrays[0], _DIMENSIONS)
        rows, width = (read.field(shape, 8 * i, LONG) for i in range(2))
        places = [
            builder.gep(read.field(result, _DATA), [first], source_etype=loop.type_of(output.kind))
            for result, output in zip(results, plan.written, strict=True)
        ]
        builder.call(loop.function, [rows, width, stride, *(read.field(a, _DATA) for a in arrays), *shared, *places])
        first = builder.add(first, rows)
