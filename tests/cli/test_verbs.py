"""Claims about what each verb prints, in every form."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpumargin.catalogue import model_dates
from gpumargin.sample import sample_path
from tests.books import tiny_book, without_ether_vols, write_book
from tests.cli.conftest import MODEL, ROOT, process
from tests.oracle.black import Option, black_sensitivities

if TYPE_CHECKING:
    from tests.cli.conftest import Call

FORMS = ("table", "json", "csv", "arrow")


@dataclass
class FakeExplanation:
    tables: dict[str, pl.DataFrame] = field(
        default_factory=lambda: {
            "legs": pl.DataFrame({"instrument_id": ["A", "\x1b[2JB"], "value": [1.0, float("nan")]}),
            "scenarios": pl.DataFrame({"id": ["1.18/up"], "pnl": [-3.0]}),
        }
    )
    headline: dict[str, object] = field(default_factory=lambda: {"account_id": "bob", "maintenance_margin": 36735.56})


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Puts a stand-in in the place of `gpumargin.explain` and lists what it was asked."""
    asked: list[tuple[Any, ...]] = []
    module = ModuleType("gpumargin.explain")

    def explain_account(*arguments: Any) -> FakeExplanation:
        asked.append(arguments)
        return FakeExplanation()

    module.explain_account = explain_account  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gpumargin.explain", module)
    return asked


def _rows(text: str, form: str, raw: bytes) -> Any:
    if form == "json":
        return json.loads(text)
    if form == "csv":
        return list(csv.DictReader(io.StringIO(text)))
    return pa.ipc.open_stream(raw).read_all().to_pylist()


@pytest.mark.parametrize("form", FORMS[1:])
def test_top_gives_the_same_accounts_in_every_form(call: Call, runs: Path, form: str) -> None:
    done = call("top", runs, "-n", 3, "--format", form)
    rows = _rows(done.stdout if form != "arrow" else "", form, done.stdout_bytes)
    assert [(row["account_id"], row["pool"]) for row in rows] == [
        ("dave", "isolated-1"),
        ("dave", "cross"),
        ("carol", "cross"),
    ]
    assert float(rows[0]["maintenance_excess"]) == pytest.approx(-8416.0)


@pytest.mark.parametrize(("by", "first"), [("initial_margin", "alice"), ("equity", "dave"), ("num_positions", "alice")])
def test_the_worst_account_comes_first(call: Call, runs: Path, by: str, first: str) -> None:
    assert json.loads(call("top", runs, "--by", by, "--format", "json").stdout)[0]["account_id"] == first


def test_exposures_rank_by_size_whatever_the_sign(call: Call, runs: Path) -> None:
    deltas = [row["delta"] for row in json.loads(call("top", runs, "--by", "delta", "--format", "json").stdout)]
    assert deltas == sorted(deltas, key=abs, reverse=True)


def test_an_account_without_a_requirement_has_no_health_and_comes_last(call: Call, runs: Path) -> None:
    rows = json.loads(call("top", runs, "--by", "health", "--format", "json").stdout)
    assert rows[-1]["health"] is None
    assert rows[0]["account_id"] == "dave"


def test_a_number_that_is_none_is_an_alarm_and_comes_first(call: Call, runs: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(runs, tmp_path / "runs"))
    part = next(copied.glob("*/accounts/*.parquet"))
    table = pq.read_table(part)
    place = table.column_names.index("maintenance_excess")
    odd = pa.array([float("nan"), *table["maintenance_excess"].to_pylist()[1:]])
    pq.write_table(table.set_column(place, "maintenance_excess", odd), part)
    done = call("top", copied, "-n", 1, "--format", "json")
    assert json.loads(done.stdout)[0]["maintenance_excess"] is None
    assert json.loads(done.stdout)[0]["account_id"] == table["account_id"][0].as_py()
    assert "nan" in call("top", copied, "-n", 1, columns=200).stdout


def test_unknown_columns_are_answered_with_those_there_are(call: Call, runs: Path) -> None:
    assert "maintenance_excess, health" in call("top", runs, "--by", "margin").stderr.replace("\n", " ")


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_narrow_screen_cuts_no_number(call: Call, runs: Path, columns: int) -> None:
    shown = call("top", runs, columns=columns).stdout
    for number in ("18,516.00", "-8,416.00", "233,904.60", "0.5455"):
        assert number in shown
    assert max(map(len, shown.splitlines())) <= columns


def test_show_names_what_a_reader_must_know(call: Call, runs: Path) -> None:
    done = call("show", runs)
    assert done.exit_code == 0
    for words in (
        "derive-pm1@2025-02-01",
        "Derive portfolio margin 1",
        "no estimated numbers",
        "2026-03-05 08:00:00 UTC",
        "374,199.978880",
        "126,833.292301",
        "210,500.000000",
        "1 below maintenance",
        "dave (pool isolated-1), -8,416.00 USDC",
        "float64",
        "10 positions",
    ):
        assert words in " ".join(done.stdout.split())


@pytest.mark.parametrize("form", FORMS[1:])
def test_show_gives_exact_totals_in_every_form(call: Call, runs: Path, form: str) -> None:
    done = call("show", runs, "--format", form)
    found = _rows(done.stdout if form != "arrow" else "", form, done.stdout_bytes)
    if form == "json":
        equity = found["by_accounting_asset"]["USDC"]["totals"]["equity"]
    else:
        equity = {row["name"]: row["value"] for row in found}["by_accounting_asset.USDC.totals.equity"]
    assert equity == "374199.978880"


def test_a_run_is_found_by_its_folder_its_pointer_and_its_id(
    call: Call, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = (runs / "latest").read_text().strip()
    monkeypatch.chdir(runs.parent)
    assert len({call("show", place).stdout for place in (Path("runs"), Path("runs") / name, "latest", name)}) == 1


def test_run_puts_its_path_on_stdout_and_its_summary_on_stderr(call: Call, book: Path, tmp_path: Path) -> None:
    done = call("run", book, *MODEL, "--out", tmp_path, "--no-units")
    folder = Path(done.stdout.strip())
    assert folder.parent == tmp_path
    assert (folder / "manifest.json").is_file()
    assert not (folder / "units").exists()
    assert not (folder / "positions").exists()
    assert "under water" in done.stderr


def test_run_applies_overrides_and_names_them(call: Call, book: Path, tmp_path: Path) -> None:
    done = call("run", book, *MODEL, "--out", tmp_path, "--set", "parameters.im_factor=2.5")
    summary = json.loads(call("show", tmp_path, "--format", "json").stdout)
    totals = summary["by_accounting_asset"]["USDC"]["totals"]
    assert float(totals["initial_margin"]) == pytest.approx(2 * 158541.615376)
    assert "parameters.im_factor = 2.5" in " ".join(done.stderr.split())


def test_a_run_names_what_its_model_estimates(call: Call, runs: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(runs, tmp_path / "runs"))
    path = next(copied.glob("*/summary.json"))
    summary = json.loads(path.read_text())
    summary["models"]["derive-pm1@2025-02-01"]["estimated"] = ["vol_shock.up", "parameters.im_factor"]
    path.write_text(json.dumps(summary))
    assert "2 estimated numbers: vol_shock.up, parameters.im_factor" in " ".join(call("show", copied).stdout.split())


@pytest.mark.parametrize("form", FORMS)
def test_models_lists_every_model_with_its_date_and_source(call: Call, form: str) -> None:
    done = call("models", "--format", form, columns=200)
    assert done.exit_code == 0
    if form != "table":
        rows = _rows(done.stdout if form != "arrow" else "", form, done.stdout_bytes)
        assert ("derive-pm1", "2025-02-01") in {(row["name"], row["date"]) for row in rows}
        assert all(row["source"] for row in rows)
    else:
        assert "derive-pm1" in done.stdout


@pytest.mark.parametrize("columns", [80, 200])
def test_the_list_of_models_has_a_line_for_each_that_fits_the_screen(call: Call, columns: int) -> None:
    lines = call("models", columns=columns).stdout.splitlines()
    dates = model_dates()
    assert [line.split()[0] for line in lines[1:]] == list(dates)
    assert max(map(len, lines)) <= max(columns, 120)
    for line, days in zip(lines[1:], dates.values(), strict=True):
        assert max(days).isoformat() in line
        assert len(days) == 1 or f" +{len(days) - 1} " in line


def test_a_model_in_full_has_a_grade_for_every_number(call: Call) -> None:
    found = json.loads(call("models", "derive-pm1", "--format", "json").stdout)
    numbers = {row["path"]: row for row in found["numbers"]}
    assert (numbers["parameters.im_factor"]["value"], numbers["parameters.im_factor"]["grade"]) == (1.25, "verified")
    assert numbers["scenarios.grid.0.spot"]["value"] == 1.18
    graded = [row["grade"] for row in found["numbers"] if isinstance(row["value"], (int, float))]
    assert {row for row in graded if row} <= {"verified", "published", "inferred", "estimated"}
    assert "spot 1.18, vol up" in call("models", "derive-pm1").stdout


def test_the_grade_of_a_number_is_that_of_the_longest_path_that_covers_it() -> None:
    from gpumargin.grades import grade
    from gpumargin.modelfile import Provenance

    provenance = Provenance(default="verified", estimated=["vol_shock"], published=["vol_shock.up"])
    paths = ("vol_shock.up", "vol_shock.up.BTC", "vol_shock.down", "vol_shocked", "parameters.x")
    assert [grade(provenance, path) for path in paths] == [
        "published",
        "published",
        "estimated",
        "verified",
        "verified",
    ]


def test_the_schema_of_model_files_is_json(call: Call) -> None:
    assert "provenance" in json.loads(call("models", "--schema").stdout)["properties"]


@pytest.mark.parametrize("form", FORMS[1:])
def test_greeks_give_the_same_contracts_in_every_form(call: Call, book: Path, form: str) -> None:
    done = call("greeks", book, "--units", "market", "--underlying", "ETH", "--format", form)
    assert done.exit_code == 0, done.stderr
    rows = _rows(done.stdout if form != "arrow" else "", form, done.stdout_bytes)
    assert [row["instrument_id"] for row in rows] == ["ETH-PERP", "ETH-20260327-2000-P", "ETH-20260626-2500-C"]
    vega = black_sensitivities(Option(2_500.0, is_call=True, years=113 / 365), forward=2_240.0, vol=0.72).vega
    assert float(rows[2]["vega"]) == pytest.approx(vega / 100)
    assert "per vol point" in done.stderr


def test_greeks_in_arrow_say_their_units(call: Call, book: Path) -> None:
    done = call("greeks", book, "--model", "derive-pm1", "--format", "arrow")
    schema = pa.ipc.open_stream(done.stdout_bytes).schema
    assert schema.field("vega").metadata[b"unit"] == b"USDC per 1.00 of vol"


def test_greeks_on_a_screen_are_the_numbers_alone(call: Call, book: Path) -> None:
    shown = call("greeks", book, "--underlying", "BTC", columns=120).stdout
    assert shown.split()[:3] == ["instrument_id", "value", "implied_vol"]
    assert "strike" not in shown
    assert call("greeks", book, "--underlying", "SOL").exit_code == 2


def test_greeks_name_how_many_contracts_the_market_leaves_out(call: Call, tmp_path: Path) -> None:
    tables = without_ether_vols(tiny_book())
    market = {name: tables[name] for name in ("instruments", "marks", "forwards", "prices")}
    done = call("greeks", write_book(tmp_path / "market", market))
    assert done.exit_code == 0
    assert "note: 2 have no Greeks" in done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_doctor_says_what_falls_back(call: Call, form: str) -> None:
    done = call("doctor", "--format", form, columns=160)
    assert done.exit_code == 0
    if form != "table":
        rows = _rows(done.stdout if form != "arrow" else "", form, done.stdout_bytes)
        assert {"jax", "devices", "gpu", "float64", "memory", "compile cache"} <= {row["topic"] for row in rows}


def test_generate_makes_a_book_that_passes_the_check(call: Call, tmp_path: Path) -> None:
    made = call("generate", tmp_path / "b", "--accounts", 50, "--positions-per-account", 4, "--underlyings", 1)
    assert (made.exit_code, made.stdout.strip()) == (0, str(tmp_path / "b"))
    assert call("check", tmp_path / "b").exit_code == 0


def test_an_imported_chain_is_a_book(call: Call, tmp_path: Path) -> None:
    chain = ROOT / "data" / "sample" / "chain.parquet"
    out = tmp_path / "b"
    done = call("import", "deribit-chain", chain, "--snapshot", "2026-03-05T08:00", "--out", out, "--as", "linear-usdc")
    assert (done.exit_code, done.stdout.strip()) == (0, str(out)), done.stderr
    assert "assumed: 1 USDC = 1 USD" in done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_explain_prints_an_account_in_every_form(
    call: Call, runs: Path, explained: list[tuple[Any, ...]], form: str
) -> None:
    done = call("explain", runs, "--account", "bob", "--format", form)
    assert done.exit_code == 0, done.stderr
    assert explained[0][1:] == ("bob", "cross")
    if form == "json":
        assert json.loads(done.stdout)["tables"]["legs"][1]["value"] is None
    elif form == "table":
        assert "36,735.56" in done.stdout
        assert "\x1b" not in done.stdout
    else:
        assert len(_rows(done.stdout if form == "csv" else "", form, done.stdout_bytes)) == 2
        assert "choose with --table: legs, scenarios" in done.stderr


def test_explain_gives_one_table_by_its_title(call: Call, runs: Path, explained: list[tuple[Any, ...]]) -> None:
    done = call("explain", runs, "--account", "bob", "--table", "scenarios", "--format", "csv")
    assert done.stdout == "id,pnl\n1.18/up,-3.0\n"
    assert call("explain", runs, "--account", "bob", "--table", "no").exit_code == 2


def test_demo_runs_out_of_the_box_and_says_how_to_go_on(tmp_path: Path) -> None:
    done = process("demo", "--out", tmp_path / "runs", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert (folder / "manifest.json").is_file()
    for word in ("bankrupt\u00a01", "gpumargin show", "gpumargin top", "gpumargin explain", "--account acct-"):
        assert word in done.stderr
    assert "Warning" not in done.stderr
    cache = tmp_path / "cache" / "gpumargin" / "jax"
    assert cache.stat().st_mode & 0o777 == 0o700
    assert list(cache.iterdir())


def test_the_sample_book_is_small_and_valid(call: Call) -> None:
    assert sum(path.stat().st_size for path in sample_path().rglob("*") if path.is_file()) < 400_000
    assert call("check", sample_path()).exit_code == 0
