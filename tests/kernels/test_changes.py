"""Accounts whose status a block changed: picked out in their order, so many in a round."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from gpumargin_kernels import resident

BEFORE = np.array([0, 1, resident.NO_ACCOUNT, 2, resident.NEW_ACCOUNT, 0, 3, 1, 0], np.int8)
AFTER = np.array([1, 1, 0, 0, 0, 0, 2, 2, 0], np.int8)
CHANGED = [0, 3, 4, 6, 7]  # the row without an account is none of them


def rows(status: np.ndarray) -> Any:
    amounts = np.arange(len(status)) * 10.0
    both = {"initial": amounts, "maintenance": amounts}
    return SimpleNamespace(equity=amounts, margin=both, health=SimpleNamespace(status=status, excess=both))


@pytest.mark.parametrize("most", [2, 3, 5, 9])
def test_rounds_bring_every_changed_account_once_in_their_order(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "MOST_CHANGES", most)
    found: list[int] = []
    with jax.enable_x64(True):
        changes = resident.account_changes(np.float64(1), rows(AFTER), BEFORE)
        some = changes.first
        for skip in range(most, len(CHANGED) + most, most):
            place = np.asarray(some.place)
            used = place < len(BEFORE)
            found += place[used].tolist()
            assert np.asarray(some.after)[used].tolist() == AFTER[place[used]].tolist()
            assert np.asarray(some.amounts["equity"])[used].tolist() == (place[used] * 10.0).tolist()
            some = resident.picked(np.int64(skip), changes.status, BEFORE, changes.amounts)
    assert int(changes.totals.changed) == len(CHANGED)
    assert found == CHANGED
