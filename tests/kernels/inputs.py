"""Contracts, models and legs small enough to think about, as the records that kernels take."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumargin_kernels.model import AccountModel, Model, VolShock
from gpumargin_kernels.records import Contracts, Legs
from gpumargin_kernels.svi import SviSlice

_INTS = ("unit", "expiry_group", "strike_group")
_PLAIN = {
    "size": 1.0,
    "strike": 100.0,
    "forward_variable": 100.0,
    "years": 0.25,
    "vol": 0.6,
    "mark": np.nan,
    "settlement_ratio": 1.0,
    "quote_ratio": 1.0,
    "confidence": 1.0,
}


def contracts(rows: int = 1, dtype: str = "float64", **given: Any) -> Contracts:
    """Contracts of one unit, linear call options at the money unless a column is given; no SVI fit."""

    def column(name: str) -> np.ndarray:
        kind = np.int32 if name in _INTS else np.bool_ if name.startswith("is_") else np.dtype(dtype)
        value = given.get(name, _PLAIN.get(name, name in ("is_option", "is_call")))
        return np.broadcast_to(np.asarray(value), (rows,)).astype(kind)

    svi = given.get("svi", SviSlice(*(np.full(rows, np.nan, dtype) for _ in SviSlice._fields)))
    unused = {"svi", "inputs"} | ({"is_digital"} - set(given))
    plain = [name for name in Contracts._fields if name not in unused]
    return Contracts(**{name: column(name) for name in plain}, svi=svi, inputs=given.get("inputs", {}))


def vol_shock(units: int = 1, dtype: str = "float64", **given: float) -> VolShock:
    """Derive's published vol shock for every unit, except where a number is given."""
    plain = {
        "up": 0.5,
        "down": 0.275,
        "short_power": 0.3,
        "long_power": 0.13,
        "pivot_years": 30 / 365,
        "floor_years": 1 / 365,
    }
    return VolShock(**{name: np.full(units, value, dtype) for name, value in (plain | given).items()})


def model(dtype: str = "float64", **given: Any) -> Model:
    """A model of one unit without scenarios, components or margins, except for what is given."""
    empty: dict[str, Any] = {
        "scenario_sets": (),
        "components": (),
        "margins": (),
        "spot": np.ones((1, 0), dtype),
        "vol_direction": np.zeros(0, np.int32),
        "weight": np.ones((1, 0), dtype),
        "vol_shock": vol_shock(dtype=dtype),
        "parameters": {},
        "numbers": {},
        "account": AccountModel((), False, (), (), False, (), (), {}, {}, {}),
    }
    return Model(**(empty | given))


def padded_legs(runs: list[tuple[np.ndarray, np.ndarray]], width: int, rows: int, padding: int) -> Legs:
    """Runs of (contract, quantity) as one bucket; slots and rows beyond hold quantity 0 of the padding contract."""
    contract = np.full((rows, width), padding, np.int32)
    quantity = np.zeros((rows, width), runs[0][1].dtype if runs else np.float64)
    for row, (which, much) in enumerate(runs):
        contract[row, : len(which)], quantity[row, : len(which)] = which, much
    return Legs(np.zeros(rows, np.int32), contract, quantity, {})
