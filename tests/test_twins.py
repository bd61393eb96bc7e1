"""Claims about ids that differ in case or spelling alone: found over parts, in memory that does not grow with ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumargin.checks.twins import Twins

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PARTS = (("alice", "bob", "\uff42ob"), (), ("Carol", "dave"), ("ALICE", "carol", "erin"))
FOUND = ["'ALICE' and 'alice'", "'bob' and '\uff42ob'", "'Carol' and 'carol'"]


def twins_of(parts: Sequence[Sequence[str]], scratch: Path | None = None) -> Twins:
    found = Twins(scratch)
    for ids in parts:
        found.keep(pl.Series("word", ids, dtype=pl.String))
    return found


def named(twins: Twins) -> list[str]:
    return [str(odd.message).removeprefix("account_id ").split(" differ in")[0] for odd in twins.findings()]


@pytest.mark.parametrize("is_on_disk", [False, True], ids=["in memory", "on disk"])
def test_twins_are_found_over_all_parts_wherever_the_ids_are(is_on_disk: bool, tmp_path: Path) -> None:
    twins = twins_of(PARTS, tmp_path / "ids" if is_on_disk else None)
    assert named(twins) == FOUND
    assert named(twins) == FOUND  # and again: nothing was used up
    assert (tmp_path / "ids").exists() == is_on_disk


def test_ids_on_disk_leave_eight_bytes_each_in_memory(tmp_path: Path) -> None:
    ids = pl.Series("word", [f"0x{n:040x}" for n in range(100_000)])
    twins = Twins(tmp_path)
    for part in range(10):
        twins.keep(ids.slice(part * 10_000, 10_000))
    assert sum(hashes.nbytes for hashes in twins._hashes) == 800_000
    assert not any(isinstance(part, pl.Series) for part in twins._parts)
    assert list(twins.findings()) == []


@given(st.lists(st.lists(st.text("aAbBéÉｂ\u0301e", max_size=3), max_size=6), max_size=4))
def test_the_pairs_are_those_of_a_plain_loop(given: list[list[str]]) -> None:
    seen: set[str] = set()
    parts = [[word for word in dict.fromkeys(part) if word not in seen and not seen.add(word)] for part in given]
    folds: dict[str, list[str]] = {}
    for word in sorted(word for part in parts for word in part):
        folds.setdefault(pl.Series([word]).str.normalize("NFKC").str.to_lowercase()[0], []).append(word)
    expected = [" and ".join(f"'{word}'" for word in folds[fold]) for fold in sorted(folds) if len(folds[fold]) > 1]
    assert named(twins_of(parts)) == expected
