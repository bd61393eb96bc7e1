"""What a block must satisfy before anything of it is carried out: all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gpumargin.checks.cells import cell_findings
from gpumargin.checks.facts import Facts
from gpumargin.checks.findings import Finding, failures_of
from gpumargin.checks.keys import key_findings
from gpumargin.failures import failure_frame, input_error
from gpumargin.pack.columns import Floats, Ints, encoded, floats, positions_in
from gpumargin.resident.ids import Names
from gpumargin.resident.lane import Lane
from gpumargin.resident.schema import BLOCK_TABLES
from gpumargin.schema import TABLES
from gpumargin.tables import Book

_EXAMPLES = 20
_ABOUT_ACCOUNTS = ("fills", "transfers", "orders")


@dataclass(frozen=True)
class Found:
    """Rows of one table of a block by lane and number, `[rows]` each."""

    lane: Ints  # -1 = no such account
    account: Ints


def require_sound(block: Book) -> None:
    """Checks the cells of a block, and the keys of those of its tables that have one.

    Raises:
      InputError: every way in which they break the contract.
    """
    found = list(cell_findings(Facts(block), block.tables, BLOCK_TABLES))
    keyed = {name: table for name, table in block.tables.items() if name in TABLES}
    found += list(key_findings(Facts(Book(keyed, block.sources)), keyed))
    if "settlements" in block.tables:
        found += _repeated(block)
    found += [finding for name in ("fills", "transfers") if name in block.tables for finding in _zeros(block, name)]
    reject(block, found)


def reject(block: Book, findings: Sequence[Finding]) -> None:
    """Raises InputError with the findings, if there are any."""
    failures = failures_of(block, findings, max_examples=_EXAMPLES)
    if failures:
        raise input_error(failure_frame(failures))


def _repeated(block: Book) -> Iterator[Finding]:
    codes, _ = encoded(block.tables["settlements"]["instrument_id"])
    _, first = np.unique(codes, return_index=True)
    rows = np.setdiff1d(np.arange(len(codes)), first)
    if len(rows):
        message, remedy = "{value} is settled twice in one block", "keep one row for each contract"
        yield Finding(
            code="GM104", table="settlements", column="instrument_id", rows=rows, message=message, remedy=remedy
        )


def _zeros(block: Book, name: str) -> Iterator[Finding]:
    """A trade of nothing is a mistake; so is a decimal too large for a number."""
    column = {"fills": "quantity", "transfers": "amount"}[name]
    values = floats(block.tables[name], column)
    rows = np.flatnonzero(values == 0) if name == "fills" else np.flatnonzero(~np.isfinite(values))
    if len(rows):
        message = f"{column} is {{value}}, expected a number other than 0"
        yield Finding(code="GM112", table=name, column=column, rows=rows, message=message, remedy="leave the row out")


def find_accounts(block: Book, lanes: Sequence[Lane], added: Names | None, first: Found | None) -> dict[str, Found]:
    """Account of every row of fills, transfers and orders.

    Args:
      block: the block.
      lanes: what is resident.
      added: names of accounts that the block adds, and `first` what they will be.
      first: lane and number of each of these.

    Raises:
      InputError: GM106, accounts that are neither resident nor added.
    """
    found, wrong = {}, []
    for name in _ABOUT_ACCOUNTS:
        if name not in block.tables:
            continue
        names = Names.of(block.tables[name])
        own = find(names, lanes)
        if added is not None and first is not None:
            own = _or_added(own, names, added, first)
        found[name] = own
        rows = np.flatnonzero(own.lane < 0)
        if len(rows):
            message = "margin account ({value} with its pool) is not in the book"
            remedy = "correct account_id or pool, or add the account in the accounts table of this block or one before"
            wrong.append(
                Finding(code="GM106", table=name, column="account_id", rows=rows, message=message, remedy=remedy)
            )
    reject(block, wrong)
    return found


def find(names: Names, lanes: Sequence[Lane]) -> Found:
    """Lane and number of each account, -1 where it is not resident."""
    lane, account = np.full(len(names.account), -1, np.int64), np.full(len(names.account), -1, np.int64)
    for number, own in enumerate(lanes):
        place = own.ids.find(names)
        lane[place >= 0], account[place >= 0] = number, place[place >= 0]
    return Found(lane, account)


def _or_added(own: Found, names: Names, added: Names, first: Found) -> Found:
    rows = np.flatnonzero(own.lane < 0)
    if not len(rows):
        return own
    keys = {key: i for i, key in enumerate(zip(*_pairs(added), strict=True))}
    place = np.array([keys.get(key, -1) for key in zip(*_pairs(names.take(rows)), strict=True)], np.int64)
    known = place >= 0
    lane, account = own.lane.copy(), own.account.copy()
    lane[rows[known]], account[rows[known]] = first.lane[place[known]], first.account[place[known]]
    return Found(lane, account)


def _pairs(names: Names) -> tuple[list[object], list[object]]:
    return names.account_ids().to_pylist(), names.pool_ids().to_pylist()


def find_contracts(block: Book, name: str, lane: Lane, rows: Ints) -> tuple[Ints, list[Finding]]:
    """Contract of some rows of a table in one lane, and what is wrong with those that have none there."""
    codes, words = encoded(block.tables[name]["instrument_id"])
    place = positions_in(words, lane.contracts.ids)
    listed = np.append(lane.contracts.is_listed, False)
    place = np.where(listed[place], place, -1)
    contract = place[codes[rows]].astype(np.int64)
    wrong = []
    unknown = rows[contract < 0]
    if len(unknown):
        message = f"{lane.model.label} margins no contract {{value}} of this book"
        remedy = "list it in the instruments table of this block or one before, or correct the id"
        where = {"table": name, "column": "instrument_id"}
        wrong.append(Finding(code="GM105", **where, rows=unknown, message=message, remedy=remedy))
    unpaid = rows[(contract >= 0) & (lane.terms.settlement[contract] < 0)]
    if len(unpaid):
        message, remedy = "the settlement asset of {value} has no row in prices", "add the asset to prices first"
        where = {"table": name, "column": "instrument_id"}
        wrong.append(Finding(code="GM105", **where, rows=unpaid, message=message, remedy=remedy))
    return contract, wrong


def zero_prices(name: str, lane: Lane, rows: Ints, contract: Ints, price: Floats) -> list[Finding]:
    """Price 0 of a contract whose value is one over its price."""
    at = np.maximum(contract, 0)
    is_over = lane.terms.is_inverse[at] & (contract >= 0) & (~lane.terms.is_upfront[at] | (name == "settlements"))
    wrong = rows[is_over & (price == 0)]
    if not len(wrong):
        return []
    message, remedy = "price 0 of an inverse contract, whose value is one over it", "give a positive price"
    return [Finding(code="GM109", table=name, column="price", rows=wrong, message=message, remedy=remedy)]


def find_assets(block: Book, lane: Lane, rows: Ints) -> tuple[Ints, list[Finding]]:
    """Asset of some rows of transfers, and what is wrong with those that have none."""
    codes, words = encoded(block.tables["transfers"]["asset"])
    asset = positions_in(words, pa.array(lane.contracts.asset_ids, pa.string()))[codes[rows]].astype(np.int64)
    unknown = rows[asset < 0]
    if not len(unknown):
        return asset, []
    message, remedy = "asset {value} has no row in prices", "add the asset to prices, with 0 for a dead coin"
    where = {"table": "transfers", "column": "asset"}
    return asset, [Finding(code="GM105", **where, rows=unknown, message=message, remedy=remedy)]
