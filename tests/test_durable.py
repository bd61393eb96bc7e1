"""Claims about runs that do not go well: broken disks, second writers, torn parts; and about going on after."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import weakref
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from gpumargin import engine, identity, origin
from gpumargin import run as running
from gpumargin.catalogue import load_model
from gpumargin.cli.app import app
from gpumargin.digests import ColumnDigest
from gpumargin.engine import Settings
from gpumargin.errors import InputError, ResourceError, UsageError
from gpumargin.lanes import lane
from gpumargin.prepare import Options
from gpumargin.publish import RunFolder, records, runfolder
from gpumargin.run import margin_folder
from gpumargin.tables import BookFiles, feed, open_book
from tests.failing import FAULTS, MEMORY, SHORT, FailingOs, everything, installed, restored, small_book, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Tell = Callable[[str], None]

MODEL = load_model("derive-pm1")
FAULT_STEP = 3
"""A long run of the tests tries one fault in so many, of every call some; `FAULT_STEP=1` in the environment: all."""
PARTS = 3  # of the small book; each gives a file for every device


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = small_book(tmp_path_factory.mktemp("durable") / "book")
    source = open_book(path, memory=MEMORY)
    assert isinstance(source, BookFiles)
    assert source.number == PARTS
    return path


@pytest.fixture(scope="module")
def expected(book: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return results(run(book, tmp_path_factory.mktemp("undisturbed")))


@pytest.fixture(autouse=True)
def no_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rows that wait for their part always wait on disk; file calls are whole again after each test."""
    monkeypatch.setattr(feed.Room, "take", lambda *_: False)
    yield
    restored()


def run(book: Path, out: Path, *, model: Any = MODEL, memory: int = MEMORY, **options: Any) -> Path:
    settings = Settings(memory_budget=memory)
    return margin_folder(book, model, out, Options(settings=settings, book_path=str(book)), **options)


def results(folder: Path) -> dict[str, str]:
    """Result hashes of a run, which its files are checked against."""
    said: dict[str, str] = json.loads((folder / "manifest.json").read_text())["results"]
    for name, expected in said.items():
        digest = ColumnDigest()
        for path in sorted((folder / name).glob("*.parquet")):
            digest.add(pq.ParquetFile(path, page_checksum_verification=True).read())
        assert digest.hexdigest() == expected, f"{name} of {folder} is not what the manifest says"
    return said


@dataclass
class Tally:
    """What came of many faults."""

    ends: Counter[str] = field(default_factory=Counter)
    torn: int = 0
    wrong: int = 0
    left: int = 0

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        return (
            f"{self.ends.total()} faults: {ends}; {self.torn} torn, {self.wrong} wrong, {self.left} left files behind"
        )


def judge(out: Path, expected: dict[str, str], tally: Tally) -> None:
    """Every run that can be seen must be whole and right."""
    for folder in visible(out):
        try:
            tally.wrong += results(folder) != expected
        except Exception:  # noqa: BLE001  whatever a torn run raises
            tally.torn += 1


def one_fault(
    book: Path, out: Path, failing: FailingOs, expected: dict[str, str], tally: Tally, *, resumes: bool
) -> None:
    """A run with a fault, and the run after it without."""
    installed(failing)
    try:
        run(book, out)
        tally.ends["carried on"] += 1
    except ResourceError:
        tally.ends["ended with 5"] += 1
    finally:
        restored()
    judge(out, expected, tally)
    before = visible(out)
    after = run(book, out, resumes=resumes)
    tally.wrong += results(after) != expected
    tally.wrong += (out / "latest").read_text() != f"{after.name}\n"
    names = {after.name, "latest", *(folder.name for folder in before)}
    tally.left += {path.name for path in out.iterdir()} != names


def calls_of_a_run(book: Path, out: Path) -> list[str]:
    failing = installed(FailingOs())
    run(book, out)
    restored()
    return failing.made


def all_faults(calls: list[str]) -> list[tuple[int, int | str, bool]]:
    return [
        (at, fault, forever)
        for at, call in enumerate(calls)
        for fault in FAULTS
        for forever in (False, True)
        if fault != SHORT or call == "write"
    ]


def try_faults(book: Path, expected: dict[str, str], out: Path, chosen: list[tuple[int, int | str, bool]]) -> Tally:
    tally = Tally()
    for number, (at, fault, forever) in enumerate(chosen):
        failing = FailingOs(at, fault, forever=forever)
        one_fault(book, out / str(number), failing, expected, tally, resumes=number % 3 != 0)
        assert failing.failed, f"call {at} was never made"
    return tally


def test_a_fault_of_any_file_call_ends_with_5_or_changes_nothing(
    book: Path, expected: dict[str, str], tmp_path: Path, rng: np.random.Generator, tell: Tell
) -> None:
    faults = all_faults(calls_of_a_run(book, tmp_path / "counted"))
    never_writable = (0, errno.EIO, True)  # which no run survives
    chosen = [never_writable, *(faults[i] for i in rng.permutation(len(faults))[:2])]
    tally = try_faults(book, expected, tmp_path, chosen)
    tell(str(tally))
    assert (tally.torn, tally.wrong, tally.left) == (0, 0, 0)
    assert tally.ends["ended with 5"]


@pytest.mark.slow
def test_faults_of_every_file_call_end_with_5_or_change_nothing(
    book: Path, expected: dict[str, str], tmp_path: Path, tell: Tell
) -> None:
    calls = calls_of_a_run(book, tmp_path / "counted")
    tally = try_faults(book, expected, tmp_path, all_faults(calls)[:: int(os.environ.get("FAULT_STEP", FAULT_STEP))])
    tell(f"{len(calls)} calls {dict(Counter(calls))}; {tally}")
    assert (tally.torn, tally.wrong, tally.left) == (0, 0, 0)
    assert min(tally.ends["ended with 5"], tally.ends["carried on"])


# --- Going on.


class BrokenOff:
    """Runs that end with an error once some parts are finished."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, parts: int, error: BaseException | None = None) -> None:
        self._patch, self._parts = monkeypatch, parts
        self._error = OSError(28, "No space left on device") if error is None else error

    def run(self, book: Path, out: Path, **options: Any) -> Path:
        """The place that the run leaves."""
        finish = RunFolder.finish_part

        def finish_part(folder: RunFolder, *arguments: Any) -> None:
            finish(folder, *arguments)
            if len(folder.finished) == self._parts:
                raise self._error

        with self._patch.context() as patch:
            patch.setattr(RunFolder, "finish_part", finish_part)
            with pytest.raises((ResourceError, type(self._error))) as caught:
                run(book, out, **options)
        said = [str(caught.value), *getattr(caught.value, "__notes__", [])]
        assert f"{self._parts} parts are finished" in " ".join(said)
        (place,) = [path for path in out.iterdir() if path.is_dir()]
        assert not (place / "scratch").exists()
        return place


def written_by(
    book: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[Path, list[str], list[str]]:
    """A resumed run, the tables of parts that it wrote, and what it said."""
    made, notes = list[str](), list[str]()
    add = RunFolder.add_part

    def add_part(folder: RunFolder, name: str, table: Any) -> None:
        made.append(name)
        add(folder, name, table)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add_part", add_part)
        return run(book, out, resumes=True, note=notes.append, **options), made, notes


@pytest.mark.parametrize("gone", [("run",), ("run", "parts")], ids=" and ".join)
def test_a_place_whose_removal_had_begun_is_gone_on_with(
    book: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: tuple[str, ...]
) -> None:
    place = BrokenOff(monkeypatch, 1).run(book, tmp_path)
    for name in gone:
        shutil.rmtree(place / name)
    assert results(run(book, tmp_path, resumes=True)) == expected


@pytest.mark.parametrize("parts", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_resumed_run_computes_the_rest_and_is_the_uninterrupted_one(
    book: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    whole = run(book, tmp_path / "whole")
    total = len(list((whole / "accounts").iterdir()))
    BrokenOff(monkeypatch, parts).run(book, tmp_path / "out")
    resumed, made, notes = written_by(book, tmp_path / "out", monkeypatch)
    assert made.count("accounts") * PARTS == total * (PARTS - parts)
    assert f"behind {parts} finished parts" in notes[0]
    assert results(resumed) == expected
    assert (resumed / "owners.parquet").read_bytes() == (whole / "owners.parquet").read_bytes()
    for name in ("summary", "manifest"):
        one, other = (json.loads((folder / f"{name}.json").read_text()) for folder in (whole, resumed))
        assert {key: one[key] for key in one if key != "seconds"} == {
            key: other[key] for key in one if key != "seconds"
        }
    assert everything(resumed) == everything(whole)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {resumed.name, "latest"}


def test_a_resumed_run_reads_no_row_group_of_finished_parts_alone(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load = feed.read_group

    def watched(group: Any, like: Any) -> Any:
        read.append(group.part.table)
        return load(group, like)

    monkeypatch.setattr(feed, "read_group", watched)
    run(book, tmp_path / "whole")
    whole, _ = len(read), read.clear()
    BrokenOff(monkeypatch, PARTS - 1).run(book, tmp_path / "out")
    read.clear()
    run(book, tmp_path / "out", resumes=True)
    assert len(read) <= whole * (1 / PARTS) + 3  # and one group of each table that reaches into the part before


def test_a_resumed_run_holds_the_record_of_few_parts_at_a_time(
    book: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, most = records.read_record, 0
    known: list[weakref.ref[records.Record]] = []

    def watched(folder: Path, number: int) -> records.Record | None:
        nonlocal most
        if (record := read(folder, number)) is not None:
            known.append(weakref.ref(record))
        most = max(most, sum(each() is not None for each in known))
        return record

    BrokenOff(monkeypatch, PARTS).run(book, tmp_path)
    for module in (records, runfolder):
        monkeypatch.setattr(module, "read_record", watched)
    assert results(run(book, tmp_path, resumes=True)) == expected
    assert 1 <= most < PARTS


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "a bit of the first part": (lambda place: flip(place / "run/accounts/part-00000.parquet"), 0),
    "a bit of the second part": (lambda place: flip(place / "run/units/part-00003.parquet"), 1),
    "a part cut short": (lambda place: cut_short(place / "run/units/part-00003.parquet"), 1),
    "a part that is gone": (lambda place: (place / "run/accounts/part-00003.parquet").unlink(), 1),
    "a part in the place of another": (
        lambda place: shutil.copy(place / "run/units/part-00000.parquet", place / "run/units/part-00003.parquet"),
        1,
    ),
    "a bit of a record": (lambda place: flip(place / "parts/00001.record"), 1),
    "a record in the place of another": (
        lambda place: shutil.copy(place / "parts/00000.record", place / "parts/00001.record"),
        1,
    ),
}


FAST = ("a bit of the second part", "a bit of a record")


@pytest.mark.parametrize("damage", [pytest.param(d, marks=() if d in FAST else pytest.mark.slow) for d in DAMAGES])
def test_a_part_that_is_not_what_its_record_says_is_computed_again(
    book: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    spoil, kept = DAMAGES[damage]
    spoil(BrokenOff(monkeypatch, 2).run(book, tmp_path))
    resumed, _, notes = written_by(book, tmp_path, monkeypatch)
    assert results(resumed) == expected
    assert any(f"behind {kept} finished parts" in note for note in notes) == bool(kept)


def test_a_run_that_stops_before_the_pointer_is_pointed_to_when_it_is_resumed(
    book: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_point(_: RunFolder) -> None:
        raise OSError(5, "Input/output error")

    first = run(book, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "point", no_point)
        with pytest.raises(ResourceError, match="is published, but 'latest'"):
            run(book, tmp_path)
    assert (tmp_path / "latest").read_text() == f"{first.name}\n"
    resumed, made, _ = written_by(book, tmp_path, monkeypatch)
    assert made == []
    assert results(resumed) == expected
    assert (tmp_path / "latest").read_text() == f"{resumed.name}\n"
    assert {path.name for path in tmp_path.iterdir()} == {first.name, resumed.name, "latest"}


def test_other_parameters_do_not_go_on_with_an_unfinished_run(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = BrokenOff(monkeypatch, 1).run(book, tmp_path)
    with pytest.raises(UsageError, match="differs in models, overrides, memory_budget"):
        run(book, tmp_path, resumes=True, memory=MEMORY + 1, model=MODEL.replace({"parameters.im_factor": 2.0}))
    assert place.exists()


def test_an_altered_book_does_not_go_on_with_an_unfinished_run(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = shutil.copytree(book, tmp_path / "book")
    BrokenOff(monkeypatch, 1).run(mine, tmp_path / "out")
    table = pq.read_table(mine / "balances.parquet")
    pq.write_table(table.slice(1), mine / "balances.parquet", row_group_size=30)
    with pytest.raises(UsageError, match="differs in files"):
        run(mine, tmp_path / "out", resumes=True)


def test_nothing_to_resume_is_said_and_the_run_begins(book: Path, expected: dict[str, str], tmp_path: Path) -> None:
    notes: list[str] = []
    assert results(run(book, tmp_path, resumes=True, note=notes.append)) == expected
    assert "nothing to resume" in notes[0]


def test_a_new_run_removes_what_it_replaces_and_keeps_what_others_could_go_on_with(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = BrokenOff(monkeypatch, 1).run(book, tmp_path / "one")
    other = BrokenOff(monkeypatch, 1).run(book, tmp_path / "other", memory=MEMORY + 1)
    shutil.move(other, tmp_path / "one" / other.name)
    notes: list[str] = []
    run(book, tmp_path / "one", note=notes.append)
    assert not mine.exists()
    assert (tmp_path / "one" / other.name).exists()
    assert other.name in notes[0]


def test_a_refused_book_leaves_nothing_to_resume(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = shutil.copytree(book, tmp_path / "book")
    table = pq.read_table(mine / "balances.parquet")
    amounts = table["amount"].to_pylist()
    amounts[-1] = float("nan")
    index = table.column_names.index("amount")
    pq.write_table(table.set_column(index, "amount", [amounts]), mine / "balances.parquet", row_group_size=30)
    with pytest.raises(InputError):
        run(mine, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- One writer.


def test_a_second_writer_of_a_run_ends_with_5(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BrokenOff(monkeypatch, 1).run(book, tmp_path)
    caught: list[ResourceError] = []
    finish = RunFolder.finish_part

    def finish_part(folder: RunFolder, *arguments: Any) -> None:
        finish(folder, *arguments)
        with pytest.raises(ResourceError, match=f"is being written by pid {os.getpid()} since") as second:
            RunFolder(tmp_path, folder._identity, resumes=True).__enter__()
        caught.append(second.value)

    monkeypatch.setattr(RunFolder, "finish_part", finish_part)
    run(book, tmp_path, resumes=True)
    assert [error.exit_code for error in caught] == [5] * len(caught)
    assert caught


def test_a_lock_without_a_living_holder_binds_nobody(
    book: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = BrokenOff(monkeypatch, 1).run(book, tmp_path)
    place.with_name(f"{place.name}.lock").write_text(f"pid {os.getpid()} since 2999-01-01T00:00:00+0000\n")
    resumed, _, _ = written_by(book, tmp_path, monkeypatch)
    assert results(resumed) == expected


def test_a_second_run_of_one_id_ends_with_5_and_the_first_stays(
    book: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(running, "new_run_id", lambda _: "one")
        first = run(book, tmp_path)
        with pytest.raises(ResourceError, match="is there already"):
            run(book, tmp_path)
    assert results(first) == expected
    second, made, _ = written_by(book, tmp_path, monkeypatch)
    assert results(second) == expected
    assert made == []


def test_a_clock_set_back_changes_nothing_but_the_name(
    book: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BrokenOff(monkeypatch, 1).run(book, tmp_path)
    name = identity.new_run_id({}, identity.datetime(2001, 1, 1, tzinfo=identity.UTC))
    monkeypatch.setattr(running, "new_run_id", lambda _: name)
    resumed, _, _ = written_by(book, tmp_path, monkeypatch)
    assert results(resumed) == expected
    assert (tmp_path / "latest").read_text() == f"{name}\n"


# --- Places without room or rights, memory, signals.


def test_a_disk_without_room_is_refused_before_anything_is_computed(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(origin.shutil, "disk_usage", lambda _: real._replace(free=10_000))
    monkeypatch.setattr(engine.Engine, "run", pytest.fail)
    with pytest.raises(ResourceError, match="MB are wanted"):
        run(book, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["file/runs", "file"])
def test_a_place_that_is_no_folder_ends_with_5(book: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ResourceError, match="file"):
        run(book, tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_goes_while_the_run_is_made_ends_with_5(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = RunFolder.finish_part

    def finish_part(folder: RunFolder, *arguments: Any) -> None:
        finish(folder, *arguments)
        shutil.rmtree(tmp_path / "out")

    monkeypatch.setattr(RunFolder, "finish_part", finish_part)
    with pytest.raises(ResourceError, match="nothing was published"):
        run(book, tmp_path / "out")
    assert not (tmp_path / "out").exists()


NO_MEMORY = "RESOURCE_EXHAUSTED: out of memory while trying to allocate"


def exhausted(monkeypatch: pytest.MonkeyPatch, at: int, *, forever: bool) -> list[int]:
    """Makes one launch of a part fail for want of device memory, or all from one on; returns the launches made."""
    launches: list[int] = []
    compute = engine.Engine.compute

    def failing(self: engine.Engine, block: Any) -> Any:
        launches.append(len(launches))
        if launches[-1] == at or (forever and launches[-1] > at):
            raise jax.errors.JaxRuntimeError(NO_MEMORY)
        return compute(self, block)

    monkeypatch.setattr(engine.Engine, "compute", failing)
    monkeypatch.setattr(engine, "MIN_ACCOUNTS_PER_SHARD", 4)
    return launches


@pytest.mark.slow
@pytest.mark.parametrize("forever", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["once", "from then on"])
def test_device_memory_that_runs_out_at_any_launch_gives_the_same_bits_or_5(
    book: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Tell, forever: bool
) -> None:
    with monkeypatch.context() as patch:
        launches = exhausted(patch, -1, forever=False)
        run(book, tmp_path / "counted")
    count = len(launches)
    ends: Counter[str] = Counter()
    for at in range(count):
        out = tmp_path / str(at)
        with monkeypatch.context() as patch:
            exhausted(patch, at, forever=forever)
            try:
                assert results(run(book, out)) == expected
                ends["the same bits"] += 1
            except ResourceError:
                assert visible(out) == []
                ends["ended with 5"] += 1
        assert results(run(book, out, resumes=True)) == expected
    tell(f"{count} launches, {dict(ends)}")
    assert ends == {"ended with 5" if forever else "the same bits": count}


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="interrupt", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, id="terminate"),
    ],
)
def test_a_signal_ends_the_run_in_order_and_it_can_be_resumed(
    book: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    finish = RunFolder.finish_part

    def finish_part(folder: RunFolder, *arguments: Any) -> None:
        finish(folder, *arguments)
        if len(folder.finished) == 1:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    arguments = ["run", str(book), "--model", MODEL.label, "--out", str(tmp_path), "--memory-budget", str(MEMORY)]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish_part", finish_part)
        ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == code, ended.output
    assert "parts are finished, run --resume" in " ".join(ended.output.split())
    assert signal.getsignal(number) is before
    assert visible(tmp_path) == []
    assert not list(tmp_path.glob(".staging-*/scratch"))
    ended = CliRunner().invoke(app, [*arguments, "--resume"])
    assert ended.exit_code == 0, ended.output
    (folder,) = visible(tmp_path)
    assert results(folder) == expected
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, "latest"}


def test_work_behind_a_piece_that_failed_is_not_done() -> None:
    done: list[int] = []

    def piece(number: int) -> None:
        if number == 1:
            raise OSError(28, "No space left on device")
        done.append(number)

    def work() -> None:
        with lane() as behind:
            for number in range(6):
                behind.do(piece, number)

    with pytest.raises(OSError, match="No space"):
        work()
    assert done == [0]
