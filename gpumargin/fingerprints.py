"""A number that says which rows there were, so that a row lost, doubled, swapped or changed on the way shows.

Every row of positions and balances has a number of 64 bits, made of its account, its contract or asset, and every bit
of its amounts; those of many rows are added up modulo 2^64. The sum is the same in any order and for any cut into
parts, so what was read can be held against what was packed without keeping either. It guards against faults, not
against someone who looks for two books with one fingerprint: the hashes of inputs and results do that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.pack.columns import Floats, Ints, encoded, flags, floats
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.legs import LegBook
from gpumargin.tables import Book

Marks = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
FOLLOWED = ("positions", "balances")
_WORD, _ID, _POOL = 1, 4, 5  # seeds
_BLOCK = 1 << 14  # rows whose numbers stay in the cache
_HALF, _ODD = np.uint64(32), np.uint64(0xD6E8FEB86659FD93)
_ENTRY, _UNSETTLED = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # odd: no bit of a word is lost
_FLAG = np.uint64(0x9E3779B97F4A7C15)  # what a balance that is collateral adds to its amount's bits


class _Words(NamedTuple):
    """What a word multiplies: all amounts of a row; of these its entry once more. The last, of null, is 0."""

    amount: Marks
    entry: Marks


def _marks(words: pa.Array, seed: int) -> Marks:
    """An odd number for each word, `[n]`, so that no bit is lost to it; integers count as the text they read as."""
    texts = pl.Series(pl.from_arrow(words.cast(pa.string())))
    return np.asarray(texts.hash(seed).to_numpy() | np.uint64(1), np.uint64)


def _words(words: pa.Array, is_option: np.ndarray) -> _Words:
    """Contracts or assets. An option's entry is no part of its P&L, and is not followed."""
    amount = np.append(_marks(words, _WORD), np.uint64(0))
    return _Words(amount, np.where(np.append(is_option, True), np.uint64(0), _ENTRY))


def _of(marks: Marks, codes: np.ndarray) -> Marks:
    """Marks of words by their codes; -1, of null, is the last."""
    return np.take(marks, codes, mode="wrap")  # half the time of an index


def _bits(values: Floats) -> Marks:
    """The bits of numbers, mixed so that any that differs moves high ones; 0 for either zero."""
    bits: Marks = (values + 0.0).view(np.uint64)
    mixed = bits >> _HALF
    mixed ^= bits
    mixed *= _ODD
    return mixed


def _paid(words: _Words, contract: np.ndarray, quantity: Floats, entry: Floats, unsettled: Floats) -> Marks:
    """Of what was paid and is due, before the mark of the contract; nothing where nothing is held."""
    paid, due = _bits(entry), _bits(unsettled)
    paid *= _of(words.entry, contract)
    due *= _UNSETTLED
    paid += due
    paid *= quantity != 0
    return paid


def _of_balances(words: _Words, asset: np.ndarray, amount: Floats, is_collateral: np.ndarray) -> Marks:
    amounts = _bits(amount)
    amounts += _FLAG * (is_collateral & (amount != 0))
    amounts *= _of(words.amount, asset)
    return amounts


def options_of(head: Book) -> pa.Array:
    """Ids of the options that a book lists."""
    table = head.tables["instruments"]
    return table["instrument_id"].filter(pc.equal(table["kind"].cast(pa.string()), "option"))


def read_fingerprint(name: str, table: pa.Table, options: pa.Array) -> int:
    """Fingerprint of rows as they were read.

    Args:
      name: `positions` or `balances`.
      table: in canonical types.
      options: ids of the instruments that are options.
    """
    (owner, ids), (place, pools) = encoded(table["account_id"]), encoded(table["pool"])
    of_id, of_pool = (np.append(_marks(words, seed), np.uint64(0)) for seed, words in ((_ID, ids), (_POOL, pools)))
    of_rows = _positions(table, options) if name == "positions" else _balances(table)
    total = np.zeros(1, np.uint64)
    for start in range(0, table.num_rows, _BLOCK):
        rows = slice(start, start + _BLOCK)
        marks = of_rows(rows)
        marks *= _of(of_id, owner[rows])
        marks *= _of(of_pool, place[rows])
        total += marks.sum(keepdims=True)
    return int(total[0])


def _positions(table: pa.Table, options: pa.Array) -> Callable[[slice], Marks]:
    contract, ids = encoded(table["instrument_id"])
    words = _words(ids, np.asarray(pc.is_in(ids, value_set=options.cast(ids.type).combine_chunks())))
    quantity, entry, unsettled = (
        floats(table, "quantity"),
        floats(table, "entry_price"),
        floats(table, "unsettled", 0.0),
    )

    def of_rows(rows: slice) -> Marks:
        marks = _bits(quantity[rows])
        marks += _paid(words, contract[rows], quantity[rows], entry[rows], unsettled[rows])
        marks *= _of(words.amount, contract[rows])
        return marks

    return of_rows


def _balances(table: pa.Table) -> Callable[[slice], Marks]:
    asset, ids = encoded(table["asset"])
    words = _words(ids, np.zeros(len(ids), bool))
    amount, counts = floats(table, "amount"), flags(table, "is_collateral", default=True)
    return lambda rows: _of_balances(words, asset[rows], amount[rows], counts[rows])


def packed_fingerprints(book: LegBook, contracts: ContractSet) -> dict[str, int]:
    """Fingerprints of the positions and balances of packed accounts, by table; those of all parts add up."""
    assets = _words(pa.array(contracts.asset_ids, pa.string()), np.zeros(len(contracts.asset_ids), bool))
    amounts = _of_balances(assets, book.asset, book.amount, book.is_collateral)
    own = _marks(book.account_ids, _ID) * _marks(book.pools, _POOL)
    found = {"positions": own * _legs(book, contracts), "balances": own * _by_run(amounts, book.balance_start)}
    return {name: int(marks.sum()) for name, marks in found.items()}


def _legs(book: LegBook, contracts: ContractSet) -> Marks:
    """Of the legs of every account and of the cash legs among them."""
    words, held = _words(contracts.ids, contracts.contracts.is_option[: contracts.padding]), book.quantity[book.is_cash]
    words.amount[:-1] *= contracts.is_listed

    def of_sizes(rows: slice) -> Marks:
        sizes = _bits(book.quantity[rows])
        sizes *= _of(words.amount, book.contract[rows])
        return sizes

    def of_cash(rows: slice) -> Marks:
        contract = book.cash_contract[rows]
        marks = _bits(book.cash_quantity[rows])  # 0 for options, whose P&L is their value
        marks -= _bits(held[rows])
        marks *= _of(words.entry, contract)
        marks += _paid(words, contract, held[rows], book.entry[rows], book.unsettled[rows])
        marks *= _of(words.amount, contract)
        return marks

    sizes, cash = _in_blocks(of_sizes, len(book.contract)), _in_blocks(of_cash, len(held))
    return _by_run(sizes, book.leg_start[book.unit_start]) + _by_run(cash, book.cash_start[book.unit_start])


def _in_blocks(of_rows: Callable[[slice], Marks], count: int) -> Marks:
    """Marks of all rows, a block at a time."""
    marks = np.empty(count, np.uint64)
    for start in range(0, count, _BLOCK):
        rows = slice(start, min(start + _BLOCK, count))
        marks[rows] = of_rows(rows)
    return marks


def _by_run(values: Marks, starts: Ints) -> Marks:
    """Sums of consecutive values, modulo 2^64."""
    ends = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    sums: Marks = ends[starts[1:]] - ends[starts[:-1]]
    return sums
