"""What the fused block kernels read: gpumargin's priced contract table and the book's runs, laid out for a plain loop.

Rows of a contract stand together, so that one gather fetches all that its legs add up. Everything here happens before
anything is timed, except that prices have moved: then gpumargin's contract stage and this are what a block begins with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import jax
import numpy as np

from benchmarks.opponents import TASK_ACCOUNTS

if TYPE_CHECKING:
    from gpumargin.pack.legs import LegBook
    from gpumargin.prepare import Pass
    from gpumargin_kernels.charge import ChargeChoices
    from gpumargin_kernels.model import Model
    from gpumargin_kernels.records import Tally

Array = np.ndarray


ACCOUNT_COLUMNS = (
    "equity", "unrealised_pnl", "option_value", "initial_collateral_value", "maintenance_collateral_value",
    "initial_balance", "maintenance_balance", "initial_margin", "maintenance_margin", "initial_excess",
    "maintenance_excess", "health", "worst_loss", "delta", "gamma", "vega", "theta", "haircut", "extra_haircut",
    "collateral_oracle",
)  # fmt: skip
NUM_ACCOUNT, NUM_UNIT = len(ACCOUNT_COLUMNS), 16
NUM_HEALTH = ACCOUNT_COLUMNS.index("worst_loss")  # the first so many say how an account stands, the others why


class Block(NamedTuple):
    """Answers in account order and unit row order."""

    accounts: np.ndarray  # [A, ACCOUNT_COLUMNS], or the first `NUM_HEALTH` of them
    status: np.ndarray  # [A] int8
    worst: np.ndarray  # [A] int32
    units: np.ndarray  # [R, NUM_UNIT] charges, requirements, value, P&L, Greeks
    unit_worst: np.ndarray  # [R] int32

    def column(self, name: str) -> np.ndarray:
        """A column of the accounts by its name."""
        return self.accounts[:, ACCOUNT_COLUMNS.index(name)]


def blank_block(legs: LegBook, *, is_whole: bool) -> Block:
    """Room for the answers; of units, where health alone is wanted, a row for every task to write over."""
    accounts = len(legs)
    rows = len(legs.unit) if is_whole else -(-accounts // TASK_ACCOUNTS)
    return Block(
        np.empty((accounts, NUM_ACCOUNT if is_whole else NUM_HEALTH)),
        np.empty(accounts, np.int8),
        np.empty(accounts, np.int32),
        np.empty((rows, NUM_UNIT)),
        np.empty(rows, np.int32),
    )


class Runs(NamedTuple):
    """The book: runs of rows inside runs of rows, as `gpumargin.pack.legs.LegBook` holds them."""

    unit_start: Array
    leg_start: Array
    cash_start: Array
    balance_start: Array
    unit: Array
    contract: Array
    quantity: Array
    cash_contract: Array
    cash_quantity: Array
    entry: Array  # the mark where P&L has settled, so that no NaN is met on the way
    is_open: Array
    unsettled: Array
    asset: Array
    amount: Array
    is_collateral: Array


class Priced(NamedTuple):
    """The contract table, `[M]` or `[M, columns]`."""

    net: Array  # times the signed quantity: scenarios, value, money Greeks, and what else a model adds up
    gross: Array  # times the absolute quantity (Derive), or the long one (Deribit)
    expiry: Array  # group
    strike: Array  # group
    own: Array  # option size of the strike level (Derive), delta of the expiry level (Deribit)
    terms: Array  # constants of the expiry that closes
    cash: Array  # [M, 4] mark, size, accounting unit per settlement asset, 1 if inverse


def runs_of(work: Pass) -> Runs:
    """The arrays of a packed book."""
    legs, mark = work.legs, np.asarray(work.contracts.contracts.mark)
    is_open = ~np.isnan(legs.entry)
    return Runs(
        *(getattr(legs, name) for name in Runs._fields[:9]),
        entry=np.where(is_open, legs.entry, mark[legs.cash_contract]),
        is_open=is_open,
        unsettled=legs.unsettled,
        asset=legs.asset,
        amount=legs.amount,
        is_collateral=legs.is_collateral,
    )


def model_of(work: Pass) -> Model:
    """The bound model with numpy leaves."""
    return cast("Model", jax.tree.map(np.asarray, work.engine._model))


def tally_of(work: Pass, name: str) -> Tally:
    """What a component adds up, numpy, padding rows of the engine cut off."""
    rows = work.contracts.padding + 1
    (tally,) = work.engine.table.tallies[name]
    return cast("Tally", jax.tree.map(lambda x: np.asarray(x)[:rows], tally))


def summed(work: Pass, component: str, name: str) -> Array:
    """The column of one named sum of a charge, `[M]`."""
    model = work.engine._model
    choices = cast("ChargeChoices", next(c for c in model.components if c.name == component).choice("charge"))
    word = next(s.word for s in choices.sums if s.name == name)
    order = [s.name for s in choices.sums if s.word == word]
    return np.asarray(tally_of(work, component).columns[word][:, order.index(name)])


def totals_of(work: Pass, *, is_whole: bool) -> Array:
    """Option value, and if they are wanted money Greeks, `[M, 1]` or `[M, 5]`."""
    table = work.engine.table
    wanted = (table.value, table.greeks) if is_whole else (table.value,)
    totals = np.concatenate([np.asarray(tally.columns["net"]) for tally in wanted], axis=1)
    return totals[: work.contracts.padding + 1]


def priced(work: Pass, *, net: list[Array], gross: list[Array], own: Array, terms: Array) -> Priced:
    """The contract table of a model."""
    c = work.contracts.contracts
    return Priced(
        np.ascontiguousarray(np.concatenate(net, axis=1)),
        np.ascontiguousarray(np.stack(gross, axis=1)),
        np.asarray(c.expiry_group),
        np.asarray(c.strike_group),
        np.ascontiguousarray(own),
        np.ascontiguousarray(terms),
        np.stack([c.mark, c.size, c.settlement_ratio, np.asarray(c.is_inverse, np.float64)], axis=1),
    )


def money_of(work: Pass, model: Model) -> Array:
    """Price of assets and the shares of them that count, `[C, 5]`: of owned ones initial, maintenance; of owed ones."""
    shares = [
        model.account.numbers[margin_type][kind]
        for kind in ("assets", "liability")
        for margin_type in ("initial", "maintenance")
    ]
    return np.stack([np.asarray(work.contracts.assets.ratio), *shares], axis=1)
