"""Every id that a row refers to exists where it is defined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from gpumargin.checks.findings import NO_ROW, Finding
from gpumargin.schema import USD

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from gpumargin.checks.facts import Coded, Facts

_HOLDINGS = ("positions", "balances")
_DEFINING = (*_HOLDINGS, "accounts")
_ABOUT_ACCOUNTS = ("account_parameters", "orders")
_ACCOUNT_TABLES = (*_DEFINING, *_ABOUT_ACCOUNTS)

DOMAINS: dict[str, tuple[tuple[str, str], ...]] = {
    "instruments": tuple((table, "instrument_id") for table in ("instruments", "marks", "positions", "orders")),
    "accounts": tuple((table, "account_id") for table in _ACCOUNT_TABLES),
    "pools": tuple((table, "pool") for table in _ACCOUNT_TABLES),
    "assets": (
        ("prices", "asset"),
        ("instruments", "underlying"),
        ("instruments", "settlement"),
        ("instruments", "quote"),
        ("forwards", "underlying"),
        ("forwards", "quote"),
        ("balances", "asset"),
        ("assets", "asset"),
        ("funds", "asset"),
        ("ledger", "asset"),
    ),
}
"""Columns that name the same things and must therefore be of one type."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A column whose every word must stand in a column of another table; `known` words need no row."""

    table: str
    column: str
    target: str
    target_column: str
    remedy: str
    known: tuple[str, ...] = ()


_LIST_IT = "add the contract to instruments, or remove the row"
_PRICE_IT = "add the asset to prices, with 0 for a dead coin"
REFERENCES = (
    Reference("positions", "instrument_id", "instruments", "instrument_id", _LIST_IT),
    Reference("marks", "instrument_id", "instruments", "instrument_id", _LIST_IT),
    Reference("orders", "instrument_id", "instruments", "instrument_id", _LIST_IT),
    Reference("balances", "asset", "prices", "asset", _PRICE_IT, known=(USD,)),
    Reference("funds", "asset", "prices", "asset", _PRICE_IT, known=(USD,)),
)


def domain_findings(facts: Facts) -> Iterator[Finding]:
    """Columns that name the same things with words in one table and integers in another."""
    for thing, columns in DOMAINS.items():
        given = [(table, column, facts.column(table, column)) for table, column in columns]
        typed = [(table, column, pat.is_integer(values.type)) for table, column, values in given if values]
        for table, column, is_integer in typed:
            if is_integer != typed[0][2]:
                words = ("strings", "integers")
                other = f"{typed[0][0]}.{typed[0][1]}"
                message = f"{thing} are {words[is_integer]} in {table}.{column} and {words[not is_integer]} in {other}"
                remedy = "write the ids of both tables in one type"
                yield Finding(code="GM101", table=table, column=column, rows=NO_ROW, message=message, remedy=remedy)


def reference_findings(facts: Facts, tables: Collection[str]) -> Iterator[Finding]:
    """Unknown instruments and assets in these tables (GM105)."""
    for reference in REFERENCES:
        if reference.table in tables and facts.book.num_rows(reference.table):
            yield from _unknown(facts, reference)


def _unknown(facts: Facts, reference: Reference) -> Iterator[Finding]:
    coded = facts.coded(reference.table, reference.column)
    defined = facts.coded(reference.target, reference.target_column).used_words()
    is_known = _is_in(coded.words, defined)
    if reference.known and not pat.is_integer(coded.words.type):
        is_known |= _is_in(coded.words, pa.array(reference.known))
    rows = coded.rows_with(~is_known)
    if len(rows):
        message = f"{reference.column} {{value}} has no row in {reference.target}"
        where = {"table": reference.table, "column": reference.column}
        yield Finding(code="GM105", **where, rows=rows, message=message, remedy=reference.remedy)


def _is_in(words: pa.Array, defined: pa.Array) -> np.ndarray:
    if not len(defined):  # an empty table has no type to compare with
        return np.zeros(len(words), bool)
    return np.array(pc.is_in(words, value_set=defined).to_numpy(zero_copy_only=False))


def has_accounts(facts: Facts) -> bool:
    """Whether anybody holds anything."""
    return any(map(facts.book.num_rows, _HOLDINGS))


def empty_findings(facts: Facts) -> Iterator[Finding]:
    """A book without any margin account (GM106)."""
    is_market = not any(name in facts.book.tables for name in _HOLDINGS)
    if not is_market and not has_accounts(facts):
        message = "the book is empty: neither a position nor a balance"
        remedy = "add the accounts' positions or balances"
        yield Finding(code="GM106", table="balances", column="account_id", rows=NO_ROW, message=message, remedy=remedy)


def account_findings(facts: Facts) -> Iterator[Finding]:
    """Rows about margin accounts that a book with holdings does not have (GM106)."""
    for table in filter(facts.book.num_rows, _ABOUT_ACCOUNTS):
        rows = np.flatnonzero(~_has_holdings(facts, table))
        if len(rows):
            message = "margin account ({value} with its pool) has no row in positions, balances or accounts"
            remedy = "correct account_id or pool, or remove the row"
            yield Finding(code="GM106", table=table, column="account_id", rows=rows, message=message, remedy=remedy)


def _has_holdings(facts: Facts, table: str) -> np.ndarray:
    """`[n]` bool: whether each row's (account_id, pool) stands in positions, balances or accounts."""
    holders = [name for name in _DEFINING if facts.book.num_rows(name)]
    if not holders:
        return np.zeros(facts.book.num_rows(table), bool)
    known = {column: _words(facts, holders, column) for column in ("account_id", "pool")}
    held = np.concatenate([_account_numbers(facts, name, known) for name in holders])
    numbers = _account_numbers(facts, table, known)
    return np.isin(numbers, np.unique(held)) & (numbers >= 0)


def _words(facts: Facts, tables: Iterable[str], column: str) -> pa.Array:
    return pa.concat_arrays([facts.coded(table, column).words for table in tables]).unique()


def _account_numbers(facts: Facts, table: str, known: Mapping[str, pa.Array]) -> np.ndarray:
    """`[n]` int64, equal where account and pool are, in whatever table; -1 where either is null or not known."""
    account, pool = (_common_codes(facts.coded(table, column), words) for column, words in known.items())
    return np.where((account < 0) | (pool < 0), -1, account * len(known["pool"]) + pool)


def _common_codes(coded: Coded, words: pa.Array) -> np.ndarray:
    places = pc.index_in(coded.words, value_set=words).fill_null(-1).to_numpy(zero_copy_only=False)
    return np.take(np.append(places, -1).astype(np.int64), coded.codes)
