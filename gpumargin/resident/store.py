"""Accounts of one model on the devices: read as flat columns, and replaced whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from gpumargin.device import block_program, on_blocks, rows_at
from gpumargin.pack.buckets import bucket_widths
from gpumargin.pack.columns import Floats, Ints
from gpumargin.pack.legs import LegBook
from gpumargin.resident.groups import Homes, Written, as_book, filled_groups, group_rows, grown_groups, written
from gpumargin.resident.layout import EMPTY, LEVELS, Layout, Level, Where
from gpumargin_kernels import records
from gpumargin_kernels.resident import NEW_ACCOUNT, NO_ACCOUNT, Update, capacity, holders, renumbered, replaced

ACCOUNTS_PER_SHARD = 1 << 18
_KINDS = {"i": np.int32, "f": np.float64, "b": np.bool_}


class Held(NamedTuple):
    """What some accounts hold, as flat columns in canonical order; `owner` counts the accounts asked for."""

    rows: Where  # [R] unit rows
    cash: Where  # [R]
    accounts: Where  # [A]
    balances: Where  # [A]
    status: Ints  # [A]
    row_owner: Ints  # [R]
    row_unit: Ints  # [R]
    leg_owner: Ints  # [N]
    contract: Ints  # [N]
    quantity: Floats  # [N]
    entry: Floats  # [N] NaN = settled, or an option
    unsettled: Floats  # [N]
    balance_owner: Ints  # [B]
    asset: Ints  # [B]
    amount: Floats  # [B]
    is_collateral: np.ndarray  # [B]


def empty_like(book: LegBook) -> LegBook:
    """A packed book of no accounts with the same columns."""

    def none(values: Any) -> Any:
        if isinstance(values, dict):
            return {name: column[:0] for name, column in values.items()}
        return None if values is None else values[:0]

    columns = {name: none(values) for name, values in vars(book).items()}
    starts = {name: np.zeros(1, np.int64) for name in columns if name.endswith("_start")}
    return replace(book, **{**columns, **starts})


def _starts(lengths: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@dataclass
class Store:
    """Whole accounts in padded buckets with spare rows, sharded over the devices, in parts of one shape.

    Attributes:
      mesh: the devices.
      pad: contract of padded slots.
      layout: where rows lie; the same in every shard.
      parts: groups of arrays `[devices, rows, ...]`.
      template: says which columns there are.
      where: shard and row of every account.
      at: `[accounts of a shard]` number of the account in each row of each shard, -1 = none.
    """

    mesh: jax.sharding.Mesh
    pad: int
    layout: Layout
    parts: list[tuple[Any, ...]]
    template: LegBook
    where: Where
    at: list[np.ndarray]

    @property
    def devices(self) -> int:
        """Shards of a part."""
        return int(self.mesh.size)

    @staticmethod
    def of(book: LegBook, mesh: jax.sharding.Mesh, pad: int, *, accounts_per_shard: int = ACCOUNTS_PER_SHARD) -> Store:
        """A packed book on the devices, accounts in order."""
        devices = int(mesh.size)
        shards = devices * max(1, -(-len(book) // (accounts_per_shard * devices)))
        cuts = np.linspace(0, len(book), shards + 1).round().astype(np.int64)
        layout = Layout.of(_lengths(book, cuts))
        nowhere = Where(np.zeros(len(book), np.int32), np.zeros(len(book), np.int32))
        store = Store(mesh, pad, layout, [], empty_like(book), nowhere, [])
        for first in range(0, shards, devices):
            store._add_part(book, cuts, range(first, first + devices))
        return store

    def _add_part(self, book: LegBook, cuts: Ints, shards: range) -> None:
        news: list[Written] = []
        for shard in shards:
            chosen = slice(int(cuts[shard]), int(cuts[shard + 1]))
            own = _cut(book, chosen)
            homes = self._new_homes(own, np.full(len(own), shard))
            status = np.full(len(own), NEW_ACCOUNT)
            news += written(self.layout, own, homes, status, self.pad)
            self.where.shard[chosen], self.where.row[chosen] = shard, homes.unit_slots.row
            at = np.full(self.layout.accounts, -1, np.int32)
            at[homes.unit_slots.row] = np.arange(chosen.start, chosen.stop)
            self.at.append(at)
        self.parts.append(on_blocks(filled_groups(self.layout, self.template, self.pad, news, shards), self.mesh))

    def _new_homes(self, book: LegBook, shard: Ints) -> Homes:
        """Free rows for all of a packed book, whose accounts are to lie in the given shards."""
        of_rows = np.repeat(shard, np.diff(book.unit_start))
        found: dict[str, Where] = {}
        for level, lengths in _run_lengths(book).items():
            shards = of_rows if level in ("legs", "cash_legs") else shard
            needed = np.flatnonzero(lengths) if level in ("cash_legs", "balances") else np.arange(len(lengths))
            own, rows = self.layout.levels[level], np.full(len(lengths), EMPTY)
            rows[needed] = own.take(shards[needed], own.fitting(lengths[needed]))
            found[level] = Where(shards, rows)
        return Homes(**found)

    def book(self, part: int) -> records.Book:
        """A part as the margin program takes it."""
        return as_book(self.layout, self.parts[part])

    def status(self, part: int) -> jax.Array:
        """Status of every account row of a part, as the block before left it."""
        return self.parts[part][self.layout.group("accounts")]["status"]  # type: ignore[no-any-return]

    def set_status(self, part: int, status: jax.Array) -> None:
        """Keeps the status of every account row of a part."""
        at = self.layout.group("accounts")
        groups = list(self.parts[part])
        groups[at] = {**groups[at], "status": status}
        self.parts[part] = tuple(groups)

    def write_statuses(self, accounts: Ints, status: Ints) -> None:
        """Keeps statuses of some accounts."""
        at = self.layout.group("accounts")
        for part, groups in enumerate(self.parts):
            values = np.array(groups[at]["status"])
            for device in range(self.devices):
                own = np.flatnonzero(self.where.shard[accounts] == part * self.devices + device)
                values[device, self.where.row[accounts[own]]] = status[own]
            self.set_status(part, on_blocks(values, self.mesh))

    def _picked(self, level: str, where: Where, names: tuple[str, ...]) -> _Picked:
        """Rows of one level as they lie, by piece."""
        found = []
        for piece in self.layout.levels[level].pieces(where):
            part, device = divmod(piece.shard, self.devices)
            record = self.parts[part][self.layout.group(level, piece.bucket)]
            found.append((piece.index, [rows_at(getattr(record, name), device, piece.local) for name in names]))
        return found

    def _single(self, group: str, name: str, where: Where) -> np.ndarray:
        """One number of every unit row or account."""
        found = np.zeros(len(where.row), np.int64)
        single = Level(np.ones(1, np.int64), np.array([max(self.layout.unit_rows, self.layout.accounts)]))
        for piece in single.pieces(where):
            part, device = divmod(piece.shard, self.devices)
            values = self.parts[part][self.layout.group(group)][name]
            found[piece.index] = rows_at(values, device, piece.local)
        return found

    def held(self, accounts: Ints, unit_of: np.ndarray) -> Held:
        """What accounts hold.

        Args:
          accounts: `[A]` numbers of the accounts, each once.
          unit_of: `[M]` unit of every contract.
        """
        own = Where(self.where.shard[accounts].astype(np.int64), self.where.row[accounts].astype(np.int64))
        units = self._picked("unit_slots", own, ("is_held", "row"))
        unit_start, (row,) = _runs(units, len(accounts), (np.int32,), lambda is_held, _: is_held, drop=1)
        row_owner = np.repeat(np.arange(len(accounts)), np.diff(unit_start))
        rows = Where(own.shard[row_owner], row.astype(np.int64))
        legs = self._picked("legs", rows, ("contract", "quantity"))
        leg_start, (contract, quantity) = _runs(legs, len(row), (np.int32, np.float64), lambda c, _: c != self.pad)
        of_leg = np.repeat(np.arange(len(row)), np.diff(leg_start))
        cash = Where(rows.shard, self._single("rows", "cash", rows))
        entry, unsettled = self._cash(cash, of_leg, contract)
        balances = Where(own.shard, self._single("accounts", "balances", own))
        balance_start, (asset, amount, is_collateral) = self._balances(balances)
        return Held(
            rows=rows,
            cash=cash,
            accounts=own,
            balances=balances,
            status=self._single("accounts", "status", own),
            row_owner=row_owner,
            row_unit=unit_of[contract[leg_start[:-1]]].astype(np.int64) if len(row) else np.zeros(0, np.int64),
            leg_owner=row_owner[of_leg],
            contract=contract.astype(np.int64),
            quantity=quantity,
            entry=entry,
            unsettled=unsettled,
            balance_owner=np.repeat(np.arange(len(accounts)), np.diff(balance_start)),
            asset=asset.astype(np.int64),
            amount=amount,
            is_collateral=is_collateral,
        )

    def _cash(self, cash: Where, of_leg: Ints, contract: Ints) -> tuple[Floats, Floats]:
        """Entry and cash due of every leg."""
        used = np.flatnonzero(cash.row != EMPTY)
        picked = self._picked("cash_legs", Where(cash.shard[used], cash.row[used]), ("contract", "entry", "unsettled"))
        start, (own, entry, unsettled) = _runs(
            picked, len(used), (np.int32, np.float64, np.float64), lambda c, *_: c != self.pad
        )
        entries, due = np.full(len(contract), np.nan), np.zeros(len(contract))
        width = self.pad + 1
        key = np.repeat(used, np.diff(start)) * width + own
        at = np.searchsorted(of_leg * width + contract, key)  # both ascend
        entries[at], due[at] = entry, unsettled
        return entries, due

    def _balances(self, where: Where) -> tuple[Ints, list[np.ndarray]]:
        """Balances of accounts; a slot is in use where its asset stands above that of the slot before."""

        def in_use(asset: np.ndarray, *_: np.ndarray) -> np.ndarray:
            found = np.ones(asset.shape, bool)
            found[:, 1:] = asset[:, 1:] > asset[:, :-1]
            return found

        used = np.flatnonzero(where.row != EMPTY)
        picked = self._picked(
            "balances", Where(where.shard[used], where.row[used]), ("asset", "amount", "is_collateral")
        )
        start, columns = _runs(picked, len(used), (np.int32, np.float64, np.bool_), in_use)
        lengths = np.zeros(len(where.row), np.int64)
        lengths[used] = np.diff(start)
        return _starts(lengths), columns

    def replace(self, accounts: Ints, held: Held, book: LegBook, unit_of: np.ndarray) -> None:
        """Puts what accounts hold now in the place of what they held.

        Args:
          accounts: `[A]` numbers; those beyond the accounts there are become new ones, in the order of numbers.
          held: what the others held; rows of `accounts` that are new have row -1.
          book: the accounts packed anew, in their order.
          unit_of: `[M]` unit of every contract.
        """
        while (lacking := self._lacking(held, book)) is not None:
            self._grow(*lacking)
            held = self.refreshed(accounts, held, unit_of)
        homes = self._homes(held, book)
        news = list(written(self.layout, book, homes, held.status, self.pad))
        news += self._left(held, homes)
        self._note(accounts, held, homes)
        for part in range(len(self.parts)):
            own = range(part * self.devices, (part + 1) * self.devices)
            self._write(part, [new for new in news if new.shard in own])

    def with_new(self, held: Held, accounts: Ints) -> Held:
        """What accounts hold, of which those beyond the last are new: they lie nowhere, each in the shard it shall be.

        New accounts go where the fewest are, one after the other.
        """
        is_new = accounts >= len(self.where.row)
        missing = int(is_new.sum())
        if not missing:
            return held
        count = [int((at >= 0).sum()) for at in self.at]
        shard = np.zeros(missing, np.int64)
        for i in range(missing):
            shard[i] = int(np.argmin(count))
            count[shard[i]] += 1
        nowhere = np.full(missing, -1)
        return held._replace(
            accounts=Where(np.append(held.accounts.shard, shard), np.append(held.accounts.row, nowhere)),
            balances=Where(np.append(held.balances.shard, shard), np.append(held.balances.row, nowhere * 0 + EMPTY)),
            status=np.append(held.status, np.full(missing, NEW_ACCOUNT)),
        )

    def refreshed(self, accounts: Ints, held: Held, unit_of: np.ndarray) -> Held:
        """The same holdings where they lie after rows have moved; new accounts stay nowhere."""
        is_old = held.accounts.row >= 0
        again = self.held(accounts[is_old], unit_of)
        number = np.flatnonzero(is_old)

        def placed(now: Where, rows: np.ndarray) -> Where:
            found = Where(held.accounts.shard.copy(), np.full(len(is_old), -1))
            found.shard[number], found.row[number] = now.shard, rows
            return found

        return held._replace(
            rows=again.rows,
            cash=again.cash,
            accounts=placed(again.accounts, again.accounts.row),
            balances=placed(again.balances, again.balances.row)._replace(
                row=np.where(is_old, placed(again.balances, again.balances.row).row, EMPTY)
            ),
            row_owner=number[again.row_owner],
            row_unit=again.row_unit,
        )

    def _stays(self, held: Held, book: LegBook) -> tuple[Homes, dict[str, np.ndarray]]:
        """Where each row was (row -1 = nowhere), and whether it can stay there."""
        owner = np.repeat(np.arange(len(book)), np.diff(book.unit_start))
        width = int(max(held.row_unit.max(initial=0), book.unit.max(initial=0))) + 1
        old, new = held.row_owner * width + held.row_unit, owner * width + book.unit
        at = np.minimum(np.searchsorted(old, new), max(len(old) - 1, 0))
        known = old[at] == new if len(old) else np.zeros(len(new), bool)
        shard = held.accounts.shard[owner]
        was = Homes(
            legs=Where(shard, np.where(known, held.rows.row[at], -1) if len(old) else np.full(len(new), -1)),
            cash_legs=Where(shard, np.where(known, held.cash.row[at], EMPTY) if len(old) else np.full(len(new), EMPTY)),
            unit_slots=held.accounts,
            balances=held.balances,
        )
        stays: dict[str, np.ndarray] = {}
        for level, lengths in _run_lengths(book).items():
            rows, own = getattr(was, level).row, self.layout.levels[level]
            is_there = rows > EMPTY if level in ("cash_legs", "balances") else rows >= 0
            room = own.widths[np.minimum(own.bucket_of(np.maximum(rows, 0)), len(own.widths) - 1)]
            wanted = lengths > 0 if level in ("cash_legs", "balances") else np.ones(len(lengths), bool)
            stays[level] = is_there & wanted & (bucket_widths(lengths) <= room)
        return was, stays

    def _moves(self, was: Homes, stays: dict[str, np.ndarray], book: LegBook, level: str) -> tuple[Ints, Ints, Ints]:
        """Rows of a level that need a new place: their index, shard and bucket."""
        lengths, own = _run_lengths(book)[level], self.layout.levels[level]
        wanted = lengths > 0 if level in ("cash_legs", "balances") else np.ones(len(lengths), bool)
        index = np.flatnonzero(wanted & ~stays[level])
        return index, getattr(was, level).shard[index], own.fitting(lengths[index])

    def _lacking(self, held: Held, book: LegBook) -> tuple[str, int, int] | None:
        """A level and bucket without enough free rows, and the rows it needs; a bucket that is not there has width."""
        was, stays = self._stays(held, book)
        for level in LEVELS:
            index, shard, bucket = self._moves(was, stays, book, level)
            own = self.layout.levels[level]
            if bool((bucket == len(own.widths)).any()):
                return level, len(own.widths), int(bucket_widths(_run_lengths(book)[level][index]).max())
            for short, rows in own.lacks(shard, bucket).items():
                return level, short, rows
        return None

    def _homes(self, held: Held, book: LegBook) -> Homes:
        """Where every row goes: where it was if it fits, else to a free row; what is left becomes free."""
        was, stays = self._stays(held, book)
        found: dict[str, Where] = {}
        for level in LEVELS:
            own, before = self.layout.levels[level], getattr(was, level)
            index, shard, bucket = self._moves(was, stays, book, level)
            rows = np.where(stays[level], before.row, EMPTY)
            rows[index] = own.take(shard, bucket)
            found[level] = Where(before.shard, rows)
        homes = Homes(**found)
        for level, old in zip(LEVELS, (held.rows, held.cash, held.accounts, held.balances), strict=True):
            kept, now = getattr(homes, level), int(self.layout.levels[level].ends[-1])
            least = EMPTY if level in ("cash_legs", "balances") else -1
            is_left = (old.row > least) & ~np.isin(old.shard * now + old.row, kept.shard * now + kept.row)
            self.layout.levels[level].release(Where(old.shard[is_left], old.row[is_left]))
        return homes

    def _left(self, held: Held, homes: Homes) -> list[Written]:
        """Rows that accounts have moved out of: nobody's from now on."""
        moved = (held.accounts.row >= 0) & (held.accounts.row != homes.unit_slots.row)
        left = Where(held.accounts.shard[moved], held.accounts.row[moved])
        found = []
        blank = self.layout.group("accounts")
        for shard in np.unique(left.shard).tolist():
            rows = left.row[left.shard == shard]
            self.at[shard][rows] = -1
            settings = {name: np.zeros(len(rows), v.dtype) for name, v in self.template.settings.items()}
            status = np.full(len(rows), NO_ACCOUNT, np.int8)
            record = {"balances": np.full(len(rows), EMPTY, np.int32), "settings": settings, "status": status}
            found.append(Written(shard, blank, rows, record))
        return found

    def _note(self, accounts: Ints, held: Held, homes: Homes) -> None:
        """Keeps where accounts lie."""
        missing = int(accounts.max(initial=-1)) + 1 - len(self.where.row)
        if missing > 0:
            self.where = Where(*(np.concatenate([x, np.zeros(missing, np.int32)]) for x in self.where))
        self.where.shard[accounts], self.where.row[accounts] = homes.unit_slots
        for shard in np.unique(homes.unit_slots.shard).tolist():
            chosen = homes.unit_slots.shard == shard
            self.at[shard][homes.unit_slots.row[chosen]] = accounts[chosen]

    def _write(self, part: int, news: list[Written]) -> None:
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
            self.parts[part] = program(self.parts[part], on_blocks(update, self.mesh))

    def _update(self, part: int, joined: _Joined, rooms: list[int], turn: int) -> Update:
        """The next rows of every group and device, in the buffers that the program takes."""
        groups = self.parts[part]
        shapes = [[(leaf.dtype.kind, leaf.shape[2:]) for leaf in jax.tree.leaves(group)] for group in groups]
        sizes = dict.fromkeys(_KINDS, 0)
        for room, leaves in zip(rooms, shapes, strict=True):
            sizes["i"] += room
            for kind, shape in leaves:
                sizes[kind] += room * int(np.prod(shape))
        buffers = {kind: np.zeros((self.devices, size), _KINDS[kind]) for kind, size in sizes.items()}
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

    def _grow(self, level: str, bucket: int, size: int) -> None:
        """More rows in a bucket, or one more bucket of the width `size`: what follows compiles anew."""
        own = self.layout.levels[level]
        grown = own.widened(size) if bucket == len(own.widths) else own.grown(bucket, size)
        after = Layout({**self.layout.levels, level: grown})
        for part, groups in enumerate(self.parts):
            host = jax.tree.map(np.asarray, groups)
            new = grown_groups(self.layout, after, host, self.template, self.pad)
            self.parts[part] = on_blocks(new, self.mesh)
        if level == "unit_slots":
            moved = own.moved(grown)
            for shard, at in enumerate(self.at):
                self.at[shard] = np.full(after.accounts, -1, np.int32)
                self.at[shard][moved] = at
            self.where = Where(self.where.shard, moved[self.where.row].astype(np.int32))
        self.layout = after

    def renumber(self, contracts: Ints) -> None:
        """Gives every contract its new number, `contracts[old]`, padding included; order is kept."""
        program = block_program(renumbered, self.mesh, shared=1, donate=True)
        table = contracts.astype(np.int32)
        for part, groups in enumerate(self.parts):
            changed = list(groups)
            for level in ("legs", "cash_legs"):
                for bucket in range(len(self.layout.levels[level].rows)):
                    at = self.layout.group(level, bucket)
                    changed[at] = groups[at]._replace(contract=program(table, groups[at].contract))
            self.parts[part] = tuple(changed)
        self.pad = int(contracts[self.pad])

    def holders(self, is_wanted: np.ndarray) -> Ints:
        """Numbers of the accounts that hold one of the contracts, `is_wanted` [M], ascending."""
        program = block_program(holders, self.mesh, shared=1)
        found = []
        for part in range(len(self.parts)):
            book = self.book(part)
            accounts, count = program(is_wanted, book.legs.buckets, book.unit_slots.buckets)
            if not np.asarray(count).any():
                continue
            for device, own in enumerate(np.asarray(accounts)):
                found.append(self.at[part * self.devices + device][np.flatnonzero(own)])
        numbers = np.concatenate(found) if found else np.zeros(0, np.int32)
        return np.sort(numbers[numbers >= 0]).astype(np.int64)


_Picked = list[tuple[Ints, list[np.ndarray]]]
_Joined = dict[tuple[int, int], tuple[Ints, list[np.ndarray]]]


def _joined(news: list[Written]) -> tuple[Ints, list[np.ndarray]]:
    leaves = [jax.tree.leaves(new.record) for new in news]
    return np.concatenate([new.row for new in news]), [np.concatenate(same) for same in zip(*leaves, strict=True)]


def _run_lengths(book: LegBook) -> dict[str, Ints]:
    return {
        "legs": np.diff(book.leg_start),
        "cash_legs": np.diff(book.cash_start),
        "unit_slots": np.diff(book.unit_start),
        "balances": np.diff(book.balance_start),
    }


def _lengths(book: LegBook, cuts: Ints) -> dict[str, list[Ints]]:
    """Lengths of the runs of every level by shard; empty ones of cash legs and balances take no room."""
    rows = book.unit_start[cuts]
    found: dict[str, list[Ints]] = {}
    for level, lengths in _run_lengths(book).items():
        ends = rows if level in ("legs", "cash_legs") else cuts
        own = [lengths[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
        found[level] = [x[x > 0] for x in own] if level in ("cash_legs", "balances") else own
    return found


def _cut(book: LegBook, accounts: slice) -> LegBook:
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


def _runs(
    picked: _Picked, rows: int, kinds: tuple[type, ...], in_use: Callable[..., np.ndarray], *, drop: int = 0
) -> tuple[Ints, list[np.ndarray]]:
    """Slots in use of all rows one after the other: where each row's begin, and their columns after the first `drop`."""
    lengths = np.zeros(rows, np.int64)
    masks = []
    for index, columns in picked:
        mask = in_use(*columns)
        lengths[index] = mask.sum(axis=1)
        masks.append(mask)
    start = _starts(lengths)
    found = [np.zeros(int(start[-1]), kind) for kind in kinds]
    for (index, columns), mask in zip(picked, masks, strict=True):
        to = (start[index][:, None] + np.arange(mask.shape[1]))[mask]
        for out, column in zip(found, columns[drop:], strict=True):
            out[to] = column[mask]
    return start, found
