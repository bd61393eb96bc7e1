"""The native leg loop: the bits of the XLA path, model by model and operation by operation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from gpumargin import engine, native
from gpumargin.catalogue import load_model, model_dates
from gpumargin.clock import Clock
from gpumargin.engine import Settings
from gpumargin.native import blocks, machine, plan, stage
from gpumargin.native.ahead import When, cut
from gpumargin.native.blocks import lanes, padded
from gpumargin.native.choice import leg_loop
from gpumargin.native.leg_loop import leg_loop_name
from gpumargin.native.lowering import UnsupportedError
from gpumargin.native.plan import _places, plan_of
from gpumargin.native.stage import native_row_stage
from gpumargin.pack.buckets import make_plan
from gpumargin.prepare import Options, prepare
from gpumargin.tables import read_book
from gpumargin_kernels import records
from gpumargin_kernels._least import least_column
from gpumargin_kernels.margin import part_margin
from gpumargin_kernels.tally import RowPlan, row_stage
from tests.sampled import rest_slow
from tests.whole_book import accepted, whole_book

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jax import Array

    from gpumargin_kernels.account import AccountRows
    from tests.whole_book import Tables

# How much of a model goes natively: everything of a unit row unless it stands here.
SUMS_ONLY = {"span"}  # requirements look up a table in two directions
SAMPLE = ("derive-pm2", "span", "synthetix-v3")
EXPIRIES, CONTRACTS, WIDTH, UNITS = 4, 40, 16, 3


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return whole_book(tmp_path_factory.mktemp("native") / "book", accounts=400)


# Every model in float64, some in float32 too: a case compiles two programs.
CASES = [*((m, "float64") for m in model_dates()), *((m, "float32") for m in SAMPLE)]


@pytest.mark.parametrize(("name", "dtype"), rest_slow(CASES, [("synthetix-v3", "float64")]))
def test_every_number_of_a_model_has_the_bits_of_the_xla_path(book: Tables, name: str, dtype: Any) -> None:
    model = load_model(name)
    own = read_book(**accepted(book, model.file))

    def results(leg_loop: Any) -> tuple[str, list[np.ndarray]]:
        (work,) = prepare(own, model, Options(settings=Settings(dtype=dtype, leg_loop=leg_loop)), Clock())
        leaves = [leaf for part in work.engine.run(work.legs) for leaf in jax.tree.leaves(part.result)]
        return work.engine.leg_loop.name, leaves

    (name_native, found), (name_xla, expected) = results("auto"), results("xla")
    assert (name_native, name_xla) == ("native", "xla")
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine.view(f"V{mine.itemsize}"), theirs.view(f"V{theirs.itemsize}"))


@pytest.mark.parametrize("name", rest_slow([*model_dates()], SAMPLE[2:]))
def test_health_has_the_same_bits_where_nothing_else_is_computed(book: Tables, name: str) -> None:
    model = load_model(name)
    (work,) = prepare(read_book(**accepted(book, model.file)), model, Options(), Clock())
    own, loop = work.engine, work.engine.leg_loop
    assert loop.name == "native"
    plan = make_plan(work.legs, len(work.legs), len(own.devices))
    placed = own.place(own.packed(work.legs, plan.shape, plan.parts[0]))

    def accounts(**wanted: bool) -> AccountRows:
        function = partial(part_margin, chunk=loop.chunk, rows=loop.rows, steps=loop.steps, **wanted)
        found: AccountRows = jax.tree.map(np.asarray, own.stage(function, placed)().accounts)
        return found

    whole, health = accounts(), accounts(is_whole=False)
    assert jax.tree.leaves(health._replace(equity=None, margin={}, health=None)) == []
    explained = health._replace(equity=whole.equity, margin=whole.margin, health=whole.health._replace(ratio=None))
    assert jax.tree.structure(health) == jax.tree.structure(explained)
    for mine, theirs in zip(jax.tree.leaves(health), jax.tree.leaves(explained), strict=True):
        np.testing.assert_array_equal(mine.view(f"V{mine.itemsize}"), theirs.view(f"V{theirs.itemsize}"))


@pytest.mark.parametrize("name", rest_slow([*model_dates()], SAMPLE[2:]))
def test_of_a_model_as_much_goes_natively_as_is_listed(
    book: Tables, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[bool] = []

    def registered(*made: Any) -> str:
        tried.append(False)
        found = leg_loop_name(*made)
        tried[-1] = True
        return found

    monkeypatch.setattr(stage, "leg_loop_name", registered)
    model = load_model(name)
    engine._part_program.cache_clear()  # or a program of an earlier test would not be traced again
    (work,) = prepare(read_book(**accepted(book, model.file)), model, Options(), Clock())
    list(work.engine.run(work.legs))
    expected = [False, True] if name in SUMS_ONLY else [True]
    assert tried == expected


def contracts() -> records.Contracts:
    """Contracts in groups, and one of padding."""
    blank = dict.fromkeys(records.Contracts._fields, np.zeros(1))
    strike = np.append(np.arange(CONTRACTS) // 2, -1).astype(np.int32)
    expiry = np.append(np.arange(CONTRACTS) * EXPIRIES // CONTRACTS, -1).astype(np.int32)
    return records.Contracts(**blank | {"expiry_group": expiry, "strike_group": strike, "inputs": {}})


def legs(rng: np.random.Generator, rows: int = 64) -> records.Legs:
    """Rows of 0 to `WIDTH` legs in canonical order; zeros and negative zeros among the quantities."""
    contract = np.full((rows, WIDTH), CONTRACTS, np.int32)
    quantity = np.zeros((rows, WIDTH))
    for row in range(rows):
        count = int(rng.integers(0, WIDTH + 1))
        contract[row, :count] = np.sort(rng.choice(CONTRACTS, count, replace=False))
        quantity[row, :count] = rng.choice([-1.5, 0.0, -0.0, 0.7, 3.0], count)
    return records.Legs(np.zeros(rows, np.int32), contract, quantity, {"own": np.where(quantity > 0, quantity, 0.25)})


def table(rng: np.random.Generator, width: int) -> np.ndarray:
    block = rng.standard_normal((CONTRACTS + 1, width)) * 10.0 ** rng.integers(-6, 7, (CONTRACTS + 1, width))
    block[-1] = 0
    return block


# Functions of the group's sums, of two terms of its contract, and of the run-time one.
CLOSES: dict[str, Callable[[Array, Array, Array], Array]] = {
    "arithmetic": lambda x, t, one: (x - t[:, :1]) / (2 + jnp.abs(x)) * one + -x,
    "least and largest": lambda x, t, one: jnp.maximum(jnp.minimum(x, t[:, :1]), x[:, 1:2]) * one,
    "choice": lambda x, t, one: jnp.where(x > t[:, :1], x, jnp.where(x <= 0, t[:, 1:], jnp.nan)) * one,
    "roots and steps": lambda x, t, one: jnp.floor(jnp.sqrt(jnp.abs(x))) + jnp.ceil(x + t[:, :1]) * one,
    "sign": lambda x, t, one: jnp.sign(x) * jnp.abs(t[:, 1:]) * one,
    "folded": lambda x, t, one: jnp.min(x, axis=1, keepdims=True) - jnp.max(x, axis=1, keepdims=True) * one + t,
    "side by side": lambda x, t, one: jnp.concatenate([x[:, 2:5], t * one, x[:, :1]], axis=1),
    "logic": lambda x, t, one: jnp.where((x > 0) & ~(t[:, :1] != 0) | (x == 0), t[:, 1:], x) * one,
    "constants": lambda x, t, one: x * jnp.array([[float(i) for i in range(x.shape[1])]], x.dtype) * one + t[:, :1],
    "untranslated": lambda x, t, one: jnp.expm1(-jnp.abs(x)) * one + t[:, :1],
}


@dataclass(frozen=True)
class Closed:
    """Closes a group by one of `CLOSES`."""

    name: str

    def __call__(self, sums: Mapping[str, Array], terms: Array, one: Array) -> Array:
        return CLOSES[self.name](sums["net"], terms, one)


@pytest.mark.slow
@pytest.mark.parametrize("width", [5, 8, 27])
def test_every_operation_of_a_closing_function_rounds_as_xla_rounds_it(width: int) -> None:
    rng = np.random.default_rng(width)
    names = [name for name in CLOSES if name != "untranslated"]
    tallies = tuple(closed_by(name, rng, width, level) for name in names for level in ("expiry", "strike"))  # type: ignore[arg-type]
    _compiled(tallies)
    _assert_same(tallies, legs(rng), names=[name for name in names for _ in range(2)])


def closed_by(close: str, rng: np.random.Generator, width: int, level: records.Level) -> records.Tally:
    return records.Tally(columns={"net": table(rng, width)}, terms=table(rng, 2), level=level, close=Closed(close))


@pytest.mark.parametrize("register", rest_slow([16, 32, 64], [32]))
def test_every_word_and_level_together_have_the_bits_of_the_xla_path_whatever_the_registers(
    register: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "VECTOR_BYTES", register)
    rng = np.random.default_rng(2)
    words = ("net", "gross", "long", "short", "count", "own")
    unit = records.Tally(columns={word: table(rng, 1 + i) for i, word in enumerate(words)}, terms=table(rng, 0))
    summed = {word: table(rng, 3) for word in words}
    position = records.Tally(columns=summed, terms=table(rng, 1), level="position", close=_all_words)
    _assert_same((unit, position), legs(rng))


def _all_words(sums: Mapping[str, Array], terms: Array, one: Array) -> Array:
    return sum((jnp.maximum(block, terms) for block in sums.values()), 0 * terms) * one


@pytest.mark.parametrize(("said", "size"), [("512K\n", 512 << 10), ("2048K", 2 << 20), ("lots", 0), (None, 0)])
def test_the_size_of_the_cache_is_what_the_system_says_or_unknown(
    said: str | None, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "size"
    if said is not None:
        path.write_text(said)
    monkeypatch.setattr(machine, "_SECOND_LEVEL", path)
    assert machine.second_level_cache.__wrapped__() == size


def test_looking_ahead_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    tally = records.Tally(columns={"net": table(rng, 23)}, terms=table(rng, 0))
    for size, looks_ahead in ((1 << 30, False), (0, True)):
        monkeypatch.setattr(plan, "second_level_cache", lambda size=size: size)
        made, _ = plan_of(RowPlan((tally,), contracts(), only_sums, (), 0), np.dtype("float64"))
        assert made.looks_ahead is looks_ahead
        for rows in (1, 13, 64):  # fewer legs than are looked ahead, lines of results that stay unfilled, and more
            _assert_same((tally,), legs(rng, rows))


@pytest.mark.parametrize("register", [16, 32, 64])
@pytest.mark.parametrize("itemsize", [4, 8])
def test_no_vector_of_the_table_lies_across_two_lines_of_the_cache(
    itemsize: int, register: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "VECTOR_BYTES", register)
    rng = np.random.default_rng(itemsize)
    for widths in ([33, 0, 1, 34, 2], [], [0], [1], [3, 1], *(rng.integers(0, 50, 6).tolist() for _ in range(50))):
        places, table_width = _places(widths, itemsize)
        taken = np.zeros(table_width, bool)
        for place, width in zip(places, widths, strict=True):
            assert place.width == width
            assert place.start % lanes(width, itemsize) == 0
            own = slice(place.start, place.start + width)
            assert not taken[own].any()
            assert place.start + padded(width, itemsize) <= table_width  # whole vectors are read
            taken[own] = True
        assert table_width % lanes(table_width, itemsize) == 0


def only_sums(shared: Any, sums: tuple[Array, ...], unit: Array, one: Array) -> tuple[Array, ...]:
    return sums


def _compiled(tallies: tuple[records.Tally, ...]) -> str:
    made, _ = plan_of(RowPlan(tallies, contracts(), only_sums, (), 0), np.dtype("float64"))
    return leg_loop_name(made, 1)


def _assert_same(
    tallies: tuple[records.Tally, ...],
    *own: records.Legs,
    finish: Any = only_sums,
    shared: Any = (),
    names: Sequence[str] = (),
) -> None:
    def run(rows: Any) -> Any:
        def program(tallies: Any, contracts: Any, shared: Any, zero: Any, buckets: Any) -> Any:
            return rows(RowPlan(tallies, contracts, finish, shared, UNITS), buckets, zero, None)

        return jax.jit(program)(tallies, contracts(), shared, np.zeros(()), own)

    pairs = zip(jax.tree.leaves(run(native_row_stage)), jax.tree.leaves(run(row_stage)), strict=True)
    for place, (mine, theirs) in enumerate(pairs):
        found, expected = np.asarray(mine), np.asarray(theirs)
        what = names[place] if names else ""
        np.testing.assert_array_equal(found.view(f"V{found.itemsize}"), expected.view(f"V{expected.itemsize}"), what)


def test_several_buckets_are_finished_alike_with_tables_looked_up_by_unit() -> None:
    rng = np.random.default_rng(4)
    tally = records.Tally(columns={"net": table(rng, 23)}, terms=table(rng, 0))
    units = rng.integers(0, UNITS, 64).astype(np.int32)
    buckets = [legs(rng, rows)._replace(unit=units[:rows]) for rows in (64, 16)]
    shared = {"scale": rng.standard_normal(UNITS), "weights": rng.standard_normal((UNITS, 23)), "all": np.float64(1.5)}
    _assert_same((tally,), *buckets, finish=_worst_of_unit, shared=shared)


def _worst_of_unit(shared: Any, sums: tuple[Array, ...], unit: Array, one: Array) -> Any:
    least, worst = least_column(sums[0] * shared["weights"][unit])
    return {"loss": -least * shared["scale"][unit] * one + shared["all"], "worst": worst, "unit": unit}


def odd_rows(rng: np.random.Generator, width: int) -> np.ndarray:
    """Rows of which the least or the largest is a zero of some sign, or with NaN, at every place; and ordinary ones."""
    zeros = rng.choice([-0.0, 0.0], (3 * width, width))
    extremes = np.where(np.arange(3 * width)[:, None] < width, -1.0, 1.0) * rng.random((3 * width, width))
    below, above = (np.where(rng.random(zeros.shape) < 0.3, zeros, sign * np.abs(extremes)) for sign in (-1, 1))
    lost = rng.standard_normal((width, width))
    lost[np.diag_indices(width)] = np.nan
    infinite = rng.choice([-np.inf, np.inf, 0.0, 1.0], (width, width))
    return np.concatenate([zeros, below, above, lost, infinite, rng.standard_normal((width, width))])


@pytest.mark.parametrize("width", rest_slow([1, 3, 8, 27], [27]))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_least_and_the_largest_keep_nan_and_the_sign_of_zero(width: int, dtype: Any) -> None:
    rng = np.random.default_rng(width)
    rows = odd_rows(rng, width).astype(dtype)
    unit = np.arange(len(rows), dtype=np.int32)
    own = records.Legs(unit, np.full((len(rows), 2), CONTRACTS, np.int32), np.zeros((len(rows), 2), dtype), {})
    nothing = np.zeros((CONTRACTS + 1, 1), dtype)
    tally = records.Tally(columns={"net": nothing}, terms=nothing[:, :0])
    plan = RowPlan((tally,), contracts(), _extremes, (rows,), len(rows))
    leg_loop_name(plan_of(plan, np.dtype(dtype))[0], 1)

    def program(rows: Any, zero: Any, legs: Any) -> Any:
        return native_row_stage(plan._replace(shared=(rows,)), (legs,), zero, None)

    found = jax.jit(program)(rows, np.zeros((), dtype), own)
    for mine, least in zip(found, (True, False), strict=True):
        expected = [extreme(row, is_least=least) for row in rows]
        np.testing.assert_array_equal(mine, expected)
        np.testing.assert_array_equal(np.signbit(mine), np.signbit(expected) & ~np.isnan(expected))


def _extremes(shared: Any, sums: tuple[Array, ...], unit: Array, one: Array) -> tuple[Array, ...]:
    rows = shared[0][unit] * one
    found = jnp.min(rows, axis=1), jnp.max(rows, axis=1)
    return tuple(jnp.where(jnp.isnan(x), x.dtype.type(np.nan), x) for x in found)  # a NaN has no sign to speak of


def extreme(row: np.ndarray, *, is_least: bool) -> float:
    """By definition: NaN if there is one, else the first or last in the order that has -0 below 0."""
    if np.isnan(row).any():
        return float("nan")
    ordered = sorted(row.tolist(), key=lambda x: (x, not np.signbit(x)))
    return float(ordered[0 if is_least else -1])


def test_a_function_without_translation_takes_the_xla_path() -> None:
    rng = np.random.default_rng(3)
    tally = closed_by("untranslated", rng, 3, "expiry")
    with pytest.raises(UnsupportedError, match="expm1"):
        _compiled((tally,))
    _assert_same((tally,), legs(rng))


def test_a_result_with_two_directions_per_row_is_finished_by_xla() -> None:
    rng = np.random.default_rng(5)
    tally = records.Tally(columns={"net": table(rng, 6)}, terms=table(rng, 0))
    with pytest.raises(UnsupportedError, match="2 directions per row"):
        plan_of(RowPlan((tally,), contracts(), _two_directions, (), 0), np.dtype("float64"))
    _assert_same((tally,), legs(rng), finish=_two_directions)


def _two_directions(shared: Any, sums: tuple[Array, ...], unit: Array, one: Array) -> Array:
    return sums[0].reshape(-1, 2, 3)


def test_where_the_compiler_is_absent_the_xla_path_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "is_available", lambda: False)
    assert leg_loop(jax.devices("cpu")[0], None, "auto").name == "xla"


def test_the_interface_version_is_that_of_the_installed_jaxlib() -> None:
    from gpumargin.native.handler import interface_version

    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    assert f"#define XLA_FFI_API_MINOR {interface_version()[1]}" in header.read_text("utf-8")


def test_what_follows_from_early_inputs_alone_is_computed_ahead_and_nothing_else() -> None:
    def made(unit: Array, row: Array, one: Array) -> Array:
        least = jnp.min(unit, axis=1, keepdims=True)  # a reduction: XLA would leave the sign of a 0 open
        return row * (jnp.abs(unit) * 2 * one) + least + jnp.where(unit[:, :1] > 0, 1.0, 0.0) * one

    values = np.array([[-3.0, 0.0, 5.0]]), np.array([[2.0, 7.0, -1.0]]), np.ones(())
    found = cut(jax.make_jaxpr(made)(*values), [When.AHEAD, When.LATE, When.ALWAYS])
    ahead = found.function()(values[0], values[2])
    rest = core.jaxpr_as_fun(found.rest)(*ahead, *values[1:])
    assert found.widths == [3, 3, 1]  # the product, what the reduction reads, and the choice; not the row's own
    np.testing.assert_array_equal(rest[0], made(*values))


def _by_place(shared: Any, sums: tuple[Array, ...], unit: Array, one: Array) -> tuple[Array, ...]:
    return sums[0] * one, shared["place"][unit] + unit


def _without_columns(shared: Any, sums: tuple[Array, ...], unit: Array, one: Array) -> tuple[Array, ...]:
    return (jnp.concatenate([sums[0] * one, shared["nothing"][unit] * one], axis=1),)


def test_rows_that_look_up_whole_numbers_or_no_columns_are_finished_alike() -> None:
    rng = np.random.default_rng(6)
    tally = records.Tally(columns={"net": table(rng, 6)}, terms=table(rng, 0))
    own = legs(rng)._replace(unit=rng.integers(0, UNITS, len(legs(rng).unit)).astype(np.int32))
    place = {"place": rng.integers(0, 9, UNITS).astype(np.int32)}
    _assert_same((tally,), own, finish=_without_columns, shared={"nothing": np.zeros((UNITS, 0))})
    _assert_same((tally,), own, finish=_by_place, shared=place)
    with pytest.raises(UnsupportedError, match="other than floating columns"):
        plan_of(RowPlan((tally,), contracts(), _by_place, place, UNITS), np.dtype("float64"))
