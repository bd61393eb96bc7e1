"""Margin a whole derivatives exchange in one pass: Greeks, haircut collateral, correlated margin and health."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpumargin.catalogue import MarginModel as MarginModel
    from gpumargin.catalogue import load_model as load_model
    from gpumargin.checks import check_book as check_book
    from gpumargin.compare import compare_models as compare_models
    from gpumargin.difference import Difference as Difference
    from gpumargin.difference import diff as diff
    from gpumargin.errors import GpumarginError as GpumarginError
    from gpumargin.errors import InputError as InputError
    from gpumargin.errors import InternalError as InternalError
    from gpumargin.errors import RefusedError as RefusedError
    from gpumargin.errors import ResourceError as ResourceError
    from gpumargin.errors import UsageError as UsageError
    from gpumargin.formulas import formula_value as formula_value
    from gpumargin.resident import Change as Change
    from gpumargin.resident import ResidentBook as ResidentBook
    from gpumargin.run import margin as margin
    from gpumargin.runs import Run as Run
    from gpumargin.sample import sample_path as sample_path
    from gpumargin.tables import Book as Book
    from gpumargin.tables import read_book as read_book
    from gpumargin.verification import Verification as Verification
    from gpumargin.verification import verify_run as verify_run

__version__ = "0.1.0"

# Loaded on first use: `import gpumargin` imports nothing heavy and touches no device.
_HOME = {
    "Book": "gpumargin.tables",
    "Change": "gpumargin.resident",
    "Difference": "gpumargin.difference",
    "GpumarginError": "gpumargin.errors",
    "InputError": "gpumargin.errors",
    "InternalError": "gpumargin.errors",
    "MarginModel": "gpumargin.catalogue",
    "RefusedError": "gpumargin.errors",
    "ResidentBook": "gpumargin.resident",
    "ResourceError": "gpumargin.errors",
    "Run": "gpumargin.runs",
    "UsageError": "gpumargin.errors",
    "Verification": "gpumargin.verification",
    "check_book": "gpumargin.checks",
    "compare_models": "gpumargin.compare",
    "diff": "gpumargin.difference",
    "formula_value": "gpumargin.formulas",
    "load_model": "gpumargin.catalogue",
    "margin": "gpumargin.run",
    "read_book": "gpumargin.tables",
    "sample_path": "gpumargin.sample",
    "verify_run": "gpumargin.verification",
}
__all__ = [
    "Book",
    "Change",
    "Difference",
    "GpumarginError",
    "InputError",
    "InternalError",
    "MarginModel",
    "RefusedError",
    "ResidentBook",
    "ResourceError",
    "Run",
    "UsageError",
    "Verification",
    "__version__",
    "check_book",
    "compare_models",
    "diff",
    "formula_value",
    "load_model",
    "margin",
    "read_book",
    "sample_path",
    "verify_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        message = f"module 'gpumargin' has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
