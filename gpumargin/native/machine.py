"""What the loops want to know of the processor at hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from llvmlite import binding

_SECOND_LEVEL = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")


def register_bytes() -> int:
    """Bytes of the widest vector registers, at least 32.

    LLVM would split vectors of 64 bytes where there are none, but their padding would be read and added up all the
    same: a sixth more time (measured).
    """
    return 64 if binding.get_host_cpu_features().get("avx512f", False) else 32


@cache
def second_level_cache() -> int:
    """Bytes of a core's second-level cache; 0 where the system does not say."""
    try:
        text = _SECOND_LEVEL.read_text("ascii").strip()
    except OSError:
        return 0
    return int(text[:-1]) << 10 if text.endswith("K") and text[:-1].isdigit() else 0
