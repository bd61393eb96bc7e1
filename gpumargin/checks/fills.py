"""What options in use still lack once everything that a book says of forwards and vols has been computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from gpumargin.checks.facts import Facts
from gpumargin.checks.findings import Finding, failures_of, shown
from gpumargin.checks.market import FORWARD_SOURCES, VOL_SOURCES
from gpumargin.errors import InputError
from gpumargin.failures import failure_frame, input_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from gpumargin.tables import Book

EXAMPLES = 20
_USES = ("positions", "orders")


class UnfilledError(InputError):
    """Options in use that nothing can fill; `findings` names the rows of instruments and marks to blame."""

    def __init__(self, message: str, failures: pl.DataFrame, findings: list[Finding]) -> None:
        super().__init__(message, failures)
        self.findings = findings


def has_unexplained_price() -> pl.Expr:
    """Options whose own price was to give their vol and does not, though their forward is known."""
    return (pl.col("own_vol") == "mark_price") & pl.col("own_number").is_nan() & pl.col("forward_number").is_finite()


def has_zero_vol() -> pl.Expr:
    """Options whose own price is their intrinsic value, and so says a vol of 0."""
    return (pl.col("own_vol") == "mark_price") & (pl.col("own_number") == 0)


def require_filled(book: Book, options: pl.DataFrame, *, vol_limit: float) -> None:
    """Checks that the options in use have what was to be filled.

    Args:
      book: the book.
      options: columns of `live_options`, and `forward_number`, `own_number` (what the option alone says of its vol),
        `vol_number` (the vol it takes), `low` and `high`: what was computed (NaN = nothing), and the prices between
        which some vol explains an option's price, in the unit of its price.
      vol_limit: highest vol, decimal per square root of a year.

    Raises:
      UnfilledError: GM107, an option in use has no forward, or no vol, be it without a price or with one that no vol
        explains; GM110, a price that says a vol above the limit.
    """
    rules = _rules(vol_limit)
    suspects = options.filter(pl.any_horizontal(is_broken for is_broken, _ in rules))
    if suspects.is_empty():
        return
    facts = Facts(book)
    used = pl.concat([_used(facts, table) for table in _USES]).implode()
    in_use = suspects.filter(pl.col("instrument_id").is_in(used))
    found = [finding for is_broken, make in rules for finding in make(book, in_use.filter(is_broken))]
    if found:
        error = input_error(failure_frame(failures_of(book, found, max_examples=EXAMPLES)))
        raise UnfilledError(str(error), error.failures, found)


def _used(facts: Facts, table: str) -> pl.Series:
    """Ids of the instruments that rows of a table name, in the type of `instruments`."""
    words = facts.coded(table, "instrument_id").used_words() if facts.book.num_rows(table) else None
    kind = facts.book.whole_frame("instruments").schema["instrument_id"]
    return pl.Series([], dtype=kind) if words is None else pl.Series(pl.from_arrow(words))


def _rules(vol_limit: float) -> list[tuple[pl.Expr, Callable[[Book, pl.DataFrame], Iterator[Finding]]]]:
    no_forward = pl.col("forward_number").is_nan() & (pl.col("forward") != "given")
    has_no_vol = ~no_forward & pl.col("vol_number").is_nan()
    no_vol = has_no_vol & (pl.col("own_vol") == "missing")
    is_high = (pl.col("own_vol") == "mark_price") & pl.col("own_number").is_finite()
    too_high = is_high & (pl.col("own_number") > vol_limit)
    return [
        (has_no_vol & has_unexplained_price(), _unexplained),
        (no_forward, _no_forward),
        (no_vol, _no_vol),
        (too_high, lambda book, rows: _too_high(book, rows, vol_limit)),
    ]


def _located(
    book: Book, options: pl.DataFrame, *, table: str, column: str, text: Callable[[dict[str, Any]], str], **said: str
) -> Iterator[Finding]:
    """A finding at the rows of a table that belong to the options; none where there are no options."""
    numbered = book.frame(table).select("instrument_id").with_row_index("at")
    placed = options.join(numbered, on="instrument_id").sort("at")
    if placed.height:
        rows = placed["at"].cast(pl.Int64).to_numpy()
        yield Finding(table=table, column=column, rows=rows, message=lambda n: text(placed.row(n, named=True)), **said)


def _unexplained(book: Book, options: pl.DataFrame) -> Iterator[Finding]:
    def text(row: dict[str, Any]) -> str:
        unit = shown(row["underlying"] if row["inverse"] else row["quote"])
        return (
            f"mark_price {row['mark_price']:.10g} of {shown(row['instrument_id'])!r} gives no vol: on its forward of "
            f"{row['forward_number']:.10g} it must be at least {row['low']:.10g} and below {row['high']:.10g} {unit}, "
            f"and no other option of its underlying and quote tells one"
        )

    remedy = "correct mark_price, strike or forward, or give mark_iv or another option's vol or price"
    return _located(book, options, table="marks", column="mark_price", text=text, code="GM107", remedy=remedy)


def _no_forward(book: Book, options: pl.DataFrame) -> Iterator[Finding]:
    def text(row: dict[str, Any]) -> str:
        where = f"({shown(row['underlying'])}, {shown(row['quote'])}, {row['expiry']:%Y-%m-%d %H:%M})"
        return f"the prices of calls and puts of {where} make no forward above 0, and a held option needs one"

    remedy = f"correct these prices, or {FORWARD_SOURCES}"
    return _located(book, options, table="instruments", column="expiry", text=text, code="GM107", remedy=remedy)


def _no_vol(book: Book, options: pl.DataFrame) -> Iterator[Finding]:
    def text(row: dict[str, Any]) -> str:
        reason = "no price there says a vol above 0" if row["forward_number"] > 0 else "its forward is 0"
        return (
            f"the held option {shown(row['instrument_id'])!r} has no vol, and the other options of its underlying and "
            f"quote give it none: {reason}"
        )

    return _located(
        book, options, table="instruments", column="instrument_id", text=text, code="GM107", remedy=VOL_SOURCES
    )


def _too_high(book: Book, options: pl.DataFrame, vol_limit: float) -> Iterator[Finding]:
    def text(row: dict[str, Any]) -> str:
        return (
            f"mark_price {row['mark_price']:.10g} of {shown(row['instrument_id'])!r} says a vol of "
            f"{row['own_number']:.6g}, expected at most {vol_limit:g}; looks like a price in another unit"
        )

    remedy = "give the price per unit of underlying, in coin for inverse options, or widen the range in the model file"
    return _located(book, options, table="marks", column="mark_price", text=text, code="GM110", remedy=remedy)
