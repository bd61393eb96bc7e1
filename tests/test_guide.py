"""Claims about the guide to model files: its files run, and it has every word of the schema and every name."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpumargin.catalogue import load_model
from gpumargin.errors import UsageError
from gpumargin.expressions import parse_expression
from gpumargin.modelfile import ModelFile, balances, components, names, scenarios
from gpumargin.run import margin
from gpumargin.tables import Book
from tests.books import AS_OF, tiny_book

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("one_shape")

GUIDE = (Path(__file__).parents[1] / "gpumargin" / "models" / "README.md").read_text("utf-8")
WHOLE, *PIECES = re.findall(r"^```toml\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
LONGEST = 40  # lines of a venue from nothing
NAMED = {"components", "balances", "categories", "parameters"}  # tables of headings, each of its own
NAMES = {
    "contracts": names.CONTRACT_NAMES,
    "positions": names.POSITION_NAMES,
    "expiries": names.EXPIRY_NAMES,
    "marks": names.MARK_NAMES,
    "feeds": names.FEED_NAMES,
    "terms": names.TERM_NAMES,
    "quotes": names.QUOTE_NAMES,
    "units": names.UNIT_NAMES,
    "balances": balances.BALANCE_NAMES,
    "orders": balances.ORDER_NAMES,
    "assets": balances.ASSET_NAMES,
    "accounts": {**balances.ACCOUNT_NAMES, balances.SETTLED: "P&L that joins balances"},
    "post": components.POST_NAMES,
    "weights": scenarios.WEIGHT_NAMES,
}


def words() -> set[str]:
    """Words that stand between backquotes or in a piece of a file."""
    return set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", GUIDE.replace("```", "")))))


def keys_of(schema: Any) -> Iterator[str]:
    """Keys that tables of the schema may have."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for inner in schema.values():
            yield from keys_of(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from keys_of(inner)


def choices_of(schema: Any) -> Iterator[str]:
    """Texts that are among a few: kinds, rules, levels."""
    if isinstance(schema, dict):
        yield from (word for word in [*schema.get("enum", []), schema.get("const")] if isinstance(word, str))
        for inner in schema.values():
            yield from choices_of(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from choices_of(inner)


def file_with(piece: str) -> dict[str, Any]:
    """The guide's first file with what a piece has in place of it."""
    raw = tomllib.loads(WHOLE)
    for key, value in tomllib.loads(piece).items():
        raw[key] = {**raw.get(key, {}), **value} if key in NAMED else value
    return raw


def test_a_venue_from_nothing_takes_under_forty_lines() -> None:
    assert len([line for line in WHOLE.splitlines() if line.strip()]) < LONGEST


@pytest.mark.slow
def test_the_first_file_gives_what_the_guide_prints(tmp_path: Path) -> None:
    (tmp_path / "my-pm.toml").write_text(WHOLE, "utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    printed = [line.removeprefix("# ") for line in code.splitlines() if line.startswith("# ")]
    assert done.stdout.splitlines() == printed, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PIECES)))
def test_every_piece_of_a_file_margins_a_book(number: int, tmp_path: Path) -> None:
    path = tmp_path / "my-pm.toml"
    path.write_text(WHOLE, "utf-8")
    model = load_model(path).replace(file_with(PIECES[number]))
    assert not margin(Book(**tiny_book()), model, as_of=AS_OF).accounts["status"].cast(str).eq("unknown").any()


def test_the_mistake_that_the_guide_shows_is_told_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "my-pm.toml"
    path.write_text(WHOLE.replace("spot * naked", "spot * nacked"), "utf-8")
    with pytest.raises(UsageError) as caught:
        load_model(path)
    told = re.findall(r"^```text\n.*?\n(  components.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    assert " ".join(told[0].split()) in " ".join(str(caught.value).split())


def test_every_key_and_choice_of_the_schema_is_in_the_guide() -> None:
    schema = ModelFile.model_json_schema()
    assert {*keys_of(schema), *choices_of(schema)} - words() == set()


@pytest.mark.parametrize("where", NAMES)
def test_every_name_that_expressions_know_is_in_the_guide(where: str) -> None:
    assert set(NAMES[where]) - words() == set()


def test_names_that_the_guide_lists_for_expressions_exist() -> None:
    known = {name for group in NAMES.values() for name in group}
    known |= {*keys_of(ModelFile.model_json_schema()), *choices_of(ModelFile.model_json_schema()), *names.MARK_COLUMNS}
    table = GUIDE[GUIDE.index("What expressions of a charge") : GUIDE.index("## Numbers and formulas")]
    balance = GUIDE[GUIDE.index("They may name `amount`") : GUIDE.index("| `[categories.NAME]`")]
    listed = set(re.findall(r"`([a-z_]+)`", table + balance))
    assert listed - known - {"forwards", "instruments", "marks", "unknown"} == set()


def test_functions_that_the_guide_names_are_those_of_expressions() -> None:
    for text in ("pow(a, b)", "shrink(a, b)", "where(a < b, a, b)", "marginal(a, t)", "bracket(a, t)"):
        assert parse_expression(text, {"a", "b"}, {"t"})
        assert text.partition("(")[0] in words()
