"""What the whole book loses in each scenario of its model: who turns bankrupt, and what nobody covers.

What is approximated: an account's P&L in a scenario is the plain sum over its legs of quantity times the contract's
`scenario_pnl`, all units moving in the scenario of the same id at once, before the model's weights, discounts and
offsets; balances that are not legs move in proportion with the unit that their asset names, if any; an account counts
as liquidatable where this P&L is larger than its maintenance excess, its requirement unmoved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa

from gpumargin.pack.columns import Floats, Ints, encoded, floats, positions_in
from gpumargin.results import minor_units
from gpumargin.solvency.sources import Sources
from gpumargin.sums import exact_sum

APPROXIMATIONS = (
    "scenario P&L of an account: plain sum of quantity times scenario_pnl over its legs, all units in the scenario of "
    "the same id, before the model's weights, discounts and offsets",
    "a balance that is no leg moves in proportion with the unit that its asset names; all others keep their value",
    "turning liquidatable: loss above the maintenance excess, the requirement itself unmoved",
    "no liquidation is simulated: positions and prices stay as the scenario has them",
    "where a run has several models, each one's stress is by itself, and set against the whole of the funds",
)
_LEGS_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Legs:
    """What moves in scenarios, by account.

    Attributes:
      ids: `[C]` contracts, the first rows of `pnl` and `notional`; assets whose balances move follow.
      starts: `[A + 1]` account -> legs.
      contract: `[N]` row of `pnl` and `notional`.
      quantity: `[N]` signed.
      pnl: `[M, S]` P&L of one long contract, accounting asset.
      notional: `[M]` notional of one contract, 0 for balances.
    """

    ids: pa.Array
    starts: Ints
    contract: Ints
    quantity: Floats
    pnl: Floats
    notional: Floats


@dataclass
class Stressed:
    """Sums by scenario, `[S]` each; money in whole minor units of the accounting asset.

    Attributes:
      pnl: P&L of all accounts.
      losses: P&L of the accounts that lose.
      deficits: per scenario, account and negative equity of each account that has one after it.
      turned_bankrupt: accounts whose equity turns negative.
      turned_liquidatable: accounts whose maintenance excess turns negative.
      notional: notional of positions of the latter, accounting asset.
      left_out: accounts whose equity or P&L is not known in some scenario.
    """

    pnl: list[int]
    losses: list[int]
    deficits: list[list[tuple[Ints, Ints]]]
    turned_bankrupt: Ints
    turned_liquidatable: Ints
    notional: Floats
    left_out: int = 0

    @staticmethod
    def empty(scenarios: int) -> Stressed:
        """No accounts yet."""
        zeros = np.zeros(scenarios, np.int64)
        return Stressed(
            [0] * scenarios, [0] * scenarios, [[] for _ in range(scenarios)], zeros, zeros.copy(), np.zeros(scenarios)
        )

    def deficits_of(self, scenario: int) -> tuple[Ints, Ints]:
        """Accounts with negative equity in a scenario and how much it is, positive, largest first."""
        found = self.deficits[scenario]
        account = np.concatenate([np.zeros(0, np.int64), *(a for a, _ in found)])
        deficit = np.concatenate([np.zeros(0, np.int64), *(d for _, d in found)])
        order = np.lexsort([account, -deficit])
        return account[order], deficit[order]


def notionals(sources: Sources, instruments: pl.DataFrame, money: str) -> Floats:
    """Notional of one contract, `[M]`: of an option what its size of the underlying is worth, else its value."""
    book = sources.book.whole_frame("instruments").select(
        pl.col("instrument_id").cast(pl.String), pl.col("underlying"), pl.col("quote"), pl.col("payoff")
    )
    listed = instruments.select(pl.col("instrument_id").cast(pl.String), "kind", "contract_size", "value").join(
        book, on="instrument_id", how="left", maintain_order="left"
    )
    paid_in = pl.when(pl.col("payoff") == "digital").then("quote").otherwise("underlying").alias("paid_in")
    assets = listed.select(paid_in).to_series().to_list()
    price = np.array([sources.price(str(asset), money) for asset in assets])
    is_option = (listed["kind"].cast(pl.String) == "option").to_numpy()
    size, value = listed["contract_size"].to_numpy(), listed["value"].to_numpy()
    return np.abs(np.nan_to_num(np.where(is_option, size * price, value)))


def _risk_arrays(instruments: pl.DataFrame, scenarios: int) -> Floats:
    """P&L of one long contract, `[M, S]`."""
    if "scenario_pnl" not in instruments.columns or not scenarios:
        return np.zeros((instruments.height, scenarios))
    return np.asarray(instruments["scenario_pnl"].explode().to_numpy(), np.float64).reshape(instruments.height, -1)


def _moving_assets(sources: Sources, label: str, scenarios: pl.DataFrame) -> tuple[list[str], Floats]:
    """Assets whose balances move with a unit, and what one of each gains, `[C, S]`; an accounting asset never does."""
    money, columns = sources.money(label), scenario_count(scenarios)
    moves = {
        str(unit): rows.sort("column")["spot_move"].to_numpy()
        for (unit,), rows in (scenarios.group_by("unit") if columns else ())
    }
    held = sources.book.frame("balances")["asset"].unique().to_list() if money not in moves else []
    assets = sorted(str(asset) for asset in held if str(asset) in moves)
    gains = [sources.price(asset, money, as_collateral=True) * moves[asset] for asset in assets]
    return assets, np.array(gains).reshape(len(assets), columns)


def _held(rows: pa.Table, key: str, amount: str, account: Ints, known: pa.Array) -> tuple[Ints, Ints, Floats]:
    """Account, row in `known` and amount of the rows of a table that are in `known`."""
    codes, words = encoded(rows[key])
    row, quantity = positions_in(words, known)[codes].astype(np.int64), floats(rows, amount)
    chosen = np.flatnonzero((row >= 0) & (quantity != 0))
    return account[chosen], row[chosen], quantity[chosen]


def scenario_count(scenarios: pl.DataFrame) -> int:
    """Number of scenario columns of a model."""
    return int(scenarios["column"].n_unique()) if "column" in scenarios.columns else 0


def stress_legs(sources: Sources, label: str, scenarios: pl.DataFrame) -> Legs:
    """Positions of the accounts of one model, and their balances that move."""
    instruments, tables, index = sources.table("instruments", label), sources.book.tables, sources.index
    contracts = instruments.filter(pl.col("kind").cast(pl.String) != "base")
    assets, gains = _moving_assets(sources, label, scenarios)
    ids = pa.array(contracts["instrument_id"].cast(pl.String).to_list(), pa.string())
    positions = _held(tables["positions"], "instrument_id", "quantity", index.of_positions, ids)
    balances = _held(tables["balances"], "asset", "amount", index.of_balances, pa.array(assets, pa.string()))
    account, amount = (np.concatenate([positions[i], balances[i]]) for i in (0, 2))
    contract = np.concatenate([positions[1], balances[1] + len(ids)])
    order = np.lexsort([contract, account])  # the same sums for any order of rows
    order = order[sources.included(label)[account[order]]]
    return Legs(
        ids=ids,
        starts=np.searchsorted(account[order], np.arange(sources.accounts.height + 1)),
        contract=contract[order],
        quantity=amount[order],
        pnl=np.concatenate([_risk_arrays(contracts, scenario_count(scenarios)), gains]),
        notional=np.concatenate([notionals(sources, contracts, sources.money(label)), np.zeros(len(assets))]),
    )


def _blocks(starts: Ints) -> Iterator[slice]:
    """Consecutive accounts with about `_LEGS_AT_ONCE` legs."""
    first, accounts = 0, len(starts) - 1
    while first < accounts:
        last = int(np.searchsorted(starts, starts[first] + _LEGS_AT_ONCE, side="right")) - 1
        last = min(max(last, first + 1), first + _LEGS_AT_ONCE, accounts)
        yield slice(first, last)
        first = last


def _account_sums(legs: Legs, of: slice, values: Floats) -> Floats:
    """Sums over the legs of the accounts `of` of quantity times `values`, `[M, ...]`; those without legs have 0."""
    starts = legs.starts[of.start : of.stop + 1]
    own = slice(int(starts[0]), int(starts[-1]))
    quantity = legs.quantity[own].reshape(-1, *[1] * (values.ndim - 1))
    sums = np.zeros((of.stop - of.start, *values.shape[1:]))
    has_legs = np.diff(starts) > 0
    if has_legs.any():
        sums[has_legs] = np.add.reduceat(quantity * values[legs.contract[own]], starts[:-1][has_legs] - own.start)
    return sums


def stressed(sources: Sources, label: str, legs: Legs) -> Stressed:
    """Runs the accounts of one model through its scenarios, block by block.

    Accounts whose numbers are not known are left out and counted.

    Raises:
      InputError: GM117, an amount does not fit int64.
    """
    decimals, included = sources.decimals[sources.money(label)], sources.included(label)
    is_known = sources.accounts["equity_minor"].is_not_null().to_numpy()
    equity = sources.accounts["equity_minor"].fill_null(0).to_numpy()
    excess = sources.accounts["maintenance_excess"].to_numpy()
    found = Stressed.empty(legs.pnl.shape[1])
    gross = replace(legs, quantity=np.abs(legs.quantity))
    for block in _blocks(legs.starts):
        gain = _account_sums(legs, block, legs.pnl)
        chosen = included[block] & is_known[block] & np.isfinite(gain).all(axis=1)
        gain = np.where(chosen[:, None], gain, 0.0)
        notional = _account_sums(gross, block, legs.notional)
        minor = np.asarray(minor_units(gain.ravel(), decimals, np.floor)).reshape(gain.shape)
        after = np.where(chosen[:, None], equity[block, None] + minor, 0)
        turns = (excess[block, None] >= 0) & (excess[block, None] + gain < 0) & chosen[:, None]
        found.left_out += int((included[block] & ~chosen).sum())
        _add(found, block.start, minor, after)
        found.turned_bankrupt += ((after < 0) & (equity[block, None] >= 0)).sum(axis=0)
        found.turned_liquidatable += turns.sum(axis=0)
        found.notional += (notional[:, None] * turns).sum(axis=0)
    return found


def _add(found: Stressed, first: int, minor: Ints, after: Ints) -> None:
    """Adds the P&L of a block of accounts and the equity after it, `[A, S]`."""
    for scenario in range(minor.shape[1]):
        found.pnl[scenario] += exact_sum(minor[:, scenario])
        found.losses[scenario] += exact_sum(np.minimum(minor[:, scenario], 0))
        below = np.flatnonzero(after[:, scenario] < 0)
        if len(below):
            found.deficits[scenario].append((below + first, -after[below, scenario]))


def contract_notional(legs: Legs) -> pl.DataFrame:
    """Notional held by contract, long and short added: id and amount."""
    count = len(legs.ids)
    is_position = legs.contract < count
    held = np.bincount(legs.contract[is_position], np.abs(legs.quantity[is_position]), minlength=count)
    return pl.DataFrame({"id": pl.Series(legs.ids, dtype=pl.String), "amount": held * legs.notional[:count]})
