"""Claims about `snapshot`, `prove` and `verify-proof`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import MODEL

if TYPE_CHECKING:
    from tests.cli.conftest import Call


@pytest.fixture(scope="module")
def run(call: Call, book: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = call("snapshot", book, *MODEL, "--out", tmp_path_factory.mktemp("snapshots"), "--format", "json")
    assert done.exit_code == 0, done.stderr
    return Path(json.loads(done.stdout)["run"])


def test_a_snapshot_is_a_run_with_its_solvency_and_the_secret_beside_it(run: Path, call: Call) -> None:
    assert (run / "solvency" / "solvency.json").is_file()
    salt = run.with_name(f"{run.name}.salt")
    assert salt.stat().st_mode & 0o777 == 0o600
    secret = salt.read_text().strip()
    assert not [p for p in run.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]
    assert call("show", run.parent).exit_code == 0


def test_a_secret_of_ones_own_is_made_once_and_used_again(call: Call, book: Path, tmp_path: Path) -> None:
    salt = tmp_path / "own.salt"
    salt.write_text("ab" * 32)
    salt.chmod(0o644)
    refused = call("snapshot", book, *MODEL, "--out", tmp_path / "out", "--salt-file", salt)
    assert refused.exit_code == 2
    assert "chmod 600" in refused.stderr
    assert not (tmp_path / "out").exists()


def proof_of(call: Call, run: Path, *more: object) -> dict[str, Any]:
    done = call("prove", run, "--account", "dave", "--pool", "isolated-1", *more)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_proof_is_written_checked_and_compared_with_what_was_published(call: Call, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "dave.json"
    assert call("prove", run, "--account", "dave", "--pool", "isolated-1", "--out", file).exit_code == 0
    assert json.loads(file.read_text()) == proof_of(call, run)
    done = call("verify-proof", file, "--against", run / "solvency" / "manifest.json")
    assert done.exit_code == 0
    assert "published" in done.stderr
    assert "negative_equity USDC" in done.stdout
    assert call("verify-proof", file).exit_code == 0


def test_a_proof_that_does_not_hold_ends_with_four(call: Call, run: Path, tmp_path: Path) -> None:
    proof = proof_of(call, run)
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({**proof, "account": {**proof["account"], "pool": "cross"}}))
    done = call("verify-proof", file)
    assert done.exit_code == 4
    assert "does not hold" in done.stderr
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"commitment": {**proof["commitment"], "decimals": {"USDC": 2}}}))
    file.write_text(json.dumps(proof))
    done = call("verify-proof", file, "--against", other)
    assert done.exit_code == 4
    assert "not the one published" in done.stderr


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "\x00"])
def test_a_file_that_is_no_proof_is_a_usage_error(call: Call, tmp_path: Path, text: str) -> None:
    file = tmp_path / "proof.json"
    file.write_text(text)
    assert call("verify-proof", file).exit_code == 2


def test_nothing_of_a_proof_acts_on_the_terminal(call: Call, run: Path, tmp_path: Path) -> None:
    proof = proof_of(call, run)
    proof["commitment"]["columns"][0] = "\x1b[2Jequity"
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(proof))
    done = call("verify-proof", file)
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout + done.stderr


def test_unknown_accounts_and_runs_without_a_snapshot_are_usage_errors(call: Call, run: Path, runs: Path) -> None:
    assert "no account 'zoe'" in call("prove", run, "--account", "zoe").stderr
    done = call("prove", runs, "--account", "dave")
    assert done.exit_code == 2
