"""Books of many legs, and books packed for the kernels: what the tests of packing, engine and composition share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import polars as pl

from gpumargin.bind import bind
from gpumargin.catalogue import MarginModel, load_model
from gpumargin.pack.accounts import find_accounts
from gpumargin.pack.buckets import Shape, Shard, pack_shard
from gpumargin.pack.contracts import ContractSet, contract_set
from gpumargin.pack.legs import LegBook, leg_book
from gpumargin.tables import Book
from gpumargin_kernels.margin import PartResult, contract_stage, part_margin
from tests.books import AS_OF, FAR, NEAR, TIME, assets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpumargin_kernels.model import Model

_SPOT = {"BTC": 68_000.0, "ETH": 2_200.0}
_MONEYNESS = (0.6, 0.8, 0.95, 1.05, 1.2, 1.6)
AS_OF_MICROSECONDS = round(AS_OF.timestamp() * 1_000_000)


def market() -> dict[str, pl.DataFrame]:
    """Two underlyings with a perpetual and 24 options of two expiries each, all linear and paid in USDC."""
    options = [
        (
            f"{name}-{day:%Y%m%d}-{spot * k:.0f}-{side[0].upper()}",
            "option",
            name,
            spot * k,
            day,
            side,
            None,
            0.5 + 0.4 * abs(k - 1),
        )
        for name, spot in _SPOT.items()
        for day in (NEAR, FAR)
        for k in _MONEYNESS
        for side in ("call", "put")
    ]
    perpetuals = [
        (f"{name}-PERP", "perpetual", name, None, None, None, spot * 1.001, None) for name, spot in _SPOT.items()
    ]
    columns = ("instrument_id", "kind", "underlying", "strike", "expiry", "option_type", "mark_price", "mark_iv")
    types = (pl.String, pl.String, pl.String, pl.Float64, TIME, pl.String, pl.Float64, pl.Float64)
    rows = pl.DataFrame([*options, *perpetuals], dict(zip(columns, types, strict=True)), orient="row")
    forwards = [
        (name, "USDC", day, spot * grow, 0.04)
        for name, spot in _SPOT.items()
        for day, grow in ((NEAR, 1.002), (FAR, 1.01))
    ]
    names = ("underlying", "quote", "expiry", "forward", "rate")
    return {
        "instruments": rows.select(columns[:6]).with_columns(settlement=pl.lit("USDC")),
        "marks": rows.select("instrument_id", "mark_price", "mark_iv").with_columns(timestamp=pl.lit(AS_OF, TIME)),
        "forwards": pl.DataFrame(
            forwards, dict(zip(names, (pl.String, pl.String, TIME, pl.Float64, pl.Float64), strict=True)), orient="row"
        ),
        "prices": pl.DataFrame({"asset": ["USDC", *_SPOT], "price": [1.0, *_SPOT.values()]}),
        "assets": assets(),
    }


def many_legs(rng: np.random.Generator, accounts: int, most_legs: int = 40) -> dict[str, pl.DataFrame]:
    """A book of `accounts` accounts that hold 0 to `most_legs` different instruments and up to three balances each."""
    tables = market()
    ids = tables["instruments"]["instrument_id"].to_numpy()
    held = [rng.choice(len(ids), rng.integers(0, min(most_legs, len(ids)) + 1), replace=False) for _ in range(accounts)]
    names = np.array([f"account-{i:04d}" for i in range(accounts)])
    chosen = np.concatenate(held) if held else np.zeros(0, int)
    is_perpetual = np.char.endswith(ids[chosen].astype(str), "PERP")
    entry = np.where(np.char.startswith(ids[chosen].astype(str), "BTC"), _SPOT["BTC"], _SPOT["ETH"]) * rng.uniform(
        0.9, 1.1, len(chosen)
    )
    positions = {
        "account_id": np.repeat(names, [len(h) for h in held]),
        "instrument_id": ids[chosen],
        "quantity": np.round(rng.normal(0, 3, len(chosen)), 3) + 0.0005,
        "entry_price": [float(e) if perp else None for e, perp in zip(entry, is_perpetual, strict=True)],
    }
    balances = [(name, asset, amount) for name in names for asset, amount in _wallet(rng)]
    return tables | {
        "positions": pl.DataFrame(positions, schema_overrides={"entry_price": pl.Float64}),
        "balances": pl.DataFrame(
            balances, {"account_id": pl.String, "asset": pl.String, "amount": pl.Float64}, orient="row"
        ),
    }


def _wallet(rng: np.random.Generator) -> list[tuple[str, float]]:
    amounts = {"USDC": rng.normal(3e5, 2e5), "BTC": rng.normal(0, 2), "ETH": rng.normal(0, 40)}
    return [(asset, float(amount)) for asset, amount in amounts.items() if rng.random() < 0.8 or asset == "USDC"]


def shuffled(tables: Mapping[str, pl.DataFrame], seed: int) -> dict[str, pl.DataFrame]:
    """The same book with the rows of every table in another order."""
    return {name: frame.sample(fraction=1.0, shuffle=True, seed=seed) for name, frame in tables.items()}


def rows_of(tables: Mapping[str, pl.DataFrame]) -> dict[str, list[dict[str, Any]]]:
    """Tables as the oracle takes them."""
    return {name: frame.to_dicts() for name, frame in tables.items()}


@dataclass(frozen=True)
class Packed:
    """A book in canonical order, with the model bound to it."""

    contracts: ContractSet
    legs: LegBook
    model: Model


def pack(tables: Mapping[str, pl.DataFrame], model: MarginModel | str, included: np.ndarray | None = None) -> Packed:
    """Packs a book the way a run does, without its checks."""
    file = (load_model(model) if isinstance(model, str) else model).file
    given = Book(**tables)
    book = given.tables
    contracts = contract_set(
        book,
        given.market_rows,
        AS_OF_MICROSECONDS,
        kinds=file.kinds,
        accounting=file.accounting_asset,
        base_legs=file.base_legs,
        dollar_at_par=file.dollar_at_par,
    )
    accounts = find_accounts(book)
    chosen = np.ones(len(accounts), bool) if included is None else included
    legs = leg_book(book, accounts, contracts, included=chosen, keep_empty=file.unsettled_without_position)
    return Packed(contracts, legs, bind(file, contracts.units, contracts.asset_ids, contracts.base_contract >= 0))


def all_widths(rows: int, *, widths: tuple[int, ...] = (2, 4, 8, 16, 32)) -> Shape:
    """A shape with room for `rows` rows at each of the widths."""
    same = tuple((width, rows) for width in widths)
    return Shape(
        legs=same,
        cash_legs=((2, rows),),
        unit_slots=((2, rows),),
        balances=((2, rows), (4, rows)),
        unit_rows=rows,
        accounts=rows,
    )


def whole(book: LegBook) -> Shard:
    """All accounts of a book as one shard."""
    return Shard(0, len(book), 0, len(book.unit))


@cache
def programs(chunk: int | None = None) -> tuple[Any, Any]:
    """The two stages, compiled as the engine does but without its devices."""

    def part(*args: Any) -> PartResult:
        return part_margin(*args, chunk=chunk)

    return jax.jit(contract_stage), jax.jit(part)


def in_dtype(tree: Any, dtype: str) -> Any:
    """Floating leaves in another precision."""
    return jax.tree.map(lambda x: np.asarray(x, dtype) if np.asarray(x).dtype.kind == "f" else x, tree)


def margined(packed: Packed, shape: Shape, *, dtype: str = "float64", chunk: int | None = None) -> PartResult:
    """Result of the whole book as one part, numpy, padding cut off."""
    stage, part = programs(chunk)
    c = packed.contracts
    contracts, market_, assets_, model = in_dtype((c.contracts, c.market, c.assets, packed.model), dtype)
    shard = whole(packed.legs)
    book = in_dtype(pack_shard(packed.legs, c, shape, shard), dtype)
    result = part(stage(contracts, market_, model), market_, assets_, model, book, np.zeros((), dtype))

    def cut(tree: Any, count: int) -> Any:
        return jax.tree.map(lambda x: np.asarray(x)[:count], tree)

    rows, accounts = shard.unit_rows, shard.accounts
    return PartResult(cut(result.units, rows), cut(result.unit_unrealised_pnl, rows), cut(result.accounts, accounts))
