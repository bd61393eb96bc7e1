"""Claims about verifying a solvency snapshot: the commitment is made again, and no figure of it can be changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpumargin as gm
from gpumargin.digests import table_digest
from gpumargin.publish import CHECKSUMS, file_digest
from gpumargin.solvency.salts import make_salt_file
from tests.verification.conftest import failed
from tests.verification.forged import edited, more, rewritten

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


@pytest.fixture
def folder(solvent: Path, tmp_path: Path) -> Path:
    """A copy of the run and its salt file, to be tampered with."""
    shutil.copy(solvent.with_name(f"{solvent.name}.salt"), tmp_path)
    return shutil.copytree(solvent, tmp_path / solvent.name)


def sealed(folder: Path) -> None:
    """Makes every hash of a changed snapshot fit again."""
    inner = folder / "solvency"
    tables = {path.stem: pq.read_table(path) for path in inner.glob("*.parquet")}

    def state(document: dict[str, Any]) -> None:
        document["figures_sha256"] = file_digest(inner / "solvency.json")
        for name in document["tables"]:
            document["tables"][name] = {"rows": tables[name].num_rows, "sha256": table_digest(tables[name])}

    rewritten(inner, "manifest", state)
    files = sorted(path for path in inner.iterdir() if path.name != CHECKSUMS)
    (inner / CHECKSUMS).write_text("".join(f"{file_digest(path)}  {path.name}\n" for path in files))


def test_a_snapshot_passes_and_its_commitment_is_made_again(solvent: Path) -> None:
    found = gm.verify_run(solvent, full=True)
    assert (found.exit_code, found.is_complete, found.findings.height) == (0, True, 0)
    made = found.checks.filter(check="commitment").row(0, named=True)
    assert (made["count"], made["result"]) == (5, "ok")


def test_without_its_salts_a_commitment_is_not_called_checked(folder: Path) -> None:
    folder.with_name(f"{folder.name}.salt").unlink()
    found = gm.verify_run(folder)
    assert (found.exit_code, found.ok, found.is_complete) == (0, True, False)
    assert found.checks.filter(check="commitment")["result"].to_list() == ["not done"]


def test_another_secret_makes_another_root(solvent: Path, tmp_path: Path) -> None:
    make_salt_file(tmp_path / "other.salt")
    found = gm.verify_run(solvent, salt_file=tmp_path / "other.salt")
    assert (found.exit_code, failed(found)) == (4, {"commitment"})


def _root(document: dict[str, Any]) -> None:
    document["commitment"]["root"] = "00" * 32


def _figure(*path: str, value: object) -> Callable[[Path], None]:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return lambda inner: rewritten(inner, "solvency", change)


FORGERIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a leaf": (lambda inner: edited(inner, "leaves", more("equity USDC", 1)), "leaves"),
    "a dropped leaf": (lambda inner: edited(inner, "leaves", lambda frame: frame[1:]), "leaves"),
    "the root": (lambda inner: rewritten(inner, "manifest", _root), "leaves"),
    "a count": (_figure("by_accounting_asset", "USDC", "status", "healthy", value=99), "snapshot figures"),
    "a total": (_figure("by_accounting_asset", "USDC", "totals", "equity", value="1.000000"), "snapshot figures"),
    "what is owed": (_figure("by_asset", "USDC", "debt", value="0.000000"), "snapshot balances"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_changed_snapshot_with_every_hash_made_to_fit_is_caught(folder: Path, name: str) -> None:
    forge, check = FORGERIES[name]
    forge(folder / "solvency")
    sealed(folder)
    found = gm.verify_run(folder)
    assert found.exit_code == 4
    assert "snapshot hashes" not in failed(found)
    assert check in failed(found), found.checks


def test_a_byte_of_a_snapshot_is_missed_by_its_own_checksums(folder: Path) -> None:
    path = folder / "solvency" / "concentration.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert "snapshot hashes" in failed(gm.verify_run(folder))


def test_a_snapshot_of_another_run_is_not_this_ones(folder: Path) -> None:
    rewritten(folder / "solvency", "manifest", lambda document: document.update(run_manifest_sha256="00" * 32))
    sealed(folder)
    assert "snapshot values" in failed(gm.verify_run(folder))
    assert json.loads((folder / "solvency" / "manifest.json").read_text())["run_manifest_sha256"] == "00" * 32


def test_words_of_a_column_that_are_no_text_are_found_not_a_crash(folder: Path) -> None:
    """The words lie in the footer, which no checksum of Parquet covers; polars panics over them."""
    path = folder / "solvency" / "leaves.parquet"
    leaves = pq.read_table(path)
    torn = [field.with_metadata({b"\xff": b"\xff"}) for field in leaves.schema]
    pq.write_table(leaves.cast(pa.schema(torn)), path, write_page_checksum=True)
    assert failed(gm.verify_run(folder)) == {"snapshot hashes"}
