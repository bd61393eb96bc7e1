"""Groups of arrays on the devices, part by part: rows read where they lie, and replaced."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import is_
from typing import Any

import jax
import numpy as np

from gpumargin.device import addresses_of, block_program, on_blocks, rows_at
from gpumargin.pack.columns import Ints
from gpumargin.pack.legs import LegBook
from gpumargin.resident.groups import Written, as_book, group_rows, grown_groups
from gpumargin.resident.layout import Layout, Level, Where
from gpumargin_kernels import records
from gpumargin_kernels.resident import Update, capacity, renumbered, replaced

_NONE = np.zeros(0, np.int64)
_KINDS = {"i": np.int32, "f": np.float64, "b": np.bool_}
Picked = list[tuple[Ints, list[np.ndarray]]]  # which of the rows asked for, and their slots by column
_Joined = dict[tuple[int, int], tuple[Ints, list[np.ndarray]]]  # by device and group


def _column(record: Any, name: str) -> jax.Array:
    found: jax.Array = record[name] if isinstance(record, dict) else getattr(record, name)
    return found


@dataclass
class Parts:
    """Rows of all levels, sharded over the devices, in parts of one shape.

    Attributes:
      mesh: the devices; shard `part * devices + device` lies on each.
      pad: contract of padded slots.
      layout: where rows lie; the same in every shard.
      groups: by part, records of arrays `[devices, rows, ...]`.
    """

    mesh: jax.sharding.Mesh
    pad: int
    layout: Layout
    groups: list[tuple[Any, ...]]
    _addresses: dict[tuple[str, str], tuple[list[jax.Array], Ints]] = field(default_factory=dict)

    @property
    def devices(self) -> int:
        """Shards of a part."""
        return int(self.mesh.size)

    def book(self, part: int) -> records.Book:
        """A part as the margin program takes it."""
        return as_book(self.layout, self.groups[part])

    def status(self, part: int) -> jax.Array:
        """Status of every account row of a part, as the block before left it."""
        status: jax.Array = self.groups[part][self.layout.group("accounts")]["status"]
        return status

    def set_status(self, part: int, status: jax.Array) -> None:
        """Keeps the status of every account row of a part."""
        at = self.layout.group("accounts")
        groups = list(self.groups[part])
        groups[at] = {**groups[at], "status": status}
        self.groups[part] = tuple(groups)

    def column(self, part: int, level: str, name: str) -> tuple[jax.Array, ...]:
        """One column of every bucket of a level."""
        first = self.layout.group(level)
        return tuple(
            getattr(record, name) for record in self.groups[part][first : first + len(self.layout.levels[level].rows)]
        )

    def set_column(self, part: int, level: str, name: str, buckets: tuple[jax.Array, ...]) -> None:
        """Puts other numbers into one column of every bucket of a level."""
        first, groups = self.layout.group(level), list(self.groups[part])
        for at, values in enumerate(buckets, start=first):
            groups[at] = groups[at]._replace(**{name: values})
        self.groups[part] = tuple(groups)

    @property
    def are_in_memory(self) -> bool:
        """Whether the devices' memory is the host's own."""
        return all(device.platform == "cpu" for device in self.mesh.devices.flat)

    def addresses(self, level: str, name: str) -> Ints:
        """Where the arrays of a column begin in the host's memory, by shard and bucket, until it is written.

        Only addresses are kept: whoever held the arrays as numpy's would keep the devices from writing in place.
        """
        groups = range(self.layout.group(level), self.layout.group(level) + self.layout.buckets(level))
        arrays = [_column(groups_of[at], name) for groups_of in self.groups for at in groups]
        known, base = self._addresses.get((level, name), ([], _NONE))
        if len(known) == len(arrays) and all(map(is_, known, arrays)):
            return base
        found = np.array([addresses_of(x) for x in arrays], np.int64)
        found = found.reshape(len(self.groups), len(groups), self.devices)
        base = found.swapaxes(1, 2).reshape(-1)
        self._addresses[level, name] = (arrays, base)
        return base

    def picked(self, level: str, where: Where, names: tuple[str, ...]) -> Picked:
        """Rows of one level as they lie, by piece."""
        found = []
        for piece in self.layout.levels[level].pieces(where):
            part, device = divmod(piece.shard, self.devices)
            record = self.groups[part][self.layout.group(level, piece.bucket)]
            found.append((piece.rows, [rows_at(getattr(record, name), device, piece.local) for name in names]))
        return found

    def single(self, group: str, name: str, where: Where) -> np.ndarray:
        """One number of every unit row or account."""
        found = np.zeros(len(where.row), np.int64)
        single = Level(np.ones(1, np.int64), np.array([max(self.layout.unit_rows, self.layout.accounts)]))
        for piece in single.pieces(where):
            part, device = divmod(piece.shard, self.devices)
            values = self.groups[part][self.layout.group(group)][name]
            found[piece.rows] = rows_at(values, device, piece.local)
        return found

    def renumber(self, contracts: Ints) -> None:
        """Gives every contract its new number, `contracts[old]`, padding included; order is kept."""
        program = block_program(renumbered, self.mesh, shared=1, donate=True)
        table = contracts.astype(np.int32)
        for part, groups in enumerate(self.groups):
            changed = list(groups)
            for level in ("legs", "cash_legs"):
                for bucket in range(len(self.layout.levels[level].rows)):
                    at = self.layout.group(level, bucket)
                    changed[at] = groups[at]._replace(contract=program(table, groups[at].contract))
            self.groups[part] = tuple(changed)
        self.pad = int(contracts[self.pad])

    def grow(self, after: Layout, template: LegBook) -> None:
        """Lays all rows out with more room; what is margined next compiles anew."""
        for part, groups in enumerate(self.groups):
            host = jax.tree.map(np.asarray, groups)
            self.groups[part] = on_blocks(grown_groups(self.layout, after, host, template, self.pad), self.mesh)
        self.layout = after
        self._addresses.clear()

    def write(self, part: int, news: list[Written]) -> None:
        """Replaces rows of a part, as many at a time as one update holds."""
        if not news:
            return
        program = block_program(replaced, self.mesh, donate=True)
        rooms = [capacity(rows) for rows in group_rows(self.layout)]
        by_group: dict[tuple[int, int], list[Written]] = {}
        for new in news:
            by_group.setdefault((new.shard - part * self.devices, new.group), []).append(new)
        joined = {key: _joined(own) for key, own in by_group.items()}
        rounds = max(-(-len(row) // rooms[group]) for (_, group), (row, _) in joined.items())
        for turn in range(rounds):
            update = self._update(part, joined, rooms, turn)
            self.groups[part] = program(self.groups[part], on_blocks(update, self.mesh))

    def _update(self, part: int, joined: _Joined, rooms: list[int], turn: int) -> Update:
        """The next rows of every group and device, in the buffers that the program takes."""
        groups = self.groups[part]
        shapes = [[(leaf.dtype.kind, leaf.shape[2:]) for leaf in jax.tree.leaves(group)] for group in groups]
        sizes = dict.fromkeys(_KINDS, 0)
        for room, leaves in zip(rooms, shapes, strict=True):
            sizes["i"] += room
            for kind, shape in leaves:
                sizes[kind] += room * int(np.prod(shape))
        buffers: dict[str, np.ndarray] = {
            kind: np.zeros((self.devices, size), _KINDS[kind]) for kind, size in sizes.items()
        }
        done = dict.fromkeys(_KINDS, 0)
        rows = group_rows(self.layout)
        for group, (room, leaves) in enumerate(zip(rooms, shapes, strict=True)):
            index = buffers["i"][:, done["i"] : done["i"] + room]
            index[:] = rows[group] + np.arange(room)  # beyond the last row: dropped
            done["i"] += room
            for number, (kind, shape) in enumerate([("i", ()), *leaves]):
                size = room * int(np.prod(shape))
                for device in range(self.devices):
                    if (device, group) not in joined:
                        continue
                    row, values = joined[device, group]
                    chosen = slice(turn * room, min((turn + 1) * room, len(row)))
                    if chosen.start >= chosen.stop:
                        continue
                    if number == 0:
                        index[device, : chosen.stop - chosen.start] = row[chosen]
                    else:
                        flat = values[number - 1][chosen].reshape(-1)
                        buffers[kind][device, done[kind] : done[kind] + flat.size] = flat
                done[kind] += size if number else 0
        return Update(buffers["i"], buffers["f"], buffers["b"])


def _joined(news: list[Written]) -> tuple[Ints, list[np.ndarray]]:
    leaves = [jax.tree.leaves(new.record) for new in news]
    return np.concatenate([new.row for new in news]), [np.concatenate(same) for same in zip(*leaves, strict=True)]
