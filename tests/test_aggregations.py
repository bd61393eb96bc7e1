"""Claims about models that join units: every shipped one explains its accounts, and what a file may not say."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from data.calibrate_correlated_pm import prices_folder
from data.calibrate_simm_like import fragments
from gpumargin.catalogue import load_model
from gpumargin.errors import InputError, UsageError
from gpumargin.model_checks import matrix_problem
from gpumargin.run import margin
from gpumargin.sample import sample_path
from gpumargin.tables import Book, read_book
from tests.sampled import rest_slow

if TYPE_CHECKING:
    from gpumargin.runs import Run

MODELS = ("reya", "simm-like", "span", "tims")
FAST = ("reya",)
SAMPLE = 12


@cache
def book(name: str) -> Book:
    """The sample book, cut to the contracts that a model margins."""
    whole, kinds = read_book(sample_path()), load_model(name).file.kinds
    instruments = whole.frame("instruments")
    margined = instruments.filter(pl.col("kind").is_in(kinds))["instrument_id"]
    frames = {table: whole.frame(table) for table in whole.tables}
    frames["positions"] = frames["positions"].filter(pl.col("instrument_id").is_in(margined.implode()))
    return read_book(**frames)


def run_of(name: str, **changes: Any) -> Run:
    """A model over its sample, with changed numbers; `a__b` stands for the key `a.b`."""
    return margin(book(name), load_model(name).replace({key.replace("__", "."): v for key, v in changes.items()}))


def maintenance(run: Run) -> np.ndarray:
    found: np.ndarray = run.accounts.sort("account_id", "pool")["maintenance_margin"].to_numpy()
    return found


@pytest.mark.parametrize("name", rest_slow(MODELS, FAST))
def test_every_account_of_a_sample_explains_itself_to_what_the_run_published(name: str) -> None:
    run = run_of(name)
    several = run.units.group_by("account_id", "pool").len().filter(pl.col("len") > 1).sort("account_id", "pool")
    assert several.height > SAMPLE
    first = [frame.select("account_id", "pool") for frame in (several.head(SAMPLE), run.accounts.head(3))]
    for account, pool in [row for frame in first for row in frame.iter_rows()]:
        assert run.explain(str(account), str(pool)).checks["ok"].all()


@pytest.mark.parametrize("name", rest_slow(MODELS, FAST))
def test_requirements_are_never_negative_and_never_above_what_units_alone_would_need(name: str) -> None:
    run = run_of(name)
    assert run.accounts["maintenance_margin"].min() >= 0
    if name == "span":
        without = run_of(name, components__credit__spreads=[{"rate": 0.0, "legs": _LEGS}])
        assert np.all(maintenance(run) <= maintenance(without) * (1 + 1e-12) + 1e-9)
        assert np.any(maintenance(run) < maintenance(without) * 0.99)
    if name == "tims":
        unshared = run_of(name, aggregation__between=0.0, aggregation__groups={})
        assert np.all(maintenance(run) <= maintenance(unshared) * (1 + 1e-12) + 1e-9)


_LEGS = [{"unit": "BTC", "ratio": 1, "side": 1}, {"unit": "ETH", "ratio": 18, "side": -1}]


@pytest.mark.slow
def test_full_offsets_between_units_net_their_scenarios_and_none_at_all_costs_most() -> None:
    whole, nothing = (run_of("tims", aggregation__between=s, aggregation__groups={}) for s in (1.0, 0.0))
    assert np.all(maintenance(whole) <= maintenance(nothing) * (1 + 1e-12) + 1e-9)
    assert np.any(maintenance(whole) < maintenance(nothing))


def test_an_exposure_outside_the_covariance_adds_its_own_deviation() -> None:
    run = run_of("reya", aggregation__units=[], aggregation__covariance=[], aggregation__other_variance=0.04)
    alone = run.units.with_columns(pl.col("exposure").abs() * 1.5 * 0.2)
    expected = alone.group_by("account_id", "pool").agg(pl.col("exposure").sum()).sort("account_id", "pool")
    found = run.accounts.join(expected, on=["account_id", "pool"]).sort("account_id", "pool")
    np.testing.assert_allclose(found["maintenance_margin"], found["exposure"], rtol=1e-12)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param([[4.0, 1.0], [1.0, 9.0]], None, id="sound"),
        pytest.param([[0.0, 0.0], [0.0, 9.0]], None, id="a unit without risk"),
        pytest.param([[4.0, 7.0], [7.0, 9.0]], "semidefinite", id="covariance above the deviations"),
        pytest.param([[4.0, 1.0], [2.0, 9.0]], "symmetric", id="not symmetric"),
    ],
)
def test_a_table_that_is_no_covariance_is_told_why(rows: list[list[float]], says: str | None) -> None:
    problem = matrix_problem(["A", "B"], rows, diagonal=None, word="covariance")
    assert (problem is None) if says is None else (problem is not None and says in problem[1])


def test_a_covariance_that_is_none_is_refused_before_anything_runs() -> None:
    with pytest.raises(InputError) as caught:
        run_of("reya", aggregation__covariance=[[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert caught.value.failures["code"].to_list() == ["GM114"]


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        pytest.param("tims", {"aggregation.component": "minimum"}, "no scenarios", id="input without scenarios"),
        pytest.param("tims", {"aggregation.component": "nothing"}, "no components", id="unknown input"),
        pytest.param("tims", {"aggregation.margin": {"initial": "offset_loss"}}, "margin types", id="no maintenance"),
        pytest.param("tims", {"aggregation.margin.initial": "missing * 2"}, "unknown name", id="unknown name"),
        pytest.param("simm-like", {"aggregation.buckets.others.others": False}, "exactly one", id="no others"),
        pytest.param("simm-like", {"aggregation.buckets.alts.units": ["BTC"]}, "two buckets", id="unit twice"),
        pytest.param("span", {"components.time_risk.of": "net_delta"}, "scenario_loss", id="mean of no scenarios"),
        pytest.param("span", {"components.credit.delta": "nothing"}, "unknown name", id="credit of nothing"),
        pytest.param("span", {"composite_delta": None}, "price points", id="composite delta without points"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_itself_is_refused(name: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_model(name).replace(changes)


@pytest.mark.skipif(not prices_folder().is_dir(), reason=f"the price files are absent: {prices_folder()}")
def test_numbers_of_the_sensitivities_model_are_those_that_its_script_prints() -> None:
    printed, shipped = tomllib.loads(fragments())["aggregation"], load_model("simm-like").raw["aggregation"]
    for name, numbers in printed.pop("buckets").items():
        assert {key: shipped["buckets"][name][key] for key in numbers} == numbers
    assert {key: shipped[key] for key in printed} == printed
