"""What identifies a run: inputs, parameters, code, device."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from gpumargin import __version__

_PACKAGES = ("jax", "jaxlib", "numpy", "pyarrow", "polars")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number."""
    return {"gpumargin": __version__, "python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def new_run_id(parts: Mapping[str, Any], now: datetime | None = None) -> str:
    """Time and a short hash of what went in: `20260305T080000Z-1a2b3c4d`."""
    text = json.dumps(parts, sort_keys=True, default=str)
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S%fZ")
    return f"{moment}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
