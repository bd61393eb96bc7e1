"""A margin model as the kernels see it: choices that shape the program, and numbers that flow through it."""

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax

from gpumargin_kernels.expression import Expression
from gpumargin_kernels.leaf import Leaf
from gpumargin_kernels.spread_credit import SpreadTable


class ScenarioSet(NamedTuple):
    """A named run of scenario columns, `start` included, `stop` not."""

    name: str
    start: int
    stop: int


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("tables", "numbers"),
    meta_fields=("kind", "choices", "scenario_inputs", "sums", "margins"),
)
@dataclass(frozen=True)
class Aggregation:
    """How the units of an account become its requirement: see `aggregation.KINDS`."""

    kind: str = "sum"
    choices: tuple[tuple[str, str], ...] = ()  # input of the kind -> component that feeds it
    scenario_inputs: tuple[str, ...] = ()  # components whose P&L by scenario the kind reads
    sums: tuple[str, ...] = ()  # components whose sums over units `margins` names
    margins: tuple[tuple[str, Expression], ...] = ()  # requirement of the account by margin type, where stated
    tables: dict[str, Leaf] = field(default_factory=dict)  # by unit, bucket or group
    numbers: dict[str, Leaf] = field(default_factory=dict)  # [] each, named in `margins` or read by the kind

    def choice(self, key: str) -> str:
        """The component that feeds the input `key`."""
        return dict(self.choices)[key]


class Component(NamedTuple):
    """One named part of a requirement: which kind of formula, with which static choices."""

    name: str
    kind: str
    choices: tuple[tuple[str, object], ...] = ()

    def choice(self, key: str) -> object:
        """The static choice called `key`."""
        return dict(self.choices)[key]


class VolShock(NamedTuple):
    """Multiplicative vol shocks whose size depends on the time to expiry; every field `[U]`.

    multiplier up = 1 + up g, down = max(0, 1 - down g), with g = (pivot_years / max(years, floor_years)) ** power, and
    the short power up to the pivot, the long one beyond.
    """

    up: Leaf
    down: Leaf
    short_power: Leaf
    long_power: Leaf
    pivot_years: Leaf
    floor_years: Leaf


class ScenarioRules(NamedTuple):
    """How scenarios work, beyond their numbers; the defaults add nothing to the program."""

    is_additive: bool = False  # vol shocks in points instead of shares of the vol
    is_parallel: bool = False  # forwards and marks of all expiries move by what the index gains
    is_index_based: bool = False  # linear contracts move by the index times the move, not by their own mark
    is_coin_pnl: bool = False  # P&L of coin-settled contracts counted in coins at the unshocked price
    is_discounted: bool = False  # options are worth their Black-76 value times exp(-max(rate, 0) years)
    skew: tuple[int, ...] = ()  # columns that turn the smile


PLAIN_RULES = ScenarioRules()


class DeltaPoints(NamedTuple):
    """Where prices may stand when the composite delta is taken."""

    spot: Leaf  # [U, P] level that multiplies spot, 1 = unmoved
    weight: Leaf  # [P]
    years_ahead: Leaf  # []


class BalanceRule(NamedTuple):
    """Value of one balance that counts, accounting unit: of a positive one, and of a negative one (signed).

    `owed` is required for any balance beside what counts of it; None = nothing.
    """

    asset: Expression
    liability: Expression
    owed: Expression | None = None


class BalanceCharge(NamedTuple):
    """A sum over the balances of an account: expressions of each balance, and one of their sums."""

    name: str
    each: tuple[tuple[str, Expression], ...]
    amount: Expression


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("numbers", "charge_numbers", "scalars"),
    meta_fields=("rules", "is_debt_required", "charges", "counted", "settles", "margins", "statuses", "summed"),
)
@dataclass(frozen=True)
class AccountModel:
    """What a model says of whole accounts. Names in its expressions: `collateral.py` and `account.py`."""

    rules: tuple[tuple[str, BalanceRule], ...]  # by margin type
    is_debt_required: bool  # liabilities are part of the requirement instead of the balance
    charges: tuple[BalanceCharge, ...]
    counted: tuple[tuple[str, Expression], ...]  # by margin type, what counts of a unit; absent = P&L + option value
    settles: bool  # what counts of a unit joins the balance of its settlement asset before the rules apply
    margins: tuple[tuple[str, Expression], ...]  # by margin type, in evaluation order; absent = units + debt
    statuses: tuple[tuple[str, Expression], ...]  # positive = the status holds; absent = see `account_health`
    numbers: dict[str, dict[str, Leaf]]  # margin type -> number [E C] or brackets [E C, T, 2], E categories
    charge_numbers: dict[str, dict[str, Leaf]]  # charge -> number [C] or brackets [C, T, 2]
    scalars: dict[str, Leaf]  # [] each, named in `margins`, `statuses` and the amounts of charges
    summed: tuple[str, ...] = ()  # charges with one sum that rules name: summed over an account's balances before them


@partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        "spot",
        "vol_direction",
        "weight",
        "vol_shock",
        "scenario_numbers",
        "parameters",
        "numbers",
        "aggregation",
        "spreads",
        "delta_points",
        "account",
    ),
    meta_fields=("scenario_sets", "components", "margins", "rules"),
)
@dataclass(frozen=True)
class Model:
    """Choices are static; numbers are leaves, so that a recalibration never recompiles."""

    scenario_sets: tuple[ScenarioSet, ...]
    components: tuple[Component, ...]
    margins: tuple[tuple[str, Expression], ...]  # margin type -> requirement of one unit, in evaluation order
    spot: Leaf  # [U, S] level that multiplies the variable part of the forward, 1 = unmoved
    vol_direction: Leaf  # [S] int32: 1 up, 0 none, -1 down, 2 linear skew, 3 absolute skew
    weight: Leaf  # [U, S] share of the scenario's P&L that counts
    vol_shock: VolShock
    parameters: dict[str, Leaf]  # [U] each, named in the expressions
    numbers: dict[str, dict[str, Leaf]]  # component -> number -> [U]
    account: AccountModel
    aggregation: Aggregation = field(default_factory=Aggregation)
    spreads: dict[str, SpreadTable] = field(default_factory=dict)  # by component
    delta_points: DeltaPoints | None = None  # None = the model names no composite delta
    rules: ScenarioRules = PLAIN_RULES
    # Only those that the file names: min_up, max_up [U]; vol_factor, vol_shift [U, S]; years_ahead [S];
    # linear_cap, linear_slope, abs_cap, abs_slope, min_k_star, width, vol_static, vol_slope [U].
    scenario_numbers: dict[str, Leaf] = field(default_factory=dict)

    def columns(self, scenario_set: object) -> slice:
        """The columns of the scenario set of that name."""
        return next(slice(s.start, s.stop) for s in self.scenario_sets if s.name == scenario_set)

    def columns_total(self) -> int:
        """Number of scenario columns, all sets together."""
        return max((s.stop for s in self.scenario_sets), default=0)
