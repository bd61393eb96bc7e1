"""Claims about the composition: whole books against the oracle, and what must not change a single bit."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import polars as pl
import pytest

from gpumargin.catalogue import load_model
from gpumargin_kernels.health import HEALTHY, STATUSES, UNKNOWN
from gpumargin_kernels.margin import AccountRows, PartResult, contract_stage, leg_stage
from gpumargin_kernels.records import Buckets, Legs
from tests.asserts import assert_close, assert_same_bits, assert_same_trees
from tests.books import AS_OF
from tests.oracle import correlated, pm1
from tests.oracle.params import PM1_CHAIN_2025_02
from tests.packed import Packed, all_widths, many_legs, margined, pack, rows_of, shuffled
from tests.sampled import rest_slow

if TYPE_CHECKING:
    from gpumargin.modelfile import ModelFile

ACCOUNTS = 48
SHAPE = all_widths(128, widths=(2, 4, 8))
MODELS = ("derive-pm1@2025-02-01", "correlated-pm")


@cache
def a_book(seed: int = 0) -> dict[str, pl.DataFrame]:
    """48 accounts with up to seven instruments each."""
    return many_legs(np.random.default_rng(seed), ACCOUNTS, most_legs=7)


@cache
def packed(model: str, seed: int = 0) -> Packed:
    return pack(a_book(seed), model)


@cache
def result(model: str, dtype: str = "float64") -> PartResult:
    return margined(packed(model), SHAPE, dtype=dtype)


def correlated_params(file: ModelFile) -> dict[str, Any]:
    """Numbers of the shipped file as the oracle takes them; no formula."""
    dumped = file.vol_shock.model_dump()
    shock = {name: table["default"] for name, table in dumped.items() if isinstance(table, dict)}

    def collateral(kind: str) -> dict[str, Any]:
        table = file.collateral_of(kind)
        return {
            "weights": table.assets,
            "default_weight": table.assets["default"],
            "liability_weight": table.liability["default"],
        }

    return {
        "range": file.scenario_range,
        "scenarios": [{"move": r.move, "vol": r.vol, "weight": r.weight["default"]} for r in file.scenarios["grid"]],
        "vol_shock": {
            "range_up": shock["up"],
            "range_down": shock["down"],
            "short_term_power": shock["short_power"],
            "long_term_power": shock["long_power"],
            "dte_floor_days": shock["floor_days"],
        },
        "naked_option_rate": file.components["naked_options"].numbers["rate"]["default"],
        "im_factor": file.parameters["im_factor"]["default"],
        "correlation": {"units": file.aggregation.units, "matrix": file.aggregation.correlation},
        "collateral": {kind: collateral(kind) for kind in ("initial", "maintenance")},
    }


@cache
def oracle_rows(model: str) -> dict[str, list[dict[str, Any]]]:
    """Accounts and units of the same book, one loop at a time."""
    tables, seconds = rows_of(a_book()), AS_OF.timestamp()
    if model.startswith("derive"):
        return pm1.margin_book(tables, PM1_CHAIN_2025_02, as_of_seconds=seconds)
    return correlated.margin_book(tables, correlated_params(load_model(model).file), as_of_seconds=seconds)


def account_columns(rows: AccountRows) -> dict[str, np.ndarray]:
    """Account arrays under the names of the result table."""
    plain = {name: getattr(rows, name) for name in ("equity", "unrealised_pnl", "option_value")}
    by_type = {
        "collateral_value": rows.collateral_value,
        "balance": rows.balance,
        "margin": rows.margin,
        "excess": rows.health.excess,
    }
    spread = {f"{kind}_{name}": value for name, values in by_type.items() for kind, value in values.items()}
    return plain | spread | rows.greeks._asdict() | {"health": rows.health.ratio}


@pytest.mark.parametrize("model", rest_slow(MODELS, MODELS[:1]))
def test_every_account_equals_the_oracle(model: str) -> None:
    expected, rows = oracle_rows(model)["accounts"], result(model).accounts
    names = packed(model).legs.account_ids.to_pylist()
    assert names == [row["account_id"] for row in expected]
    for name, found in account_columns(rows).items():
        want = [np.nan if row[name] is None else row[name] for row in expected]
        scale = 1.0 if name == "health" else 1e7
        assert_close(found, want, "margin", scale=scale, column=name, account=names)
    assert [STATUSES[code] for code in rows.health.status] == [row["status"] for row in expected]


@pytest.mark.parametrize("model", rest_slow(MODELS, MODELS[:1]))
def test_every_unit_equals_the_oracle(model: str) -> None:
    expected, found = oracle_rows(model)["units"], result(model).units
    units = packed(model).contracts.units
    assert [units[code] for code in found.unit] == [row["unit"] for row in expected]
    columns = found.charges | {f"{kind}_margin": value for kind, value in found.margin.items()} | found.greeks._asdict()
    for name in sorted(set(columns) & set(expected[0])):
        floor = 0.0 if model == "correlated-pm" and name == "scan" else -np.inf  # the oracle floors this one at 0
        assert_close(
            np.maximum(columns[name], floor), [row[name] for row in expected], "margin", scale=1e7, column=name
        )


@pytest.mark.parametrize("model", rest_slow(MODELS, MODELS[:1]))
def test_every_table_in_another_row_order_gives_the_same_bits(model: str) -> None:
    assert_same_trees(margined(pack(shuffled(a_book(), 5), model), SHAPE), result(model))


def test_accounts_margined_alone_and_together_carry_the_same_bits() -> None:
    included = np.arange(ACCOUNTS) % 3 == 1
    alone = margined(pack(a_book(), MODELS[0], included), SHAPE)
    assert_same_trees(alone.accounts, jax.tree.map(lambda x: x[included], result(MODELS[0]).accounts))


@pytest.mark.slow
def test_a_book_of_twice_the_size_needs_twice_the_margin_to_the_last_bit() -> None:
    tables = a_book()
    doubled = tables | {
        "positions": tables["positions"].with_columns(pl.col("quantity") * 2),
        "balances": tables["balances"].with_columns(pl.col("amount") * 2),
    }
    for model in MODELS:
        found = account_columns(margined(pack(doubled, model), SHAPE).accounts)
        for name, once in account_columns(result(model).accounts).items():
            assert_same_bits(found[name], once if name == "health" else 2 * once, column=name)


@pytest.mark.slow
def test_two_accounts_merged_need_no_more_than_each_alone_where_nothing_is_discounted() -> None:
    tables = a_book()
    names = tables["positions"]["account_id"].unique().sort()
    pairs = {name: f"pair-{i // 2:04d}" for i, name in enumerate(names)}
    some = tables["positions"].group_by("account_id", maintain_order=True).head(4)
    sizes = some.with_columns(pl.col("account_id").replace_strict(pairs)).group_by("account_id", "instrument_id")
    merged = sizes.agg(pl.sum("quantity"), entry_price=pl.lit(None, pl.Float64)).select(some.columns)

    def requirement(positions: pl.DataFrame) -> dict[str, float]:
        book = pack(tables | {"positions": positions}, "correlated-pm")
        found = margined(book, SHAPE).accounts.margin["maintenance"].tolist()
        return dict(zip(book.legs.account_ids.to_pylist(), found, strict=True))

    alone, together = requirement(some), requirement(merged)
    for pair in set(pairs.values()):
        apart = sum(alone[name] for name in names if pairs[name] == pair)
        assert 0 < together[pair] <= apart + 1e-6, pair


@pytest.mark.parametrize("model", rest_slow(MODELS, MODELS[:1]))
def test_initial_margin_is_at_least_maintenance_margin(model: str) -> None:
    margin = result(model).accounts.margin
    held = margin["maintenance"] > 0
    assert held.any()
    assert np.all(margin["initial"][held] >= margin["maintenance"][held])


@pytest.mark.parametrize("model", rest_slow(MODELS, MODELS[:1]))
def test_a_contract_without_a_vol_makes_its_holders_unknown_and_leaves_every_other_bit(model: str) -> None:
    tables = a_book()
    spoilt = tables["instruments"]["instrument_id"][0]
    vol = pl.when(pl.col("instrument_id") == spoilt).then(None).otherwise(pl.col("mark_iv")).alias("mark_iv")
    mark = pl.when(pl.col("instrument_id") == spoilt).then(1_000.0).otherwise(pl.col("mark_price")).alias("mark_price")
    found = margined(pack(tables | {"marks": tables["marks"].with_columns(vol, mark)}, model), SHAPE).accounts
    holders = set(tables["positions"].filter(pl.col("instrument_id") == spoilt)["account_id"])
    is_holder = np.array([name in holders for name in packed(model).legs.account_ids.to_pylist()])
    assert 0 < is_holder.sum() < ACCOUNTS
    assert (found.health.status[is_holder] == UNKNOWN).all()
    expected = result(model).accounts
    assert_same_trees(*(jax.tree.map(lambda x: x[~is_holder], rows) for rows in (found, expected)))


def test_a_book_of_padding_alone_is_healthy_and_worth_nothing() -> None:
    tables = a_book()
    nothing = {"account_id": ["nobody"] * 3, "asset": ["USDC", "BTC", "ETH"], "amount": [0.0] * 3}
    empty = tables | {"positions": tables["positions"].clear(), "balances": pl.DataFrame(nothing)}
    found = margined(pack(empty, MODELS[0]), SHAPE).accounts
    assert found.health.status.tolist() == [HEALTHY]
    assert np.isnan(found.health.ratio[0])
    assert all(value[0] == 0 for name, value in account_columns(found).items() if name != "health")


@pytest.mark.parametrize("model", rest_slow(MODELS, MODELS[:1]))
def test_worst_scenario_is_named_for_accounts_of_one_unit_only(model: str) -> None:
    counts = np.diff(packed(model).legs.unit_start)
    found = result(model).accounts.worst_scenario
    assert np.all((found >= 0) == (counts == 1))


@pytest.mark.slow
def test_float32_stays_within_its_bound_of_float64() -> None:
    narrow, wide = result(MODELS[0], "float32").accounts, result(MODELS[0]).accounts
    for name, found in account_columns(narrow).items():
        assert found.dtype == np.float32, name
        if name != "health":
            assert_close(found, account_columns(wide)[name], "margin", scale=1e6, column=name)


# --- The leg stage of a real model, one row in buckets of every width.

LONGEST = 24


@cache
def wide_book() -> tuple[Packed, Any]:
    """Rows of up to 24 legs, and the contract table they are gathered from."""
    some = pack(many_legs(np.random.default_rng(9), 200, most_legs=40), MODELS[0])
    c = some.contracts
    return some, jax.jit(contract_stage)(c.contracts, c.market, some.model)


@cache
def leg_program(chunk: int | None) -> Any:
    return jax.jit(partial(leg_stage, chunk=chunk))


def through(width: int, longest: int, *, rows: int = 64, chunk: int | None = None) -> Any:
    """Unit rows of at most `longest` legs, margined in one bucket of `width` slots."""
    some, table = wide_book()
    book, c = some.legs, some.contracts
    lengths = np.diff(book.leg_start)
    chosen = np.flatnonzero(lengths <= longest)[-64:]
    contract = np.full((rows, width), c.padding, np.int32)
    quantity, unit = np.zeros((rows, width)), np.zeros(rows, np.int32)
    for place, row in enumerate(chosen):
        legs = slice(book.leg_start[row], book.leg_start[row + 1])
        contract[place, : lengths[row]], quantity[place, : lengths[row]] = book.contract[legs], book.quantity[legs]
        unit[place] = book.unit[row]
    buckets = Buckets((Legs(unit, contract, quantity, {}),), np.arange(rows, dtype=np.int32))
    found = leg_program(chunk)(table, c.market, c.assets, some.model, buckets, np.zeros(()))
    return jax.tree.map(lambda x: np.asarray(x)[: len(chosen)], found)


@cache
def in_the_widest(longest: int) -> Any:
    return through(32, longest)


@pytest.mark.parametrize("longest", rest_slow([2, 4, 8, 16], [2]))
def test_unit_rows_carry_the_same_bits_in_narrow_and_wide_buckets(longest: int) -> None:
    assert_same_trees(through(longest, longest), in_the_widest(longest))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "longest"), [(8, 8), (32, 24)], ids=["one trip", "four trips, the last one partly empty"]
)
@pytest.mark.parametrize("rows", [64, 128], ids=["one chunk", "two chunks"])
def test_unit_rows_carry_the_same_bits_in_chunks(width: int, longest: int, rows: int) -> None:
    assert_same_trees(through(width, longest, rows=rows, chunk=64), in_the_widest(longest))
