"""The rule of the commitment, and how to check an inclusion proof with nothing but Python.

Copy this one file anywhere and run `python proof.py PROOF.json`: it imports the standard library alone.

Every account is a leaf of a binary tree. A leaf holds the account's amounts, whole minor units and never negative; a
node holds the sums of its two children. All are hashed with SHA-256:

    id        SHA256(utf8 of the account's name || salt)
    leaf      SHA256(00 || id || amounts in column order)
    node      SHA256(01 || left hash || left sums || right hash || right sums)
    padding   SHA256(02), sums 0: fills the leaves up to a power of two

An amount is 16 bytes, big-endian. Both children's sums are hashed: a node that hashes only their total can be opened in
two ways, and hides liabilities (Hu, Zhang, Guo, eprint 2018/1139). The salt, 16 bytes known to the account's holder,
keeps others from guessing the name behind an id.

What holds if a proof holds: this account, with these amounts, is in the sums of the root. What it does not say: that
every other account is in there, or that the venue has the money.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

FORMAT = "gpumargin inclusion proof 1"
_DEEPEST = 64
_quoted = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Encoding:
    """How amounts become bytes, and what stands before a hashed leaf, node or padding to tell them apart.

    Attributes:
      width: bytes of an amount, unsigned.
      order: of the bytes.
      leaf: first byte of a hashed leaf.
      node: first byte of a hashed node.
      padding: what a padding leaf hashes.
    """

    width: int = 16
    order: Literal["big", "little"] = "big"
    leaf: bytes = b"\x00"
    node: bytes = b"\x01"
    padding: bytes = b"\x02"

    def amounts(self, values: Sequence[int]) -> bytes:
        """Amounts as bytes.

        Raises:
          ValueError: one is negative or needs more bytes.
        """
        for value in values:
            if not 0 <= value < 1 << (8 * self.width):
                message = f"amount {value} is not within 0 and 2^{8 * self.width} - 1"
                raise ValueError(message)
        return b"".join(value.to_bytes(self.width, self.order) for value in values)


STANDARD = Encoding()


class Node(NamedTuple):
    """A leaf or node: its hash and the sums below it, one per column."""

    digest: bytes
    sums: tuple[int, ...]


class Step(NamedTuple):
    """The other child on the way up, and the side on which it stands."""

    sibling: Node
    is_left: bool


def account_name(account: str, pool: str) -> str:
    """Name of a margin account in the commitment: a JSON list, so that no two accounts share one."""
    return f"[{_quoted(account)},{_quoted(pool)}]"


def blinded(name: str, salt: bytes) -> bytes:
    """What stands for an account in its leaf; nobody without the salt can tell the name."""
    return hashlib.sha256(name.encode() + salt).digest()


def leaf(hidden: bytes, amounts: Sequence[int], encoding: Encoding = STANDARD) -> Node:
    """The leaf of an account.

    Args:
      hidden: from `blinded`.
      amounts: whole minor units, one per column.
      encoding: of amounts.

    Raises:
      ValueError: an amount is negative or too large.
    """
    return Node(hashlib.sha256(encoding.leaf + hidden + encoding.amounts(amounts)).digest(), tuple(amounts))


def node(left: Node, right: Node, encoding: Encoding = STANDARD) -> Node:
    """The node above two children.

    Raises:
      ValueError: a sum is negative or too large, or the children have different columns.
    """
    sums = tuple(a + b for a, b in zip(left.sums, right.sums, strict=True))
    encoding.amounts(sums)  # refuses a sum that wraps around
    parts = (left.digest, encoding.amounts(left.sums), right.digest, encoding.amounts(right.sums))
    return Node(hashlib.sha256(encoding.node + b"".join(parts)).digest(), sums)


def padding(columns: int, encoding: Encoding = STANDARD) -> Node:
    """A leaf without an account."""
    return Node(hashlib.sha256(encoding.padding).digest(), (0,) * columns)


def root_above(start: Node, path: Sequence[Step], encoding: Encoding = STANDARD) -> Node:
    """The root that a leaf and its path lead to."""
    for sibling, is_left in path:
        start = node(sibling, start, encoding) if is_left else node(start, sibling, encoding)
    return start


def failure(proof: Mapping[str, Any]) -> str:
    """Why an inclusion proof does not hold; empty if it does.

    Args:
      proof: contents of a proof file. `commitment` must still be compared with what the venue published.
    """
    try:
        return _failure(proof["account"], proof["path"], proof["commitment"], str(proof["format"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"this is not an inclusion proof: {type(error).__name__} {error}"


def _failure(account: Mapping[str, Any], path: Sequence[Mapping[str, Any]], said: Mapping[str, Any], form: str) -> str:
    amounts = [int(amount) for amount in account["amounts"]]
    index, leaves = int(account["leaf"]), int(said["leaves"])
    if form != FORMAT:
        return f"format is {form!r}, expected {FORMAT!r}"
    if not len(amounts) == len(said["columns"]) == len(said["sums"]):
        return "amounts, columns and sums of the root differ in number"
    if not 0 <= index < leaves or len(path) != max(leaves - 1, 0).bit_length() or len(path) > _DEEPEST:
        return f"leaf {index} with a path of {len(path)} steps does not fit a tree of {leaves} leaves"
    if [step["side"] for step in path] != ["left" if index >> height & 1 else "right" for height in range(len(path))]:
        return f"the sides of the path do not lead to leaf {index}"
    hidden = blinded(account_name(account["account_id"], account["pool"]), bytes.fromhex(account["salt"]))
    steps = [Step(_node(step), step["side"] == "left") for step in path]
    root = root_above(leaf(hidden, amounts), steps)
    if root.digest != bytes.fromhex(said["root"]):
        return f"the path leads to the root {root.digest.hex()}, the commitment is {said['root']}"
    if list(root.sums) != [int(total) for total in said["sums"]]:
        return "the sums of the root are not those of the commitment"
    return ""


def _node(step: Mapping[str, Any]) -> Node:
    digest = bytes.fromhex(step["hash"])
    if len(digest) != hashlib.sha256().digest_size:
        message = f"a hash of {len(digest)} bytes"
        raise ValueError(message)
    return Node(digest, tuple(int(total) for total in step["sums"]))


if __name__ == "__main__":
    found = failure(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    sys.stdout.write(f"does not hold: {found}\n" if found else "holds: compare its commitment with the published one\n")
    sys.exit(4 if found else 0)
