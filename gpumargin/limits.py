"""How much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def physical_memory() -> int:
    """Bytes of memory in the machine; 0 where the system does not say."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


def usable_memory() -> int:
    """Bytes that this process may use: those of the machine, fewer under a control group or a limit on addresses.

    0 where the system does not say.
    """
    groups = [int(text) for path in _CGROUPS if path.is_file() and (text := path.read_text().strip()).isdigit()]
    addresses = resource.getrlimit(resource.RLIMIT_AS)[0] if resource else -1
    return min([physical_memory(), *groups, *([addresses] if addresses > 0 else [])])
