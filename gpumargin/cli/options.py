"""Options that several verbs share, and what their values mean."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from gpumargin.cli.render import Format
from gpumargin.errors import UsageError

DEFAULT_RUNS = Path("runs")
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", re.IGNORECASE)


class Device(StrEnum):
    """Where a run computes."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


class DType(StrEnum):
    """Precision of a run."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"


class OnBadRows(StrEnum):
    """What a run does with rows that break the input contract."""

    FAIL = "fail"
    QUARANTINE = "quarantine"


class Settle(StrEnum):
    """How an imported chain's contracts are settled."""

    INVERSE = "inverse"
    LINEAR_USDC = "linear-usdc"


def parse_time(text: str) -> datetime:
    """An ISO 8601 time; Z is UTC, and so is a time without a zone."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        message = f"expected an ISO 8601 time such as 2026-03-05T08:00:00Z, found {text!r}"
        raise typer.BadParameter(message) from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def parse_size(text: str) -> int:
    """Bytes of `4GiB`, `500 MB` or `1000000`.

    Raises:
      UsageError: not a size above 0.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _SIZES[(found[2] or "").lower()]) if found else 0
    if size <= 0:
        message = f"expected a size above 0 such as 4GiB, 500MB or 1000000, found {text!r}"
        raise UsageError(message)
    return size


def parse_age(text: str) -> timedelta:
    """A length of time such as 90s, 15m, 2h or 1d."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        message = f"expected a length of time such as 90s, 15m, 2h or 1d, found {text!r}"
        raise typer.BadParameter(message)
    return timedelta(seconds=float(found[1]) * _SECONDS[found[2].lower()])


def parse_overrides(settings: list[str]) -> dict[str, Any]:
    """Dotted keys and values of `--set section.key=value`; values are TOML.

    Raises:
      UsageError: no equals sign, or no TOML value behind it.
    """
    return dict(map(_override, settings))


def _override(setting: str) -> tuple[str, Any]:
    key, equals, text = (part.strip() for part in setting.partition("="))
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    if not key or not equals or set(parsed) != {"value"}:
        message = f'--set: expected section.key=value with a TOML value (1.3, true, "text", [1, 2]), found {setting!r}'
        raise UsageError(message)
    return key, parsed["value"]


def find_run(path: Path) -> Path:
    """The folder of a run; a bare run id, or `latest`, is also looked for in the default folder of runs.

    Raises:
      UsageError: there is none.
    """
    from gpumargin.runs import open_run

    return open_run(existing_run(path))


def existing_run(path: Path) -> Path:
    """What a run argument names: a path as it is, else something in the default folder of runs."""
    return path if path.exists() or path.is_absolute() else DEFAULT_RUNS / path


BookArgument = Annotated[
    Path, typer.Argument(metavar="BOOK", help="Folder of tables.", exists=True, file_okay=False, show_default=False)
]
RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="Run folder; or a folder of runs, or OUT/latest, for the newest; 'latest' alone is runs/latest.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="Form of the data on stdout; arrow is an IPC stream.", case_sensitive=False)
]
AsOfOption = Annotated[
    datetime | None,
    typer.Option(
        "--as-of",
        metavar="TIME",
        parser=parse_time,
        help="Instant of valuation, ISO 8601, UTC unless it says otherwise.",
        show_default="newest timestamp of the book",
    ),
]
BadRowsOption = Annotated[
    OnBadRows,
    typer.Option(
        "--on-bad-rows",
        help="fail: a row that breaks the contract ends the run; quarantine: it is taken out, its account unknown.",
    ),
]
MaxAgeOption = Annotated[
    timedelta | None,
    typer.Option(
        "--max-age",
        metavar="TIME",
        parser=parse_age,
        help="Refuse marks in use, forwards and prices that are older: 90s, 15m, 2h, 1d.",
        show_default="any age",
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder of runs; made if missing.", file_okay=False)
]
