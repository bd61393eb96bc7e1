"""Trades and transfers carried out where legs and balances lie; only what finds no room there is laid out anew.

A leg that stays changes its quantity and entry, one that opens or closes moves the slots behind it; its row keeps the
canonical order, so that sums have the bits of a row that is packed anew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpumargin.pack.columns import Bools, Floats, Ints
from gpumargin.resident.fills import Fills, Legs, Transfers, paid_into, traded
from gpumargin.resident.keys import distinct, is_among
from gpumargin.resident.lane import Lane
from gpumargin.resident.layout import Where
from gpumargin.resident.places import Moves, Writes, compile_all, find, move, row_lengths, write
from gpumargin_kernels.edits import NOWHERE, SHARED_ROW, BalancePlaces, LegPlaces

_COLUMNS = (("legs", "quantity"), ("cash_legs", "quantity"), ("cash_legs", "entry"), ("balances", "amount"))
_WIDTHS = (1, 2, 1)  # columns of legs, cash legs and balances


class _Touched(NamedTuple):
    """Legs and balances that change, by account. Base legs stand behind the positions."""

    leg: Ints  # [fills] which each trades
    balance: Ints  # [fills + transfers] which each pays into
    leg_owner: Ints  # [E]
    contract: Ints  # [E]
    positions: int  # how many of them are positions
    balance_owner: Ints  # [B]
    asset: Ints  # [B]
    base: Ints  # [base legs] balance of each


class _Wanted(NamedTuple):
    """What legs and balances are to be."""

    quantity: Floats  # [E] 0 = there is to be none
    entry: Floats  # [E]
    amount: Floats  # [B]


def carry_out_in_place(lane: Lane, fills: Fills, transfers: Transfers) -> Ints:
    """Carries out trades and transfers of accounts that are resident, slot by slot.

    Returns:
      Accounts, ascending, of which nothing was carried out: they have to be laid out anew.
    """
    if not lane.store.is_compiled:
        compile_all(lane.store.parts, _COLUMNS, _WIDTHS)
        lane.store.is_compiled = True
    if not len(fills.owner) and not len(transfers.owner):
        return fills.owner
    touched = _touched(lane, fills, transfers)
    of_legs, of_balances = (_where(lane, owner) for owner in (touched.leg_owner, touched.balance_owner))
    leg = (lane.unit_of[touched.contract], touched.contract)
    legs, balances = find(lane.store.parts, of_legs, leg, of_balances, touched.asset)
    wanted = _wanted(lane, touched, legs, balances, (fills, transfers))
    misfits = _misfits(lane, touched, legs, wanted, of_legs.shard)
    left = distinct(np.concatenate([touched.leg_owner[misfits], touched.balance_owner[balances.is_there == 0]]))
    _write(lane, touched, (legs, balances), wanted, (of_legs.shard, of_balances.shard), left)
    _move(lane, touched, legs, wanted, of_legs.shard, left)
    _count(lane, touched, legs, wanted, left)
    return left


def _touched(lane: Lane, fills: Fills, transfers: Transfers) -> _Touched:
    """Legs that are traded, balances that are paid into, and the base legs that some of these are."""
    contracts, assets = len(lane.terms.size), len(lane.contracts.asset_ids)
    trades = fills.owner * contracts + fills.contract
    paid = fills.owner * assets + lane.terms.settlement[fills.contract]
    payments = np.concatenate([paid, transfers.owner * assets + transfers.asset])
    legs, balances = distinct(trades), distinct(payments)
    owner, asset = balances // assets, balances % assets
    own = lane.contracts.base_contract[asset].astype(np.int64)
    base = np.flatnonzero(own >= 0)
    return _Touched(
        leg=np.searchsorted(legs, trades),
        balance=np.searchsorted(balances, payments),
        leg_owner=np.concatenate([legs // contracts, owner[base]]),
        contract=np.concatenate([legs % contracts, own[base]]),
        positions=len(legs),
        balance_owner=owner,
        asset=asset,
        base=base,
    )


def _where(lane: Lane, accounts: Ints) -> Where:
    shard, row = lane.store.where
    return Where(shard[accounts].astype(np.int64), row[accounts].astype(np.int64))


def _wanted(
    lane: Lane, touched: _Touched, legs: LegPlaces, balances: BalancePlaces, block: tuple[Fills, Transfers]
) -> _Wanted:
    """What the fill rule makes of what is there."""
    count, (fills, transfers) = touched.positions, block
    now, paid = traded(Legs(legs.quantity[:count], legs.entry[:count]), touched.leg, fills, lane.terms)
    amount = paid_into(balances.amount, touched.balance, np.concatenate([paid, transfers.amount]))
    counts = (balances.is_collateral != 0) | (amount < 0)
    base = np.where(counts, amount, 0.0)[touched.base]
    return _Wanted(
        np.concatenate([now.quantity, base]), np.concatenate([now.entry, np.full(len(base), np.nan)]), amount
    )


def _is_cash(lane: Lane, touched: _Touched) -> Bools:
    """Which legs have a cash leg as long as they are there: all but options and base legs."""
    is_option = lane.terms.is_upfront[touched.contract]
    return np.asarray(~is_option & (np.arange(len(is_option)) < touched.positions))


def _misfits(lane: Lane, touched: _Touched, legs: LegPlaces, wanted: _Wanted, shard: Ints) -> Bools:
    """Legs that cannot be made what they are to be where they are, `[E]`."""
    is_there, wants, is_cash = legs.is_there != 0, wanted.quantity != 0, _is_cash(lane, touched)
    changes = is_there != wants
    opens, closes = wants & ~is_there, is_there & ~wants
    bad = opens & ((legs.row == NOWHERE) | is_among(touched.leg_owner, np.sort(lane.dormant.account)))
    bad |= closes & (legs.unsettled != 0)  # the position stays for the cash that is due
    bad |= is_cash & ((is_there & (legs.has_cash == 0)) | (opens & (legs.cash_row == SHARED_ROW)))
    if lane.store.template.inputs:
        return np.asarray(bad | changes)  # what else a leg has would have to move with it
    some = np.flatnonzero(changes & ~bad)
    if len(some):
        own = _Moving(Where(shard[some], legs.row[some]), legs.cash_row[some], wants[some], is_cash[some])
        bad[some] = ~_fits(lane, own)
    return np.asarray(bad)


class _Moving(NamedTuple):
    """Legs that are to open or close in rows that there are, `[E]` each."""

    row: Where
    cash_row: Ints
    opens: Bools
    is_cash: Bools


def _fits(lane: Lane, moving: _Moving) -> Bools:
    """Whether the rows of legs have room for all that opens, and keep one leg at least."""
    size = row_lengths(lane.store.parts, moving.row, moving.cash_row)
    _, row = np.unique(moving.row.shard * NOWHERE + moving.row.row, return_inverse=True)
    more = np.where(moving.opens, 1.0, -1.0)
    used = size.used + np.bincount(row, more)[row]
    cash = size.cash_used + np.bincount(row, more * moving.is_cash)[row]
    return np.asarray((used >= 1) & (used <= size.width) & (~moving.is_cash | (cash <= size.cash_width)))


def _write(
    lane: Lane,
    touched: _Touched,
    places: tuple[LegPlaces, BalancePlaces],
    wanted: _Wanted,
    shards: tuple[Ints, Ints],
    left: Ints,
) -> None:
    """Writes legs that stay, and balances."""
    (legs, balances), (shard, of_balances) = places, shards
    stays = (legs.is_there != 0) & (wanted.quantity != 0) & ~is_among(touched.leg_owner, left)
    own, cash = np.flatnonzero(stays), np.flatnonzero(stays & _is_cash(lane, touched))
    paid = np.flatnonzero(~is_among(touched.balance_owner, left))
    writes = (
        Writes(Where(shard[own], legs.row[own]), legs.slot[own], (wanted.quantity[own],)),
        Writes(
            Where(shard[cash], legs.cash_row[cash]),
            legs.cash_slot[cash],
            (wanted.quantity[cash], wanted.entry[cash]),
        ),
        Writes(
            Where(of_balances[paid], balances.row[paid]),
            balances.slot[paid],
            (wanted.amount[paid],),
        ),
    )
    write(lane.store.parts, _COLUMNS, writes)


def _move(lane: Lane, touched: _Touched, legs: LegPlaces, wanted: _Wanted, shard: Ints, left: Ints) -> None:
    """Opens and closes legs, in every row first what closes, so that there is room."""
    wants = wanted.quantity != 0
    some = np.flatnonzero(((legs.is_there != 0) != wants) & ~is_among(touched.leg_owner, left))
    some = some[np.argsort(wants[some], kind="stable")]
    if len(some):
        cash = np.where(_is_cash(lane, touched), legs.cash_row, NOWHERE)
        moves = Moves(
            Where(shard[some], legs.row[some].astype(np.int64)),
            cash[some],
            touched.contract[some],
            wants[some],
            wanted.quantity[some],
            wanted.entry[some],
        )
        move(lane.store.parts, moves)


def _count(lane: Lane, touched: _Touched, legs: LegPlaces, wanted: _Wanted, left: Ints) -> None:
    """Keeps how many positions accounts have, and how many legs contracts."""
    kept = ~is_among(touched.leg_owner, left)
    legs_more = (wanted.quantity != 0).astype(np.int64) - (legs.is_there != 0)
    np.add.at(lane.holders, touched.contract[kept], legs_more[kept])
    positions = np.flatnonzero(kept & (np.arange(len(kept)) < touched.positions))
    more = (wanted.quantity[positions] != 0).astype(np.int32) - (legs.quantity[positions] != 0).astype(np.int32)
    np.add.at(lane.num_positions, touched.leg_owner[positions], more)
