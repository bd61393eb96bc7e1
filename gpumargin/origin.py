"""What a run is made from and what room it needs, both known before its first number."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gpumargin.device import choose_devices
from gpumargin.errors import ResourceError
from gpumargin.failures import Failure, failure_frame, input_error
from gpumargin.files import named
from gpumargin.identity import versions
from gpumargin.lanes import side_by_side
from gpumargin.prepare import Market, Options
from gpumargin.publish import file_digest
from gpumargin.tables import Parts

_SPARE = 1.2
# Bytes of compressed results for a row of the book, measured on generated books: of positions come rows of units and,
# where wanted, of positions; of balances, of which an account has one or two, come rows of accounts and of owners.
_BYTES = {"units": {"positions": 20}, "positions": {"positions": 100}, "accounts": {"balances": 140}}


Stamp = tuple[int, ...]


@dataclass(frozen=True)
class HashedBook:
    """The files of a book's tables, looked at before any was read, hashed when they have turned out to be a book.

    Attributes:
      folder: of the book.
      stamps: of its files as they were then, by their path within the folder; whatever else lies there is no concern.
    """

    folder: Path
    stamps: Mapping[str, Stamp | None]

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of every file, by its path within the folder.

        Raises:
          RefusedError: one cannot be read.
        """

        def digest(name: str) -> str:
            with named(self.folder / name):
                return file_digest(self.folder / name)

        return dict(zip(self.stamps, side_by_side(digest, self.stamps), strict=True))

    def require_unchanged(self) -> None:
        """Checks that no file has been touched since the first look: what was read is what was hashed.

        Raises:
          InputError: GM119, for each file that was.
        """
        now = stamps_below(self.folder)
        changed = sorted(name for name, stamp in self.stamps.items() if stamp is None or now.get(name) != stamp)
        if changed:
            message, remedy = "it changed while the book was read", "wait until whoever writes it has finished"
            raise input_error(
                failure_frame([Failure("GM119", "", name, None, "", "", message, remedy) for name in changed])
            )


def stamps_below(folder: Path) -> dict[str, Stamp]:
    """What changes with every file that is written to or put in the place of another, by path within the folder."""
    found: dict[str, Stamp] = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # what others remove meanwhile is no file of a table, or is missed there
            if path.is_file():
                state = path.stat()
                stamp = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
                found[path.relative_to(folder).as_posix()] = stamp
    return found


def origin_of(market: Market, files: Mapping[str, str]) -> dict[str, Any]:
    """What the results of a run and its cut into parts depend on.

    Args:
      market: with models, precision and memory budget.
      files: hash of every file of the book.
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
