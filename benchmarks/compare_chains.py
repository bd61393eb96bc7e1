"""What a venue publishes for its options against what our kernels make of the same inputs.

Two Deribit files under `GPUMARGIN_DATA` (default: `../shared/data` from the project's root), neither of them in this
repository:

1. hourly BTC chains with five Greeks but without a forward and without the time of capture, which are inferred: the
   forward of each strike from the delta of its call; the capture of each hour, one number for some 350 options, from
   the ratio of vega to theta. What is compared is everything but that delta;
2. daily BTC and ETH chains with mark price, IV and underlying from one call, delta and vega from later ones.

`explained` is what the rounding of the published numbers alone can make: half a unit of the last place of the
quantity, plus what half a unit of the IV, and in file 1 of the call delta, moves ours by. The premium-adjusted delta is
a control: the venue's delta is the plain one, so it must miss.
Usage: python benchmarks/compare_chains.py [--save NAME]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jax import Array

from benchmarks.harness import save
from gpumargin_kernels._moves import Option
from gpumargin_kernels.black import option_greeks
from gpumargin_kernels.coin import coin_greeks
from gpumargin_kernels.normal import normal_inverse_cdf

FOLDER = Path(os.environ.get("GPUMARGIN_DATA", Path(__file__).parents[2] / "shared" / "data")) / "options"
HOURLY = "deribit_btc_five_greeks_hourly_20260123"
DAILY = "deribit_btc_eth_chain_20251230_20260531"

SECONDS_PER_YEAR = 365 * 86_400
HALF_IV = 0.5e-4  # published to 0.01 vol point
HALF_GREEK = 0.5e-5  # 5 decimals
HALF_MARK = {"BTC": 0.5e-8, "ETH": 0.5e-6}  # coin
SHORTEST = 2 / 365  # years: below, the venue's theta follows another rule
PRECISE = 30 / 365  # years: up to here vega and theta, as rounded, give the time of capture to a few seconds
NEAR = (0.05, 0.95)  # call deltas that determine the forward

Columns = Mapping[str, Any]  # name -> [N]
Formula = Callable[[Columns], dict[str, Array]]


class Line(NamedTuple):
    """How far one published quantity is from ours."""

    file: str
    quantity: str
    n: int
    median: float
    p99: float
    max: float
    explained: float  # median of what rounding can make
    within: float  # share of rows whose error rounding explains


def hourly_chain(file: Path) -> pl.DataFrame:
    """Options of at least two days whose call of the same strike has a delta that determines the forward.

    Rows that repeat an earlier hour in every column are left out: some hours are copies of the one before.
    """
    raw = pl.read_parquet(file)
    fresh = raw.sort("date").unique([name for name in raw.columns if name != "date"], keep="first", maintain_order=True)
    chain = fresh.with_columns(
        pl.col("date").str.to_datetime(),
        expiry=pl.col("expiry_date").str.to_datetime() + pl.duration(hours=8),
        vol=pl.col("mark_iv") / 100,
        is_call=pl.col("type") == "call",
    )
    left = (pl.col("expiry") - pl.col("date")).dt.total_seconds()
    calls = chain.filter("is_call").select("date", "expiry", "strike", call_delta="delta")
    paired = chain.join(calls, on=["date", "expiry", "strike"]).with_columns(years=left / SECONDS_PER_YEAR)
    known = paired.filter(pl.col("call_delta").is_between(*NEAR), pl.col("years") >= SHORTEST)
    return known.with_columns(years=pl.col("years") - _years_to_capture())


def _years_to_capture() -> pl.Expr:
    """From the hour's label to the capture, by the median option of the hour: theta is -vega * vol / (2 * years)."""
    years = -pl.col("vol") * (pl.col("vega") * 100) / (2 * pl.col("theta") * 365)
    late = pl.when(pl.col("years") <= PRECISE).then(pl.col("years") - years)
    return late.median().over("date")


def daily_chain(file: Path) -> pl.DataFrame:
    """Every option of every snapshot that has not expired."""
    times = [pl.col(name).str.to_datetime(time_zone="UTC") for name in ("timestamp", "expiry_datetime")]
    left = (pl.col("expiry_datetime") - pl.col("timestamp")).dt.total_milliseconds() / 1_000
    chain = pl.read_parquet(file).with_columns(times).with_columns(years=left / SECONDS_PER_YEAR)
    return chain.filter(pl.col("years") > 0).with_columns(
        vol="implied_volatility", forward="underlying", is_call=pl.col("option_type") == "call"
    )


def forward_of(call_delta: Array, strike: Array, stdev: Array) -> Array:
    """The forward at which a call has this delta N(d1)."""
    return strike * jnp.exp(stdev * (normal_inverse_cdf(call_delta) - 0.5 * stdev))


def of_hourly(columns: Columns) -> dict[str, Array]:
    """Greeks in the venue's units: vega per vol point, rho per cent, theta per calendar day and at most the value."""
    vol, years, strike = columns["vol"], columns["years"], columns["strike"]
    forward = forward_of(columns["call_delta"], strike, vol * jnp.sqrt(years))
    names = ("value", "gamma", "vega", "theta", "rho")
    found = option_greeks(Option(forward, strike, vol, years, columns["is_call"]), names)
    theta = jnp.maximum(found["theta"] / 365, -found["value"])
    return {"gamma": found["gamma"], "vega": found["vega"] / 100, "theta": theta, "rho": found["rho"] / 100}


def of_daily(columns: Columns) -> dict[str, Array]:
    """Our mark in coin, delta, vega per vol point, and the delta less the premium."""
    terms = tuple(columns[name] for name in ("forward", "strike", "vol", "years", "is_call"))
    found = option_greeks(Option(*terms), ("delta", "vega", "premium_adjusted_delta"))
    mark = coin_greeks(*terms, names=("value",))["value"]
    return {"mark_price": mark} | found | {"vega": found["vega"] / 100}


def explained(formula: Formula, columns: Columns, halves: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The most that rounding of the inputs in `halves` moves each quantity by, in either direction."""
    here, total = formula(columns), dict.fromkeys(formula(columns), np.zeros(()))
    for name, half in halves.items():
        ways = [formula({**columns, name: columns[name] + step}) for step in (half, -half)]
        for quantity in total:
            moved = np.abs([np.asarray(way[quantity] - here[quantity]) for way in ways])
            total[quantity] = total[quantity] + moved.max(axis=0)
    return total


def line(file: str, quantity: str, error: np.ndarray, room: np.ndarray) -> Line:
    """Statistics of absolute errors."""
    p50, p99 = np.quantile(error, (0.5, 0.99))
    within = float(np.mean(error <= room))
    return Line(file, quantity, len(error), float(p50), float(p99), float(error.max()), float(np.median(room)), within)


def columns_of(chain: pl.DataFrame, *names: str) -> dict[str, Any]:
    """Columns as numpy arrays."""
    return {name: chain[name].to_numpy() for name in names}


def compare_hourly(chain: pl.DataFrame) -> list[Line]:
    """Four Greeks of the hourly file."""
    columns = columns_of(chain, "strike", "vol", "years", "is_call", "call_delta")
    found = jax.jit(of_hourly)(columns)
    moved = explained(jax.jit(of_hourly), columns, {"vol": HALF_IV, "call_delta": HALF_GREEK})
    return [
        line("hourly BTC", name, np.abs(ours - chain[name].to_numpy()), moved[name] + HALF_GREEK)
        for name, ours in found.items()
    ]


def compare_daily(chain: pl.DataFrame, currency: str) -> list[Line]:
    """Mark, delta and vega of one currency of the daily file; the premium-adjusted delta against the same delta."""
    columns = columns_of(chain, "strike", "forward", "vol", "years", "is_call")
    found = jax.jit(of_daily)(columns)
    moved = explained(jax.jit(of_daily), columns, {"vol": HALF_IV})
    lines = []
    for name, ours in found.items():
        published = "delta" if name == "premium_adjusted_delta" else name
        half = HALF_MARK[currency] if name == "mark_price" else HALF_GREEK
        error = np.abs(np.asarray(ours) - chain[published].to_numpy())
        lines.append(line(f"daily {currency}", name, error, moved[name] + half))
    return lines


def compare(hourly: Path, daily: Path) -> list[Line]:
    """All lines of both files."""
    days = daily_chain(daily)
    by_currency = (compare_daily(days.filter(pl.col("currency") == name), name) for name in HALF_MARK)
    return [*compare_hourly(hourly_chain(hourly)), *(row for rows in by_currency for row in rows)]


def as_table(lines: Iterable[Line]) -> str:
    """The lines as Markdown."""
    head = ("file", "quantity", "n", "median", "99 %", "max", "explained, median", "within")
    rows = [
        (
            x.file,
            x.quantity,
            f"{x.n:,}",
            f"{x.median:.1e}",
            f"{x.p99:.1e}",
            f"{x.max:.1e}",
            f"{x.explained:.1e}",
            f"{x.within:.1%}",
        )
        for x in lines
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))


def main() -> None:
    """Prints the table; ends with a reason where a file is absent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", help="name under benchmarks/results")
    options = parser.parse_args()
    files = {name: FOLDER / f"{name}.parquet" for name in (HOURLY, DAILY)}
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        message = f"no {' and no '.join(missing)}; set GPUMARGIN_DATA to the folder that holds options/"
        raise SystemExit(message)
    jax.config.update("jax_enable_x64", True)
    lines = compare(*files.values())
    print(as_table(lines))
    if options.save:
        print(save(options.save, {"files": list(files), "lines": [x._asdict() for x in lines]}))


if __name__ == "__main__":
    main()
