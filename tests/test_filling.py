"""Claims about runs whose books lack forwards, vols or prices: what is filled, and how near it comes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

import gpumargin as gm
from gpumargin import filling
from gpumargin.cli.summary import print_summary
from gpumargin.importers.deribit import import_deribit_chain
from gpumargin.run import margin
from gpumargin.tables import read_book
from tests.books import FAR, NEAR, tiny_book
from tests.kernels.chain import FILE, ROOT
from tests.lacking import (
    ALL,
    DEEP,
    EXACT,
    MARGINS,
    MODEL,
    Tables,
    assert_same_money,
    named,
    run_of,
    vol_errors,
    with_mark,
    without_forwards,
    without_marks,
)
from tests.smiles import MIDDLE, STEPS, forward, name_of, price, smile_book

if TYPE_CHECKING:
    pass


@pytest.fixture(scope="module")
def whole() -> gm.Run:
    return run_of(smile_book())


def test_the_complete_book_compiles_nothing_and_has_nothing_filled(
    whole: gm.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "computed", None)  # a call would fail
    again = run_of(smile_book())
    assert again.manifest["results"] == whole.manifest["results"]
    assert {name: again.summary["filled"][name] for name in ("forward", "vol", "price")} == {
        "forward": {},
        "vol": {},
        "price": {},
    }
    priced = margin(read_book(**tiny_book()), MODEL)  # three of its options have no mark_price
    assert priced.summary["filled"]["price"] == {"vol": 3}


def test_vols_implied_from_their_own_prices_give_the_book_back(whole: gm.Run) -> None:
    run = run_of(without_marks(smile_book(), ALL, "mark_iv"))
    assert run.summary["filled"]["vol"] == {"mark_price": len(ALL)}
    assert vol_errors(run, whole, ALL).max() < EXACT
    assert_same_money(run, whole, EXACT)


@pytest.mark.parametrize("columns", [(), ("mark_iv",)], ids=["vols given", "vols from prices"])
def test_forwards_from_parity_give_the_book_back(whole: gm.Run, columns: tuple[str, ...]) -> None:
    tables = without_forwards(without_forwards(smile_book(), "BTC", MIDDLE), "ETH", NEAR, FAR)
    run = run_of(without_marks(tables, ALL, *columns))
    assert run.summary["filled"]["forward"] == {"parity": 3 * 2 * len(STEPS)}
    assert run.summary["filled"]["parity"]["expiries"] == 3
    assert run.summary["filled"]["parity"]["worst"]["share"] < EXACT
    both = run.instruments.join(whole.instruments, on="instrument_id", suffix="_whole").drop_nulls("forward")
    np.testing.assert_allclose(both["forward"], both["forward_whole"], rtol=1e-12)
    assert_same_money(run, whole, EXACT)


def test_one_bad_pair_neither_moves_the_forward_nor_goes_unreported(whole: gm.Run) -> None:
    tables = without_forwards(smile_book(), "BTC", MIDDLE, FAR)
    wrong = with_mark(tables, name_of("BTC", FAR, 1, "call"), mark_price=9_000.0)
    run = run_of(wrong)
    both = run.instruments.join(whole.instruments, on="instrument_id", suffix="_whole").drop_nulls("forward")
    np.testing.assert_allclose(both["forward"], both["forward_whole"], rtol=1e-6)  # Huber: it still pulls, a little
    noisy = {
        name: price("BTC", MIDDLE, 0.08 * step, "call") * 1.01
        for step in STEPS
        for name in [name_of("BTC", MIDDLE, step, "call")]
    }
    for name, value in noisy.items():
        tables = with_mark(tables, name, mark_price=value)
    worst = run_of(tables).summary["filled"]["parity"]["worst"]
    assert (worst["underlying"], worst["quote"], worst["expiry"][:10]) == ("BTC", "USDC", f"{MIDDLE:%Y-%m-%d}")
    assert worst["pairs"] == len(STEPS)
    assert 1e-5 < worst["share"] < 1e-2


@pytest.mark.slow
def test_strikes_between_quotes_are_near_and_strikes_beyond_them_follow_the_slice(whole: gm.Run) -> None:
    inner, outer = named("BTC", MIDDLE, -1, 2), named("ETH", NEAR, -4, 4)
    run = run_of(without_marks(smile_book(), [*inner, *outer], "mark_iv", "mark_price"))
    found = run.summary["filled"]
    assert (found["vol"], found["price"]) == ({"fit": 4, "interpolation": 4}, {"vol": 8})
    # Linear in total variance over 0.16 of ln K where its second derivative in k is at most 0.25 T / 0.17: below
    # 0.16^2 / 8 of it, over 2 vol T.
    assert vol_errors(run, whole, inner).max() < 0.16**2 / 8 * 0.25 / 0.17 / (2 * 0.4)
    assert vol_errors(run, whole, outer).max() < 1e-4  # the smile is a slice: the fit's own limit
    assert_same_money(run, whole, 0.005, MARGINS)  # vols off by at most half a point of forty at two strikes of 27


@pytest.mark.slow
def test_an_expiry_with_a_forward_alone_lies_between_its_neighbours(whole: gm.Run) -> None:
    names = named("BTC", MIDDLE, *STEPS)
    tables = without_marks(smile_book(), names, "mark_iv", "mark_price")
    gone = {**tables, "marks": tables["marks"].filter(~pl.col("instrument_id").is_in(names[:6]))}
    for book in (tables, gone):  # without a row in marks is as good as with nulls
        run = run_of(book)
        assert run.summary["filled"]["vol"] == {"interpolation": len(names)}
        assert vol_errors(run, whole, names).max() < EXACT  # linear in time at equal moneyness
        assert_same_money(run, whole, EXACT)


def test_what_one_chain_lacks_changes_no_bit_of_the_other(whole: gm.Run) -> None:
    run = run_of(without_forwards(without_marks(smile_book(), ALL[:9], "mark_iv"), "BTC", NEAR))
    of_ether = pl.col("unit") == "ETH"
    assert run.instruments.filter(of_ether).equals(whole.instruments.filter(of_ether))
    assert run.units.filter(of_ether).equals(whole.units.filter(of_ether))


@pytest.mark.slow
def test_filled_books_have_the_same_bits_in_any_order_of_rows() -> None:
    lacking = without_marks(smile_book(), named("BTC", NEAR, -2, 0, 4), "mark_iv", "mark_price")
    lacking = without_marks(without_forwards(lacking, "ETH", FAR), named("ETH", MIDDLE, *STEPS), "mark_iv")
    expected = run_of(lacking)
    mixed = {name: frame.sample(fraction=1.0, shuffle=True, seed=7) for name, frame in lacking.items()}
    found = run_of(mixed)
    assert found.manifest["results"] == expected.manifest["results"]
    assert found.instruments.equals(expected.instruments)
    assert found.summary["filled"] == expected.summary["filled"]


def test_a_given_vol_goes_before_a_slice_and_a_slice_before_a_price() -> None:
    tables = smile_book()
    flat = {
        "svi_a": 0.01,
        "svi_b": 0.0,
        "svi_rho": 0.0,
        "svi_m": 0.0,
        "svi_sigma": 0.1,
        "svi_forward": 68e3,
        "svi_years": 0.04,
    }
    is_near = (pl.col("underlying") == "BTC") & (pl.col("expiry") == NEAR)
    slices = [pl.when(is_near).then(pl.lit(x)).alias(name) for name, x in flat.items()]
    tables["forwards"] = tables["forwards"].with_columns(slices)
    lacking = without_marks(tables, named("BTC", NEAR, 0), "mark_iv")
    run = run_of(lacking)
    assert run.summary["filled"]["vol"] == {"svi": 2}
    vols = dict(run.instruments.select("instrument_id", "implied_vol").iter_rows())
    assert vols[name_of("BTC", NEAR, 0, "call")] == pytest.approx(0.5)
    assert (
        vols[name_of("BTC", NEAR, 1, "call")]
        == dict(smile_book()["marks"].select("instrument_id", "mark_iv").iter_rows())[name_of("BTC", NEAR, 1, "call")]
    )


def test_prices_in_coin_and_in_money_of_one_expiry_make_no_pair_with_one_another(whole: gm.Run) -> None:
    """A linear chain beside the inverse one: the form with more pairs tells the forward, and neither is mixed up."""
    tables = without_forwards(smile_book(), "ETH", NEAR)
    linear = tables["instruments"].filter((pl.col("underlying") == "ETH") & (pl.col("expiry") == NEAR)).head(6)
    names = linear["instrument_id"].to_list()
    linear = linear.with_columns(pl.col("instrument_id") + "-L", settlement=pl.lit("USDC"), inverse=pl.lit(value=False))
    marks = tables["marks"].filter(pl.col("instrument_id").is_in(names))
    money = marks.with_columns(pl.col("instrument_id") + "-L", mark_price=pl.col("mark_price") * forward("ETH", NEAR))
    tables = {
        **tables,
        "instruments": pl.concat([tables["instruments"], linear]),
        "marks": pl.concat([tables["marks"], money]),
    }
    run = run_of(without_marks(tables, [f"{name}-L" for name in names], "mark_iv"))
    assert vol_errors(run, whole, names).max() == 0
    values = dict(run.instruments.select("instrument_id", "implied_vol").iter_rows())
    for name in names:
        assert values[f"{name}-L"] == pytest.approx(values[name], abs=EXACT)
    assert run.summary["filled"]["parity"]["worst"]["pairs"] == len(STEPS)


# --- What a reader of the run sees.


def test_the_summary_on_the_screen_has_a_line_of_what_was_filled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: gm.Run
) -> None:
    lacking = without_forwards(
        without_marks(smile_book(), named("BTC", NEAR, -2, 0, 4), "mark_iv", "mark_price"), "ETH", FAR
    )
    for name, odd in ((DEEP, 1.0), (name_of("BTC", NEAR, 3, "call"), 0.0)):
        lacking = with_mark(lacking, name, mark_price=odd, mark_iv=None)
    print_summary(run_of(lacking).write(tmp_path / "filled"))
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "forwards: 18 from parity",
        "vols: 2 from fit, 6 from interpolation",
        "prices: 6 from vol",
        "1 prices are intrinsic and say vol 0",
        "1 prices that no vol explains",
        "ETH 2026-06-26",
    ):
        assert words in shown
    print_summary(whole.write(tmp_path / "whole"))
    assert "filled" not in capsys.readouterr().out.replace(str(tmp_path), "")


def test_an_account_of_a_filled_book_is_explained_down_to_the_leg() -> None:
    lacking = without_forwards(
        without_marks(smile_book(), named("BTC", NEAR, -2, 4), "mark_iv", "mark_price"), "ETH", FAR
    )
    run = run_of(lacking)
    assert run.explain("ann").checks["ok"].all()


@pytest.mark.slow
def test_a_real_chain_in_coin_without_forwards_and_half_its_vols_margins_as_the_whole(tmp_path: Path) -> None:
    """Out-of-the-money vols and all forwards taken out of 1,840 real marks."""
    tables = _real_book(tmp_path, "inverse")
    keys = ["underlying", "quote", "expiry"]
    listed = tables["instruments"].join(tables["forwards"].select(*keys, "forward"), on=keys)
    is_call = pl.col("option_type") == "call"
    beyond = listed.filter(is_call == (pl.col("strike") >= pl.col("forward")))["instrument_id"].to_list()
    lacking = without_marks(tables, beyond, "mark_iv")
    expected, found = run_of(tables), run_of({**lacking, "forwards": tables["forwards"].clear()})
    assert found.summary["filled"]["forward"] == {"parity": 1_840}
    assert found.summary["filled"]["vol"] == {"mark_price": 889, "interpolation": 31}
    assert found.summary["filled"]["zero_vols"] == 31  # prices below half a tick
    assert found.summary["filled"]["parity"]["worst"]["share"] < 1e-5
    errors = vol_errors(found, expected, beyond)
    assert np.median(errors) < 1e-4  # the file gives vols to 0.0001
    assert np.quantile(errors, 0.95) < 0.01  # and prices to six or eight decimals: little far out
    assert found.accounts["status"].to_list() == expected.accounts["status"].to_list()
    assert_same_money(found, expected, 2e-3, MARGINS)


@pytest.mark.slow
def test_a_real_chain_without_every_fifth_strike_margins_nearly_as_the_whole(tmp_path: Path) -> None:
    """Restated in USDC it has no prices: what is taken out comes from the strikes around it alone."""
    tables = _real_book(tmp_path, "linear-usdc")
    strike = pl.struct("underlying", "expiry", "strike").rank("dense")
    lost = tables["instruments"].filter(strike % 5 == 0)["instrument_id"].to_list()
    expected, found = run_of(tables), run_of(without_marks(tables, lost, "mark_iv"))
    assert sum(found.summary["filled"]["vol"].values()) == len(lost) > 300
    errors = vol_errors(found, expected, lost)
    assert np.median(errors) < 0.005
    assert np.quantile(errors, 0.95) < 0.06
    assert_same_money(found, expected, 0.01, MARGINS)


def _real_book(tmp_path: Path, settle: Any) -> Tables:
    """A venue's snapshot as a book that holds every option of it; skips the test where the file is absent."""
    file = Path(os.environ.get("GPUMARGIN_DATA", ROOT.parent / "shared" / "data")) / FILE
    if not file.is_file():
        pytest.skip(f"no {file} on this machine; set GPUMARGIN_DATA")
    out = import_deribit_chain(file, snapshot="2026-02-05T21:29", out=tmp_path / "book", settle=settle).out
    market = {name: pl.read_parquet(out / f"{name}.parquet") for name in ("instruments", "marks", "forwards", "prices")}
    return {**market, **_holdings(market)}


def _holdings(market: Tables) -> Tables:
    """Four accounts that hold every option between them."""
    options = market["instruments"].filter(pl.col("kind") == "option")
    row = pl.int_range(pl.len())
    held = options.select(
        "instrument_id", account_id=pl.format("acct-{}", row % 4), quantity=(row % 5 - 2).cast(pl.Float64) / 10
    )
    cash = pl.DataFrame({"account_id": [f"acct-{n}" for n in range(4)], "asset": ["USDC"] * 4, "amount": [2e6] * 4})
    return {"positions": held, "balances": cash}
