"""Places of legs and balances where the devices' memory is the host's own: read by address, and written as they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpumargin.device import block_program
from gpumargin.native.places import Level, balance_places, leg_places, row_lengths
from gpumargin.native.writing import written
from gpumargin.pack.columns import Floats, Ints
from gpumargin.resident.batches import batches, laid
from gpumargin.resident.layout import Where
from gpumargin.resident.parts import Parts
from gpumargin_kernels.edits import NOWHERE, BalancePlaces, LegPlaces

_LEGS = {
    "unit_slots": ("row", "is_held"),
    "rows": ("unit", "cash"),
    "legs": ("contract", "quantity"),
    "cash_legs": ("contract", "entry", "unsettled"),
}
_BALANCES = {"accounts": ("balances",), "balances": ("asset", "is_collateral", "amount")}
_ONE = np.ones(1, np.int64)


def _level(parts: Parts, name: str, columns: tuple[str, ...]) -> Level:
    own = parts.layout.levels.get(name)
    ends, widths = (own.ends, own.widths) if own else (_ONE, _ONE)  # of unit rows and accounts one number is kept each
    return Level(ends, widths, {column: parts.addresses(name, column) for column in columns})


def find_in_memory(
    parts: Parts, of_legs: Where, leg: tuple[Ints, Ints], of_balances: Where, asset: Ints
) -> tuple[LegPlaces, BalancePlaces]:
    """What `find` says, of CPU devices; arguments as there."""
    levels = {name: _level(parts, name, columns) for name, columns in {**_LEGS, **_BALANCES}.items()}
    return leg_places(levels, *of_legs, *leg), balance_places(levels, *of_balances, asset)


def lengths_in_memory(parts: Parts, rows: Where, level: str) -> tuple[Ints, Ints]:
    """Slots in use and slots of rows of legs or cash legs, `[E]` each."""
    return row_lengths(_level(parts, level, ("contract",)), *rows, parts.pad)


def write_in_memory(
    parts: Parts, columns: tuple[tuple[str, str], ...], writes: Sequence[tuple[Where, Ints, Floats]], room: int
) -> None:
    """Writes values, all parts in one call.

    Args:
      parts: what is resident.
      columns: level and name of each.
      writes: of each column the rows, their slots and what is written there.
      room: places that a call has room for on every device.
    """
    own = [(part, *column) for part in range(len(parts.groups)) for column in columns]
    shard, row = (np.concatenate([where[axis] for where, _, _ in writes]) for axis in range(2))
    number = np.repeat(np.arange(len(columns)), [len(slot) for _, slot, _ in writes])
    place = (shard // parts.devices * len(columns) + number, row, np.concatenate([slot for _, slot, _ in writes]))
    values = np.concatenate([values for *_, values in writes])
    program = block_program(written, parts.mesh, donate=True)
    for _, chosen in batches(shard % parts.devices, parts.devices, room):
        asked = laid(place, chosen, room, np.int32(NOWHERE))
        given = laid((values,), chosen, room, np.float64(0))[:, 0]
        found = program(tuple(parts.column(*each) for each in own), asked, given)
        for each, buckets in zip(own, found, strict=True):
            parts.set_column(*each, buckets)
