"""Claims about model files: what ships is sound, what is broken is named, what is changed is recorded."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import date
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pytest

from gpumargin import catalogue
from gpumargin.bind import bind, by_name, spot_levels
from gpumargin.catalogue import load_model, model_dates
from gpumargin.errors import UsageError
from gpumargin.expressions import names_in, parse_expression
from gpumargin.grades import estimated_numbers, graded
from gpumargin.model_checks import matrix_problem
from gpumargin.modelfile import Correlated
from gpumargin.modelfile.names import CONTRACT_NAMES, UNIT_NAMES
from gpumargin_kernels.contract_values import CONTRACT_VALUES
from gpumargin_kernels.records import UnitMarket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LABELS = [f"{name}@{day}" for name, days in model_dates().items() for day in days]
UNITS, ASSETS = ("BTC", "ETH", "ZZZ"), ("BTC", "ETH", "USD", "USDC")
BASE = np.array([True, True, False, False])

# The smallest file that loads; tests break one line of it at a time.
TEXT = """
name = "mine"
effective = 2026-01-02
title = "A test"
source = "none"
accounting_asset = "USDC"
kinds = ["option"]
scenarios.grid = [{ spot = 1.1, vol = "up" }, { spot = 0.9 }]
components.scan = { kind = "scenario_loss", scenarios = "grid" }
components.peg = { kind = "price_shortfall", asset = "USDC", threshold = 0.99, factor = 4 }
parameters.im_factor = 1.3
margin.maintenance = "max(scan, 0) + peg"
margin.initial = "im_factor * maintenance"
collateral.assets = { default = 0.0, USDC = 1.0 }
provenance.default = "estimated"
"""


def written(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def refusal(folder: Path, old: str, new: str) -> str:
    """Message about the file with one piece of text replaced."""
    assert old in TEXT
    with pytest.raises(UsageError) as caught:
        load_model(written(folder, TEXT.replace(old, new)))
    assert caught.value.exit_code == 2
    return str(caught.value)


def at(tree: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path."""
    found: Any = tree
    for key in path.split("."):
        if isinstance(found, list):  # the place of a row
            found = dict(zip(map(str, range(len(found))), found, strict=True))
        assert key in found, f"{key!r} of {path!r} is not in the file"
        found = found[key]
    return found


@pytest.mark.parametrize("label", LABELS)
def test_every_shipped_model_loads_under_the_name_of_its_file(label: str) -> None:
    model = load_model(label)
    assert model.label == label
    assert model.overrides == {}


@pytest.mark.parametrize("label", LABELS)
def test_every_shipped_number_says_where_it_comes_from(label: str) -> None:
    model = load_model(label)
    listed = model.file.provenance.model_dump()
    assert listed.pop("default") in listed
    for grade, paths in listed.items():
        for path in paths:
            assert at(model.raw, path) is not None, grade


@pytest.mark.parametrize("label", LABELS)
def test_estimated_numbers_of_a_shipped_model_are_all_named_and_no_other(label: str) -> None:
    model = load_model(label)
    named = estimated_numbers(model)
    for path, _, grade in graded(model):
        is_named = named == ["all"] or any(path == each or path.startswith(f"{each}.") for each in named)
        assert not grade or is_named == (grade == "estimated")


def numbers_in(value: Any) -> int:
    """How many numbers a piece of a file holds, at any depth."""
    if isinstance(value, (dict, list)):
        return sum(map(numbers_in, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@pytest.mark.parametrize("label", LABELS)
def test_every_shipped_number_has_a_grade_in_tables_rows_and_brackets_too(label: str) -> None:
    model = load_model(label)
    grades = {"verified", "published", "inferred", "estimated"}
    assert sum(numbers_in(value) for _, value, grade in graded(model) if grade in grades) == numbers_in(model.raw)


ROUNDING = 1e-12  # room for the last bits before a floor or a ceiling
PART_OF_RULES = {0, 0.5, 0.8, 1, 2, 100, 1e6, 1e9, 1e-6}  # units, halves; 0.8 is Drift's part of a ratio before size


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts_in(each)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("label", LABELS)
def test_expressions_of_shipped_models_hold_no_number_that_a_venue_could_change(label: str) -> None:
    parts = ("components", "margin", "collateral", "account", "counted", "balances", "status", "aggregation")
    texts = [t for part in parts for t in texts_in(load_model(label).raw.get(part, {})) if re.search(r"[-+*/()]", t)]
    found = {float(number) for text in texts for number in re.findall(r"(?<![\w.])\d[\d.]*(?:e-?\d+)?", text)}
    found = {number for number in found if number == 0 or number > ROUNDING} - PART_OF_RULES
    assert not found, "give it a name under numbers, where it gets a grade"


@pytest.mark.parametrize("label", LABELS)
def test_every_shipped_correlation_is_one(label: str) -> None:
    aggregation = load_model(label).file.aggregation
    if isinstance(aggregation, Correlated):
        assert matrix_problem(aggregation.units, aggregation.correlation) is None
        assert np.linalg.eigvalsh(np.array(aggregation.correlation)).min() >= 0


@pytest.mark.parametrize("label", LABELS)
def test_every_shipped_model_binds_and_its_static_part_does_not_depend_on_the_book(label: str) -> None:
    file = load_model(label).file
    first, second = bind(file, UNITS, ASSETS, BASE), bind(file, UNITS[:1], ASSETS, BASE)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    columns = first.columns_total()
    assert first.spot.shape == first.weight.shape == (len(UNITS), columns)
    assert first.vol_direction.shape == (columns,)


def test_a_name_alone_is_the_newest_of_its_dates() -> None:
    for name, days in model_dates().items():
        assert days == sorted(days)
        assert load_model(name).file.effective == max(days)


@pytest.mark.parametrize(
    "days", [("2026-02-10", "2026-11-02"), ("2026-11-02", "2026-02-10")], ids=["ascending", "descending"]
)
def test_newest_is_by_date_and_not_by_place(days: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(catalogue, "_builtin", lambda: {"x": {date.fromisoformat(d): f"x@{d}.toml" for d in days}})
    monkeypatch.setattr(catalogue, "_read", lambda _, where: read.append(where))
    with pytest.raises(FileNotFoundError, match="x@2026-11-02"):
        load_model("x")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("derive-pm9", ["'derive-pm9'", "derive-pm1", "correlated-pm", ".toml"], id="unknown name"),
        pytest.param("derive-pm1@1999-01-01", ["'1999-01-01'", "2023-12-15", "2025-02-01"], id="unknown date"),
        pytest.param("derive-pm1@soon", ["'soon'", "2025-02-01"], id="not a date"),
        pytest.param("no/such/file.toml", ["no/such/file.toml", "No such file"], id="absent file"),
    ],
)
def test_a_model_that_is_not_there_is_refused_with_what_there_is(name: str, says: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        load_model(name)
    for word in says:
        assert word in str(caught.value)


def test_a_file_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"mine\.toml"):
        load_model(path)


def test_a_users_file_loads_and_is_labelled_by_its_contents(tmp_path: Path) -> None:
    assert load_model(written(tmp_path, TEXT, "other-name.toml")).label == "mine@2026-01-02"


BROKEN = [
    pytest.param('kinds = ["option"]', 'kinds = ["swap"]', ["kinds.0", "'swap'", "'option'", "'perpetual'"], id="kind"),
    pytest.param(
        'vol = "up"', 'vol = "sideways"', ["scenarios.grid.0.vol", "'sideways'", "'up'", "'down'"], id="vol rule"
    ),
    pytest.param(
        "parameters.im_factor = 1.3",
        "parameters.im_factor = true",
        ["parameters.im_factor", "found true"],
        id="boolean for a number",
    ),
    pytest.param("parameters.im_factor = 1.3", "parameters.im_factor = nan", ["parameters.im_factor", "nan"], id="nan"),
    pytest.param(
        "parameters.im_factor = 1.3", "parameters.im_factor = inf", ["parameters.im_factor", "inf"], id="infinity"
    ),
    pytest.param(
        "parameters.im_factor = 1.3",
        "parameters.im_factor = { BTC = 1.3 }",
        ["im_factor", "'default'", "BTC"],
        id="no default",
    ),
    pytest.param('name = "mine"', 'name = "My model"', ["name", "'My model'"], id="name with a space"),
    pytest.param("effective = 2026-01-02", 'effective = "soon"', ["effective", "'soon'"], id="date"),
    pytest.param('title = "A test"', 'titel = "A test"', ["titel", "title"], id="misspelt key"),
    pytest.param(
        'kind = "scenario_loss"',
        'kind = "scenario_los"',
        ["components.scan", "scenario_los", "expiry_loss"],
        id="kind of component",
    ),
    pytest.param(
        'scenarios = "grid"', 'scenarios = "grit"', ["components.scan.scenarios", "'grit'", "grid"], id="scenario set"
    ),
    pytest.param("threshold = 0.99,", "", ["components.peg", "threshold"], id="absent number"),
    pytest.param(
        "spot = 0.9 }", "spot = 0.9, move = 1 }", ["scenarios.grid.1", "spot", "move"], id="two moves in one scenario"
    ),
    pytest.param("{ spot = 0.9 }", '{ vol = "up" }', ["scenarios.grid.1", "spot", "move"], id="no move in a scenario"),
    pytest.param("max(scan, 0) + peg", "max(scam, 0)", ["'scam'", "peg", "scan", "im_factor"], id="unknown name"),
    pytest.param("im_factor * maintenance", "im_factor ** 2", ["im_factor ** 2", "+ - * /", "max"], id="operator"),
    pytest.param('margin.initial = "im_factor * maintenance"', "", ["margin", "initial"], id="no initial margin"),
    pytest.param(
        'provenance.default = "estimated"',
        'provenance.default = "guessed"',
        ["provenance.default", "'guessed'", "'verified'"],
        id="grade",
    ),
    pytest.param('title = "A test"', "title = ", ["mine.toml", "TOML", "line"], id="not TOML"),
]


@pytest.mark.parametrize(("old", "new", "says"), BROKEN)
def test_a_broken_file_is_refused_with_key_value_and_what_is_allowed(
    old: str, new: str, says: list[str], tmp_path: Path
) -> None:
    message = refusal(tmp_path, old, new)
    for word in says:
        assert word in message


def test_every_problem_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    text = TEXT.replace('kinds = ["option"]', 'kinds = ["swap"]').replace("factor = 4", 'factor = "x"')
    with pytest.raises(UsageError) as caught:
        load_model(written(tmp_path, text))
    assert "kinds.0" in str(caught.value)
    assert "components.peg" in str(caught.value)


def test_a_component_may_only_look_back(tmp_path: Path) -> None:
    big, later = (
        '{ kind = "largest", of = ["later"] }',
        '{ kind = "price_shortfall", asset = "USDC", threshold = 1, factor = 1 }',
    )
    forward = f"components.big = {big}\ncomponents.later = {later}\n"
    message = refusal(tmp_path, "parameters.im_factor", forward + "parameters.im_factor")
    for word in ("components.big.of", "later", "scan"):
        assert word in message


def test_replaced_numbers_are_recorded_and_the_original_is_left_alone() -> None:
    model = load_model("derive-pm1")
    changed = model.replace({"parameters.im_factor": 1.5}).replace({"components.perp.numbers.rate": 0.04})
    assert changed.file.parameters["im_factor"] == {"default": 1.5}
    assert changed.overrides == {"parameters.im_factor": 1.5, "components.perp.numbers.rate": 0.04}
    assert changed.label == model.label
    assert model.file.parameters["im_factor"]["default"] == model.raw["parameters"]["im_factor"] == 1.25
    assert changed.raw["parameters"]["im_factor"] == 1.5


def test_a_number_for_one_unit_keeps_the_number_of_all_others() -> None:
    changed = load_model("derive-pm1").replace({"parameters.im_factor.BTC": 1.5})
    assert changed.file.parameters["im_factor"] == {"default": 1.25, "BTC": 1.5}
    bound = bind(changed.file, UNITS, ASSETS, BASE)
    assert np.asarray(bound.parameters["im_factor"]).tolist() == [1.5, 1.25, 1.25]


def test_a_key_of_the_schema_that_the_file_leaves_out_may_be_set() -> None:
    assert load_model("correlated-pm").replace({"vol_limit": 9.0}).file.vol_limit == 9.0


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        pytest.param("parameters.im_faktor", 1.5, "im_factor", id="a number that no expression uses"),
        pytest.param("components.perp.rat", 0.1, "components.perp", id="unknown number of a component"),
        pytest.param("nonsense.key", 1, "nonsense", id="unknown table"),
        pytest.param("title.x", 1, "title", id="a text is not a table"),
        pytest.param("parameters.im_factor", "high", "parameters.im_factor", id="a word for a number"),
        pytest.param("margin.initial", "__import__('os')", "margin", id="a call for a requirement"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_by_key(key: str, value: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_model("derive-pm1").replace({key: value})


ALLOWED = [
    pytest.param("a", "a", id="a name"),
    pytest.param("2", 2.0, id="a number"),
    pytest.param("-a", ("-", 0.0, "a"), id="a sign"),
    pytest.param("a - b * 2 / b", ("-", "a", ("/", ("*", "b", 2.0), "b")), id="precedence"),
    pytest.param("max(a, b, 0) + sqrt(abs(a))", ("+", ("max", "a", "b", 0.0), ("sqrt", ("abs", "a"))), id="functions"),
]


@pytest.mark.parametrize(("text", "expected"), ALLOWED)
def test_the_grammar_gives_nested_tuples(text: str, expected: object) -> None:
    parsed = parse_expression(text, {"a", "b"})
    assert parsed == expected
    assert names_in(parsed) <= {"a", "b"}


REFUSED = [
    pytest.param("open('x')", id="a call"),
    pytest.param("__import__('os').system('id')", id="an import"),
    pytest.param("a.real", id="an attribute"),
    pytest.param("a[0]", id="an index"),
    pytest.param("a ** b", id="a power"),
    pytest.param("a // b", id="a whole division"),
    pytest.param("a if b else a", id="a choice"),
    pytest.param("a < b", id="a comparison"),
    pytest.param("a and b", id="logic"),
    pytest.param("lambda: a", id="a function"),
    pytest.param("[a for a in b]", id="a loop"),
    pytest.param("'a'", id="a text"),
    pytest.param("True", id="a truth value"),
    pytest.param("1j", id="an imaginary number"),
    pytest.param("+a", id="a plus sign"),
    pytest.param("max(*a)", id="unpacking"),
    pytest.param("max(a, key=b)", id="a keyword"),
    pytest.param("max()", id="no operand"),
    pytest.param("sqrt(a, b)", id="a root of two numbers"),
    pytest.param("abs(a, b)", id="an absolute value of two numbers"),
    pytest.param("a :=", id="half a sentence"),
    pytest.param("", id="nothing"),
    pytest.param("c", id="an unknown name"),
    pytest.param("max", id="a function without its operands"),
]


@pytest.mark.parametrize("text", REFUSED)
def test_the_grammar_refuses_everything_else(text: str) -> None:
    with pytest.raises(ValueError, match=r"use names|known here"):
        parse_expression(text, {"a", "b"})


def test_numbers_by_unit_fall_back_to_the_default() -> None:
    assert by_name({"default": 1.0, "ETH": 2.0}, UNITS).tolist() == [1.0, 2.0, 1.0]


def test_a_move_is_a_multiple_of_the_units_range_and_a_level_is_a_level() -> None:
    file = load_model("correlated-pm").file
    row = next(row for row in file.scenarios["grid"] if row.move == -1)
    ranges = [file.scenario_range.get(unit, file.scenario_range["default"]) for unit in UNITS]
    np.testing.assert_allclose(spot_levels(file, row, UNITS), 1 - np.array(ranges))
    first = load_model("derive-pm1@2025-02-01").file.scenarios["grid"][0]
    assert spot_levels(file, first, UNITS).tolist() == [1.18] * 3


def test_correlations_follow_the_units_of_the_book_and_unlisted_units_stand_alone() -> None:
    file = load_model("correlated-pm").file
    tables = bind(file, ("ETH", "ZZZ", "BTC"), ASSETS, BASE).aggregation.tables
    table, listed = np.asarray(tables["matrix"]), np.asarray(tables["is_listed"])
    row, column = (file.aggregation.units.index(unit) for unit in ("ETH", "BTC"))
    rho = file.aggregation.correlation[row][column]
    np.testing.assert_array_equal(table, [[1, 0, rho], [0, 1, 0], [rho, 0, 1]])
    assert listed.tolist() == [True, False, True]


def test_weights_of_base_assets_replace_those_of_the_table() -> None:
    bound = bind(load_model("derive-pm1").file, UNITS, ASSETS, BASE)
    assert np.asarray(bound.account.numbers["initial"]["assets"]).tolist() == [1.0, 1.0, 0.0, 1.0]
    assert np.asarray(bound.account.numbers["initial"]["liability"]).tolist() == [1.0] * 4


def test_a_bound_model_holds_numpy_numbers_and_no_words_in_its_leaves() -> None:
    leaves = jax.tree.leaves(bind(load_model("derive-pm1").file, UNITS, ASSETS, BASE))
    assert leaves
    assert all(isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fib" for leaf in leaves)
    assert {"scenario_sets", "components"} <= {
        f.name for f in fields(type(bind(load_model("derive-pm1").file, UNITS, ASSETS, BASE)))
    }


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param([[1.0, 0.5]], "2 x 2", id="not square"),
        pytest.param([[1.0, 0.5], [0.4, 1.0]], "symmetric", id="not symmetric"),
        pytest.param([[1.0, 0.5], [0.5, 0.9]], "diagonal", id="diagonal"),
        pytest.param([[1.0, 1.5], [1.5, 1.0]], "outside", id="above one"),
        pytest.param([[1.0, 0.5], [0.5, 1.0]], None, id="sound"),
    ],
)
def test_a_table_that_is_no_correlation_is_told_why(rows: list[list[float]], says: str | None) -> None:
    problem = matrix_problem(["A", "B"], rows)
    assert (problem is None) if says is None else (problem is not None and says in problem[1])


def test_three_correlations_that_cannot_be_true_together_are_refused() -> None:
    rows = [[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]]
    problem = matrix_problem(["A", "B", "C"], rows)
    assert problem is not None
    assert "semidefinite" in problem[1]


def test_expressions_of_charges_may_name_exactly_what_the_kernels_know() -> None:
    assert set(CONTRACT_NAMES) == set(CONTRACT_VALUES)
    assert set(UNIT_NAMES) == set(UnitMarket._fields)
