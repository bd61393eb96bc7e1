"""Claims about the engine: what compiles once, what fits, what is retried, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pytest

from gpumargin import device, engine
from gpumargin.catalogue import load_model
from gpumargin.device import choose_devices
from gpumargin.engine import Engine, EngineResult, Settings, accounts_per_shard
from gpumargin.errors import ResourceError
from gpumargin.native.choice import leg_loop
from gpumargin.pack.buckets import bucket_widths
from gpumargin.pack.legs import LegBook
from tests.asserts import assert_close, assert_same_trees
from tests.packed import Packed, many_legs, pack

if TYPE_CHECKING:
    import polars as pl

ACCOUNTS = 300
MODEL = "derive-pm1"
NO_MEMORY = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


@cache
def tables(seed: int = 0) -> dict[str, pl.DataFrame]:
    """300 accounts of up to seven legs: a few hundred unit rows in three widths."""
    return many_legs(np.random.default_rng(seed), ACCOUNTS, most_legs=7)


@cache
def packed(seed: int = 0) -> Packed:
    return pack(tables(seed), MODEL)


def computed(some: Packed, settings: Settings = Settings()) -> list[EngineResult]:  # noqa: B008  frozen record
    return list(Engine(some.model, some.contracts, settings).run(some.legs))


def joined(parts: list[EngineResult]) -> Any:
    """Account rows of all parts end to end."""
    return jax.tree.map(lambda *rows: np.concatenate(rows), *(part.result.accounts for part in parts))


@cache
def expected() -> Any:
    return joined(computed(packed()))


def programs() -> int:
    """Compiled variants of the engine's two programs so far."""
    first, mesh = choose_devices("auto")[0], device.account_mesh(choose_devices("auto"))
    form, _ = device.stacked(packed().contracts.contracts)
    contract = engine._contract_program(mesh, device.contract_chunk(first), form)
    part = engine._part_program(mesh, leg_loop(first, device.chunk_rows(first), "auto"))
    return int(contract._cache_size() + part._cache_size())  # type: ignore[attr-defined]


def assert_whole(parts: list[EngineResult], book: LegBook) -> None:
    """Every account and unit row exactly once, in order."""
    accounts, rows = 0, 0
    for part in parts:
        assert (part.first_account, part.first_row) == (accounts, rows)
        accounts += len(part.result.accounts.equity)
        rows += len(part.result.units.unit)
    assert (accounts, rows) == (len(book), len(book.unit))


def test_results_are_numpy_whole_and_in_order() -> None:
    parts = computed(packed())
    assert_whole(parts, packed().legs)
    assert all(isinstance(leaf, np.ndarray) for part in parts for leaf in jax.tree.leaves(part.result))
    assert np.array_equal(np.concatenate([part.result.units.unit for part in parts]), packed().legs.unit)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"parameters.im_factor": 1.4}, id="a parameter"),
        pytest.param({"parameters.im_factor.BTC": 1.4}, id="a parameter of one unit"),
        pytest.param({"components.scan.discount.static": 0.9}, id="a number of a component"),
        pytest.param({"vol_shock.up": 0.7, "collateral.assets.USDC": 0.98}, id="shocks and weights"),
        pytest.param({"scenarios.forward": [{"spot": 1.06}, {"spot": 0.94}]}, id="moves of a scenario set"),
    ],
)
def test_new_numbers_of_a_model_compile_nothing_and_change_results(changes: dict[str, Any]) -> None:
    before, known = expected(), programs()
    found = joined(computed(pack(tables(), load_model(MODEL).replace(changes))))
    assert programs() == known
    assert not np.array_equal(found.health.excess["initial"], before.health.excess["initial"])


def test_new_prices_compile_nothing() -> None:
    before, known, some = expected(), programs(), packed()
    spot = some.contracts.market.spot * 1.01
    moved = replace(some.contracts, market=some.contracts.market._replace(spot=spot))
    found = joined(computed(replace(some, contracts=moved)))
    assert programs() == known
    assert not np.array_equal(found.margin["initial"], before.margin["initial"])


def test_a_second_book_of_similar_size_compiles_nothing() -> None:
    expected()
    known = programs()
    other = packed(1)
    assert not np.array_equal(other.legs.quantity[:100], packed().legs.quantity[:100])
    assert_whole(computed(other), other.legs)
    assert programs() == known


def test_a_small_memory_budget_makes_more_parts_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = computed(packed())
    monkeypatch.setattr(engine, "MIN_ACCOUNTS_PER_SHARD", 16)
    parts = computed(packed(), Settings(memory_budget=1 << 18))
    assert len(parts) > len(whole)
    assert_whole(parts, packed().legs)
    assert_same_trees(joined(parts), expected())
    units = [
        jax.tree.map(lambda *x: np.concatenate(x), *(part.result.units for part in some)) for some in (parts, whole)
    ]
    assert_same_trees(*units)


def test_accounts_of_a_part_follow_the_memory_budget_between_their_limits() -> None:
    book = packed().legs
    sizes = [accounts_per_shard(book, 2, budget, 1) for budget in (0, 1 << 24, 1 << 26, 1 << 50)]
    assert sizes[0] == engine.MIN_ACCOUNTS_PER_SHARD
    assert sizes[-1] == engine.MAX_ACCOUNTS_PER_SHARD
    assert sizes == sorted(sizes)
    assert accounts_per_shard(book, 2, 1 << 26, 4) <= sizes[2]
    slots = bucket_widths(np.diff(book.leg_start)).sum() / len(book)
    assert sizes[2] * slots * 8 <= 1 << 26


@pytest.mark.parametrize("failing", [0, 1, 3], ids=["first part", "second part", "a later part"])
def test_a_part_that_does_not_fit_is_halved_and_no_account_is_lost(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MIN_ACCOUNTS_PER_SHARD", 8)
    monkeypatch.setattr(engine, "accounts_per_shard", lambda *_: 40)
    start, sizes = Engine._start, []

    def starved(self: Engine, book: LegBook, shape: Any, part: Any) -> Any:
        sizes.append(max(shard.accounts for shard in part))
        if len(sizes) == failing + 1:
            raise NO_MEMORY
        return start(self, book, shape, part)

    monkeypatch.setattr(Engine, "_start", starved)
    parts = computed(packed())
    assert max(sizes[failing + 1 :]) <= 20 < sizes[failing]
    assert_whole(parts, packed().legs)
    assert_same_trees(joined(parts), expected())


def test_a_part_that_runs_out_of_memory_while_it_computes_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MIN_ACCOUNTS_PER_SHARD", 8)
    monkeypatch.setattr(engine, "accounts_per_shard", lambda *_: 40)
    finished, calls = engine._finished, []

    def starved(part: Any, result: Any) -> Any:
        calls.append(part)
        if len(calls) == 2:
            raise NO_MEMORY
        return finished(part, result)

    monkeypatch.setattr(engine, "_finished", starved)
    parts = computed(packed())
    assert_whole(parts, packed().legs)
    assert_same_trees(joined(parts), expected())


def test_a_machine_without_memory_for_the_smallest_part_is_told_so_and_not_tried_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def starved(self: Engine, book: LegBook, shape: Any, part: Any) -> Any:
        calls.append(len(part))
        raise NO_MEMORY

    monkeypatch.setattr(Engine, "_start", starved)
    with pytest.raises(ResourceError, match="out of device memory") as caught:
        computed(packed())
    assert caught.value.exit_code == 5
    assert len(calls) <= 2, "300 accounts fit the smallest part: sizes above it are the same program again"


def test_any_other_fault_of_the_device_is_not_taken_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    other = jax.errors.JaxRuntimeError("INTERNAL: something else")

    def broken(*_: object) -> Any:
        raise other

    monkeypatch.setattr(Engine, "_start", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        computed(packed())


def test_a_gpu_that_is_not_there_is_refused_and_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_gpus", list)
    with pytest.raises(ResourceError, match=r"GPU.*--device cpu") as caught:
        computed(packed(), Settings(device="gpu"))
    assert caught.value.exit_code == 5


def test_auto_takes_every_host_device_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_gpus", list)
    assert choose_devices("auto") == choose_devices("cpu") == jax.devices("cpu")


def test_a_book_without_accounts_gives_no_parts() -> None:
    nobody = pack(tables(), MODEL, np.zeros(ACCOUNTS, bool))
    assert computed(nobody) == []


def test_the_risk_array_is_cut_to_the_contracts() -> None:
    some = packed()
    risk = Engine(some.model, some.contracts, Settings()).contract_risk()
    assert risk.scenario_pnl.shape == (some.contracts.padding, some.model.columns_total())
    assert isinstance(risk.value, np.ndarray)


DEFAULTS = """
import sys
import jax
import numpy as np
from tests.packed import many_legs, pack
from gpumargin.engine import Engine, Settings
before = dict(jax.config.values)
some = pack(many_legs(np.random.default_rng(0), 3, most_legs=2), "correlated-pm")
(part,) = Engine(some.model, some.contracts, Settings(device="cpu")).run(some.legs)
assert part.result.accounts.equity.dtype == np.float64, part.result.accounts.equity.dtype
assert dict(jax.config.values) == before
assert jax.numpy.zeros(()).dtype == np.float32
print(repr(part.result.accounts.margin["initial"].tolist()))
"""


@pytest.mark.slow
def test_in_a_process_of_32_bits_the_engine_computes_in_64_and_leaves_the_process_as_it_was(
    pytestconfig: pytest.Config,
) -> None:
    some = pack(many_legs(np.random.default_rng(0), 3, most_legs=2), "correlated-pm")
    here = joined(computed(some)).margin["initial"].tolist()
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = ['.', 'kernels']\n{DEFAULTS}"]
    environment = {"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(  # noqa: S603  our own interpreter and code
        command, cwd=pytestconfig.rootpath, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == repr(here)


@pytest.mark.gpu
def test_a_gpu_gives_the_numbers_of_the_cpu() -> None:
    gpu, cpu = (joined(computed(packed(), Settings(device=choice))) for choice in ("gpu", "cpu"))  # type: ignore[arg-type]
    for name in ("initial", "maintenance"):
        assert_close(gpu.margin[name], cpu.margin[name], "margin", scale=1e6)
    assert np.array_equal(gpu.health.status, cpu.health.status)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits_twice_and_in_other_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = (joined(computed(packed(), Settings(device="gpu"))) for _ in range(2))
    assert_same_trees(again, first)
    monkeypatch.setattr(engine, "accounts_per_shard", lambda *_: 40)
    assert_same_trees(joined(computed(packed(), Settings(device="gpu"))), first)


def test_a_record_whose_columns_lie_together_by_type_is_the_record_again() -> None:
    record = packed().contracts.contracts
    form, stacks = device.stacked(record)
    again = form.unstacked(stacks)
    assert {kind: stack.dtype.name for kind, stack in stacks.items()} == {kind: kind for kind in form.kinds}
    assert jax.tree.structure(again) == jax.tree.structure(record)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(record), strict=True):
        np.testing.assert_array_equal(one, other)
