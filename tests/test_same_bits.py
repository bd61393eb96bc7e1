"""Same inputs, same bits: for any order of rows, split of files, chunk size, number of devices and tables written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
import pytest

from gpumargin import device, engine, native
from gpumargin.pack import buckets
from gpumargin.run import margin
from gpumargin.runs import Run
from gpumargin.synth import generate_book
from gpumargin.tables import Book, read_book
from tests.explained import with_digitals
from tests.sampled import rest_slow

ACCOUNTS = 1_500
RULES = str(Path(__file__).with_name("rules.toml"))
MODELS = ["derive-pm1", "correlated-pm", "derive-pm2", "derive-sm", "span", "simm-like", "tims", "deribit-pm", RULES]
FAST = ("derive-pm1",)  # each compiles anew for nearly every claim
IDS = [Path(m).stem for m in MODELS]


@pytest.fixture(scope="module", params=rest_slow(MODELS, FAST), ids=IDS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Accounts with 1 to over 100 legs: buckets of one trip, of several, and sizes that leave a remainder."""
    path = tmp_path_factory.mktemp("bits") / "book"
    generate_book(path, accounts=ACCOUNTS, positions_per_account=9, underlyings=3, seed=11)
    return path


@pytest.fixture(scope="module")
def book(folder: Path) -> Book:
    return read_book(folder)


@pytest.fixture(scope="module")
def usual(book: Book, model: str) -> Run:
    return margin(book, model)


@pytest.fixture(scope="module")
def expected(usual: Run) -> dict[str, str]:
    return hashes(usual)


def hashes(run: Run) -> dict[str, str]:
    """Result hashes of a run."""
    return dict(run.manifest["results"])


def shuffled(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sample(fraction=1, shuffle=True, seed=5)


def changed(book: Book, **frames: pl.DataFrame) -> Book:
    return read_book(**{**{name: book.frame(name) for name in book.tables}, **frames})


def test_shuffled_rows_give_the_same_bits(book: Book, model: str, expected: dict[str, str]) -> None:
    frames = {name: shuffled(book.frame(name)) for name in book.tables}
    assert hashes(margin(read_book(**frames), model)) == expected


def test_files_split_anywhere_give_the_same_bits(
    book: Book, model: str, expected: dict[str, str], tmp_path: Path
) -> None:
    for name in book.tables:
        (tmp_path / name).mkdir()
        frame = book.frame(name)
        for index, cut in enumerate(np.array_split(np.arange(frame.height), 3)):
            if len(cut):
                frame[int(cut[0]) : int(cut[-1]) + 1].write_parquet(tmp_path / name / f"{index}.parquet")
    assert hashes(margin(read_book(tmp_path), model)) == expected


@pytest.mark.parametrize("rows", rest_slow([32, None], []), ids=["chunks of 32 rows", "no chunks"])
def test_chunk_size_does_not_change_a_bit(
    book: Book, model: str, expected: dict[str, str], rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "chunk_rows", lambda _: rows)
    monkeypatch.setattr(native, "is_available", lambda: False)
    assert hashes(margin(book, model)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("contracts", [16, 64, None], ids=["chunks of 16", "chunks of 64", "no chunks"])
def test_contracts_priced_together_do_not_change_a_bit(
    book: Book, model: str, usual: Run, contracts: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = device.contract_chunk(jax.devices("cpu")[0])
    monkeypatch.setattr(engine, "contract_chunk", lambda _: contracts)
    # As many padding contracts as usual, so that only the pricing of contracts is compiled anew.
    monkeypatch.setattr(engine, "even_rows", lambda rows, _, devices: buckets.even_rows(rows, step, devices))
    run = margin(book, model)
    assert hashes(run) == hashes(usual)
    assert run.tables["instruments"].equals(usual.tables["instruments"])


@pytest.mark.slow
def test_padding_contracts_do_not_change_a_bit(
    book: Book, model: str, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "contract_chunk", lambda _: None)
    assert hashes(margin(book, model)) == expected


@pytest.mark.slow
def test_digital_options_priced_two_at_a_time_keep_their_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = margin(read_book(**with_digitals()), "correlated-pm")
    monkeypatch.setattr(engine, "contract_chunk", lambda _: 2)
    run = margin(read_book(**with_digitals()), "correlated-pm")
    assert hashes(run) == hashes(usual)
    assert run.tables["instruments"].equals(usual.tables["instruments"])


def test_size_of_parts_does_not_change_a_bit(
    book: Book, model: str, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "accounts_per_shard", lambda *_: 170)
    assert hashes(margin(book, model)) == expected


def test_one_device_gives_the_bits_of_two(
    book: Book, model: str, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(jax.devices("cpu")) == 2, "the test session sets two host devices"
    monkeypatch.setattr(engine, "choose_devices", lambda choice: device.choose_devices(choice)[:1])
    assert hashes(margin(book, model)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("width", [8, 32], ids=["one trip and more", "several trips and more"])
def test_wider_buckets_give_the_same_bits(
    book: Book, model: str, expected: dict[str, str], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "MIN_WIDTH", width)
    assert hashes(margin(book, model)) == expected


def test_units_and_positions_beside_do_not_change_accounts(book: Book, model: str, expected: dict[str, str]) -> None:
    alone = hashes(margin(book, model, tables=()))
    together = hashes(margin(book, model, tables=("units", "positions")))
    assert alone["accounts"] == expected["accounts"] == together["accounts"]


def test_an_account_alone_has_the_bits_it_has_in_the_crowd(book: Book, model: str, usual: Run) -> None:
    crowd = usual.accounts
    chosen = crowd.sort("num_positions", descending=True)["account_id"].unique(maintain_order=True)[
        [0, 5, 200, 900, -1]
    ]
    some = {
        name: book.frame(name).filter(pl.col("account_id").is_in(chosen.to_list()))
        for name in ("positions", "balances", "accounts")
    }
    alone = margin(changed(book, **some), model).accounts
    assert alone.equals(crowd.filter(pl.col("account_id").is_in(chosen.to_list())))


def test_integer_ids_give_the_numbers_of_text_ids(book: Book, model: str, usual: Run) -> None:
    def numbered(name: str) -> pl.DataFrame:
        number = pl.col("account_id").str.strip_prefix("acct-").cast(pl.Int64)
        return book.frame(name).with_columns(account_id=number)

    run = margin(changed(book, **{n: numbered(n) for n in ("positions", "balances", "accounts")}), model)
    assert run.accounts["account_id"].dtype == pl.Int64
    assert run.accounts.drop("account_id").equals(usual.accounts.drop("account_id"))


@pytest.mark.slow
def test_float32_is_near_and_says_so(book: Book, model: str, usual: Run) -> None:
    exact = usual.accounts
    run = margin(book, model, dtype="float32")
    assert run.manifest["dtype"] == "float32"
    gross = exact["equity"].abs() + exact["maintenance_margin"] + 1e3
    assert float(((run.accounts["maintenance_margin"] - exact["maintenance_margin"]).abs() / gross).max()) < 1e-3


def test_every_result_column_says_its_unit_and_sign(book: Book, model: str) -> None:
    tables: dict[str, Any] = dict(margin(book, model, tables=("units", "positions")).tables)
    silent = [
        (name, field.name)
        for name, table in tables.items()
        for field in table.schema
        if not (field.metadata or {}).get(b"meaning")
    ]
    assert not silent
