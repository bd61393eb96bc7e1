"""The standard benchmark book as arrays: what the leg stage reads, and nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

NUM_EXPIRIES = 12
MOST_LEGS = 200
SKEW = 1.4
STANDARD = {"accounts": 1_000_000, "mean_legs": 11.0, "contracts": 2_000, "scenarios": 33, "seed": 1}


class Legs(NamedTuple):
    """A book in rows: `A` accounts, `L` legs, `M` contracts, `S` scenarios.

    Attributes:
      indptr: `[A + 1]` int64; legs of account a are `indptr[a]` to `indptr[a + 1]`, at least one.
      contract: `[L]` int32, strictly increasing inside an account.
      quantity: `[L]` signed contracts, never 0.
      table: `[M, S]` what one long contract gains in each scenario (leg stage), or is worth in it (expiry stage).
      value: `[M]` what one long contract is worth now.
      expiry: `[M]` int32 code, non-decreasing: contracts are listed expiry by expiry, so an account's legs are too.
      discount: `[M]` factor on an expiry's value where that is positive, in (0, 1]; one number per expiry.
    """

    indptr: npt.NDArray[np.int64]
    contract: npt.NDArray[np.int32]
    quantity: Floats
    table: Floats
    value: Floats
    expiry: npt.NDArray[np.int32]
    discount: Floats

    def as_dtype(self, dtype: npt.DTypeLike) -> Legs:
        """The same book with its numbers (not its indices) in another float type."""
        numbers = {name: getattr(self, name).astype(dtype) for name in ("quantity", "table", "value", "discount")}
        return self._replace(**numbers)


def make_legs(accounts: int, mean_legs: float, contracts: int, scenarios: int, seed: int) -> Legs:
    """A seeded random book; the same arguments give the same arrays.

    Legs per account are lognormal (median well under the mean, a long tail), cut to 1 to 200 and to the number of
    contracts; their total is the smallest reachable at or above `accounts * mean_legs`. `STANDARD` holds the arguments
    of the published benchmark: 11,000,000 legs, median 5, 0.3 % of the accounts at 200.

    Args:
      accounts: number of accounts, at least 1.
      mean_legs: legs per account, between 1 and the largest count that is allowed.
      contracts: number of listed contracts.
      scenarios: number of columns of the table.
      seed: of numpy's default generator.

    Returns:
      The arrays, numbers in float64.
    """
    rng = np.random.default_rng(seed)
    counts = _counts(rng, accounts, mean_legs, most=min(MOST_LEGS, contracts))
    indptr = np.concatenate([[0], np.cumsum(counts)])
    size = int(indptr[-1])
    sign = rng.choice([-1.0, 1.0], size=size)
    expiry = np.arange(contracts) * NUM_EXPIRIES // contracts
    value = rng.lognormal(0.0, 1.0, size=contracts)
    return Legs(
        indptr=indptr,
        contract=_distinct_contracts(rng, counts, contracts),
        quantity=sign * np.ceil(rng.lognormal(1.0, 1.0, size=size) * 10.0) / 10.0,
        table=value[:, None] * (1.0 + 0.3 * rng.standard_normal((contracts, scenarios))),
        value=value,
        expiry=expiry.astype(np.int32),
        discount=np.exp(-0.03 * (1.0 + expiry)),
    )


def _counts(rng: np.random.Generator, accounts: int, mean_legs: float, *, most: int) -> npt.NDArray[np.int64]:
    """Legs per account: one skewed draw, scaled by bisection until the cut counts have the mean that is asked for."""
    if not 1.0 <= mean_legs <= most:
        message = f"expected a mean between 1 and {most} legs per account; found {mean_legs}"
        raise ValueError(message)
    draw = rng.lognormal(0.0, SKEW, size=accounts)
    low, high = 0.0, 1e6
    for _ in range(60):
        middle = (low + high) / 2
        is_enough = np.clip(np.ceil(draw * middle), 1, most).mean() >= mean_legs
        low, high = (low, middle) if is_enough else (middle, high)
    return np.clip(np.ceil(draw * high), 1, most).astype(np.int64)


def _distinct_contracts(
    rng: np.random.Generator, counts: npt.NDArray[np.int64], contracts: int
) -> npt.NDArray[np.int32]:
    """Increasing contract numbers per account: n sorted draws below M - n + 1, the k-th moved up by k."""
    owner = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    draw = (rng.random(len(owner)) * (contracts - counts + 1)[owner]).astype(np.int64)
    in_order = np.sort(owner * contracts + draw) - owner * contracts
    return (in_order + rank).astype(np.int32)
