"""Figures that venues publish of their portfolio margins, reproduced by the shipped models with the cases' values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from gpumargin.formulas import formula_value
from gpumargin.runs import Run
from tests.reference.folders import read_cases
from tests.reference.pm_books import (
    bybit_run,
    counted,
    deribit_run,
    figures,
    instrument_of,
    kind_of,
    okx_model,
    okx_run,
)

pytestmark = pytest.mark.reference

Inputs = Mapping[str, Any]
Form = Callable[[Inputs, Inputs], dict[str, Any]]
NINE_DECIMALS = {"initial_margin": 1e-9}  # rounded by the publisher, whatever the file's tolerance


def _position_pnl(run: Run, instrument: str, quantity: float) -> dict[str, list[float]]:
    """Weighted P&L of a position by scenario set."""
    of_one = run.instruments.filter(run.instruments["instrument_id"] == instrument)["scenario_pnl"].item().to_list()
    rows = run.scenarios.sort("column").iter_rows(named=True)
    found: dict[str, list[float]] = {}
    for row, pnl in zip(rows, of_one, strict=True):
        found.setdefault(str(row["set"]), []).append(quantity * row["weight"] * pnl)
    return found


def _each_move(of_entries: list[float], states: int) -> list[float]:
    """One figure for each move, the least of its vol states: of linear positions all are the same."""
    return [min(of_entries[i : i + states]) for i in range(0, len(of_entries), states)]


def _deribit_positions(run: Run, given: Inputs) -> Iterator[tuple[str, list[float]]]:
    quantities = dict(run.book.frame("positions").select("instrument_id", "quantity").iter_rows())
    for i, position in enumerate(given["positions"]):
        name = instrument_of(position, i)
        pnl = _position_pnl(run, name, float(quantities[name]))
        short = {"perpetual": "perp"}.get(kind_of(position), kind_of(position))
        for word in dict.fromkeys((name, short, str(position["type"]))):
            yield f"{word}_standard", pnl["standard"]
            yield f"{word}_extended", pnl["extended"]


def deribit(given: Inputs, config: Inputs) -> dict[str, Any]:
    run = deribit_run(given, config)
    found = figures(run)
    moves = run.scenarios.filter(run.scenarios["set"].cast(str) == "standard").sort("column")["spot_move"].to_list()
    found |= dict(_deribit_positions(run, given))
    found["aggregated_standard_after_gain_offset"] = counted(run, "standard")
    found["aggregated_extended_after_dampener"] = counted(run, "extended")
    found["standard_moves_pct"] = [100 * move for move in moves]
    ids = run.scenarios.sort("column")["id"].cast(str).to_list()
    found["worst_case"] = max(found["worst"], 0.0)
    found["worst_case_bucket"] = ids.index(found["worst_scenario"]) // 3 + 1
    found["risk_matrix_margin"] = found["risk_matrix"]
    accounts = run.accounts.row(0, named=True)
    return found | {name: accounts[name] for name in ("initial_margin", "maintenance_margin")}


def okx_unit(given: Inputs, config: Inputs) -> dict[str, Any]:
    del config
    run = okx_run(given)
    found, account = figures(run), run.accounts.row(0, named=True)
    rows = run.scenarios.sort("column").iter_rows(named=True)
    pnl = counted(run, "mr1")
    by_move: dict[str, list[float]] = {}
    for row, own in zip(rows, pnl, strict=False):
        by_move.setdefault(f"{row['spot_move']:.10g}", []).append(own)
    return found | {
        "delta_usd": account["delta"],
        "mr1_grid": {move: min(values) for move, values in by_move.items()},
        "mmr": account["maintenance_margin"],
        "imr": account["initial_margin"],
        "upl_usd": account["unrealised_pnl"],
    }


def okx_tiers(given: Inputs, config: Inputs) -> dict[str, Any]:
    del config
    model = okx_model(given)
    adjusted = formula_value(model, "components.mr7.amount", {"mr7_raw": given["mr7_raw"]})
    parts = {"market_risk": given["mr"], "mr3": 0, "mr4": 0, "mr5": 0, "mr7": adjusted}
    return {"mr7_adjusted": adjusted, "mmr": formula_value(model, "margin.maintenance", parts)}


def bybit(given: Inputs, config: Inputs) -> dict[str, Any]:
    del config
    account = bybit_run(given).accounts.row(0, named=True)
    return {"mm": account["maintenance_margin"], "im": account["initial_margin"]}


# File -> form -> the keys that tell it from the others (or `kind`), and what answers it.
FORMS: dict[str, dict[str, tuple[set[str], Form]]] = {
    "deribit_pm_btc": {"ledger": ({"positions", "index"}, deribit)},
    "okx_pm_unit_btc": {
        "risk_unit": ({"positions", "index"}, okx_unit),
        "reduction_cost": ({"mr", "mr7_raw"}, okx_tiers),
    },
    "bybit_short_put": {"option": ({"strike", "im_max_factor"}, bybit)},
}
FAST = ("bybit_short_put",)
HANDLED = {f"exchange_vectors/{name}.json" for name in FORMS}


def form_of(name: str, given: Inputs) -> str:
    """Name of a case's form: its `kind`, or the first form whose keys it has."""
    if "kind" in given:
        return str(given["kind"])
    found = (form for form, (wanted, _) in FORMS[name].items() if wanted <= set(given))
    return next(found, f"keys {sorted(given)}")


def cases() -> list[Any]:
    """Every case with its file's name, configuration and tolerance; one that skips where there are none."""
    found = []
    for name in FORMS:
        content = read_cases(f"exchange_vectors/{name}.json") or {"cases": []}
        config, tolerance = content.get("config", {}), content.get("tolerance", {})
        marks = [] if name in FAST else pytest.mark.slow
        found += [
            pytest.param(name, case, config, tolerance, id=f"{name}-{case['id']}", marks=marks)
            for case in content["cases"]
        ]
    reason = "no reference cases on this machine; set GPUMARGIN_REFERENCE"
    return found or [pytest.param("", {}, {}, {}, marks=pytest.mark.skip(reason=reason), id="absent")]


def assert_figure(name: str, found: Any, expected: Any, tolerance: Mapping[str, float]) -> None:
    """Equal as the file says; lists and tables entry by entry."""
    if isinstance(expected, Mapping):
        for key, value in expected.items():
            assert f"{float(key):.10g}" in found, f"{name}: no {key}"
            assert_figure(f"{name}[{key}]", found[f"{float(key):.10g}"], value, tolerance)
    elif isinstance(expected, list):
        entries = found if len(found) == len(expected) else _each_move(found, len(found) // len(expected))
        assert len(entries) == len(expected), name
        for i, (one, other) in enumerate(zip(entries, expected, strict=True)):
            assert_figure(f"{name}[{i}]", one, other, tolerance)
    else:
        room = max(tolerance.get("abs", 0), NINE_DECIMALS.get(name, 0) if "rel" not in tolerance else 0)
        assert found == pytest.approx(expected, rel=tolerance.get("rel", 0), abs=room), name


@pytest.mark.parametrize(("name", "case", "config", "tolerance"), cases())
def test_published_portfolio_margins_are_reproduced(
    name: str, case: dict[str, Any], config: Inputs, tolerance: Mapping[str, float]
) -> None:
    form = form_of(name, case["inputs"])
    assert form in FORMS[name], f"nothing handles {form!r} of {name}"
    found = FORMS[name][form][1](case["inputs"], config | case["inputs"].get("config", {}))
    for figure, expected in case["expected"].items():
        assert figure in found, f"no field answers {figure!r}"
        assert_figure(figure, found[figure], expected, tolerance)
