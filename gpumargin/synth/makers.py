"""The other side of everything: capacity that open interest leaves to takers, and market makers who close the books."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpumargin.synth.contracts import Contracts, Floats, Ints
from gpumargin.synth.holdings import BLOCK, Legs, Plan, draw_legs, draw_rows, stream

_TAKERS_PART = 0.65


def sized(plan: Plan, contracts: Contracts, *, seed: int) -> tuple[Plan, Contracts]:
    """Makes sizes and open interest agree, from a pilot block of takers scaled up to all of them.

    Where open interest is given, sizes are multiplied so that takers use about `_TAKERS_PART` of it; where it is not,
    it is made up from what they trade.
    """
    longs, shorts = _pilot(plan, contracts, seed)
    group = 2 * contracts.unit + contracts.is_option
    used = np.maximum(np.bincount(group, longs), np.bincount(group, shorts)) / _TAKERS_PART
    if contracts.open_lots.any():
        room = np.bincount(group, contracts.open_lots)
        factor = plan.factor.copy()
        factor[: room.size] = np.where(used > 0.0, room / np.maximum(used, 1e-300), 1.0)
        return replace(plan, factor=factor), contracts
    share = contracts.popularity / np.maximum(np.bincount(group, contracts.popularity), 1e-300)[group]
    lots = np.maximum(share * used[group], 1.25 * np.maximum(longs, shorts))
    open_lots = np.where(contracts.popularity > 0.0, np.maximum(np.rint(lots), 1.0), 0.0).astype(np.int64)
    return plan, replace(contracts, open_lots=open_lots)


def admit(legs: Legs, long_room: Ints, short_room: Ints) -> Legs:
    """`legs` cut to the lots left on each side of each contract, first come first served; takes them off both rooms."""
    order = np.argsort(legs.contract, kind="stable")
    contract, lots = legs.contract[order], legs.lots[order]
    longs = _within(contract, np.maximum(lots, 0), long_room)
    shorts = _within(contract, np.maximum(-lots, 0), short_room)
    for room, taken in ((long_room, longs), (short_room, shorts)):
        room -= np.bincount(contract, taken, minlength=room.size).astype(np.int64)
    kept = np.empty_like(lots)
    kept[order] = longs - shorts
    live = kept != 0
    return Legs(legs.row[live], legs.contract[live], kept[live])


def maker_legs(plan: Plan, *, wanted: int, long_room: Ints, short_room: Ints, seed: int) -> Legs:
    """Legs of the market makers, `row` = maker: they take exactly the lots left on both sides of every contract.

    Even makers are long where odd ones are short, the other way round in the next contract, so that nobody stands on
    both sides. `wanted` legs in all, as far as there are lots and makers for them.
    """
    rng = stream(seed, "makers")
    num_contracts = long_room.size
    room = np.concatenate([long_room, short_room])
    entry = np.flatnonzero(room)
    contract = entry % num_contracts
    parity = (contract + (entry >= num_contracts)) % 2
    candidates = (plan.makers + 1 - parity) // 2
    count = _leg_counts(room[entry].astype(np.float64), np.minimum(room[entry], candidates), wanted)
    start = np.floor(candidates * rng.random(entry.size) ** 1.25).astype(np.int64)
    leg = np.repeat(np.arange(entry.size), count)
    nth = np.arange(leg.size) - np.repeat(np.cumsum(count) - count, count)
    maker = 2 * ((start[leg] + nth) % candidates[leg]) + parity[leg]
    lots = _split(room[entry], count, np.exp(0.7 * rng.standard_normal(leg.size)))
    signed = np.where(entry[leg] < num_contracts, lots, -lots)
    order = np.lexsort((contract[leg], maker))
    return Legs(maker[order], contract[leg][order], signed[order])


def _pilot(plan: Plan, contracts: Contracts, seed: int) -> tuple[Floats, Floats]:
    """`[M]` lots long and short that all takers would hold, from those of the first block."""
    size = len(contracts.ids)
    if plan.takers == 0:
        return np.zeros(size), np.zeros(size)
    rng = stream(seed, "pilot")
    legs = draw_legs(rng, plan, contracts, draw_rows(rng, plan, contracts, block=0))
    scale = plan.takers / min(plan.takers, BLOCK)
    longs = np.bincount(legs.contract, np.maximum(legs.lots, 0), minlength=size) * scale
    return longs, np.bincount(legs.contract, np.maximum(-legs.lots, 0), minlength=size) * scale


def _within(contract: Ints, lots: Ints, room: Ints) -> Ints:
    """Lots each leg gets when the legs of a contract, which stand together, are served in order."""
    before = np.cumsum(lots) - lots
    starts = np.flatnonzero(np.diff(contract, prepend=-1))
    sizes = np.diff(starts, append=contract.size)
    before -= np.repeat(before[starts], sizes)
    return np.clip(room[contract] - before, 0, lots)


def _leg_counts(room: Floats, most: Ints, wanted: int) -> Ints:
    """Legs per contract side: from 1 to `most`, rising with the root of its lots, `wanted` in sum if possible."""
    weight = np.sqrt(room)
    low, high = 0.0, float(max(wanted, 1))
    for _ in range(60):
        middle = 0.5 * (low + high)
        total = np.minimum(1 + np.floor(middle * weight), most).sum()
        low, high = (middle, high) if total <= wanted else (low, middle)
    count: Ints = np.minimum(1 + np.floor(low * weight), most).astype(np.int64)
    spare = np.flatnonzero(count < most)[: max(wanted - int(count.sum()), 0)]
    count[spare] += 1
    return count


def _split(total: Ints, count: Ints, weight: Floats) -> Ints:
    """Whole lots per leg, at least 1 each, in proportion to `weight`; the first takes what rounding leaves."""
    if not total.size:
        return total
    starts = np.cumsum(count) - count
    share = weight / np.repeat(np.add.reduceat(weight, starts), count)
    lots: Ints = 1 + np.floor(share * np.repeat(total - count, count)).astype(np.int64)
    lots[starts] += total - np.add.reduceat(lots, starts)
    return lots
