"""Worked cases of scenario-grid margin: SPAN and TIMS, as books through the shipped models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from gpumargin.run import margin
from tests.reference.folders import read_cases
from tests.reference.grid_books import AS_OF, month_expiries, span_book, span_model, tims_book, tims_model

if TYPE_CHECKING:
    from gpumargin.runs import Run

pytestmark = pytest.mark.reference

HANDLED = {"risk_vectors/span.json", "risk_vectors/tims.json"}
# Component of the shipped model -> field of a case.
SPAN_FIELDS = {
    "worst": "scan_risk",
    "vol_adjusted": "vol_adjusted_scan",
    "time_risk": "time_risk",
    "net_delta": "net_delta",
    "inter_month": "inter_month_charge",
    "short_options": "short_option_minimum",
    "net_option_value": "net_option_value",
    "credit": "credit",
    "maintenance_margin": "requirement",
}


def read(name: str) -> dict[str, Any]:
    """One file; skips with its reason where it is absent."""
    content = read_cases(f"risk_vectors/{name}.json")
    if content is None:
        pytest.skip(f"no risk_vectors/{name}.json on this machine; set GPUMARGIN_REFERENCE")
    return content


def close(expected: Any) -> Any:
    return pytest.approx(expected, rel=1e-9, abs=1e-6)


def counted(run: Run, title: str) -> list[float]:
    """P&L that counts in every scenario of a component, as the explanation shows it."""
    return run.explain("case").tables[title]["counted_pnl"].to_list()  # type: ignore[no-any-return]


@pytest.mark.slow
def test_span_reproduces_every_figure_of_the_worked_case() -> None:
    content = read("span")
    inputs, expected = content["inputs"], content["expected"]
    run = margin(span_book(inputs["commodities"]), span_model(inputs), as_of=AS_OF)
    instruments = {row["instrument_id"]: row for row in run.instruments.iter_rows(named=True)}
    for unit in run.units.iter_rows(named=True):
        name = str(unit["unit"])
        wanted, given = expected["commodities"][name], inputs["commodities"][name]
        for component, field in SPAN_FIELDS.items():
            found = max(unit[component], 0.0) if component == "worst" else unit[component]
            assert found == close(wanted[field]), field
        rows = run.scenarios.filter(pl.col("unit") == name).sort("column")
        weight, ids = rows["weight"].to_list(), rows["id"].to_list()
        for i, position in enumerate(given["positions"]):
            contract = instruments[f"{name}-{i}"]
            array = [-w * pnl for w, pnl in zip(weight, contract["scenario_pnl"], strict=True)]
            assert array == close(wanted["risk_arrays"][i]), position
            assert contract["composite_delta"] == close(wanted["composite_delta"][i] * position["mult"]), position
        assert counted(run, f"{name} worst") == close([-loss for loss in wanted["scenario_losses"]])
        assert ids.index(unit["worst_scenario"]) == wanted["active_scenario"] - 1
        assert_by_month(run, name, given, wanted)
    assert run.accounts["maintenance_margin"].item() == close(expected["total"])


def assert_by_month(run: Run, name: str, given: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Net delta of every contract month, and how many spreads its opposite sides form."""
    shown = run.explain("case").tables[f"{name} inter_month"]
    labels = {f"{expiry:%Y-%m-%d %H:%M}": month for month, expiry in month_expiries(given).items()}
    found = {labels[row["expiry"]]: row["delta"] for row in shown.iter_rows(named=True) if row["expiry"] in labels}
    unit = given["delta_unit"]
    assert {month: delta / unit for month, delta in found.items()} == close(wanted["net_delta_by_month"])
    spreads = run.units.filter(pl.col("unit") == name)["inter_month"].item() / given["intermonth_rate"]
    assert spreads == close(wanted["inter_month_spreads"])


@pytest.mark.slow
def test_span_forms_the_spreads_of_the_worked_case() -> None:
    content = read("span")
    inputs, expected = content["inputs"], content["expected"]
    tables = margin(span_book(inputs["commodities"]), span_model(inputs), as_of=AS_OF).explain("case").tables
    for i, pair in enumerate(inputs["intercommodity"]):
        for leg in pair["legs"]:
            lines = tables[f"{leg['name']} credit"].filter(pl.col("spread") == i + 1)
            assert lines["spreads"].item() == close(expected["intercommodity_spreads"][i])
            risk = expected["commodities"][leg["name"]]["weighted_price_risk"]
            assert lines["risk_per_delta"].item() == close(risk)


def test_tims_reproduces_every_figure_of_the_worked_case() -> None:
    content = read("tims")
    inputs, expected = content["inputs"], content["expected"]
    run = margin(tims_book(inputs), tims_model(inputs), as_of=AS_OF)
    unit = run.units.row(0, named=True)
    points = run.scenarios.sort("column")["spot_move"].to_list()
    assert points == close(expected["points"])
    assert counted(run, "X class_loss") == close(expected["pnl"])
    assert -unit["class_loss"] == close(expected["worst"])
    assert unit["minimum"] == close(expected["minimum"])
    assert run.accounts["maintenance_margin"].item() == close(expected["requirement"])
