"""Claims about ids that differ in case or spelling alone: found over parts, whose ids need not stay in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumargin.catalogue import load_model
from gpumargin.checks import twins
from gpumargin.checks.twins import Twins
from gpumargin.prepare import Options
from gpumargin.run import margin, margin_folder
from gpumargin.runs import run_json
from gpumargin.tables import Book
from tests.books import AS_OF, tiny_book, with_cell, write_book

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PARTS = (("alice", "bob", "\uff42ob"), (), ("Carol", "dave"), ("ALICE", "carol", "erin"))
FOUND = ["'ALICE' and 'alice'", "'bob' and '\uff42ob'", "'Carol' and 'carol'"]


def twins_of(parts: Sequence[Sequence[str]], folder: Path | None = None) -> Twins:
    found = Twins()
    if folder is not None:
        found.keep_in(folder)
    for ids in parts:
        found.keep(pl.Series("word", ids, dtype=pl.String))
    return found


def named(found: Twins) -> list[str]:
    return [str(odd.message).removeprefix("account_id ").split(" differ in")[0] for odd in found.findings()]


@pytest.mark.parametrize("is_on_disk", [False, True], ids=["in memory", "on disk"])
def test_twins_are_found_over_all_parts_wherever_the_ids_are(is_on_disk: bool, tmp_path: Path) -> None:
    found = twins_of(PARTS, tmp_path / "ids" if is_on_disk else None)
    assert named(found) == FOUND
    assert named(found) == FOUND  # and again: nothing was used up
    assert (tmp_path / "ids").exists() == is_on_disk


@pytest.mark.parametrize("first", ["0x", "0X"], ids=["folded as they are", "to be folded"])
def test_ids_on_disk_leave_nothing_in_memory(first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "HASHES", 30_000)
    ids = pl.Series("word", [f"{first}{n:040x}" for n in range(100_000)])
    found = Twins()
    found.keep_in(tmp_path / "ids")
    for part in range(10):
        found.keep(ids.slice(part * 10_000, 10_000))
    assert not any(isinstance(part, pl.Series) for part in found._parts)
    assert list(found.findings()) == []
    found.keep(ids.tail(2).str.to_uppercase())
    assert len(list(found.findings())) == 2


@given(st.lists(st.lists(st.text("aAbBéÉｂ\u0301e", max_size=3), max_size=6), max_size=4), st.sampled_from([2, 1000]))
def test_the_pairs_are_those_of_a_plain_loop(given: list[list[str]], at_a_time: int) -> None:
    seen: set[str] = set()
    parts = [[word for word in dict.fromkeys(part) if word not in seen and not seen.add(word)] for part in given]
    folds: dict[str, list[str]] = {}
    for word in sorted(word for part in parts for word in part):
        folds.setdefault(pl.Series([word]).str.normalize("NFKC").str.to_lowercase()[0], []).append(word)
    expected = [" and ".join(f"'{word}'" for word in folds[fold]) for fold in sorted(folds) if len(folds[fold]) > 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "HASHES", at_a_time)
        assert named(twins_of(parts)) == expected


def test_a_run_in_memory_and_one_to_a_folder_warn_alike(tmp_path: Path) -> None:
    tables = with_cell(tiny_book(), "balances", row=6, column="account_id", value="Dave")
    folder = write_book(tmp_path / "book", tables)
    out = margin_folder(folder, load_model("derive-pm1"), tmp_path / "runs", Options(as_of=AS_OF))
    in_memory = margin(Book(**tables), "derive-pm1", as_of=AS_OF).summary["warnings"]
    written = run_json(out, "summary")["warnings"]
    said = [[odd["message"] for odd in warned if odd["code"] == "GM118"] for warned in (in_memory, written)]
    assert said[0] == said[1]
    assert "'Dave' and 'dave'" in said[0][0]
