"""Claims that the books balance on every run, and that whatever breaks them on the way is noticed before publishing."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import gpumargin as gm
from gpumargin import disk, engine, interest, merging, pipeline, prepare, results, selfcheck
from gpumargin.catalogue import load_model
from gpumargin.cli.app import app
from gpumargin.engine import Engine, Settings
from gpumargin.errors import InputError, InternalError, ResourceError
from gpumargin.interest import OpenInterest
from gpumargin.pack import buckets, legs
from gpumargin.prepare import Options
from gpumargin.publish import RunFolder
from gpumargin.run import margin_folder
from gpumargin.sums import float_sums, group_sums
from gpumargin.synth import generate_book
from gpumargin.tables import BookFiles, feed, open_book, read_book
from gpumargin.totals import AccountTotals
from tests.books import tiny_book, write_book
from tests.sampled import rest_slow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODEL, MEMORY = "derive-pm1", 3 << 18
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book whose rows stand in no order, so that parts wait for one another, on disk too."""
    path = tmp_path_factory.mktemp("conservation") / "book"
    generate_book(path, accounts=150, positions_per_account=7, underlyings=2, seed=5, shuffle=True)
    return path


def streamed(book: Path, out: Path, *, resumes: bool = False) -> Path:
    assert isinstance(open_book(book, memory=MEMORY), BookFiles)
    options = Options(settings=Settings(memory_budget=MEMORY))
    return margin_folder(book, load_model(MODEL), out, options, resumes=resumes)


def summary_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "summary.json").read_text())
    return found


# --- Faults, each put where a bug could stand.


def wrapped(patch: Patch, where: Any, name: str, change: Callable[..., Any]) -> None:
    """What a function returns goes through `change`, which also gets its arguments."""
    original = getattr(where, name)
    patch.setattr(where, name, lambda *given, **named: change(original(*given, **named), *given))


def once(change: Callable[[Any], Any]) -> Callable[..., Any]:
    """A change made to the first result alone."""
    left = [change]
    return lambda found, *_: left.pop()(found) if left else found


def lose_a_row_when_reading(patch: Patch) -> None:
    wrapped(patch, feed, "read_group", once(lambda found: (found[0].slice(1), found[1])))


def lose_a_row_when_cutting(patch: Patch) -> None:
    def shorter(cuts: Iterator[Any]) -> list[Any]:
        first, *rest = list(cuts)
        return [first._replace(table=first.table.slice(1), rows=first.rows[1:]), *rest]

    wrapped(patch, feed, "cut", once(shorter))


def read_a_chunk_twice(patch: Patch) -> None:
    wrapped(patch, feed.Feed, "part", once(lambda pieces: [*pieces, pieces[0]]))


def lose_what_waited(patch: Patch) -> None:
    wrapped(patch, feed.Waiting, "taken", lambda pieces, *_: pieces[1:])


def with_a_bit_flipped(column: pa.ChunkedArray) -> pa.Array:
    bits = np.array(column.combine_chunks()).view(np.uint64)
    bits[0] ^= np.uint64(1)  # the last digit
    return pa.array(bits.view(np.float64))


def flip_a_bit_on_the_way(patch: Patch) -> None:
    def flipped(pieces: list[feed.Piece], *_: object) -> list[feed.Piece]:
        for number, piece in enumerate(pieces):
            if "quantity" in piece.table.column_names and piece.table["quantity"][0].as_py():
                at = piece.table.column_names.index("quantity")
                table = piece.table.set_column(at, "quantity", with_a_bit_flipped(piece.table["quantity"]))
                return [*pieces[:number], piece._replace(table=table), *pieces[number + 1 :]]
        return pieces

    wrapped(patch, feed.Feed, "part", flipped)


def edited_legs(patch: Patch, edit: Callable[[Any], dict[str, Any]]) -> None:
    wrapped(patch, prepare, "model_legs", once(lambda book: replace(book, **edit(book))))


def exchanged(values: Any, a: int, b: int) -> Any:
    order = np.arange(len(values))
    order[[a, b]] = order[[b, a]]
    return values.take(pa.array(order)) if isinstance(values, pa.Array) else values[order]


def swap_two_accounts_when_packing(patch: Patch) -> None:
    edited_legs(patch, lambda book: {"account_ids": exchanged(book.account_ids, 0, 1)})


def swap_two_entries(patch: Patch) -> None:
    def edit(book: Any) -> dict[str, Any]:
        known = np.flatnonzero(~np.isnan(book.entry) & (book.cash_quantity != 0))
        return {"entry": exchanged(book.entry, known[0], known[-1])}

    edited_legs(patch, edit)


def lose_sight_of_a_size_in_cash_legs(patch: Patch) -> None:
    edited_legs(patch, lambda book: {"cash_quantity": book.cash_quantity * (1 + 2**-52)})


def swap_two_balances(patch: Patch) -> None:
    edited_legs(patch, lambda book: {"amount": exchanged(book.amount, 0, len(book.amount) - 1)})


def count_a_balance_as_collateral(patch: Patch) -> None:
    edited_legs(patch, lambda book: {"is_collateral": ~book.is_collateral})


def pack_cents_for_dollars(patch: Patch) -> None:
    original = legs.floats

    def floats(table: pa.Table, name: str, *default: float) -> np.ndarray:
        return original(table, name, *default) * (100.0 if name == "amount" else 1.0)

    patch.setattr(legs, "floats", floats)


def lose_a_leg_when_packing(patch: Patch) -> None:
    wrapped(patch, legs, "_position_rows", lambda rows, *_: rows.take(slice(1, None)))


def leave_the_last_slot_out(patch: Patch) -> None:
    def shorter(rows: buckets.Rows, *_: object) -> buckets.Rows:
        rows.is_used[:, -1] = False
        return rows

    wrapped(patch, buckets, "rows_of_width", shorter)


def cut_the_padding_off_one_too_late(patch: Patch) -> None:
    def late(host: Any, index: int, shard: Any) -> Any:
        moved = engine.jax.tree.map(lambda x: np.roll(x, -1, axis=1) if x.ndim > 1 else x, host)
        return original(moved, index, shard)

    original = engine._trimmed
    patch.setattr(engine, "_trimmed", late)


def edited_parts(patch: Patch, edit: Callable[[list[Any]], list[Any]]) -> None:
    wrapped(patch, Engine, "run", once(lambda parts: iter(edit(list(parts)))))


def give_a_part_twice(patch: Patch) -> None:
    edited_parts(patch, lambda parts: [*parts, parts[0]])


def lose_a_part(patch: Patch) -> None:
    edited_parts(patch, lambda parts: parts[:-1])


def edited_table(patch: Patch, name: str, edit: Callable[[pa.ChunkedArray], Any], made: str = "accounts") -> None:
    def edited(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, edit(table[name])) if len(table) > 1 else table

    wrapped(patch, pipeline, f"{made}_table", lambda table, *_: edited(table))


def swap_two_accounts_in_the_result(patch: Patch) -> None:
    edited_table(patch, "account_id", lambda column: exchanged(column.combine_chunks(), 0, len(column) - 1))


def swap_two_numbers_in_the_result(patch: Patch) -> None:
    edited_table(patch, "equity", lambda column: exchanged(column.combine_chunks(), 0, len(column) - 1))


def move_option_value_between_accounts(patch: Patch) -> None:
    edited_table(patch, "option_value", lambda column: pa.array(np.roll(np.asarray(column), 1)))


def flip_a_bit_of_a_requirement(patch: Patch) -> None:
    edited_table(patch, "initial_margin", with_a_bit_flipped)


def double_the_pnl_of_a_unit(patch: Patch) -> None:
    edited_table(patch, "unrealised_pnl", lambda column: pa.array(np.asarray(column) * 2), "units")


def round_to_the_wrong_scale(patch: Patch) -> None:
    original = results.minor_units
    patch.setattr(results, "minor_units", lambda values, decimals, rounding: original(values, decimals + 1, rounding))


def round_in_favour_of_the_account(patch: Patch) -> None:
    original = results.minor_units
    patch.setattr(results, "minor_units", lambda values, decimals, _: original(values, decimals, np.ceil))


def state_totals_at_the_wrong_scale(patch: Patch) -> None:
    patch.setattr(pipeline, "AccountTotals", lambda decimals: AccountTotals(decimals - 1))


def leave_a_part_out_of_the_totals(patch: Patch) -> None:
    add = AccountTotals.add
    patch.setattr(AccountTotals, "add", lambda self, accounts: add(self, accounts.slice(1)))


def add_owners_up_twice(patch: Patch) -> None:
    patch.setattr(merging.Merging, "_combined", lambda self: self.combine(pa.concat_tables(self._waiting * 2)))


FAULTS: dict[Callable[[Patch], None], str] = {
    lose_a_row_when_reading: "rows of .* were read",
    lose_a_row_when_cutting: "(sum of|rows of)",
    read_a_chunk_twice: "(sum of|rows of)",
    lose_what_waited: "(sum of|rows of)",
    flip_a_bit_on_the_way: "fingerprint of positions",
    swap_two_accounts_when_packing: "fingerprint of",
    swap_two_entries: "fingerprint of positions",
    lose_sight_of_a_size_in_cash_legs: "fingerprint of positions",
    swap_two_balances: "fingerprint of balances",
    count_a_balance_as_collateral: "fingerprint of balances",
    pack_cents_for_dollars: "fingerprint of balances",
    lose_a_leg_when_packing: "fingerprint of positions",
    leave_the_last_slot_out: "(option_value|unrealised_pnl) of account",
    cut_the_padding_off_one_too_late: "of account",
    give_a_part_twice: "have results",
    lose_a_part: "have results",
    swap_two_accounts_in_the_result: "account_id of .* results are not those of the book",
    swap_two_numbers_in_the_result: "equity of account",
    move_option_value_between_accounts: "option_value of account",
    flip_a_bit_of_a_requirement: "initial_excess of account",
    double_the_pnl_of_a_unit: "unrealised_pnl of account .* in units",
    round_to_the_wrong_scale: "equity_minor of account",
    round_in_favour_of_the_account: "equity_minor of account",
    state_totals_at_the_wrong_scale: "adds up to",
    leave_a_part_out_of_the_totals: "adds up to",
    add_owners_up_twice: "num_accounts of owners adds up to",
}


@pytest.mark.parametrize(
    "fault", rest_slow([*FAULTS], [*FAULTS][::3]), ids=[fault.__name__.replace("_", " ") for fault in FAULTS]
)
def test_a_fault_inside_a_run_is_noticed_before_anything_is_published(
    fault: Callable[[Patch], None], folder: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    fault(monkeypatch)
    with pytest.raises(InternalError, match=f"^GM202: .*{FAULTS[fault]}.*nothing was published$") as caught:
        streamed(folder, tmp_path / "runs")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "runs").exists()


def test_a_part_that_has_changed_on_disk_is_noticed_as_well(folder: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    def flipped(path: Path, write: Callable[..., Any], check: Callable[[Path], None] | None = None) -> str:
        def changed(staged: Path) -> None:
            content = bytearray(staged.read_bytes())
            content[len(content) // 3] ^= 1
            staged.write_bytes(content)
            assert check is not None
            check(staged)

        return original(path, write, changed if path.parent.name == "accounts" else check)

    original = disk.write_new
    monkeypatch.setattr(disk, "write_new", flipped)
    with pytest.raises(ResourceError, match="nothing was published") as caught:
        streamed(folder, tmp_path / "runs")
    assert caught.value.exit_code == 5


@pytest.mark.slow
def test_a_run_that_goes_on_behind_finished_parts_balances(folder: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    done: list[str] = []

    def interrupted(self: RunFolder, *given: Any) -> None:
        original(self, *given)
        done.append("part")
        if len(done) == 2:
            raise KeyboardInterrupt

    original = RunFolder.finish_part
    monkeypatch.setattr(RunFolder, "finish_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        streamed(folder, tmp_path / "runs")
    monkeypatch.undo()
    whole, rest = streamed(folder, tmp_path / "whole"), streamed(folder, tmp_path / "runs", resumes=True)
    for name in ("balances", "open_interest", "by_accounting_asset", "rows"):
        assert summary_of(rest)[name] == summary_of(whole)[name]
    assert done == ["part", "part"]


def test_a_book_in_parts_balances_and_so_does_a_book_in_memory(folder: Path, tmp_path: Path) -> None:
    run = streamed(folder, tmp_path / "runs")
    assert len(list((run / "accounts").iterdir())) > 2
    whole = gm.margin(read_book(folder), MODEL)
    assert summary_of(run)["balances"] == whole.summary["balances"]
    assert summary_of(run)["open_interest"] == whole.summary["open_interest"]
    assert pl.read_parquet(run / "open_interest.parquet").equals(
        pl.DataFrame(pl.from_arrow(whole.tables["open_interest"]))
    )


def test_a_book_in_memory_is_watched_too(folder: Path, monkeypatch: Patch) -> None:
    swap_two_balances(monkeypatch)
    with pytest.raises(InternalError, match="fingerprint of balances"):
        gm.margin(read_book(folder), MODEL)


@pytest.mark.parametrize(("value", "wrong"), [(4e-24, 0), (2e-6, 3), (0.0, 1), (1.5e-6, 3), (123.456789, 123_456_788)])
def test_an_amount_is_one_minor_unit_up_and_no_other(value: float, wrong: int) -> None:
    names = ("equity", "initial_margin", "maintenance_margin")
    amounts = {"equity": -value, "initial_margin": value, "maintenance_margin": value}
    minor = {"equity": np.floor, "initial_margin": np.ceil, "maintenance_margin": np.ceil}
    table = pa.table(
        {name: [amounts[name]] for name in names}
        | {f"{name}_minor": results.minor_units(np.array([amounts[name]]), 6, minor[name]) for name in names}
    )
    expected = selfcheck.Expected(None, None, np.zeros(0), 6, ())  # type: ignore[arg-type]  not looked at
    selfcheck._check_minor(expected, selfcheck._Rows("accounts", table, pa.array(["a"])), table)
    changed = table.set_column(table.column_names.index("initial_margin_minor"), "initial_margin_minor", [[wrong]])
    with pytest.raises(InternalError, match="initial_margin_minor of account 'a'"):
        selfcheck._check_minor(expected, selfcheck._Rows("accounts", changed, pa.array(["a"])), changed)


# --- Longs and shorts.


def test_open_interest_is_what_the_positions_say(folder: Path, tmp_path: Path) -> None:
    positions = read_book(folder).frame("positions")
    found = gm.margin(read_book(folder), MODEL).tables["open_interest"].to_pylist()
    for row in found:
        quantities = positions.filter(pl.col("instrument_id") == row["instrument_id"])["quantity"].to_list()
        exact = [round(Fraction(quantity) * 10**8) for quantity in quantities]
        assert row["long"] == Decimal(sum(q for q in exact if q > 0)).scaleb(-8)
        assert row["short"] == -Decimal(sum(q for q in exact if q < 0)).scaleb(-8)
        assert row["difference"] == row["long"] - row["short"]
    assert {row["instrument_id"] for row in found} == set(positions.filter(pl.col("quantity") != 0)["instrument_id"])


def test_tenths_that_cancel_on_paper_cancel() -> None:
    tables = tiny_book()
    rows = [(name, "BTC-PERP", size) for name, size in (("a", 0.1), ("b", 0.2), ("c", -0.3), ("d", 1e5), ("e", -1e5))]
    schema = {"account_id": pl.String, "instrument_id": pl.String, "quantity": pl.Float64}
    book = gm.Book(**{**tables, "positions": pl.DataFrame(rows, schema=schema, orient="row")})
    summary = gm.margin(book, MODEL, closed_book=True).summary["open_interest"]
    assert summary == {"contracts": 1, "unbalanced": 0, "largest": None}


def test_a_book_that_does_not_sum_to_zero_is_reported_and_refused_only_where_that_was_asked_for() -> None:
    book = gm.Book(**tiny_book())
    found = gm.margin(book, MODEL).summary["open_interest"]
    assert found["unbalanced"] == found["contracts"] == 7
    assert found["largest"] == {  # 48 ETH are worth more than -1 BTC
        "instrument_id": "ETH-PERP",
        "long": "60.00000000",
        "short": "12.00000000",
        "difference": "48.00000000",
    }
    with pytest.raises(InputError, match="GM120") as caught:
        gm.margin(book, MODEL, closed_book=True)
    first = caught.value.failures.row(0, named=True)
    assert (first["code"], first["table"], first["column"]) == ("GM120", "positions", "quantity")
    assert first["value"] == found["largest"]["difference"]
    assert caught.value.failures.height == 7


def test_show_says_whether_longs_equal_shorts(tmp_path: Path) -> None:
    command = [
        "run",
        str(write_book(tmp_path / "book", tiny_book())),
        "--model",
        MODEL,
        "--out",
        str(tmp_path / "runs"),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "7 of 7 contracts do not sum to zero" in " ".join(done.stderr.split())
    closed = CliRunner().invoke(app, [*command, "--closed-book"])
    assert closed.exit_code == 3
    assert "GM120" in closed.output
    assert len([path for path in (tmp_path / "runs").iterdir() if path.is_dir()]) == 1


def test_more_contracts_than_int64_counts_are_added_up_as_exactly() -> None:
    group, whole = np.array([0, 1, 0, 1]), np.array([2.0**70, 3.0, 1.0, -(2.0**65)])
    assert interest._sums(group, whole, 2) == [2**70 + 1, 3 - 2**65]


def test_sums_by_group_are_exact_whatever_their_size(rng: np.random.Generator) -> None:
    group = rng.integers(0, 5, 3_000)
    whole = rng.integers(-(2**63), 2**63 - 1, 3_000)
    expected = [sum(int(x) for x, g in zip(whole, group, strict=True) if g == k) for k in range(5)]
    assert group_sums(group, whole, 5) == expected
    values = rng.normal(size=3_000) * 10.0 ** rng.integers(-300, 300, 3_000)
    exact = {k: sum((Fraction(x) for x, g in zip(values, group, strict=True) if g == k), Fraction()) for k in range(5)}
    assert float_sums(group, values) == exact


def test_nobody_holding_anything_is_a_closed_book() -> None:
    assert OpenInterest().summary() == {"contracts": 0, "unbalanced": 0, "largest": None}
    assert OpenInterest().table().num_rows == 0
