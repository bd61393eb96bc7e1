"""How large a default fund must be: the losses beyond margin of the two groups that lose most in one scenario."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpumargin.pack.columns import Floats, Ints


class DefaultFund(NamedTuple):
    """Size of a default fund and who pays what into it.

    Attributes:
      uncovered: `[S, G]` losses beyond margin by scenario and group.
      cover1: `[S]` the largest of a scenario.
      cover2: `[S]` the two largest together.
      worst: scenario with the greatest `cover2`.
      fund: that sum and the buffer.
      contribution: `[N]` share of the fund by margin.
    """

    uncovered: Floats
    cover1: Floats
    cover2: Floats
    worst: int
    fund: float
    contribution: Floats


def two_largest(by_group: np.ndarray) -> np.ndarray:
    """The largest number of every row, and the largest two together, `[S, 2]`."""
    ordered = np.sort(by_group, axis=-1)[..., ::-1]
    return np.stack([ordered[..., :1].sum(axis=-1), ordered[..., :2].sum(axis=-1)], axis=-1)


def default_fund(losses: Floats, margin: Floats, group: Ints, buffer: float) -> DefaultFund:
    """Cover 2: affiliates count as one, and scenarios are never mixed.

    Args:
      losses: `[S, N]` loss of each member in each scenario, positive = loss.
      margin: `[N]` what each has posted, same money, positive.
      group: `[N]` group of each, 0 to G - 1; accounts of one owner share one.
      buffer: share of the sum that is added, 0.1 for 10 %.

    Returns:
      `DefaultFund`, in the money of `losses`.

    Source: CPMI-IOSCO, Principles for financial market infrastructures (2012), principle 4.
    """
    by_group = np.zeros((int(group.max()) + 1, len(losses)))
    np.add.at(by_group, group, np.maximum(losses - margin, 0.0).T)
    uncovered: Floats = by_group.T
    cover = two_largest(uncovered)
    worst = int(np.argmax(cover[:, 1]))
    fund = float(cover[worst, 1]) * (1 + buffer)
    return DefaultFund(uncovered, cover[:, 0], cover[:, 1], worst, fund, fund * margin / margin.sum())
