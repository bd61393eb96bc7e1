"""The books balance: whatever was read is what was margined, row by row and to the last digit.

Four things are held against each other on every run: the rows that the files hold, the rows that were read, those that
went into parts, and those that were packed. Rows are counted, balances are added up exactly by asset, and fingerprints
say that no amount changed its account, its contract or its value on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import pyarrow as pa

from gpumargin.errors import InternalError
from gpumargin.failures import Failure, failure_frame, input_error
from gpumargin.fingerprints import FOLLOWED, options_of, packed_fingerprints, read_fingerprint
from gpumargin.interest import OpenInterest, Sides, texts_of
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.legs import LegBook
from gpumargin.sums import BalanceSums
from gpumargin.tables import CUT_TABLES, Book, Parts

_MODULUS = 1 << 64
_EXAMPLES = 20


@dataclass
class Conservation:
    """What a run has read, cut into parts and packed so far.

    Attributes:
      source: the book.
    """

    source: Parts
    _read: Counter[str] = field(default_factory=Counter)
    _sums: BalanceSums = field(default_factory=BalanceSums)
    _marks: Counter[str] = field(default_factory=Counter)
    _packed: Counter[str] = field(default_factory=Counter)

    @cached_property
    def _options(self) -> pa.Array:
        return options_of(self.source.head)

    @property
    def rows_read(self) -> Mapping[str, int]:
        """Rows of every table so far."""
        return dict(self._read)

    def read(self, name: str, table: pa.Table) -> None:
        """Takes rows of a table as they come from a file."""
        self._read[name] += table.num_rows
        if name in FOLLOWED:
            self._marks[name] += read_fingerprint(name, table, self._options)
        if name == "balances":
            self._sums.add(table)

    def used(self, part: Book, usable: Book) -> None:
        """Takes a part of the book, and what of it is not in quarantine.

        Raises:
          InternalError: GM202, a table of it has not the rows that its files gave.
        """
        for name in CUT_TABLES:
            said = sum(source.rows for source in part.sources.get(name, ()))
            _require(f"rows of {name} in a part", said, part.num_rows(name))
        for name in FOLLOWED:
            if usable.num_rows(name) != part.num_rows(name):
                given, kept = (read_fingerprint(name, book.tables[name], self._options) for book in (part, usable))
                self._marks[name] += kept - given

    def packed(self, book: LegBook, contracts: ContractSet) -> None:
        """Takes packed accounts."""
        self._packed.update(packed_fingerprints(book, contracts))

    def laid_aside(self) -> dict[str, Any]:
        """What another process needs to go on after the parts so far, as JSON has it."""
        return {
            "rows": dict(self._read),
            "sums": [[asset, str(total)] for asset, total in self._sums.by_asset.items()],
            "read": dict(self._marks),
            "packed": dict(self._packed),
        }

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Takes what was laid aside, in place of the parts that it stands for."""
        self._read, self._marks, self._packed = (Counter(state[name]) for name in ("rows", "read", "packed"))
        self._sums.by_asset.update({asset: Fraction(total) for asset, total in state["sums"]})

    def require_used(self, sums: Mapping[str | int, Fraction]) -> None:
        """After the last part: all rows that the files hold were read, and balances in parts add up to the same.

        That every one of them was used or is in quarantine, `Rejects` finds out.

        Args:
          sums: exact sum of the balances of every asset over all parts, those in quarantine included.

        Raises:
          InternalError: GM202.
        """
        for name, files in self.source.files.items():
            _require(f"rows of {name}", sum(files.values()), self._read[name])
        for asset in {*sums, *self._sums.by_asset}:
            _require(f"sum of {asset}", self._sums.by_asset.get(asset, 0), sums.get(asset, 0))

    def require_packed(self) -> None:
        """After the last part of a valid book: what was packed is what was read and not put into quarantine.

        Raises:
          InternalError: GM202.
        """
        for name in FOLLOWED:
            _require(f"fingerprint of {name}", self._marks[name] % _MODULUS, self._packed[name] % _MODULUS)


def require_closed(interest: OpenInterest) -> None:
    """Every contract has as many longs as shorts.

    Raises:
      InputError: GM120, some have not; the first of them, the difference that is worth most first.
    """
    unbalanced = interest.unbalanced()
    if unbalanced:
        found = [_unbalanced(str(name), sides, len(unbalanced)) for name, sides in unbalanced.items()]
        raise input_error(failure_frame(found[:_EXAMPLES]))


def _unbalanced(name: str, sides: Sides, count: int) -> Failure:
    told = texts_of(sides)
    message = f"longs of {name} are {told['long']}, shorts {told['short']} ({count:,} contracts do not sum to zero)"
    remedy = "find the missing or doubled positions, or leave --closed-book out"
    return Failure("GM120", "positions", "", None, "quantity", told["difference"], message, remedy)


def _require(what: str, read: Fraction | int, found: Fraction | int) -> None:
    if read != found:
        message = f"GM202: {what}: {_shown(read)} were read, {_shown(found)} arrived; nothing was published"
        raise InternalError(message)


def _shown(value: Fraction | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{float(value)!r}"
