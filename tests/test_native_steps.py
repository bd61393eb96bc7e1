"""Steps over rows in one native loop: the bits of the XLA path, and whatever has no translation takes that path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpumargin.catalogue import load_model, model_dates
from gpumargin.clock import Clock
from gpumargin.native import steps as native_steps
from gpumargin.native.lowering import UnsupportedError
from gpumargin.native.steps import native_row_steps
from gpumargin.prepare import Options, prepare
from gpumargin.tables import read_book
from gpumargin_kernels._buckets import repeat
from gpumargin_kernels.records import Buckets
from gpumargin_kernels.steps import RowStep, row_steps
from tests.asserts import assert_same_trees
from tests.sampled import rest_slow
from tests.whole_book import accepted, whole_book

if TYPE_CHECKING:
    from jax import Array

    from gpumargin_kernels.steps import RowSteps
    from tests.whole_book import Tables

# Models whose accounts XLA finishes: balances look up brackets or several columns, or a matrix joins units.
BY_XLA = {
    "binance-pm",
    "bybit-uta",
    "bybit-uta-cross",
    "correlated-pm",
    "mango-v4",
    "okx-pm",
    "reya",
    "simm-like",
    "tims",
}
ROWS, UNITS, MANY = 500, 7, 10_000


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return whole_book(tmp_path_factory.mktemp("steps") / "book", accounts=200)


def found_by(run: RowSteps, made: Any) -> Any:
    """What steps find, in a program of their own."""
    with jax.enable_x64(True):
        given = jax.tree.map(jnp.asarray, [(s.shared, s.buckets, s.at) for s in made])

        def program(given: Any, zero: Array) -> Any:
            own = [s._replace(shared=a, buckets=b, at=c) for s, (a, b, c) in zip(made, given, strict=True)]
            return run(tuple(own), zero)

        return jax.jit(program)(given, jnp.zeros(()))


def spread(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of all sizes, some of them 0, -0, NaN and infinite."""
    odd = rng.choice([0.0, -0.0, np.nan, np.inf, -np.inf], shape)
    return np.where(rng.random(shape) < 0.1, odd, rng.standard_normal(shape) * 10.0 ** rng.integers(-8, 9, shape))


def slots(rng: np.random.Generator, widths: tuple[int, ...], units: int) -> tuple[Buckets[Any], tuple[np.ndarray, ...]]:
    """Rows with slots in buckets of these widths, in random order, and where those of each bucket stand."""
    order = rng.permutation(ROWS).astype(np.int32)
    at = np.array_split(order, len(widths))
    place = np.empty(ROWS, np.int32)
    place[order] = np.arange(ROWS)
    buckets = [
        {
            "unit": rng.integers(0, units, (len(rows), width)).astype(np.int32),
            "is_held": rng.random((len(rows), width)) < 0.7,
            "amount": spread(rng, (len(rows), width)),
        }
        for rows, width in zip(at, widths, strict=True)
    ]
    return Buckets(tuple(buckets), place), tuple(at)


def summed(price: Array, unread: Array, found: dict[str, Any], rows: dict[str, Array], zero: Array) -> dict[str, Array]:
    """A first step: a sum over slots, how many are held, and whether all are."""
    del unread, found

    def add(slot: Array, total: Array) -> Array:
        own = price[rows["unit"][:, slot]] * rows["amount"][:, slot] * (zero + 1)
        return total + jnp.where(rows["is_held"][:, slot], own, 0)

    count = rows["unit"].shape[0]
    held = jnp.sum(rows["is_held"], axis=1)
    sums = repeat(rows["unit"].shape[1], add, jnp.broadcast_to(zero, (count,)))
    return {"sum": sums, "held": held.astype(jnp.int32), "is_full": held == rows["unit"].shape[1]}


def weighed(weight: Array, found: dict[str, Any], rows: dict[str, Array], zero: Array) -> Array:
    """A second step, over buckets of its own: both columns of each slot's unit, by what the first found."""

    def add(slot: Array, total: Array) -> Array:
        own = weight[rows["unit"][:, slot]] * found["first"]["sum"][:, None] * (zero + 1)
        return total + jnp.where(rows["is_held"][:, slot][:, None], own, 0)

    return repeat(rows["unit"].shape[1], add, jnp.broadcast_to(zero, (rows["unit"].shape[0], 2)))


def finished(found: dict[str, Any], rows: dict[str, Array], zero: Array) -> dict[str, Array]:
    """A last step: results of several types and widths."""
    del zero
    ratio = found["first"]["sum"] / rows["limit"]
    is_known = jnp.isfinite(ratio) & ~found["first"]["is_full"]
    nothing = jnp.zeros((ratio.shape[0], 0))
    return {"ratio": ratio, "is_known": is_known, "code": jnp.where(is_known, 3, -1).astype(jnp.int8)} | {
        "held": found["first"]["held"],
        "pair": found["second"],
        "nothing": nothing,
    }


def three_steps(seed: int, *, is_laid: bool = False, units: int = UNITS) -> tuple[RowStep, ...]:
    """Steps over buckets of their own; `is_laid`: rows are numbered as the buckets of the first lie."""
    rng = np.random.default_rng(seed)
    (first, _), (second, at) = slots(rng, (2, 4), units), slots(rng, (3, 2, 8), units)
    first = first._replace(place=None) if is_laid else first
    last = Buckets(({"limit": spread(rng, (ROWS,))},), None)
    return (
        RowStep("first", summed, (spread(rng, (units,)), np.ones(3)), first),
        RowStep("second", weighed, (spread(rng, (units, 2)),), second, at),
        RowStep("last", finished, (), last),
    )


@pytest.mark.parametrize("units", [UNITS, MANY], ids=["few looked up", "many looked up, asked for ahead"])
@pytest.mark.parametrize("is_laid", [False, True], ids=["placed", "as they lie"])
def test_steps_over_buckets_of_their_own_find_the_bits_of_the_xla_path(units: int, is_laid: bool) -> None:
    made = three_steps(units, is_laid=is_laid, units=units)
    found = found_by(native_row_steps, made)
    assert_same_trees(found, found_by(row_steps, made))
    assert np.isfinite(found["pair"]).any(axis=0).all()


def test_a_loop_takes_only_what_it_reads() -> None:
    made = three_steps(0)
    with jax.enable_x64(True):
        plan = native_steps._Plan(made, jnp.zeros(()))
    # Two places, a price and a weight, three arrays of each of two buckets, two of each of three, and the limit.
    assert len(plan.arrays) == 2 + 2 + 3 * 2 + 2 * 3 + 1
    assert (3,) not in [own.shape for own in plan.arrays]


def test_a_row_beyond_an_array_is_the_nearest_one() -> None:
    def looked_up(array: Array, found: Any, row: Array, zero: Array) -> Array:
        del found
        return array.at[row].get(mode="promise_in_bounds") + zero

    row = np.array([-9, -1, 0, 2, 3, 1000], np.int32)
    made = (RowStep("only", looked_up, (np.arange(3.0),), Buckets((row,), None)),)
    for run in (native_row_steps, row_steps):
        assert found_by(run, made).tolist() == [0, 2, 0, 2, 2, 2]


def test_a_step_without_translation_takes_the_xla_path() -> None:
    def added(found: Any, rows: dict[str, Array], zero: Array) -> Array:
        del found
        return jnp.sum(rows["amount"], axis=1) + zero

    buckets, _ = slots(np.random.default_rng(1), (4,), UNITS)
    made = (RowStep("only", added, (), buckets),)
    with jax.enable_x64(True), pytest.raises(UnsupportedError, match="an order that XLA chooses"):
        native_steps._run(made, jnp.zeros(()))
    assert_same_trees(found_by(native_row_steps, made), found_by(row_steps, made))


@pytest.mark.parametrize("name", rest_slow([*model_dates()], ["aave-v3"]))
def test_accounts_of_all_models_but_those_listed_go_natively(
    book: Tables, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_xla: list[str] = []

    def noted(steps: tuple[RowStep, ...], zero: Array) -> Any:
        by_xla.append(steps[-1].name)
        return row_steps(steps, zero)

    monkeypatch.setattr(native_steps, "row_steps", noted)
    model = load_model(name)
    (work,) = prepare(read_book(**accepted(book, model.file)), model, Options(), Clock())
    list(work.engine.run(work.legs))
    assert by_xla == (["accounts"] if name in BY_XLA else [])
