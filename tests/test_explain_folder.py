"""A run folder explains its accounts as it was published; whatever was changed since is an error that names it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpumargin.errors import InternalError, UsageError
from gpumargin.explain import explain_account
from tests.books import tiny_book, with_cell, write_book
from tests.explained import in_folder, tiny_run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_shape")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the tiny book, which no test may change."""
    return in_folder(tiny_book(), tmp_path_factory.mktemp("published"))


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be tampered with."""
    return shutil.copytree(published, tmp_path / published.name)


def rewritten(folder: Path, name: str, column: str, change: float) -> None:
    """Adds a number to the first cell of a column of a result table."""
    path = min((folder / name).glob("*.parquet"))
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[0] += change
    index = table.column_names.index(column)
    pq.write_table(table.set_column(index, table.schema.field(index), pa.array(values)), path)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("units", "scan"),
        ("units", "basis"),
        ("units", "peg"),
        ("units", "initial_margin"),
        ("units", "worst_loss"),
        ("accounts", "equity"),
        ("accounts", "maintenance_collateral_value"),
        ("accounts", "health"),
        ("accounts", "num_positions"),
    ],
)
def test_a_changed_result_is_an_error_that_names_it(folder: Path, table: str, column: str) -> None:
    rewritten(folder, table, column, 1)
    with pytest.raises(InternalError, match=rf"GM202: .*{column}.* of account 'alice'"):
        explain_account(folder, "alice")
    assert explain_account(folder, "carol").checks["ok"].all()


def test_a_change_of_one_part_in_a_hundred_million_is_seen(folder: Path) -> None:
    rewritten(folder, "units", "naked_options", 10_200 * 1e-8)
    with pytest.raises(InternalError, match="naked_options"):
        explain_account(folder, "alice")


@pytest.mark.slow
def test_a_changed_book_is_an_error(tmp_path: Path) -> None:
    folder = in_folder(tiny_book(), tmp_path)
    write_book(tmp_path / "book", with_cell(tiny_book(), "balances", row=0, column="amount", value=120_001.0))
    with pytest.raises(InternalError, match="is not what it was"):
        explain_account(folder, "alice")


def test_a_changed_status_is_an_error(folder: Path) -> None:
    path = min((folder / "accounts").glob("*.parquet"))
    accounts = pl.read_parquet(path).with_columns(status=pl.lit("bankrupt"))
    accounts.write_parquet(path)
    with pytest.raises(InternalError, match="status bankrupt"):
        explain_account(folder, "alice")


@pytest.mark.parametrize(
    ("asked", "hint"), [("alicia", "'alice'"), ("caro", "'carol'"), ("nobody-at-all", "4 account")]
)
def test_an_unknown_account_is_told_its_close_matches(published: Path, asked: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        explain_account(published, asked)


def test_an_unknown_pool_is_told_the_pools_of_the_account() -> None:
    with pytest.raises(UsageError, match="cross, isolated-1"):
        tiny_run("derive-pm1").explain("dave", "isolated-2")


def test_a_book_that_has_gone_is_named(tmp_path: Path) -> None:
    folder = in_folder(tiny_book(), tmp_path)
    (tmp_path / "book").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="not there now"):
        explain_account(folder, "alice")


def test_a_written_run_of_tables_in_memory_says_that_it_has_no_book(tmp_path: Path) -> None:
    folder = tiny_run("derive-pm1").write(tmp_path)
    with pytest.raises(UsageError, match=r"Run\.explain"):
        explain_account(folder, "alice")


def test_a_folder_explains_like_the_run_in_memory(published: Path) -> None:
    inside = tiny_run("derive-pm1").explain("alice")
    for place in (published, published.parent, published.parent / "latest", str(published)):
        outside = explain_account(place, "alice")
        assert outside.headline == inside.headline
        assert all(outside.tables[title].equals(table) for title, table in inside.tables.items())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["okx-pm", "bybit-uta"])
def test_a_model_whose_brackets_have_no_end_is_published_and_explained(model: str, tmp_path: Path) -> None:
    folder = in_folder(tiny_book(), tmp_path, model)
    for name in ("summary", "manifest"):
        text = (folder / f"{name}.json").read_text("utf-8")
        assert json.loads(text, parse_constant=pytest.fail)
    assert '"inf"' in text
    assert explain_account(folder, "alice").checks["ok"].all()


def test_explaining_imports_neither_jax_nor_the_kernels(published: Path) -> None:
    code = (
        "import sys; from gpumargin.explain import explain_account; explain_account(sys.argv[1], 'alice'); "
        "sys.exit(any(name.split('.')[0] in ('jax', 'jaxlib', 'gpumargin_kernels') for name in sys.modules))"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code, str(published)], env=environment, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
