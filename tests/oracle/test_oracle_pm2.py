"""The oracle of PM2 reproduces every figure of the reference cases."""

from typing import Any

import pytest

from tests.oracle.pm2 import margin_case
from tests.reference.folders import read_cases

FILES = ("pmrm2_cases.json", "pmrm2_chain_cases.json")


def pm2_cases() -> list[Any]:
    """Every case with its scenarios; one that skips where the files are absent."""
    found = [
        pytest.param(case, content["scenario_sets"][case["params"]["scenario_set"]], id=case["id"])
        for name in FILES
        if (content := read_cases(f"derive_vectors/{name}")) is not None
        for case in content["cases"]
    ]
    skip = pytest.mark.skip(reason="no PM2 cases on this machine; set GPUMARGIN_REFERENCE")
    return found or [pytest.param(None, None, marks=skip, id="absent")]


@pytest.mark.reference
@pytest.mark.parametrize(("case", "scenarios"), pm2_cases())
def test_pm2_figures_equal_the_reference_case(case: dict[str, Any], scenarios: list[dict[str, Any]]) -> None:
    found = margin_case(case, scenarios)
    for name in set(case["expected"]) & set(found):
        assert found[name] == pytest.approx(case["expected"][name], rel=1e-11, abs=1e-8), name
