"""What a block changed: statuses, totals, and result columns on request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import polars as pl
import pyarrow as pa

from gpumargin.device import block_program, in_precision
from gpumargin.errors import InternalError
from gpumargin.native.choice import LegLoop
from gpumargin.pack.columns import Ints
from gpumargin.resident.lane import Lane
from gpumargin.results import account_columns, coded_words
from gpumargin.totals import AccountTotals
from gpumargin_kernels.health import STATUSES
from gpumargin_kernels.margin import PartResult
from gpumargin_kernels.resident import MOST_CHANGES, Changes, Picked, Totals, block_margin, picked

_MINOR_LIMIT = 2.0**62
_AMOUNTS = ("equity", "initial_excess", "maintenance_excess")


@dataclass(frozen=True)
class Change:
    """Result of one recalculation.

    Attributes:
      status_changes: one row per account whose status differs from what the recalculation before said, by account and
        pool: `account_id`, `pool`, `model`, `before` (null = it is new), `after`, `equity`, `initial_excess`,
        `maintenance_excess` in the accounting asset of its model. Of the first recalculation all accounts.
      totals: by accounting asset, as in `summary.json`: `accounts`, `status` (counts), `totals` (exact decimals).
      seconds: by stage.
      as_of: instant of valuation.
      columns: the result columns that were asked for, of all accounts by account and pool; None = none.
    """

    status_changes: pl.DataFrame
    totals: Mapping[str, Any]
    seconds: Mapping[str, float]
    as_of: datetime
    columns: pl.DataFrame | None = None

    @property
    def accounts(self) -> pl.DataFrame:
        """The columns asked for with the names of their accounts.

        Raises:
          ValueError: none were.
        """
        if self.columns is None:
            message = 'no columns were asked for: recalculate(columns=("equity", ...)), or columns="all"'
            raise ValueError(message)
        return self.columns


class _Changed(NamedTuple):
    """Changed accounts of one part, `[n]` each."""

    account: Ints
    before: Ints
    after: Ints
    amounts: dict[str, np.ndarray]


@dataclass
class Gathered:
    """What the parts of one lane have brought down."""

    totals: AccountTotals
    changed: list[_Changed] = field(default_factory=list)
    accounts: list[Ints] = field(default_factory=list)
    columns: list[dict[str, pa.Array]] = field(default_factory=list)


def margined(lane: Lane, wanted: Collection[str] | None, totals: AccountTotals) -> Gathered:
    """Margins every account of a lane, part by part, and keeps what changed.

    Args:
      lane: with its contracts at today's prices.
      wanted: result columns of all accounts to bring down; None = all there are.
      totals: to add to.
    """
    found = Gathered(totals)
    has_columns = wanted is None or len(wanted) > 0
    for part, (changes, result) in _computed(lane, has_columns=has_columns):
        found.changed += list(_changed(lane, part, changes))
        _add_totals(jax.tree.map(np.asarray, changes.totals), totals)
        lane.store.parts.set_status(part, changes.status)
        if has_columns:
            assert result is not None  # noqa: S101  it was asked for
            _add_columns(lane, part, result, wanted, found)
    return found


@cache
def _margin_of(loop: LegLoop, *, is_whole: bool) -> Callable[..., tuple[Changes, PartResult | None]]:
    """The kernel of a block; one function for the same arguments, so that it is compiled once."""
    return partial(block_margin, chunk=loop.chunk, rows=loop.rows, steps=loop.steps, is_whole=is_whole)


def _computed(lane: Lane, *, has_columns: bool) -> Iterator[tuple[int, tuple[Changes, PartResult | None]]]:
    """Results of every part; the next is started before one is handed over, so that devices do not wait."""
    engine, parts = lane.engine, len(lane.store.parts.groups)
    # Where XLA sums the legs, what is returned may change how it contracts products: there it is always the same.
    function = _margin_of(engine.leg_loop, is_whole=has_columns or engine.leg_loop.name == "xla")
    program = block_program(function, engine.mesh, shared=6)
    scale = np.float64(10.0**lane.naming.decimals)

    def start(part: int) -> tuple[Changes, PartResult | None]:
        book = in_precision(lane.store.parts.book(part), engine.settings.dtype)
        found: tuple[Changes, PartResult | None] = program(*engine.shared, scale, book, lane.store.parts.status(part))
        return found

    running = start(0) if parts else None
    for part in range(parts):
        following = start(part + 1) if part + 1 < parts else None
        assert running is not None  # noqa: S101  started the round before
        yield part, running
        running = following


def _changed(lane: Lane, part: int, changes: Changes) -> Iterator[_Changed]:
    """Changed accounts of a part, a download at a time."""
    yield from _compacted(lane, part, changes.first)
    following = block_program(picked, lane.engine.mesh, shared=1)
    before = lane.store.parts.status(part)
    for skip in range(MOST_CHANGES, int(np.asarray(changes.totals.changed).max()), MOST_CHANGES):
        yield from _compacted(lane, part, following(np.int64(skip), changes.status, before, changes.amounts))


def _compacted(lane: Lane, part: int, some: Picked) -> Iterator[_Changed]:
    host = jax.tree.map(np.asarray, some)
    for device, place in enumerate(host.place):
        at = lane.store.at[part * lane.store.parts.devices + device]
        used = place < len(at)
        if used.any():
            amounts = {name: values[device][used] for name, values in host.amounts.items()}
            yield _Changed(
                at[place[used]].astype(np.int64), host.before[device][used], host.after[device][used], amounts
            )


def _add_totals(host: Totals, totals: AccountTotals) -> None:
    """Adds a part's exact sums.

    Raises:
      InternalError: GM117, an amount does not fit int64.
    """
    if float(host.largest.max()) >= _MINOR_LIMIT:
        message = (
            f"GM117: an amount of {float(host.largest.max()):g} minor units does not fit int64; give the accounting "
            "asset fewer decimals in the assets table"
        )
        raise InternalError(message)
    counts = host.counts.sum(axis=0).tolist()
    totals.accounts += sum(counts)
    totals.status.update({word: n for word, n in zip(STATUSES, counts, strict=True) if n})
    for name, minor in host.sums.items():
        totals.minor[f"{name}_minor"] += (sum(minor.high.tolist()) << 32) + sum(minor.low.tolist())


def _add_columns(lane: Lane, part: int, result: PartResult, wanted: Collection[str] | None, found: Gathered) -> None:
    """Brings down columns of every account of a part."""
    for device in range(lane.store.parts.devices):
        at = lane.store.at[part * lane.store.parts.devices + device]
        rows = np.flatnonzero(at >= 0)
        accounts = at[rows].astype(np.int64)

        def of_accounts(leaf: Any, device: int = device, rows: Ints = rows) -> np.ndarray:
            return np.asarray(np.asarray(leaf.addressable_data(device))[0][rows])

        made = account_columns(result.accounts, lane.naming, of_accounts)
        counts = pa.array(lane.num_positions[accounts].astype(np.int64))
        made["num_positions"] = partial(lambda column: column, counts)
        names = made if wanted is None else [name for name in made if name in wanted]
        found.accounts.append(accounts)
        found.columns.append({name: made[name]() for name in names})


def status_changes(lanes: list[tuple[Lane, Gathered]]) -> pl.DataFrame:
    """The changed accounts of all lanes as one frame."""
    frames = [_changed_frame(lane, found.changed) for lane, found in lanes if found.changed]
    words = ("account_id", "pool", "model", "before", "after")
    empty = [*((name, pl.String) for name in words), *((name, pl.Float64) for name in _AMOUNTS)]
    joined = pl.concat(frames) if frames else pl.DataFrame(schema=empty)
    return joined.sort("account_id", "pool")


def _changed_frame(lane: Lane, parts: list[_Changed]) -> pl.DataFrame:
    account, before, after = (np.concatenate(codes) for codes in zip(*(part[:3] for part in parts), strict=True))
    amounts = {name: np.concatenate([part.amounts[name] for part in parts]) for name in _AMOUNTS}
    columns = {
        **_names(lane, account),
        "model": pa.repeat(pa.scalar(lane.naming.model, pa.string()), len(account)),
        "before": _statuses(before),
        "after": _statuses(after),
        **{name: values.astype(np.float64) for name, values in amounts.items()},
    }
    return pl.DataFrame(pl.from_arrow(pa.table(columns)))


def _statuses(codes: np.ndarray) -> pa.Array:
    """Words of statuses; a negative code, that of an account that had none, is null."""
    return coded_words(codes, STATUSES).dictionary_decode()


def _names(lane: Lane, accounts: Ints) -> dict[str, pa.Array]:
    rows = pa.array(accounts)
    return {"account_id": lane.ids.account_ids.take(rows), "pool": lane.ids.pools.take(rows).dictionary_decode()}


def wanted_columns(lanes: list[tuple[Lane, Gathered]]) -> pl.DataFrame | None:
    """The columns asked for, in the order of a run: by model, then account and pool."""
    frames = [_column_frame(lane, found) for lane, found in lanes if found.columns]
    return pl.concat(frames, how="diagonal") if frames else None


def _column_frame(lane: Lane, found: Gathered) -> pl.DataFrame:
    accounts = np.concatenate(found.accounts)
    table = pa.concat_tables([pa.table(columns) for columns in found.columns])
    rank = np.empty(len(lane.ids), np.int64)
    rank[lane.ids.order()] = np.arange(len(lane.ids))
    order = np.argsort(rank[accounts])
    whole = pa.table({**_names(lane, accounts), **{name: table[name] for name in table.column_names}})
    return pl.DataFrame(pl.from_arrow(whole.take(pa.array(order))))
