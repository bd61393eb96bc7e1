"""Functions that XLA calls: the C interface of its foreign functions, decoded in LLVM.

The records are those of `xla/ffi/api/c_api.h`, which jaxlib ships; offsets are in bytes on a 64-bit machine. XLA calls
a handler in two ways: to ask for its interface version, by an extension record of type 1, and to run it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
from llvmlite import ir

from gpumargin.native.control import INT, LONG, POINTER

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


class Frame:
    """What XLA calls a handler with: reads fields of its records.

    Attributes:
      builder: writes the handler's instructions.
    """

    def __init__(self, builder: ir.IRBuilder, frame: ir.Value) -> None:
        self.builder, self._frame = builder, frame

    def address(self, base: ir.Value, offset: int) -> ir.Value:
        """Address of a field."""
        return self.builder.gep(base, [ir.Constant(LONG, offset)], source_etype=ir.IntType(8))

    def field(self, base: ir.Value, offset: int, kind: ir.Type = POINTER) -> ir.Value:
        """Value of a field."""
        return self.builder.load(self.address(base, offset), typ=kind)

    def arguments(self, count: int) -> list[ir.Value]:
        """Buffer records of the first arguments."""
        return self._buffers(_ARGUMENTS, count)

    def results(self, count: int) -> list[ir.Value]:
        """Buffer records of the first results."""
        return self._buffers(_RESULTS, count)

    def _buffers(self, offset: int, count: int) -> list[ir.Value]:
        first = self.field(self._frame, offset)
        return [self.field(first, 8 * i) for i in range(count)]

    def data(self, buffer: ir.Value) -> ir.Value:
        """Where the numbers of a buffer begin."""
        return self.field(buffer, _DATA)

    def shape(self, buffer: ir.Value, axes: int) -> list[ir.Value]:
        """The first axes of a buffer."""
        dimensions = self.field(buffer, _DIMENSIONS)
        return [self.field(dimensions, 8 * axis, LONG) for axis in range(axes)]


def add_handler(module: ir.Module, name: str, body: Callable[[Frame], None]) -> None:
    """Adds the handler `name`, whose instructions `body` writes."""
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    given, nothing = function.args[0], ir.Constant(POINTER, None)
    frame = Frame(builder, given)
    asks, looks, runs = (function.append_basic_block(label) for label in ("asks", "looks", "runs"))
    extension = frame.field(given, _EXTENSION)
    builder.cbranch(builder.icmp_unsigned("==", extension, nothing), runs, looks)
    builder.position_at_end(looks)
    kind = frame.field(extension, _TYPE, INT)
    builder.cbranch(builder.icmp_unsigned("==", kind, ir.Constant(INT, _IS_METADATA)), asks, runs)
    builder.position_at_end(asks)
    metadata = frame.field(extension, _METADATA)
    for offset, number in zip((_MAJOR, _MINOR), interface_version(), strict=True):
        builder.store(ir.Constant(INT, number), frame.address(metadata, offset))
    builder.ret(nothing)
    builder.position_at_end(runs)
    body(frame)
    builder.ret(nothing)
