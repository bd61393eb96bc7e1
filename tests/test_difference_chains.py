"""Claims about the difference between two snapshots of one chain: the sample's, and a real one across an expiry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from gpumargin import diff
from gpumargin.importers.deribit import import_deribit_chain
from gpumargin.run import margin
from gpumargin.tables import Book, read_market
from tests.differences import effects_found, made_elsewhere, require_adds_up
from tests.test_import_deribit import REAL, SAMPLE, needs_real_file

if TYPE_CHECKING:
    from pathlib import Path

    from gpumargin.runs import Run

TABLES = ("instruments", "marks", "forwards", "prices")
REAL_PAIR = (REAL, "2026-02-05T04:29", "2026-02-05T09:36")
PAIRS = [
    pytest.param((SAMPLE, "2026-03-04T20:00", "2026-03-05T08:00"), id="sample"),
    pytest.param(REAL_PAIR, id="real", marks=needs_real_file),
]


def snapshot(chain: Path, when: str, out: Path, settle: str) -> dict[str, pl.DataFrame]:
    """The market of one snapshot."""
    import_deribit_chain(chain, snapshot=when, out=out, settle=settle)  # type: ignore[arg-type]
    market = read_market(out)
    return {name: market.frame(name) for name in TABLES}


def holdings(market: dict[str, pl.DataFrame], asset: str) -> dict[str, pl.DataFrame]:
    """Seven accounts, every option of the market held by one of them, long and short by turns."""
    options = market["instruments"].filter(kind="option")["instrument_id"].sort()
    number = pl.int_range(len(options), eager=True)
    positions = pl.DataFrame(
        {
            "account_id": "a" + (number % 7).cast(pl.String),
            "instrument_id": options,
            "quantity": ((number * 37) % 11 - 5).cast(pl.Float64) / 10,
        }
    )
    accounts = [f"a{n}" for n in range(7)]
    return {"positions": positions, "balances": pl.DataFrame({"account_id": accounts, "asset": asset, "amount": 5e5})}


def run_of(market: dict[str, pl.DataFrame], held: dict[str, pl.DataFrame], model: str) -> Run:
    listed = market["instruments"]["instrument_id"].implode()
    kept = held["positions"].filter(pl.col("instrument_id").is_in(listed))
    return margin(Book(**market, **{**held, "positions": kept}), model)


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(
    ("settle", "asset", "model"), [("linear-usdc", "USDC", "derive-pm1"), ("inverse", "BTC", "deribit-pm")]
)
def test_two_snapshots_differ_by_effects_that_add_up(
    pair: tuple[Path, str, str], settle: str, asset: str, model: str, tmp_path: Path
) -> None:
    first, second = (snapshot(pair[0], when, tmp_path / when[:13], settle) for when in pair[1:])
    before = run_of(first, holdings(first, asset), model)
    after = run_of(second, holdings(first, asset), model)
    found = diff(before, after)
    require_adds_up(found, before, after)
    assert effects_found(found) >= {"time", "price", "vol"}
    assert found.accounts.height == 7
    back = diff(made_elsewhere(before), before)
    assert back.accounts.is_empty()


@pytest.mark.slow
@needs_real_file
def test_real_options_that_expired_may_be_gone_or_still_there(tmp_path: Path) -> None:
    first, second = (snapshot(REAL, when, tmp_path / when[:13], "linear-usdc") for when in REAL_PAIR[1:])
    expired = first["instruments"].filter(pl.col("expiry") <= second["prices"]["timestamp"].max())
    assert expired.height > 20
    held = holdings(first, "USDC")
    before, gone = run_of(first, held, "derive-pm1"), run_of(second, held, "derive-pm1")
    settlement = {"BTC": 71_000.0, "ETH": 2_100.0}
    price = pl.col("underlying").replace_strict(settlement, return_dtype=pl.Float64)
    settled = expired.select("instrument_id", settlement_price=price)
    tables = {
        **second,
        "instruments": pl.concat([second["instruments"], expired.select(second["instruments"].columns)]),
        "marks": pl.concat([second["marks"], settled], how="diagonal"),
    }
    there = run_of(tables, held, "derive-pm1")
    kept, lost = diff(before, there), diff(before, gone)
    require_adds_up(kept, before, there)
    require_adds_up(lost, before, gone)
    assert effects_found(kept) == {"time", "price", "vol"}
    assert effects_found(lost) == {"position", "time", "price", "vol"}
