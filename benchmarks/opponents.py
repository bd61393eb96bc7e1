"""The leg stage written by other means, as honest opponents: numba (fused, parallel) and scipy's sparse product.

All of them take the arrays of `workload.Legs`, compute in the type of its numbers and answer per account. The tests
hold them to a plain loop before anything is timed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from benchmarks.workload import Floats, Legs

# Accounts per parallel task: enough to pay for its start, few enough that one large account does not delay the end.
TASK_ACCOUNTS = 1_024
# Rows of one sparse product: its dense result stays in the second-level cache until the minimum is taken.
BLOCK_ACCOUNTS = 4_096
# What a C compiler's -O3 -ffp-contract=fast would do, and minima without NaN, which validated input does not hold.
RELAXED = {"contract", "nnan", "nsz"}


def worst_pnl_numba(legs: Legs) -> Floats:
    """Worst scenario P&L of each account: min over s of the sum of quantity * table[contract, s].

    Args:
      legs: the book; `table` holds gains. float64 and float32 run in their own type.

    Returns:
      `[A]` signed, negative = loss, 0 for an account without legs; not floored at 0.
    """
    out = np.empty(len(legs.indptr) - 1, legs.table.dtype)
    _worst_pnl(legs.indptr, legs.contract, legs.quantity, legs.table, out)
    return out


def worst_pnl_by_expiry_numba(legs: Legs) -> Floats:
    """Worst scenario P&L of each account with a discount on every expiry that is worth something in the scenario.

    Per account and expiry e, over the run of its legs: v = sum of quantity * table[contract, s] and m = sum of
    quantity * value[contract]. The account's answer is min over s of the sum over e of (v * d_e if v > 0 else v) - m.

    Args:
      legs: the book; `table` holds worths. Legs of one expiry of an account stand together.

    Returns:
      `[A]` signed, negative = loss, 0 for an account without legs.
    """
    out = np.empty(len(legs.indptr) - 1, legs.table.dtype)
    _worst_pnl_by_expiry(
        legs.indptr, legs.contract, legs.quantity, legs.table, legs.value, legs.expiry, legs.discount, out
    )
    return out


def worst_pnl_scipy(legs: Legs) -> Floats:
    """The answer of `worst_pnl_numba` by scipy's sparse times dense product, one thread, block by block of accounts."""
    out = np.empty(len(legs.indptr) - 1, legs.table.dtype)
    for first in range(0, len(out), BLOCK_ACCOUNTS):
        rows = slice(first, min(first + BLOCK_ACCOUNTS, len(out)))
        np.min(_block(legs, rows) @ legs.table, axis=1, out=out[rows])
    return out


def _block(legs: Legs, rows: slice) -> Any:
    """Some accounts as a sparse matrix over the same memory; row pointers in int32, or scipy copies the columns."""
    start, stop = legs.indptr[rows.start], legs.indptr[rows.stop]
    pointers = (legs.indptr[rows.start : rows.stop + 1] - start).astype(np.int32)
    shape = (rows.stop - rows.start, len(legs.table))
    return sparse.csr_array((legs.quantity[start:stop], legs.contract[start:stop], pointers), shape=shape, copy=False)


@numba.njit(parallel=True, fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def _worst_pnl(indptr: Any, contract: Any, quantity: Any, table: Any, out: Any) -> None:
    accounts = len(out)
    for task in numba.prange((accounts + TASK_ACCOUNTS - 1) // TASK_ACCOUNTS):
        total = np.empty(table.shape[1], table.dtype)
        for account in range(task * TASK_ACCOUNTS, min((task + 1) * TASK_ACCOUNTS, accounts)):
            total[:] = 0
            leg, end = indptr[account], indptr[account + 1]
            while leg + 3 < end:
                q, r, s, t = quantity[leg], quantity[leg + 1], quantity[leg + 2], quantity[leg + 3]
                a, b, c, d = contract[leg], contract[leg + 1], contract[leg + 2], contract[leg + 3]
                # Sums are loaded and stored once for four legs: a third less time than leg by leg.
                for column in range(len(total)):
                    total[column] += (
                        q * table[a, column] + r * table[b, column] + s * table[c, column] + t * table[d, column]
                    )
                leg += 4
            while leg < end:
                _add_row(total, quantity[leg], table, contract[leg])
                leg += 1
            out[account] = total.min()


@numba.njit(parallel=True, fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def _worst_pnl_by_expiry(
    indptr: Any, contract: Any, quantity: Any, table: Any, value: Any, expiry: Any, discount: Any, out: Any
) -> None:
    accounts = len(out)
    for task in numba.prange((accounts + TASK_ACCOUNTS - 1) // TASK_ACCOUNTS):
        total = np.empty(table.shape[1], table.dtype)
        run = np.empty(table.shape[1], table.dtype)
        for account in range(task * TASK_ACCOUNTS, min((task + 1) * TASK_ACCOUNTS, accounts)):
            total[:] = 0
            leg, end = indptr[account], indptr[account + 1]
            worth = table.dtype.type(0)
            while leg < end:
                first = contract[leg]
                _set_row(run, quantity[leg], table, first)
                worth += quantity[leg] * value[first]
                leg += 1
                while leg < end and expiry[contract[leg]] == expiry[first]:
                    _add_row(run, quantity[leg], table, contract[leg])
                    worth += quantity[leg] * value[contract[leg]]
                    leg += 1
                _add_discounted(total, run, discount[first])
            out[account] = total.min() - worth


@numba.njit(inline="always", fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def _set_row(total: Any, quantity: Any, table: Any, row: Any) -> None:
    for scenario in range(len(total)):
        total[scenario] = quantity * table[row, scenario]


@numba.njit(inline="always", fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def _add_row(total: Any, quantity: Any, table: Any, row: Any) -> None:
    for scenario in range(len(total)):
        total[scenario] += quantity * table[row, scenario]


@numba.njit(inline="always", fastmath=RELAXED)  # type: ignore[untyped-decorator, unused-ignore]
def _add_discounted(total: Any, run: Any, factor: Any) -> None:
    for scenario in range(len(total)):
        # A factor in (0, 1] makes the smaller of the two the discounted gain and the full loss, without a branch.
        total[scenario] += min(run[scenario], factor * run[scenario])
