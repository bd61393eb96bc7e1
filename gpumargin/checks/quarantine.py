"""Bad rows taken out: the book that is left, what was taken and why, and whose margin accounts are in doubt for it.

The market goes first. A row of it that breaks a rule takes with it every contract that depends on it, and what then
lacks something goes too, until what is left is sound. Of each part of the accounts the rows that break a rule and those
that stand on something taken out of the market go; the margin accounts that they belong to are unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from gpumargin.checks.cascade import ACCOUNT_LINKS, MARKET_LINKS, RECORDS, Causes, linked, nothing, rows_by_table
from gpumargin.checks.findings import Finding, examples_of
from gpumargin.failures import failure_frame
from gpumargin.fill import SURFACE, live_options
from gpumargin.tables import CUT_TABLES, NO_FILE, Book, Source
from gpumargin.tables.rows import without

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

ACCOUNT = ("account_id", "pool")
_ORDER = ("table", "file", "row", "column", "code", "message")
_FILLED = ("fit", "interpolation")


@dataclass(frozen=True)
class Sifted:
    """A part of a book after its bad rows were taken out.

    Attributes:
      book: what may be used: the market and the accounts of the part. A margin account of which nothing is left has a
        row of its own in `accounts`, from no file.
      unknown: `account_id` and `pool` of the margin accounts that lost a row; None = none did.
      rejected: a row for each rule that a row broke, columns as `RECORDS`; None likewise.
    """

    book: Book
    unknown: pl.DataFrame | None = None
    rejected: pl.DataFrame | None = None


@dataclass
class Sieve:
    """Takes bad rows out of a book whose accounts come in parts, first of all out of its market."""

    causes: Causes = field(default_factory=Causes)
    rejected: list[pl.DataFrame] = field(default_factory=list)

    def market(self, book: Book, findings: Sequence[Finding]) -> Book:
        """The book without the rows of its market that the findings blame, and without what depends on them."""
        records = own_records(book, findings)
        fresh = {name: frame for name, frame in records.items() if frame.height}
        while fresh:
            for name, frame in fresh.items():
                self.causes.add(book, name, frame)
            fresh = self._followers(book, records, fresh)
        self.rejected += [frame.drop("at") for frame in records.values()]
        return without(book, rows_by_table(records))

    def _followers(
        self, book: Book, records: dict[str, pl.DataFrame], fresh: dict[str, pl.DataFrame]
    ) -> dict[str, pl.DataFrame]:
        found: dict[str, pl.DataFrame] = {}
        for link in MARKET_LINKS:
            if link.source in fresh:
                known, hit = records.get(link.target, nothing()), linked(book, link, self.causes)
                new = hit.join(known.select("at"), on="at", how="anti", maintain_order="left")
                records[link.target] = pl.concat([known, new])
                found[link.target] = pl.concat([found.get(link.target, nothing()), new])
        return {name: frame for name, frame in found.items() if frame.height}

    def rejected_market(self) -> pl.DataFrame:
        """What was taken out of the market, in order of tables, files and rows."""
        return _ordered(pl.concat([pl.DataFrame(schema=RECORDS), *self.rejected]))

    def part(self, book: Book, market: Book, findings: Sequence[Finding]) -> Sifted:
        """A part of the book without its bad rows.

        Args:
          book: the market as it was given, and every row of some accounts.
          market: what is left of the market.
          findings: what is wrong with rows of accounts.
        """
        records = own_records(book, findings)
        causes = self._with_accounts(book, records)
        for link in ACCOUNT_LINKS:
            found = linked(book, link, causes)
            records[link.target] = pl.concat([records.get(link.target, nothing()), found])
        gone, usable = rows_by_table(records), _on_market(book, market)
        if not gone:
            return Sifted(usable)
        unknown = _accounts_of(book, gone)
        return Sifted(_with_empty(without(usable, gone), unknown), unknown, _by_account(book, records))

    def _with_accounts(self, book: Book, records: dict[str, pl.DataFrame]) -> Causes:
        """Causes of the market, and the bad rows of `accounts` of this part."""
        found = Causes(dict(self.causes.rows))
        if "accounts" in records:
            found.add(book, "accounts", records["accounts"])
        return found


def own_records(book: Book, findings: Sequence[Finding]) -> dict[str, pl.DataFrame]:
    """A record for each row that a finding blames, by table, with the number of the row in the table as `at`."""
    found: dict[str, list[pl.DataFrame]] = {}
    for finding in findings:
        failures = failure_frame(examples_of(book, finding, limit=len(finding.rows)))
        said = failures.with_columns(pl.col("message") + "; " + pl.col("remedy"))
        frame = said.select(*RECORDS).insert_column(0, pl.Series("at", finding.rows, dtype=pl.Int64))
        found.setdefault(finding.table, []).append(frame)
    return {name: pl.concat(frames) for name, frames in found.items()}


def surface_findings(market: Book, causes: Causes, as_of: datetime) -> Iterator[Finding]:
    """Options whose vol or forward would come from the others of a surface that has lost one (GM107)."""
    lost = causes.rows.get("instruments")
    if lost is None:
        return
    surfaces = lost.filter(pl.col("kind") == "option").select(SURFACE).unique()
    if surfaces.is_empty() or not market.num_rows("instruments"):
        return
    options = live_options(market, as_of)
    is_filled = pl.col("vol").is_in(_FILLED) | (pl.col("forward") == "parity")
    wanted = options.filter(is_filled).join(surfaces.cast({n: options.schema[n] for n in SURFACE}), on=SURFACE)
    ids = market.frame("instruments")["instrument_id"]
    rows = np.flatnonzero(ids.is_in(wanted["instrument_id"].implode()).to_numpy())
    if len(rows):
        message = "{value} has no vol or forward of its own, and of the options that would tell it one is in quarantine"
        remedy = "give mark_iv and its forwards row, or correct the rows in quarantine"
        yield Finding(
            code="GM107", table="instruments", column="instrument_id", rows=rows, message=message, remedy=remedy
        )


def _on_market(part: Book, market: Book) -> Book:
    """The accounts of a part beside what is left of the market."""
    own = {name: part.tables[name] for name in part.tables if name in CUT_TABLES}
    rest = {name: table for name, table in market.tables.items() if name not in CUT_TABLES}
    sources = {name: part.sources[name] for name in own} | {name: market.sources[name] for name in rest}
    return Book({**rest, **own}, sources)


def _accounts_of(book: Book, gone: dict[str, np.ndarray]) -> pl.DataFrame:
    """Margin accounts of some rows, ascending."""
    keys = [_keys(book.tables[name].take(pa.array(rows))) for name, rows in gone.items()]
    return pl.concat(keys).unique().sort(ACCOUNT)


def _keys(table: pa.Table) -> pl.DataFrame:
    """Account id and pool of every row, as text or as integers."""
    columns = [table.column(name) for name in ACCOUNT]
    plain = [column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for column in columns]
    return pl.DataFrame(pl.from_arrow(pa.table(plain, names=list(ACCOUNT))))


def is_among(account_ids: pa.Array, pools: pa.Array, accounts: pl.DataFrame) -> np.ndarray:
    """`[A]` bool: which margin accounts are among those of a frame with `account_id` and `pool`."""
    keys = _keys(pa.table([account_ids, pools], names=list(ACCOUNT)))
    found = keys.join(accounts.with_columns(found=True), on=ACCOUNT, how="left", maintain_order="left")
    return found["found"].fill_null(value=False).to_numpy()


def _with_empty(book: Book, unknown: pl.DataFrame) -> Book:
    """The book with a row of `accounts` for each unknown margin account that no other row names."""
    named = [_keys(book.tables[name]).unique() for name in CUT_TABLES if book.num_rows(name)]
    empty = unknown.join(pl.concat([unknown.clear(), *named]), on=ACCOUNT, how="anti", maintain_order="left")
    if empty.is_empty():
        return book
    added = _rows_of_accounts(empty, book.tables.get("accounts"))
    known = book.tables.get("accounts", added.slice(0, 0))
    joined = pa.concat_tables([known, added]).unify_dictionaries()
    sources = {**book.sources, "accounts": (*book.sources.get("accounts", ()), Source(NO_FILE, empty.height))}
    return Book({**book.tables, "accounts": joined}, sources)


def _rows_of_accounts(keys: pl.DataFrame, like: pa.Table | None) -> pa.Table:
    """Rows of `accounts` that say nothing but whose they are, with the columns of another such table."""
    columns = {}
    for name in ACCOUNT:
        values = keys[name].to_arrow()
        is_text = not pa.types.is_integer(values.type)
        columns[name] = values.cast(pa.string()).dictionary_encode() if is_text else values
    for column in like.schema if like is not None else ():
        columns.setdefault(column.name, pa.nulls(keys.height, column.type))
    return pa.table({name: columns[name] for name in (like.column_names if like is not None else ACCOUNT)})


def _by_account(book: Book, records: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Records in order of margin accounts, the same for any cut into parts."""
    found = [
        pl.concat([frame, _keys(book.tables[name].take(pa.array(frame["at"].to_numpy())))], how="horizontal").drop("at")
        for name, frame in records.items()
        if frame.height
    ]
    if not found:
        return pl.DataFrame(schema=RECORDS)
    return pl.concat(found).sort(*ACCOUNT, *_ORDER).select(*RECORDS).unique(maintain_order=True)


def _ordered(records: pl.DataFrame) -> pl.DataFrame:
    return records.unique().sort(_ORDER)
