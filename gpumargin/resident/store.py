"""Accounts of one model on the devices: where each lies, read, and replaced whole."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from gpumargin.device import block_program, on_blocks
from gpumargin.pack.columns import Ints
from gpumargin.pack.legs import LegBook
from gpumargin.resident.cut import cut_accounts, empty_like, lengths_by_shard
from gpumargin.resident.groups import Homes, Written, account_group, filled_groups, written
from gpumargin.resident.homes import first_homes, lacking, moves, settle
from gpumargin.resident.layout import EMPTY, Layout, Where
from gpumargin.resident.parts import Parts
from gpumargin.resident.reading import Held, read_held
from gpumargin_kernels.resident import NEW_ACCOUNT, NO_ACCOUNT, holders

# Every part costs calls: a block of two parts of 2^18 to a device is up to a tenth slower than one of one (measured).
ACCOUNTS_PER_SHARD = 1 << 19


@dataclass
class Store:
    """Whole accounts in padded buckets with spare rows.

    Attributes:
      parts: their rows.
      template: a packed book of no accounts, which says what columns there are.
      where: shard and row of every account.
      at: by shard, number of the account in each row, -1 = none.
      is_compiled: whether what changes single slots has been compiled for this layout.
    """

    parts: Parts
    template: LegBook
    where: Where
    at: list[np.ndarray]
    is_compiled: bool = False

    @staticmethod
    def of(book: LegBook, mesh: jax.sharding.Mesh, pad: int, *, accounts_per_shard: int = ACCOUNTS_PER_SHARD) -> Store:
        """A packed book on the devices."""
        devices = int(mesh.size)
        shards = devices * max(1, -(-len(book) // (accounts_per_shard * devices)))
        parts = Parts(mesh, pad, Layout.of(lengths_by_shard(book, shards)), [])
        nowhere = Where(np.zeros(len(book), np.int32), np.zeros(len(book), np.int32))
        store = Store(parts, empty_like(book), nowhere, [])
        for first in range(0, shards, devices):
            store._add_part(book, shards, range(first, first + devices))
        return store

    def _add_part(self, book: LegBook, count: int, shards: range) -> None:
        """Lays out the accounts of some of `count` shards; they take turns, so that shards are alike."""
        layout, pad = self.parts.layout, self.parts.pad
        news: list[Written] = []
        for shard in shards:
            chosen = np.arange(shard, len(book), count)
            own = cut_accounts(book, chosen)
            homes = first_homes(layout, own, np.full(len(own), shard))
            news += written(layout, own, homes, np.full(len(own), NEW_ACCOUNT), pad)
            self.where.shard[chosen], self.where.row[chosen] = shard, homes.unit_slots.row
            at = np.full(layout.accounts, -1, np.int32)
            at[homes.unit_slots.row] = chosen
            self.at.append(at)
        self.parts.groups.append(on_blocks(filled_groups(layout, self.template, pad, news, shards), self.parts.mesh))

    @property
    def nbytes(self) -> int:
        """Bytes of all rows and of where accounts lie."""
        rows = sum(leaf.nbytes for group in self.parts.groups for leaf in jax.tree.leaves(group))
        return int(rows) + sum(own.nbytes for own in (*self.where, *self.at))

    def held(self, accounts: Ints, unit_of: np.ndarray) -> Held:
        """What accounts hold.

        Args:
          accounts: `[A]` numbers, each once.
          unit_of: `[M]` unit of every contract.
        """
        where = Where(self.where.shard[accounts].astype(np.int64), self.where.row[accounts].astype(np.int64))
        return read_held(self.parts, where, unit_of)

    def with_new(self, held: Held, accounts: Ints) -> Held:
        """What accounts (ascending) hold, of which those beyond the last are new and lie nowhere yet.

        New accounts are to go where the fewest are, one after the other.
        """
        missing = int((accounts >= len(self.where.row)).sum())
        if not missing:
            return held
        count = [int((at >= 0).sum()) for at in self.at]
        shard = np.zeros(missing, np.int64)
        for i in range(missing):
            shard[i] = int(np.argmin(count))
            count[shard[i]] += 1
        return held._replace(
            accounts=Where(np.append(held.accounts.shard, shard), np.append(held.accounts.row, np.full(missing, -1))),
            balances=Where(
                np.append(held.balances.shard, shard), np.append(held.balances.row, np.full(missing, EMPTY))
            ),
            status=np.append(held.status, np.full(missing, NEW_ACCOUNT)),
        )

    def replace(self, accounts: Ints, held: Held, book: LegBook, unit_of: np.ndarray) -> None:
        """Puts what accounts hold now in the place of what they held.

        Args:
          accounts: `[A]` numbers, ascending; those beyond the accounts there are become new ones.
          held: from `held` and `with_new`.
          book: the accounts packed anew, in their order.
          unit_of: `[M]` unit of every contract.
        """
        wanted = moves(self.parts.layout, held, book)
        while (more := lacking(self.parts.layout, wanted, book)) is not None:
            self._grow(more)
            held = self.with_new(self.held(accounts[accounts < len(self.where.row)], unit_of), accounts)
            wanted = moves(self.parts.layout, held, book)
        homes = settle(self.parts.layout, wanted, held)
        news = list(written(self.parts.layout, book, homes, held.status, self.parts.pad))
        news += self._left(held, homes)
        self._note(accounts, homes)
        devices = self.parts.devices
        for part in range(len(self.parts.groups)):
            self.parts.write(part, [new for new in news if new.shard // devices == part])

    def _left(self, held: Held, homes: Homes) -> list[Written]:
        """Rows that accounts have moved out of: nobody's from now on."""
        moved = (held.accounts.row >= 0) & (held.accounts.row != homes.unit_slots.row)
        left = Where(held.accounts.shard[moved], held.accounts.row[moved])
        found = []
        for shard in np.unique(left.shard).tolist():
            rows = left.row[left.shard == shard]
            self.at[shard][rows] = -1
            settings = {name: np.zeros(len(rows), v.dtype) for name, v in self.template.settings.items()}
            record = account_group(np.full(len(rows), EMPTY), settings, np.full(len(rows), NO_ACCOUNT))
            found.append(Written(shard, self.parts.layout.group("accounts"), rows, record))
        return found

    def _note(self, accounts: Ints, homes: Homes) -> None:
        """Keeps where accounts lie."""
        missing = int(accounts.max(initial=-1)) + 1 - len(self.where.row)
        if missing > 0:
            self.where = Where(*(np.concatenate([x, np.zeros(missing, np.int32)]) for x in self.where))
        self.where.shard[accounts], self.where.row[accounts] = homes.unit_slots
        for shard in np.unique(homes.unit_slots.shard).tolist():
            chosen = homes.unit_slots.shard == shard
            self.at[shard][homes.unit_slots.row[chosen]] = accounts[chosen]

    def _grow(self, after: Layout) -> None:
        """More room."""
        moved = self.parts.layout.levels["unit_slots"].moved(after.levels["unit_slots"])
        for shard, old in enumerate(self.at):
            self.at[shard] = np.full(after.accounts, -1, np.int32)
            self.at[shard][moved] = old
        self.where = Where(self.where.shard, moved[self.where.row].astype(np.int32))
        self.parts.grow(after, self.template)
        self.is_compiled = False

    def keep_statuses(self, accounts: Ints, status: Ints) -> None:
        """Keeps statuses of some accounts."""
        for part in range(len(self.parts.groups)):
            values = np.array(self.parts.status(part))
            for device in range(self.parts.devices):
                own = np.flatnonzero(self.where.shard[accounts] == part * self.parts.devices + device)
                values[device, self.where.row[accounts[own]]] = status[own]
            self.parts.set_status(part, on_blocks(values, self.parts.mesh))

    def holders(self, is_wanted: np.ndarray) -> Ints:
        """Numbers of the accounts that hold one of the contracts, `is_wanted` [M], ascending."""
        program = block_program(holders, self.parts.mesh, shared=1)
        found = [np.zeros(0, np.int32)]
        for part in range(len(self.parts.groups)):
            book = self.parts.book(part)
            accounts, count = program(is_wanted, book.legs.buckets, book.unit_slots.buckets)
            if np.asarray(count).any():
                own = zip(self.at[part * self.parts.devices :], np.asarray(accounts), strict=False)
                found += [at[is_holder] for at, is_holder in own]
        numbers = np.concatenate(found)
        return np.sort(numbers[numbers >= 0]).astype(np.int64)
