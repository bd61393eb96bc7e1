"""Contracts are complete, priced and within the limits of time and vol.

The tables of contracts and prices are small beside positions, so these rules are polars expressions over one joined
frame (`contract_frame`) and over the price tables themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.checks.findings import Finding
from gpumargin.fill import GIVEN, MISSING, SVI_COLUMNS, live_options
from gpumargin.frames import beside, instant
from gpumargin.pack.joins import are_complete
from gpumargin.schema import FORWARDS, MARKS, USD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpumargin.checks.facts import Facts, Limits

SECONDS_PER_YEAR = 365 * 86400
_VOL_REMEDY = "give a decimal, 0.65 for 65 %, or widen the range in the model file"
VOL_SOURCES = (
    f"give mark_iv, mark_price or, in its forwards row, all of {', '.join(SVI_COLUMNS)}; or vol or price of another "
    "option of its underlying and quote, best of five strikes of its expiry, which make a slice"
)
FORWARD_SOURCES = (
    "add the row to forwards, with expiry the same instant and quote the same currency, or give mark_price of a call "
    "and a put of one strike"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows of one frame that break the contract: those where `broken` is true."""

    code: str
    column: str
    broken: pl.Expr
    message: str
    remedy: str
    table: str = "instruments"


def market_findings(facts: Facts, limits: Limits) -> Iterator[Finding]:
    """Every rule on contracts, marks, forwards and prices that needs more than one cell."""
    if facts.book.num_rows("instruments"):
        yield from _broken(contract_frame(facts, limits), (*_form_rules(limits), *_coverage_rules(), *_value_rules()))
    for table, rules in (("marks", _mark_rules), ("forwards", _forward_rules), ("prices", _price_rules)):
        yield from _broken(_whole(facts, table), rules(limits))


def contract_frame(facts: Facts, limits: Limits) -> pl.DataFrame:
    """One row per instrument, with its mark and forward, whether it is held or ordered, and whether it has expired.

    Columns beside those of the three tables: `instruments_row`, `marks_row`, `forwards_row` (null = no such row),
    `is_held` (by a position), `is_used` (by a position or an order), `is_expired`, `is_priced_underlying` and
    `is_priced_settlement` (the asset stands in prices), and `forward_from` and `vol_from` (of options: what they are
    filled from, as `fill_plan` names it; null for everything else).
    """
    assets = _known_assets(facts).implode()
    held, ordered = (used_instruments(facts, table).implode() for table in ("positions", "orders"))
    contracts = _whole(facts, "instruments")
    frame = contracts.with_columns(
        pl.col("instrument_id").is_in(held).alias("is_held"),
        (pl.col("instrument_id").is_in(held) | pl.col("instrument_id").is_in(ordered)).alias("is_used"),
        (pl.col("expiry") <= instant(limits.as_of)).fill_null(value=False).alias("is_expired"),
        *(pl.col(name).is_in(assets).alias(f"is_priced_{name}") for name in ("underlying", "settlement")),
    )
    at = facts.book.market_rows
    frame = beside(frame, _whole(facts, "marks"), at.marks, MARKS.key, "_of_mark")
    frame = beside(frame, _whole(facts, "forwards"), at.forwards, FORWARDS.key, "_of_forward")
    return _with_sources(frame, facts, limits)


def _with_sources(frame: pl.DataFrame, facts: Facts, limits: Limits) -> pl.DataFrame:
    """Adds what forwards and vols are filled from; the plan is only made where an option lacks one."""
    if limits.as_of is None or are_complete(facts.book.tables, facts.book.market_rows):
        return frame.with_columns(forward_from=pl.lit(GIVEN), vol_from=pl.lit(GIVEN))
    options = live_options(facts.book, limits.as_of).unique("instrument_id", keep="first")
    sources = options.select("instrument_id", forward_from="forward", vol_from="vol")
    return frame.join(sources, on="instrument_id", how="left", maintain_order="left")


def _form_rules(limits: Limits) -> tuple[Rule, ...]:
    kind = pl.col("kind")
    option, dated = kind == "option", kind.is_in(["option", "future"])
    time_left = (pl.col("expiry") - instant(limits.as_of)).dt.total_seconds()
    too_far = time_left > limits.tenor_limit_years * SECONDS_PER_YEAR
    tenor = f"expires {{value}}, more than {limits.tenor_limit_years:g} years after the snapshot"
    rules = [
        Rule("GM112", "strike", option & pl.col("strike").is_null(), "option without a strike", "give its strike"),
        Rule(
            "GM112", "expiry", dated & pl.col("expiry").is_null(), "dated contract without an expiry", "give its expiry"
        ),
        Rule(
            "GM112", "option_type", option & pl.col("option_type").is_null(), "option without a type", "say call or put"
        ),
        Rule(
            "GM112",
            "kind",
            (kind == "spot") & pl.col("is_held"),
            "a position in a spot contract",
            "move it to balances: spot holdings are balances, spot contracts are for orders only",
        ),
        Rule("GM111", "expiry", too_far, tenor, "looks like a timestamp in another unit, e.g. seconds read as days"),
    ]
    if limits.kinds is not None:
        wanted = sorted(limits.kinds)
        odd = ~kind.is_in(wanted) & (kind != "spot") & pl.col("is_used")
        message = f"the model does not margin a {{value}}, only {', '.join(wanted)}"
        rules.append(Rule("GM112", "kind", odd, message, "choose another model, or leave these positions out"))
    return tuple(rules)


def _coverage_rules() -> tuple[Rule, ...]:
    option, live, has_mark = pl.col("kind") == "option", _is_live(), pl.col("marks_row").is_not_null()
    without_mark = live & ~option & ~has_mark
    without_price = live & ~option & has_mark & pl.col("mark_price").is_null()
    no_forward = live & option & (pl.col("forward_from") == MISSING)
    no_vol = live & option & ~no_forward & (pl.col("vol_from") == MISSING)
    nothing = "neither mark_iv, SVI parameters nor a mark_price, and there is no option that it could take a vol from"
    return (
        Rule("GM107", "instrument_id", without_mark, "{value} is held but has no row in marks", "add its mark"),
        Rule("GM107", "mark_price", without_price, "no mark price for a held contract", "give mark_price", "marks"),
        Rule(
            "GM107",
            "instrument_id",
            no_vol & ~has_mark,
            f"the held option {{value}} has no row in marks: {nothing}",
            VOL_SOURCES,
        ),
        Rule("GM107", "mark_iv", no_vol & has_mark, f"a held option has {nothing}", VOL_SOURCES, "marks"),
        Rule(
            "GM107",
            "expiry",
            no_forward,
            "held option without a forward for its (underlying, quote, expiry {value}), of which no strike has prices "
            "of both its call and its put",
            FORWARD_SOURCES,
        ),
    )


def _value_rules() -> tuple[Rule, ...]:
    unsettled = _is_used() & pl.col("is_expired") & pl.col("settlement_price").is_null()
    zero_mark = _is_live() & (pl.col("kind") != "option") & pl.col("inverse") & (pl.col("mark_price") == 0.0)
    zero_message = "mark price 0 of an inverse contract, whose value is 1/mark"
    unpriced = "{} {{value}} of a held contract has no row in prices"
    return (
        Rule(
            "GM111",
            "expiry",
            unsettled,
            "expired {value}, at or before the snapshot, and is still held without a settlement price",
            "give settlement_price in marks, or remove the settled positions",
        ),
        Rule("GM109", "mark_price", zero_mark, zero_message, "give a positive price", "marks"),
        *(
            Rule("GM105", name, _is_used() & ~pl.col(f"is_priced_{name}"), unpriced.format(name), "add it to prices")
            for name in ("underlying", "settlement")
        ),
    )


def _is_used() -> pl.Expr:
    return pl.col("is_used") & (pl.col("kind") != "spot")


def _is_live() -> pl.Expr:
    return _is_used() & ~pl.col("is_expired")


def _mark_rules(limits: Limits) -> tuple[Rule, ...]:
    vol = pl.col("mark_iv")
    too_high = vol.is_finite() & (vol > limits.vol_limit)
    message = f"mark_iv is {{value}}, expected at most {limits.vol_limit:g}; looks like per cent"
    return (Rule("GM110", "mark_iv", too_high, message, _VOL_REMEDY, "marks"),)


def _forward_rules(limits: Limits) -> tuple[Rule, ...]:
    given = pl.sum_horizontal(pl.col(name).is_not_null() for name in SVI_COLUMNS)
    years = pl.col("svi_years")
    too_long = years.is_finite() & (years > limits.tenor_limit_years)
    message = f"svi_years is {{value}}, expected at most {limits.tenor_limit_years:g}; looks like days"
    return (
        Rule(
            "GM102",
            "svi_a",
            given.is_between(1, len(SVI_COLUMNS) - 1),
            "only some of the SVI parameters",
            f"give all of {', '.join(SVI_COLUMNS)}, or none",
            "forwards",
        ),
        Rule("GM111", "svi_years", too_long, message, "give years, seconds / (365 * 86400)", "forwards"),
    )


def _price_rules(limits: Limits) -> tuple[Rule, ...]:
    if limits.accounting is None:
        return ()
    dead = (pl.col("asset").cast(pl.String) == limits.accounting) & (pl.col("price") == 0.0)
    message = "price 0 of the accounting asset, in which no amount can be stated"
    return (Rule("GM109", "price", dead, message, "give its price", "prices"),)


def _broken(frame: pl.DataFrame, rules: tuple[Rule, ...]) -> Iterator[Finding]:
    """The rules that any row breaks: all are looked at in one pass, and only for those that are broken is another."""
    if not rules:
        return
    is_broken = frame.select(rule.broken.any().alias(str(number)) for number, rule in enumerate(rules)).row(0)
    for rule in compress(rules, is_broken):
        rows = frame.filter(rule.broken).get_column(f"{rule.table}_row").sort().to_numpy()
        where = {"code": rule.code, "table": rule.table, "column": rule.column}
        yield Finding(**where, rows=rows.astype(np.int64), message=rule.message, remedy=rule.remedy)


def _whole(facts: Facts, table: str) -> pl.DataFrame:
    """A table with every column of the contract and its row numbers as `<table>_row`."""
    return facts.book.whole_frame(table).with_row_index(f"{table}_row")


def used_instruments(facts: Facts, table: str) -> pl.Series:
    """Ids of the instruments that rows of `positions` or `orders` name, in the type of `instruments`."""
    words = facts.coded(table, "instrument_id").used_words() if facts.book.num_rows(table) else None
    kind = facts.book.whole_frame("instruments").schema["instrument_id"]
    return pl.Series([], dtype=kind) if words is None else pl.Series(pl.from_arrow(words))


def _known_assets(facts: Facts) -> pl.Series:
    words = facts.coded("prices", "asset").used_words().to_pylist()
    kind = facts.book.whole_frame("instruments").schema["underlying"]
    return pl.Series([*words, USD] if kind == pl.String else words, dtype=kind)


def zero_entries(facts: Facts) -> Iterator[Finding]:
    """Positions in inverse contracts with an entry price of 0 (GM109)."""
    entry = facts.column("positions", "entry_price")
    if entry is None or not facts.book.num_rows("instruments"):
        return
    contracts = facts.book.frame("instruments")
    linear = pl.col("kind").is_in(["future", "perpetual"])
    inverse = contracts.filter(pl.col("inverse") & linear).get_column("instrument_id")
    if inverse.is_empty():
        return
    coded = facts.coded("positions", "instrument_id")
    is_inverse = pc.is_in(coded.words, value_set=inverse.to_arrow().cast(coded.words.type))
    candidates = coded.rows_with(is_inverse.to_numpy(zero_copy_only=False))
    is_zero = pc.equal(entry.take(pa.array(candidates)), 0.0).fill_null(False)
    rows = candidates[np.asarray(is_zero)]
    if len(rows):
        message = "entry price 0 of an inverse contract, whose value is 1/entry"
        where = {"code": "GM109", "table": "positions", "column": "entry_price"}
        yield Finding(**where, rows=rows, message=message, remedy="give the entry price, or null where settled")
