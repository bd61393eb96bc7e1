"""The leg stage in C with OpenMP, compiled for this machine where there is a compiler.

Tables are widened to whole vectors before anything is timed, which lets a specialist keep an account's sums in
registers. Fused multiply-adds, reordered sums and minima without NaN are allowed (`-ffast-math`).
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.workload import Floats, Legs

SOURCE = Path(__file__).with_name("leg_stage.c")
VECTOR_BYTES = 64
FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fopenmp", "-fPIC")


def compiler() -> str | None:
    """The C compiler of this machine, None without one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@cache
def _library(real: str, columns: int) -> ctypes.CDLL:
    """The kernels for one type and width, built in a folder that is gone once they are loaded."""
    with TemporaryDirectory() as folder:
        object_, built = Path(folder) / "leg_stage.o", Path(folder) / "leg_stage.so"
        sizes = (f"-DREAL={real}", f"-DCOLUMNS={columns}")
        # Linked apart from -ffast-math: with it GCC adds code that turns tiny numbers into 0 in the whole process.
        for step in (
            (*FLAGS, *sizes, "-c", str(SOURCE), "-o", str(object_)),
            ("-shared", "-fopenmp", str(object_), "-o", str(built)),
        ):
            subprocess.run([str(compiler()), *step], check=True)  # noqa: S603  our own source
        return ctypes.CDLL(str(built))


def _widened(table: Floats) -> Floats:
    """Rows of whole vectors on a vector's boundary; what fills them repeats the first scenario."""
    lanes = VECTOR_BYTES // table.dtype.itemsize
    columns = -(-table.shape[1] // lanes) * lanes
    room = np.empty(len(table) * columns + lanes, table.dtype)
    offset = (-room.ctypes.data % VECTOR_BYTES) // table.dtype.itemsize
    wide = room[offset : offset + len(table) * columns].reshape(len(table), columns)
    wide[:, : table.shape[1]] = table
    wide[:, table.shape[1] :] = table[:, :1]
    return wide


def _call(function: Any, *arrays: np.ndarray) -> None:
    function(ctypes.c_int64(len(arrays[-1])), *(ctypes.c_void_p(array.ctypes.data) for array in arrays))


def worst_pnl_c(legs: Legs) -> Callable[[], Floats]:
    """Worst scenario P&L of each account, as `opponents.worst_pnl_numba`; compiles and widens, then only computes."""
    wide = _widened(legs.table)
    function = _library("double" if legs.table.dtype == np.float64 else "float", wide.shape[1]).worst_pnl

    def run() -> Floats:
        out = np.empty(len(legs.indptr) - 1, legs.table.dtype)
        _call(function, legs.indptr, legs.contract, legs.quantity, wide, out)
        return out

    return run


def worst_pnl_by_expiry_c(legs: Legs) -> Callable[[], Floats]:
    """Worst scenario P&L of each account with discounted expiries, as `opponents.worst_pnl_by_expiry_numba`."""
    wide = _widened(legs.table)
    library = _library("double" if legs.table.dtype == np.float64 else "float", wide.shape[1])

    def run() -> Floats:
        out = np.empty(len(legs.indptr) - 1, legs.table.dtype)
        columns = legs.contract, legs.quantity, wide, legs.value, legs.expiry, legs.discount
        _call(library.worst_pnl_by_expiry, legs.indptr, *columns, out)
        return out

    return run
