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
Writer = Callable[["Requests"], None]
Steps = Sequence[tuple[Writer, str]]  # pieces of a function, and the names of the arrays that each works with


class Requests:
    """A function while its instructions are written.

    Args:
      module: gets it, under the name `function`.
      arrays: how many it takes.
    """

    def __init__(self, module: ir.Module, arrays: int) -> None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [LONG, *[POINTER] * arrays]), "function")
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


class Function:
    """Steps compiled as one function, each done for all requests before the next.

    Args:
      steps: what it does.

    Attributes:
      names: of the arrays that it works with.
    """

    def __init__(self, steps: Steps) -> None:
        self.names = tuple(dict.fromkeys(name for _, names in steps for name in names.split()))
        module = ir.Module("requests")
        own = Requests(module, len(self.names))
        by_name = dict(zip(self.names, own.arrays, strict=True))
        for write, names in steps:
            write(own.over(*(by_name[name] for name in names.split())))
        own.builder.ret_void()
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * len(self.names))
        self._call = kind(compiled(str(module)).get_function_address("function"))

    def run(self, count: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Runs it over so many requests; arrays are contiguous and of the types that the steps read and write."""
        self._call(count, *(arrays[name].ctypes.data for name in self.names))


def typed(arrays: Mapping[str, tuple[Any, type]]) -> dict[str, np.ndarray]:
    """Arrays as a function reads them: contiguous, of these types."""
    return {name: np.ascontiguousarray(values, dtype) for name, (values, dtype) in arrays.items()}
