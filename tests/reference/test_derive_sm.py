"""Derive's own figures of its standard margin."""

from __future__ import annotations

from typing import Any

import pytest

from tests.reference.sm_books import as_market, results_of
from tests.reference.test_derive import assert_figures, cases

pytestmark = pytest.mark.reference


@pytest.mark.parametrize(("case", "params"), cases("sm_scenario_cases", "sm_portfolio_cases", "sm_unit_cases"))
def test_standard_margin_reproduces_the_published_figures(case: dict[str, Any], params: dict[str, Any]) -> None:
    assert_figures(results_of(case, params), case["expected"])


@pytest.mark.parametrize(("case", "params"), cases("sm_chain_cases"))
def test_single_options_reproduce_the_figures_of_the_chain(case: dict[str, Any], params: dict[str, Any]) -> None:
    assert_figures(results_of(as_market(case), params), case["expected"])
