"""Tables of accounts on disk: compact columns in, Parquet out, strings made only a slice at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from gpumargin.synth.contracts import Bools, Contracts, Floats, Ints
from gpumargin.synth.funding import Funding, Purse
from gpumargin.synth.holdings import Legs, Rows

_SLICE = 1_000_000
POOLS = ("cross", "isolated-1")
_MIN_DIGITS = 7


@dataclass(frozen=True)
class Holdings:
    """Columns of `positions`: account index, isolated or not, contract index, lots, entry price, funding due."""

    account: Ints
    isolated: Bools
    contract: Ints
    lots: Ints
    entry: Floats
    unsettled: Floats


@dataclass(frozen=True)
class Balances:
    """Columns of `balances`: account index, isolated or not, column of the `Purse`, amount."""

    account: Ints
    isolated: Bools
    asset: Ints
    amount: Floats


@dataclass(frozen=True)
class Members:
    """Columns of `accounts`: account index, isolated or not."""

    account: Ints
    isolated: Bools


T = TypeVar("T", Holdings, Balances, Members)


def holdings_of(rows: Rows, legs: Legs, funding: Funding) -> Holdings:
    """One block's positions in order of margin account and contract."""
    account, isolated = rows.account[legs.row], rows.isolated[legs.row]
    return Holdings(account, isolated, legs.contract, legs.lots, funding.entry, funding.unsettled)


def balances_of(rows: Rows, funding: Funding) -> Balances:
    """One block's balances other than 0, in order of margin account and asset."""
    row, asset = np.nonzero(funding.amounts)
    return Balances(rows.account[row], rows.isolated[row], asset, funding.amounts[row, asset])


def joined(parts: list[T]) -> T:
    """The parts one after the other."""
    columns = [np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(parts[0])]
    return type(parts[0])(*columns)


def taken(table: T, index: Ints | slice) -> T:
    """The rows at `index`."""
    return type(table)(*(getattr(table, field.name)[index] for field in fields(table)))


@dataclass(frozen=True)
class Writer:
    """Writes the tables of accounts of one book: `folder`, number of accounts, contracts and purse give the strings."""

    folder: Path
    accounts: int
    contracts: Contracts
    purse: Purse

    def positions(self, holdings: Holdings, *, part: int) -> None:
        """Writes `positions/part-<part>.parquet`."""
        path = self.folder / "positions" / f"part-{part:05d}.parquet"
        path.parent.mkdir(exist_ok=True)
        _write(path, (self._positions(piece) for piece in _slices(holdings)))

    def balances(self, balances: Balances) -> None:
        """Writes `balances.parquet`."""
        _write(self.folder / "balances.parquet", (self._balances(piece) for piece in _slices(balances)))

    def members(self, members: Members, owner: Ints) -> None:
        """Writes `accounts.parquet`; `owner` is the owner index of each account."""
        path = self.folder / "accounts.parquet"
        _write(path, (self._members(piece, owner) for piece in _slices(members)))

    def fund(self, amount: float) -> None:
        """Writes `funds.parquet` with an insurance fund of `amount` in the first settlement asset."""
        frame = pl.DataFrame({"name": ["insurance"], "asset": [self.purse.names[0]], "amount": [amount]})
        frame.write_parquet(self.folder / "funds.parquet")

    def _positions(self, piece: Holdings) -> pa.Table:
        ids = self.contracts.ids.to_arrow()
        columns = {
            **self._keys(piece.account, piece.isolated),
            "instrument_id": pa.DictionaryArray.from_arrays(piece.contract.astype(np.int32), _plain(ids)),
            "quantity": piece.lots / self.contracts.lots_per_unit[piece.contract],
            "entry_price": piece.entry,
            "unsettled": piece.unsettled,
        }
        return pa.table(columns)

    def _balances(self, piece: Balances) -> pa.Table:
        assets = pa.DictionaryArray.from_arrays(piece.asset.astype(np.int32), self.purse.names)
        is_collateral = piece.asset != self.purse.spare
        columns = {"asset": assets, "amount": piece.amount, "is_collateral": is_collateral}
        return pa.table(self._keys(piece.account, piece.isolated) | columns)

    def _members(self, piece: Members, owner: Ints) -> pa.Table:
        owners = _names("owner", owner[piece.account], width=self._width)
        return pa.table(self._keys(piece.account, piece.isolated) | {"owner_id": owners})

    def _keys(self, account: Ints, isolated: Bools) -> dict[str, pa.Array]:
        pool = pa.DictionaryArray.from_arrays(isolated.astype(np.int32), list(POOLS))
        return {"account_id": _names("acct", account, width=self._width), "pool": pool}

    @property
    def _width(self) -> int:
        return max(_MIN_DIGITS, len(str(self.accounts)))


def _write(path: Path, pieces: Iterator[pa.Table]) -> None:
    """One file of row groups; dictionaries of strings differ from piece to piece, so Parquet gets plain strings."""
    first = next(pieces)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for piece in pieces:
            writer.write_table(piece)


def _slices(table: T) -> Iterator[T]:
    """The table in slices of bounded size; one empty slice for an empty table, so that its file has a schema."""
    for start in range(0, max(table.account.size, 1), _SLICE):
        yield taken(table, slice(start, start + _SLICE))


def _names(prefix: str, index: Ints, *, width: int) -> pa.DictionaryArray:
    """Ids like acct-0000001 of indexes from 0, as a dictionary of those that occur, in order."""
    values, codes = _codes(index)
    ids = [f"{prefix}-{value + 1:0{width}d}" for value in values.tolist()]
    return pa.DictionaryArray.from_arrays(codes.astype(np.int32), pa.array(ids, pa.string()))


def _codes(index: Ints) -> tuple[Ints, Ints]:
    """Distinct values and the place of each: without sorting, since indexes are dense."""
    present = np.zeros(int(index.max(initial=-1)) + 1, dtype=np.bool_)
    present[index] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[index]


def _plain(ids: pa.Array) -> pa.Array:
    """Strings with 32-bit offsets, the type every reader has; other ids as they are."""
    return ids.cast(pa.string()) if pa.types.is_large_string(ids.type) or ids.type == pa.string_view() else ids
