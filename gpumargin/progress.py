"""What a run has gathered so far: totals and hashes, which can be laid aside after each part of the book."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from gpumargin.clock import Clock
from gpumargin.digests import ColumnDigest, DigestState
from gpumargin.owners import OwnerTotals
from gpumargin.rejects import Fate, Rejects
from gpumargin.totals import AccountTotals

Tables = dict[str, pa.Table]


@dataclass
class Progress:
    """What a run has gathered so far.

    Attributes:
      inputs: hash of every table of the book.
      results: hash of every result table by table and model, so that models may take turns.
      accounts: margin accounts by model.
      rejects: rows in quarantine, and what became of every row.
    """

    clock: Clock = field(default_factory=Clock)
    inputs: dict[str, ColumnDigest] = field(default_factory=dict)
    totals: dict[str, AccountTotals] = field(default_factory=dict)  # by accounting asset
    owners: dict[str, OwnerTotals] = field(default_factory=dict)  # by accounting asset
    results: dict[tuple[str, str], ColumnDigest] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    accounts: Counter[str] = field(default_factory=Counter)
    rejects: Rejects = field(default_factory=Rejects)
    _owner_rows: list[tuple[str, pa.Table]] = field(default_factory=list)  # of the part under way

    def read(self, name: str, table: pa.Table) -> None:
        """Takes the next rows of a table of the book."""
        with self.clock.stage("hash"):
            self.inputs.setdefault(name, ColumnDigest()).add(table)

    def read_so_far(self) -> dict[str, DigestState]:
        """What was read of every table of the book."""
        return {name: digest.state() for name, digest in self.inputs.items()}

    def add(self, name: str, model: str, table: pa.Table) -> None:
        """Takes the next rows of a result table of one model."""
        self.results.setdefault((name, model), ColumnDigest()).add(table)
        self.rows[name] += table.num_rows
        if name == "accounts":
            self.accounts[model] += table.num_rows

    def owners_in(self, money: str, decimals: int, scratch: Path) -> OwnerTotals:
        """Sums by owner in an accounting asset."""
        return self.owners.setdefault(money, OwnerTotals(decimals, scratch))

    def keep_owners(self, money: str, sums: pa.Table) -> None:
        """Keeps what was added to sums by owner until it is laid aside."""
        self._owner_rows.append((money, sums))

    def laid_aside(self, read: Mapping[str, DigestState], fate: Fate) -> tuple[dict[str, Any], Tables]:
        """What another process needs to go on after the part that was finished last.

        Args:
          read: `read_so_far` when that part had been read; by now it may be more.
          fate: what became of the rows of that part.

        Returns:
          What JSON holds, and tables by name; sums by owner and fates of rows are those of the last part alone.
        """
        results = {"|".join(key): digest.state() for key, digest in self.results.items()}
        digests = {f"inputs/{name}": state for name, state in read.items()}
        digests |= {f"results/{key}": state for key, state in results.items()}
        tables = {name: state.tail for name, state in digests.items() if state.tail is not None}
        for number, (money, rows) in enumerate(self._owner_rows):
            tables[f"owners/{number}/{money}"] = rows
        self._owner_rows.clear()
        tables["rejects"] = fate.records
        return {
            "digests": {name: state.blocks.hex() for name, state in digests.items()},
            "totals": {money: vars(totals) for money, totals in self.totals.items()},
            "rows": dict(self.rows),
            "accounts": dict(self.accounts),
            "used": fate.used,
            "quarantined": fate.quarantined,
        }, tables

    def take_up(self, state: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> None:
        """Takes what was laid aside; sums by owner and fates of rows are taken by `take_up_part`."""
        for name, blocks in state["digests"].items():
            kind, _, key = name.partition("/")
            digest = ColumnDigest(DigestState(bytes.fromhex(blocks), tables.get(name)))
            if kind == "inputs":
                self.inputs[key] = digest
            else:
                table, _, model = key.partition("|")
                self.results[table, model] = digest
        for money, own in state["totals"].items():
            counters = {name: Counter(own[name]) for name in ("status", "minor")}
            self.totals[money] = AccountTotals(own["decimals"], own["accounts"], **counters)
        self.rows, self.accounts = Counter(state["rows"]), Counter(state["accounts"])

    def take_up_part(self, state: Mapping[str, Any], tables: Mapping[str, pa.Table], scratch: Path) -> None:
        """Takes the sums by owner and the fates of rows of one part; after `take_up`."""
        self.rejects.add(Fate(state["used"], state["quarantined"], tables["rejects"]), scratch)
        for name, rows in tables.items():
            if name.startswith("owners/"):
                money = name.split("/", 2)[2]
                self.owners_in(money, self.totals[money].decimals, scratch).add_sums(rows)
