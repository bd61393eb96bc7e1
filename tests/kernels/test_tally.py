"""Claims about the leg stage: right sums at every level, and the same bits for any padding, chunk and row count."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import pytest

from gpumargin_kernels._buckets import barrier, in_chunks
from gpumargin_kernels.charge import ChargeChoices, Summed
from gpumargin_kernels.components import KINDS
from gpumargin_kernels.contract_values import ContractSide
from gpumargin_kernels.model import Component, ScenarioSet
from gpumargin_kernels.records import Legs, Tally, UnitMarket
from gpumargin_kernels.scenario import contract_risk
from gpumargin_kernels.tally import leg_sums
from tests.asserts import assert_same_bits
from tests.kernels.inputs import contracts, model, padded_legs
from tests.sampled import rest_slow

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpumargin_kernels.records import Contracts

EXPIRIES, STRIKES, KINDS_OF_OPTION = 5, 4, 2
LISTED = (
    EXPIRIES * STRIKES * KINDS_OF_OPTION
)  # contracts in canonical order: expiry, strike, call or put; the last row is padding
COLUMNS, ROWS = 3, 128
WIDTHS = (2, 4, 8, 16, 32, 64)
Run = tuple[np.ndarray, np.ndarray]


def worst_of_group(sums: np.ndarray, terms: np.ndarray) -> np.ndarray:
    return np.minimum(sums.min(keepdims=True), 0) * terms


def discounted(sums: np.ndarray, terms: np.ndarray) -> np.ndarray:
    shocked = sums[:-1] + sums[-1]
    return sums[:-1] + np.where(shocked > 0, terms[0], terms[1]) * shocked


def net_short(sums: np.ndarray, terms: np.ndarray) -> np.ndarray:
    return np.maximum(-sums[:1], 0)


@cache
def real_tally(kind: str) -> Tally:
    """A tally as a component of the package makes it, for what it does when a group closes."""
    market, one = contracts(1), np.ones(1)
    some = model(
        scenario_sets=(ScenarioSet("set", 0, 1),),
        spot=np.ones((1, 1)),
        vol_direction=np.zeros(1, np.int32),
        weight=np.ones((1, 1)),
    )
    numbers = dict.fromkeys(("addend", "multiplier", "static", "rate_multiplier", "rate_addend"), one)
    naked = (("naked", ("max", ("-", 0.0, "size"), 0.0)),)
    charge = ChargeChoices(("option",), "strike", (Summed("size", "net", "size"),), (), naked, "naked")
    component = Component("x", kind, (("scenarios", "set"), ("has_discount", True), ("post", None), ("charge", charge)))
    side = ContractSide(market, contract_risk(market, some, one), UnitMarket(one, one, one, one), numbers)
    return KINDS[kind].tallies(component, some, side)[0]


class Sort(NamedTuple):
    """One way of summing: the component that asks for it (None: the unit level), and the same in plain numpy."""

    kind: str | None = None
    word: str = "net"
    terms: int = 0
    plain: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


SORTS = {
    "unit": Sort(),
    "unit, absolute": Sort(word="gross"),
    "expiry, worst of group": Sort("expiry_loss", terms=1, plain=worst_of_group),
    "expiry, discounted": Sort("scenario_loss", terms=2, plain=discounted),
    "strike, net short": Sort("charge", plain=net_short),
}


def listed(dtype: str) -> Contracts:
    """Five expiries of four strikes with a call and a put each, and the padding contract."""
    index = np.arange(LISTED)
    groups = {"expiry_group": index // (STRIKES * KINDS_OF_OPTION), "strike_group": index // KINDS_OF_OPTION}
    return contracts(LISTED + 1, dtype, **{name: np.append(group, -1) for name, group in groups.items()})


def tallies(draw: Any, dtype: str) -> dict[str, Tally]:
    """One tally of every sort over numbers that `draw(shape)` makes; terms are equal within an expiry."""

    def filled(sort: Sort) -> Tally:
        columns = np.append(draw((LISTED, COLUMNS)), np.zeros((1, COLUMNS)), axis=0).astype(dtype)
        per_expiry = np.repeat(draw((EXPIRIES, sort.terms)), STRIKES * KINDS_OF_OPTION, axis=0)
        terms = np.append(per_expiry, np.zeros((1, sort.terms)), axis=0).astype(dtype)
        if sort.kind is None:
            return Tally({sort.word: columns}, terms)
        made = real_tally(sort.kind)
        held = {"count": np.append(np.ones((LISTED, 1)), [[0.0]], axis=0).astype(dtype)}
        return replace(made, columns={"net": columns, **(held if "count" in made.columns else {})}, terms=terms)

    return {name: filled(sort) for name, sort in SORTS.items()}


def runs(rng: np.random.Generator, draw: Any, longest: int, dtype: str, rows: int = ROWS) -> list[Run]:
    """Rows of 0 to `longest` legs in canonical order."""
    held = [np.sort(rng.choice(LISTED, min(rng.integers(0, longest + 1), LISTED), replace=False)) for _ in range(rows)]
    return [(contract.astype(np.int32), draw((len(contract),)).astype(dtype)) for contract in held]


@cache
def program(chunk: int | None = None) -> Any:
    """`leg_sums` as the engine compiles it: behind a barrier, in chunks of rows."""

    def sums(some: dict[str, Tally], market: Contracts, legs: Legs, zero: jax.Array) -> dict[str, jax.Array]:
        names = list(some)

        def one(bucket: Legs) -> tuple[jax.Array, ...]:
            return barrier(leg_sums(tuple(some[name] for name in names), market, bucket, zero))

        return dict(zip(names, in_chunks(one, legs, chunk), strict=True))

    return jax.jit(sums)


def summed(
    some: dict[str, Tally], held: list[Run], width: int, *, rows: int = ROWS, chunk: int | None = None
) -> dict[str, np.ndarray]:
    """Sums of every row, through a bucket of `width` slots."""
    dtype = str(some["unit"].columns["net"].dtype)
    legs = padded_legs(held, width, rows, LISTED)
    found = program(chunk)(some, listed(dtype), legs, np.zeros((), dtype))
    return {name: np.asarray(block)[: len(held)] for name, block in found.items()}


def plain_sums(name: str, tally: Tally, held: list[Run]) -> np.ndarray:
    """The same sums by the plainest loop, in the dtype of the columns."""
    plain, market = SORTS[name].plain, listed("float64")
    groups = {"unit": np.zeros(LISTED + 1), "expiry": market.expiry_group, "strike": market.strike_group}[tally.level]

    def of_group(contract: np.ndarray, quantity: np.ndarray) -> np.ndarray:
        word = SORTS[name].word
        columns = tally.columns[word]
        sums = np.zeros(COLUMNS, columns.dtype)
        for c, q in zip(contract, np.abs(quantity) if word == "gross" else quantity, strict=True):
            sums = sums + q * columns[c]
        return sums if plain is None else plain(sums, tally.terms[contract[-1]])

    def of_row(contract: np.ndarray, quantity: np.ndarray) -> np.ndarray:
        total = np.zeros(1, tally.columns[SORTS[name].word].dtype)
        for group in dict.fromkeys(groups[contract].tolist()):
            here = groups[contract] == group
            total = total + of_group(contract[here], quantity[here])
        return total

    width = len(of_group(np.zeros(1, int), np.zeros(1)))
    return np.array([np.broadcast_to(of_row(*run), (width,)) for run in held])


def normal_numbers(rng: np.random.Generator) -> Any:
    """Numbers whose products and sums all round."""
    return partial(rng.normal, 0.0, 1e3)


def dyadic_numbers(rng: np.random.Generator) -> Any:
    """Small multiples of 1/8: every product and sum is exact, fused or not, in either precision."""
    return lambda shape: rng.integers(-64, 65, shape) / 8


@pytest.mark.parametrize("name", SORTS)
@pytest.mark.parametrize("width", [8, 32], ids=["one trip of the loop", "several trips"])
def test_sums_equal_a_plain_loop_exactly_where_arithmetic_is_exact(
    name: str, width: int, rng: np.random.Generator
) -> None:
    draw = dyadic_numbers(rng)
    some, held = tallies(draw, "float64"), runs(rng, draw, min(width, 24), "float64")
    assert_same_bits(summed(some, held, width)[name] + 0.0, plain_sums(name, some[name], held) + 0.0)


@pytest.mark.parametrize("name", SORTS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sums_equal_a_plain_loop_to_the_last_bit_where_every_step_rounds(
    name: str, dtype: str, rng: np.random.Generator
) -> None:
    draw = normal_numbers(rng)
    some, held = tallies(draw, dtype), runs(rng, draw, 32, dtype)
    assert_same_bits(summed(some, held, 32)[name] + 0.0, plain_sums(name, some[name], held) + 0.0)


def test_sums_have_derivatives(rng: np.random.Generator) -> None:
    draw = normal_numbers(rng)
    tally, (held,) = tallies(draw, "float64")["unit"], runs(rng, draw, 8, "float64", rows=1)
    legs = padded_legs([held], 8, 1, LISTED)

    def first_sum(quantity: jax.Array) -> jax.Array:
        return leg_sums((tally,), listed("float64"), legs._replace(quantity=quantity), np.zeros(()))[0][0, 0]

    np.testing.assert_array_equal(
        jax.jit(jax.grad(first_sum))(legs.quantity)[0], tally.columns["net"][legs.contract[0], 0]
    )


@pytest.mark.parametrize("dtype", rest_slow(["float64", "float32"], ["float64"]))
@pytest.mark.parametrize("longest", [2, 4, 8, 16, 32])
def test_sums_carry_the_same_bits_in_every_bucket_that_is_wide_enough(
    longest: int, dtype: str, rng: np.random.Generator
) -> None:
    draw = normal_numbers(rng)
    some, held = tallies(draw, dtype), runs(rng, draw, longest, dtype)
    expected = summed(some, held, longest)
    for width in (w for w in WIDTHS if w > longest):
        found = summed(some, held, width)
        for name in SORTS:
            assert_same_bits(found[name], expected[name], tally=name, narrow=longest, wide=width)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("longest", "dtype"),
    [*((longest, "float64") for longest in (2, 4, 8, 16, 32)), (2, "float32"), (8, "float32")],
)
def test_sums_carry_the_same_bits_for_any_chunk_of_rows(longest: int, dtype: str, rng: np.random.Generator) -> None:
    draw = normal_numbers(rng)
    some, held = tallies(draw, dtype), runs(rng, draw, longest, dtype)
    expected = summed(some, held, 32)
    for width in {longest, 32}:
        found = summed(some, held, width, chunk=64)
        for name in SORTS:
            assert_same_bits(found[name], expected[name], tally=name, width=width)


@pytest.mark.parametrize("width", [2, 8], ids=["two slots", "eight slots"])
def test_sums_carry_the_same_bits_in_a_bucket_of_one_chunk_and_of_several(width: int, rng: np.random.Generator) -> None:
    draw = normal_numbers(rng)
    some, held = tallies(draw, "float64"), runs(rng, draw, width, "float64", rows=64)
    found, expected = (summed(some, held, width, rows=rows, chunk=64) for rows in (128, 64))
    for name in SORTS:
        assert_same_bits(found[name], expected[name], tally=name)


@pytest.mark.slow
@pytest.mark.parametrize("width", [16, 32], ids=["just wide enough", "twice as wide"])
def test_sums_carry_the_same_bits_for_any_number_of_rows(width: int, rng: np.random.Generator) -> None:
    draw = normal_numbers(rng)
    some, held = tallies(draw, "float64"), runs(rng, draw, 16, "float64")
    expected = summed(some, held, 16)
    for rows in (1, 192):
        some_rows = held[:rows]
        found = summed(some, some_rows, width, rows=rows)
        for name in SORTS:
            assert_same_bits(found[name], expected[name][:rows], tally=name, rows=rows)


def test_sums_do_not_depend_on_the_other_rows_of_a_bucket(rng: np.random.Generator) -> None:
    draw = normal_numbers(rng)
    some, held = tallies(draw, "float64"), runs(rng, draw, 16, "float64")
    order = rng.permutation(ROWS)
    found, expected = summed(some, [held[i] for i in order], 16), summed(some, held, 16)
    for name in SORTS:
        assert_same_bits(found[name], expected[name][order], tally=name)


@pytest.mark.parametrize("width", [2, 8, 16])
def test_rows_of_padding_alone_give_positive_zero(width: int, rng: np.random.Generator) -> None:
    some = tallies(normal_numbers(rng), "float64")
    empty = [(np.zeros(0, np.int32), np.zeros(0)) for _ in range(ROWS)]
    for name, found in summed(some, empty, width).items():
        assert_same_bits(found, np.zeros_like(found), tally=name)


def test_signed_zeros_among_the_legs_leave_no_trace_in_wider_buckets(rng: np.random.Generator) -> None:
    some = tallies(normal_numbers(rng), "float64")
    some = {
        name: replace(
            tally,
            columns={
                w: block * np.where(rng.random(block.shape) < 0.5, -0.0, 1.0) for w, block in tally.columns.items()
            },
        )
        for name, tally in some.items()
    }
    held = [
        (contract, np.where(rng.random(len(contract)) < 0.5, -0.0, quantity))
        for contract, quantity in runs(rng, normal_numbers(rng), 8, "float64")
    ]
    expected = summed(some, held, 8)
    for width in (16, 32):
        found = summed(some, held, width)
        for name in SORTS:
            assert_same_bits(found[name], expected[name], tally=name, width=width)


def test_nan_in_one_contract_reaches_its_holders_and_nobody_else(rng: np.random.Generator) -> None:
    draw = normal_numbers(rng)
    some, held = tallies(draw, "float64"), runs(rng, draw, 16, "float64")
    expected = summed(some, held, 16)
    is_spoilt = (np.arange(LISTED + 1) == 11)[:, None]
    spoilt = {}
    for name, tally in some.items():
        word = SORTS[name].word
        block = np.where(is_spoilt, np.nan, tally.columns[word])
        spoilt[name] = replace(tally, columns=tally.columns | {word: block})
    is_holder = np.array([11 in contract for contract, _ in held])
    assert 0 < is_holder.sum() < ROWS
    for name, found in summed(spoilt, held, 16).items():
        assert np.isnan(found[is_holder]).all(), name
        assert_same_bits(found[~is_holder], expected[name][~is_holder], tally=name)


def test_groups_of_neighbouring_rows_and_of_equal_strikes_are_told_apart(rng: np.random.Generator) -> None:
    # A long and a short of one strike net, the same of two strikes do not, nor do two rows with one leg each.
    size = np.append(np.ones((LISTED, 1)), [[0.0]], axis=0)
    tally = {
        "unit": Tally({"net": size}, size[:, :0]),
        "strike, net short": replace(real_tally("charge"), columns={"net": size, "count": size}, terms=size[:, :0]),
    }
    leg = [
        (np.array(c, np.int32), np.array(q))
        for c, q in (([0, 1], [1.0, -1.0]), ([0, 2], [1.0, -1.0]), ([0], [1.0]), ([1], [-1.0]))
    ]
    found = summed(tally, leg, 8)["strike, net short"][:, 0]
    assert found.tolist() == [0.0, 1.0, 0.0, 1.0]


def test_splitting_a_leg_in_two_equal_ones_changes_nothing_where_arithmetic_is_exact(rng: np.random.Generator) -> None:
    draw = dyadic_numbers(rng)
    some, held = tallies(draw, "float64"), runs(rng, draw, 8, "float64")
    split = [(np.repeat(contract, 2), np.repeat(quantity, 2) / 2) for contract, quantity in held]
    expected, found = summed(some, held, 8), summed(some, split, 16)
    for name in SORTS:
        assert_same_bits(found[name] + 0.0, expected[name] + 0.0, tally=name)
