"""Two engines, one book: the slow plain-Python oracle and ours agree on every column of every account and unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gpumargin.catalogue import load_model
from gpumargin.checks import resolve_as_of
from gpumargin.modelfile import ModelFile
from gpumargin.run import margin
from gpumargin.runs import Run
from gpumargin.synth import generate_book
from gpumargin.tables import Book, read_book
from tests.explained import with_digitals
from tests.oracle import correlated, pm1, sm
from tests.oracle.params import PM1_CHAIN_2025_02, SM_CHAIN_2025_12, SM_SCRIPT
from tests.sampled import rest_slow

ACCOUNTS = 2_000
RELATIVE = 1e-9
# Scenarios that lose the same to the last bits (a spread beyond both strikes) may be told apart by rounding.
TIED_SHARE = 0.005
STANDARD = {"derive-sm": SM_CHAIN_2025_12, "derive-sm@2023-12-15": SM_SCRIPT}


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    folder: Path = tmp_path_factory.mktemp("oracle") / "book"
    generate_book(folder, accounts=ACCOUNTS, positions_per_account=8, underlyings=3, seed=2026)
    return read_book(folder)


def correlated_params(file: ModelFile) -> dict[str, Any]:
    """Numbers of the shipped file in the oracle's own shape."""
    shock = file.vol_shock
    tables = {name: file.collateral_of(name) for name in file.margin}
    return {
        "range": dict(file.scenario_range),
        "scenarios": [
            {"move": row.move, "vol": row.vol, "weight": row.weight["default"]} for row in file.scenarios["grid"]
        ],
        "vol_shock": {
            "range_up": shock.up["default"],
            "range_down": shock.down["default"],
            "short_term_power": shock.short_power["default"],
            "long_term_power": shock.long_power["default"],
            "dte_floor_days": shock.floor_days["default"],
        },
        "naked_option_rate": file.components["naked_options"].numbers["rate"]["default"],
        "im_factor": file.parameters["im_factor"]["default"],
        "correlation": {"units": file.aggregation.units, "matrix": file.aggregation.correlation},
        "collateral": {
            name: {
                "weights": {k: v for k, v in table.assets.items() if k != "default"},
                "default_weight": table.assets["default"],
                "liability_weight": table.liability["default"],
            }
            for name, table in tables.items()
        },
    }


def oracle_rows(book: Book, model: str) -> dict[str, list[dict[str, Any]]]:
    tables = {name: book.frame(name).to_dicts() for name in book.tables}
    instant = resolve_as_of(book).timestamp()
    if model in STANDARD:
        return sm.margin_book(tables, STANDARD[model], as_of_seconds=instant)
    if model == "derive-pm1":
        return pm1.margin_book(tables, PM1_CHAIN_2025_02, as_of_seconds=instant)
    return correlated.margin_book(tables, correlated_params(load_model(model).file), as_of_seconds=instant)


def largest_error(ours: list[Any], theirs: list[Any]) -> float:
    """Largest relative difference; amounts below a cent are compared as if they were one."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if (a, b) != (None, None)]
    return max((abs(a - b) / max(abs(b), 0.01) for a, b in pairs), default=0.0)


def assert_agree(ours: pl.DataFrame, theirs: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    """The same rows in the same order, words and counts equal, numbers to `RELATIVE`."""
    assert len(theirs) == ours.height
    for name in ours.columns:
        expected = [row.get(name) for row in theirs]
        if name == "worst_scenario":
            differing = sum(a != b for a, b in zip(ours[name].to_list(), expected, strict=True))
            assert differing <= TIED_SHARE * ours.height, f"{differing} worst scenarios differ"
        elif name in keys or ours[name].dtype not in (pl.Float64, pl.Int64) or name == "num_positions":
            assert list(map(str, ours[name].to_list())) == list(map(str, expected)), name
        elif name.endswith("_minor"):
            assert max(abs(a - b) for a, b in zip(ours[name].to_list(), expected, strict=True)) <= 1, name
        else:
            error = largest_error(ours[name].to_list(), expected)
            assert error <= RELATIVE, f"{name}: relative error {error:.2e}"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["derive-pm1", "correlated-pm"])
def test_the_oracle_agrees_on_digital_options_beside_vanilla_ones(model: str) -> None:
    book = read_book(**with_digitals())
    run, expected = margin(book, model), oracle_rows(book, model)
    assert_agree(run.accounts.drop("model"), expected["accounts"], ("account_id", "pool"))


@pytest.mark.parametrize("model", rest_slow(["derive-pm1", *STANDARD, "correlated-pm"], ["derive-pm1"]))
def test_the_oracle_agrees_on_every_column_of_every_account_and_unit(book: Book, model: str) -> None:
    run: Run = margin(book, model)
    expected = oracle_rows(book, model)
    assert_agree(run.accounts.drop("model"), expected["accounts"], ("account_id", "pool"))
    units = [row | {"worst_loss": row.get("loss", row.get("scan", 0.0))} for row in expected["units"]]
    assert_agree(run.units, units, ("account_id", "pool", "unit"))


def in_doubt(book: Book) -> Book:
    """The book with cash off its peg, feeds of little confidence here and there, and tokens beside the coins."""
    frames = {name: book.frame(name) for name in book.tables}
    every = pl.int_range(pl.len())
    doubt = pl.when(every % 3 == 0).then(0.2).when(every % 3 == 1).then(0.54).otherwise(0.9)
    frames["forwards"] = frames["forwards"].with_columns(
        forward_confidence=doubt, vol_confidence=doubt.reverse(), rate_confidence=pl.lit(0.1)
    )
    frames["marks"] = frames["marks"].with_columns(confidence=doubt)
    price = pl.when(pl.col("asset") == "USDC").then(0.97).otherwise(pl.col("price"))
    more = pl.DataFrame({"asset": ["wstETH", "USDT"], "price": [4_700.0, 0.999], "confidence": [0.5, 1.0]})
    known = (
        frames["prices"].filter(~pl.col("asset").is_in(more["asset"].implode())).select("asset", "price", "timestamp")
    )
    prices = known.with_columns(price=price, confidence=doubt.cast(pl.Float64))
    frames["prices"] = pl.concat([prices, more], how="diagonal")
    holders = frames["balances"].select("account_id", "pool").unique(maintain_order=True)[::7]
    tokens = pl.concat(
        [
            holders.with_columns(asset=pl.lit(name), amount=pl.lit(amount))
            for name, amount in (("wstETH", 1.5), ("USDT", 8e3))
        ]
    ).with_columns(is_collateral=pl.lit(value=True))
    kept = frames["balances"].cast({"asset": pl.String, "amount": pl.Float64})
    kept = kept.filter(~pl.col("asset").is_in(more["asset"].implode()))
    frames["balances"] = pl.concat([kept, tokens.select(kept.columns).cast(dict(kept.schema))])
    return read_book(**frames)


@pytest.mark.slow
@pytest.mark.parametrize("model", STANDARD)
def test_the_oracle_agrees_on_feeds_in_doubt_a_lost_peg_and_tokens(book: Book, model: str) -> None:
    changed = in_doubt(book)
    run, expected = margin(changed, model), oracle_rows(changed, model)
    assert_agree(run.accounts.drop("model"), expected["accounts"], ("account_id", "pool"))
    assert_agree(run.units, expected["units"], ("account_id", "pool", "unit"))
    charged = ("oracle_perp", "oracle_options", "oracle_token", "depeg", "token_initial")
    assert all((run.units[name] > 0).any() for name in charged)


@pytest.mark.slow
def test_an_expiry_never_asks_for_more_than_its_legs_by_themselves(book: Book) -> None:
    alone = {
        f"components.options_{kind}.each.required": f"(calls + puts) * unpaired_{kind} / unpaired_{kind}"
        for kind in ("initial", "maintenance")
    }
    together, by_leg = (
        margin(book, m).units for m in (load_model("derive-sm"), load_model("derive-sm").replace(alone))
    )
    for name in ("options_initial", "options_maintenance"):
        room = by_leg[name] - together[name]
        assert (room >= -1e-9 * by_leg[name] - 1e-6).all()
        assert (room > 1.0).any()
