"""What a run has gathered so far: totals and hashes, which can be laid aside after each part of the book."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from gpumargin.clock import Clock
from gpumargin.conservation import Conservation, require_closed
from gpumargin.digests import ColumnDigest, DigestState, files_digest
from gpumargin.interest import OpenInterest
from gpumargin.owners import OwnerTotals
from gpumargin.prepare import Market, Pass
from gpumargin.publish import Record
from gpumargin.rejects import Fate, Rejects
from gpumargin.results import contract_value
from gpumargin.tables import CUT_TABLES, Book
from gpumargin.totals import AccountTotals, Approximate, require_total

Tables = dict[str, pa.Table]


class Read(NamedTuple):
    """What had been read by some part.

    Attributes:
      digests: of every table.
      books: rows and sums, as JSON has them.
      interest: longs and shorts, likewise.
    """

    digests: dict[str, DigestState]
    books: dict[str, Any]
    interest: list[list[Any]]


@dataclass
class Progress:
    """What a run has gathered so far.

    Attributes:
      books: what was read, held against what is used; None = what is margined is not what was read.
      interest: longs and shorts of what was packed.
      files: hash of every file of the book, in place of hashes of the values of large tables; None = hash all values.
      inputs: hash of the tables of the book whose values are hashed.
      results: hash of every result table by table and model, so that models may take turns.
      accounts: margin accounts by model.
      rejects: rows in quarantine, and what became of every row.
    """

    books: Conservation | None = None
    clock: Clock = field(default_factory=Clock)
    files: Mapping[str, str] | None = None
    interest: OpenInterest = field(default_factory=OpenInterest)
    inputs: dict[str, ColumnDigest] = field(default_factory=dict)
    totals: dict[str, AccountTotals] = field(default_factory=dict)  # by accounting asset
    equity: dict[str, Approximate] = field(default_factory=dict)  # likewise, a second way
    owners: dict[str, OwnerTotals] = field(default_factory=dict)  # by accounting asset
    results: dict[tuple[str, str], ColumnDigest] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    accounts: Counter[str] = field(default_factory=Counter)
    rejects: Rejects = field(default_factory=Rejects)
    _owner_rows: list[tuple[str, pa.Table]] = field(default_factory=list)  # of the part under way

    def read(self, name: str, table: pa.Table) -> None:
        """Takes the next rows of a table of the book."""
        if self.files is None or name not in CUT_TABLES:
            with self.clock.stage("hash"):
                self.inputs.setdefault(name, ColumnDigest()).add(table)
        if self.books is not None:
            with self.clock.stage("conserve"):
                self.books.read(name, table)

    def input_hash(self, name: str, files: Collection[str]) -> dict[str, str]:
        """Hash of a table of the book, and what it is a hash of.

        Args:
          name: of the table.
          files: that it came from.
        """
        if name in self.inputs:
            return {"sha256": self.inputs[name].hexdigest(), "of": "values"}
        known = self.files or {}
        return {"sha256": files_digest({file: known[file] for file in files}), "of": "files"}

    @property
    def rows_read(self) -> Mapping[str, int]:
        """Rows of every table that were read so far."""
        return {} if self.books is None else self.books.rows_read

    def used(self, part: Book, usable: Book) -> None:
        """Takes the next part of the book, and what of it is not in quarantine."""
        if self.books is not None:
            with self.clock.stage("conserve"):
                self.books.used(part, usable)

    def packed(self, work: Pass) -> None:
        """Takes the next accounts as they were packed for their model."""
        values = contract_value(work.contracts, work.engine.contract_risk())
        with self.clock.stage("conserve"):
            self.interest.add(work.legs, work.contracts, values)
            if self.books is not None:
                self.books.packed(work.legs, work.contracts)

    def close(self, market: Market) -> None:
        """Takes the verdict on the book and holds what was used against what was read, after the last part.

        Raises:
          InputError: the book breaks the input contract, or is not closed although it should be.
          InternalError: GM202, the books do not balance.
        """
        if self.books is not None:  # before the input is blamed for what we lost or doubled
            self.books.require_used(market.checks.sums.by_asset)
            self.rejects.require(self.books.source.files)
        market.finish()
        if self.books is not None:
            self.books.require_packed()
        if market.options.closed_book:
            require_closed(self.interest)
        for asset, totals in self.totals.items():
            require_total(asset, totals, self.equity[asset])

    def read_so_far(self) -> Read:
        """What was read of every table of the book."""
        return Read(
            {name: digest.state() for name, digest in self.inputs.items()},
            {} if self.books is None else self.books.laid_aside(),
            self.interest.laid_aside(),
        )

    def add(self, name: str, model: str, table: pa.Table) -> None:
        """Takes the next rows of a result table of one model."""
        with self.clock.stage("hash"):
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

    def laid_aside(self, read: Read, fate: Fate) -> tuple[dict[str, Any], Tables]:
        """What another process needs to go on after the part that was finished last.

        Args:
          read: `read_so_far` when that part had been read; by now it may be more.
          fate: what became of the rows of that part.

        Returns:
          What JSON holds, and tables by name; sums by owner and fates of rows are those of the last part alone.
        """
        results = {"|".join(key): digest.state() for key, digest in self.results.items()}
        digests = {f"inputs/{name}": state for name, state in read.digests.items()}
        digests |= {f"results/{key}": state for key, state in results.items()}
        tables = {name: state.tail for name, state in digests.items() if state.tail is not None}
        for number, (money, rows) in enumerate(self._owner_rows):
            tables[f"owners/{number}/{money}"] = rows
        self._owner_rows.clear()
        tables["rejects"] = fate.records
        return {
            "digests": {name: state.blocks.hex() for name, state in digests.items()},
            "books": read.books,
            "interest": read.interest,
            "totals": {money: deepcopy(vars(totals)) for money, totals in self.totals.items()},
            "equity": {money: deepcopy(vars(equity)) for money, equity in self.equity.items()},
            "rows": dict(self.rows),
            "accounts": dict(self.accounts),
            "used": fate.used,
            "quarantined": fate.quarantined,
        }, tables

    def take_up(self, record: Record) -> None:
        """Takes what was laid aside; sums by owner and fates of rows are taken by `take_up_part`."""
        state = record.state
        for name, blocks in state["digests"].items():
            kind, _, key = name.partition("/")
            tail = record.table(name) if name in record.packed else None
            digest = ColumnDigest(DigestState(bytes.fromhex(blocks), tail))
            if kind == "inputs":
                self.inputs[key] = digest
            else:
                table, _, model = key.partition("|")
                self.results[table, model] = digest
        for money, own in state["totals"].items():
            counters = {name: Counter(own[name]) for name in ("status", "minor")}
            self.totals[money] = AccountTotals(own["decimals"], own["accounts"], **counters)
        self.equity = {money: Approximate(**own) for money, own in state["equity"].items()}
        self.interest.take_up(state["interest"])
        if self.books is not None:
            self.books.take_up(state["books"])
        self.rows, self.accounts = Counter(state["rows"]), Counter(state["accounts"])

    def take_up_part(self, record: Record, scratch: Path) -> None:
        """Takes the sums by owner and the fates of rows of one part; after `take_up`."""
        fate = Fate(record.state["used"], record.state["quarantined"], record.table("rejects"))
        self.rejects.add(fate, scratch)
        for name in record.packed:
            if name.startswith("owners/"):
                money = name.split("/", 2)[2]
                self.owners_in(money, self.totals[money].decimals, scratch).add_sums(record.table(name))
