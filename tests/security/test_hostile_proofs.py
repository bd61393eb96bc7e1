"""Claims about proof files that say something else than a proof: they do not hold, whatever stands where."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpumargin.solvency.proof import FORMAT, account_name, blinded, failure, leaf
from tests.cli.conftest import _call

ODD: list[Any] = [None, 1, -1, 1e308, "", "x", "9" * 5000, "-5", [], {}, [[]], True, "\x1b[31m", "00" * 10**5]
LABELS = "columns"  # names of amounts: words for the reader, which --against holds to the published ones


def _proof() -> dict[str, Any]:
    only = leaf(blinded(account_name("a", "cross"), bytes(16)), [5])
    account = {"account_id": "a", "pool": "cross", "salt": "00" * 16, "leaf": 0, "amounts": ["5"]}
    commitment = {LABELS: ["equity USD"], "leaves": 1, "root": only.digest.hex(), "sums": ["5"]}
    return {"format": FORMAT, "account": account, "path": [], "commitment": commitment}


def _places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key in value if isinstance(value, dict) else range(len(value)):
        yield (*before, key)
        if isinstance(value[key], dict | list):
            yield from _places(value[key], (*before, key))


def _changed() -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place of a proof with every odd value in it, and the proof without it."""
    for place in _places(_proof()):
        for value in ODD:
            proof = copy.deepcopy(_proof())
            inner: Any = proof
            for key in place[:-1]:
                inner = inner[key]
            is_same = value == inner[place[-1]] or (place == ("path",) and not value and value is not None)
            inner[place[-1]] = value
            if not is_same and LABELS not in place:
                yield place, proof
        del inner[place[-1]]
        yield place, proof


def test_a_proof_with_anything_else_in_it_does_not_hold() -> None:
    assert failure(_proof()) == ""
    changed = list(_changed())
    assert not [place for place, proof in changed if not failure(proof)]
    assert len(changed) > 150


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "9" * 10**4, "\0", "", '{"path": 1}', "\x1b[31m"])
def test_what_is_no_proof_ends_in_words(text: str, tmp_path: Path) -> None:
    (tmp_path / "proof.json").write_text(text)
    done = _call("verify-proof", tmp_path / "proof.json")
    assert done.exit_code in (2, 4)
    assert "unexpected" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
