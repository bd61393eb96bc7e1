"""Claims about the fill rule: a second way to it, a plain loop, and what must hold whatever is traded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumargin.resident.fills import (
    Fills,
    Holdings,
    Payoffs,
    Terms,
    Transfers,
    closing_fills,
    settlement_values,
    with_fills,
    with_transfers,
)

# A linear future in asset 0, an inverse one in asset 1, an upfront option in asset 0.
TERMS = Terms(
    size=np.array([2.0, 100.0, 0.5]),
    is_upfront=np.array([False, False, True]),
    is_inverse=np.array([False, True, False]),
    settlement=np.array([0, 1, 0]),
    mark=np.array([50.0, 40.0, 7.0]),
)
LINEAR, INVERSE, OPTION = range(3)
Leg = tuple[int, int]


@dataclass
class Plain:
    """A book as dictionaries: (owner, contract) -> quantity and entry, (owner, asset) -> amount."""

    quantity: dict[Leg, float] = field(default_factory=dict)
    entry: dict[Leg, float | None] = field(default_factory=dict)
    amount: dict[Leg, float] = field(default_factory=dict)

    def gain(self, contract: int, first: float, last: float) -> float:
        return 1 / first - 1 / last if TERMS.is_inverse[contract] else last - first

    def pay(self, leg: Leg, paid: float) -> None:
        if paid:
            key = leg[0], int(TERMS.settlement[leg[1]])
            self.amount[key] = self.amount.get(key, 0.0) + paid

    def fill(self, leg: Leg, traded: float, price: float, fee: float) -> None:
        contract, size = leg[1], float(TERMS.size[leg[1]])
        held, entry = self.quantity.get(leg, 0.0), self.entry.get(leg)
        if TERMS.is_upfront[contract]:
            self.quantity[leg] = held + traded
            self.pay(leg, -traded * price * size - fee)
            return
        paid = 0.0
        if held == 0:
            entry = price
        elif held * traded > 0:
            if entry is None:
                paid = traded * self.gain(contract, price, float(TERMS.mark[contract]))
            elif TERMS.is_inverse[contract]:
                entry = (abs(held) + abs(traded)) / (abs(held) / entry + abs(traded) / price)
            else:
                entry = (abs(held) * entry + abs(traded) * price) / (abs(held) + abs(traded))
        else:
            closed = math.copysign(min(abs(held), abs(traded)), held)
            start = float(TERMS.mark[contract]) if entry is None else entry
            paid = (
                -closed * self.gain(contract, price, start)
                if entry is None
                else closed * self.gain(contract, start, price)
            )
            entry = price if abs(traded) > abs(held) else entry
        self.quantity[leg] = held + traded
        self.entry[leg] = entry if held + traded else None
        self.pay(leg, paid * size - fee)


def holdings(plain: Plain) -> Holdings:
    legs, cash = sorted(plain.quantity), sorted(plain.amount)
    entries = [plain.entry.get(leg) for leg in legs]
    return Holdings(
        owner=np.array([leg[0] for leg in legs], np.int64),
        contract=np.array([leg[1] for leg in legs], np.int64),
        quantity=np.array([plain.quantity[leg] for leg in legs], float),
        entry=np.array([math.nan if entry is None else entry for entry in entries], float),
        unsettled=np.zeros(len(legs)),
        balance_owner=np.array([key[0] for key in cash], np.int64),
        asset=np.array([key[1] for key in cash], np.int64),
        amount=np.array([plain.amount[key] for key in cash], float),
        is_collateral=np.ones(len(cash), bool),
    )


def as_plain(held: Holdings) -> Plain:
    legs = list(zip(held.owner.tolist(), held.contract.tolist(), strict=True))
    cash = zip(held.balance_owner.tolist(), held.asset.tolist(), strict=True)
    entries = [None if math.isnan(entry) else entry for entry in held.entry.tolist()]
    return Plain(
        dict(zip(legs, held.quantity.tolist(), strict=True)),
        dict(zip(legs, entries, strict=True)),
        dict(zip(cash, held.amount.tolist(), strict=True)),
    )


def fills(rows: list[tuple[int, int, float, float, float]]) -> Fills:
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    owner, contract, *rest = columns
    return Fills(owner.astype(np.int64), contract.astype(np.int64), *(column.astype(float) for column in rest))


sizes = st.sampled_from([-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0])
prices = st.sampled_from([30.0, 40.0, 41.7, 50.0, 66.6])
trades = st.tuples(st.integers(0, 2), st.integers(0, 2), sizes, prices, st.sampled_from([0.0, 0.25]))
before = st.dictionaries(
    st.tuples(st.integers(0, 2), st.integers(0, 2)), st.tuples(sizes, st.none() | prices), max_size=5
)


@given(before, st.lists(trades, min_size=1, max_size=14))
def test_many_fills_at_once_are_the_plain_loop_bit_for_bit(
    start: dict[Leg, tuple[float, float | None]], rows: list[tuple[int, int, float, float, float]]
) -> None:
    entries = {leg: None if leg[1] == OPTION else entry for leg, (_, entry) in start.items()}
    plain = Plain({leg: quantity for leg, (quantity, _) in start.items()}, entries, {(0, 0): 10.0})
    found = as_plain(with_fills(holdings(plain), fills(rows), TERMS))
    for owner, contract, quantity, price, fee in rows:
        plain.fill((owner, contract), quantity, price, fee)
    assert found.quantity == plain.quantity
    assert {leg: e for leg, e in found.entry.items() if e is not None} == {
        leg: e for leg, e in plain.entry.items() if e is not None
    }
    assert found.amount == plain.amount


def equity(held: Holdings, asset: int) -> float:
    """Balances in an asset and P&L of positions that settle in it, options at their mark."""
    total = float(held.amount[held.asset == asset].sum())
    for contract, quantity, entry in zip(held.contract, held.quantity, held.entry, strict=True):
        if TERMS.settlement[contract] != asset:
            continue
        mark, size = float(TERMS.mark[contract]), float(TERMS.size[contract])
        if TERMS.is_upfront[contract]:
            total += quantity * size * mark
        elif not math.isnan(entry):
            total += quantity * size * (1 / entry - 1 / mark if TERMS.is_inverse[contract] else mark - entry)
    return total


@given(before, st.lists(trades, min_size=1, max_size=14))
def test_a_fill_changes_equity_by_what_it_gains_against_the_mark_and_its_fee_alone(
    start: dict[Leg, tuple[float, float | None]], rows: list[tuple[int, int, float, float, float]]
) -> None:
    entries = {leg: None if leg[1] == OPTION else entry for leg, (_, entry) in start.items()}
    held = holdings(Plain({leg: quantity for leg, (quantity, _) in start.items()}, entries))
    after = with_fills(held, fills(rows), TERMS)
    for asset in (0, 1):
        gained = 0.0
        for _, contract, quantity, price, fee in rows:
            if TERMS.settlement[contract] == asset:
                mark = float(TERMS.mark[contract])
                each = 1 / price - 1 / mark if TERMS.is_inverse[contract] else mark - price
                gained += quantity * float(TERMS.size[contract]) * each - fee
        assert equity(after, asset) - equity(held, asset) == pytest.approx(gained, abs=1e-9)


def test_every_case_by_hand() -> None:
    held = holdings(Plain({(0, LINEAR): 2.0}, {(0, LINEAR): 40.0}, {(0, 0): 100.0}))
    after = with_fills(held, fills([(0, LINEAR, 2.0, 50.0, 1.0), (0, LINEAR, -1.0, 55.0, 0.0)]), TERMS)
    assert (after.quantity[0], after.entry[0], after.amount[0]) == (3.0, 45.0, 100 - 1 + 1 * 2 * 10.0)
    crossed = with_fills(after, fills([(0, LINEAR, -5.0, 60.0, 0.0)]), TERMS)
    assert (crossed.quantity[0], crossed.entry[0], crossed.amount[0]) == (-2.0, 60.0, 119 + 3 * 2 * 15.0)
    closed = with_fills(crossed, fills([(0, LINEAR, 2.0, 60.0, 0.0)]), TERMS)
    assert (closed.quantity[0], math.isnan(closed.entry[0]), closed.amount[0]) == (0.0, True, 209.0)
    bought = with_fills(closed, fills([(0, OPTION, 4.0, 6.0, 0.5)]), TERMS)
    assert bought.amount[0] == 209 - 4 * 0.5 * 6 - 0.5


def test_a_payment_opens_a_balance_that_counts_as_collateral() -> None:
    held = holdings(Plain({}, {}, {(1, 0): 5.0}))
    movements = Transfers(np.array([0, 1, 0]), np.array([1, 0, 1]), np.array([2.0, -7.0, 0.5]))
    after = with_transfers(held, movements)
    assert as_plain(after).amount == {(0, 1): 2.5, (1, 0): -2.0}
    assert after.is_collateral.all()


def test_a_settlement_pays_what_each_kind_of_contract_is_worth() -> None:
    kinds = [  # option, call, digital, inverse, strike
        (True, True, False, False, 100.0),
        (True, False, False, False, 100.0),
        (True, True, True, False, 100.0),
        (True, True, False, True, 100.0),
        (False, False, False, False, 0.0),
    ]
    terms = Payoffs(*(np.array(column) for column in zip(*kinds, strict=True)))
    assert settlement_values(terms, np.full(5, 125.0)).tolist() == [25.0, 0.0, 1.0, 0.2, 125.0]
    assert settlement_values(terms, np.full(5, 100.0)).tolist() == [0.0, 0.0, 0.5, 0.0, 100.0]
    assert settlement_values(terms, np.full(5, 80.0)).tolist() == [0.0, 20.0, 0.0, 0.0, 80.0]


def test_a_settlement_is_a_closing_fill_of_every_holder() -> None:
    held = holdings(
        Plain({(0, LINEAR): 3.0, (1, LINEAR): -2.0, (1, OPTION): 4.0}, {(0, LINEAR): 48.0, (1, LINEAR): 52.0})
    )
    made = closing_fills(held, np.array([True, False, True]), np.array([50.0, 0.0, 6.0]))
    after = as_plain(with_fills(held, made, TERMS))
    assert set(after.quantity.values()) == {0.0}
    assert after.amount == {(0, 0): 3 * 2 * 2.0, (1, 0): 2 * 2 * 2.0 + 4 * 0.5 * 6.0}
