"""The oracle of standard margin reproduces Derive's reference cases."""

import math
from typing import Any

import pytest

from tests.oracle.book import Row
from tests.oracle.cases import AS_OF_SECONDS, reference_cases
from tests.oracle.sm import Params, margin_book
from tests.reference.sm_books import as_market, tables_of

CASES = ("sm_scenario_cases.json", "sm_portfolio_cases.json", "sm_unit_cases.json")
QUIET = {
    "perp": ("mm", "im"),
    "oracle": ("perp_threshold", "option_threshold", "base_threshold", "factor"),
    "depeg": ("threshold", "factor"),
    "base": ("margin_factor", "im_scale"),
}


def margined(case: dict[str, Any]) -> Row:
    """The only account of a case; numbers that it does not name are 0."""
    given: dict[str, dict[str, float]] = {group: dict.fromkeys(names, 0.0) for group, names in QUIET.items()}
    given |= case["params"]
    params: Params = {group: {k: {"default": v} for k, v in numbers.items()} for group, numbers in given.items()}
    tables = {name: frame.to_dicts() for name, frame in tables_of(case).items()}
    return margin_book(tables, params, as_of_seconds=AS_OF_SECONDS)["accounts"][0]


@pytest.mark.parametrize("case", reference_cases(*CASES))
def test_standard_margin_equals_reference_case(case: dict[str, Any]) -> None:
    account, expected = margined(case), case["expected"]
    columns = {
        "initial_margin": "initial_excess",
        "maintenance_margin": "maintenance_excess",
        "mark_to_market": "equity",
    }
    found = {name: account[column] for name, column in columns.items() if name in expected}
    found |= {
        f"{name}_truncated": math.trunc(round(account[column], 8))
        for name, column in columns.items()
        if f"{name}_truncated" in expected
    }
    assert found == pytest.approx(expected, rel=1e-13, abs=1e-9)


@pytest.mark.parametrize("case", reference_cases("sm_chain_cases.json"))
def test_standard_margin_of_one_option_equals_the_chain(case: dict[str, Any]) -> None:
    account, expected = margined(as_market(case) | {"params": case["params"]}), case["expected"]
    found = {
        "isolated_initial_margin": account["initial_excess"],
        "isolated_maintenance_margin": account["maintenance_excess"],
        "mark_to_market": account["equity"],
    }
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-9)
