"""Flags by rank: the places that `nonzero` finds, in a 32-bit program and in a 64-bit one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpumargin_kernels._select import select


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 1000])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("is_wide", [False, True])
def test_every_rank_is_found_and_beyond_the_last_there_is_none(count: int, share: float, is_wide: bool) -> None:
    flags = np.random.default_rng(count).random(count) < share
    wanted = np.append(np.flatnonzero(flags), [count, count])
    with jax.enable_x64(is_wide):
        found = jax.jit(select)(flags, jnp.arange(1, len(wanted) + 1, dtype=jnp.int32))
    assert found.dtype == np.int32
    assert found.tolist() == wanted.tolist()


def test_all_bits_of_a_word_and_ranks_in_any_order() -> None:
    flags = np.zeros(96, bool)
    flags[32:64] = True
    rank = np.random.default_rng(1).permutation(32).astype(np.int32) + 1
    assert select(jnp.asarray(flags), jnp.asarray(rank)).tolist() == (rank + 31).tolist()
