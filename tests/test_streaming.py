"""Claims about books that are read part by part: results and refusals of the whole book, in bounded memory."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpumargin import publish, run
from gpumargin.catalogue import load_model
from gpumargin.engine import Settings
from gpumargin.errors import InputError
from gpumargin.prepare import Options
from gpumargin.run import margin_folder, margin_to_folder
from gpumargin.synth import generate_book
from gpumargin.tables import BookFiles, WholeBook, feed, open_book, read_book, rowgroups

if TYPE_CHECKING:
    from collections.abc import Callable

ACCOUNTS, MODEL = 400, "derive-pm1"
SMALL = 3 << 18  # bytes: cuts the book into some ten parts
CUT = ("positions", "balances", "accounts")
SHOWN = ("by_accounting_asset", "balances", "rows", "filled", "marks", "as_of", "models")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "book"
    generate_book(path, accounts=ACCOUNTS, positions_per_account=7, underlyings=2, seed=5)
    return path


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of the book in memory says."""
    return said(margin_to_folder(read_book(folder), load_model(MODEL), tmp_path_factory.mktemp("whole"), Options()))


def said(run: Path) -> dict[str, Any]:
    summary, manifest = (json.loads((run / f"{name}.json").read_text()) for name in ("summary", "manifest"))
    return {name: summary[name] for name in SHOWN} | {"results": manifest["results"], "owners": owners(run)}


def owners(run: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(run / "owners.parquet").to_dicts()


def streamed(book: Path, out: Path, memory: int = SMALL) -> Path:
    assert isinstance(open_book(book, memory=memory), BookFiles)
    return margin_folder(book, load_model(MODEL), out, Options(settings=Settings(memory_budget=memory)))


def rewritten(folder: Path, to: Path, write: Callable[[str, pl.DataFrame, Path], None]) -> Path:
    """The book with the tables of its accounts written another way."""
    for path in folder.iterdir():
        if path.stem not in CUT:
            (to / path.name).parent.mkdir(parents=True, exist_ok=True)
            (to / path.name).write_bytes(path.read_bytes())
    book = read_book(folder)
    for name in CUT:
        write(name, book.frame(name), to)
    return to


def in_row_groups(rows: int) -> Callable[[str, pl.DataFrame, Path], None]:
    def write(name: str, frame: pl.DataFrame, to: Path) -> None:
        pq.write_table(frame.to_arrow(), to / f"{name}.parquet", row_group_size=rows)

    return write


def shuffled(name: str, frame: pl.DataFrame, to: Path) -> None:
    in_row_groups(500)(name, frame.sample(fraction=1, shuffle=True, seed=3), to)


def in_files(name: str, frame: pl.DataFrame, to: Path) -> None:
    """Three files whose accounts overlap: every third row each."""
    (to / name).mkdir()
    for k in range(3):
        frame.gather_every(3, k).write_parquet(to / name / f"{k}.parquet", row_group_size=300)


def without_statistics(name: str, frame: pl.DataFrame, to: Path) -> None:
    pq.write_table(frame.to_arrow(), to / f"{name}.parquet", row_group_size=400, write_statistics=False)


def with_integer_ids(name: str, frame: pl.DataFrame, to: Path) -> None:
    number = pl.col("account_id").str.strip_prefix("acct-").cast(pl.Int64)
    in_row_groups(300)(name, frame.with_columns(account_id=number), to)


WAYS = [in_row_groups(100), in_row_groups(10_000), shuffled, in_files, without_statistics]
FAST = ("shuffled",)
NAMES = ["small row groups in order", "one row group", "shuffled", "files that overlap", "no statistics"]


@pytest.mark.parametrize(
    "way",
    [pytest.param(w, marks=[] if n in FAST else pytest.mark.slow) for w, n in zip(WAYS, NAMES, strict=True)],
    ids=NAMES,
)
def test_a_book_in_parts_gives_the_results_of_the_whole_book(
    folder: Path, expected: dict[str, Any], tmp_path: Path, way: Callable[[str, pl.DataFrame, Path], None]
) -> None:
    book = rewritten(folder, tmp_path / "book", way)
    run = streamed(book, tmp_path / "runs")
    assert len(list((run / "accounts").iterdir())) > 4
    assert said(run) == expected
    assert pl.read_parquet(run / "accounts" / "*.parquet")["account_id"].is_sorted()


@pytest.mark.slow
def test_integer_ids_are_cut_by_number(folder: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    book = rewritten(folder, tmp_path / "book", with_integer_ids)
    assert said(streamed(book, tmp_path / "runs"))["by_accounting_asset"] == expected["by_accounting_asset"]


def inputs(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "manifest.json").read_text())["inputs"])


def test_hashes_of_inputs_are_those_of_the_rows_in_their_order(folder: Path, tmp_path: Path) -> None:
    book, model = rewritten(folder, tmp_path / "book", shuffled), load_model(MODEL)
    parts, whole = (
        margin_to_folder(opened, model, tmp_path / "runs", Options())
        for opened in (open_book(book, memory=SMALL), read_book(book))
    )
    assert inputs(parts) == inputs(whole)
    assert {table["of"] for table in inputs(parts).values()} == {"values"}


@pytest.mark.slow
def test_hashes_of_large_tables_in_files_are_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    book = rewritten(folder, tmp_path / "book", in_files)
    found = inputs(streamed(book, tmp_path / "runs"))
    assert {name for name, table in found.items() if table["of"] == "files"} == set(CUT)
    printed = "".join(
        f"{hashlib.sha256((book / name).read_bytes()).hexdigest()}  {name}\n" for name in found["positions"]["files"]
    )
    assert found["positions"]["sha256"] == hashlib.sha256(printed.encode()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True], ids=["written to", "another in its place"])
def test_a_book_that_changes_while_it_is_margined_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replaced: bool
) -> None:
    book = rewritten(folder, tmp_path / "book", in_row_groups(10_000))
    before = run.margin_parts

    def disturbed(*given: Any, **named: Any) -> None:
        before(*given, **named)
        path = book / "balances.parquet"
        if replaced:
            shutil.copy2(path, book / "copy").replace(path)
        else:
            path.touch()

    monkeypatch.setattr(run, "margin_parts", disturbed)
    with pytest.raises(InputError, match=r"GM119 balances.parquet: it changed while the book was read"):
        streamed(book, tmp_path / "runs")
    assert not (tmp_path / "runs" / "latest").exists()


@pytest.mark.slow
def test_runs_may_be_written_into_the_folder_of_their_book(folder: Path, tmp_path: Path) -> None:
    book = rewritten(folder, tmp_path / "book", in_row_groups(10_000))
    first, second = (streamed(book, book / "runs") for _ in range(2))
    assert said(first) == said(second)
    assert inputs(first) == inputs(second)


def test_a_book_that_fits_is_read_whole(folder: Path) -> None:
    assert isinstance(open_book(folder, memory=4 << 30), WholeBook)


# --- Refusals.


def refusal(book: Path, out: Path, memory: int) -> pl.DataFrame:
    """Failures of a run that publishes nothing and leaves nothing behind."""
    with pytest.raises(InputError) as caught:
        margin_folder(book, load_model(MODEL), out, Options(settings=Settings(memory_budget=memory)))
    assert not out.exists()
    return caught.value.failures


def broken(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Rows all over the book that break rules of every kind."""
    last = frame.height - 1
    if name == "positions":
        nan = pl.when(pl.int_range(pl.len()).is_in([3, 700, last])).then(float("nan")).otherwise("quantity")
        odd = pl.when(pl.int_range(pl.len()) == last - 1).then(pl.lit("NO-SUCH")).otherwise("instrument_id")
        return pl.concat([frame.with_columns(quantity=nan, instrument_id=odd), frame[1200:1201]])
    if name == "balances":
        return pl.concat([frame, frame[100:101]])
    return frame


@pytest.mark.parametrize("way", [in_row_groups(250), shuffled, in_files], ids=["in order", "shuffled", "files"])
def test_a_book_in_parts_is_refused_for_the_reasons_of_the_whole_book(
    folder: Path, tmp_path: Path, way: Callable[[str, pl.DataFrame, Path], None]
) -> None:
    book = rewritten(folder, tmp_path / "book", lambda name, frame, to: way(name, broken(name, frame), to))
    found = refusal(book, tmp_path / "runs", SMALL)
    assert set(found["code"]) >= {"GM103", "GM104", "GM105"}
    assert found.sort(found.columns).equals(refusal(book, tmp_path / "runs", 4 << 30).sort(found.columns))


def test_ids_of_two_types_are_refused_before_any_part_is_read(folder: Path, tmp_path: Path) -> None:
    def mixed(name: str, frame: pl.DataFrame, to: Path) -> None:
        (with_integer_ids if name == "balances" else in_row_groups(300))(name, frame, to)

    book = rewritten(folder, tmp_path / "book", mixed)
    found = refusal(book, tmp_path / "runs", SMALL)
    assert set(found["code"]) == {"GM101"}
    assert found.equals(refusal(book, tmp_path / "runs", 4 << 30))


@pytest.mark.slow
def test_a_ledger_that_disagrees_is_found_after_the_last_part(folder: Path, tmp_path: Path) -> None:
    book = rewritten(folder, tmp_path / "book", in_row_groups(250))
    pl.DataFrame({"asset": ["USDC"], "total": [1.0]}).write_parquet(book / "ledger.parquet")
    found = refusal(book, tmp_path / "runs", SMALL)
    assert found["code"].to_list() == ["GM120"]
    assert found.equals(refusal(book, tmp_path / "runs", 4 << 30))


def test_statistics_that_are_not_true_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    book = rewritten(folder, tmp_path / "book", in_row_groups(250))
    true = rowgroups._account_range
    monkeypatch.setattr(rowgroups, "_account_range", lambda *group: (true(*group)[1],) * 2)
    found = refusal(book, tmp_path / "runs", SMALL)
    assert (found["code"][0], found["column"][0]) == ("GM119", "account_id")


# --- Rows that wait on disk.


class Watch:
    """Which files lay in the scratch folder while a run wrote its parts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> None:
        self.seen: set[str] = set()
        write = publish.RunFolder.add_part

        def add_part(folder: publish.RunFolder, name: str, table: pa.Table) -> None:
            self.seen |= {path.name for path in folder.scratch.iterdir()} if folder.scratch.exists() else set()
            if error is not None:
                raise error
            write(folder, name, table)

        monkeypatch.setattr(publish.RunFolder, "add_part", add_part)


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed.Room, "take", lambda *_: False)


def test_rows_that_wait_on_disk_give_the_same_results_and_are_removed(
    folder: Path, expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, watch = rewritten(folder, tmp_path / "book", shuffled), Watch(monkeypatch)
    no_room(monkeypatch)
    assert said(streamed(book, tmp_path / "runs")) == expected
    assert {name.split("-")[0] for name in watch.seen} >= {"positions", "balances"}
    assert not [path for path in (tmp_path / "runs").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "error",
    [pytest.param(ValueError("a bug"), marks=pytest.mark.slow), KeyboardInterrupt()],
    ids=["a failure", "an interrupt"],
)
def test_rows_that_wait_on_disk_are_removed_whatever_ends_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    book, watch = rewritten(folder, tmp_path / "book", shuffled), Watch(monkeypatch, error)
    no_room(monkeypatch)
    with pytest.raises(type(error)):
        streamed(book, tmp_path / "runs")
    assert watch.seen
    assert not (tmp_path / "runs").exists()


# --- Memory.

MEASURED = """
import sys
from pathlib import Path
from gpumargin.cli.process import prepare_process
prepare_process()
from gpumargin.catalogue import load_model
from gpumargin.engine import Settings
from gpumargin.prepare import Options
from gpumargin.run import margin_folder
def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
small, large, out, budget = sys.argv[1:]
options = Options(settings=Settings(memory_budget=int(budget)))
margin_folder(Path(small), load_model("derive-pm1"), Path(out), options)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
margin_folder(Path(large), load_model("derive-pm1"), Path(out), options)
print(status("VmHWM") - before)
"""


def growth(small: Path, large: Path, out: Path, budget: int) -> int:
    """Most bytes that a run of a large book takes in a process that has compiled all it needs for a small one."""
    command = [sys.executable, "-c", MEASURED, str(small), str(large), str(out), str(budget)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("is_shuffled", [False, True], ids=["in order", "shuffled"])
def test_memory_stays_within_the_budget_whatever_the_size_of_the_book(tmp_path: Path, *, is_shuffled: bool) -> None:
    budget = 512 << 20  # the large book takes 1.3 GB as a whole
    for name, accounts in {"small": 40_000, "large": 400_000}.items():
        made = {"positions_per_account": 9, "underlyings": 2, "seed": 5, "shuffle": is_shuffled}
        generate_book(tmp_path / name, accounts=accounts, **made)
    assert growth(tmp_path / "small", tmp_path / "large", tmp_path / "runs", budget) < 1.1 * budget
