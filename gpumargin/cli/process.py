"""What must stand in the environment before JAX is imported: the command line owns its process, a library does not."""

from __future__ import annotations

import ctypes
import gc
import os
import stat
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from gpumargin.cli.options import Device
from gpumargin.cli.render import say

_HOST_DEVICES = "xla_force_host_platform_device_count"
_CACHE_BYTES = 1 << 30
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of mallopt


@dataclass(frozen=True)
class Cache:
    """Folder of compiled programs.

    Attributes:
      folder: where it would be.
      refusal: why it is not used; empty if it is.
      is_suspicious: somebody else could have written into it.
    """

    folder: Path
    refusal: str = ""
    is_suspicious: bool = False


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare_process(device: Device = Device.AUTO, *, is_cached: bool = True, is_resident: bool = False) -> None:
    """Sets 64-bit mode, host devices, memory and the compile cache; does nothing where JAX is loaded already.

    Args:
      device: which the command uses.
      is_cached: whether compiled programs are kept and found again.
      is_resident: whether the command margins blocks of a book that stays.
    """
    if "jax" in sys.modules:
        return
    keep_memory(is_resident=is_resident)
    os.environ["JAX_ENABLE_X64"] = "1"
    _use_devices(device)
    cache = compile_cache()
    if cache.refusal or not is_cached:
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    else:
        _use_cache(cache.folder)
    if cache.is_suspicious:
        say(f"note: compiled programs are not cached: {cache.refusal}", style="yellow")


def keep_memory(*, is_resident: bool = False) -> None:
    """Lets freed memory stay with the process, in one heap for all its libraries, for the next part or block.

    Otherwise the C library, and Arrow's allocator beside it, return large blocks to the system, which clears every page
    of them anew: a fifth of a run's time and a sixth to a third of a block's, and what each keeps for itself the other
    cannot use (measured). Only where the C library is that of GNU. To be called before any library has been loaded that
    starts a thread, for threads keep an arena that they have.

    Where a book is resident, Arrow's allocator stays: columns of a block are small, and to find room for them in a heap
    that is in pieces by then takes up to a tenth of `apply` (measured).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_ARENA_MAX, 1)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        if not is_resident:
            os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def keep_objects() -> None:
    """Has the garbage collector pass over all objects that are there, once it has taken what is garbage among them.

    What JAX keeps of its programs is a quarter of a million objects: to look at them all again, as the collector does
    every hundred blocks or so, takes as long as half a block (measured). Only for commands that compute the same again
    and again, once they have compiled it.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _use_devices(device: Device) -> None:
    """One host device per core, and on a GPU memory as it is needed."""
    if device is Device.CPU:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    flags = os.environ.get("XLA_FLAGS", "")
    if device is not Device.GPU and _HOST_DEVICES not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_HOST_DEVICES}={usable_cores()}".strip()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")


def _use_cache(folder: Path) -> None:
    """Points JAX at the cache and silences its talk about it: a cache that fails only costs time."""
    _prune(folder)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", message="(?s).*(persistent|compilation) cache")


def compile_cache() -> Cache:
    """The cache folder, made if missing; programs in it are run, so only its owner may be able to write there."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    folder = home / "gpumargin" / "jax"
    try:
        for path in (folder.parent, folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return Cache(folder, f"cannot make {str(folder)!r}: {error.strerror}")
    reasons = [reason for path in (folder.parent, folder) if (reason := _distrust(path))]
    if reasons:
        return Cache(folder, reasons[0], is_suspicious=True)
    return Cache(folder) if os.access(folder, os.W_OK) else Cache(folder, f"{str(folder)!r} is not writable")


def _distrust(path: Path) -> str:
    """Why a folder's contents cannot be trusted; empty if they can."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return f"{str(path)!r} is a link, not a folder"
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        return f"{str(path)!r} belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {str(path)!r}; chmod 700 it, or remove it if you do not know why"
    return ""


def _prune(folder: Path) -> None:
    """Removes the programs that were used longest ago until the cache is below its size limit."""
    files = [(entry.stat(), Path(entry.path)) for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    files.sort(key=lambda file: file[0].st_atime, reverse=True)
    total = 0
    for found, path in files:
        total += found.st_size
        if total > _CACHE_BYTES:
            path.unlink(missing_ok=True)
