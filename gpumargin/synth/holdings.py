"""Who holds what: archetypes of accounts, how many legs each has, and the legs themselves, a block at a time."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpumargin.synth.contracts import Bools, Contracts, Floats, Ints

BLOCK = 16_384
LONGEST = 200
_STAGES = ("market", "pilot", "legs", "funding", "makers", "owners", "shuffle")
_TYPICAL_LEG = 9_000.0  # USD of notional
_ISOLATED = 0.03
_AT_HOME = 0.75
_SPREAD_OF_COUNTS = 1.2
_LEGS_PER_MAKER = 80.0
_MAKER_SHARE = 0.15
_LEGS_PER_CONTRACT = 8


class Archetype(NamedTuple):
    """How one kind of account trades.

    `draws` is what it draws from; `long_*` the chance that a leg is long; `second` the leg that goes with an option;
    `coin` the chance of posting the underlying; `leveraged` whether it can be pushed below its margin.
    """

    name: str
    share: float
    draws: str
    long_call: float
    long_put: float
    long_linear: float
    second: str
    coin: float
    leveraged: bool


ARCHETYPES = (
    Archetype("directional", 0.22, "linear", 0.0, 0.0, 0.55, "none", 0.08, True),
    Archetype("basis_trader", 0.07, "linear", 0.0, 0.0, 0.0, "none", 1.0, True),
    Archetype("option_buyer", 0.13, "option", 1.0, 1.0, 0.0, "none", 0.05, False),
    Archetype("hedged", 0.17, "option", 0.12, 0.88, 0.0, "hedge", 0.35, True),
    Archetype("naked_seller", 0.13, "option", 0.0, 0.0, 0.0, "none", 0.10, True),
    Archetype("spreader", 0.16, "option", 0.5, 0.5, 0.0, "spread", 0.05, True),
    Archetype("holder", 0.08, "none", 0.0, 0.0, 0.0, "none", 0.60, False),
    Archetype("borrower", 0.04, "none", 0.0, 0.0, 0.0, "none", 1.0, True),
    Archetype("market_maker", 0.0, "none", 0.0, 0.0, 0.0, "none", 0.50, True),
)
NAMES = tuple(kind.name for kind in ARCHETYPES)
DIRECTIONAL, BASIS, HOLDER, BORROWER, MAKER = (
    NAMES.index(name) for name in ("directional", "basis_trader", "holder", "borrower", "market_maker")
)
_SHARES = np.array([kind.share for kind in ARCHETYPES])
_LINEAR = np.array([kind.draws == "linear" for kind in ARCHETYPES])
_OPTION = np.array([kind.draws == "option" for kind in ARCHETYPES])
_SPREADS = np.array([kind.second == "spread" for kind in ARCHETYPES])
_HEDGES = np.array([kind.second == "hedge" for kind in ARCHETYPES])
_LONG = np.array([(kind.long_call, kind.long_put, kind.long_linear) for kind in ARCHETYPES])


@dataclass(frozen=True)
class Plan:
    """Sizes fixed before the first account is drawn.

    Attributes:
      accounts, makers, legs: number of accounts, how many of them (the first) are market makers, legs wanted in all.
      shares: cumulative share of each archetype among the others.
      median: median legs of an account that trades options; longest: most legs of such an account.
      distinct: `[n]` distinct contracts expected of n draws.
      factor: `[2 U]` what sizes are multiplied by, per unit and kind, so that they fit the open interest.
    """

    accounts: int
    makers: int
    legs: int
    shares: Floats
    median: float
    longest: int
    distinct: Floats
    factor: Floats

    @property
    def takers(self) -> int:
        """Accounts that are no market makers."""
        return self.accounts - self.makers


@dataclass(frozen=True)
class Rows:
    """`R` margin accounts in order: account index from 0, whether isolated, archetype, home unit, USD of a leg."""

    account: Ints
    isolated: Bools
    archetype: Ints
    home: Ints
    scale: Floats


@dataclass(frozen=True)
class Legs:
    """Legs sorted by row, then contract: `row` into a `Rows`, `contract` index, signed `lots`, never 0."""

    row: Ints
    contract: Ints
    lots: Ints


def stream(seed: int, stage: str, index: int = 0) -> np.random.Generator:
    """The random numbers of one block of one stage: the same whatever else was drawn before."""
    sequence = np.random.SeedSequence(seed, spawn_key=(_STAGES.index(stage), index))
    return np.random.Generator(np.random.PCG64(sequence))


def plan_traded(contracts: Contracts, *, legs: int, per_account: float) -> int:
    """How many contracts a made-up book of `legs` legs is spread over: each should have several holders."""
    least = min(round(4.0 * per_account), legs // 2)
    return min(len(contracts.ids), max(-(-legs // _LEGS_PER_CONTRACT), least, 1))


def plan_book(contracts: Contracts, *, accounts: int, legs: int) -> Plan:
    """`Plan` of a book on the contracts that have popularity, with `factor` still 1 everywhere."""
    traded = np.count_nonzero(contracts.popularity > 0.0)
    maker_legs = max(_MAKER_SHARE * legs, 2.0 * traded)
    makers = int(np.clip(np.ceil(maker_legs / _LEGS_PER_MAKER), 2, max(2, accounts // 3)))
    takers = max(accounts - makers, 1)
    legs_each = max(legs - maker_legs, 0.25 * legs) / takers - _ISOLATED
    shares = _shares(contracts, legs_each)
    in_linear = shares[_LINEAR].sum() * 1.3
    in_options = (legs_each - in_linear) / max(shares[_OPTION].sum(), 1e-9)
    longest = int(np.clip(np.count_nonzero(contracts.is_option & (contracts.popularity > 0.0)) // 2, 1, LONGEST))
    return Plan(
        accounts=accounts,
        makers=makers,
        legs=legs,
        shares=np.cumsum(shares) / shares.sum(),
        median=_median_count(in_options, longest),
        longest=longest,
        distinct=_distinct(contracts),
        factor=np.ones(2 * len(contracts.unit_coin)),
    )


def num_blocks(plan: Plan) -> int:
    """Blocks of at most `BLOCK` accounts that the takers make."""
    return -(-plan.takers // BLOCK)


def draw_rows(rng: np.random.Generator, plan: Plan, contracts: Contracts, *, block: int) -> Rows:
    """The margin accounts of one block of takers: `BLOCK` accounts, some with an isolated pool after `cross`."""
    first = plan.makers + block * BLOCK
    count = min(BLOCK, plan.accounts - first)
    archetype = np.searchsorted(plan.shares, rng.random(count), side="right")
    pools = 1 + (rng.random(count) < _ISOLATED)
    account = np.repeat(np.arange(first, first + count), pools)
    isolated = np.diff(account, prepend=-1) == 0
    archetype = np.repeat(archetype, pools)
    trades_linear = plan.shares[BASIS] > 0.0
    archetype[isolated] = DIRECTIONAL if trades_linear else NAMES.index("option_buyer")
    return complete_rows(rng, contracts, account=account, isolated=isolated, archetype=archetype)


def complete_rows(
    rng: np.random.Generator, contracts: Contracts, *, account: Ints, isolated: Bools, archetype: Ints
) -> Rows:
    """Adds the home unit, by popularity, and the scale, lognormal, to margin accounts of known archetype."""
    weight = np.bincount(contracts.unit, contracts.popularity, minlength=len(contracts.unit_coin))
    home = np.searchsorted(np.cumsum(weight)[:-1] / weight.sum(), rng.random(account.size), side="right")
    scale = _TYPICAL_LEG * np.exp(1.3 * rng.standard_normal(account.size))
    return Rows(account, isolated, archetype, home.astype(np.int64), scale)


def draw_legs(rng: np.random.Generator, plan: Plan, contracts: Contracts, rows: Rows) -> Legs:
    """Legs of the margin accounts `rows`, before open interest limits them: draws, then their second legs, netted."""
    row = np.repeat(np.arange(rows.account.size), _draws(rng, plan, contracts, rows))
    archetype = rows.archetype[row]
    contract = _contracts_of(rng, contracts, archetype, rows.home[row])
    side = np.where(contracts.is_option[contract], np.where(contracts.is_call[contract], 0, 1), 2)
    sign = np.where(rng.random(row.size) < _LONG[archetype, side], 1.0, -1.0)
    size = rows.scale[row] * np.exp(0.6 * rng.standard_normal(row.size)) / contracts.notional[contract]
    size *= plan.factor[2 * contracts.unit[contract] + contracts.is_option[contract]]
    lots = sign * np.floor(size + rng.random(row.size))
    hedge, hedge_lots = _hedge(rng, contracts, contract, np.where(_HEDGES[archetype], lots, 0.0))
    spread = _spread(rng, contracts, contract, _SPREADS[archetype])
    return _netted(
        np.concatenate([row, row, row]),
        np.concatenate([contract, hedge, spread]),
        np.concatenate([lots, hedge_lots, -lots * (spread != contract)]).astype(np.int64),
        num_contracts=len(contracts.ids),
    )


def _shares(contracts: Contracts, legs_each: float) -> Floats:
    """Archetypes this market allows; where few legs are wanted, more accounts hold collateral only."""
    live = contracts.popularity > 0.0
    has_option, has_linear = bool((live & contracts.is_option).any()), bool((live & ~contracts.is_option).any())
    shares = np.where((_OPTION & (not has_option)) | (_LINEAR & (not has_linear)), 0.0, _SHARES)
    trading = shares[_OPTION | _LINEAR].sum()
    shares = np.where(_OPTION | _LINEAR, shares / trading * _SHARES[_OPTION | _LINEAR].sum(), shares)
    least = 1.6 * shares[_OPTION].sum() + 1.3 * shares[_LINEAR].sum()
    shares = np.where(_OPTION | _LINEAR, shares * min(1.0, max(legs_each, 0.0) / least), shares)
    shares[HOLDER] += 1.0 - shares.sum()
    return shares


def _median_count(mean: float, longest: int) -> float:
    """Median m for which 1 + floor(m * exp(spread * z)), at most `longest`, has the mean wanted, by bisection."""
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / 1024) for i in range(1024)])
    low, high = 1e-3, float(LONGEST)
    for _ in range(50):
        middle = (low * high) ** 0.5
        counts = np.minimum(1.0 + np.floor(middle * np.exp(_SPREAD_OF_COUNTS * quantiles)), longest)
        low, high = (middle, high) if counts.mean() < mean else (low, middle)
    return low


def _distinct(contracts: Contracts) -> Floats:
    """`[n]` expected distinct contracts in n draws by an account of the largest unit."""
    weight = np.where(contracts.is_option, contracts.popularity, 0.0)
    if not weight.any():
        return np.arange(2.0)
    home = np.where(contracts.unit == np.bincount(contracts.unit, weight).argmax(), weight, 0.0)
    chance = _AT_HOME * home / home.sum() + (1.0 - _AT_HOME) * weight / weight.sum()
    return np.sum(1.0 - (1.0 - chance) ** np.arange(4.0 * LONGEST)[:, None], axis=1)


def _draws(rng: np.random.Generator, plan: Plan, contracts: Contracts, rows: Rows) -> Ints:
    """`[R]` number of draws: few for futures, skewed for options, one in an isolated pool."""
    archetype = rows.archetype
    wanted = plan.median * np.exp(_SPREAD_OF_COUNTS * rng.standard_normal(archetype.size))
    wanted = np.minimum(1.0 + np.floor(wanted), plan.longest)
    wanted = np.maximum(wanted - _HEDGES[archetype], 1.0) / np.where(_SPREADS[archetype], 2.0, 1.0)
    drawn = np.interp(wanted, plan.distinct, np.arange(plan.distinct.size)) + rng.random(archetype.size)
    options = np.maximum(np.floor(drawn), 1.0)
    num_linear = np.count_nonzero(~contracts.is_option & (contracts.popularity > 0.0))
    linear = np.clip(rng.geometric(0.7, archetype.size), 1, max(int(num_linear), 1))
    linear = np.where(rows.isolated | (archetype == BASIS), 1, linear)
    count = np.where(_OPTION[archetype], np.where(rows.isolated, 1, options), np.where(_LINEAR[archetype], linear, 0))
    return count.astype(np.int64)


def _contracts_of(rng: np.random.Generator, contracts: Contracts, archetype: Ints, home: Ints) -> Ints:
    """`[n]` one contract per draw, by popularity among the options or futures of the home unit, else of all."""
    at_home = (rng.random(archetype.size) < _AT_HOME) | (archetype == BASIS)
    uniform = rng.random(archetype.size)
    result = np.zeros(archetype.size, dtype=np.int64)
    for wanted, mask in ((contracts.is_option, _OPTION[archetype]), (~contracts.is_option, _LINEAR[archetype])):
        weight = np.where(wanted, contracts.popularity, 0.0)
        bounds = contracts.bounds[home[mask]], contracts.bounds[home[mask] + 1]
        result[mask] = _by_weight(weight, *_or_all(weight, *bounds, at_home[mask]), uniform[mask])
    return result


def _or_all(weight: Floats, low: Ints, high: Ints, keep: Bools) -> tuple[Ints, Ints]:
    """Ranges [low, high) where kept and not empty of weight, else the range of all."""
    total = np.concatenate([[0.0], np.cumsum(weight)])
    keep = keep & (total[high] > total[low])
    return np.where(keep, low, 0), np.where(keep, high, weight.size)


def _by_weight(weight: Floats, low: Ints, high: Ints, uniform: Floats) -> Ints:
    """Index in [low, high) with chance in proportion to `weight`, of which the range must have some."""
    total = np.concatenate([[0.0], np.cumsum(weight)])
    target = total[low] + uniform * (total[high] - total[low])
    target = np.minimum(target, np.nextafter(total[high], 0.0))
    found: NDArray[np.intp] = np.searchsorted(total, target, side="right") - 1
    return found.astype(np.int64)


def _hedge(rng: np.random.Generator, contracts: Contracts, contract: Ints, lots: Floats) -> tuple[Ints, Floats]:
    """The future against each option leg, of 40 to 100 % of its notional; 0 lots where there is none."""
    hedge = contracts.hedge[contract]
    against = np.where(contracts.is_call[contract], -lots, lots) * (0.4 + 0.6 * rng.random(lots.size))
    amount = against * contracts.notional[contract] / contracts.notional[hedge]
    return np.maximum(hedge, 0), np.where(hedge >= 0, np.rint(amount), 0.0)


def _spread(rng: np.random.Generator, contracts: Contracts, contract: Ints, mask: Bools) -> Ints:
    """The other leg of a vertical, or of a calendar for a third; the contract itself where there is none."""
    partner = contract.copy()
    first = contract[mask]
    weight = np.where(contracts.is_option, contracts.popularity, 0.0)
    low = np.searchsorted(contracts.expiry, contracts.expiry[first])
    high = np.searchsorted(contracts.expiry, contracts.expiry[first], side="right")
    vertical = _by_weight(weight, low, high, rng.random(first.size))
    same_type = contracts.is_call[vertical] == contracts.is_call[first]
    vertical = np.where(same_type, vertical, contracts.twin[vertical])
    later = contracts.later[first]
    calendar = (rng.random(first.size) < 0.35) & (later >= 0)
    chosen = np.where(calendar, later, vertical)
    partner[mask] = np.where(chosen >= 0, chosen, first)
    return partner


def _netted(row: Ints, contract: Ints, lots: Ints, *, num_contracts: int) -> Legs:
    """One leg per row and contract, sorted, without those that came to nothing."""
    key = row * num_contracts + contract
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    total = np.add.reduceat(lots[order], starts) if starts.size else lots[:0]
    row, contract = np.divmod(key[starts][total != 0], num_contracts)
    return Legs(row, contract, total[total != 0])
