"""Claims that a model pays for the words it uses and for no others: what is traced for it stays within a budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from gpumargin import engine
from gpumargin.catalogue import MarginModel, load_model
from gpumargin.clock import Clock
from gpumargin.engine import Engine, Settings
from gpumargin.pack.buckets import make_plan, pack_shard
from gpumargin.pack.contracts import ContractSet
from gpumargin.prepare import Options, prepare
from gpumargin.tables import Book
from tests.books import AS_OF, tiny_book

# Operations in the programs of derive-pm1 over the tiny book, 1,520 and 1,546 when this was written, and a twentieth
# more for what differs between versions of jax. A word that this model does not use must not bring it nearer.
CONTRACT_BUDGET, PART_BUDGET = 1_600, 1_620


def jaxprs_in(value: Any) -> Iterator[Any]:
    """Programs inside a parameter of an operation: the body of a loop, the branches of a choice."""
    for leaf in jax.tree.leaves(value, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
        inner = getattr(leaf, "jaxpr", leaf)
        if hasattr(inner, "eqns"):
            yield inner


def operations(jaxpr: Any) -> int:
    """Operations of a program, each body of a loop counted once."""
    inner = sum(operations(body) for eqn in jaxpr.eqns for value in eqn.params.values() for body in jaxprs_in(value))
    return len(jaxpr.eqns) + inner


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes engines trace their contract stage where they would run it; holds what they counted."""
    counts: list[int] = []

    def program(*form: Any) -> Any:
        def trace(*arguments: Any) -> Any:
            jaxpr, shapes = jax.make_jaxpr(compiled(*form), return_shape=True)(*arguments)
            counts.append(operations(jaxpr.jaxpr))
            return shapes

        return trace

    compiled = engine._contract_program
    monkeypatch.setattr(engine, "_contract_program", program)
    return counts


def part_operations(work: Any) -> int:
    """Operations of the program that margins one part of a book."""
    made: Engine = work.engine
    contracts: ContractSet = work.contracts
    plan = make_plan(work.legs, 1 << 10, 1)
    shard = pack_shard(work.legs, contracts, plan.shape, plan.parts[0][0])
    block = jax.tree.map(lambda x: np.stack([x] * len(made.devices)), shard)
    with jax.enable_x64(True):
        jaxpr = jax.make_jaxpr(made._program)(made.table, made._market, made._assets, made._model, block, made._zero)
    return operations(jaxpr.jaxpr)


def counted(model: MarginModel, traced: list[int]) -> tuple[int, int]:
    """Operations of the contract stage and of the rest, legs summed by XLA: the native loop is one operation."""
    options = Options(as_of=AS_OF, settings=Settings(leg_loop="xla"))
    (work,) = prepare(Book(**tiny_book()), model, options, Clock())
    return traced.pop(), part_operations(work)


def test_a_simple_model_stays_within_its_budget_whatever_other_models_can_say(traced: list[int]) -> None:
    contract, part = counted(load_model("derive-pm1"), traced)
    assert CONTRACT_BUDGET * 0.8 < contract <= CONTRACT_BUDGET
    assert PART_BUDGET * 0.8 < part <= PART_BUDGET


def test_the_model_that_says_less_traces_less(traced: list[int]) -> None:
    first, second = (counted(load_model(name), traced) for name in ("derive-pm1", "derive-pm2"))
    assert first[0] < second[0]
    assert first[1] < second[1]


def test_a_component_more_is_seen(traced: list[int]) -> None:
    model = load_model("derive-pm1")
    again = {**model.raw["components"]["perp"], "legs": ["option"]}
    more = model.replace(
        {"components.again": again, "margin.maintenance": "loss + perp + base + naked_options + again"}
    )
    _, plain = counted(model, traced)
    _, longer = counted(more, traced)
    assert plain < longer < 1.1 * plain
