"""Claims about `report`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Call


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(runs, tmp_path / "runs"))
    return copied / (copied / "latest").read_text().strip()


def test_a_page_lies_beside_its_run_and_its_path_goes_to_stdout(call: Call, run: Path, tmp_path: Path) -> None:
    done = call("report", run.parent, "--figures", tmp_path / "figures")
    assert done.exit_code == 0, done.stderr
    page = Path(done.stdout.strip())
    assert page == run.with_name(f"{run.name}.html")
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert (tmp_path / "figures" / "health.png").is_file()


def test_a_run_whose_totals_do_not_hold_ends_with_four_and_still_shows(call: Call, run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["by_accounting_asset"]["USDC"]["totals"]["equity"] = "1.000000"
    (run / "summary.json").write_text(json.dumps(summary))
    done = call("report", run)
    assert done.exit_code == 4
    assert "DOES NOT HOLD" in run.with_name(f"{run.name}.html").read_text("utf-8")


def test_without_the_packages_for_it_a_report_says_what_to_install(
    call: Call, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("gpumargin.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    done = call("report", run)
    assert done.exit_code == 5
    assert "gpumargin[report]" in done.stderr
