"""Some accounts of a packed book, and the lengths of its runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

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


def cut_accounts(book: LegBook, accounts: slice) -> LegBook:
    """Some consecutive accounts of a packed book."""
    rows = slice(int(book.unit_start[accounts.start]), int(book.unit_start[accounts.stop]))
    ends = {
        "leg": slice(int(book.leg_start[rows.start]), int(book.leg_start[rows.stop])),
        "cash": slice(int(book.cash_start[rows.start]), int(book.cash_start[rows.stop])),
        "balance": slice(int(book.balance_start[accounts.start]), int(book.balance_start[accounts.stop])),
    }
    legs, cash, balances = ends["leg"], ends["cash"], ends["balance"]
    return replace(
        book,
        account_ids=book.account_ids[accounts],
        pools=book.pools[accounts],
        num_positions=book.num_positions[accounts],
        unit_start=book.unit_start[accounts.start : accounts.stop + 1] - rows.start,
        balance_start=book.balance_start[accounts.start : accounts.stop + 1] - balances.start,
        unit=book.unit[rows],
        leg_start=book.leg_start[rows.start : rows.stop + 1] - legs.start,
        cash_start=book.cash_start[rows.start : rows.stop + 1] - cash.start,
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


def lengths_by_shard(book: LegBook, cuts: Ints) -> dict[str, list[Ints]]:
    """Lengths of the runs of every level by shard; empty ones of cash legs and balances take no room."""
    rows = book.unit_start[cuts]
    found: dict[str, list[Ints]] = {}
    for level, lengths in run_lengths(book).items():
        ends = rows if level in ("legs", "cash_legs") else cuts
        own = [lengths[a:b] for a, b in pairwise(ends)]
        found[level] = [x[x > 0] for x in own] if level in SHARING else own
    return found
