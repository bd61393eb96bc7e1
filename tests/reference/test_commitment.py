"""Merkle-sum commitments: a whole worked tree, and a node that a venue published, byte for byte."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
import pytest

from gpumargin.solvency.proof import STANDARD, Encoding, Node, blinded, leaf, node, root_above
from gpumargin.solvency.tree import SumTree, leaf_digests
from tests.reference.folders import read_cases

pytestmark = pytest.mark.reference

HANDLED = {f"risk_vectors/{name}.json" for name in ("merkle_published", "merkle_sum_tree")}
_BYTES = {"unsigned 64-bit": 8, "unsigned 128-bit": 16, "unsigned 32-bit": 4}


def cases(name: str) -> list[Any]:
    """Every case of a file of `cases`, or the file itself where it is one case."""
    content = read_cases(name)
    if content is None:
        reason = "no reference cases on this machine; set GPUMARGIN_REFERENCE"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")]
    return [pytest.param(case, id=case["id"]) for case in content.get("cases", [content])]


def amounts_of(account: dict[str, Any], assets: list[str]) -> list[int]:
    """Equities, then debts, in the order of assets; an asset that is not named is 0."""
    return [account[kind].get(asset, 0) for kind in ("equity", "debt") for asset in assets]


@pytest.mark.parametrize("case", cases("risk_vectors/merkle_sum_tree.json"))
def test_a_tree_has_the_worked_leaves_root_sums_and_proof(case: dict[str, Any]) -> None:
    given, expected = case["inputs"], case["expected"]
    assets, columns = given["assets"], len(given["assets"])
    amounts = [amounts_of(account, assets) for account in given["accounts"]]
    hidden = [blinded(account["id"], bytes.fromhex(account["salt"])) for account in given["accounts"]]
    array = np.array(amounts, np.int64)
    digests = leaf_digests(np.frombuffer(b"".join(hidden), np.uint8).reshape(len(hidden), -1), array)
    assert [digest.tobytes().hex() for digest in digests] == expected["leaf_hashes"]

    tree = SumTree.of(digests, array)
    assert tree.root.digest.hex() == expected["root"]
    assert list(tree.root.sums) == expected["root_equity"] + expected["root_debt"]
    assert len(tree.levels) == expected["depth"] + 1

    chosen = given["prove"]
    assert chosen == expected["proof_of"]
    path = tree.path(chosen)
    assert [
        {
            "hash": sibling.digest.hex(),
            "equity": list(sibling.sums[:columns]),
            "debt": list(sibling.sums[columns:]),
            "side": "left" if is_left else "right",
        }
        for sibling, is_left in path
    ] == expected["proof"]
    assert root_above(leaf(hidden[chosen], amounts[chosen]), path) == tree.root


def encoding_of(rule: str) -> Encoding:
    """The encoding that a published rule states in words: nothing stands before what is hashed."""
    order: Literal["big", "little"] = "little" if "little-endian" in rule else "big"
    width = next(size for words, size in _BYTES.items() if words in rule)
    return Encoding(width, order, leaf=b"", node=b"", padding=b"")


@pytest.mark.parametrize("case", cases("risk_vectors/merkle_published.json"))
def test_a_venues_published_node_follows_from_its_children(case: dict[str, Any]) -> None:
    left, right = (Node(bytes.fromhex(case[f"{side}_digest"]), (case[f"{side}_value"],)) for side in ("left", "right"))
    above = node(left, right, encoding_of(case["rule"]))
    assert above.digest.hex() == case["node_digest"]
    assert above.sums == (case["node_value"],)
    assert node(left, right, STANDARD).digest != above.digest
    assert re.match(r"sha256\(left_digest \|\| left_value \|\| right_digest \|\| right_value\)", case["rule"])
