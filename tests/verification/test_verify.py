"""Claims about verifying a run: what was published passes, and every change to it, however careful, is named."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet as pq
import pytest

import gpumargin as gm
from gpumargin.catalogue import load_model
from gpumargin.errors import UsageError
from gpumargin.prepare import Options
from gpumargin.publish import CHECKSUMS
from gpumargin.run import margin_folder, margin_to_folder
from gpumargin.tables import read_book
from tests.books import AS_OF, with_cell, write_book
from tests.verification.conftest import MODEL, failed, with_owners
from tests.verification.forged import (
    all_of,
    edited,
    files_of,
    in_json,
    in_table,
    more,
    rewritten,
    sealed,
    set_to,
    swapped,
    table_of,
    together,
)

if TYPE_CHECKING:
    from tests.verification.forged import Forgery

ROOT = Path(__file__).parents[2]
ALICE, BOB, CAROL, DAVE = 0, 1, 2, 4  # dave also has an empty pool


def test_what_was_published_passes_every_check(published: Path) -> None:
    found = gm.verify_run(published, full=True)
    assert (found.exit_code, found.ok, found.is_complete, found.findings.height) == (0, True, True, 0)
    counts = dict(found.checks.select("check", "count").iter_rows())
    assert counts["file hashes"] == len([path for path in published.rglob("*.*") if path.is_file()])
    assert counts["recomputation"] > 200
    assert found.seed is None


def test_a_sample_is_told_by_its_seed(published: Path) -> None:
    one, two = (gm.verify_run(published, sample=2) for _ in range(2))
    assert one.seed != two.seed
    again = gm.verify_run(published, sample=2, seed=one.seed)
    assert again.checks.equals(one.checks)
    assert f"2 accounts of 5, seed {one.seed}" in one.checks["covered"][-1]
    with pytest.raises(UsageError, match="at least 1"):
        gm.verify_run(published, sample=0)


def test_jax_the_kernels_and_the_engine_are_never_imported(published: Path) -> None:
    barred = ("jax", "jaxlib", "gpumargin_kernels", "gpumargin.engine", "gpumargin.device", "gpumargin.native")
    code = f"""
import sys
sys.modules.update(dict.fromkeys({barred!r}))
import gpumargin as gm
found = gm.verify_run({str(published)!r}, full=True)
print(found.exit_code, found.is_complete)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603  our own code
    assert (done.stdout, done.stderr) == ("0 True\n", "")


@pytest.mark.slow
def test_a_run_in_single_precision_passes(tmp_path: Path) -> None:
    book = write_book(tmp_path / "book", with_owners())
    run = gm.margin(gm.Book(**with_owners()), MODEL, as_of=AS_OF, dtype="float32").write(tmp_path / "runs")
    assert gm.verify_run(run, book=book, full=True).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("is_streamed", [False, True], ids=["in memory", "to a folder"])
def test_a_run_of_several_models_passes_and_each_may_be_forged(tmp_path: Path, is_streamed: bool) -> None:
    tables = with_owners()
    models = pl.Series("model", ["derive-sm", None, "derive-pm2"], dtype=pl.String)
    tables["accounts"] = tables["accounts"].with_columns(models)
    book = write_book(tmp_path / "book", tables)
    if is_streamed:
        options = Options(as_of=AS_OF, tables=("units", "positions"), book_path=str(book))
        run = margin_to_folder(read_book(book), load_model(MODEL), tmp_path / "runs", options)
    else:
        run = gm.margin(gm.Book(**tables), MODEL, as_of=AS_OF).write(tmp_path / "runs")
    found = gm.verify_run(run, full=True, book=book)
    assert found.findings.rows(named=True) == []
    assert (found.exit_code, found.is_complete) == (0, True)
    assert len(found.checks.filter(check="identities")) == 3
    edited(run, "accounts", more("delta", 1.0, ALICE))
    again = failed(gm.verify_run(run, book=book))
    assert {"file hashes", "value hashes", "sums of units"} <= again


def test_a_run_of_files_is_held_against_their_bytes(tmp_path: Path) -> None:
    book = write_book(tmp_path / "book", with_owners())
    run = margin_folder(book, load_model(MODEL), tmp_path / "runs", Options(as_of=AS_OF, book_path=str(book)))
    assert gm.verify_run(run, full=True).exit_code == 0
    path = book / "positions.parquet"
    pq.write_table(pq.read_table(path), path, compression="none")  # the values are as they were
    found = gm.verify_run(run)
    assert failed(found) == {"book"}
    assert found.findings["column"].to_list() == ["sha256 of the files"]


# --- Bytes.


def bits_of(folder: Path, rng: random.Random) -> tuple[Path, int, int]:
    """A random bit of a random file: file, byte, bit."""
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    return path, rng.randrange(path.stat().st_size), rng.randrange(8)


def undetected_flips(folder: Path, count: int, seed: int) -> list[str]:
    """Flips one bit after the other, and back; those that verification does not see."""
    rng, missed = random.Random(seed), []  # noqa: S311  repeatable, not secret
    for _ in range(count):
        path, place, bit = bits_of(folder, rng)
        before = path.read_bytes()
        path.write_bytes(before[:place] + bytes([before[place] ^ (1 << bit)]) + before[place + 1 :])
        found = gm.verify_run(folder, sample=1, seed=1)
        if found.exit_code != 4 or not found.findings.height:
            missed.append(f"{path.name} byte {place} bit {bit}")
        path.write_bytes(before)
    assert gm.verify_run(folder, sample=1, seed=1).exit_code == 0
    return missed


@pytest.fixture
def whole(solvent: Path, tmp_path: Path) -> Path:
    """A copy of the run with its snapshot."""
    return shutil.copytree(solvent, tmp_path / solvent.name)


def test_every_one_of_20_flipped_bits_is_seen(whole: Path) -> None:
    assert undetected_flips(whole, 20, seed=7) == []


@pytest.mark.slow
def test_every_one_of_1000_flipped_bits_is_seen(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = 1_000
    missed = undetected_flips(whole, count, seed=11)
    with capsys.disabled():
        print(f"{count - len(missed):,} of {count:,} single-bit flips seen")  # noqa: T201  the count is the claim
    assert missed == []


def test_a_file_that_is_missing_or_new_is_named(folder: Path) -> None:
    files_of(folder, "units")[0].unlink()
    (folder / "notes.txt").write_text("?")
    found = gm.verify_run(folder)
    assert found.exit_code == 4
    named = found.findings.filter(pl.col("check") == "file hashes").select("file", "recomputed")
    assert ("units/part-00000.parquet", "the file is missing") in named.rows()
    assert "notes.txt" in named["file"]


@pytest.mark.parametrize("name", ["manifest.json", CHECKSUMS])
def test_a_run_without_its_seals_is_no_run_to_trust(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert gm.verify_run(folder).exit_code == 4


def test_a_damaged_page_is_seen_even_where_all_hashes_were_made_again(folder: Path) -> None:
    path = files_of(folder, "accounts")[0]
    column = pq.ParquetFile(path).metadata.row_group(0).column(4)
    place = column.data_page_offset + column.total_compressed_size - 3
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    lines = (folder / CHECKSUMS).read_text().splitlines()
    from gpumargin.publish import file_digest

    fixed = [f"{file_digest(folder / line[66:])}  {line[66:]}\n" for line in lines]
    (folder / CHECKSUMS).write_text("".join(fixed))
    found = gm.verify_run(folder)
    assert found.exit_code == 4
    assert "tables" in failed(found)


# --- Numbers changed by somebody who makes every hash fit.


def _model_date(folder: Path) -> None:
    """The accounts say that they were margined with older parameters."""
    old, new = "derive-pm1@2025-02-01", "derive-pm1@2023-12-15"

    def rename(document: dict[str, object]) -> None:
        document["models"] = {new: document["models"][old]}  # type: ignore[index]

    edited(folder, "accounts", lambda frame: frame.with_columns(pl.lit(new).cast(frame.schema["model"]).alias("model")))
    rewritten(folder, "manifest", rename)
    rewritten(folder, "summary", rename)


def _parameter(document: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    document["models"]["derive-pm1@2025-02-01"]["parameters"]["im_factor"] = 1.2


def _cheaper(frame: pl.DataFrame) -> pl.DataFrame:
    """A thousand less of margin for one account, with all that follows from it."""
    edits = [more(column, -1_000.0, BOB) for column in ("initial_margin", "maintenance_margin")]
    edits += [more(column, 1_000.0, BOB) for column in ("initial_excess", "maintenance_excess")]
    edits += [more(column, -1_000_000_000, BOB) for column in ("initial_margin_minor", "maintenance_margin_minor")]
    frame = together(*edits)(frame)
    health = frame["maintenance_balance"][BOB] / frame["maintenance_margin"][BOB]
    return set_to("health", health, BOB)(frame)


def _lower_totals(document: dict[str, dict[str, dict[str, dict[str, str]]]]) -> None:
    totals = document["by_accounting_asset"]["USDC"]["totals"]
    for name in ("initial_margin", "maintenance_margin"):
        whole, fraction = totals[name].split(".")
        totals[name] = f"{int(whole) - 1_000}.{fraction}"


def _doubled(folder: Path) -> None:
    """A part file stands twice."""
    (first, *_) = files_of(folder, "accounts")
    shutil.copy(first, first.with_name("part-00009.parquet"))


def _total(name: str, value: object) -> Forgery:
    return in_json("summary", lambda document: document["by_accounting_asset"]["USDC"]["totals"].update({name: value}))


def _scaled(names: str, factor: float) -> Forgery:
    """A wrong scale of one column."""
    return in_table("accounts", lambda frame: frame.with_columns((pl.col(names) * factor).cast(frame.schema[names])))


def _risk(folder: Path) -> None:
    """The lowest 5 % of every contract's risk array cut to half: a quantile changed."""

    def cut(values: list[float]) -> list[float]:
        lowest = sorted(values)[len(values) // 20]
        return [value / 2 if value <= lowest else value for value in values]

    edited(
        folder,
        "instruments",
        lambda frame: frame.with_columns(
            pl.Series("scenario_pnl", [cut(v) for v in frame["scenario_pnl"].to_list()], frame.schema["scenario_pnl"])
        ),
    )


FORGERIES: dict[str, tuple[Forgery, str]] = {
    "equity": (in_table("accounts", more("equity", 1.0)), "identities"),
    "equity and its minor units": (
        in_table("accounts", together(more("equity", 1.0), more("equity_minor", 1_000_000))),
        "equity",
    ),
    "a balance": (in_table("accounts", more("initial_balance", 1.0)), "identities"),
    "an excess by its last bit": (
        in_table("accounts", set_to("initial_excess", lambda x: x * (1 + 2.3e-16))),
        "identities",
    ),
    "a requirement, all that follows from it, and the totals": (
        all_of(in_table("accounts", _cheaper), in_json("summary", _lower_totals)),
        "recomputation",
    ),
    "a minor unit": (in_table("accounts", more("maintenance_margin_minor", -1)), "identities"),
    "a wrong scale": (_scaled("equity_minor", 100), "identities"),
    "a status": (in_table("accounts", set_to("status", "liquidatable", CAROL)), "identities"),
    "a delta": (in_table("accounts", more("delta", 5.0)), "sums of units"),
    "a delta and that of its unit": (
        all_of(in_table("accounts", more("delta", 5.0)), in_table("units", more("delta", 5.0))),
        "recomputation",
    ),
    "a count of positions": (in_table("accounts", more("num_positions", 1)), "recomputation"),
    "a worst scenario": (in_table("units", set_to("worst_scenario", "1.09/none")), "recomputation"),
    "the worst scenario of an account": (
        in_table("accounts", set_to("worst_scenario", "1.09/none", DAVE)),
        "sums of units",
    ),
    "a component": (in_table("units", more("scan", 1.0)), "recomputation"),
    "a dropped account": (in_table("accounts", lambda frame: frame[1:]), "accounts of the book"),
    "a repeated account": (in_table("accounts", lambda f: pl.concat([f, f[:1]])), "one row for each account"),
    "a chunk of accounts twice": (_doubled, "one row for each account"),
    "two accounts swapped": (in_table("accounts", swapped("account_id", ALICE, BOB)), "sums of units"),
    "two accounts swapped everywhere": (
        all_of(
            in_table("accounts", swapped("account_id", ALICE, BOB)),
            in_table(
                "units",
                lambda frame: frame.with_columns(
                    pl.col("account_id").cast(pl.String).replace({"alice": "bob", "bob": "alice"})
                ),
            ),
        ),
        "equity",
    ),
    "a dropped unit": (in_table("units", lambda frame: frame[1:]), "sums of units"),
    "a repeated unit": (in_table("units", lambda f: pl.concat([f, f[:1]])), "sums of units"),
    "a padding row": (
        in_table(
            "units",
            lambda f: pl.concat(
                [f, f[:1].with_columns(pl.lit("nobody").cast(f.schema["account_id"]).alias("account_id"))]
            ),
        ),
        "sums of units",
    ),
    "a quantile of risk arrays": (_risk, "recomputation"),
    "the value of a contract": (in_table("instruments", more("value", 1.0)), "recomputation"),
    "a scenario's weight": (in_table("scenarios", set_to("weight", 0.5)), "scenarios"),
    "a scenario too few": (in_table("scenarios", lambda frame: frame[1:]), "scenarios"),
    "the model's date": (_model_date, "models"),
    "a parameter of the model": (in_json("manifest", _parameter), "models"),
    "a total": (_total("equity", "279000.000000"), "summary"),
    "a total's last digit": (_total("initial_margin", "1"), "summary"),
    "a count by status": (
        in_json("summary", lambda d: d["by_accounting_asset"]["USDC"]["status"].update(healthy=5)),
        "summary",
    ),
    "rows read": (in_json("summary", lambda d: d["rows"]["read"].update(positions=11)), "summary"),
    "a total of balances": (in_json("summary", lambda d: d["balances"].update(BTC="2.50000000")), "balances"),
    "a sum by owner": (in_table("owners", more("equity_minor", 1)), "owners"),
    "an owner's status": (in_table("owners", set_to("status", "bankrupt")), "owners"),
    "a dropped owner": (in_table("owners", lambda frame: frame[1:]), "owners"),
    "a dropped column": (in_table("accounts", lambda frame: frame.drop("health")), "value hashes"),
    "a leg": (in_table("positions", more("value", 1.0)), "positions"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_change_with_every_hash_made_to_fit_is_caught(folder: Path, name: str) -> None:
    forge, check = FORGERIES[name]
    forge(folder)
    sealed(folder)
    found = gm.verify_run(folder)
    assert found.exit_code == 4
    assert "file hashes" not in failed(found)
    assert check in failed(found), found.checks
    assert check in found.findings["check"].to_list()


def test_a_finding_names_file_row_account_column_and_both_values(folder: Path) -> None:
    edited(folder, "accounts", _cheaper)
    sealed(folder)
    found = gm.verify_run(folder).findings.filter(check="recomputation", column="maintenance_margin")
    row = found.row(0, named=True)
    stored = table_of(folder, "accounts")["maintenance_margin"][BOB].as_py()
    assert (row["file"], row["row"], row["account_id"], row["pool"]) == (
        "accounts/part-00000.parquet",
        1,
        "bob",
        "cross",
    )
    assert (float(row["stored"]), float(row["recomputed"])) == (stored, pytest.approx(stored + 1_000))


# --- The book.


def test_a_book_that_has_changed_is_an_error_of_its_own(published: Path, tmp_path: Path) -> None:
    changed = with_cell(with_owners(), "balances", row=0, column="amount", value=120_001.0)
    found = gm.verify_run(published, book=write_book(tmp_path / "changed", changed))
    assert (found.exit_code, failed(found)) == (3, {"book"})
    assert found.findings.select("file", "column").rows() == [("balances", "sha256 of the values")]
    assert not found.is_complete


def test_a_book_that_is_gone_is_asked_for(folder: Path, published: Path, tmp_path: Path) -> None:
    rewritten(folder, "manifest", lambda document: document.update(book=str(tmp_path / "gone")))
    sealed(folder)
    lost = gm.verify_run(folder)
    assert lost.exit_code == 3
    assert "--book" in lost.checks.filter(check="book")["covered"][0]
    assert gm.verify_run(folder, book=published.parents[1] / "book").exit_code == 0


def test_a_run_of_tables_in_memory_is_verified_against_the_same_tables_in_a_folder(tmp_path: Path) -> None:
    run = gm.margin(gm.Book(**with_owners()), MODEL, as_of=AS_OF).write(tmp_path / "runs")
    unnamed = gm.verify_run(run)
    assert (unnamed.exit_code, unnamed.ok) == (3, True)
    assert gm.verify_run(run, book=write_book(tmp_path / "book", with_owners())).exit_code == 0
