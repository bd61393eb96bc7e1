"""The file calls of everything that is published: few, and through `os` alone, so that tests can make each one fail.

A write that was cut short is carried on with, an interrupted call made again; a failed `fsync` is never made again,
since the system may by then have dropped what it could not write.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_PATIENCE = 16  # calls that a signal interrupted before it is taken for a fault
_BUFFER = 1 << 18  # bytes of one call: for megabytes at once the system takes fresh pages, up to 20 times as slow
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


def _again(call: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """What a call returns, made again where a signal interrupted it."""
    for _ in range(_PATIENCE - 1):
        with suppress(InterruptedError):
            return call(*arguments, **keywords)
    return call(*arguments, **keywords)


class OutFile(io.RawIOBase):
    """A file written from the front.

    Args:
      path: of the file, emptied if it is there; a link is refused.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._at, self._waiting = 0, bytearray()
        self._handle = _again(os.open, path, _NEW, 0o666)

    def writable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._at

    def write(self, content: object) -> int:
        """Takes all of a buffer; what is small waits for more."""
        view = memoryview(content).cast("B")  # type: ignore[arg-type]
        if len(self._waiting) + len(view) > _BUFFER:
            self._put()
        if len(view) > _BUFFER:
            self._put_all(view)
        else:
            self._waiting += view
        self._at += len(view)
        return len(view)

    def _put(self) -> None:
        waiting, self._waiting = self._waiting, bytearray()
        self._put_all(memoryview(waiting))

    def _put_all(self, rest: memoryview) -> None:
        while rest:
            done = _again(os.write, self._handle, rest[:_BUFFER])
            if done <= 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            rest = rest[done:]

    def sync(self) -> None:
        """Writes what waits and forces the file to disk."""
        self._put()
        os.fsync(self._handle)

    def close(self) -> None:
        """Writes what waits and closes the file."""
        if not self.closed:
            try:
                self._put()
            finally:
                os.close(self._handle)
                super().close()


class _HashedFile(OutFile):
    """A file whose hash is known when it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.digest = hashlib.sha256()

    def write(self, content: object) -> int:
        self.digest.update(content)  # type: ignore[arg-type]
        return super().write(content)


def write_new(path: Path, write: Callable[[OutFile], object], check: Callable[[Path], None] | None = None) -> str:
    """Makes a file, whole or not at all: written under a temporary name, forced to disk, checked, renamed.

    Args:
      path: of the file; one that is there is replaced.
      write: writes its content.
      check: looks at the file before it gets its name.

    Returns:
      SHA-256 of the file.

    Raises:
      OSError: it cannot be written; nothing is left of it.
    """
    staging = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with _HashedFile(staging) as file:
            write(file)
            file.sync()
        if check is not None:
            check(staging)
        rename(staging, path)
    except BaseException:
        remove(staging)
        raise
    return file.digest.hexdigest()


def sync_folder(path: Path) -> None:
    """Forces the names in a folder to disk."""
    handle = _again(os.open, path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Gives a file or folder another name; a file of that name is replaced, a folder that holds anything is not."""
    _again(os.rename, source, target)


def make_folder(path: Path, *, above: bool = True) -> None:
    """Makes a folder if absent, and those above it if `above`: for the user alone, who may open them to others."""
    if not path.is_dir():
        if above and path.parent != path:
            make_folder(path.parent)
        with suppress(FileExistsError):
            _again(os.mkdir, path, 0o700)
        if not path.is_dir():
            raise FileExistsError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def remove(path: Path) -> None:
    """Removes a file, or an empty folder, if that can be done."""
    with suppress(OSError):
        is_folder = path.is_dir() and not path.is_symlink()
        _again(os.rmdir if is_folder else os.unlink, path)


def remove_tree(path: Path) -> None:
    """Removes a file or folder with all that is in it, as far as that can be done; follows no link."""
    with suppress(OSError):
        for entry in list(os.scandir(path)) if path.is_dir() and not path.is_symlink() else ():
            remove_tree(Path(entry.path))
    remove(path)
