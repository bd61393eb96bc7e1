"""Two measurements side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpumargin.errors import UsageError


def read_measurement(path: Path) -> dict[str, Any]:
    """A document that `bench` wrote.

    Raises:
      UsageError: it is something else.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        is_ours = isinstance(found["stages"], dict) and isinstance(found["digest"], str)
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        is_ours = False
    if not is_ours:
        message = f"expected a document that `gpumargin bench` wrote, found another at {str(path)!r}"
        raise UsageError(message)
    return dict(found)


def compared(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Medians of the stages that both have, the second over the first, and what of the two differs.

    Returns:
      `stages` (rows), `digests_equal`, and `differences`: what else was not the same, so that times may not compare.
    """
    rows = [
        {"stage": name, "first_s": a["median"], "second_s": b["median"], "ratio": b["median"] / a["median"]}
        for name, a in first["stages"].items()
        if (b := second["stages"].get(name)) is not None
    ]
    keys = ("case", "machine", "versions", "shape")
    differences = [
        f"{key}.{name}"
        for key in keys
        for name in sorted({*first.get(key, {}), *second.get(key, {})} - {"load", "repeats"})
        if first.get(key, {}).get(name) != second.get(key, {}).get(name)
    ]
    return {"stages": rows, "digests_equal": first["digest"] == second["digest"], "differences": differences}
