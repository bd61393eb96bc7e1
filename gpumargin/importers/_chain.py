"""A chain file as columns of known types, and the one snapshot of it that a user named."""

from __future__ import annotations

import difflib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from gpumargin.errors import InputError, RefusedError, UsageError
from gpumargin.failures import Failure, failure_frame
from gpumargin.files import checked_dataset

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TEXTS = ("instrument_name", "option_type", "currency", "snapshot_file")
_TIMES = ("timestamp", "expiry_datetime")
_NUMBERS = ("underlying", "strike", "mark_price", "implied_volatility", "open_interest", "index_price")
CHAIN_COLUMNS = (*_TEXTS, *_TIMES, *_NUMBERS)

_NEAREST = 5


def scan_chain(file: Path) -> pl.LazyFrame:
    """The chain's columns, numbers as float64, times in UTC; what cannot be read becomes null."""
    if not file.is_file():
        message = f"expected a Parquet file, found none at {str(file)!r}: give the path of the chain file"
        raise UsageError(message)
    try:
        frame = pl.scan_pyarrow_dataset(checked_dataset([file]))
    except RefusedError as error:
        message = f"expected a Parquet file: {error}"
        raise UsageError(message) from error
    schema = frame.collect_schema()
    missing = [column for column in CHAIN_COLUMNS if column not in schema]
    if missing:
        raise _missing_columns(missing, file=file)
    return frame.select(
        *(pl.col(column).cast(pl.String) for column in _TEXTS),
        *(_as_utc(column, schema[column]) for column in _TIMES),
        *(pl.col(column).cast(pl.Float64, strict=False) for column in _NUMBERS),
    )


def _as_utc(column: str, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        zoned = pl.col(column).dt.convert_time_zone("UTC")
        return zoned if dtype.time_zone else pl.col(column).dt.replace_time_zone("UTC")
    # RFC 3339 by name: with the format guessed from the first value, a time without fraction would decide for all.
    return pl.col(column).str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)


def find_snapshot(chain: pl.LazyFrame, wanted: str, *, file: Path) -> tuple[str, datetime]:
    """Name and timestamp of the one snapshot that `wanted` names."""
    known = chain.group_by("snapshot_file").agg(pl.col("timestamp").min()).drop_nulls().sort("timestamp").collect()
    times = dict(known.iter_rows())
    moment = _as_moment(wanted)
    matches = [name for name in times if _stem(name) == _stem(wanted)]
    if moment is not None and not matches:
        matches = [name for name, time in times.items() if _minute(time) == _minute(moment)]
    if len(matches) != 1:
        nearest = _nearest(times, matches, wanted=wanted, moment=moment)
        raise _no_single_snapshot(wanted, matches, nearest=nearest, file=file)
    return matches[0], times[matches[0]]


def _as_moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _stem(name: str) -> str:
    return name.removesuffix(".csv")


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _nearest(times: Mapping[str, datetime], matches: list[str], *, wanted: str, moment: datetime | None) -> list[str]:
    """Up to five names: the matches if there are any, else nearest in time, else nearest in spelling."""
    if matches:
        return matches[:_NEAREST]
    if moment is None:
        return difflib.get_close_matches(wanted, list(times), n=_NEAREST, cutoff=0.0)
    return sorted(times, key=lambda name: abs(times[name] - moment))[:_NEAREST]


def _no_single_snapshot(wanted: str, matches: list[str], *, nearest: list[str], file: Path) -> UsageError:
    listed = ", ".join(nearest) or "none, the file is empty"
    message = (
        f"snapshot {wanted!r} matches {len(matches)} snapshots of {str(file)!r}, expected 1; nearest: {listed}. "
        "Give a file name from the list or an ISO time such as 2026-02-05T21:29"
    )
    return UsageError(message)


def chain_failure(code: str, *, file: Path, column: str, value: str, message: str, remedy: str) -> Failure:
    """A failure of the chain file that no single row is to blame for."""
    return Failure(code, "chain", str(file), None, column, value, message, remedy)


def _missing_columns(missing: list[str], *, file: Path) -> InputError:
    message = f"expected the columns {', '.join(CHAIN_COLUMNS)} in {str(file)!r}, which lacks {', '.join(missing)}"
    remedy = "give the file in the collector's own column names"
    failures = [
        chain_failure("GM101", file=file, column=column, value="", message="column missing", remedy=remedy)
        for column in missing
    ]
    return InputError(message, failure_frame(failures))
