"""A generated book with all that some shipped model looks at: orders, debts, categories, doubtful feeds, a lost peg."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from gpumargin.synth import generate_book
from gpumargin.tables import read_book

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gpumargin.modelfile import ModelFile

    Step = Callable[["Tables", np.random.Generator], "Tables"]

Tables = dict[str, pl.DataFrame]
KEYS = ["account_id", "pool"]
OWN = ("positions", "balances", "accounts", "orders", "account_parameters")
RICH, EMPTY = "rich-", "empty-"  # prefixes of the twins of accounts
UNDERLYINGS = 4
MOST_LEGS = 8  # of an account in a small book, so that all rows fall into one bucket
MAKERS_HOLD = 30  # legs and more
FUTURES = ("BTC", "ETH")
FAR_PUTS = {"BTC-450000-P": 450_000.0, "BTC-9000-P": 9_000.0}
TOKENS = {
    "WETH": 2_085.0,
    "wstETH": 2_540.0,
    "weETH": 2_260.0,
    "WBTC": 71_180.0,
    "cbBTC": 71_240.0,
    "LBTC": 71_000.0,
    "DAI": 0.9995,
    "COMP": 41.0,
    "UNI": 6.2,
    "sUSD": 0.97,
}
SETTINGS = {"leverage": (1.0, 2.0, 3.0, 40.0), "own_imf": (0.05, 0.3, 0.9), "margin_factor": (0.05, 0.4, 1.0)}


def whole_book(folder: Path, *, accounts: int, seed: int = 7) -> Tables:
    """The tables of a generated book with everything in it; the same arguments give the same rows."""
    generate_book(folder, accounts=accounts, positions_per_account=4, underlyings=UNDERLYINGS, seed=seed)
    book = read_book(folder)
    tables = {name: book.frame(name).with_columns(pl.col(pl.Categorical).cast(pl.String)) for name in book.tables}
    tables.pop("funds", None)
    return reduce(lambda made, step: step(made, np.random.default_rng([seed, STEPS.index(step)])), STEPS, tables)


def chosen(rng: np.random.Generator, frame: pl.DataFrame, share: float) -> pl.DataFrame:
    """About so many of the rows."""
    return frame.filter(pl.Series(rng.random(frame.height) < share))


def among(rng: np.random.Generator, words: tuple[object, ...], size: int) -> pl.Series:
    return pl.Series([words[i] for i in rng.integers(0, len(words), size)])


def with_rows(tables: Tables, name: str, rows: pl.DataFrame, *key: str) -> Tables:
    """The book with more rows of a table, the old ones kept where both have a key."""
    old = tables.get(name, rows.clear())
    rows = rows.cast({column: kind for column, kind in old.schema.items() if column in rows.columns})
    return {**tables, name: pl.concat([old, rows], how="diagonal").unique(key, keep="first", maintain_order=True)}


def with_prices(tables: Tables, rng: np.random.Generator) -> Tables:
    """Tokens of lending pools, averages beside prices, feeds in doubt, and dollars of cash that lost their peg."""
    stamp = tables["prices"]["timestamp"][0]
    rows = pl.DataFrame({"asset": list(TOKENS), "price": list(TOKENS.values())})
    tables = with_rows(tables, "prices", rows.with_columns(timestamp=pl.lit(stamp)), "asset")
    asset, price = pl.col("asset"), pl.when(pl.col("asset") == "USDC").then(0.985).otherwise("price")
    doubt = {"SOL": 0.5, "ETH": 0.45}
    frame = tables["prices"].with_columns(
        price=price,
        confidence=asset.replace_strict(doubt, default=0.98, return_dtype=pl.Float64),
        collateral_confidence=asset.replace_strict({"BTC": 0.5, "DAI": 0.4}, default=1.0, return_dtype=pl.Float64),
    )
    spread = pl.Series(rng.uniform(0.97, 1.03, frame.height))
    frame = frame.with_columns(twap=pl.col("price") * spread, collateral_price=pl.col("price") * 0.999)
    frame = frame.with_columns(emode_price=pl.when(asset == "WETH").then(pl.col("price") * 1.001))
    pools = (
        frame.select("asset")
        .join(tables["assets"], on="asset", how="left", maintain_order="left")
        .with_columns(
            total_deposits=pl.Series(rng.uniform(1e3, 1e6, frame.height)),
            total_borrows=pl.Series(rng.uniform(1e2, 1e5, frame.height)),
        )
    )
    return {**tables, "prices": frame, "assets": pools}


def with_feeds(tables: Tables, rng: np.random.Generator) -> Tables:
    """Rates, doubt about some expiries and perpetuals, a skew, funding of both signs, the venue's own deltas."""
    third, height = pl.int_range(pl.len()) % 3, tables["marks"].height
    forwards = tables["forwards"].with_columns(
        rate=pl.lit(0.04),
        forward_confidence=pl.when(third == 0).then(0.5).otherwise(1.0),
        vol_confidence=pl.when(third == 1).then(0.45).otherwise(1.0),
    )
    name, is_perpetual = pl.col("instrument_id"), pl.col("instrument_id").str.ends_with("-PERP")
    marks = tables["marks"].with_columns(
        confidence=pl.when(name == "BTC-PERP").then(0.52).otherwise(1.0),
        skew=pl.Series(rng.normal(0, 500, height)),
        open_interest=pl.when(is_perpetual).then(pl.col("open_interest").fill_null(0) + 5e4).otherwise("open_interest"),
        funding_rate=pl.when(is_perpetual).then(pl.Series(rng.choice([-1e-5, 2e-5], height))),
        delta=pl.when(~is_perpetual & (third == 0)).then(pl.when(name.str.ends_with("C")).then(0.45).otherwise(-0.45)),
    )
    return {**tables, "forwards": forwards, "marks": marks}


def with_futures(tables: Tables, rng: np.random.Generator) -> Tables:
    """Dated futures of two expiries, held by some accounts, long and short."""
    listed = [tables["forwards"].filter(pl.col("underlying") == unit).sort("expiry")[[4, -3]] for unit in FUTURES]
    terms = pl.concat(listed).select("underlying", "expiry", "quote", pl.col("forward").alias("mark_price"))
    terms = terms.with_columns(
        instrument_id=pl.format("{}-{}-F", "underlying", pl.col("expiry").dt.strftime("%Y%m%d")),
        timestamp=pl.lit(tables["marks"]["timestamp"][0]),
    )
    fixed = {"kind": "future", "settlement": "USDC", "contract_size": 1.0, "inverse": False, "payoff": "vanilla"}
    rows = terms.drop("mark_price", "timestamp").with_columns(
        **{k: pl.lit(v) for k, v in fixed.items()}, premium=pl.lit("upfront")
    )
    tables = with_rows(tables, "instruments", rows, "instrument_id")
    marks = terms.select("instrument_id", "mark_price", "timestamp").with_columns(confidence=1.0)
    tables = with_rows(tables, "marks", marks, "instrument_id")
    holders = chosen(rng, tables["accounts"].select(KEYS), 0.25)
    place = rng.integers(0, terms.height, holders.height)
    held = holders.with_columns(
        place=pl.Series(place), quantity=pl.Series(rng.normal(0, 2, holders.height).round(2) + 0.01)
    )
    hedged = chosen(rng, holders, 0.3)  # one month against another, and a great deal of it
    both = [
        hedged.with_columns(place=pl.lit(i, pl.Int64), quantity=pl.lit(sign * 400.0)) for i, sign in ((0, 1), (1, -1))
    ]
    rows = terms.with_row_index("place").select(pl.col("place").cast(pl.Int64), "instrument_id", "mark_price")
    held = pl.concat([*both, held]).join(rows, on="place", how="left", maintain_order="left")
    held = held.with_columns(entry_price=pl.col("mark_price") * 1.01, unsettled=0.0).drop("mark_price", "place")
    return with_rows(tables, "positions", held, *KEYS, "instrument_id")


def with_far_puts(tables: Tables, rng: np.random.Generator) -> Tables:
    """Puts worth several times their underlying and next to nothing, sold and bought: for rules that look at either."""
    row = tables["instruments"].filter(pl.col("instrument_id").str.contains("^BTC-.*-P$")).sort("expiry")[-1]
    mark = tables["marks"].head(1).select("timestamp", mark_iv=pl.lit(0.5), confidence=1.0)
    for name, strike in FAR_PUTS.items():
        own = pl.lit(name).alias("instrument_id")
        listed = row.with_columns(own, strike=pl.lit(strike))
        holders = chosen(rng, tables["accounts"].select(KEYS), 0.06)
        quantity = pl.Series(rng.choice([-0.2, 0.1], holders.height))
        held = holders.with_columns(own, quantity=quantity, unsettled=0.0)
        tables = with_rows(tables, "instruments", listed, "instrument_id")
        tables = with_rows(tables, "marks", mark.with_columns(own), "instrument_id")
        tables = with_rows(tables, "positions", held, *KEYS, "instrument_id")
    return tables


def with_whales(tables: Tables, rng: np.random.Generator) -> Tables:
    """Some accounts thousands of times as large, so that upper brackets and caps bind too."""
    whales = chosen(rng, tables["accounts"].select(KEYS), 0.15)
    whales = whales.with_columns(factor=pl.Series(10.0 ** rng.uniform(2, 5, whales.height)))
    makers = tables["positions"].group_by(KEYS).len().filter(pl.col("len") > MAKERS_HOLD)  # large already
    whales = whales.join(makers, on=KEYS, how="anti", maintain_order="left")
    found = dict(tables)
    for name, column in (("positions", "quantity"), ("balances", "amount")):
        joined = tables[name].join(whales, on=KEYS, how="left", maintain_order="left")
        found[name] = joined.with_columns(pl.col(column) * pl.col("factor").fill_null(1.0)).drop("factor")
    return found


def with_lenders(tables: Tables, rng: np.random.Generator) -> Tables:
    """Accounts of balances only: deposits, debts, categories; and traders with tokens and debts beside their cash."""
    count = max(tables["accounts"].height // 3, 40)
    ids = [f"lend-{i:06d}" for i in range(count)]
    lenders = pl.DataFrame({"account_id": ids, "pool": "cross", "emode": among(rng, (None, None, "0", "1"), count)})
    tables = with_rows(tables, "accounts", lenders, *KEYS)
    assets = (*tables["prices"]["asset"].to_list(), "USD", "WETH", "wstETH", "USDC")
    traders = chosen(rng, tables["positions"].select(KEYS).unique(maintain_order=True), 0.3)
    for owners, times, sign in ((lenders, 3, 1), (lenders, 2, -0.4), (traders, 1, 1), (traders, 1, -0.3)):
        for _ in range(times):
            tables = with_rows(tables, "balances", _tokens(rng, tables, owners, assets, sign), *KEYS, "asset")
    return tables


def _tokens(
    rng: np.random.Generator, tables: Tables, owners: pl.DataFrame, assets: tuple[str, ...], sign: float
) -> pl.DataFrame:
    """One balance per owner, worth some ten thousand dollars, now and then a thousand times that."""
    size, prices = owners.height, dict(tables["prices"].select("asset", "price").iter_rows())
    held = among(rng, assets, size)
    worth = 10.0 ** rng.uniform(3, 5, size) * np.where(rng.random(size) < 0.1, 1e3, 1.0)
    amount = sign * worth / np.array([prices.get(asset, 1.0) for asset in held])
    is_collateral = rng.random(size) > 0.05
    return owners.select(KEYS).with_columns(
        asset=held, amount=pl.Series(amount), is_collateral=pl.Series(is_collateral)
    )


def with_orders(tables: Tables, rng: np.random.Generator) -> Tables:
    """Open orders beside positions and alone, larger and smaller than these, at prices either side of the mark."""
    prices = tables["marks"].select("instrument_id", pl.col("mark_price").fill_null(50.0))
    beside = chosen(rng, tables["positions"].select(*KEYS, "instrument_id", "quantity"), 0.4)
    alone = chosen(rng, tables["positions"].select(KEYS).unique(maintain_order=True), 0.2)
    alone = alone.with_columns(instrument_id=pl.lit("BTC-PERP"), quantity=pl.lit(0.5))
    rows = pl.concat([beside, alone]).join(prices, on="instrument_id", how="left", maintain_order="left")
    size = rows.height
    orders = rows.select(
        *KEYS,
        pl.int_range(pl.len()).cast(pl.String).alias("order_id"),
        "instrument_id",
        among(rng, ("buy", "sell"), size).alias("side"),
        quantity=pl.col("quantity").abs() * pl.Series(rng.uniform(0.2, 3, size)),
        price=pl.col("mark_price") * pl.Series(rng.uniform(0.95, 1.05, size)),
    )
    return {**tables, "orders": orders}


STEPS: tuple[Step, ...] = (
    with_prices,
    with_feeds,
    with_futures,
    with_far_puts,
    with_whales,
    with_lenders,
    with_orders,
)


def small(tables: Tables) -> Tables:
    """Only accounts of few legs and the contracts that these hold."""
    counts = tables["positions"].group_by(KEYS).len().filter(pl.col("len") > MOST_LEGS)
    kept = {
        name: frame.join(counts, on=KEYS, how="anti", maintain_order="left") if name in OWN else frame
        for name, frame in tables.items()
    }
    used = pl.concat([kept["positions"]["instrument_id"], kept["orders"]["instrument_id"]]).unique()
    return kept | {
        name: kept[name].filter(pl.col("instrument_id").is_in(used.implode())) for name in ("instruments", "marks")
    }


def accepted(tables: Tables, file: ModelFile) -> Tables:
    """The part of the book that a model margins: accounts without contracts of other kinds; numbers they may set."""
    kinds = tables["instruments"].select("instrument_id", "kind")
    held = pl.concat([tables[name].select(*KEYS, "instrument_id") for name in ("positions", "orders")])
    foreign = held.join(kinds, on="instrument_id").filter(~pl.col("kind").is_in(file.kinds)).select(KEYS).unique()
    kept = {
        n: f.join(foreign, on=KEYS, how="anti", maintain_order="left") if n in OWN else f for n, f in tables.items()
    }
    return _with_caps(_with_settings(kept, file), file)


def _with_caps(tables: Tables, file: ModelFile) -> Tables:
    """One future of each underlying capped, where a model knows what that is."""
    if "price_cap" not in file.term_inputs:
        return tables
    first = pl.col("kind").is_in(["future"]) & (
        pl.col("expiry") == pl.col("expiry").filter(pl.col("kind") == "future").min()
    )
    level = pl.col("underlying").replace_strict(
        {"BTC": 120_000.0, "ETH": 4_000.0}, default=None, return_dtype=pl.Float64
    )
    return {**tables, "instruments": tables["instruments"].with_columns(price_cap=pl.when(first).then(level))}


def _with_settings(tables: Tables, file: ModelFile) -> Tables:
    """Numbers that every third account sets for itself."""
    if not file.settable:
        return tables
    rng = np.random.default_rng(3)
    rows = []
    for name in file.settable:
        some = chosen(rng, tables["accounts"].select(KEYS), 0.3)
        values = among(rng, SETTINGS.get(name, (0.1, 0.5, 1.0)), some.height)
        rows.append(some.with_columns(name=pl.lit(name), value=values, subject=pl.lit(None, pl.String)))
    return {**tables, "account_parameters": pl.concat(rows)}


def twins(tables: Tables, share: float) -> Tables:
    """Copies of the first accounts: with a quarter more of every asset that they own, and with nothing at all."""
    firsts = tables["accounts"].select(KEYS).head(round(tables["accounts"].height * share))
    own = {n: f.join(firsts, on=KEYS, how="semi", maintain_order="left") for n, f in tables.items() if n in OWN}
    amount = pl.col("amount")
    more = {
        "balances": own["balances"].with_columns(
            pl.when(amount > 0).then(amount * 1.25).otherwise(amount).alias("amount")
        )
    }
    nothing = {
        "balances": own["balances"].with_columns(amount=pl.lit(0.0)),
        "positions": own["positions"].with_columns(quantity=pl.lit(0.0), unsettled=pl.lit(0.0)),
        **{name: own[name].clear() for name in ("orders", "account_parameters") if name in own},
    }
    made = [_renamed(RICH, own | more), _renamed(EMPTY, own | nothing)]
    return {name: pl.concat([part[name] for part in made]) for name in own}


def _renamed(prefix: str, own: Tables) -> Tables:
    return {name: frame.with_columns(account_id=prefix + pl.col("account_id")) for name, frame in own.items()}
