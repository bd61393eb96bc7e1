"""Which vols, prices and forwards of options a book lacks, and from what each would be filled.

Only a plan: nothing is computed, so a price that says no vol (below intrinsic value) or a vol of 0 (at it) is found
when it is used, and its vol then taken from other options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from gpumargin.frames import beside, instant

if TYPE_CHECKING:
    from datetime import datetime

    from gpumargin.tables import Book

GIVEN, MISSING = "given", "missing"
FILLED = ("forward", "vol", "price")
SURFACE = ("underlying", "quote")
EXPIRY = (*SURFACE, "expiry")
# The parameters of a raw SVI slice: as many strikes as there are of them make a fit.
_SVI = ("svi_a", "svi_b", "svi_rho", "svi_m", "svi_sigma")
SVI_COLUMNS = (*_SVI, "svi_forward", "svi_years")
_OF_INSTRUMENTS = ("instrument_id", *EXPIRY, "strike", "option_type", "payoff", "inverse")
_PAIR = (*EXPIRY, "inverse", "strike")


def live_options(book: Book, as_of: datetime) -> pl.DataFrame:
    """Every live option with what its marks and forwards say, and from what the rest would be filled.

    Args:
      book: the book; instruments without a row in marks count as lacking both vol and price.
      as_of: instant of valuation, with a zone; what expires then or before is not live.

    Returns:
      One row per option in the order of `instruments`: the columns that `fill_plan` names, `own_vol` (the source of its
      vol if it needs no other option, else `missing`), and the data themselves: `option_type`, `payoff`, `inverse`,
      `mark_iv`, `mark_price`, `forward_given` and the seven SVI columns, null where the book has none.
    """
    options = _options(book, as_of)
    if not any(options[name].null_count() for name in ("forward_given", "mark_iv")):  # nothing to look for
        given = options.with_columns(pl.lit(GIVEN).alias(name) for name in ("forward", "own_vol", "vol"))
        return given.with_columns(price_from())
    plan = options.with_columns(_forward_from()).with_columns(_own_vol())
    return plan.with_columns(_vol_from()).with_columns(price_from())


def fill_plan(book: Book, as_of: datetime) -> pl.DataFrame:
    """One row per live option that lacks a forward, a vol or a price, in the order of `instruments`.

    Args:
      book: the book; instruments without a row in marks count as lacking both vol and price.
      as_of: instant of valuation, with a zone; what expires then or before is not live.

    Returns:
      `instrument_id`, `underlying`, `quote`, `expiry`, `strike` and, by the first that applies:

      * `forward`: `given`; `parity`, its expiry has a strike whose call and put both have prices, both in coin or
        neither; `missing`.
      * `vol`: `given`; `svi`, of its forwards row; `mark_price`, implied from its own price; `fit`, it is struck beyond
        the quoted strikes of its expiry, which are at least five and so make an SVI slice; `interpolation`, its surface
        (underlying and quote) has a vol at all; `missing`. The three before `missing` need a forward, and a digital
        option's price implies no vol.
      * `price`: `given`; `vol`, from its vol and forward; `missing`, one of them is missing.
    """
    return lacking(live_options(book, as_of)).select("instrument_id", *EXPIRY, "strike", *FILLED)


def lacking(options: pl.DataFrame) -> pl.DataFrame:
    """Those of `live_options` that lack a forward, a vol or a price."""
    return options.filter(pl.any_horizontal(pl.col(name) != GIVEN for name in FILLED))


def fill_counts(plan: pl.DataFrame) -> dict[str, dict[str, int]]:
    """How many options take their forward, vol and price from what, `given` left out: figures for a run's summary."""
    counts = {name: dict(plan[name].value_counts().sort(name).iter_rows()) for name in FILLED}
    return {name: {method: n for method, n in found.items() if method != GIVEN} for name, found in counts.items()}


def price_from() -> pl.Expr:
    """Source of each option's price, given the sources of its forward and vol."""
    can_price = (pl.col("vol") != MISSING) & _has_forward()
    given = pl.when(pl.col("mark_price").is_not_null()).then(pl.lit(GIVEN))
    return given.when(can_price).then(pl.lit("vol")).otherwise(pl.lit(MISSING)).alias("price")


def _options(book: Book, as_of: datetime) -> pl.DataFrame:
    is_live = (pl.col("kind") == "option") & (pl.col("expiry") > instant(as_of))
    rows = book.whole_frame("instruments").with_row_index("row").filter(is_live)
    own, at = rows["row"].to_numpy(), book.market_rows
    marks = book.whole_frame("marks").select("mark_iv", "mark_price")
    forwards = book.whole_frame("forwards").select(*SVI_COLUMNS, forward_given="forward")
    return beside(beside(rows.select(_OF_INSTRUMENTS), marks, at.marks[own]), forwards, at.forwards[own])


def _forward_from() -> pl.Expr:
    has_price = pl.col("mark_price").is_not_null() & is_vanilla() & (pl.col("strike") > 0)
    both = [(has_price & (pl.col("option_type") == side)).any().over(_PAIR) for side in ("call", "put")]
    has_pair = pl.all_horizontal(both).any().over(EXPIRY)
    given = pl.when(pl.col("forward_given").is_not_null()).then(pl.lit(GIVEN))
    return given.when(has_pair).then(pl.lit("parity")).otherwise(pl.lit(MISSING)).alias("forward")


def _own_vol() -> pl.Expr:
    """What the option alone says of its vol, `missing` where it says nothing."""
    has_svi = pl.all_horizontal(pl.col(name).is_not_null() for name in _SVI)
    has_price = pl.col("mark_price").is_not_null() & is_vanilla() & _has_forward()
    given = pl.when(pl.col("mark_iv").is_not_null()).then(pl.lit(GIVEN)).when(has_svi).then(pl.lit("svi"))
    return given.when(has_price).then(pl.lit("mark_price")).otherwise(pl.lit(MISSING)).alias("own_vol")


def _vol_from() -> pl.Expr:
    is_quote = _has_forward() & (pl.col("strike") > 0) & (pl.col("own_vol") != MISSING)
    is_quote &= pl.col("mark_iv").is_null() | (pl.col("mark_iv") > 0)
    quoted = pl.col("strike").filter(is_quote)
    is_beyond = (pl.col("strike") < quoted.min().over(EXPIRY)) | (pl.col("strike") > quoted.max().over(EXPIRY))
    can_fit = is_beyond & (quoted.n_unique().over(EXPIRY) >= len(_SVI))
    own = pl.when((pl.col("own_vol") != MISSING) | ~_has_forward()).then(pl.col("own_vol"))
    by_others = own.when(can_fit).then(pl.lit("fit"))
    by_others = by_others.when(is_quote.any().over(SURFACE)).then(pl.lit("interpolation"))
    return by_others.otherwise(pl.lit(MISSING)).alias("vol")


def is_vanilla() -> pl.Expr:
    """Whether an option pays its distance from the strike, so that its price says something of vol and forward."""
    return pl.col("payoff") == "vanilla"


def _has_forward() -> pl.Expr:
    return pl.col("forward") != MISSING
