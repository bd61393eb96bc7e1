"""The contracts of the second run in the market of the first, and every market on the way from there to the second's.

Which input belongs to which group is data: `group_of`. Both markets are stated on the rows of the second: `old` holds
what the first run says of each, and what only the second knows (a contract listed since, an asset new to the venue)
stands in both, so that it moves nothing but what is held. Vols and missing forwards are those that the runs priced
with, filled ones included: nothing is filled anew on the way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.types as pat

from gpumargin.difference.marks import (
    marked_options,
    model_prices,
    moved_marks,
    settled_marks,
    without_option_marks,
)
from gpumargin.difference.side import Side
from gpumargin.frames import instant
from gpumargin.schema import TABLES
from gpumargin.tables.canonical import canonical_column

Frames = Mapping[str, pl.DataFrame]
STAMP = "timestamp"
_EXPIRY = ("underlying", "quote", "expiry")
_KEYS = {"marks": ("instrument_id",), "forwards": _EXPIRY, "prices": ("asset",), "assets": ("asset",)}
_VOL = ("mark_iv", "vol_confidence", "svi_")
_HELD = ("open_interest", "skew")
# A book without these columns says something: no vol, no price of its own, nothing settled.
_TELLING_NULLS = ("mark_iv", "mark_price", "settlement_price")
_CONFIDENCES = ("forward_confidence", "rate_confidence", "vol_confidence")


def group_of(table: str, column: str) -> str:
    """The effect that a column of the market counts to: `position`, `price` or `vol`.

    Prices, forwards, rates, funding and confidences are prices; vols, SVI parameters and their confidence vols; what
    the venue as a whole holds (open interest, skew, totals of lending pools) and terms of contracts are positions.
    """
    if table in {"instruments", "assets"} or column in _HELD:
        return "position"
    return "vol" if column.startswith(_VOL) else "price"


class _Pair(NamedTuple):
    """A table as either run has it, on the same rows."""

    old: pl.DataFrame
    new: pl.DataFrame

    def columns(self, table: str, group: str) -> list[str]:
        """Its columns of one group."""
        return [name for name in self.new.columns if name not in _KEYS[table] and group_of(table, name) == group]


class Markets:
    """Every market between two runs.

    Args:
      first: the run that is left.
      second: the run that is reached.
    """

    def __init__(self, first: Side, second: Side) -> None:
        self._first, self._second = first, second
        self._priced: dict[frozenset[str], pl.Series] = {}
        before, after = _quoted(first), _quoted(second)
        self._likes = [second.market.tables, first.market.tables]
        known = _known(after["instruments"], before, first)
        self._instruments = _expired_for_good(after["instruments"], known, first, second)
        has_expired = (after["instruments"]["expiry"] <= second.as_of).fill_null(value=False)
        self._pairs = {"marks": _marks_pair(before["marks"], after["marks"], known, has_expired)}
        for name in {**after, **before}.keys() & {"forwards", "prices", "assets"}:
            only = (after if name in after else before)[name]
            self._pairs[name] = _pair(before.get(name, only), after.get(name, only), _KEYS[name])
        self._pairs = {name: self._with_absent(name, pair) for name, pair in self._pairs.items()}

    def _with_absent(self, table: str, pair: _Pair) -> _Pair:
        """Columns that the second book does not have are taken from the first: its models may need them."""
        own = self._second.market.tables
        given = own[table].column_names if table in own else []
        absent = [name for name in pair.new.columns if name not in (*given, *_TELLING_NULLS)]
        return pair._replace(new=pair.new.with_columns(pair.old[name] for name in absent))

    def moved(self) -> set[str]:
        """Groups in which the two markets differ, `time` among them."""
        found = {"time"} if self._first.as_of != self._second.as_of else set()
        for table, pair in self._pairs.items():
            for group in ("position", "price", "vol"):
                columns = pair.columns(table, group)
                if not pair.old.select(columns).equals(pair.new.select(columns)):
                    found.add(group)
        return found

    def as_of(self, taken: Collection[str]) -> datetime:
        """Instant of valuation of a market on the way."""
        return (self._second if "time" in taken else self._first).as_of

    def tables(self, taken: Collection[str]) -> dict[str, pa.Table]:
        """The market with the groups `taken` as in the second run and all others as in the first.

        Contracts are always the second's. What expires between the runs is settled, as soon as `time` is taken, at what
        the market said of it before, and at its settlement price once `price` is. The mark price of an option moves
        with its model price: what it is marked off that goes with `price`.

        Args:
          taken: of `position`, `time`, `price` and `vol` any; groups that do not differ may stand there or not.

        Returns:
          Market tables in canonical types, without timestamps.
        """
        return self._typed(self._marked(self._frames(taken), frozenset(taken)))

    def _frames(self, taken: Collection[str]) -> dict[str, pl.DataFrame]:
        """The market before any mark is moved."""
        frames = {"instruments": self._instruments, **{name: self._picked(name, taken) for name in self._pairs}}
        if "time" in taken and "price" not in taken:
            after = self._pairs["marks"].new
            frames["marks"] = settled_marks(frames, after, self._first.as_of, self._second.as_of)
        return frames

    def _marked(self, frames: dict[str, pl.DataFrame], taken: frozenset[str]) -> dict[str, pl.DataFrame]:
        every = frozenset(self.moved() - {"position"})
        here = every & taken
        marked = marked_options(frames, self.as_of(taken))
        if here in (frozenset(), every) or not marked.any():
            return frames
        start = every if "price" in here else frozenset()  # the market that the marks are of
        return moved_marks(frames, marked, self._model_prices(here) - self._model_prices(start))

    def _model_prices(self, taken: frozenset[str]) -> pl.Series:
        if taken not in self._priced:
            bare = without_option_marks(self._frames(taken))
            self._priced[taken] = model_prices(self._typed(bare), self.as_of(taken))
        return self._priced[taken]

    def _picked(self, table: str, taken: Collection[str]) -> pl.DataFrame:
        pair = self._pairs[table]
        chosen = (
            (pair.new if name in _KEYS[table] or group_of(table, name) in taken else pair.old)[name]
            for name in pair.new.columns
        )
        return pl.DataFrame(list(chosen))

    def _typed(self, frames: Frames) -> dict[str, pa.Table]:
        return {name: self._typed_table(name, frame) for name, frame in frames.items()}

    def _typed_table(self, table: str, frame: pl.DataFrame) -> pa.Table:
        """In canonical types; ids that the second book has as integers are integers again."""
        columns = {}
        for name in frame.columns:
            spec = TABLES[table].by_name[name]
            likes = [tables[table] for tables in self._likes if table in tables and name in tables[table].column_names]
            if spec.kind == "id" and likes and pat.is_integer(likes[0].schema.field(name).type):
                frame = frame.with_columns(pl.col(name).cast(pl.Int64))
            if likes or frame[name].null_count() < frame.height:
                columns[name] = canonical_column(pa.chunked_array([frame[name].to_arrow()]), spec)
        return pa.table(columns)


def _whole(side: Side, table: str) -> pl.DataFrame:
    """A table with every column but its stamp, ids as text."""
    frame = side.market.whole_frame(table)
    ids = [name for name in frame.columns if TABLES[table].by_name[name].kind == "id"]
    return frame.with_columns(pl.col(ids).cast(pl.String)).drop(STAMP, strict=False)


def _quoted(side: Side) -> dict[str, pl.DataFrame]:
    """The market of a run with the vols and forwards that it priced with; a row of marks for every instrument."""
    frames = {name: _whole(side, name) for name in side.market.tables}
    priced = frames["instruments"].join(side.options, on="instrument_id", how="left", maintain_order="left")
    is_live = (pl.col("expiry") > side.as_of).fill_null(value=True)
    priced = priced.with_columns(pl.when(is_live).then("implied_vol").alias("implied_vol"))
    marks = priced.select("instrument_id", "implied_vol").join(
        frames["marks"], on="instrument_id", how="left", maintain_order="left"
    )
    frames["marks"] = marks.with_columns(
        mark_iv=pl.coalesce("implied_vol", "mark_iv"), confidence=pl.col("confidence").fill_null(1.0)
    ).select(frames["marks"].columns)
    filled = priced.filter(is_live & pl.col("forward").is_not_null()).select(
        *_EXPIRY,
        "forward",
        *(pl.lit(0.0).alias(name) for name in ("rate", "forward_fixed")),
        *(pl.lit(1.0).alias(name) for name in _CONFIDENCES),
    )
    frames["forwards"] = _with_rows(frames["forwards"], filled.unique(_EXPIRY, keep="first"), _EXPIRY)
    return frames


def _with_rows(frame: pl.DataFrame, other: pl.DataFrame, keys: Collection[str]) -> pl.DataFrame:
    """A table and the rows of another whose keys it does not have."""
    more = other.join(frame, on=list(keys), how="anti")
    return frame if more.is_empty() else pl.concat([frame, more], how="diagonal").select(frame.columns)


def _known(instruments: pl.DataFrame, before: Frames, first: Side) -> pl.Series:
    """Which instruments of the second run the first could price, in their order."""
    forwards = before["forwards"].select(*_EXPIRY, "forward")
    joined = instruments.join(before["marks"], on="instrument_id", how="left", maintain_order="left")
    joined = joined.join(forwards, on=list(_EXPIRY), how="left", maintain_order="left")
    option, vol, forward = pl.col("kind") == "option", pl.col("mark_iv"), pl.col("forward")
    has_expired = (pl.col("expiry") <= first.as_of).fill_null(value=False)
    is_marked = pl.col("mark_price").is_not_null() & ((pl.col("mark_price") > 0) | ~pl.col("inverse"))
    live = pl.when(option).then(vol.is_not_null() & forward.is_not_null()).otherwise(is_marked)
    known = pl.when(has_expired).then(pl.col("settlement_price").is_not_null()).otherwise(live)
    return joined.select(known.alias("known"))["known"]


def _expired_for_good(instruments: pl.DataFrame, known: pl.Series, first: Side, second: Side) -> pl.DataFrame:
    """What was listed and expired between the runs has a settlement price and nothing else: expired on all the way."""
    came_and_went = ~known & (pl.col("expiry") <= second.as_of).fill_null(value=False)
    earliest = pl.min_horizontal("expiry", instant(first.as_of))
    return instruments.with_columns(expiry=pl.when(came_and_went).then(earliest).otherwise("expiry"))


def _marks_pair(before: pl.DataFrame, after: pl.DataFrame, known: pl.Series, has_expired: pl.Series) -> _Pair:
    """Marks of both runs; an expired contract has no vol any more, which is not a change of vol."""
    told = after.select("instrument_id").filter(known).join(before, on="instrument_id", how="inner")
    old = _replaced(after, told, ("instrument_id",))
    vol = pl.when(has_expired).then(old["mark_iv"]).otherwise("mark_iv")
    return _Pair(old, after.with_columns(vol.alias("mark_iv")))


def _pair(before: pl.DataFrame, after: pl.DataFrame, keys: Collection[str]) -> _Pair:
    """A table of both runs, on the rows of either."""
    rows = _with_rows(after, before, keys)
    return _Pair(_replaced(rows, before, keys), rows)


def _replaced(frame: pl.DataFrame, other: pl.DataFrame, keys: Collection[str]) -> pl.DataFrame:
    """A table with the values of another in the rows that both have, nulls included."""
    told = other.with_columns(told=pl.lit(value=True))
    joined = frame.join(told, on=list(keys), how="left", suffix="_old", maintain_order="left")
    values = (
        pl.when(pl.col("told")).then(f"{name}_old").otherwise(name).alias(name)
        for name in frame.columns
        if name not in keys
    )
    return joined.select(*keys, *values)
