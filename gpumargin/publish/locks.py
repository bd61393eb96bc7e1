"""One writer at a time: a lock that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Lock:
    """A lock file held by this process.

    The system holds the lock and drops it when the process is gone, so that a file left behind binds nobody, whatever
    the clock says or whoever has the process number by now. Number and time are in the file for people to read.
    """

    path: Path
    _handle: int

    def release(self) -> None:
        """Removes the file, as far as that can be done, and lets go."""
        with suppress(OSError):
            self.path.unlink()
        os.close(self._handle)


def take_lock(path: Path) -> Lock | None:
    """The lock of a file, which is made if absent; None where another process holds it.

    Raises:
      OSError: the file cannot be made.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(path, handle):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"pid {os.getpid()} since {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n".encode(), 0)
                return Lock(path, handle)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder removed the file meanwhile: another one has this name, or none


def holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        return path.read_text("utf-8").strip() or "another process"
    except OSError:
        return "another process"


def _is_there(path: Path, handle: int) -> bool:
    """Whether the opened file still has its name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
