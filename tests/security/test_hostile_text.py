"""Claims about ids made to act: on a page, in a spreadsheet, on a terminal, as a path. Shown, they do nothing."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from tests.books import tiny_book, write_book
from tests.cli.conftest import _call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer.testing import Result

MODEL = ("--model", "derive-sm")
TRIGGERS = ("=", "+", "-", "@", "\t", "\r", "\0")
TWIN = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
PLAIN = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    '=HYPERLINK("http://example.org","x")',
    "+1",
    "-2+3",
    "@SUM(A1)",
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    "a/b\\c",
    "[bold red]markup[/]",
    "{{ 7 * 7 }}{% raw %}",
    "$(touch CANARY)`touch CANARY`",
    "%s%n{0}",
    "'; DROP TABLE accounts; --",
    TWIN,
    unicodedata.normalize("NFD", TWIN),
    "a" * 256,
]
"""Ids of visible characters only, which a book may hold."""
ACTIVE = {
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://example.org\x1b\\click\x1b]8;;\x1b\\",
    "eight-bit": "\x9b2J",
    "direction": "a\u202eb",
    "isolate": "a\u2066b",
    "zero-width": "a\u200bb",
    "nul": "a\0b",
    "newline": "a\nb",
    "return": "a\rb",
    "tab": "\tx",
    "escape": "\x1b",
    "separator": "a\u2028b",
    "long": "x" * 1_000_000,
    "empty": "",
}
"""Ids that are refused."""


def _with_ids(ids: list[str]) -> dict[str, pl.DataFrame]:
    """The tiny book, and a copy of an account of it under each of these ids."""
    book = tiny_book()
    for name in ("positions", "balances"):
        own = book[name].filter(pl.col("account_id") == "alice")
        copies = [own.with_columns(account_id=pl.lit(each)) for each in ids]
        book[name] = pl.concat([book[name], *copies])
    return book


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a book of hostile ids and its snapshot."""
    folder = tmp_path_factory.mktemp("text")
    write_book(folder / "book", _with_ids(PLAIN))
    done = _call("snapshot", folder / "book", *MODEL, "--out", folder / "runs", "--format", "json")
    assert done.exit_code == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    return place / "runs" / (place / "runs" / "latest").read_text().strip()


def _reading(place: Path, run: Path, accounts: list[str]) -> Iterator[tuple[object, ...]]:
    """Every verb that shows data of a book or a run."""
    yield "show", run
    yield "top", run, "--by", "equity", "-n", 100
    yield "greeks", place / "book", *MODEL
    yield "check", place / "book"
    for account in accounts:
        yield "explain", run, "--account", account


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _assert_harmless(done: Result, *, is_csv: bool) -> None:
    for text in (done.stdout, done.stderr):
        assert all(c in "\n\xa0" or c.isprintable() for c in text), "nothing acts on a terminal"
    if is_csv:
        cells = [cell for row in csv.reader(io.StringIO(done.stdout)) for cell in row]
        assert not [cell for cell in cells if cell.startswith(TRIGGERS) and not _is_number(cell)]


@pytest.mark.parametrize("form", ["table", "csv", pytest.param("json", marks=pytest.mark.slow)])
def test_no_reading_verb_lets_an_id_act(form: str, place: Path, run: Path) -> None:
    shown = ""
    for verb in _reading(place, run, [PLAIN[2], PLAIN[6]] if form == "csv" else PLAIN[:1]):
        done = _call(*verb, "--format", form, columns=400)
        assert done.exit_code == 0, (verb, done.stderr)
        _assert_harmless(done, is_csv=form == "csv")
        shown += done.stdout
    if form == "table":
        assert "[bold red]markup[/]" in shown, "markup is text"
    if form == "csv":
        assert "'=HYPERLINK" in shown
        assert "'+1" in shown
        assert "'@SUM(A1)" in shown


def test_numbers_of_a_csv_stay_numbers(place: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(_call("greeks", place / "book", *MODEL, "--format", "csv").stdout)))
    thetas = [row["theta"] for row in rows if row["theta"]]
    assert all(map(_is_number, thetas))
    assert any(theta.startswith("-") for theta in thetas), "a negative number has no apostrophe"


def test_twins_of_two_normal_forms_stay_two_accounts(run: Path) -> None:
    rows = json.loads(_call("top", run, "--by", "equity", "-n", 100, "--format", "json").stdout)
    assert {row["account_id"] for row in rows} >= set(PLAIN)


class _Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        assert all(not str(value or "").lower().startswith(("javascript:", "http")) for _, value in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_of_a_run_takes_ids_as_text(place: Path, run: Path) -> None:
    page = place / "report.html"
    assert _call("report", run, "--html", page).exit_code == 0
    found = _Page(page.read_text("utf-8"))
    assert not found.tags & {"script", "iframe", "object", "embed", "form", "link", "base", "a", "svg"}
    assert not [name for name in found.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in found.text
    assert "default-src 'none'" in page.read_text("utf-8")


def test_ids_name_no_file_and_nothing_is_written_elsewhere(place: Path, run: Path) -> None:
    proof = place / "proof.json"
    assert _call("prove", run, "--account", "../../etc/passwd", "--out", proof).exit_code == 0
    assert json.loads(proof.read_text())["account"]["account_id"] == "../../etc/passwd"
    assert _call("verify-proof", proof).exit_code == 0
    names = {path.name for path in place.rglob("*")} - {"SHA256SUMS"}
    assert not [name for name in names if any(mark in name for mark in ("passwd", "script", "CANARY", "SUM", "caf"))]
    assert {path.name for path in place.iterdir()} <= {"book", "runs", "report.html", "proof.json"}


def test_a_link_in_the_place_of_an_output_is_replaced_and_not_followed(place: Path, run: Path) -> None:
    target, proof = place / "runs" / "precious", place / "proof.json"
    target.write_text("precious")
    proof.unlink(missing_ok=True)
    proof.symlink_to(target)
    assert _call("prove", run, "--account", "alice", "--out", proof).exit_code == 0
    assert target.read_text() == "precious"
    assert not proof.is_symlink()
    target.unlink()


@pytest.mark.parametrize("name", ACTIVE)
def test_an_id_that_would_act_is_refused_and_shown_harmless(name: str, tmp_path: Path) -> None:
    book = write_book(tmp_path, _with_ids([ACTIVE[name]]))
    for form in ("table", "csv", "json"):
        done = _call("check", book, "--format", form)
        assert done.exit_code == 3
        assert "GM118" in done.stdout
        _assert_harmless(done, is_csv=form == "csv")
        assert len(done.stdout) + len(done.stderr) < 20_000, "a long id is not printed whole"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "BOOK", "--model", "../../../etc/passwd"),
        ("run", "BOOK", "--model", "derive-pm1/../derive-sm"),
        ("run", "BOOK", "--model", "derive-pm1@../../2025-02-01"),
        ("run", "BOOK", "--model", "."),
        ("models", "../models/derive-sm"),
        ("models", "/etc/passwd"),
        ("compare", "BOOK", "--models", "derive-sm,../derive-sm"),
        ("explain", "RUN", "--account", "../alice"),
        ("explain", "RUN", "--account", "alice", "--pool", "../cross"),
        ("explain", "RUN", "--account", "alice", "--table", "../../manifest"),
        ("prove", "RUN", "--account", "../../leaves"),
        ("top", "RUN", "--by", "../equity"),
        ("show", "../../../etc"),
        ("show", "latest/../../etc"),
        ("import", "deribit-chain", "/etc/passwd", "--snapshot", "../../x", "--out", "OUT"),
        ("generate", "OUT", "--accounts", "3", "--positions-per-account", "1", "--seed", "1", "--market", "/etc"),
        ("verify-proof", "/dev/null"),
    ],
)
def test_a_name_leads_to_no_other_folder(arguments: tuple[str, ...], place: Path, run: Path, tmp_path: Path) -> None:
    words = {"BOOK": str(place / "book"), "RUN": str(run), "OUT": str(tmp_path / "out")}
    extra = ("--out", str(tmp_path / "runs")) if arguments[0] == "run" else ()
    done = _call(*(words.get(word, word) for word in arguments), *extra)
    assert done.exit_code == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert "root:" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pointer", ["../elsewhere", "/", "../runs/../elsewhere"])
def test_the_pointer_to_the_newest_run_stays_in_its_folder(pointer: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "elsewhere").symlink_to(run)
    (tmp_path / "runs" / "latest").write_text(pointer)
    done = _call("show", tmp_path / "runs")
    assert (done.exit_code, done.stdout) == (2, "")
