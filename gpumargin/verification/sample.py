"""Which accounts are recomputed."""

from __future__ import annotations

import secrets

import numpy as np

from gpumargin.verification.figures import Array


def new_seed() -> int:
    """A seed that nobody could foresee, so that nobody can spare the accounts that will be looked at."""
    return secrets.randbits(32)


def sample_of(accounts: int, size: int, seed: int) -> Array:
    """Rows of a random sample of accounts, ascending; all of them where there are no more than `size`."""
    if size >= accounts:
        return np.arange(accounts)
    return np.sort(np.random.default_rng(seed).choice(accounts, size, replace=False))
