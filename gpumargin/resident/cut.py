"""Some accounts of a packed book, and the lengths of its runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from gpumargin.pack.columns import Ints
from gpumargin.pack.legs import LegBook
from gpumargin.resident.layout import SHARING


def empty_like(book: LegBook) -> LegBook:
    """A packed book of no accounts with the same columns."""

    def none(values: Any) -> Any:
        if isinstance(values, dict):
            return {name: column[:0] for name, column in values.items()}
        return None if values is None else values[:0]

    columns = {name: none(values) for name, values in vars(book).items()}
    starts = {name: np.zeros(1, np.int64) for name in columns if name.endswith("_start")}
    return replace(book, **{**columns, **starts})


def _inside(starts: Ints, runs: Ints) -> tuple[Ints, Ints]:
    """Indices of what some runs hold, one run after the other, and where each run begins among them."""
    lengths = starts[runs + 1] - starts[runs]
    begins = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.repeat(starts[runs] - begins[:-1], lengths) + np.arange(begins[-1]), begins


def cut_accounts(book: LegBook, accounts: Ints) -> LegBook:
    """Some accounts of a packed book, in the order given."""
    rows, unit_start = _inside(book.unit_start, accounts)
    legs, leg_start = _inside(book.leg_start, rows)
    cash, cash_start = _inside(book.cash_start, rows)
    balances, balance_start = _inside(book.balance_start, accounts)
    return replace(
        book,
        account_ids=book.account_ids.take(pa.array(accounts)),
        pools=book.pools.take(pa.array(accounts)),
        num_positions=book.num_positions[accounts],
        unit_start=unit_start,
        balance_start=balance_start,
        unit=book.unit[rows],
        leg_start=leg_start,
        cash_start=cash_start,
        contract=book.contract[legs],
        quantity=book.quantity[legs],
        inputs={name: values[legs] for name, values in book.inputs.items()},
        is_cash=book.is_cash[legs],
        cash_contract=book.cash_contract[cash],
        cash_quantity=book.cash_quantity[cash],
        entry=book.entry[cash],
        unsettled=book.unsettled[cash],
        asset=book.asset[balances],
        amount=book.amount[balances],
        is_collateral=book.is_collateral[balances],
        category=None if book.category is None else book.category[accounts],
        owner=None if book.owner is None else book.owner[accounts],
        settlement=None if book.settlement is None else book.settlement[balances],
        settings={name: values[accounts] for name, values in book.settings.items()},
        balance_inputs=None
        if book.balance_inputs is None
        else {name: values[balances] for name, values in book.balance_inputs.items()},
    )


def run_lengths(book: LegBook) -> dict[str, Ints]:
    """Length of every run of every level."""
    return {
        "legs": np.diff(book.leg_start),
        "cash_legs": np.diff(book.cash_start),
        "unit_slots": np.diff(book.unit_start),
        "balances": np.diff(book.balance_start),
    }


def lengths_by_shard(book: LegBook, shards: int) -> dict[str, list[Ints]]:
    """Lengths of the runs of every level by shard, where account n lies in shard n modulo the number of shards.

    Empty runs of cash legs and balances take no room and are left out.
    """
    of_account = np.arange(len(book)) % shards
    of_row = np.repeat(of_account, np.diff(book.unit_start))
    found: dict[str, list[Ints]] = {}
    for level, lengths in run_lengths(book).items():
        shard = of_row if level in ("legs", "cash_legs") else of_account
        own = [lengths[shard == number] for number in range(shards)]
        found[level] = [x[x > 0] for x in own] if level in SHARING else own
    return found
