"""File calls that fail where a test wants them to, and a small book in parts to make them with."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from gpumargin import disk
from gpumargin.publish import locks
from gpumargin.synth import generate_book
from gpumargin.tables import read_book

CALLS = ("open", "write", "fsync", "rename", "unlink", "rmdir", "mkdir")
MEMORY = 7 << 16  # bytes: cuts the small book into some parts
CUT = ("positions", "balances", "accounts")
KILL = "kill"
SHORT = "short write"


def small_book(folder: Path, accounts: int = 60) -> Path:
    """A book whose tables of accounts are in order, in row groups that are small beside a part."""
    generate_book(folder, accounts=accounts, positions_per_account=4, underlyings=1, seed=5)
    book = read_book(folder)
    for name in CUT:
        frame = book.frame(name).cast({"account_id": pl.String}).sort("account_id", maintain_order=True)
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        pq.write_table(frame.to_arrow(), folder / f"{name}.parquet", row_group_size=30)
    return folder


class FailingOs:
    """The module `os` with calls counted, of which one, or all from one on, fail.

    Args:
      at: which call fails, counted from 0 over all of `CALLS`; None = none.
      fault: an error number, `SHORT` or `KILL`.
      forever: whether all calls after that one fail too.
      after: whether the call is made before it fails, for `KILL`.
    """

    def __init__(self, at: int | None = None, fault: int | str = 0, *, forever: bool = False, after: bool = False):
        self.at, self.fault, self.forever, self.after = at, fault, forever, after
        self.made: list[str] = []
        self.failed: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        call = getattr(os, name)
        return self._counted(name, call) if name in CALLS else call

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **keywords: Any) -> Any:
            index = len(self.made)
            self.made.append(name)
            fails = self.at is not None and (index >= self.at if self.forever else index == self.at)
            return self._fail(name, call, arguments) if fails else call(*arguments, **keywords)

        return made

    def _fail(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self.failed[name] += 1
        if self.fault == KILL:
            if self.after:
                call(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == SHORT:
            shortened = (arguments[0], arguments[1][: max(1, len(arguments[1]) // 2)]) if name == "write" else arguments
            return call(*shortened)
        raise OSError(self.fault, os.strerror(int(self.fault)))


def installed(failing: FailingOs) -> FailingOs:
    """Puts it in the place of `os` where files are written."""
    disk.os = locks.os = failing  # type: ignore[assignment]
    return failing


def restored() -> None:
    """Puts `os` back."""
    disk.os = locks.os = os  # type: ignore[assignment]


def everything(folder: Path) -> set[str]:
    """Names of all files and folders below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} if folder.exists() else set()


def visible(out: Path) -> list[Path]:
    """Folders of published runs."""
    return (
        sorted(path for path in out.glob("*") if path.is_dir() and not path.name.startswith("."))
        if out.exists()
        else []
    )


FAULTS: tuple[int | str, ...] = (errno.ENOSPC, errno.EIO, errno.EINTR, SHORT)
