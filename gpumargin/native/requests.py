"""Functions over requests, compiled by LLVM: numpy would do the same array by array.

Each takes the number of its requests and an array for each thing asked and answered. What a request looks at is asked
of the memory some requests before.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from gpumargin.native.compiler import compiled
from gpumargin.native.control import LONG, POINTER, builder_of

BYTE = ir.IntType(8)
# Requests between asking the memory for a row and looking at it: nearly halves a search (measured). What a row says
# where to look is asked for in between.
AHEAD, SOON = 32, 16
LINE = 64  # bytes of a line of the cache
Writer = Callable[["Requests"], None]
Steps = Sequence[tuple[Writer, str]]  # pieces of a function, and the names of the arrays that each works with


class Requests:
    """A function while its instructions are written.

    Args:
      module: gets it.
      name: of the function.
      arrays: how many it takes.
    """

    def __init__(self, module: ir.Module, name: str, arrays: int) -> None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [LONG, *[POINTER] * arrays]), name)
        self.builder = builder_of(function)
        self.count, *self.arrays = function.args

    def over(self, *arrays: ir.Value) -> Requests:
        """The same function, about to write what is done with some of its arrays."""
        other = copy.copy(self)
        other.arrays = list(arrays)
        return other

    def at(self, array: ir.Value, index: ir.Value, kind: ir.Type) -> ir.Value:
        """A number of an array."""
        return self.builder.load(self.builder.gep(array, [index], source_etype=kind), typ=kind)

    def put(self, array: ir.Value, index: ir.Value, value: ir.Value) -> None:
        """Keeps a number in an array."""
        self.builder.store(value, self.builder.gep(array, [index], source_etype=value.type))

    def ahead(self, request: ir.Value, by: int = AHEAD) -> ir.Value:
        """A request that is looked at so many later, or the last."""
        builder = self.builder
        last = builder.sub(self.count, ir.Constant(LONG, 1))
        later = builder.add(request, ir.Constant(LONG, by))
        return builder.select(builder.icmp_unsigned("<", later, last), later, last)


def arrays_of(steps: Steps) -> tuple[str, ...]:
    """The arrays of a function that does these steps, by name."""
    return tuple(dict.fromkeys(name for _, names in steps for name in names.split()))


def joined(steps: Steps) -> tuple[int, Writer]:
    """A function that does steps one after the other, each for all requests.

    Returns:
      How many arrays it takes, and what writes its instructions.
    """
    every = arrays_of(steps)

    def write(own: Requests) -> None:
        by_name = dict(zip(every, own.arrays, strict=True))
        for piece, names in steps:
            piece(own.over(*(by_name[name] for name in names.split())))

    return len(every), write


class Functions:
    """Compiled functions by name.

    Args:
      writers: of each function the number of its arrays and what writes its instructions.
    """

    def __init__(self, writers: Mapping[str, tuple[int, Writer]]) -> None:
        module = ir.Module("requests")
        for name, (arrays, write) in writers.items():
            own = Requests(module, name, arrays)
            write(own)
            own.builder.ret_void()
        engine, self._calls = compiled(str(module)), {}
        for name, (arrays, _) in writers.items():
            kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * arrays)
            self._calls[name] = kind(engine.get_function_address(name))

    def call(self, name: str, count: int, asked: Sequence[tuple[Any, type]], *answers: np.ndarray) -> None:
        """Runs a function: over so many requests, what is asked as arrays of these types, and arrays to answer in."""
        given = [*(np.ascontiguousarray(values, dtype) for values, dtype in asked), *answers]
        self._calls[name](count, *(array.ctypes.data for array in given))
