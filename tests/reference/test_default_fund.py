"""Default funds: the worked example of cover 2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpumargin.solvency.default_fund import default_fund
from tests.reference.test_commitment import cases

pytestmark = pytest.mark.reference

HANDLED = {"risk_vectors/cover2.json"}


@pytest.mark.parametrize("case", cases("risk_vectors/cover2.json"))
def test_a_default_fund_covers_the_two_groups_that_lose_most_in_one_scenario(case: dict[str, Any]) -> None:
    given, expected = case["inputs"], case["expected"]
    names = sorted(set(given["group"]))
    group = np.array([names.index(name) for name in given["group"]])
    found = default_fund(np.array(given["stress_loss"]), np.array(given["margin"]), group, given["buffer"])
    for scenario, row in enumerate(expected["scenarios"]):
        assert found.uncovered[scenario].tolist() == pytest.approx([row["uncovered"][name] for name in names])
        assert found.cover1[scenario] == pytest.approx(row["cover1"], rel=1e-10)
        assert found.cover2[scenario] == pytest.approx(row["cover2"], rel=1e-10)
    assert found.worst == expected["worst_scenario"]
    assert found.fund == pytest.approx(expected["fund"], rel=1e-10)
    assert max(found.cover1) == pytest.approx(expected["cover1"], rel=1e-10)
    assert max(found.cover2) == pytest.approx(expected["cover2"], rel=1e-10)
    assert found.contribution.tolist() == pytest.approx(expected["contribution"], rel=1e-10)
