"""Ids that are equal but for case or for how Unicode writes them: shown, and no reason to end a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from gpumargin import disk
from gpumargin.checks.findings import NO_ROW, Oddity, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gpumargin.checks.facts import Facts
    from gpumargin.pack.accounts import Accounts

_NAMED = (("instruments", "instrument_id"), ("prices", "asset"))
HASHES = 1 << 23  # compared at a time, 8 bytes each; more ids are gone through several times


@dataclass
class Twins:
    """Account ids of all parts of a book.

    Attributes:
      last: ids of the last part, each once.
    """

    last: pl.Series = field(default_factory=lambda: pl.Series("word", [], dtype=pl.String))
    _parts: list[pl.Series | Path] = field(default_factory=list)
    _count: int = 0
    _are_folded: bool = True  # all so far are as twins would have them in common: there are none among them
    _folder: Path | None = None

    def keep_in(self, folder: Path) -> None:
        """Makes a folder for the ids of parts to come, none of which then stay in memory.

        It is needed until the findings are known; the caller removes it.
        """
        disk.make_folder(folder)
        self._folder = folder

    def add(self, accounts: Accounts) -> None:
        """Takes the account ids of a part, whose accounts no other part has."""
        ids = accounts.account_ids
        if not pat.is_integer(ids.type):
            begins = np.append(True, pc.not_equal(ids[1:], ids[:-1])) if len(ids) else np.zeros(0, bool)
            self.keep(_series(ids.filter(pa.array(begins))))

    def keep(self, ids: pl.Series) -> None:
        """Takes ids of a part, each once."""
        self.last = ids
        self._count += len(ids)
        self._are_folded = self._are_folded and bool((_folded(ids) == ids).all())
        self._parts.append(ids if self._folder is None else self._written(ids, self._folder))

    def _written(self, ids: pl.Series, folder: Path) -> Path:
        path, rows = folder / f"ids-{len(self._parts):05d}.arrow", ids.to_frame().to_arrow()
        with disk.OutFile(path) as file, pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows)
        return path

    def findings(self) -> Iterator[Oddity]:
        """Twins among accounts (GM118)."""
        if not self._are_folded:
            yield from _twins(self._parts, self._count, "accounts", "account_id")


def market_twins(facts: Facts) -> Iterator[Oddity]:
    """Twins among contracts and among assets (GM118)."""
    for table, column in _NAMED:
        words = facts.coded(table, column).used_words()
        if not pat.is_integer(words.type):
            ids = _series(words)
            yield from _twins([ids], len(ids), table, column)


def _series(words: pa.Array) -> pl.Series:
    return pl.Series("word", pl.from_arrow(words)).cast(pl.String)


def _read(part: pl.Series | Path) -> pl.Series:
    if isinstance(part, pl.Series):
        return part
    with pa.OSFile(str(part)) as file, pa.ipc.open_file(file) as reader:
        return _series(reader.read_all()["word"].combine_chunks())


def _folded(ids: pl.Series) -> pl.Series:
    """Ids as twins have them in common."""
    is_plain = bool((ids.str.len_bytes() == ids.str.len_chars()).all())
    return (ids if is_plain else ids.str.normalize("NFKC")).str.to_lowercase()


def _twice(parts: Sequence[pl.Series | Path], count: int) -> pl.Series:
    """Hashes of folded ids that several of so many have; a share of all is looked at in one go."""
    shares = np.uint64(max(-(-count // HASHES), 1))
    found = [np.zeros(0, np.uint64)]
    for share in np.arange(shares, dtype=np.uint64):
        hashes = (_folded(_read(part)).hash().to_numpy() for part in parts)
        ordered = np.concatenate([found[0], *(own[own % shares == share] for own in hashes)])
        ordered.sort()
        found.append(np.unique(ordered[1:][ordered[1:] == ordered[:-1]]))
    return pl.Series(np.concatenate(found))


def _twins(parts: Sequence[pl.Series | Path], count: int, table: str, column: str) -> Iterator[Oddity]:
    """Twins among the ids of parts; these are looked at only where two have the same hash, as in few books."""
    twice = _twice(parts, count)
    if not len(twice):
        return
    texts, alike_hashes = map(_read, parts), twice.implode()
    words = pl.concat([ids.filter(_folded(ids).hash().is_in(alike_hashes)) for ids in texts]).unique()
    named = pl.DataFrame({"word": words, "folded": _folded(words)}).sort("word")
    alike = named.group_by("folded").agg("word").filter(pl.col("word").list.len() > 1).sort("folded")
    for pair in alike["word"]:
        names = " and ".join(f"'{shown(word)}'" for word in pair)
        message = f"{column} {names} differ in case or spelling of characters alone"
        remedy = "write one id in one way; they are taken for different ones"
        yield Oddity(code="GM118", table=table, column=column, rows=NO_ROW, message=message, remedy=remedy)
