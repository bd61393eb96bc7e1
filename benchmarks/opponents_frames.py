"""The leg stage as a user of frames or of SQL would write it: polars and DuckDB, all cores, plain sums only.

Frames and tables are made before anything is timed. What each answers is put into account order inside its own time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.workload import Floats, Legs

HOW_TO_INSTALL_DUCKDB = "pip install duckdb"


def _leg_frame(legs: Legs) -> pl.DataFrame:
    accounts = len(legs.indptr) - 1
    owner = np.repeat(np.arange(accounts, dtype=np.int32), np.diff(legs.indptr))
    return pl.DataFrame({"account": owner, "contract": legs.contract, "quantity": legs.quantity})


def _contract_frame(legs: Legs) -> pl.DataFrame:
    columns = {f"s{s}": np.ascontiguousarray(legs.table[:, s]) for s in range(legs.table.shape[1])}
    return pl.DataFrame({"contract": np.arange(len(legs.table), dtype=np.int32), **columns})


def _by_account(accounts: int, owner: np.ndarray, worst: np.ndarray, dtype: np.dtype) -> Floats:
    """Answers in account order, 0 for an account without legs."""
    out = np.zeros(accounts, dtype)
    out[owner] = worst
    return out


def worst_pnl_polars(legs: Legs) -> Callable[[], Floats]:
    """Worst scenario P&L of each account: join, product, group_by, least of the sums, on the streaming engine.

    The streaming engine is the better half of what polars offers here: it holds one morsel of the joined legs at a
    time and aggregates in parallel.
    """
    accounts, scenarios = len(legs.indptr) - 1, [f"s{s}" for s in range(legs.table.shape[1])]
    query = (
        _leg_frame(legs)
        .lazy()
        .join(_contract_frame(legs).lazy(), on="contract", how="inner", maintain_order="none")
        .group_by("account")
        .agg((pl.col(scenarios) * pl.col("quantity")).sum())
        .select("account", pl.min_horizontal(scenarios).alias("worst"))
    )

    def run() -> Floats:
        found = query.collect(engine="streaming")
        return _by_account(accounts, found["account"].to_numpy(), found["worst"].to_numpy(), legs.table.dtype)

    return run


def worst_pnl_duckdb(legs: Legs) -> Callable[[], Floats]:
    """Worst scenario P&L of each account as one SQL statement over tables in DuckDB's own memory.

    Raises:
      ImportError: DuckDB is not installed.
    """
    import duckdb

    accounts, scenarios = len(legs.indptr) - 1, range(legs.table.shape[1])
    connection = duckdb.connect()
    for name, frame in (("legs", _leg_frame(legs)), ("contracts", _contract_frame(legs))):
        connection.register("source", frame.to_arrow())
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM source")  # noqa: S608  two fixed names
        connection.unregister("source")
    sums = ", ".join(f"sum(quantity * s{s})" for s in scenarios)
    query = f"SELECT account, least({sums}) AS worst FROM legs JOIN contracts USING (contract) GROUP BY account"  # noqa: S608

    def run() -> Floats:
        found = connection.execute(query).fetchnumpy()
        return _by_account(accounts, found["account"], found["worst"], legs.table.dtype)

    return run
