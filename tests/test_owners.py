"""Claims about sums over the margin accounts of an owner."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from gpumargin import merging
from gpumargin.errors import InternalError
from gpumargin.owners import OwnerTotals
from gpumargin.run import margin
from gpumargin.tables import read_book
from tests.books import AS_OF, tiny_book

if TYPE_CHECKING:
    from pathlib import Path

SUMMED = ("equity", "initial_margin", "initial_excess", "maintenance_margin", "maintenance_excess")


def test_owners_add_up_their_accounts_exactly_and_take_the_worst_status() -> None:
    given = tiny_book()
    ids = given["balances"].select("account_id", "pool").unique().sort("account_id", "pool")
    named = ids.with_columns(owner_id=pl.Series([None, *["one", "two"] * ids.height][: ids.height]))
    run = margin(read_book(**given | {"accounts": named}), "derive-pm1", as_of=AS_OF, device="cpu")
    joined = run.accounts.with_columns(pl.col("account_id", "pool").cast(pl.String)).join(
        named, on=["account_id", "pool"]
    )
    order = ["healthy", "margin_call", "liquidatable", "bankrupt", "unknown"]
    assert set(run.owners["owner_id"].cast(pl.String)) == {"one", "two"}
    for row in run.owners.iter_rows(named=True):
        own = joined.filter(pl.col("owner_id") == row["owner_id"])
        assert row["num_accounts"] == own.height
        assert row["equity_minor"] == own["equity_minor"].sum()
        assert row["maintenance_margin_minor"] == own["maintenance_margin_minor"].sum()
        assert row["status"] == max(own["status"].cast(pl.String), key=order.index)
        assert row["accounting_asset"] == "USDC"


def test_a_book_without_owners_has_no_such_table() -> None:
    run = margin(
        read_book(**tiny_book() | {"accounts": pl.DataFrame({"account_id": ["alice"]})}), "derive-pm1", as_of=AS_OF
    )
    assert "owners" not in run.tables


def table_of(totals: OwnerTotals) -> pa.Table:
    return pa.concat_tables(totals.tables("USD"))


def part(minor: list[int], status: list[str]) -> pa.Table:
    """Accounts with every sum equal to `minor`, in units of 1."""
    columns: dict[str, pa.Array] = {f"{name}_minor": pa.array(minor, pa.int64()) for name in SUMMED}
    return pa.table(columns | {"status": pa.array(status).dictionary_encode()})


def test_sums_are_exact_beyond_floats_and_in_any_order(rng: np.random.Generator, tmp_path: Path) -> None:
    values = rng.integers(-(2**60), 2**60, 200)
    owner = rng.integers(-1, 3, 200)
    expected = [sum(Fraction(int(v)) for v in values[owner == i]) for i in range(3)]
    for order in (np.arange(200), rng.permutation(200)):
        totals = OwnerTotals(2, tmp_path)
        for piece in np.array_split(order, 3):
            totals.add(part(values[piece].tolist(), ["healthy"] * len(piece)), owner[piece], pa.array(["a", "b", "c"]))
        if all(abs(e) < 2**63 for e in expected):
            assert table_of(totals)["equity_minor"].to_pylist() == expected


def test_an_unknown_account_makes_the_sums_of_its_owner_unknown(tmp_path: Path) -> None:
    totals = OwnerTotals(2, tmp_path)
    totals.add(part([1, 2, 3], ["healthy", "unknown", "bankrupt"]), np.array([0, 0, 1]), pa.array(["a", "b"]))
    table = table_of(totals)
    assert table["equity_minor"].to_pylist() == [None, 3]
    assert table["status"].to_pylist() == ["unknown", "bankrupt"]


def test_a_sum_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    totals = OwnerTotals(2, tmp_path)
    totals.add(part([2**62, 2**62], ["healthy"] * 2), np.zeros(2, np.int64), pa.array(["a"]))
    with pytest.raises(InternalError, match="GM117"):
        table_of(totals)


def test_sums_of_more_owners_than_memory_holds_are_the_same(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = pa.array([f"owner-{i:04d}" for i in range(1_000)])
    pieces = [(rng.integers(-(2**40), 2**40, 700), rng.integers(-1, 1_000, 700)) for _ in range(9)]

    def summed(folder: Path) -> pa.Table:
        totals = OwnerTotals(2, folder)
        for values, owner in pieces:
            totals.add(part(values.tolist(), ["healthy"] * 700), owner, ids)
        return table_of(totals).combine_chunks()

    expected = summed(tmp_path / "memory")
    monkeypatch.setattr(merging, "_ROWS_IN_MEMORY", 900)
    monkeypatch.setattr(merging, "_BATCH", 64)
    assert summed(tmp_path / "disk").equals(expected)
    assert len(list((tmp_path / "disk").iterdir())) > 3
    assert not (tmp_path / "memory").exists()
