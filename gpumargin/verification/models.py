"""Models that a run names: as they ship, and the scenarios that follow from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from gpumargin import __version__
from gpumargin.catalogue import load_model, model_dates
from gpumargin.errors import UsageError
from gpumargin.evaluate import number_of
from gpumargin.modelfile import DEFAULT, ModelFile
from gpumargin.modelfile.scenarios import ScenarioRow
from gpumargin.publish import json_text
from gpumargin.verification.findings import Finding, Ledger
from gpumargin.verification.run_tables import RunTables

_MANIFEST = "manifest.json"


def read_models(manifest: dict[str, Any], findings: list[Finding]) -> dict[str, ModelFile]:
    """Models of a manifest by label; one that is no model joins `findings`."""
    found = {}
    for label, raw in manifest["models"].items():
        try:
            found[label] = ModelFile.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, ("models", label, *first["loc"])))
            findings.append(Finding(place, first.get("input"), first["msg"], _MANIFEST))
    return found


def check_models(ledger: Ledger, run: RunTables) -> None:
    """Models under the names of built-in ones are those, but for the overrides that the manifest states."""
    built_in = {f"{name}@{day}" for name, days in model_dates().items() for day in days}
    made_by = run.manifest["versions"]["gpumargin"]
    named = [label for label in run.models if label in built_in]
    findings = [finding for label, file in run.models.items() for finding in _named_otherwise(label, file)]
    others = sorted(set(run.models) - set(named))
    if made_by != __version__:
        ledger.skip("models", f"made by gpumargin {made_by}, this is {__version__}: its model files may differ")
    elif others and not named and not findings:
        ledger.skip("models", f"{', '.join(others)}: not built in, nothing to compare with")
    else:
        findings += [finding for label in named for finding in _unlike_built_in(run, label)]
        ledger.add("models", f"{', '.join(named)} as built in, overrides applied", len(named), findings)


def _named_otherwise(label: str, file: ModelFile) -> list[Finding]:
    own = f"{file.name}@{file.effective.isoformat()}"
    return [] if own == label else [Finding(f"models.{label}", label, own, _MANIFEST)]


def _unlike_built_in(run: RunTables, label: str) -> list[Finding]:
    overrides = run.manifest.get("overrides", {}).get(label, {})
    try:
        model = load_model(label).replace(overrides) if overrides else load_model(label)
    except UsageError as error:
        return [Finding(f"overrides.{label}", overrides, str(error), _MANIFEST)]
    expected = json.loads(json_text(model.raw))
    return list(_differences(f"models.{label}", run.manifest["models"][label], expected))


def _differences(path: str, stored: Any, made: Any) -> Iterator[Finding]:
    if isinstance(stored, dict) and isinstance(made, dict):
        for key in [*made, *(key for key in stored if key not in made)]:
            yield from _differences(f"{path}.{key}", stored.get(key), made.get(key))
    elif stored != made:
        yield Finding(path, stored, made, _MANIFEST)


def check_scenarios(ledger: Ledger, run: RunTables) -> None:
    """The scenarios table says what the model files say: set, moves, rules of vol and weights, unit by unit."""
    findings: list[Finding] = []
    rows = 0
    for label, file in run.models.items():
        table = run.of_model("scenarios", label)
        listed = [(name, row) for name, members in file.scenarios.items() for row in members]
        rows += table.height
        findings += _count_findings(run, label, table, len(listed))
        if findings or not listed:
            continue
        for index, own in enumerate(table.iter_rows(named=True)):
            name, row = listed[own["column"]]
            for column, made in _scenario(file, name, row, str(own["unit"])).items():
                if not _alike(own[column], made):
                    findings.append(Finding(column, own[column], made, "scenarios", index))
    ledger.add("scenarios", "scenarios tables against the model files", rows, findings)


def _alike(stored: Any, made: Any) -> bool:
    return bool(np.isclose(stored, made, rtol=1e-12, atol=1e-15) if isinstance(made, float) else stored == made)


def _count_findings(run: RunTables, label: str, table: pl.DataFrame, scenarios: int) -> list[Finding]:
    """Every unit of the contracts has every scenario once."""
    units = run.of_model("instruments", label)["unit"].cast(pl.String).unique().to_list() if scenarios else []
    expected = {(column, unit) for column in range(scenarios) for unit in units}
    found = list(table.select("column", pl.col("unit").cast(pl.String)).iter_rows()) if scenarios else []
    known = {pair for pair in found if pair[1] in units}
    if len(set(found)) == len(found) and known == expected:
        return []
    return [Finding("column, unit", f"{len(found)} rows", f"{scenarios} for each of {len(units)} units", "scenarios")]


def _scenario(file: ModelFile, name: str, row: ScenarioRow, unit: str) -> dict[str, Any]:
    """One scenario of one unit as the file says it."""

    def of(values: dict[str, float]) -> float:
        return values.get(unit, values[DEFAULT])

    reach = of(file.scenario_range) if DEFAULT in file.scenario_range else 0.0
    move = of(row.spot) - 1 if row.spot is not None else (1 + (row.move or 0.0) * reach) - 1
    expression = row.weight_expression(file.parameters)
    if expression is None:
        weight = of(row.weight)  # type: ignore[arg-type]
    else:
        numbers = {key: of(values) for key, values in file.parameters.items()}
        weight = number_of(expression, numbers | {"move": move, "range": reach})  # type: ignore[arg-type]
    return {"set": name, "spot_move": float(move), "vol_rule": row.vol, "weight": float(weight), "dampening": 1.0}
