"""A bound model as a JSON file, for machines that cannot read model files: these need pydantic, the engine does not.

`python benchmarks/frozen.py` writes `derive_pm1.json` anew; a test holds it to what the model file binds to.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]

import numpy as np

from gpumargin_kernels import charge, model

FILE = Path(__file__).with_name("derive_pm1.json")
NAME, UNITS, ASSETS = "derive-pm1@2025-02-01", ("BTC", "ETH"), ("BTC", "ETH", "USDC")
_RECORDS = {
    record.__name__: record
    for record in (
        model.Model, model.ScenarioSet, model.Component, model.VolShock, model.ScenarioRules, model.AccountModel,
        model.BalanceRule, model.BalanceCharge, model.Aggregation, charge.ChargeChoices, charge.Summed,
    )
}  # fmt: skip


def _fields(record: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(record):
        return tuple(field.name for field in dataclasses.fields(record))
    return tuple(record._fields)


def plain(value: Any) -> Any:
    """A record, tuple, dictionary, array or scalar in words that JSON has.

    Raises:
      TypeError: something else.
    """
    name = type(value).__name__
    if name in _RECORDS:
        return {"record": name, "fields": {field: plain(getattr(value, field)) for field in _fields(value)}}
    if isinstance(value, tuple):
        return {"tuple": [plain(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": {key: plain(item) for key, item in value.items()}}
    if isinstance(value, np.ndarray):
        return {"array": value.ravel().tolist(), "dtype": str(value.dtype), "shape": list(value.shape)}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    message = f"expected a record of a model, found {name}"
    raise TypeError(message)


def record(value: Any) -> Any:
    """What `plain` was given."""
    if not isinstance(value, dict):
        return value
    if "record" in value:
        return _RECORDS[value["record"]](**{field: record(item) for field, item in value["fields"].items()})
    if "tuple" in value:
        return tuple(record(item) for item in value["tuple"])
    if "array" in value:
        return np.array(value["array"], value["dtype"]).reshape(value["shape"])
    return {key: record(item) for key, item in value["dict"].items()}


def load() -> model.Model:
    """The model of the file."""
    found: model.Model = record(json.loads(FILE.read_text("utf-8")))
    return found


def bound() -> model.Model:
    """The model as its file binds it now; BTC and ETH are held as legs. Needs pydantic."""
    from gpumargin.bind import bind
    from gpumargin.catalogue import load_model

    return bind(load_model(NAME).file, UNITS, ASSETS, np.isin(ASSETS, UNITS))


if __name__ == "__main__":
    FILE.write_text(json.dumps(plain(bound()), indent=1) + "\n", encoding="utf-8")
    print(FILE)
