"""Whether a fused block and gpumargin say the same of every account and unit row: asked before anything is timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.block_tables import ACCOUNT_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.block_tables import Block
    from gpumargin.engine import EngineResult
    from gpumargin.prepare import Pass

ROOM = 1e-9  # of an account's gross value
COIN_STEP = 1.5e-9  # a worst case that enters with nine decimals may fall either way
GREEKS = ("delta", "gamma", "vega", "theta")


def engine_columns(results: list[EngineResult]) -> dict[str, np.ndarray]:
    """What the engine says, by the block's names, `[A]` each."""
    rows = [part.result.accounts for part in results]
    found = {name: [getattr(r, name) for r in rows] for name in ("equity", "unrealised_pnl", "option_value")}
    for kind in ("initial", "maintenance"):
        found[f"{kind}_collateral_value"] = [r.collateral_value[kind] for r in rows]
        found[f"{kind}_balance"] = [r.balance[kind] for r in rows]
        found[f"{kind}_margin"] = [r.margin[kind] for r in rows]
        found[f"{kind}_excess"] = [r.health.excess[kind] for r in rows]
    found["worst_loss"] = [r.worst_loss for r in rows]
    found |= {name: [getattr(r.greeks, name) for r in rows] for name in GREEKS}
    found |= {name: [r.charges[name] for r in rows] for name in rows[0].charges}
    return {name: np.concatenate(parts) for name, parts in found.items()}


def gross_of(work: Pass) -> np.ndarray:
    """Gross value of every account: what rounding errors are relative to."""
    contracts, legs, assets = work.contracts.contracts, work.legs, work.contracts.assets
    level = np.maximum(contracts.forward_fixed + contracts.forward_variable, np.nan_to_num(contracts.mark))
    worth = np.abs(level * contracts.size * contracts.settlement_ratio)
    owner = np.repeat(np.arange(len(legs)), np.diff(legs.leg_start[legs.unit_start]))
    of_legs = np.bincount(owner, np.abs(legs.quantity) * worth[legs.contract], minlength=len(legs))
    holder = np.repeat(np.arange(len(legs)), np.diff(legs.balance_start))
    of_cash = np.bincount(holder, np.abs(legs.amount) * np.asarray(assets.ratio)[legs.asset], minlength=len(legs))
    return np.asarray(of_legs + of_cash)


def differences(work: Pass, results: list[EngineResult], block: Block) -> Iterator[str]:
    """What differs, in words; nothing where all agrees."""
    room = ROOM * gross_of(work) + (COIN_STEP if work.money == "BTC" else 0.0) * np.diff(work.legs.unit_start)
    left_out = ACCOUNT_COLUMNS[block.accounts.shape[1] :]
    for name, expected in engine_columns(results).items():
        if name in left_out:
            continue
        error = np.abs(block.column(name) - expected)
        bad = np.flatnonzero(~(error <= room))
        if len(bad):
            worst = bad[np.argmax(error[bad])]
            yield f"{name}: {len(bad)} accounts, worst {block.column(name)[worst]!r} against {expected[worst]!r}"
    status = np.concatenate([part.result.accounts.health.status for part in results])
    is_near = np.zeros(len(status), bool)
    for name in ("equity", "initial_excess", "maintenance_excess"):
        is_near |= np.abs(block.column(name)) <= room
    wrong = np.flatnonzero((block.status != status) & ~is_near)
    if len(wrong):
        yield f"status: {len(wrong)} accounts, first {block.status[wrong[0]]} against {status[wrong[0]]}"


def require_equal(work: Pass, results: list[EngineResult], block: Block) -> None:
    """Ends the run where an answer differs.

    Raises:
      SystemExit: with what differs.
    """
    found = list(differences(work, results, block))
    if found:
        message = f"{work.model.label}: nothing was timed; {'; '.join(found)}"
        raise SystemExit(message)
