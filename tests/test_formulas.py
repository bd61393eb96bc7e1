"""Claims about the value of one formula of a model."""

from __future__ import annotations

import pytest

import gpumargin as gm


def test_a_formula_has_the_models_numbers_for_its_subject_and_the_values_given() -> None:
    model = gm.load_model("deribit-sm")
    path = "components.futures_initial.each.rate"
    assert gm.formula_value(model, path, {"quantity": -25}, subject="BTC") == pytest.approx(0.02125, rel=1e-15)
    assert gm.formula_value(model, path, {"quantity": 6_000, "initial_base": 0.5}, subject="SOL") == pytest.approx(0.53)


def test_a_formula_may_name_others_of_its_part_tables_and_the_models_own_formulas() -> None:
    tiers = "components.initial_rates.each.required"
    given = {"quantity": 1, "price": 1e5}
    assert gm.formula_value(gm.load_model("hyperliquid"), tiers, given, subject="BTC") == pytest.approx(2_500)
    worth = {"amount": -10, "bids": 0, "asks": 0, "price": 100, "twap": 110, "total_deposits": 0}
    model = gm.load_model("drift-v2")
    assert gm.formula_value(model, "collateral.initial.worth", worth, subject="SOL") == pytest.approx(-1_320)


def test_a_condition_is_positive_where_it_holds() -> None:
    model = gm.load_model("dydx-v4")
    for balance, holds in ((99, True), (100, False)):
        values = {"maintenance_balance": balance, "maintenance_margin": 100}
        assert (gm.formula_value(model, "status.liquidatable", values) > 0) == holds


@pytest.mark.parametrize("path", ["components.nothing.each.rate", "margin.nothing", "nonsense", "margin.initial"])
def test_what_is_no_formula_or_lacks_a_value_says_what_is_known(path: str) -> None:
    with pytest.raises(gm.UsageError, match="known"):
        gm.formula_value(gm.load_model("deribit-sm"), path, {"unused": 1.0})
