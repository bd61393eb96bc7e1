"""Places of legs and balances on the devices: found by search, written and moved, so many in a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from gpumargin.device import block_program
from gpumargin.pack.columns import Bools, Floats, Ints
from gpumargin.resident.layout import Where
from gpumargin.resident.parts import Parts
from gpumargin_kernels.edits import (
    NOWHERE,
    BalancePlaces,
    LegPlaces,
    Levels,
    balance_places,
    leg_places,
    row_sizes,
    shifted,
    with_values,
)

_MOST, _LEAST, _SHARE = 4096, 64, 16  # places that one call finds or writes: a share of the accounts of a shard
_FEWER = 16  # of them that one call moves: one in so many, for whole rows move
_MOVED = (("legs", ("contract", "quantity")), ("cash_legs", ("contract", "quantity", "entry", "unsettled")))


class RowSizes(NamedTuple):
    """Slots in use and slots of unit rows and of their rows of cash legs, `[E]` each."""

    used: Ints
    width: Ints
    cash_used: Ints
    cash_width: Ints


class Writes(NamedTuple):
    """Places to be written."""

    where: Where  # [E] shard and row, the latter within its level
    slot: Ints  # [E]
    values: tuple[Floats, ...]  # [E] each, by column


class Moves(NamedTuple):
    """Slots to be put into rows or taken out, in an order in which each row has room."""

    where: Where  # [E]
    cash: Ints  # [E] cash row, `NOWHERE` where the leg is no cash leg
    contract: Ints  # [E]
    is_in: Bools  # [E]
    quantity: Floats  # [E]
    entry: Floats  # [E]


def _room(parts: Parts, fewer: int = 1) -> int:
    most = max(parts.layout.accounts // _SHARE, _LEAST)
    return max(min(most, _MOST) // fewer, _LEAST)


def batches(shard: Ints, devices: int, room: int) -> Iterator[tuple[int, Ints]]:
    """Requests that one call takes: the part, and which of them on each device, `[devices, room]`, -1 = none."""
    for part in range(int(shard.max(initial=-1)) // devices + 1):
        own = [np.flatnonzero(shard == part * devices + device) for device in range(devices)]
        for first in range(0, max(map(len, own)), room):
            index = np.full((devices, room), -1, np.int64)
            for device, requests in enumerate(own):
                some = requests[first : first + room]
                index[device, : len(some)] = some
            yield part, index


def _searched(
    parts: Parts, shard: Ints, asked: np.ndarray, run: Callable[[int, np.ndarray], Any], columns: int
) -> list[np.ndarray]:
    """Columns `[E]` of what a search gives for requests `asked` [n, E]: whole numbers, then fractions."""
    found: list[np.ndarray] = []
    for part, index in batches(shard, parts.devices, _room(parts)):
        own = np.moveaxis(asked[:, np.maximum(index, 0)], 0, 1)
        given = [np.asarray(x) for x in run(part, own)]
        found = found or [np.zeros((x.shape[1], len(shard)), x.dtype) for x in given]
        for device, requests in enumerate(index):
            count = int((requests >= 0).sum())
            for whole, each in zip(found, given, strict=True):
                whole[:, requests[:count]] = each[device, :, :count]
    return [row for whole in found for row in whole] or [np.zeros(0, np.int64)] * columns


def find_legs(parts: Parts, accounts: Where, unit: Ints, contract: Ints) -> LegPlaces:
    """Where legs are, numpy `[E]`, for accounts that lie at `accounts` [E]."""
    program = block_program(leg_places, parts.mesh)
    asked = np.array([accounts.row, unit, contract], np.int32)

    def run(part: int, own: np.ndarray) -> Any:
        return program(own, parts.book(part))

    return LegPlaces(*_searched(parts, accounts.shard, asked, run, len(LegPlaces._fields)))


def row_lengths(parts: Parts, rows: Where, cash: Ints) -> RowSizes:
    """How full unit rows and rows of cash legs are, numpy `[E]`."""
    program, pad = block_program(row_sizes, parts.mesh, shared=1), np.int32(parts.pad)

    def run(part: int, own: np.ndarray) -> Any:
        return program(pad, own, parts.book(part))

    asked = np.array([rows.row, cash], np.int32)
    return RowSizes(*_searched(parts, rows.shard, asked, run, len(RowSizes._fields)))


def find_balances(parts: Parts, accounts: Where, asset: Ints) -> BalancePlaces:
    """Where balances are, numpy `[E]`."""
    program = block_program(balance_places, parts.mesh)
    asked = np.array([accounts.row, asset], np.int32)

    def run(part: int, own: np.ndarray) -> Any:
        return program(own, parts.book(part))

    return BalancePlaces(*_searched(parts, accounts.shard, asked, run, len(BalancePlaces._fields)))


def _taken(columns: list[Ints] | list[Floats], index: Ints, nothing: float) -> np.ndarray:
    """Columns of requests, `[devices, columns, room]`, `nothing` where there is none."""
    whole = np.array(columns)
    if not whole.shape[1]:
        return np.full((len(index), len(columns), index.shape[1]), nothing)
    return np.moveaxis(np.where(index >= 0, whole[:, np.maximum(index, 0)], nothing), 0, 1)


def _side_by_side(parts: Parts, shards: list[Ints], room: int) -> Iterator[tuple[int, list[Ints]]]:
    """Batches of several lists of requests together; -1 where a list has none left."""
    none = np.full((parts.devices, room), -1, np.int64)
    made: list[dict[int, list[Ints]]] = [{} for _ in shards]
    for own, shard in zip(made, shards, strict=True):
        for part, index in batches(shard, parts.devices, room):
            own.setdefault(part, []).append(index)
    for part in range(len(parts.groups)):
        of_part = [own.get(part, []) for own in made]
        for turn in range(max(map(len, of_part))):
            yield part, [own[turn] if turn < len(own) else none for own in of_part]


def write(parts: Parts, columns: tuple[tuple[str, str], ...], writes: tuple[Writes, ...]) -> None:
    """Writes values of legs, cash legs and balances.

    Args:
      parts: what is resident.
      columns: level and name of every column of all writes, in their order.
      writes: of each level.
    """
    for part, indices in _side_by_side(parts, [each.where.shard for each in writes], _room(parts)):
        _write_batch(parts, part, columns, writes, indices)


def _write_batch(
    parts: Parts, part: int, columns: tuple[tuple[str, str], ...], writes: tuple[Writes, ...], indices: list[Ints]
) -> None:
    at, values = [], []
    for own, index in zip(writes, indices, strict=True):
        places = _taken([own.where.row, own.slot], index, NOWHERE)[:, None]
        at += [places] * len(own.values)
        values.append(_taken(list(own.values), index, 0.0))
    held = tuple(parts.column(part, *each) for each in columns)
    program = block_program(with_values, parts.mesh, donate=True)
    found = program(held, np.concatenate(at, axis=1).astype(np.int32), np.concatenate(values, axis=1))
    for each, buckets in zip(columns, found, strict=True):
        parts.set_column(part, *each, buckets)


def move(parts: Parts, moves: Moves) -> None:
    """Puts legs into rows and takes them out, one of each row in a call."""
    for turn in _turns(moves):
        for part, index in batches(moves.where.shard[turn], parts.devices, _room(parts, _FEWER)):
            _move_batch(parts, part, moves, np.where(index >= 0, turn[np.maximum(index, 0)], -1))


def _turns(moves: Moves) -> Iterator[Ints]:
    """Moves of which none are in the same row, and those of a row in their order."""
    row = moves.where.shard * (int(moves.where.row.max(initial=0)) + 1) + moves.where.row
    order = np.argsort(row, kind="stable")
    rank = np.empty(len(row), np.int64)
    rank[order] = np.arange(len(row)) - np.searchsorted(row[order], row[order])
    for turn in range(int(rank.max(initial=-1)) + 1):
        yield np.flatnonzero(rank == turn)


def _move_batch(parts: Parts, part: int, moves: Moves, index: Ints) -> None:
    shifts = _taken([moves.where.row, moves.cash, moves.contract, moves.is_in.astype(np.int64)], index, NOWHERE)
    values = _taken([moves.quantity, moves.entry], index, 0.0)
    held = Levels(*(tuple(parts.column(part, level, name) for name in names) for level, names in _MOVED))
    program = block_program(shifted, parts.mesh, shared=1, donate=True)
    found = program(np.int32(parts.pad), held, shifts.astype(np.int32), values)
    for (level, names), columns in zip(_MOVED, found, strict=True):
        for name, buckets in zip(names, columns, strict=True):
            parts.set_column(part, level, name, buckets)


def compile_all(parts: Parts, columns: tuple[tuple[str, str], ...], widths: tuple[int, ...]) -> None:
    """Compiles what finds, writes and moves, by calls that change nothing: no later block is to wait for it.

    Args:
      parts: what is resident.
      columns: as `write` gets them.
      widths: how many of them each of its writes has.
    """
    none, nothing = np.zeros(0, np.int64), np.zeros(0)
    nowhere, one = Where(none, none), Where(np.zeros(1, np.int64), np.zeros(1, np.int64))
    find_legs(parts, one, one.row, one.row)
    row_lengths(parts, one, one.row)
    find_balances(parts, one, one.row)
    index = np.full((parts.devices, _room(parts)), -1, np.int64)
    writes = tuple(Writes(nowhere, none, (nothing,) * width) for width in widths)
    _write_batch(parts, 0, columns, writes, [index] * len(widths))
    moves = Moves(nowhere, none, none, np.zeros(0, bool), nothing, nothing)
    _move_batch(parts, 0, moves, np.full((parts.devices, _room(parts, _FEWER)), -1, np.int64))
