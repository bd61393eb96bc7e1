"""What a run is made from and what room it needs, both known before its first number."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpumargin.device import choose_devices
from gpumargin.errors import ResourceError
from gpumargin.identity import versions
from gpumargin.prepare import Market, Options
from gpumargin.publish import file_digest
from gpumargin.tables import Parts

_SPARE = 1.2
# Bytes of compressed results for a row of the book, measured on generated books: of positions come rows of units and,
# where wanted, of positions; of balances, of which an account has one or two, come rows of accounts and of owners.
_BYTES = {"units": {"positions": 18}, "positions": {"positions": 90}, "accounts": {"balances": 120}}


def book_files(path: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path within it."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {file.relative_to(path).as_posix(): file_digest(file) for file in files}


def origin_of(market: Market, files: Mapping[str, str]) -> dict[str, Any]:
    """What the results of a run and its cut into parts depend on.

    Args:
      market: with models, precision and memory budget.
      files: of the book, from `book_files`.
    """
    options = market.options
    return {
        "book": options.book_path,
        "files": dict(files),
        "as_of": market.instant.isoformat(),
        "models": {model.label: dict(model.raw) for model in market.models.values()},
        "overrides": {model.label: dict(model.overrides) for model in market.models.values() if model.overrides},
        "dtype": options.settings.dtype,
        "on_bad_rows": options.on_bad_rows,
        "device": choose_devices(options.settings.device)[0].device_kind,
        "memory_budget": options.settings.memory_budget,
        "tables": sorted(options.tables),
        "versions": versions(),
    }


def require_room(out: Path, source: Parts, options: Options) -> None:
    """Refuses to begin what the disk has no room for: the estimated results and a fifth more.

    Raises:
      ResourceError: there is less.
    """
    rows = {name: sum(files.values()) for name, files in source.files.items()}
    wanted = {"accounts", *options.tables}
    need = sum(size * rows.get(name, 0) for table in wanted for name, size in _BYTES[table].items())
    free = shutil.disk_usage(out).free
    if free < _SPARE * need:
        message = (
            f"the results may take {need / 1e6:,.0f} MB, and {str(out)!r} has {free / 1e6:,.0f} MB left; "
            f"{_SPARE * need / 1e6:,.0f} MB are wanted: make room, or give another --out; nothing was published"
        )
        raise ResourceError(message)
