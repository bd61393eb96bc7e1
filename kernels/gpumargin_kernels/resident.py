"""A book that stays on the device between blocks: rows replaced in place, contracts renumbered, changes picked out."""

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gpumargin_kernels._buckets import barrier
from gpumargin_kernels._select import select
from gpumargin_kernels.account import AccountRows
from gpumargin_kernels.health import STATUSES
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.margin import ContractTable, PartResult, part_margin
from gpumargin_kernels.model import Model
from gpumargin_kernels.records import Assets, Book, Legs, UnitMarket, UnitSlots
from gpumargin_kernels.steps import RowSteps
from gpumargin_kernels.tally import RowStage

NO_ACCOUNT = -2  # status of a row that holds no account
NEW_ACCOUNT = -1  # status of an account that no block has margined yet
MOST_CHANGES = 4096  # changed accounts that one download holds
_SHARE, _LEAST = 64, 64
_HALF_BITS = 32
MOST_ACCOUNTS = 1 << 21  # of one shard; sums would be exact up to 2^31

Groups = tuple[Any, ...]


def capacity(rows: int) -> int:
    """Rows of an array of `rows` that one update can replace: fixed by the shape, so that blocks share a program."""
    return max(_LEAST, rows // _SHARE)


class Update(NamedTuple):
    """New rows of every group, laid end to end by type.

    In the order of groups stand in `ints` the rows that each replaces, `capacity` of them, then in the buffer of its
    type every leaf's rows; a row beyond the last is padding and dropped.
    """

    ints: Leaf  # [I] int32
    floats: Leaf  # [F]
    flags: Leaf  # [B] bool


def replaced(groups: Groups, update: Update) -> Groups:
    """Groups of arrays with some of their rows replaced.

    Args:
      groups: records of `[R_g, ...]` arrays, of int32, floating and bool; R_g is the same within a group.
      update: new rows; no row of a group stands in it twice.
    """
    buffers = {"i": jnp.asarray(update.ints), "f": jnp.asarray(update.floats), "b": jnp.asarray(update.flags)}
    taken = dict.fromkeys(buffers, 0)

    def following(kind: str, size: int) -> Array:
        taken[kind] += size
        return buffers[kind][taken[kind] - size : taken[kind]]

    def with_rows(group: Any) -> Any:
        rows = jax.tree.leaves(group)[0].shape[0]
        count = capacity(rows)
        index = following("i", count)

        def leaf(x: Array) -> Array:
            new = following(x.dtype.kind, count * math.prod(x.shape[1:]))
            return x.at[index].set(new.reshape(count, *x.shape[1:]).astype(x.dtype), mode="drop", unique_indices=True)

        return jax.tree.map(leaf, group)

    return tuple(with_rows(group) for group in groups)


def renumbered(table: Array, tree: Any) -> Any:
    """Codes of int32 arrays by their new number, `table[code]`; padding's included."""
    return jax.tree.map(lambda codes: table[codes], tree)


def holders(contract: Array, legs: tuple[Legs, ...], slots: tuple[UnitSlots, ...]) -> tuple[Array, Array]:
    """Which accounts hold one of some contracts.

    Args:
      contract: `[M]` bool, the contracts asked for.
      legs: buckets of `[R_b, L_b]`, rows numbered as they lie.
      slots: buckets of `[A_b, L_b]`, accounts numbered as they lie.

    Returns:
      `[A]` bool, and how many they are.
    """
    rows = jnp.concatenate([jnp.any(contract[b.contract] & (b.quantity != 0), axis=1) for b in legs])
    found = jnp.concatenate([jnp.any(rows[b.row] & b.is_held, axis=1) for b in slots])
    return found, jnp.sum(found)


class MinorSum(NamedTuple):
    """Exact sum of whole minor units in two parts, neither of which can wrap: high * 2^32 + low."""

    high: Leaf  # [] int64
    low: Leaf  # [] int64


class Totals(NamedTuple):
    """What the accounts of one shard come to, exactly."""

    counts: Leaf  # [statuses] int64
    sums: dict[str, MinorSum]
    largest: Leaf  # [] largest amount in minor units: what does not fit int64 must not be summed
    changed: Leaf  # [] int64 accounts whose status changed


class Picked(NamedTuple):
    """Some of the accounts of one shard whose status changed, in the order of their rows."""

    place: Leaf  # [C] int32 rows, A = none
    before: Leaf  # [C] int8
    after: Leaf  # [C] int8
    amounts: dict[str, Leaf]  # [C] as in `Changes`


class Changes(NamedTuple):
    """What a block changed in one shard, and its exact totals."""

    status: Leaf  # [A] int8, `NO_ACCOUNT` where there is none
    totals: Totals
    amounts: dict[str, Leaf]  # [A] equity and excess by margin type
    first: Picked  # at most `MOST_CHANGES`; `picked` gets the others


def _minor(values: Array, is_account: Array, scale: Array, *, up: bool) -> Array:
    """Whole minor units as floating numbers, each rounded once; 0 where the value is not finite."""
    known = jnp.where(is_account & jnp.isfinite(values), values, 0.0).astype(jnp.float64) * scale
    return jnp.ceil(known) if up else jnp.floor(known)


def _halves(whole: Array) -> MinorSum:
    """Whole numbers below 2^62 in two parts, `[A]`; neither of fewer than 2^31 numbers adds up to more than int64."""
    minor = whole.astype(jnp.int64)
    return MinorSum(minor >> _HALF_BITS, minor & ((1 << _HALF_BITS) - 1))


def _minors(accounts: AccountRows, is_account: Array, scale: Array) -> dict[str, Array]:
    equity = _minor(jnp.asarray(accounts.equity), is_account, scale, up=False)
    margins = {
        f"{name}_margin": _minor(jnp.asarray(accounts.margin[name]), is_account, scale, up=True)
        for name in ("initial", "maintenance")
    }
    return {"equity": equity, "negative_equity": jnp.minimum(equity, 0), **margins}


def totals(status: Array, minor: dict[str, Array], has_changed: Array) -> Totals:
    """Statuses counted and amounts added up.

    Args:
      status: `[A]` codes; others than those of `STATUSES` are not counted.
      minor: `[A]` float64 each, whole numbers below 2^62; A below 2^31.
      has_changed: `[A]` bool.

    All are folded in one reduction of whole numbers, exact in any order, which reads every column once: of fractions
    it took twice as long on a CPU, each column apart three times (measured).
    """
    flags = [*(status == code for code in range(len(STATUSES))), has_changed]
    halves = [half for whole in minor.values() for half in _halves(whole)]
    largest = reduce(jnp.maximum, map(jnp.abs, minor.values()))
    columns = [largest, *(flag.astype(jnp.int32) for flag in flags), *halves]

    def fold(left: Sequence[Array], right: Sequence[Array]) -> tuple[Array, ...]:
        return jnp.maximum(left[0], right[0]), *(jnp.add(x, y) for x, y in zip(left[1:], right[1:], strict=True))

    most, *sums = lax.reduce(columns, [column.dtype.type(0) for column in columns], fold, (0,))
    *counts, changed = (count.astype(jnp.int64) for count in sums[: len(flags)])
    found = iter(sums[len(flags) :])
    return Totals(jnp.stack(counts), {name: MinorSum(next(found), next(found)) for name in minor}, most, changed)


def picked(skip: Array, status: Array, before: Array, amounts: Mapping[str, Array]) -> Picked:
    """The next `MOST_CHANGES` accounts whose status is another than before.

    Args:
      skip: `[]` changed accounts to pass over.
      status: `[A]` int8, as in `Changes`.
      before: `[A]` int8, status code after the block before, `NEW_ACCOUNT` or `NO_ACCOUNT`.
      amounts: `[A]` each, to bring along.
    """
    size = before.shape[0]
    rank = skip.astype(jnp.int32) + 1 + jnp.arange(min(MOST_CHANGES, size), dtype=jnp.int32)
    place = select(status != before, rank)
    at = jnp.minimum(place, size - 1)
    return Picked(place, before[at], status[at], {name: values[at] for name, values in amounts.items()})


def account_changes(scale: Array, accounts: AccountRows, before: Array) -> Changes:
    """Accounts whose status differs from what it was, compacted, and totals over all accounts.

    Args:
      scale: `[]` minor units per accounting unit, 10^decimals.
      accounts: result, `[A]`.
      before: as in `picked`.
    """
    is_account = before != NO_ACCOUNT
    status = jnp.where(is_account, jnp.asarray(accounts.health.status), NO_ACCOUNT).astype(jnp.int8)
    amounts: dict[str, Array] = {
        "equity": jnp.asarray(accounts.equity),
        **{f"{name}_excess": jnp.asarray(accounts.health.excess[name]) for name in ("initial", "maintenance")},
    }
    return Changes(
        status=status,
        totals=totals(status, _minors(accounts, is_account, scale), status != before),
        amounts=dict(amounts),
        first=picked(jnp.int32(0), status, before, amounts),
    )


def block_margin(
    table: ContractTable,
    market: UnitMarket,
    assets: Assets,
    model: Model,
    zero: Array,
    scale: Array,
    book: Book,
    before: Array,
    *,
    chunk: int | None,
    rows: RowStage,
    steps: RowSteps,
    is_whole: bool,
) -> tuple[Changes, PartResult | None]:
    """Margin and health of every account of one shard, and what of it changed.

    Args:
      table: as in `part_margin`, like `market`, `assets`, `model`, `zero`, `book`, `chunk` and `rows`.
      market: `[U]`.
      assets: `[C]`.
      model: bound to the units and assets of the book.
      zero: `[]`.
      scale: as in `account_changes`, like `before`.
      book: whole accounts in padded buckets.
      before: `[A]`.
      chunk: rows handled together.
      rows: what sums over the legs of rows.
      steps: what goes through the rows of accounts.
      is_whole: whether every number of units and accounts is computed and returned, or only what `Changes` needs.
    """
    result = barrier(
        part_margin(table, market, assets, model, book, zero, chunk=chunk, rows=rows, steps=steps, is_whole=is_whole)
    )
    return account_changes(scale, result.accounts, before), result if is_whole else None
