"""The change from one run to another, split by a chain of revaluations: each step takes one group of inputs over.

The order is part of the definition: positions first, then time, prices, vols, and last the parameters of the models.
What two groups do together (a new position in a market that moved) goes to the later of the two; another order would
give other effects with the same sum. Positions come first because only then every step has a meaning: what the second
run holds, the second run can price, and most of it the first could too, whereas what has expired since has no price any
more.

A step is a margin of the whole book, and its effect the change of an account's published minor units: effects add up to
the whole change exactly. A group that did not change costs nothing and has no effect; the last one that did ends in the
second run as it was published.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from gpumargin.catalogue import MarginModel
from gpumargin.device import DeviceChoice, choose_devices
from gpumargin.difference.figures import KEYS
from gpumargin.difference.markets import Markets
from gpumargin.difference.outcome import Difference, Step, outcome_of
from gpumargin.difference.revaluation import Hybrid, revalued
from gpumargin.difference.side import Side, open_side
from gpumargin.engine import DEFAULT_MEMORY_BUDGET, Settings
from gpumargin.errors import UsageError
from gpumargin.identity import versions
from gpumargin.runs import Run
from gpumargin.tables import CUT_TABLES

_GROUPS = ("position", "time", "price", "vol", "parameter")
_WORDS = {
    "position": "what RUN_B holds in the market of RUN_A",
    "time": "what RUN_B holds at its time, in the market of RUN_A",
    "price": "what RUN_B holds at its time and prices, with the vols of RUN_A",
    "vol": "the book of RUN_B under the models of RUN_A",
    "parameter": "the book of RUN_B",
}


def diff(
    run_a: Run | Path | str,
    run_b: Run | Path | str,
    *,
    device: DeviceChoice = "auto",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Difference:
    """Who crossed a line between two runs, and what moved every account.

    Args:
      run_a: the run that is left: in memory, or the path of a run folder, of a folder of runs or of its `latest`.
      run_b: the run that is reached, of the same instant or later.
      device: as for `margin`.
      memory_budget: bytes that parts in flight may take.

    Returns:
      `Difference`. Positions, balances, orders, settings, terms of contracts and pool totals make the effect
      `position`; the instant of valuation `time`; prices, forwards, rates and marks `price`; vols and SVI parameters
      `vol`; models and their numbers `parameter`; other versions, precision or platform `software`.

    Raises:
      UsageError: no such run, or the second is older; a book is not there; an account changes the asset in which its
        money is counted. InputError: GM119, a table that is needed is not what the run read; or the models of the first
        cannot margin what the second holds. InternalError: GM202, a run folder is not as it was published.
    """
    first, second = open_side(run_a, "RUN_A"), open_side(run_b, "RUN_B")
    if second.as_of < first.as_of:
        message = f"RUN_B is of {second.as_of.isoformat()}, before RUN_A at {first.as_of.isoformat()}; swap them"
        raise UsageError(message)
    settings = Settings(device, second.manifest["dtype"], memory_budget)
    return outcome_of(first, second, _Chain(first, second, settings).steps())


@dataclass
class _Chain:
    first: Side
    second: Side
    settings: Settings

    def steps(self) -> Iterator[Step]:
        """From the first run as published to the second as published."""
        changed = self._changed()
        taken = {group for group in _GROUPS if group not in changed}
        is_foreign = self._is_foreign()
        if is_foreign and changed:
            yield Step("software", revalued(self._unchanged(), self.settings))
        for group in changed:
            taken.add(group)
            if is_foreign or group != changed[-1]:
                yield Step(group, revalued(self._hybrid(group, taken), self.settings))
        ending = "software" if is_foreign or not changed else changed[-1]
        yield Step(ending, self.second.accounts)

    def _is_foreign(self) -> bool:
        """Whether numbers of this process are not comparable to those of either run bit by bit."""
        platform = choose_devices(self.settings.device)[0].platform
        here = {"versions": versions(), "dtype": self.settings.dtype, "platform": platform}
        return not self.first.software == self.second.software == here

    @cached_property
    def _markets(self) -> Markets:
        return Markets(self.first, self.second)

    def _changed(self) -> list[str]:
        moved = self._markets.moved()
        if any(self.first.sha256(name) != self.second.sha256(name) for name in (*CUT_TABLES, "instruments")):
            moved.add("position")
        used = self._labels_before["model"].unique().to_list()
        labels = self._labels_before.join(self.second.accounts, on=[*KEYS, "model"], how="anti")
        if labels.height or any(self._models_before[x].file != self.second.models[x].file for x in used):
            moved.add("parameter")
        return [group for group in _GROUPS if group in moved]

    @cached_property
    def _models_before(self) -> Mapping[str, MarginModel]:
        """Models until their parameters change; the first run has nothing to say of models that it did not use."""
        return {**self.second.models, **self.first.models}

    @cached_property
    def _labels_before(self) -> pl.DataFrame:
        """The second run's accounts with the models that they had in the first; new ones have what they have now."""
        now = self.second.accounts.select(*KEYS, now="model")
        joined = now.join(self.first.accounts.select(*KEYS, "model"), on=KEYS, how="left", maintain_order="left")
        return joined.select(*KEYS, pl.coalesce("model", "now").alias("model"))

    def _hybrid(self, group: str, taken: Collection[str]) -> Hybrid:
        is_new = "parameter" in taken
        return Hybrid(
            side=self.second,
            market=self._markets.tables(taken),
            as_of=self._markets.as_of(taken),
            models=self.second.models if is_new else self._models_before,
            labels=self.second.accounts.select(*KEYS, "model") if is_new else self._labels_before,
            words=_WORDS[group],
        )

    def _unchanged(self) -> Hybrid:
        first = self.first
        labels = first.accounts.select(*KEYS, "model")
        return Hybrid(first, first.market.tables, first.as_of, first.models, labels, "the book of RUN_A")
