"""Derive's second portfolio margin and a plain-Python oracle agree on random accounts of random parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle.pm2 import margin_case
from tests.reference.pm2_books import results_of
from tests.sampled import rest_slow

_DAY = 86_400
_LEVELS = (1.2, 1.1, 1.0, 0.9, 0.8)


def a_scenario_list(rng: np.random.Generator) -> list[dict[str, Any]]:
    """A grid, tails that are dampened, and both turns of the smile."""
    grid = [{"spot": level, "vol": vol, "dampening": 1.0} for level in _LEVELS for vol in ("up", "none", "down")]
    tails = [{"spot": level, "vol": "up", "dampening": float(rng.uniform(0, 0.5))} for level in (0.3, 0.6, 1.7, 4.0)]
    turns = [
        {"spot": 1.0, "vol": f"skew_{kind}", "dampening": float(rng.uniform(0.5, 2))} for kind in ("linear", "abs")
    ]
    return [*grid, *tails, *turns]


def some_params(rng: np.random.Generator, names: list[str]) -> dict[str, Any]:
    """Parameters around those of the chain, discounts on either side of 1."""

    def near(value: float) -> float:
        return float(value * rng.uniform(0.7, 1.3))

    return {
        "vol_shock": {
            "range_up": near(0.5),
            "range_down": near(0.3),
            "short_term_power": near(0.3),
            "long_term_power": near(0.13),
            "dte_floor_days": near(1.0),
            "min_up_vol": near(0.45),
        },
        "factors": {"im": near(1.1), "mm": near(0.85)},
        "discount": {
            "pos_static": float(rng.uniform(0.9, 1.1)),
            "neg_static": float(rng.uniform(0.9, 1.1)),
            "pos_rate_mult": near(1.0),
            "neg_rate_mult": near(0.5),
            "pos_rate_add": near(0.1),
            "neg_rate_add": near(0.1),
        },
        "forward_contingency": {"spot_up": 1.045, "spot_down": 0.955, "add": near(0.5), "mult": near(2.0)},
        "contingency": {
            "peg_threshold": 0.99,
            "peg_factor": near(4.0),
            "conf_threshold": near(0.55),
            "conf_scale": near(0.7),
            "mm_perp": near(0.03),
            "im_perp_extra": near(0.01),
            "mm_option": near(0.003),
            "im_option_extra": near(0.002),
        },
        "skew": {
            "linear_cap": near(0.25),
            "abs_cap": near(0.2),
            "linear_slope": near(-0.1),
            "abs_slope": near(-0.1),
            "min_k_star": 0.01,
            "width": near(4.0),
            "vol_static": near(0.6),
            "vol_slope": near(-0.1),
        },
        "collateral": [
            {"name": n, "risk_cancelling": i % 2 == 0, "mm_haircut": near(0.1), "im_haircut_extra": near(0.05)}
            for i, n in enumerate(names)
        ],
    }


def a_case(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An account of three expiries, a perpetual and two collaterals, with some feeds of low confidence."""
    rng = np.random.default_rng(seed)
    spot, names = float(rng.uniform(500, 90_000)), ["ONE", "TWO"]

    def confidence() -> float:
        return float(rng.choice([1.0, 0.8, 0.5, 0.2]))

    seconds = [int(rng.uniform(0.05, 9) * _DAY), int(rng.uniform(20, 40) * _DAY), int(rng.uniform(200, 1_500) * _DAY)]
    fixed = [spot * 0.3, 0.0, 0.0]
    options = [
        {
            "seconds_to_expiry": at,
            "strike": float(round(spot * rng.uniform(0.6, 1.6), 2)),
            "kind": str(rng.choice(["call", "put"])),
            "amount": float(np.round(rng.normal(0, 3), 3) + 0.0005),
            "vol": float(rng.uniform(0.2, 1.5)),
        }
        for at in seconds
        for _ in range(3)
    ]
    feeds = ("forward_confidence", "rate_confidence", "vol_confidence")
    expiries = [
        {
            "seconds_to_expiry": at,
            "forward_fixed": known,
            "forward_variable": spot * float(rng.uniform(0.98, 1.02)) - known,
            "rate": float(rng.uniform(-0.05, 0.15)),
            **{feed: confidence() for feed in feeds},
        }
        for at, known in zip(seconds, fixed, strict=True)
    ]
    perpetual = float(rng.choice([0.0, 1.5, -4.0]))
    case = {
        "account": {
            "cash": float(rng.normal(0, 5) * spot),
            "perp_size": perpetual,
            "perp_unsettled_cash": float(rng.normal(0, 0.1) * spot),
            "collateral": [{"name": n, "amount": float(rng.uniform(0.1, 5))} for n in names],
            "options": options,
        },
        "market": {
            "spot": spot,
            "spot_confidence": confidence(),
            "stable_price": float(rng.uniform(0.97, 1.01)),
            "perp_price": spot * float(rng.uniform(0.97, 1.03)),
            "perp_confidence": confidence(),
            "collateral": [
                {"name": n, "price": spot * float(rng.uniform(0.9, 1.1)), "confidence": confidence()} for n in names
            ],
            "expiries": expiries,
        },
        "params": some_params(rng, names),
    }
    return case, a_scenario_list(rng)


@pytest.mark.parametrize("seed", rest_slow(range(12), range(4)))
def test_random_accounts_have_every_figure_of_the_oracle(seed: int) -> None:
    case, scenarios = a_case(seed)
    expected = margin_case(case, scenarios)
    found = results_of({**case, "expected": expected}, scenarios)
    size = 1e-9 * (abs(expected["portfolio_mtm"]) + max(map(abs, expected["scenario_pnl"])) + 1)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=size, err_msg=name)
