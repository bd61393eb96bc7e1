"""Contracts are complete, priced and within the limits of time and vol.

The tables of contracts and prices are small beside positions, and a market is checked block after block, so these rules
are arrays of truth over `Contracts` and over the columns of the price tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.checks.contracts import Contracts
from gpumargin.checks.findings import Finding
from gpumargin.fill import SVI_COLUMNS
from gpumargin.pack.columns import Bools, flags, floats, is_one_of, plain
from gpumargin.pack.joins import has_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpumargin.checks.facts import Facts, Limits
    from gpumargin.pack.columns import Ints

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
    """Rows that break the contract: those where `broken` is true, `[instruments]` or of the rule's own table."""

    code: str
    column: str
    broken: Bools
    message: str
    remedy: str
    table: str = "instruments"


def market_findings(facts: Facts, limits: Limits) -> Iterator[Finding]:
    """Every rule on contracts, marks, forwards and prices that needs more than one cell."""
    if facts.book.num_rows("instruments"):
        contracts = Contracts(facts, limits)
        for rules in (_form_rules, _coverage_rules, _value_rules):
            yield from _broken(rules(contracts, limits), contracts.rows)
    for table, own_rules in (("marks", _mark_rules), ("forwards", _forward_rules), ("prices", _price_rules)):
        yield from _broken(own_rules(facts.book.tables[table], limits), {})


def _broken(rules: tuple[Rule, ...], rows: Mapping[str, Ints]) -> Iterator[Finding]:
    """The rules that any row breaks; `rows` says which row of a table belongs to each instrument."""
    for rule in rules:
        if rule.broken.any():
            broken = np.flatnonzero(rule.broken)
            where = {"code": rule.code, "table": rule.table, "column": rule.column}
            own = np.sort(rows[rule.table][broken]) if rows else broken
            yield Finding(**where, rows=own, message=rule.message, remedy=rule.remedy)


def _form_rules(contracts: Contracts, limits: Limits) -> tuple[Rule, ...]:
    option, is_null = contracts.is_option, partial(contracts.is_null, "instruments")
    dated = contracts.is_word("kind", "option", "future")
    spot = contracts.is_word("kind", "spot")
    too_far = contracts.seconds_left > limits.tenor_limit_years * SECONDS_PER_YEAR
    tenor = f"expires {{value}}, more than {limits.tenor_limit_years:g} years after the snapshot"
    rules = [
        Rule("GM112", "strike", option & is_null("strike"), "option without a strike", "give its strike"),
        Rule("GM112", "expiry", dated & is_null("expiry"), "dated contract without an expiry", "give its expiry"),
        Rule("GM112", "option_type", option & is_null("option_type"), "option without a type", "say call or put"),
        Rule(
            "GM112",
            "kind",
            spot & contracts.is_held,
            "a position in a spot contract",
            "move it to balances: spot holdings are balances, spot contracts are for orders only",
        ),
        Rule("GM111", "expiry", too_far, tenor, "looks like a timestamp in another unit, e.g. seconds read as days"),
    ]
    if limits.kinds is not None:
        wanted = sorted(limits.kinds)
        odd = contracts.is_used & ~contracts.is_word("kind", *wanted)
        message = f"the model does not margin a {{value}}, only {', '.join(wanted)}"
        rules.append(Rule("GM112", "kind", odd, message, "choose another model, or leave these positions out"))
    return tuple(rules)


def _coverage_rules(contracts: Contracts, _: Limits) -> tuple[Rule, ...]:
    option, live = contracts.is_option, contracts.is_live
    has_mark = contracts.rows["marks"] >= 0
    without_mark = live & ~option & ~has_mark
    without_price = live & ~option & has_mark & contracts.is_null("marks", "mark_price")
    no_forward = live & option & contracts.cannot_fill("forward")
    no_vol = live & option & ~no_forward & contracts.cannot_fill("vol")
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


def _value_rules(contracts: Contracts, _: Limits) -> tuple[Rule, ...]:
    used, live = contracts.is_used, contracts.is_live
    unsettled = used & contracts.is_expired & contracts.is_null("marks", "settlement_price")
    is_zero = contracts.numbers("marks", "mark_price") == 0
    zero_mark = live & ~contracts.is_option & contracts.is_set("inverse") & is_zero
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
            Rule("GM105", name, used & contracts.is_unpriced(name), unpriced.format(name), "add it to prices")
            for name in ("underlying", "settlement")
        ),
    )


def _mark_rules(marks: pa.Table, limits: Limits) -> tuple[Rule, ...]:
    message = f"mark_iv is {{value}}, expected at most {limits.vol_limit:g}; looks like per cent"
    return (Rule("GM110", "mark_iv", _exceeds(marks, "mark_iv", limits.vol_limit), message, _VOL_REMEDY, "marks"),)


def _exceeds(table: pa.Table, column: str, most: float) -> Bools:
    """Finite numbers above the most that is expected; others break a rule of their own."""
    numbers = floats(table, column)
    return np.asarray((numbers > most) & (numbers < np.inf))


def _forward_rules(forwards: pa.Table, limits: Limits) -> tuple[Rule, ...]:
    given = np.sum([has_values(forwards, name)[:-1] for name in SVI_COLUMNS], axis=0)
    too_long = _exceeds(forwards, "svi_years", limits.tenor_limit_years)
    message = f"svi_years is {{value}}, expected at most {limits.tenor_limit_years:g}; looks like days"
    return (
        Rule(
            "GM102",
            "svi_a",
            (given > 0) & (given < len(SVI_COLUMNS)),
            "only some of the SVI parameters",
            f"give all of {', '.join(SVI_COLUMNS)}, or none",
            "forwards",
        ),
        Rule("GM111", "svi_years", too_long, message, "give years, seconds / (365 * 86400)", "forwards"),
    )


def _price_rules(prices: pa.Table, limits: Limits) -> tuple[Rule, ...]:
    if limits.accounting is None:
        return ()
    dead = is_one_of(prices, "asset", (limits.accounting,)) & (floats(prices, "price") == 0)
    message = "price 0 of the accounting asset, in which no amount can be stated"
    return (Rule("GM109", "price", dead, message, "give its price", "prices"),)


def zero_entries(facts: Facts) -> Iterator[Finding]:
    """Positions in inverse contracts with an entry price of 0 (GM109)."""
    entry = facts.column("positions", "entry_price")
    if entry is None or not facts.book.num_rows("instruments"):
        return
    contracts = facts.book.tables["instruments"]
    is_linear = is_one_of(contracts, "kind", ("future", "perpetual"))
    inverse = plain(contracts, "instrument_id").filter(pa.array(flags(contracts, "inverse", default=False) & is_linear))
    if not len(inverse):
        return
    coded = facts.coded("positions", "instrument_id")
    is_inverse = pc.is_in(coded.words, value_set=inverse.cast(coded.words.type))
    candidates = coded.rows_with(is_inverse.to_numpy(zero_copy_only=False))
    is_zero = pc.equal(entry.take(pa.array(candidates)), 0.0).fill_null(False)
    rows = candidates[np.asarray(is_zero)]
    if len(rows):
        message = "entry price 0 of an inverse contract, whose value is 1/entry"
        where = {"code": "GM109", "table": "positions", "column": "entry_price"}
        yield Finding(**where, rows=rows, message=message, remedy="give the entry price, or null where settled")
