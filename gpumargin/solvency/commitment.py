"""The commitment to the accounts of a run, and proofs that an account is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa

from gpumargin.errors import InternalError, UsageError
from gpumargin.files import whole_table
from gpumargin.pack.columns import Ints
from gpumargin.runs import run_json
from gpumargin.solvency.proof import FORMAT, Node, account_name, blinded, leaf
from gpumargin.solvency.salts import salt_of
from gpumargin.solvency.tree import Bytes, SumTree, leaf_digests

FOLDER = "solvency"
_AMOUNTS = ("equity", "negative_equity", "initial_margin", "maintenance_margin")
_KEYS = ("account_id", "pool")


@dataclass(frozen=True)
class Commitment:
    """A tree over the accounts of a run.

    Attributes:
      leaves: accounts in the order of the tree: account_id, pool, digest, and a column of minor units per amount.
      header: what is published of it.
    """

    leaves: pa.Table
    header: Mapping[str, Any]


def committed_columns(assets: Sequence[str]) -> list[str]:
    """Columns of a leaf, `equity USDC` for example, by accounting asset."""
    return [f"{name} {asset}" for asset in assets for name in _AMOUNTS]


def known_accounts(accounts: pl.DataFrame) -> pl.DataFrame:
    """Accounts whose numbers are known; the others cannot be committed to, and are counted instead."""
    return accounts.filter(pl.all_horizontal(pl.col(f"{name}_minor").is_not_null() for name in _minor()))


def _minor() -> list[str]:
    return [name for name in _AMOUNTS if name != "negative_equity"]


def _amounts(accounts: pl.DataFrame, assets: Sequence[str]) -> Ints:
    """Minor units of every account, `[A, 4 per asset]`; 0 in the columns of other accounting assets."""
    equity = pl.col("equity_minor")
    exprs = {"equity": equity.clip(lower_bound=0), "negative_equity": -equity.clip(upper_bound=0)}
    exprs |= {name: pl.col(f"{name}_minor") for name in _minor() if name != "equity"}
    own = accounts.select(exprs[name].alias(name) for name in _AMOUNTS).to_numpy().astype(np.int64)
    is_asset = np.stack([(accounts["accounting_asset"] == asset).to_numpy() for asset in assets], axis=1)
    return (is_asset[:, :, None] * own[:, None, :]).reshape(len(own), -1)


def _hidden(names: Sequence[str], master: bytes, snapshot: str) -> Bytes:
    """Blinded ids, `[A, 32]`."""
    ids = b"".join([blinded(name, salt_of(master, snapshot, name)) for name in names])
    return np.frombuffer(ids, np.uint8).reshape(len(names), 32)


def commit(accounts: pl.DataFrame, decimals: Mapping[str, int], master: bytes, snapshot: str) -> Commitment:
    """Commits to accounts in the order of their blinded ids, which tells nothing of the accounts.

    Args:
      accounts: account_id, pool, accounting_asset and the columns of minor units, none null.
      decimals: of every accounting asset.
      master: secret from which salts are derived.
      snapshot: see `salt_of`.
    """
    assets = sorted(decimals)
    names = [account_name(*pair) for pair in accounts.select(pl.col(_KEYS).cast(pl.String)).iter_rows()]
    hidden = _hidden(names, master, snapshot)
    order = np.lexsort([*hidden.view(">u8").reshape(len(names), 4).T[::-1]])
    amounts = _amounts(accounts, assets)[order]
    digests = leaf_digests(hidden[order], amounts)
    tree = SumTree.of(digests, amounts)
    columns = {
        "digest": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32), len(digests), [None, pa.py_buffer(digests.tobytes())]
        )
    }
    columns |= {name: pa.array(amounts[:, i]) for i, name in enumerate(committed_columns(assets))}
    keys = accounts.select(pl.col(_KEYS).cast(pl.String))[order].to_arrow()
    leaves = pa.table({name: keys[name].cast(pa.string()) for name in _KEYS} | columns)
    return Commitment(leaves, _header(tree, assets, decimals, snapshot))


def _header(tree: SumTree, assets: Sequence[str], decimals: Mapping[str, int], snapshot: str) -> dict[str, Any]:
    """Sums are texts: they may have more digits than a JSON reader keeps."""
    root = tree.root
    return {
        "snapshot": snapshot,
        "columns": committed_columns(assets),
        "decimals": {asset: decimals[asset] for asset in assets},
        "leaves": tree.leaves,
        "root": root.digest.hex(),
        "sums": [str(total) for total in root.sums],
    }


def _tree(leaves: pl.DataFrame, columns: Sequence[str]) -> SumTree:
    digests = np.frombuffer(b"".join(leaves["digest"].to_list()), np.uint8).reshape(leaves.height, 32)
    return SumTree.of(digests, leaves.select(columns).to_numpy())


def inclusion_proof(run: Path, account: str, pool: str, master: bytes) -> dict[str, Any]:
    """The proof that an account is in the commitment of a run's solvency snapshot.

    Args:
      run: run folder.
      account: account id.
      pool: its pool.
      master: secret of the snapshot.

    Raises:
      UsageError: no snapshot, no such account, or the secret of another snapshot.
      InternalError: the leaves on disk do not lead to the published root.
    """
    header = _published(run)
    leaves = cast("pl.DataFrame", pl.from_arrow(whole_table(run / FOLDER / "leaves.parquet")))
    found = leaves.with_row_index().filter((pl.col("account_id") == account) & (pl.col("pool") == pool))
    if not found.height:
        message = (
            f"no account {account!r} with pool {pool!r} in this commitment; accounts of unknown state are left out"
        )
        raise UsageError(message)
    index, tree = int(found["index"][0]), _tree(leaves, header["columns"])
    if (tree.root.digest.hex(), [str(total) for total in tree.root.sums]) != (header["root"], header["sums"]):
        message = f"GM202: the leaves in {str(run / FOLDER)!r} lead to another root than its manifest; make it again"
        raise InternalError(message)
    amounts = list(found.select(header["columns"]).row(0))
    salt = salt_of(master, header["snapshot"], account_name(account, pool))
    if leaf(blinded(account_name(account, pool), salt), amounts).digest != tree.levels[0].node(index).digest:
        message = "the salt file is not that of this snapshot; name the right one with --salt-file"
        raise UsageError(message)
    own = {"account_id": account, "pool": pool, "salt": salt.hex(), "leaf": index, "amounts": list(map(str, amounts))}
    path = [{"side": "left" if is_left else "right", **_words(sibling)} for sibling, is_left in tree.path(index)]
    return {"format": FORMAT, "account": own, "path": path, "commitment": dict(header)}


def _words(node: Node) -> dict[str, Any]:
    return {"hash": node.digest.hex(), "sums": [str(total) for total in node.sums]}


def _published(run: Path) -> Mapping[str, Any]:
    folder = run / FOLDER
    if not (folder / "manifest.json").is_file():
        message = f"run {str(run)!r} has no solvency snapshot; `gpumargin snapshot` makes one with its run"
        raise UsageError(message)
    header: Mapping[str, Any] = run_json(folder, "manifest")["commitment"]
    return header
