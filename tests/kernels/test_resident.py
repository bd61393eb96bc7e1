"""Claims about rows replaced in place, holders found, and exact sums of minor units."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpumargin_kernels.health import STATUSES
from gpumargin_kernels.records import Legs, UnitSlots
from gpumargin_kernels.resident import Totals, Update, capacity, holders, renumbered, replaced, totals

LARGE = 2**62 - 1
MOST = 64


@jax.jit
def totals_of(status: jax.Array, values: jax.Array, has_changed: jax.Array) -> Totals:
    return totals(status, {"a": values, "b": -values}, has_changed)


@given(st.lists(st.sampled_from([LARGE, -LARGE, 2**53, -1, 0, 1]), min_size=1, max_size=MOST))
def test_totals_are_exact_where_int64_would_wrap(values: list[int]) -> None:
    whole, status = np.zeros(MOST), np.full(MOST, -1, np.int8)  # -1 is no status, as in spare rows
    whole[: len(values)] = values
    status[: len(values)] = np.arange(len(values)) % 3 - 1
    with jax.enable_x64(True):
        found = jax.tree.map(np.asarray, totals_of(status, whole, status > 0))
    sums = {name: (int(sums.high) << 32) + int(sums.low) for name, sums in found.sums.items()}
    assert sums == {"a": sum(int(x) for x in whole.tolist()), "b": -sum(int(x) for x in whole.tolist())}
    assert found.largest == np.abs(whole).max()
    assert found.counts.tolist() == [int((status == code).sum()) for code in range(len(STATUSES))]
    assert found.changed == (status > 0).sum()


def test_an_update_replaces_its_rows_of_every_group_and_drops_padding() -> None:
    with jax.enable_x64(True):
        first = {"amount": jnp.arange(6.0).reshape(3, 2), "code": jnp.zeros(3, jnp.int32)}
        second = (jnp.zeros(4, bool),)
        room = capacity(3)
        ints = np.full(3 * room, 10**6, np.int32)
        floats, flags = np.zeros(2 * room), np.zeros(room, bool)
        ints[0], floats[:2], ints[room] = 2, (7.0, 8.0), 5  # row 2 of the first group, and its code
        ints[2 * room], ints[2 * room + 1], flags[:2] = 0, 3, True  # rows 0 and 3 of the second
        found = replaced((first, second), Update(jnp.asarray(ints), jnp.asarray(floats), jnp.asarray(flags)))
    assert found[0]["amount"].tolist() == [[0.0, 1.0], [2.0, 3.0], [7.0, 8.0]]
    assert found[0]["code"].tolist() == [0, 0, 5]
    assert found[1][0].tolist() == [True, False, False, True]


def test_an_account_holds_a_contract_if_a_row_that_it_has_does() -> None:
    legs = Legs(
        unit=jnp.zeros(4, jnp.int32),
        contract=jnp.array([[0, 3], [1, 3], [2, 1], [1, 3]]),
        quantity=jnp.array([[1.0, 0.0], [2.0, 0.0], [1.0, -1.0], [0.0, 0.0]]),
        inputs={},
    )
    slots = UnitSlots(jnp.array([[0, 1], [2, 0], [3, 1]]), jnp.array([[True, True], [True, False], [True, False]]))
    found, count = holders(jnp.array([False, True, False, False]), (legs,), (slots,))
    assert found.tolist() == [True, True, False]
    assert int(count) == 2


def test_contracts_are_renumbered_padding_included() -> None:
    table = jnp.array([1, 3, 5], jnp.int32)
    assert renumbered(table, {"a": jnp.array([[2, 0], [1, 2]])})["a"].tolist() == [[5, 1], [3, 5]]
