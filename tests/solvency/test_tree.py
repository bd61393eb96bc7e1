"""Claims about the commitment: the batch and the rule give the same bytes, and no change goes unseen."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumargin.errors import InternalError, ResourceError, UsageError
from gpumargin.solvency import proof
from gpumargin.solvency.commitment import inclusion_proof
from gpumargin.solvency.proof import Encoding, Node, Step, failure, leaf, node, padding, root_above
from gpumargin.solvency.salts import make_salt_file, read_salt_file, salt_of
from gpumargin.solvency.tree import SumTree, leaf_digests
from tests.solvency.conftest import MASTER

if TYPE_CHECKING:
    from tests.solvency.conftest import Snapshot

amounts = st.lists(st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=2), min_size=0, max_size=9)


def hidden(count: int) -> list[bytes]:
    return [hashlib.sha256(bytes([index])).digest() for index in range(count)]


def tree_of(values: list[list[int]]) -> tuple[SumTree, list[Node]]:
    array = np.array(values, np.int64).reshape(len(values), 2)
    ids = np.frombuffer(b"".join(hidden(len(values))), np.uint8).reshape(len(values), 32)
    leaves = [leaf(own, row) for own, row in zip(hidden(len(values)), values, strict=True)]
    return SumTree.of(leaf_digests(ids, array), array), leaves


def slow_root(nodes: list[Node]) -> Node:
    """Halves, padded to a power of two, by the rule of single nodes."""
    size = 1 << max(len(nodes) - 1, 0).bit_length()
    nodes = nodes + [padding(2)] * (size - len(nodes))
    return nodes[0] if size == 1 else node(slow_root(nodes[: size // 2]), slow_root(nodes[size // 2 :]))


@given(amounts)
def test_the_batch_gives_the_root_of_the_rule_and_every_path_leads_to_it(values: list[list[int]]) -> None:
    tree, leaves = tree_of(values)
    assert tree.root == slow_root(leaves)
    assert tree.root.sums == tuple(sum(row[column] for row in values) for column in range(2))
    for index, own in enumerate(leaves):
        assert root_above(own, tree.path(index)) == tree.root


def test_sums_beyond_sixty_four_bits_do_not_wrap_around() -> None:
    tree, _ = tree_of([[2**63 - 1, 0]] * 5)
    assert tree.root.sums == (5 * (2**63 - 1), 0)


def test_leaf_node_and_padding_of_the_same_bytes_have_different_hashes() -> None:
    inner = node(leaf(bytes(32), [1]), leaf(bytes(32), [2]))
    assert len({leaf(bytes(32), [0]).digest, inner.digest, padding(1).digest, hashlib.sha256(b"").digest()}) == 4


def test_a_sum_cannot_move_from_one_child_to_the_other() -> None:
    one, two = leaf(bytes(32), [10]), leaf(bytes(32), [20])
    moved = node(Node(one.digest, (20,)), Node(two.digest, (10,)))
    assert moved.sums == node(one, two).sums
    assert moved.digest != node(one, two).digest


@pytest.mark.parametrize("amount", [-1, 1 << 128])
def test_amounts_out_of_range_are_refused(amount: int) -> None:
    with pytest.raises(ValueError, match="is not within"):
        leaf(bytes(32), [amount])


def test_sums_out_of_range_are_refused() -> None:
    half = Node(bytes(32), (1 << 63,))
    with pytest.raises(ValueError, match="is not within"):
        node(half, half, Encoding(width=8))


def test_the_batch_refuses_a_negative_amount() -> None:
    with pytest.raises(InternalError, match="negative"):
        leaf_digests(np.zeros((2, 32), np.uint8), np.array([[1, 2], [3, -4]]))


# --- Proofs of a snapshot.


@pytest.fixture(scope="module")
def proven(snapshot: Snapshot) -> dict[str, Any]:
    return inclusion_proof(snapshot.run, "dave", "isolated-1", MASTER)


def test_every_account_has_a_proof_that_holds(snapshot: Snapshot) -> None:
    leaves = snapshot.table("leaves")
    for account, pool in leaves.select("account_id", "pool").iter_rows():
        assert failure(inclusion_proof(snapshot.run, account, pool, MASTER)) == ""


def test_a_proof_shows_the_accounts_own_minor_units(snapshot: Snapshot, proven: dict[str, Any]) -> None:
    from gpumargin.runs import run_table

    row = run_table(snapshot.run, "accounts").collect().row(by_predicate=_is("dave", "isolated-1"), named=True)
    own = dict(zip(proven["commitment"]["columns"], map(int, proven["account"]["amounts"]), strict=True))
    assert own == {
        "equity USDC": max(row["equity_minor"], 0),
        "negative_equity USDC": max(-row["equity_minor"], 0),
        "initial_margin USDC": row["initial_margin_minor"],
        "maintenance_margin USDC": row["maintenance_margin_minor"],
    }


def _is(account: str, pool: str) -> Any:
    import polars as pl

    return (pl.col("account_id").cast(pl.String) == account) & (pl.col("pool").cast(pl.String) == pool)


def _flipped(value: Any) -> Any:
    """A value changed a little: a digit of a text or an integer by one."""
    if isinstance(value, int):
        return value + 1
    last = value[-1]
    return value[:-1] + ("1" if last == "0" else "0") if last.isalnum() else value + "x"


def _places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(document, dict):
        return [place for key, inner in document.items() for place in _places(inner, (*path, key))]
    if isinstance(document, list):
        return [place for index, inner in enumerate(document) for place in _places(inner, (*path, index))]
    return [path]


# What the hashes do not cover is what the proof is compared with: the commitment as published.
_COMPARED = {"snapshot", "columns", "decimals", "leaves"}


def test_a_proof_with_any_value_changed_does_not_hold(proven: dict[str, Any]) -> None:
    places = [place for place in _places(proven) if place[0] != "commitment" or place[1] not in _COMPARED]
    assert len(places) > 20
    for place in places:
        changed: Any = deepcopy(proven)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = _flipped(inner[place[-1]])
        assert failure(changed), place


@pytest.mark.parametrize("leaves", [2, 1, 0, -1, 10**9])
def test_the_number_of_leaves_must_fit_the_path(proven: dict[str, Any], leaves: int) -> None:
    assert "does not fit" in failure({**proven, "commitment": {**proven["commitment"], "leaves": leaves}})


@pytest.mark.parametrize(
    "document",
    [{}, {"format": 1}, {"account": [], "path": {}, "commitment": None, "format": proof.FORMAT}],
    ids=["empty", "a word", "wrong types"],
)
def test_what_is_no_proof_is_said_to_be_none(document: dict[str, Any]) -> None:
    assert "not an inclusion proof" in failure(document)


def test_the_verifier_is_one_file_that_runs_anywhere(proven: dict[str, Any], tmp_path: Path) -> None:
    program = tmp_path / "proof.py"
    program.write_text(Path(proof.__file__).read_text("utf-8"), "utf-8")
    for name, document, code in (("good", proven, 0), ("bad", {**proven, "path": proven["path"][1:]}, 4)):
        (tmp_path / f"{name}.json").write_text(json.dumps(document), "utf-8")
        command = [sys.executable, "-I", "-S", str(program), str(tmp_path / f"{name}.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        assert done.returncode == code, done.stderr
        assert "hold" in done.stdout


def test_a_leaf_on_disk_that_was_changed_is_caught(snapshot: Snapshot, tmp_path: Path) -> None:
    import shutil

    import polars as pl

    copied = Path(shutil.copytree(snapshot.run, tmp_path / "run"))
    leaves = snapshot.table("leaves")
    pl.DataFrame(leaves.with_columns(pl.col("equity USDC") + 1)).write_parquet(copied / "solvency" / "leaves.parquet")
    with pytest.raises(InternalError, match="another root"):
        inclusion_proof(copied, "alice", "cross", MASTER)


def test_proofs_need_the_right_account_snapshot_and_secret(snapshot: Snapshot, tmp_path: Path) -> None:
    for account, pool, master, words in (
        ("nobody", "cross", MASTER, "no account 'nobody'"),
        ("alice", "other", MASTER, "pool 'other'"),
        ("alice", "cross", bytes(32), "not that of this snapshot"),
    ):
        with pytest.raises(UsageError, match=re.escape(words)):
            inclusion_proof(snapshot.run, account, pool, master)
    with pytest.raises(UsageError, match="no solvency snapshot"):
        inclusion_proof(tmp_path, "alice", "cross", MASTER)


# --- Salts.


def test_salts_differ_by_secret_snapshot_and_account() -> None:
    salts = {salt_of(m, s, n) for m in (bytes(32), MASTER) for s in ("a", "b") for n in ('["x","y"]', '["x","z"]')}
    assert len(salts) == 8
    assert {len(salt) for salt in salts} == {16}


def test_no_two_accounts_share_a_name() -> None:
    pairs = [("a", "b,c"), ("a,b", "c"), ('a","b', "c"), ("a", 'b","c'), ("ab", "c"), ("a", "bc")]
    assert len({proof.account_name(*pair) for pair in pairs}) == len(pairs)
    assert json.loads(proof.account_name('q"\\\u2028', "p\x00")) == ['q"\\\u2028', "p\x00"]


def test_a_salt_file_is_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret.salt"
    master = make_salt_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_salt_file(path) == master
    with pytest.raises(ResourceError, match="exists"):
        make_salt_file(path)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        read_salt_file(path)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31])
def test_a_salt_file_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.salt"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="no salt file"):
        read_salt_file(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_salt_file(tmp_path / "gone")


def test_a_path_says_which_side_its_siblings_stand_on() -> None:
    tree, leaves = tree_of([[1, 0], [2, 0], [3, 0]])
    assert tree.path(0)[0] == Step(leaves[1], is_left=False)
    assert tree.path(1)[0] == Step(leaves[0], is_left=True)
    assert tree.path(2)[0] == Step(padding(2), is_left=False)
