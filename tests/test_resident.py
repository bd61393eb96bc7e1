"""Claims about the resident book: after any blocks the bits of a fresh run, nothing compiled anew, all or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import polars as pl
import pytest

from gpumargin.errors import InputError, UsageError
from gpumargin.resident import Change, ResidentBook
from gpumargin.resident.lane import Lane
from gpumargin.resident.parts import Parts
from gpumargin.run import margin
from gpumargin.synth import generate_book
from gpumargin.tables import Book, read_book
from gpumargin_kernels.resident import NEW_ACCOUNT
from tests.blocks import NAMES, Draw
from tests.books import AS_OF, tiny_book, with_row
from tests.explained import coin_margined, with_digitals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpumargin.catalogue import MarginModel

ROOT = Path(__file__).resolve().parents[1]
COMPILED = "/jax/core/compile/backend_compile_duration"


def bits(column: pl.Series) -> list[Any]:
    """A column's values so that equal means equal to the last bit."""
    if column.dtype != pl.Float64:
        return column.cast(pl.String).to_list()
    found = column.fill_null(0.0).to_numpy().view(np.int64)
    return [None if is_null else bit for bit, is_null in zip(found.tolist(), column.is_null().to_list(), strict=True)]


def require_same(live: ResidentBook, change: Change, model: MarginModel | str) -> None:
    """Every column of every account, and the totals, are those of a fresh run on the book as it is now."""
    fresh = margin(live.book, model, tables=())
    assert change.totals == fresh.summary["by_accounting_asset"]
    assert set(change.accounts.columns) == set(fresh.accounts.columns)
    for name in fresh.accounts.columns:
        assert bits(change.accounts[name]) == bits(fresh.accounts[name]), name


def require_same_unasked(live: ResidentBook, change: Change) -> None:
    """A recalculation that brings no columns down says the same, bit for bit, of all accounts, taken for new."""
    for lane in live.lanes:
        everyone = np.arange(len(lane.ids))
        lane.set_statuses(everyone, np.full(len(everyone), NEW_ACCOUNT))
    unasked, asked = live.recalculate(), change.accounts.sort(NAMES)
    assert unasked.totals == change.totals
    assert unasked.status_changes.select(NAMES).rows() == asked.select(NAMES).rows()
    assert bits(unasked.status_changes["after"]) == bits(asked["status"])
    for name in ("equity", "initial_excess", "maintenance_excess"):
        assert bits(unasked.status_changes[name]) == bits(asked[name]), name


def run_blocks(book: Book, model: str, *, blocks: int, seed: int, **options: Any) -> ResidentBook:
    """Random blocks, the bits compared after each."""
    live = ResidentBook(book, model, accounts_per_shard=128)
    draw = Draw(np.random.default_rng(seed), live.book)
    for number in range(blocks):
        block = draw.block(listings=number % 2 == 1, **options)
        listed = block.pop("marks", None)
        live.apply(**block)
        draw.book = live.book
        market = draw.market()
        if listed is not None:
            market["marks"] = pl.concat([market["marks"], listed], how="diagonal").unique("instrument_id", keep="last")
        change = live.recalculate(**market, columns="all")
        require_same(live, change, model)
        draw.book = live.book
    require_same_unasked(live, change)
    return live


def test_after_blocks_of_everything_the_bits_are_those_of_a_fresh_run() -> None:
    run_blocks(Book(**tiny_book()), "derive-pm1", blocks=2, seed=1, size=8)


@pytest.mark.parametrize("searched_by", ["memory", "devices"])
def test_trades_that_find_room_lay_no_account_anew_and_keep_the_bits(
    searched_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if searched_by == "devices":
        monkeypatch.setattr(Parts, "are_in_memory", False)
    live = ResidentBook(Book(**tiny_book()), "derive-pm1")
    anew: list[int] = []
    commit = Lane.commit
    monkeypatch.setattr(Lane, "commit", lambda lane, *rest: (anew.append(len(rest[0])), commit(lane, *rest)))
    changed_opened_closed = [
        ("alice", "BTC-PERP", -0.5, 68_000.0),
        ("alice", "BTC-PERP", 3.5, 67_500.0),  # through zero
        ("alice", "BTC-20260626-80000-C", 10.0, 900.0),  # closes: its slot is free again
        ("alice", "BTC-20260327-60000-P", 2.0, 400.0),  # takes it, in front of others
        ("bob", "ETH-PERP", 12.0, 2_200.0),  # closes
        ("carol", "ETH-PERP", -5.0, 2_150.0),
        ("dave", "ETH-PERP", 1.0, 2_150.0),
    ]
    names = ("account_id", "instrument_id", "quantity", "price")
    fills = pl.DataFrame(changed_opened_closed, names, orient="row").with_columns(
        pool=pl.when(pl.col("account_id") == "dave").then(pl.lit("isolated-1")).otherwise(pl.lit("cross"))
    )
    paid = frame(account_id=["carol", "carol", "bob"], asset=["BTC", "ETH", "USDC"], amount=[-0.1, -12.0, 7.0])
    live.apply(fills=fills, transfers=paid)
    assert anew == []
    require_same(live, live.recalculate(columns="all"), "derive-pm1")
    live.apply(fills=fills.with_columns(quantity=-pl.col("quantity")))
    require_same(live, live.recalculate(columns="all"), "derive-pm1")
    last = frame(account_id=["dave"], pool=["isolated-1"], instrument_id=["ETH-PERP"], quantity=[-40.0], price=[2e3])
    anew.clear()
    live.apply(fills=last)
    assert anew == [1]  # a unit without legs has no row
    require_same(live, live.recalculate(columns="all"), "derive-pm1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resident") / "book"
    generate_book(path, accounts=500, positions_per_account=9, underlyings=2, seed=3)
    return path


LONG = [
    ("derive-pm1", None, False),
    ("derive-pm2", None, False),
    ("derive-pm2", with_digitals, False),
    ("correlated-pm", None, False),
    ("deribit-pm", coin_margined, True),
    ("okx-pm", coin_margined, True),
    ("bybit-uta", coin_margined, False),
    ("derive-sm", None, False),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "tables", "orders"), LONG)
def test_long_sequences_of_blocks_keep_the_bits_of_every_kind_of_model(
    folder: Path, model: str, tables: Any, orders: bool
) -> None:
    book = read_book(folder) if tables is None else Book(**tables())
    run_blocks(book, model, blocks=5, seed=7, size=150 if tables is None else 25, orders=orders)


def run_apart(code: str, *options: str, **variables: str) -> str:
    """What a process of its own prints, in which nobody has set JAX up."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    environment = {**os.environ, **variables, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  our own code
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("is_native", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_blocks_warn_of_nothing_where_jax_is_left_at_32_bits(is_native: bool) -> None:
    code = f"""
import polars as pl
import gpumargin as gm
import gpumargin.native
from tests.books import tiny_book

gpumargin.native.is_available = lambda: {is_native}
live = gm.ResidentBook(gm.Book(**tiny_book()), "derive-pm1")
first = live.recalculate(columns="all")
traded = live.book.frame("positions").select("account_id", "pool", "instrument_id")
live.apply(fills=traded.with_columns(quantity=pl.lit(5000.0), price=pl.lit(100.0)))
print(len(first.accounts), live.recalculate().status_changes.height)
"""
    accounts, changed = run_apart(code, "-W", "error").split()
    assert int(accounts) >= int(changed) > 0


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_other_numbers_of_devices_give_the_same_bits(folder: Path, devices: int) -> None:
    code = f"""
from tests.test_resident import *
run_blocks(read_book({str(folder)!r}), "derive-pm1", blocks=3, seed=5, size=150)
print(len(jax.devices()))
"""
    flags = f"--xla_force_host_platform_device_count={devices}"
    assert run_apart(code, XLA_FLAGS=flags) == str(devices)


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Names of what has been compiled since."""
    found: list[str] = []

    def listen(event: str, _: float, **words: str | int) -> None:
        if event == COMPILED:
            found.append(str(words.get("fun_name", "")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.slow
def test_blocks_compile_nothing_once_there_has_been_one(compiled: list[str]) -> None:
    jax.jit(lambda x: x + len(compiled))(1.0)
    assert compiled, "compiling is not noticed"
    live = ResidentBook(Book(**tiny_book()), "derive-pm1")
    draw = Draw(np.random.default_rng(2), live.book)
    counts = []
    for number in range(4):
        live.apply(
            fills=draw.fills(5),
            transfers=draw.transfers(2),
            settlements=draw.settlements(1),
            accounts=draw.newcomers(1),
            **({"instruments": draw.listings(2)["instruments"]} if number % 2 == 0 else {}),
        )
        live.recalculate(**draw.market())
        counts.append(len(compiled))
    assert counts[1:] == [counts[1]] * 3
    assert counts[1] - counts[0] == 0, compiled[counts[0] :]
    for _ in range(2):
        live.recalculate(**draw.market(), columns="all")
        counts.append(len(compiled))
    # Bringing columns down is a program of its own, which another test may have compiled already.
    assert counts[-1] == counts[-2], compiled[counts[-2] :]


@pytest.fixture(scope="module")
def live() -> ResidentBook:
    return ResidentBook(Book(**tiny_book()), "derive-pm1", as_of=AS_OF)


def frame(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(columns)


WRONG = {
    "an unknown account": ("fills", ("zoe", "BTC-PERP", 1.0, 100.0), "GM106", "account_id"),
    "an unknown instrument": ("fills", ("bob", "BTC-NEVER", 1.0, 100.0), "GM105", "instrument_id"),
    "a trade of nothing": ("fills", ("bob", "BTC-PERP", 0.0, 100.0), "GM112", "quantity"),
    "a price that is no number": ("fills", ("bob", "BTC-PERP", 1.0, float("nan")), "GM103", "price"),
    "a negative price": ("fills", ("bob", "BTC-PERP", 1.0, -5.0), "GM109", "price"),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_a_block_with_one_bad_row_changes_nothing_and_names_the_cell(live: ResidentBook, case: str) -> None:
    table, (account, instrument, quantity, price), code, column = WRONG[case]
    before = {name: live.book.frame(name) for name in ("positions", "balances")}
    good = {"account_id": "bob", "instrument_id": "ETH-PERP", "quantity": 1.0, "price": 2_000.0}
    bad = {"account_id": account, "instrument_id": instrument, "quantity": quantity, "price": price}
    with pytest.raises(InputError) as caught:
        live.apply(**{table: pl.DataFrame([good, bad])})
    found = caught.value.failures.row(0, named=True)
    assert (found["table"], found["row"], found["column"], found["code"]) == (table, 1, column, code)
    assert found["remedy"]
    assert all(live.book.frame(name).equals(frame) for name, frame in before.items())


def test_transfers_settlements_and_listings_are_checked_too(live: ResidentBook) -> None:
    with pytest.raises(InputError, match="DOGE"):
        live.apply(transfers=frame(account_id=["bob"], asset=["DOGE"], amount=[1.0]))
    with pytest.raises(InputError, match="settled twice"):
        live.apply(settlements=frame(instrument_id=["BTC-PERP"] * 2, price=[1.0, 2.0]))
    known = tiny_book()["instruments"][:1].with_columns(strike=pl.lit(1.0))
    with pytest.raises(InputError, match="listed already"):
        live.apply(instruments=known)
    with pytest.raises(InputError, match="margins no account"):
        live.apply(accounts=frame(account_id=["zoe"], model=["derive-sm"]))


def test_a_market_that_lacks_what_is_held_is_refused_and_stays_as_it_was(live: ResidentBook) -> None:
    before = live.recalculate(columns="all")
    marks = tiny_book()["marks"].filter(instrument_id="BTC-PERP").with_columns(mark_price=pl.lit(None, pl.Float64))
    with pytest.raises(InputError, match="GM107"):
        live.recalculate(marks=marks)
    after = live.recalculate(columns="all")
    assert after.accounts.equals(before.accounts)
    assert after.status_changes.is_empty()


def test_the_cells_of_a_block_are_checked_though_rows_that_stayed_are_not_asked_again(live: ResidentBook) -> None:
    marks = tiny_book()["marks"].filter(instrument_id="BTC-PERP")
    for price, code in ((float("nan"), "GM103"), (-1.0, "GM109")):
        with pytest.raises(InputError, match=code):
            live.recalculate(marks=marks.with_columns(mark_price=pl.lit(price)))


def test_rows_of_a_market_may_come_in_any_order_and_be_named_in_any_way(live: ResidentBook) -> None:
    tables = {name: tiny_book()[name] for name in ("marks", "prices", "forwards")}
    turned = {name: frame.reverse() for name, frame in tables.items()}
    coded = {name: frame.cast({pl.String: pl.Categorical}) for name, frame in tables.items()}
    for market in (tables, tables, turned, coded, {name: frame[1:] for name, frame in turned.items()}):
        require_same(live, live.recalculate(**market, columns="all"), "derive-pm1")


def test_the_order_of_contracts_stays_until_something_is_listed_or_gets_a_price() -> None:
    live = ResidentBook(Book(**tiny_book()), "derive-pm1")
    draw = Draw(np.random.default_rng(5), live.book)
    orders = []
    for given in ({}, {"marks": draw.market()["marks"]}, {"prices": frame(asset=["DOGE"], price=[0.1])}):
        live.recalculate(**given)
        orders.append(live.lanes[0].contracts.order)
    live.apply(instruments=draw.listings(2)["instruments"])
    orders.append(live.lanes[0].contracts.order)
    assert orders[0] is orders[1]
    assert len({id(order) for order in orders}) == 3


def test_a_model_that_reads_the_entry_price_of_options_is_refused() -> None:
    with pytest.raises(UsageError, match="entry price"):
        ResidentBook(Book(**tiny_book()), "bybit-uta-cross")


def test_status_changes_are_the_accounts_whose_status_is_another_than_before() -> None:
    live = ResidentBook(Book(**tiny_book()), "derive-pm1", as_of=AS_OF)
    first = live.recalculate(columns=("status",))
    assert first.status_changes["before"].null_count() == first.accounts.height == 5
    live.apply(transfers=frame(account_id=["bob"], asset=["USDC"], amount=[-94_000.0]))
    second = live.recalculate(columns=("status", "equity", "initial_excess", "maintenance_excess"))
    joined = first.accounts.join(second.accounts, on=NAMES, suffix="_after").cast({"status": pl.String})
    changed = joined.filter(pl.col("status") != pl.col("status_after").cast(pl.String)).sort(NAMES)
    assert second.status_changes.select(*NAMES, "before").rows() == changed.select(*NAMES, "status").rows()
    assert second.status_changes["after"].to_list() == changed["status_after"].cast(pl.String).to_list()
    for name in ("equity", "initial_excess", "maintenance_excess"):
        assert second.status_changes[name].to_list() == changed[name].to_list()
    assert "bob" in second.status_changes["account_id"].to_list()


def test_changes_and_totals_are_the_same_whether_or_not_columns_are_asked_for() -> None:
    asked, plain = (ResidentBook(Book(**tiny_book()), "derive-pm1", as_of=AS_OF) for _ in range(2))
    for amount in (0.5, -94_000.0):
        for live in (asked, plain):
            live.apply(transfers=frame(account_id=["bob"], asset=["USDC"], amount=[amount]))
        with_columns, without = asked.recalculate(columns="all"), plain.recalculate()
        assert without.totals == with_columns.totals
        assert without.status_changes.height > 0
        assert without.status_changes.equals(with_columns.status_changes)
        assert without.columns is None


@pytest.mark.slow
def test_accounts_keep_their_models_and_get_the_bits_of_a_fresh_run() -> None:
    tables = tiny_book()
    named = frame(account_id=["alice", "bob"], model=["derive-sm", None], owner_id=["one", "two"])
    live = ResidentBook(Book(**{**tables, "accounts": named}), "derive-pm1")
    new = frame(account_id=["erin"], model=["derive-sm"], owner_id=["one"])
    live.apply(
        accounts=new,
        fills=frame(
            account_id=["alice", "erin"], instrument_id=["ETH-PERP"] * 2, quantity=[2.0, -1.0], price=[2200.0] * 2
        ),
        transfers=frame(account_id=["erin"], asset=["USDC"], amount=[5e3]),
    )
    change = live.recalculate(columns="all")
    require_same(live, change, "derive-pm1")
    models = dict(change.accounts.select("account_id", pl.col("model").cast(pl.String)).iter_rows())
    assert models["erin"] == models["alice"] != models["bob"]


@pytest.mark.slow
def test_an_asset_of_a_later_block_can_be_paid_in() -> None:
    live = ResidentBook(Book(**tiny_book()), "derive-pm1")
    live.recalculate()
    change = live.recalculate(prices=frame(asset=["AVAX"], price=[20.0]), columns="all")
    assert change.status_changes.is_empty()
    live.apply(transfers=frame(account_id=["carol"], asset=["AVAX"], amount=[3.0]))
    after = live.recalculate(columns="all")
    require_same(live, after, "derive-pm1")
    gained = after.accounts.join(change.accounts, on=NAMES).filter(account_id="carol")
    assert gained["equity"][0] - gained["equity_right"][0] == pytest.approx(60.0)


@pytest.mark.slow
def test_cash_due_on_a_position_that_is_gone_comes_back_with_it() -> None:
    tables = with_row(
        tiny_book(), "positions", account_id="bob", pool="cross", instrument_id="BTC-PERP", quantity=0.0, unsettled=7.5
    )
    live = ResidentBook(Book(**tables), "derive-pm1")
    due = live.book.frame("positions").filter(pl.col("unsettled") != 0)
    assert due.select("account_id", "quantity", "unsettled").rows() == [("bob", 0.0, 7.5)]
    trade = {"account_id": ["bob"], "instrument_id": ["BTC-PERP"], "price": [68_000.0]}
    live.apply(fills=frame(**trade, quantity=[1.0]))
    require_same(live, live.recalculate(columns="all"), "derive-pm1")
    live.apply(fills=frame(**trade, quantity=[-1.0]))
    require_same(live, live.recalculate(columns="all"), "derive-pm1")
    assert live.book.frame("positions").filter(pl.col("unsettled") != 0).height == 1
