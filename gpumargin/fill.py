"""Which vols, prices and forwards of options a book lacks, and from what each would be filled.

Only a plan: nothing is computed, so a price that no vol explains (below intrinsic value) is found when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from gpumargin.schema import TABLES
from gpumargin_kernels.svi_fit import PARAMETERS

if TYPE_CHECKING:
    from datetime import datetime

    from gpumargin.tables import Book

GIVEN, MISSING = "given", "missing"
FILLED = ("forward", "vol", "price")
_SURFACE = ["underlying", "quote"]
_EXPIRY = [*_SURFACE, "expiry"]
_SVI = ("svi_a", "svi_b", "svi_rho", "svi_m", "svi_sigma")


def fill_plan(book: Book, as_of: datetime) -> pl.DataFrame:
    """One row per live option that lacks a forward, a vol or a price, in the order of `instruments`.

    Args:
      book: the book; instruments without a row in marks count as lacking both vol and price.
      as_of: instant of valuation, with a zone; what expires then or before is not live.

    Returns:
      `instrument_id`, `underlying`, `quote`, `expiry`, `strike` and, by the first that applies:

      * `forward`: `given`; `parity`, its expiry has a strike whose call and put both have prices; `missing`.
      * `vol`: `given`; `svi`, of its forwards row; `mark_price`, implied from its own price; `fit`, it is struck beyond
        the quoted strikes of its expiry, which are at least five and so make an SVI slice; `interpolation`, its surface
        (underlying and quote) has a vol at all; `missing`. The three before `missing` need a forward, and a digital
        option's price implies no vol.
      * `price`: `given`; `vol`, from its vol and forward; `missing`, one of them is missing.
    """
    plan = _options(book, as_of).with_columns(_forward_from()).with_columns(_own_vol())
    plan = plan.with_columns(_vol_from()).with_columns(_price_from())
    lacks = pl.any_horizontal(pl.col(name) != GIVEN for name in FILLED)
    return plan.filter(lacks).select("instrument_id", *_EXPIRY, "strike", *FILLED)


def fill_counts(plan: pl.DataFrame) -> dict[str, dict[str, int]]:
    """How many options take their forward, vol and price from what, `given` left out: figures for a run's summary."""
    counts = {name: dict(plan[name].value_counts().sort(name).iter_rows()) for name in FILLED}
    return {name: {method: n for method, n in found.items() if method != GIVEN} for name, found in counts.items()}


def _options(book: Book, as_of: datetime) -> pl.DataFrame:
    """Live options with what their marks and forwards say, absent columns null."""
    contracts = _columns(book, "instruments", *_EXPIRY, "kind", "strike", "option_type", "payoff")
    live = contracts.filter((pl.col("kind") == "option") & (pl.col("expiry") > as_of))
    marks = _columns(book, "marks", "mark_iv", "mark_price").unique("instrument_id", keep="first")
    forwards = _columns(book, "forwards", "forward", *_SVI).unique(_EXPIRY, keep="first")
    live = live.join(marks, on="instrument_id", how="left", maintain_order="left")
    live = live.join(forwards, on=_EXPIRY, how="left", maintain_order="left")
    return live.rename({"forward": "forward_given"})


def _columns(book: Book, table: str, *names: str) -> pl.DataFrame:
    frame, wanted = book.frame(table), dict.fromkeys((*TABLES[table].key, *names))
    absent = [pl.lit(None, pl.Float64).alias(name) for name in wanted if name not in frame.columns]
    return frame.with_columns(absent).select(*wanted)


def _forward_from() -> pl.Expr:
    has_price = pl.col("mark_price").is_not_null() & _is_vanilla()
    both = [(has_price & (pl.col("option_type") == side)).any().over(*_EXPIRY, "strike") for side in ("call", "put")]
    has_pair = pl.all_horizontal(both).any().over(_EXPIRY)
    given = pl.when(pl.col("forward_given").is_not_null()).then(pl.lit(GIVEN))
    return given.when(has_pair).then(pl.lit("parity")).otherwise(pl.lit(MISSING)).alias("forward")


def _own_vol() -> pl.Expr:
    """What the option alone says of its vol, `missing` where it says nothing."""
    has_svi = pl.all_horizontal(pl.col(name).is_not_null() for name in _SVI)
    has_price = pl.col("mark_price").is_not_null() & _is_vanilla() & _has_forward()
    given = pl.when(pl.col("mark_iv").is_not_null()).then(pl.lit(GIVEN)).when(has_svi).then(pl.lit("svi"))
    return given.when(has_price).then(pl.lit("mark_price")).otherwise(pl.lit(MISSING)).alias("own_vol")


def _vol_from() -> pl.Expr:
    is_quote = _has_forward() & (pl.col("strike") > 0) & (pl.col("own_vol") != MISSING)
    is_quote &= pl.col("mark_iv").is_null() | (pl.col("mark_iv") > 0)
    quoted = pl.col("strike").filter(is_quote)
    is_beyond = (pl.col("strike") < quoted.min().over(_EXPIRY)) | (pl.col("strike") > quoted.max().over(_EXPIRY))
    can_fit = is_beyond & (quoted.n_unique().over(_EXPIRY) >= PARAMETERS)
    own = pl.when((pl.col("own_vol") != MISSING) | ~_has_forward()).then(pl.col("own_vol"))
    by_others = own.when(can_fit).then(pl.lit("fit"))
    by_others = by_others.when(is_quote.any().over(_SURFACE)).then(pl.lit("interpolation"))
    return by_others.otherwise(pl.lit(MISSING)).alias("vol")


def _price_from() -> pl.Expr:
    can_price = (pl.col("vol") != MISSING) & _has_forward()
    given = pl.when(pl.col("mark_price").is_not_null()).then(pl.lit(GIVEN))
    return given.when(can_price).then(pl.lit("vol")).otherwise(pl.lit(MISSING)).alias("price")


def _is_vanilla() -> pl.Expr:
    return pl.col("payoff") == "vanilla"


def _has_forward() -> pl.Expr:
    return pl.col("forward") != MISSING
