"""Forwards and vols that a book's options lack, computed before contracts are priced.

Three steps, each only where the plan (`fill`) asks for it: forwards by put-call parity and vols from own prices; vols
from those of other options, for those whose own price says none or 0; and a check that no account uses an option that
is still without either.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from gpumargin.checks.fills import has_unexplained_price, has_zero_vol, require_filled
from gpumargin.engine import computed
from gpumargin.fill import (
    EXPIRY,
    MISSING,
    SURFACE,
    SVI_COLUMNS,
    fill_counts,
    is_vanilla,
    lacking,
    live_options,
    price_from,
)
from gpumargin.frames import microseconds
from gpumargin.pack.columns import MICROSECONDS_PER_YEAR, Floats
from gpumargin.pack.filled import FilledOptions
from gpumargin.pack.prices import call_put_pairs, quotes_with_room, with_room
from gpumargin.pack.quotes import Options, surface_quotes
from gpumargin_kernels.own_vol import MarkedOptions, own_vol
from gpumargin_kernels.svi import SviSlice
from gpumargin_kernels.vol_fill import filled_vol

if TYPE_CHECKING:
    from datetime import datetime

    from gpumargin.device import DeviceChoice
    from gpumargin.tables import Book

_COMPUTED = ("mark_price", "fit", "interpolation")
_METHODS = ("fit", "interpolation", MISSING)  # by code of `filled_vol`
_ORDER = (*EXPIRY, "strike", "option_type", "inverse", "instrument_id")
_EXAMPLES = 5


@dataclass(frozen=True)
class Filling:
    """What a run filled.

    Attributes:
      filled: forwards and vols by instrument; None where nothing had to be computed.
      options: `live_options` with the sources as they came out and, of those that something was computed of, what.
      parity: what it found of each expiry.
    """

    filled: FilledOptions | None
    options: pl.DataFrame
    parity: list[dict[str, Any]]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Figures for `summary.json`: counts by source; own prices that say a vol of 0 or none; the rest; parity."""
        is_unpriced = (pl.col("forward") == MISSING) | (pl.col("vol") == MISSING)
        return {
            **fill_counts(lacking(self.options)),
            **_odd_prices(self.options),
            "unpriced": self.options.filter(is_unpriced).height,
            "parity": _worst(self.parity),
        }


def fill_market(book: Book, as_of: datetime, *, device: DeviceChoice, vol_limit: float) -> Filling:
    """Computes the forwards and vols that live options lack, in the order of sources that `fill_plan` gives.

    A book whose options have forwards and vols costs its plan alone: nothing is compiled. The result depends on neither
    the order of rows nor the precision of the run.

    Args:
      book: a book that `require_valid` has let through.
      as_of: instant of valuation, with a zone.
      device: where to compute.
      vol_limit: highest vol that an own price may say.

    Returns:
      `Filling`. Options that nobody uses and that cannot be filled stay without, and are counted.

    Raises:
      UnfilledError: GM107, GM110: see `require_filled`.
    """
    options = live_options(book, as_of)
    is_touched = ((pl.col("forward") == "parity") | pl.col("vol").is_in(_COMPUTED)).any().over(SURFACE)
    touched = options.filter(is_touched)
    if touched.is_empty():
        return Filling(None, options, [])
    done, parity = _own(_with_years(touched.sort(_ORDER), as_of), device)
    done = _with_sources(_from_others(done, device))
    require_filled(book, done, vol_limit=vol_limit)
    rest = options.filter(~is_touched)
    return Filling(_values(done), pl.concat([done, rest], how="diagonal"), parity)


def _with_years(options: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    now = microseconds(as_of)
    return options.with_columns(years=(pl.col("expiry").dt.epoch("us") - now) / MICROSECONDS_PER_YEAR)


def _pairs(options: pl.DataFrame) -> pl.DataFrame:
    """Calls and puts by strike, of expiries without a forward, which `row` numbers.

    An expiry may have prices in coin and others in its quote currency: whichever make more pairs count, the latter if
    they are as many.
    """
    usable = options.filter((pl.col("forward") == "parity") & is_vanilla() & (pl.col("strike") > 0))
    mean = {side: pl.col("mark_price").filter(pl.col("option_type") == side).mean() for side in ("call", "put")}
    form = (*EXPIRY, "inverse")
    pairs = usable.group_by(*form, "strike", maintain_order=True).agg(**mean).drop_nulls(["call", "put"])
    pairs = pairs.with_columns(count=pl.len().over(form))
    most = pairs.filter(pl.col("count") == pl.col("count").max().over(EXPIRY))
    chosen = most.filter(pl.col("inverse") == pl.col("inverse").min().over(EXPIRY))
    return chosen.with_columns(row=pl.struct(EXPIRY).rle_id())


def _own(options: pl.DataFrame, device: DeviceChoice) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Adds what the options' own prices say, and lists what parity found of each expiry."""
    pairs = _pairs(options)
    expiries = pairs.select(*EXPIRY, "inverse", "row").unique(maintain_order=True)
    row = options.join(expiries, on=EXPIRY, how="left", maintain_order="left")["row"].fill_null(0)
    packed = call_put_pairs(
        pairs["row"].cast(pl.Int64).to_numpy(),
        pairs["strike"].to_numpy(),
        (pairs["call"] - pairs["put"]).to_numpy(),
        is_inverse=expiries["inverse"].to_numpy(),
    )
    found = computed(own_vol, (packed, with_room(_marked(options, row))), device)
    said = [pl.Series(name, getattr(found.parity, name)[: expiries.height]) for name in ("forward", "spread", "pairs")]
    columns = {"forward_number": found.forward, "own_number": found.vol}
    added = options.with_columns(pl.Series(name, x[: options.height]) for name, x in columns.items())
    return _with_bounds(added), expiries.select(EXPIRY).with_columns(said).to_dicts()


def _numbers(options: pl.DataFrame, name: str) -> Floats:
    return np.asarray(options[name].fill_null(float("nan")).to_numpy(), np.float64)


def _marked(options: pl.DataFrame, row: pl.Series) -> MarkedOptions:
    vanilla = options.with_columns(pl.when(is_vanilla()).then("mark_price").alias("mark_price"))
    return MarkedOptions(
        expiry=row.cast(pl.Int32).to_numpy(),
        strike=_numbers(options, "strike"),
        years=_numbers(options, "years"),
        is_call=(options["option_type"] == "call").to_numpy(),
        is_inverse=options["inverse"].to_numpy(),
        forward=_numbers(options, "forward_given"),
        vol=_numbers(options, "mark_iv"),
        price=_numbers(vanilla, "mark_price"),
        svi=SviSlice(*(_numbers(options, name) for name in SVI_COLUMNS)),
    )


def _with_bounds(options: pl.DataFrame) -> pl.DataFrame:
    """Adds the prices between which a vol explains an option's price: intrinsic value and maximum."""
    forward, strike, is_call = pl.col("forward_number"), pl.col("strike"), pl.col("option_type") == "call"
    unit = pl.when("inverse").then(forward).otherwise(1.0)
    intrinsic = pl.when(is_call).then(forward - strike).otherwise(strike - forward).clip(lower_bound=0.0)
    return options.with_columns(low=intrinsic / unit, high=pl.when(is_call).then(forward).otherwise(strike) / unit)


def _from_others(options: pl.DataFrame, device: DeviceChoice) -> pl.DataFrame:
    """Vols of options that say none of their own, or 0, from the quotes of their surface.

    A price at intrinsic value says vol 0 and means one too small for the last decimal of the price: valued with 0, the
    option would lose nothing in a stress. So a vol of others goes before 0, and 0 stays where they tell none.

    Adds `vol_number`, NaN where nothing tells it, and `method`, `missing` where it is the option's own.
    """
    own = pl.col("own_number")
    is_wanted = pl.col("vol").is_in(_COMPUTED) & (own.is_nan() | (own == 0))
    if options.filter(is_wanted).is_empty():
        return options.with_columns(vol_number=own, method=pl.lit(MISSING))
    asked = options.with_columns(vol_number=pl.when(is_wanted).then(float("nan")).otherwise(own))
    by_others = asked.with_columns(_by_others(asked, device))
    is_better = is_wanted & pl.col("by_others").is_finite()
    return by_others.with_columns(
        vol_number=pl.when(is_better).then("by_others").otherwise(own),
        method=pl.when(is_better).then("method").otherwise(pl.lit(MISSING)),
    )


def _by_others(options: pl.DataFrame, device: DeviceChoice) -> list[pl.Series]:
    """What the quotes of its surface say of each option whose `vol_number` is NaN, and by which method."""
    vol = _numbers(options, "vol_number").copy()
    code = np.full(len(vol), _METHODS.index(MISSING))
    quotes, wanted = surface_quotes(_quoted(options))
    found = computed(filled_vol, (quotes_with_room(quotes), with_room(wanted)), device)
    rows = np.flatnonzero(np.isnan(vol))
    vol[rows], code[rows] = found.vol[: len(rows)], found.method[: len(rows)]
    return [pl.Series("by_others", vol), pl.Series("method", [_METHODS[c] for c in code])]


def _quoted(options: pl.DataFrame) -> Options:
    return Options(
        surface=options.select(pl.struct(SURFACE).rle_id())["underlying"].cast(pl.Int64).to_numpy(),
        expiry=options["expiry"].dt.epoch("us").to_numpy(),
        strike=_numbers(options, "strike"),
        forward=_numbers(options, "forward_number"),
        years=_numbers(options, "years"),
        vol=_numbers(options, "vol_number"),
    )


def _with_sources(options: pl.DataFrame) -> pl.DataFrame:
    """The sources as they came out: what was planned and could not be computed is missing."""
    no_forward = (pl.col("forward") == "parity") & pl.col("forward_number").is_nan()
    is_own = pl.col("method") == MISSING
    is_unsaid = (pl.col("own_vol") == "mark_price") & pl.col("own_number").is_nan()
    own = pl.when(is_unsaid).then(pl.lit(MISSING)).otherwise("own_vol")
    of_vol = pl.when(is_own).then(own).otherwise("method")
    forward = pl.when(no_forward).then(pl.lit(MISSING)).otherwise("forward")
    return options.with_columns(forward=forward, vol=of_vol).with_columns(price_from())


def _values(options: pl.DataFrame) -> FilledOptions:
    def where(is_filled: pl.Expr, name: str) -> Floats:
        return _numbers(options.select(pl.when(is_filled).then(name).alias(name)), name)

    return FilledOptions(
        ids=options["instrument_id"].cast(pl.String).to_arrow().cast(pa.string()),
        forward=where(pl.col("forward") == "parity", "forward_number"),
        vol=where(pl.col("vol").is_in(_COMPUTED), "vol_number"),
    )


def _odd_prices(options: pl.DataFrame) -> dict[str, Any]:
    if "own_number" not in options.columns:
        return {"zero_vols": 0, "unexplained_prices": {"count": 0, "examples": []}}
    unexplained = options.filter(has_unexplained_price())
    examples = unexplained.head(_EXAMPLES).select("instrument_id", "mark_price", "low", "high")
    return {
        "zero_vols": options.filter(has_zero_vol()).height,
        "unexplained_prices": {"count": unexplained.height, "examples": examples.to_dicts()},
    }


def _worst(parity: list[dict[str, Any]]) -> dict[str, Any]:
    """The expiry whose pairs agree least: `spread` is the median distance of what each says from the forward."""
    told = [row | {"share": row["spread"] / row["forward"]} for row in parity if np.isfinite(row["forward"])]
    worst = max(told, key=lambda row: row["share"], default=None)
    if worst is not None:
        worst |= {"expiry": worst["expiry"].isoformat()}
    return {"expiries": len(told), "worst": worst}
