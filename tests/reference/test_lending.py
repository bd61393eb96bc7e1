"""Lending health, collateral tiers and dynamic haircuts: published figures and worked examples."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from gpumargin.catalogue import load_model
from gpumargin.run import margin
from gpumargin.tables import read_book
from gpumargin_kernels import (
    Holding,
    Stress,
    bracket,
    collateral_haircut,
    discounted_collateral,
    effective_rate,
    marginal,
)
from tests.reference.folders import read_cases

pytestmark = pytest.mark.reference

HANDLED = {"exchange_vectors/lending_health.json", "risk_vectors/collateral_tiers.json", "risk_vectors/haircut.json"}
_REASON = "no reference cases on this machine; set GPUMARGIN_REFERENCE"


def cases(name: str) -> list[Any]:
    """Every case of a file of `cases`, or the file itself where it is one case."""
    content = read_cases(name)
    if content is None:
        return [pytest.param(None, marks=pytest.mark.skip(reason=_REASON), id="absent")]
    return [pytest.param(case, id=case["id"]) for case in content.get("cases", [content])]


def account_of(model: str, collateral: float, price: float, debt: float, shares: dict[str, float]) -> dict[str, Any]:
    """Result of one account with one collateral C and a debt D, shares of C by margin type."""
    time = pl.Datetime("us", "UTC")
    book = read_book(
        instruments=pl.DataFrame(
            schema=dict.fromkeys(("instrument_id", "kind", "underlying", "settlement"), pl.String)
        ),
        marks=pl.DataFrame(schema={"instrument_id": pl.String}),
        forwards=pl.DataFrame(schema={"underlying": pl.String, "expiry": time, "forward": pl.Float64}),
        positions=pl.DataFrame(schema={"account_id": pl.String, "instrument_id": pl.String, "quantity": pl.Float64}),
        prices=pl.DataFrame({"asset": ["C", "D"], "price": [float(price), 1.0]}),
        balances=pl.DataFrame(
            {"account_id": ["a", "a"], "asset": ["C", "D"], "amount": [float(collateral), -float(debt)]}
        ),
    )
    chosen = load_model(model).replace({f"collateral.{kind}.assets.C": share for kind, share in shares.items()})
    run = margin(book, chosen, as_of="2026-03-05T08:00:00Z", device="cpu")
    run.explain("a")
    return run.accounts.row(0, named=True)


def health_factor(given: dict[str, Any]) -> dict[str, Any]:
    shares = {"maintenance": given["liquidation_threshold"]}
    row = account_of("aave-v3", given["collateral_value"], 1.0, given["debt_value"], shares)
    return {"health_factor": row["health"]}


def liquidatable(given: dict[str, Any]) -> dict[str, Any]:
    shares = {"maintenance": given["liquidate_cf"]}
    row = account_of("compound-v3", given["collateral"], given["price"], given["debt"], shares)
    return {"liquidatable": row["maintenance_excess"] < 0 and row["status"] in {"liquidatable", "bankrupt"}}


def borrow_collateralised(given: dict[str, Any]) -> dict[str, Any]:
    shares = {"initial": given["borrow_cf"]}
    row = account_of("compound-v3", given["collateral"], given["price"], given["debt"], shares)
    return {"ok": row["initial_excess"] >= 0}


def discounted_collateral_quote(given: dict[str, Any]) -> dict[str, Any]:
    found = discounted_collateral(
        jnp.asarray(float(given["base_value"])),
        jnp.asarray(float(given["collateral_price"])),
        store_front_factor=jnp.asarray(given["store_front_factor"]),
        liquidation_factor=jnp.asarray(given["liquidation_factor"]),
    )
    return {"collateral": float(found)}


FORMS = {
    form.__name__: form for form in (health_factor, liquidatable, borrow_collateralised, discounted_collateral_quote)
}


@pytest.mark.parametrize("case", cases("exchange_vectors/lending_health.json"))
def test_lending_venues_figures_are_reproduced(case: dict[str, Any]) -> None:
    found = FORMS[case["inputs"]["kind"]](case["inputs"])
    for name, expected in case["expected"].items():
        if isinstance(expected, bool):
            assert found[name] == expected
        else:
            # health factors are published to some decimals, all else in full
            room = 0.5 * 10.0 ** -len(repr(expected).partition(".")[2]) if name == "health_factor" else 0.0
            assert found[name] == pytest.approx(expected, rel=1e-9, abs=room)


@pytest.mark.parametrize("case", cases("risk_vectors/collateral_tiers.json"))
def test_tiers_count_slices_or_the_whole(case: dict[str, Any]) -> None:
    tiers = case["inputs"]["tiers"]
    table = jnp.asarray([[np.inf if tier["to"] is None else tier["to"], tier["rate"]] for tier in tiers])
    values = jnp.asarray(case["inputs"]["values"])
    tables = jnp.broadcast_to(table, (len(values), *table.shape))
    found = {
        "value": values,
        "marginal": jax.jit(marginal)(values, tables),
        "cliff": values * jax.jit(bracket)(values, tables),
        "effective_rate": jax.jit(effective_rate)(values, tables),
    }
    for index, row in enumerate(case["expected"]["rows"]):
        for name, expected in row.items():
            assert float(found[name][index]) == pytest.approx(expected, rel=1e-12), name


_HAIRCUT = {
    "liquidation_days": "liquidation_days",
    "effective_days": "effective_days",
    "sigma_tau": "vol",
    "haircut_diffusion": "diffusion",
    "liquidation_cost": "liquidation_cost",
    "haircut_base": "base",
    "haircut_wrong_way": "wrong_way",
    "jump_quantile": "jump_quantile",
    "haircut_jump": "jump",
    "haircut_final": "final",
}


@pytest.mark.parametrize("case", cases("risk_vectors/haircut.json"))
def test_haircuts_follow_from_price_risk_and_the_cost_of_selling(case: dict[str, Any]) -> None:
    given = {name: jnp.asarray(float(value)) for name, value in case["inputs"].items()}
    holding = Holding(
        quantity=given["qty"],
        daily_volume=given["adv"],
        daily_vol=given["sigma_daily"],
        base_days=given["base_days"],
        participation=given["participation"],
        spread=given["spread"],
        impact=given["impact_y"],
    )
    stress = Stress(
        confidence=given["confidence"],
        exposure_confidence=given["exposure_confidence"],
        correlation=given["wwr_rho"],
        jump_probability=given["jump_prob"],
        jump_size=given["jump_size"],
    )
    found = jax.jit(collateral_haircut)(holding, stress)
    for name, expected in case["expected"].items():
        assert float(getattr(found, _HAIRCUT[name])) == pytest.approx(expected, rel=1e-9), name
