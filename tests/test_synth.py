"""Claims about synthetic books: closed in lots, reproducible, skewed, of every kind of trader, mostly healthy."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gpumargin.errors import UsageError
from gpumargin.synth import Summary, generate_book
from gpumargin.synth.market import COINS, Coin, smile_vol

KEY = ["account_id", "pool", "instrument_id"]
SIZE = {"accounts": 20_000, "positions_per_account": 5.0, "underlyings": 3, "seed": 7}


def _table(folder: Path, name: str) -> pl.DataFrame:
    path = folder / name / "*.parquet" if (folder / name).is_dir() else folder / f"{name}.parquet"
    return pl.read_parquet(path).with_columns(pl.col(pl.Categorical).cast(pl.String))


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _sides_in_lots(folder: Path, *, lots_per_unit: int = 100) -> pl.DataFrame:
    """Whole lots long and short per traded contract; fails when a quantity or open interest is no whole lot."""
    positions = _table(folder, "positions")
    quantity = positions["quantity"].to_numpy()
    lots = np.rint(quantity * lots_per_unit).astype(np.int64)
    assert (lots / lots_per_unit == quantity).all()
    positions = positions.with_columns(lots=lots)
    longs, shorts = pl.col("lots").clip(lower_bound=0).sum(), (-pl.col("lots")).clip(lower_bound=0).sum()
    return positions.group_by("instrument_id").agg(longs=longs, shorts=shorts)


def _open_lots(folder: Path, *, lots_per_unit: int = 100) -> dict[str, int]:
    marks = _table(folder, "marks").filter(pl.col("open_interest") > 0.0)
    lots = (marks["open_interest"] * lots_per_unit).round().cast(pl.Int64)
    return dict(zip(marks["instrument_id"], lots, strict=True))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    folder = tmp_path_factory.mktemp("synth") / "book"
    return folder, generate_book(folder, **SIZE)


@pytest.fixture
def inverse_market(made: tuple[Path, Summary], tmp_path: Path) -> Path:
    """The options of the made book settled in coin, with open interest in tenths and some of it 0."""
    market = tmp_path / "market"
    market.mkdir()
    coin = {"settlement": pl.col("underlying"), "quote": pl.lit("USD"), "inverse": pl.lit(value=True)}
    options = _table(made[0], "instruments").filter(pl.col("kind") == "option", pl.col("underlying") != "SOL")
    options.with_columns(**coin).write_parquet(market / "instruments.parquet")
    marks = _table(made[0], "marks").join(options.select("instrument_id"), on="instrument_id", maintain_order="left")
    tenths = (pl.int_range(pl.len()) % 7 * 37).cast(pl.Float64) / 10.0
    marks.with_columns(open_interest=tenths).write_parquet(market / "marks.parquet")
    _table(made[0], "forwards").with_columns(quote=pl.lit("USD")).write_ipc(market / "forwards.arrow")
    (market / "prices").mkdir()
    _table(made[0], "prices").write_parquet(market / "prices" / "all.parquet")
    return market


def test_longs_equal_shorts_equal_open_interest_in_every_contract(made: tuple[Path, Summary]) -> None:
    sides = _sides_in_lots(made[0])
    assert (sides["longs"] == sides["shorts"]).all()
    assert dict(sides.select("instrument_id", "longs").iter_rows()) == _open_lots(made[0])


def test_no_key_occurs_twice(made: tuple[Path, Summary]) -> None:
    assert not _table(made[0], "positions").select(KEY).is_duplicated().any()
    assert not _table(made[0], "balances").select("account_id", "pool", "asset").is_duplicated().any()
    assert not _table(made[0], "accounts").select("account_id", "pool").is_duplicated().any()


def test_rows_stand_in_order_of_account_and_pool_across_parts(made: tuple[Path, Summary]) -> None:
    for name in ("positions", "balances", "accounts"):
        keys = _table(made[0], name).select("account_id", "pool")
        assert keys.equals(keys.sort("account_id", "pool", maintain_order=True)), name
    assert len(list((made[0] / "positions").iterdir())) > 2


def test_every_position_and_balance_names_a_known_account_and_instrument(made: tuple[Path, Summary]) -> None:
    accounts = _table(made[0], "accounts").select("account_id", "pool")
    for name in ("positions", "balances"):
        assert _table(made[0], name).join(accounts, on=("account_id", "pool"), how="anti").is_empty()
    instruments = _table(made[0], "instruments")
    assert _table(made[0], "positions").join(instruments, on="instrument_id", how="anti").is_empty()
    assert accounts.height == made[1].margin_accounts
    assert accounts["account_id"].n_unique() == SIZE["accounts"]


def test_same_seed_gives_the_same_bytes_and_another_seed_another_book(tmp_path: Path) -> None:
    small = {"accounts": 300, "positions_per_account": 4.0, "underlyings": 2}
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        generate_book(tmp_path / name, **small, seed=seed)
    assert _hashes(tmp_path / "first") == _hashes(tmp_path / "again")
    assert _hashes(tmp_path / "first") != _hashes(tmp_path / "other")


def test_shuffle_only_permutes_rows(made: tuple[Path, Summary], tmp_path: Path) -> None:
    summary = generate_book(tmp_path / "book", **SIZE, shuffle=True)
    assert summary.positions == made[1].positions
    for name, key in (("positions", KEY), ("balances", ["account_id", "pool", "asset"])):
        plain, shuffled = _table(made[0], name), _table(tmp_path / "book", name)
        assert not shuffled.equals(plain)
        assert shuffled.sort(key).equals(plain.sort(key))
    same = {name: value for name, value in _hashes(made[0]).items() if not name.startswith(("positions", "balances"))}
    assert same.items() <= _hashes(tmp_path / "book").items()


def test_most_accounts_are_small_and_the_mean_is_as_asked(made: tuple[Path, Summary]) -> None:
    counts = _table(made[0], "positions").group_by("account_id").len()["len"]
    assert made[1].positions == SIZE["accounts"] * SIZE["positions_per_account"] == counts.sum()
    assert (counts <= 8).mean() > 0.7
    assert counts.median() <= 3
    assert 100 < counts.max() < 300


def test_every_archetype_is_present(made: tuple[Path, Summary]) -> None:
    assert sum(made[1].archetypes.values()) == SIZE["accounts"]
    assert min(made[1].archetypes.values()) > 0.005 * SIZE["accounts"]
    assert "borrower" in made[1].archetypes
    assert (_table(made[0], "balances").filter(asset="USDC")["amount"] < 0.0).sum() > 500


def test_few_accounts_are_meant_to_fail(made: tuple[Path, Summary]) -> None:
    share = {name: count / made[1].margin_accounts for name, count in made[1].intended.items()}
    assert 0.98 < share["healthy"] < 0.992
    assert 0.006 < share["margin_call"] < 0.015
    assert 0.001 < share["liquidatable"] < 0.006
    assert 0.0001 < share["bankrupt"] < 0.001


def test_trade_prefers_strikes_near_the_money_and_near_expiries(made: tuple[Path, Summary]) -> None:
    instruments = _table(made[0], "instruments").join(_table(made[0], "forwards"), on=("underlying", "expiry"))
    legs = _table(made[0], "positions").join(instruments, on="instrument_id")
    distance = (pl.col("strike") / pl.col("forward")).log().abs().median()
    assert legs.select(distance).item() < 0.6 * instruments.select(distance).item()
    assert legs["expiry"].median() < instruments["expiry"].max()


def test_a_few_accounts_have_an_isolated_pool(made: tuple[Path, Summary]) -> None:
    pools = _table(made[0], "accounts")["pool"].value_counts()
    isolated = dict(pools.iter_rows())["isolated-1"]
    assert 0.02 < isolated / SIZE["accounts"] < 0.04


def test_market_accounts_hold_exactly_the_open_interest_of_inverse_options(
    inverse_market: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "book"
    generate_book(folder, accounts=2_000, positions_per_account=8.0, underlyings=1, seed=1, market=inverse_market)
    sides = _sides_in_lots(folder, lots_per_unit=10)
    assert (sides["longs"] == sides["shorts"]).all()
    assert dict(sides.select("instrument_id", "longs").iter_rows()) == _open_lots(folder, lots_per_unit=10)
    assert _hashes(inverse_market).items() <= _hashes(folder).items()
    coins = _table(folder, "balances").filter(pl.col("asset").is_in(["BTC", "ETH"]))
    holders = _table(folder, "positions").select("account_id", "pool").unique()
    assert holders.join(coins, on=("account_id", "pool"), how="anti").height < 0.01 * holders.height


def test_market_with_few_accounts_gives_each_more_positions_than_asked(
    made: tuple[Path, Summary], tmp_path: Path
) -> None:
    summary = generate_book(
        tmp_path / "book", accounts=5, positions_per_account=1.0, underlyings=1, seed=1, market=made[0]
    )
    assert summary.positions >= 2 * summary.traded
    assert dict(_sides_in_lots(tmp_path / "book").select("instrument_id", "shorts").iter_rows()) == _open_lots(made[0])


@pytest.mark.parametrize(
    ("accounts", "positions", "underlyings"),
    [
        pytest.param(2, 3.0, 1, id="two-accounts"),
        pytest.param(3, 0.5, 1, id="hardly-any-position"),
        pytest.param(12, 100.0, 2, id="many-positions-few-accounts"),
        pytest.param(400, 2.0, len(COINS), id="every-coin"),
    ],
)
def test_extreme_sizes_are_closed_too(tmp_path: Path, accounts: int, positions: float, underlyings: int) -> None:
    sizes = {"accounts": accounts, "positions_per_account": positions, "underlyings": underlyings}
    summary = generate_book(tmp_path / "book", **sizes, seed=5)
    sides = _sides_in_lots(tmp_path / "book")
    assert (sides["longs"] == sides["shorts"]).all()
    assert summary.positions == pytest.approx(accounts * positions, rel=0.25, abs=1.0)


@pytest.mark.parametrize("coin", COINS, ids=lambda coin: coin.symbol)
def test_total_variance_rises_with_tenor_at_every_moneyness(coin: Coin) -> None:
    moneyness = np.linspace(-1.0, 1.0, 81)
    years = np.array(COINS[0].tenors) / 365.0
    variance = np.array([smile_vol(coin, moneyness, years=float(tenor)) ** 2 * tenor for tenor in years])
    assert (np.diff(variance, axis=0) > 0.0).all()


def test_balances_are_whole_minor_units(made: tuple[Path, Summary]) -> None:
    rows = _table(made[0], "balances").join(_table(made[0], "assets"), on="asset")
    scaled = rows["amount"].to_numpy() * 10.0 ** rows["decimals"].to_numpy()
    assert np.abs(scaled - np.rint(scaled)).max() < 1e-2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"accounts": 0}, "accounts to be at least 2, found 0", id="no-accounts"),
        pytest.param({"accounts": 1}, "accounts to be at least 2, found 1", id="one-account"),
        pytest.param({"positions_per_account": 0.0}, "positions_per_account", id="no-positions"),
        pytest.param({"positions_per_account": float("nan")}, "positions_per_account", id="nan-positions"),
        pytest.param({"underlyings": 17}, "underlyings to be from 1 to 16, found 17", id="too-many-coins"),
        pytest.param({"seed": -1}, "seed to be at least 0", id="negative-seed"),
        pytest.param({"market": "nowhere"}, "found none at 'nowhere'", id="unknown-market"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    small = {"accounts": 10, "positions_per_account": 2.0, "underlyings": 1, "seed": 1}
    with pytest.raises(UsageError, match=words):
        generate_book(tmp_path / "book", **(small | change))
    assert not (tmp_path / "book").exists()


def test_market_without_a_table_or_open_interest_is_refused(made: tuple[Path, Summary], tmp_path: Path) -> None:
    market = tmp_path / "market"
    shutil.copytree(made[0], market)
    sizes = {"accounts": 10, "positions_per_account": 2.0, "underlyings": 1, "seed": 1}
    _table(market, "marks").drop("open_interest").write_parquet(market / "marks.parquet")
    with pytest.raises(UsageError, match="open_interest"):
        generate_book(tmp_path / "book", **sizes, market=market)
    (market / "marks.parquet").unlink()
    with pytest.raises(UsageError, match=r"marks\.parquet"):
        generate_book(tmp_path / "book", **sizes, market=market)


def test_a_folder_with_files_in_it_is_refused(made: tuple[Path, Summary]) -> None:
    with pytest.raises(UsageError, match="new or empty folder"):
        generate_book(made[0], **SIZE)


@pytest.mark.slow
def test_two_hundred_thousand_accounts_are_closed(tmp_path: Path) -> None:
    summary = generate_book(tmp_path / "book", accounts=200_000, positions_per_account=11.0, underlyings=2, seed=2)
    sides = _sides_in_lots(tmp_path / "book")
    assert (sides["longs"] == sides["shorts"]).all()
    assert summary.positions == 2_200_000
    assert not _table(tmp_path / "book", "positions").select(KEY).is_duplicated().any()
