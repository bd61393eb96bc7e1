"""The fill rule: what trades, transfers and settlements make of positions and balances, as flat columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from gpumargin.pack.columns import Bools, Floats, Ints
from gpumargin.resident.keys import distinct, places_among, turns


@dataclass(frozen=True)
class Holdings:
    """Positions by (owner, contract) and balances by (owner, asset), both ascending and each key once."""

    owner: Ints  # [N]
    contract: Ints  # [N]
    quantity: Floats  # [N] signed
    entry: Floats  # [N] NaN = P&L already settled
    unsettled: Floats  # [N] cash due
    balance_owner: Ints  # [B]
    asset: Ints  # [B]
    amount: Floats  # [B]
    is_collateral: Bools  # [B]


class Terms(NamedTuple):
    """What the fill rule asks of contracts, `[M]` each."""

    size: Floats
    is_upfront: Bools  # options: the premium moves when they trade
    is_inverse: Bools
    settlement: Ints  # asset that P&L and premium are paid in
    mark: Floats  # where positions without an entry have been settled


class Fills(NamedTuple):
    """Trades in their order, `[F]` each."""

    owner: Ints
    contract: Ints
    quantity: Floats  # signed, bought > 0
    price: Floats
    fee: Floats  # paid by the account, settlement asset

    def take(self, chosen: Bools) -> Fills:
        """Some of them."""
        return Fills(
            self.owner[chosen], self.contract[chosen], self.quantity[chosen], self.price[chosen], self.fee[chosen]
        )


class Transfers(NamedTuple):
    """Movements of balances in their order, `[T]` each."""

    owner: Ints
    asset: Ints
    amount: Floats  # signed, received > 0

    def take(self, chosen: Bools) -> Transfers:
        """Some of them."""
        return Transfers(self.owner[chosen], self.asset[chosen], self.amount[chosen])


class Legs(NamedTuple):
    """State of positions that are traded, `[L]` each; quantity 0 and entry NaN where there is none yet."""

    quantity: Floats
    entry: Floats


def gain(first: Floats, last: Floats, is_inverse: Bools) -> Floats:
    """P&L of one contract of size 1 from one price to another, in what it settles in."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(is_inverse, 1 / first - 1 / last, last - first))


def mean_entry(held: Floats, entry: Floats, traded: Floats, price: Floats, is_inverse: Bools) -> Floats:
    """Entry price after more of the same side.

    Weighted by size: of linear contracts in underlying, so that it is the plain mean; of inverse ones, whose size is an
    amount of quote currency, by what that is in coin, so that it is the harmonic one. In both the P&L of the position
    is the sum of the P&L of its parts.
    """
    total = held + traded
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = total / (held / entry + traded / price)
        return np.asarray(np.where(is_inverse, harmonic, (held * entry + traded * price) / total))


def filled(legs: Legs, traded: Floats, price: Floats, own: Terms) -> tuple[Legs, Floats]:
    """One fill of each leg: the leg after it, and what it pays into the balance before fees, `[L]`.

    An upfront option pays its premium and realises nothing. Else what is closed realises P&L from its entry; a leg
    without entry has been settled at the mark, so all of a fill of it is from the mark, and it stays without entry
    until it is closed. A new leg, and what goes through zero, opens at the fill price.
    """
    held = legs.quantity
    after = held + traded
    closes = np.sign(held) * np.sign(traded) < 0
    closed = np.where(closes, np.sign(held) * np.minimum(np.abs(held), np.abs(traded)), 0.0)
    has_crossed = (held == 0) | (closes & (np.abs(traded) > np.abs(held)))
    is_settled = np.isnan(legs.entry) & (held != 0)
    from_mark = np.where(has_crossed, -closed, traded) * gain(price, own.mark, own.is_inverse)
    realised = np.where(is_settled, from_mark, closed * gain(legs.entry, price, own.is_inverse))
    realised = np.where((closed != 0) | is_settled, realised, 0.0)
    paid = np.where(own.is_upfront, -traded * price, realised) * own.size
    more = mean_entry(np.abs(held), legs.entry, np.abs(traded), price, own.is_inverse)
    entry = np.where(has_crossed, price, np.where(closes | is_settled, legs.entry, more))
    return Legs(after, np.where((after == 0) | own.is_upfront, np.nan, entry)), paid


def _terms_of(terms: Terms, contract: Ints) -> Terms:
    """Terms of some contracts."""
    size, mark = terms.size[contract], terms.mark[contract]
    return Terms(size, terms.is_upfront[contract], terms.is_inverse[contract], terms.settlement[contract], mark)


class _Joined(NamedTuple):
    """Keys taken in among others, of which there is one each, ascending."""

    new: Ints  # [n] those that are not there yet, ascending, each once
    at: Ints  # [n] before which of those there each goes
    place: Ints  # [rows] where each key asked for then stands


def _joined(keys: Ints, own: Ints) -> _Joined:
    place, is_there = places_among(keys, own)
    new = distinct(keys[~is_there])
    at = np.searchsorted(own, new)
    return _Joined(new, at, np.searchsorted(np.insert(own, at, new), keys) if len(new) else place)


def _with_legs(held: Holdings, keys: Ints, width: int) -> tuple[Holdings, Ints]:
    """Holdings with a leg of quantity 0 at every key, owner * width + contract, where there is none; where each is."""
    new, at, place = _joined(keys, held.owner * width + held.contract)
    if not len(new):
        return held, place
    held = replace(
        held,
        owner=np.insert(held.owner, at, new // width),
        contract=np.insert(held.contract, at, new % width),
        quantity=np.insert(held.quantity, at, 0.0),
        entry=np.insert(held.entry, at, np.nan),
        unsettled=np.insert(held.unsettled, at, 0.0),
    )
    return held, place


def traded(legs: Legs, leg: Ints, fills: Fills, terms: Terms) -> tuple[Legs, Floats]:
    """Legs after trades of them, `leg` [F], those of one leg in their order; and what each pays, its fee off, `[F]`."""
    quantity, entry = legs.quantity.copy(), legs.entry.copy()
    paid = np.zeros(len(leg))
    for chosen in turns(leg):
        at = leg[chosen]
        own = _terms_of(terms, fills.contract[chosen])
        after, paid[chosen] = filled(Legs(quantity[at], entry[at]), fills.quantity[chosen], fills.price[chosen], own)
        quantity[at], entry[at] = after
    return Legs(quantity, entry), paid - fills.fee


def paid_into(amount: Floats, balance: Ints, paid: Floats) -> Floats:
    """Balances after payments in their order, `balance` says into which each is."""
    moved, now = paid != 0, amount.copy()
    np.add.at(now, balance[moved], paid[moved])
    return now


def _paid(held: Holdings, owner: Ints, asset: Ints, amount: Floats) -> Holdings:
    """Holdings after payments in their order; a balance that is not there begins at 0 and is collateral."""
    moved = amount != 0
    owner, asset, amount = owner[moved], asset[moved], amount[moved]
    if not len(owner):
        return held
    width = int(max(held.asset.max(initial=0), asset.max(initial=0))) + 1
    new, at, place = _joined(owner * width + asset, held.balance_owner * width + held.asset)
    if len(new):
        held = replace(
            held,
            balance_owner=np.insert(held.balance_owner, at, new // width),
            asset=np.insert(held.asset, at, new % width),
            amount=np.insert(held.amount, at, 0.0),
            is_collateral=np.insert(held.is_collateral, at, True),
        )
    return replace(held, amount=paid_into(held.amount, place, amount))


def with_fills(held: Holdings, fills: Fills, terms: Terms) -> Holdings:
    """Holdings after trades, those of one leg in their order.

    Increasing: size-weighted entry. Reducing: entry unchanged, realised P&L to the balance of the settlement asset.
    Through zero: reduced, then opened at the fill price. Upfront premium and fees move that balance.
    """
    width = len(terms.size)
    held, leg = _with_legs(held, fills.owner * width + fills.contract, width)
    now, paid = traded(Legs(held.quantity, held.entry), leg, fills, terms)
    held = replace(held, quantity=now.quantity, entry=now.entry)
    return _paid(held, fills.owner, terms.settlement[fills.contract], paid)


def with_transfers(held: Holdings, transfers: Transfers) -> Holdings:
    """Holdings after movements of balances."""
    return _paid(held, transfers.owner, transfers.asset, transfers.amount)


class Payoffs(NamedTuple):
    """Terms of contracts that are settled, `[M]` each."""

    is_option: Bools
    is_call: Bools
    is_digital: Bools
    is_inverse: Bools
    strike: Floats


def settlement_values(terms: Payoffs, price: Floats) -> Floats:
    """Price at which one contract is closed when its underlying settles at `price`, in what its mark is stated in.

    Options at what they pay: their intrinsic value, digital ones 1 in the money, half of it at the strike; inverse ones
    in coin. Futures and perpetuals at the price itself.
    """
    distance = np.where(terms.is_call, price - terms.strike, terms.strike - price)
    payoff = np.where(terms.is_digital, (np.sign(distance) + 1) / 2, np.maximum(distance, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        in_coin = np.where(payoff == 0, 0.0, payoff / price)
    return np.asarray(np.where(terms.is_option, np.where(terms.is_inverse, in_coin, payoff), price))


def closing_fills(held: Holdings, is_settled: Bools, value: Floats) -> Fills:
    """Fills that close every position in the contracts that are settled, at their values [M]."""
    rows = np.flatnonzero(is_settled[held.contract] & (held.quantity != 0))
    contract = held.contract[rows]
    return Fills(held.owner[rows], contract, -held.quantity[rows], value[contract], np.zeros(len(rows)))
