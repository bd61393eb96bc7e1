"""Claims about run folders, hashes and totals: all or nothing, whatever the cut, to the last unit."""

from __future__ import annotations

import hashlib
import json
import math
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumargin import digests, disk
from gpumargin.digests import ColumnDigest, table_digest
from gpumargin.errors import ResourceError
from gpumargin.publish import RunFolder, resolve_run
from gpumargin.publish.files import Written, put_tables, write_table
from gpumargin.result_columns import TABLES, described
from gpumargin.sums import BalanceSums, exact_sum
from gpumargin.tables import Book
from gpumargin.totals import AccountTotals, asset_decimals, balance_totals
from tests.books import tiny_book

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL = pa.table({"x": [1.5, None, -0.0], "name": pa.array(["a", None, "ccc"]).dictionary_encode()})
NAMES = ("summary", "manifest")


def published(out: Path, run_id: str) -> Path:
    with RunFolder(out) as folder:
        folder.add_part("accounts", SMALL)
        folder.add_part("accounts", SMALL)
        folder.add_table("instruments", SMALL)
        return folder.publish(run_id, {"accounts": 6}, {"id": run_id})


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} if folder.exists() else set()


def test_a_published_run_is_whole_and_named_by_the_pointer(tmp_path: Path) -> None:
    target = published(tmp_path / "runs", "one")
    assert target == tmp_path / "runs" / "one"
    assert everything(target) == {
        "accounts", "accounts/part-00000.parquet", "accounts/part-00001.parquet",
        "instruments.parquet", "summary.json", "manifest.json", "SHA256SUMS",
    }  # fmt: skip
    assert json.loads((target / "manifest.json").read_text()) == {"id": "one"}
    assert (tmp_path / "runs" / "latest").read_text() == "one\n"
    assert everything(tmp_path / "runs") - {f"one/{name}" for name in everything(target)} == {"one", "latest"}


def test_numbers_that_json_does_not_know_are_published_as_texts(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        target = folder.publish(
            "one", {"tiers": [[10, 0.5], (float("inf"), 0.1)]}, {"x": {"low": float("-inf"), "no": math.nan}}
        )
    strict = {name: json.loads((target / f"{name}.json").read_text(), parse_constant=pytest.fail) for name in NAMES}
    assert strict == {"summary": {"tiers": [[10, 0.5], ["inf", 0.1]]}, "manifest": {"x": {"low": "-inf", "no": "nan"}}}


def test_parts_carry_page_checksums_and_read_back_as_written(tmp_path: Path) -> None:
    target = published(tmp_path, "one")
    found = pq.read_table(target / "accounts" / "part-00001.parquet", page_checksum_verification=True)
    assert found["x"].to_pylist() == [1.5, None, -0.0]


def test_nothing_is_visible_before_the_one_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[Path, set[str]]] = []
    rename = disk.rename

    def watched(source: Path, target: Path) -> None:
        shown.append((target, {name for name in everything(tmp_path) if not name.startswith(".staging-")}))
        if target == tmp_path / "one":
            assert {"manifest.json", "summary.json", "accounts/part-00001.parquet"} <= everything(source)
        rename(source, target)

    monkeypatch.setattr(disk, "rename", watched)
    published(tmp_path, "one")
    revealed = [target for target, _ in shown].index(tmp_path / "one")
    assert not any(names for _, names in shown[: revealed + 1])
    assert shown[-1][0] == tmp_path / "latest"
    assert "one/manifest.json" in shown[-1][1]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        pytest.param(OSError(28, "No space left on device"), ResourceError, id="a full disk"),
        pytest.param(ValueError("a bug"), ValueError, id="a bug"),
        pytest.param(KeyboardInterrupt(), KeyboardInterrupt, id="an interrupt"),
    ],
)
def test_a_run_that_fails_leaves_nothing_and_keeps_the_pointer(
    error: BaseException, raised: type[BaseException], tmp_path: Path
) -> None:
    def run() -> None:
        with RunFolder(tmp_path) as folder:
            folder.add_part("accounts", SMALL)
            raise error

    published(tmp_path, "one")
    before = everything(tmp_path)
    with pytest.raises(raised) as caught:
        run()
    assert everything(tmp_path) == before
    assert (tmp_path / "latest").read_text() == "one\n"
    if raised is ResourceError:
        assert caught.value.exit_code == 5  # type: ignore[attr-defined]
        assert "No space left on device" in str(caught.value)
        assert "nothing was published" in str(caught.value)


def test_a_run_never_overwrites_another(tmp_path: Path) -> None:
    target = published(tmp_path, "one")
    before = (target / "manifest.json").stat().st_mtime_ns
    with pytest.raises(ResourceError, match="one"):
        published(tmp_path, "one")
    assert (target / "manifest.json").stat().st_mtime_ns == before


def test_two_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as one, RunFolder(tmp_path) as two:
        one.add_table("accounts", SMALL)
        two.publish("two", {}, {})
        one.publish("one", {}, {})
    assert everything(tmp_path / "one") == {"accounts.parquet", "summary.json", "manifest.json", "SHA256SUMS"}
    assert everything(tmp_path / "two") == {"summary.json", "manifest.json", "SHA256SUMS"}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="file"), RunFolder(tmp_path / "file"):
        pass


def test_a_run_is_found_by_folder_by_its_parent_and_by_the_pointer(tmp_path: Path) -> None:
    published(tmp_path, "one")
    newest = published(tmp_path, "two")
    assert resolve_run(tmp_path) == resolve_run(tmp_path / "latest") == resolve_run(newest) == newest
    assert resolve_run(tmp_path / "one") == tmp_path / "one"


@pytest.mark.parametrize("pointer", [None, "gone\n"], ids=["no pointer", "pointer to a run that is gone"])
def test_no_run_is_an_error_that_says_what_was_expected(pointer: str | None, tmp_path: Path) -> None:
    if pointer:
        (tmp_path / "latest").write_text(pointer)
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        resolve_run(tmp_path)


# --- Hashes.


def wide_table(rows: int) -> pa.Table:
    """Every type that tables hold, with nulls."""
    rng = np.random.default_rng(0)
    words = [None if i % 5 == 3 else "z" * (i % 4) for i in range(rows)]
    return pa.table(
        {
            "number": pa.array([None if i % 7 == 2 else x for i, x in enumerate(rng.normal(size=rows))], pa.float64()),
            "word": pa.array(words, pa.string()),
            "code": pa.array(words, pa.string()).dictionary_encode(),
            "whole": pa.array(rng.integers(-5, 5, rows), pa.int64()),
            "flag": pa.array([None if i % 3 == 0 else bool(i % 2) for i in range(rows)], pa.bool_()),
            "time": pa.array([None if i == 4 else i for i in range(rows)], pa.timestamp("us", "UTC")),
            "money": pa.array([None if i == 1 else Decimal(i) / 8 for i in range(rows)], pa.decimal128(20, 3)),
            "list": pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=3 * rows)), 3),
        }
    )


WIDE = wide_table(23)


@given(st.lists(st.integers(0, 23), max_size=6))
def test_the_hash_is_equal_for_any_cut_into_parts(cuts: list[int]) -> None:
    digest = ColumnDigest()
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 23], strict=True):
        digest.add(WIDE.slice(start, stop - start))
    assert digest.hexdigest() == table_digest(WIDE)


@given(st.lists(st.integers(0, 23), max_size=6), st.integers(1, 25), st.integers(0, 6))
def test_the_hash_is_equal_for_any_cut_and_however_often_it_was_laid_aside(
    cuts: list[int], block: int, which: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "BLOCK_ROWS", block)
        digest, bounds = ColumnDigest(), [0, *sorted(cuts), 23]
        for number, (start, stop) in enumerate(pairwise(bounds)):
            digest.add(WIDE.slice(start, stop - start))
            if number >= which:
                digest = ColumnDigest(digest.state())
            assert digest.rows == stop
        assert digest.hexdigest() == table_digest(WIDE)


def test_the_hash_does_not_see_chunks_dictionaries_or_what_stands_under_a_null() -> None:
    chunks = pa.concat_tables([WIDE.slice(0, 9), WIDE.slice(9)])
    plain = WIDE.set_column(2, "code", WIDE["code"].cast(pa.string()))
    number = WIDE["number"].combine_chunks()
    under = pa.Array.from_buffers(
        pa.float64(),
        23,
        [number.buffers()[0], pa.py_buffer(np.nan_to_num(np.asarray(number.fill_null(9.0))).tobytes())],
    )
    masked = WIDE.set_column(0, "number", under)
    assert masked["number"].null_count == WIDE["number"].null_count
    assert table_digest(chunks) == table_digest(plain) == table_digest(masked) == table_digest(WIDE)


@pytest.mark.parametrize(
    "dtype",
    [
        pa.large_string(),
        pa.dictionary(pa.uint32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_plain_large_and_coded_texts_have_one_hash(dtype: pa.DataType) -> None:
    texts = pa.array(["a", "a", None, "\u00e9", "", "b"])
    other = texts.dictionary_encode().cast(dtype) if pa.types.is_dictionary(dtype) else texts.cast(dtype)
    assert table_digest(pa.table({"x": other})) == table_digest(pa.table({"x": texts}))


@pytest.mark.parametrize("words", [["a", "a", "b", "b\u00e9", "c"], ["a"], ["x", "x"], ["", "a"]], ids=" ".join)
def test_texts_in_their_order_which_are_not_hashed_have_the_hash_of_coded_ones(words: list[str]) -> None:
    in_order = pa.array(["0", *words])[1:]
    backwards = sorted(set(words), reverse=True)
    coded = pa.DictionaryArray.from_arrays(pa.array([backwards.index(word) for word in words]), pa.array(backwards))
    assert table_digest(pa.table({"x": in_order})) == table_digest(pa.table({"x": coded}))


@pytest.mark.parametrize("name", WIDE.column_names)
def test_the_hash_sees_every_single_value(name: str) -> None:
    values = WIDE[name].to_pylist()
    for changed in ([*values[:-1], values[5]], [*values[:4], None, *values[5:]], values[::-1]):
        if changed != values and not (name == "list" and None in changed):
            other = WIDE.set_column(
                WIDE.column_names.index(name), name, pa.array(changed, WIDE.schema.field(name).type)
            )
            assert table_digest(other) != table_digest(WIDE)


def test_the_hash_tells_texts_apart_that_read_the_same_end_to_end() -> None:
    assert table_digest(pa.table({"x": ["ab", "c"]})) != table_digest(pa.table({"x": ["a", "bc"]}))
    assert table_digest(pa.table({"x": [""]})) != table_digest(pa.table({"x": pa.array([None], pa.string())}))
    assert table_digest(pa.table({"x": [0.0]})) != table_digest(pa.table({"x": [-0.0]}))


def test_a_table_without_rows_has_a_hash() -> None:
    assert table_digest(WIDE.slice(0, 0)) == table_digest(wide_table(0))
    assert table_digest(pa.table({"x": pa.array([], pa.string())})) != table_digest(
        pa.table({"y": pa.array([], pa.string())})
    )


# --- Totals.


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50))
def test_sums_of_integers_are_exact_beyond_sixty_three_bits(values: list[int]) -> None:
    assert exact_sum(np.array(values, np.int64)) == sum(values)


def test_ten_thousand_times_the_largest_integer_is_exact() -> None:
    assert exact_sum(np.full(10_000, 2**63 - 1)) == 10_000 * (2**63 - 1)


def account_rows(equity: list[int | None], status: list[str]) -> pa.Table:
    minor = pa.array(equity, pa.int64())
    return pa.table(
        {
            "status": pa.array(status).dictionary_encode(),
            "equity_minor": minor,
            "initial_margin_minor": minor,
            "maintenance_margin_minor": minor,
        }
    )


def test_totals_do_not_depend_on_the_cut_into_parts_and_count_every_status() -> None:
    equity, status = [5, -7, None, 2**62, 2**62], ["healthy", "bankrupt", "unknown", "healthy", "healthy"]
    whole, parts = AccountTotals(6), AccountTotals(6)
    whole.add(account_rows(equity, status))
    for i in range(5):
        parts.add(account_rows(equity[i : i + 1], status[i : i + 1]))
    summary = whole.summary()
    assert parts.summary() == summary
    assert summary["accounts"] == 5
    assert summary["status"] == {"healthy": 3, "bankrupt": 1, "unknown": 1}
    assert Decimal(summary["totals"]["equity"]) == Decimal(2**63 - 2) / 10**6
    assert Decimal(summary["totals"]["negative_equity"]) == Decimal(-7) / 10**6


@pytest.mark.parametrize(
    ("total", "decimals", "text"),
    [
        pytest.param(0, 8, "0.00000000", id="nothing"),
        pytest.param(1, 8, "0.00000001", id="one minor unit"),
        pytest.param(-123, 2, "-1.23", id="a negative amount"),
    ],
)
def test_totals_are_plain_decimal_strings(total: int, decimals: int, text: str) -> None:
    totals = AccountTotals(decimals)
    totals.add(account_rows([total], ["healthy"]))
    assert totals.summary()["totals"]["equity"] == text


def totals_of(book: Book) -> dict[str, str]:
    sums = BalanceSums()
    for row in range(0, book.num_rows("balances"), 2):  # in parts of two rows
        sums.add(book.tables["balances"].slice(row, 2))
    return balance_totals(sums.by_asset, asset_decimals(book))


def balances(amounts: list[object], dtype: pa.DataType, *, decimals: int = 6) -> Book:
    """The tiny book with these amounts of USDC, and that many decimals of it."""
    tables = {name: frame.to_arrow() for name, frame in tiny_book().items()}
    rows = len(amounts)
    tables["balances"] = pa.table(
        {"account_id": [f"a{i}" for i in range(rows)], "asset": ["USDC"] * rows, "amount": pa.array(amounts, dtype)}
    )
    tables["assets"] = pl.DataFrame({"asset": ["USDC"], "decimals": [decimals]}).to_arrow()
    return Book(**tables)


@pytest.mark.parametrize(
    ("amounts", "dtype", "expected"),
    [
        pytest.param([0.1] * 10, pa.float64(), "1.000000", id="floats, rounded once at the end"),
        pytest.param([1e15, 0.3, -1e15], pa.float64(), "0.300000", id="floats that cancel"),
        pytest.param([2**62, 2**62, 2**62], pa.int64(), f"{3 * 2**62}.000000", id="integers beyond sixty-three bits"),
        pytest.param([Decimal("0.1")] * 3, pa.decimal128(20, 6), "0.300000", id="decimals"),
        pytest.param(
            [Decimal("-0.0000004"), Decimal("0.0000005")],
            pa.decimal128(20, 7),
            "0.000000",
            id="decimals finer than the asset",
        ),
    ],
)
def test_balance_totals_are_exact_for_every_type_of_amount(
    amounts: list[object], dtype: pa.DataType, expected: str
) -> None:
    assert totals_of(balances(amounts, dtype)) == {"USDC": expected}


def test_balance_totals_of_assets_with_eighteen_decimals_keep_every_digit() -> None:
    amount = Decimal("999999999999999.000000000000000001")
    found = totals_of(balances([amount] * 3, pa.decimal128(38, 18), decimals=18))
    assert Decimal(found["USDC"]) == 3 * Fraction(amount) or found["USDC"] == "2999999999999997.000000000000000003"


def test_balance_totals_list_every_asset_by_name_with_its_own_decimals() -> None:
    assert totals_of(Book(**tiny_book())) == {"BTC": "2.40000000", "ETH": "12.00000000", "USDC": "210500.000000"}
    assert asset_decimals(Book(**tiny_book()))["USDC"] == 6
    assert asset_decimals(Book(**tiny_book()))["USD"] == 2
    assert asset_decimals(Book(**tiny_book()))["DOGE"] == 8


# --- Meaning of columns.


def test_every_column_of_a_result_carries_unit_sign_and_meaning_in_the_accounting_asset() -> None:
    table = described(
        pa.table({"account_id": ["a"], "equity": [1.0], "initial_margin": [2.0], "my_component": [3.0]}),
        "accounts",
        "USDC",
    )
    metadata = {field.name: {k.decode(): v.decode() for k, v in field.metadata.items()} for field in table.schema}
    assert all(set(words) == {"unit", "sign", "meaning"} for words in metadata.values())
    assert metadata["equity"]["unit"] == "USDC"
    assert metadata["initial_margin"]["sign"] == "positive = required"
    assert metadata["my_component"]["unit"] == "USDC"
    assert table.schema.metadata[b"accounting_asset"] == b"USDC"


def test_every_unit_that_speaks_of_money_names_the_accounting_asset_by_its_placeholder() -> None:
    for columns in TABLES.values():
        for name, meaning in columns.items():
            assert meaning.text, name
            assert "USD" not in meaning.unit, name


ALTERATIONS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "a column less": lambda table: table.select(["x"]),
    "a column more": lambda table: table.append_column("y", table["x"]),
    "another order of columns": lambda table: table.select(["name", "x"]),
    "another value": lambda table: table.set_column(0, "x", pa.array([1.5, None, 0.0])),
    "a row less": lambda table: table.slice(1),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_a_table_that_does_not_read_back_as_it_was_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write = pq.write_table

    def altered(table: pa.Table, file: object, **options: object) -> None:
        write(ALTERATIONS[name](table), file, **options)

    monkeypatch.setattr(pq, "write_table", altered)
    with pytest.raises(ResourceError, match="small"):
        write_table(tmp_path / "small.parquet", SMALL)
    assert not list(tmp_path.iterdir())


class _Altering(pq.ParquetWriter):
    """Writes the second of its tables without its last row."""

    tables = 0

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        self.tables += 1
        super().write_table(table.slice(0, table.num_rows - (self.tables == 2)), row_group_size)


def test_tables_that_do_not_read_back_as_they_were_are_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.parquet"
    assert put_tables(path, iter([SMALL, SMALL])) == Written(
        2 * SMALL.num_rows, hashlib.sha256(path.read_bytes()).hexdigest()
    )
    path.unlink()
    monkeypatch.setattr(pq, "ParquetWriter", _Altering)
    with pytest.raises(OSError, match="read back"):
        put_tables(path, iter([SMALL, SMALL]))
    assert not list(tmp_path.iterdir())


def test_a_table_with_nan_reads_back_as_it_was(tmp_path: Path) -> None:
    write_table(tmp_path / "some.parquet", pa.table({"x": [math.nan, 1.0]}))
    assert math.isnan(pq.read_table(tmp_path / "some.parquet")["x"][0].as_py())
