"""The steps of a chain as tables: every account's effects, what they come to, and who crossed which line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from gpumargin.difference.figures import FIGURES, KEYS
from gpumargin.difference.side import Side
from gpumargin.errors import UsageError
from gpumargin.sums import exact_sum
from gpumargin.totals import decimal_text

EFFECTS = ("position", "time", "price", "vol", "parameter", "software")
STATUSES = ("healthy", "margin_call", "liquidatable", "bankrupt", "unknown")
ABSENT = "absent"
# The figure that decides whether an account is on the far side of the line to a status.
_LINES = {
    "margin_call": "initial_excess",
    "liquidatable": "maintenance_excess",
    "bankrupt": "equity",
    "unknown": "equity",
}
_WORDS = ("accounting_asset", "decimals", "model_before", "model", "status_before", "status")


class Step(NamedTuple):
    """A point of the chain: what led there, and `account_figures` of all accounts there."""

    effect: str
    accounts: pl.DataFrame


@dataclass(frozen=True)
class Difference:
    """What changed from one run to another.

    Attributes:
      accounts: one row for each margin account of either run that changed, ascending: account_id, pool,
        accounting_asset, decimals (of its minor unit), `model_before`, `model`, `status_before`, `status` (`absent`
        where a run does not have the account); for each of `FIGURES` int64 minor units `<figure>_before_minor`,
        `<figure>_minor`, `<figure>_change_minor`, and `<figure>_<effect>_minor` for each of `EFFECTS`, which add up to
        the change exactly. An absent account counts 0; what is not known in a run or a step is null.
      totals: sums over all accounts, changed or not, as exact decimals: accounting_asset, effect and `FIGURES`. Rows
        `before`, the effects, `after`; `software` only where there is some, and `unknown` where accounts have figures
        that are not known, which count 0 as in the totals of a run: what that leaves of the change.
      crossings: status_before, status and how many accounts went that way; all of them, also those that stayed.
    """

    accounts: pl.DataFrame
    totals: pl.DataFrame
    crossings: pl.DataFrame

    @property
    def crossed(self) -> pl.DataFrame:
        """The accounts that crossed the line to a status, in either direction, the worst of them first.

        Returns:
          account_id, pool, accounting_asset, status_before, status, `figure`: which one decides that line (the worse of
          the two, if there are several between), and in money `before`, `after`, and its effects. Absent accounts count
          as healthy ones.
        """
        rank = {status: STATUSES.index(status) if status in STATUSES else 0 for status in (*STATUSES, ABSENT)}
        ranks = [pl.col(name).replace_strict(rank, return_dtype=pl.Int64) for name in ("status_before", "status")]
        crossed = self.accounts.with_columns(rank=ranks[1], line=pl.max_horizontal(*ranks)).filter(ranks[0] != ranks[1])
        lines = dict(enumerate(STATUSES))
        figure = pl.col("line").replace_strict({n: _LINES.get(s) for n, s in lines.items()}, return_dtype=pl.String)
        money = {name: _of_figure(f"_{name}_minor" if name != "after" else "_minor") for name in _SHOWN}
        shown = crossed.select(*KEYS, "accounting_asset", "status_before", "status", "rank", figure=figure, **money)
        return shown.sort("rank", "after", *KEYS, descending=[True, False, False, False]).drop("rank")


_SHOWN = ("before", "after", *EFFECTS)


def _of_figure(suffix: str) -> pl.Expr:
    """A number of the figure whose line was crossed, in money."""
    chosen = pl.lit(None, pl.Int64)
    for line, figure in _LINES.items():
        chosen = pl.when(pl.col("line") == STATUSES.index(line)).then(pl.col(f"{figure}{suffix}")).otherwise(chosen)
    return chosen / pl.lit(10.0).pow(pl.col("decimals"))


def outcome_of(first: Side, second: Side, steps: Iterable[Step]) -> Difference:
    """What a chain of revaluations says.

    Args:
      first: where it starts.
      second: where it ends.
      steps: what was found on the way, the second run's accounts at the end; one is held at a time.

    Raises:
      UsageError: an account's money is counted in another asset, or in other minor units, after than before.
    """
    words = _both(first, second)
    figures = _effects(words, first.accounts, steps)
    everything = pl.concat([words, figures], how="horizontal")
    return Difference(
        accounts=everything.filter(_has_changed()),
        totals=pl.DataFrame([row for asset in _assets(words) for row in _totals(everything, *asset)], schema=_TOTALS),
        crossings=_crossings(words),
    )


_TOTALS = {"accounting_asset": pl.String, "effect": pl.String, **dict.fromkeys(FIGURES, pl.String)}


def _both(first: Side, second: Side) -> pl.DataFrame:
    """Accounts of either run with their models, statuses and money."""
    before, after = (side.accounts.select(*KEYS, "model", "status") for side in (first, second))
    both = before.join(after, on=KEYS, how="full", coalesce=True, suffix="_after").sort(*KEYS)
    assets = [
        pl.col(name).replace_strict({label: side.asset(label) for label in side.models}, return_dtype=pl.String)
        for name, side in (("model", first), ("model_after", second))
    ]
    both = both.with_columns(asset_before=assets[0], asset_after=assets[1])
    _require_one_unit(both, first, second)
    return both.select(
        *KEYS,
        pl.coalesce("asset_after", "asset_before").alias("accounting_asset"),
        pl.coalesce("asset_after", "asset_before")
        .replace_strict({asset: second.decimals(asset) for asset in _used(both)}, return_dtype=pl.Int64)
        .alias("decimals"),
        model_before="model",
        model="model_after",
        status_before=pl.col("status").fill_null(ABSENT),
        status=pl.col("status_after").fill_null(ABSENT),
    )


def _used(both: pl.DataFrame) -> list[str]:
    return pl.concat([both["asset_before"], both["asset_after"]]).drop_nulls().unique().to_list()


def _require_one_unit(both: pl.DataFrame, first: Side, second: Side) -> None:
    other = both.filter(pl.col("asset_before") != pl.col("asset_after"))
    if other.height:
        row = other.row(0, named=True)
        message = (
            f"{other.height:,} accounts, {row['account_id']!r} the first, count money in {row['asset_before']} in "
            f"RUN_A ({row['model']}) and in {row['asset_after']} in RUN_B ({row['model_after']}); effects add up in "
            "one asset only: run one of the books again under a model that counts in the other's, or see `compare`"
        )
        raise UsageError(message)
    for asset in sorted(_used(both)):
        digits = first.decimals(asset), second.decimals(asset)
        if digits[0] != digits[1]:
            message = (
                f"{asset} has {digits[0]} decimals in the book of RUN_A and {digits[1]} in that of RUN_B; give it the "
                "same in both assets tables and run again"
            )
            raise UsageError(message)


def _aligned(words: pl.DataFrame, accounts: pl.DataFrame) -> pl.DataFrame:
    """Figures of every account of either run, 0 where it is absent."""
    there = accounts.select(*KEYS, *FIGURES, is_there=pl.lit(value=True))
    found = words.select(KEYS).join(there, on=KEYS, how="left", maintain_order="left")
    is_absent = pl.col("is_there").is_null()
    return found.select(pl.when(is_absent).then(0).otherwise(name).alias(name) for name in FIGURES)


def _effects(words: pl.DataFrame, start: pl.DataFrame, steps: Iterable[Step]) -> pl.DataFrame:
    """Figures before and after, and the effect of every step on each."""
    before = here = _aligned(words, start)
    found: dict[str, pl.Series] = {}
    for step in steps:
        there = _aligned(words, step.accounts)
        for name in FIGURES:
            column, change = f"{name}_{step.effect}_minor", there[name] - here[name]
            found[column] = found[column] + change if column in found else change
        here = there
    zero = pl.zeros(words.height, pl.Int64, eager=True)
    columns: dict[str, pl.Series] = {}
    for name in FIGURES:
        columns[f"{name}_before_minor"], columns[f"{name}_minor"] = before[name], here[name]
        columns[f"{name}_change_minor"] = here[name] - before[name]
        columns |= {f"{name}_{effect}_minor": found.get(f"{name}_{effect}_minor", zero) for effect in EFFECTS}
    return pl.DataFrame({name: column.alias(name) for name, column in columns.items()})


def _has_changed() -> pl.Expr:
    """Whether anything of an account did, be it that effects cancel."""
    words = [pl.col(name).ne_missing(pl.col(f"{name}_before")) for name in ("model", "status")]
    figures = [pl.col(f"{name}_minor").ne_missing(pl.col(f"{name}_before_minor")) for name in FIGURES]
    effects = [pl.col(f"{name}_{effect}_minor").fill_null(0) != 0 for name in FIGURES for effect in EFFECTS]
    return pl.any_horizontal(*words, *figures, *effects)


def _assets(words: pl.DataFrame) -> list[tuple[str, int]]:
    return words.select("accounting_asset", "decimals").unique().sort("accounting_asset").rows()


def _totals(accounts: pl.DataFrame, asset: str, decimals: int) -> Iterator[dict[str, Any]]:
    """Exact sums of one accounting asset: before, by effect, after."""
    own = accounts.filter(pl.col("accounting_asset") == asset)
    sums = {name: _sums(own, name) for name in FIGURES}
    rows = ["before", *EFFECTS, "unknown", "after"]
    for row in rows:
        amounts = {name: sums[name][row] for name in FIGURES}
        if row not in {"software", "unknown"} or any(amounts.values()):
            texts = {name: decimal_text(amount, decimals) for name, amount in amounts.items()}
            yield {"accounting_asset": asset, "effect": row, **texts}


def _sums(accounts: pl.DataFrame, figure: str) -> Mapping[str, int]:
    def total(columns: pl.DataFrame, name: str) -> int:
        return exact_sum(columns[f"{figure}{name}_minor"].fill_null(0).to_numpy())

    is_known = pl.all_horizontal(pl.col(f"{figure}_{effect}_minor").is_not_null() for effect in EFFECTS)
    known = accounts.filter(is_known)
    sums = {"before": total(accounts, "_before"), "after": total(accounts, "")}
    sums |= {effect: total(known, f"_{effect}") for effect in EFFECTS}
    return sums | {"unknown": sums["after"] - sums["before"] - sum(sums[effect] for effect in EFFECTS)}


def _crossings(words: pl.DataFrame) -> pl.DataFrame:
    order = {status: place for place, status in enumerate((*STATUSES, ABSENT))}
    counts = words.group_by("status_before", "status").agg(accounts=pl.len().cast(pl.Int64))
    ranks = [pl.col(name).replace_strict(order, return_dtype=pl.Int64) for name in ("status_before", "status")]
    return counts.sort(ranks)
