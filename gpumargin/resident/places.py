"""Places of legs and balances on the devices: found by search, written and moved, so many in a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from gpumargin import native
from gpumargin.device import block_program
from gpumargin.pack.columns import Bools, Floats, Ints
from gpumargin.resident.batches import batches, joint_batches, laid
from gpumargin.resident.keys import turns
from gpumargin.resident.layout import Where
from gpumargin.resident.parts import Parts
from gpumargin_kernels.edits import (
    BALANCE_COLUMNS,
    LEG_COLUMNS,
    NOWHERE,
    BalancePlaces,
    LegPlaces,
    Levels,
    places_of,
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


class _Search(NamedTuple):
    """What a program looks up."""

    shard: Ints  # [E] of each request
    asked: tuple[Ints, ...]  # [E] each
    ints: int  # columns of the answer that are whole numbers
    floats: int  # and fractions


def _found(
    parts: Parts, searches: list[_Search], run: Callable[[int, np.ndarray], tuple[jax.Array, ...]]
) -> list[list[np.ndarray]]:
    """Columns `[E]` of the answers of each search: whole numbers, then fractions. Every batch is started at once."""
    room, started = _room(parts), []
    for part, requests in joint_batches([each.shard for each in searches], parts.devices, room):
        asked = [laid(s.asked, own, room, np.int32(0)) for s, own in zip(searches, requests, strict=True)]
        started.append((run(part, np.concatenate(asked, axis=1)), requests))
    found = [[np.zeros(len(s.shard), np.int32) for _ in range(s.ints)] for s in searches]
    fractions = [[np.zeros(len(s.shard)) for _ in range(s.floats)] for s in searches]
    for given, requests in started:
        _gather(found, np.asarray(given[0]), requests)
        _gather(fractions, np.asarray(given[-1]), requests)  # where there are none, no columns wait for them
    return [[*own, *more] for own, more in zip(found, fractions, strict=True)]


def _gather(columns: list[list[np.ndarray]], answer: np.ndarray, requests: list[list[Ints]]) -> None:
    """Puts an answer, `[devices, columns of all searches, room]`, where its requests stand."""
    first = 0
    for own, of_devices in zip(columns, requests, strict=True):
        for device, chosen in enumerate(of_devices):
            for column, values in zip(own, answer[device, first:], strict=False):
                column[chosen] = values[: len(chosen)]
        first += len(own)


def _is_read_in_memory(parts: Parts) -> bool:
    """Whether rows are looked into where they lie, which takes half the time; else the devices are asked."""
    return parts.are_in_memory and native.is_available()


def find(
    parts: Parts, of_legs: Where, leg: tuple[Ints, Ints], of_balances: Where, asset: Ints
) -> tuple[LegPlaces, BalancePlaces]:
    """Where legs and balances are, numpy.

    Args:
      parts: what is resident.
      of_legs: `[E]` where the account of each leg lies.
      leg: `[E]` unit and contract.
      of_balances: `[B]` where the account of each balance lies.
      asset: `[B]`.
    """
    if _is_read_in_memory(parts):
        from gpumargin.resident.memory import find_in_memory  # what it is compiled with is optional

        return find_in_memory(parts, of_legs, leg, of_balances, asset)
    program = block_program(places_of, parts.mesh)
    legs = _Search(of_legs.shard, (of_legs.row, *leg), *LEG_COLUMNS)
    balances = _Search(of_balances.shard, (of_balances.row, asset), *BALANCE_COLUMNS)
    found = _found(parts, [legs, balances], lambda part, asked: program(asked, parts.book(part)))
    return LegPlaces(*found[0]), BalancePlaces(*found[1])


def row_lengths(parts: Parts, rows: Where, cash: Ints) -> RowSizes:
    """How full unit rows and rows of cash legs are, numpy `[E]`."""
    if _is_read_in_memory(parts):
        from gpumargin.resident.memory import lengths_in_memory  # see `find`

        of_legs = lengths_in_memory(parts, rows, "legs")
        return RowSizes(*of_legs, *lengths_in_memory(parts, Where(rows.shard, cash), "cash_legs"))
    program, pad = block_program(row_sizes, parts.mesh, shared=1), np.int32(parts.pad)
    search = _Search(rows.shard, (rows.row, cash), len(RowSizes._fields), 0)
    return RowSizes(*_found(parts, [search], lambda part, asked: program(pad, asked, parts.book(part)))[0])


def write(parts: Parts, columns: tuple[tuple[str, str], ...], writes: tuple[Writes, ...]) -> None:
    """Writes values of legs, cash legs and balances.

    Args:
      parts: what is resident.
      columns: level and name of every column of all writes, in their order.
      writes: of each level.
    """
    if _is_read_in_memory(parts):
        from gpumargin.resident.memory import write_in_memory  # see `find`

        flat = [(own.where, own.slot, values) for own in writes for values in own.values]
        write_in_memory(parts, columns, flat, _room(parts) * len(columns))
        return
    for part, requests in joint_batches([each.where.shard for each in writes], parts.devices, _room(parts)):
        _write_batch(parts, part, columns, writes, requests)


def _write_batch(
    parts: Parts,
    part: int,
    columns: tuple[tuple[str, str], ...],
    writes: tuple[Writes, ...],
    requests: Sequence[Sequence[Ints]],
) -> None:
    room, at, values = _room(parts), [], []
    for own, chosen in zip(writes, requests, strict=True):
        place = laid((own.where.row, own.slot), chosen, room, np.int32(NOWHERE))[:, None]
        at += [place] * len(own.values)
        values.append(laid(own.values, chosen, room, np.float64(0)))
    held = tuple(parts.column(part, *each) for each in columns)
    program = block_program(with_values, parts.mesh, donate=True)
    found = program(held, np.concatenate(at, axis=1), np.concatenate(values, axis=1))
    for each, buckets in zip(columns, found, strict=True):
        parts.set_column(part, *each, buckets)


def move(parts: Parts, moves: Moves) -> None:
    """Puts legs into rows and takes them out, one of each row in a call."""
    row = moves.where.shard * (int(moves.where.row.max(initial=0)) + 1) + moves.where.row
    for turn in turns(row):
        for part, requests in batches(moves.where.shard[turn], parts.devices, _room(parts, _FEWER)):
            _move_batch(parts, part, moves, [turn[own] for own in requests])


def _move_batch(parts: Parts, part: int, moves: Moves, requests: Sequence[Ints]) -> None:
    room = _room(parts, _FEWER)
    asked = (moves.where.row, moves.cash, moves.contract, moves.is_in)
    shifts = laid(asked, requests, room, np.int32(NOWHERE))
    values = laid((moves.quantity, moves.entry), requests, room, np.float64(0))
    held = Levels(*(tuple(parts.column(part, level, name) for name in names) for level, names in _MOVED))
    program = block_program(shifted, parts.mesh, shared=1, donate=True)
    found = program(np.int32(parts.pad), held, shifts, values)
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
    zero, none, nothing = np.zeros(1, np.int64), np.full(1, NOWHERE), np.zeros(1)
    one, nowhere = Where(zero, zero), Where(zero, none)
    find(parts, one, (zero, zero), one, zero)
    row_lengths(parts, one, zero)
    write(parts, columns, tuple(Writes(nowhere, zero, (nothing,) * width) for width in widths))
    move(parts, Moves(nowhere, none, zero, np.zeros(1, bool), nothing, nothing))
