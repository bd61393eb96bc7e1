"""Every error the package raises, each with the exit code the command line gives it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    import polars as pl

FAILURE_COLUMNS = ("code", "table", "file", "row", "column", "value", "message", "remedy")


class GpumarginError(Exception):
    """Base of all errors of this package; `exit_code` is what a command ends with."""

    exit_code = 4


class UsageError(GpumarginError):
    """A request that cannot be carried out as written: unknown model, option, account or column."""

    exit_code = 2


class InputError(GpumarginError):
    """Input that breaks the contract.

    Attributes:
      failures: polars frame with the columns `FAILURE_COLUMNS`, one row per offending
        cell (the first examples of each kind).
    """

    exit_code = 3

    def __init__(self, message: str, failures: pl.DataFrame) -> None:
        super().__init__(message)
        self.failures = failures


class RefusedError(GpumarginError):
    """A file that is not read, although it may be readable: it is no plain file, contradicts itself or holds too much.

    Attributes:
      code: of the rule that it breaks.
      column: the one to blame; empty if it is the file.
    """

    exit_code = 3

    def __init__(self, message: str, *, code: str = "GM119", column: str = "") -> None:
        super().__init__(message)
        self.code, self.column = code, column


class InternalError(GpumarginError):
    """A check of our own results failed: nothing is published."""

    exit_code = 4


class ResourceError(GpumarginError):
    """The machine lacks what the run needs: a device, memory or disk."""

    exit_code = 5


def suggestion(word: str, known: Collection[str]) -> str:
    """End of a message about a word that is not known: the known one that looks like it, if any."""
    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
